//! Random small graphs from the operator schema table, converted to 16 bits: whatever the checker
//! accepts and onnxruntime runs before, they accept after.
//!
//! A few hundred by default; `MODELOPT_RANDOM_GRAPHS=5000` for as many as one likes. Graphs depend
//! on a fixed seed and their number alone.

use std::path::{Path, PathBuf};

use modelopt::Config;
use modelopt::graph::schema::{self, FormalOption, OpSchema, TypeRef};
use modelopt::graph::{
    Attribute, Constant, DataType, Dim, Model, ModelInfo, NewNode, Operator, OpsetImport, Origin,
    Place, Tensor, Type, ValueId, ValueInfo, infer,
};
use modelopt::rewrite::{Interface, Scheme};
use ndarray::Array;
use ndarray_npy::NpzWriter;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use xtask::oracle::{self, RunJob};
use xtask::parallel::parallel;

const SHAPE: [usize; 3] = [2, 3, 4];
const OPSETS: [i64; 8] = [9, 11, 13, 15, 17, 18, 20, 22];

/// How many graphs must have been accepted before conversion.
fn wanted() -> usize {
    let variable = std::env::var("MODELOPT_RANDOM_GRAPHS").ok();
    variable.map_or(300, |text| text.parse().expect("MODELOPT_RANDOM_GRAPHS is a number"))
}

/// A graph under construction.
struct Growing {
    model: Model,
    random: SmallRng,
    values: Vec<ValueId>,
}

impl Growing {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())]
    }

    fn chance(&mut self, share: f64) -> bool {
        self.random.random_bool(share)
    }

    fn input(&mut self, name: &str, elem: DataType) {
        let value = self.model.add_value(name);
        let shape = Some(SHAPE.iter().map(|&size| Dim::Fixed(size)).collect());
        let ty = Some(Type::Tensor { elem, shape }.into());
        let main = self.model.main();
        self.model.add_input(main, ValueInfo { value, ty, origin: Origin::NONE });
        self.values.push(value);
    }

    fn weight(&mut self) {
        let count = SHAPE.iter().product();
        let numbers: Vec<f32> =
            (0..count).map(|_| self.random.random_range(-2.0f32..2.0)).collect();
        let value = self.model.add_value("W");
        let tensor = Tensor::of(SHAPE.to_vec(), &numbers).unwrap();
        let main = self.model.main();
        self.model.set_constant(main, value, Constant::Dense(tensor.into()));
        self.values.push(value);
    }

    fn elem(&self, value: ValueId) -> Option<DataType> {
        self.model.value(value).elem()
    }

    /// A value that an input may be, given what its type variables are already.
    fn operand(
        &mut self,
        schema: &OpSchema,
        ty: TypeRef,
        bound: &[Option<DataType>],
    ) -> Option<ValueId> {
        let fits = |elem: DataType| match ty {
            TypeRef::Concrete(ty) => ty.elem() == Some(elem),
            TypeRef::Variable(index) => match bound[index] {
                Some(known) => known == elem,
                None => {
                    schema.type_variables[index].allowed.iter().any(|ty| ty.elem() == Some(elem))
                }
            },
        };
        let fitting: Vec<ValueId> =
            self.values.iter().copied().filter(|&v| self.elem(v).is_some_and(fits)).collect();
        (!fitting.is_empty()).then(|| self.pick(&fitting))
    }

    fn attributes(&mut self, schema: &OpSchema) -> Option<Vec<Attribute>> {
        let types = [DataType::FLOAT, DataType::FLOAT16, DataType::INT64, DataType::BOOL];
        let to = i64::from(self.pick(&types).number());
        schema
            .attributes
            .iter()
            .filter(|attribute| attribute.required)
            .map(|attribute| match attribute.name {
                "to" => Some(Attribute::new("to", to)),
                "axis" => Some(Attribute::new("axis", 0)),
                "axes" => Some(Attribute::new("axes", vec![0])),
                "kernel_shape" => Some(Attribute::new("kernel_shape", vec![2])),
                "blocksize" => Some(Attribute::new("blocksize", 1)),
                _ => None,
            })
            .collect()
    }

    /// Adds a node, if one of this operator can be made of what there is.
    fn grow(&mut self, schema: &OpSchema) -> Option<()> {
        let mut bound = vec![None; schema.type_variables.len()];
        let mut inputs = Vec::new();
        for formal in &schema.inputs {
            let count = match formal.option {
                FormalOption::Single => 1,
                FormalOption::Optional if self.chance(0.3) => 1,
                FormalOption::Optional => break,
                FormalOption::Variadic if formal.homogeneous => 2,
                FormalOption::Variadic => return None,
            };
            for _ in 0..count {
                let value = self.operand(schema, formal.ty, &bound)?;
                if let TypeRef::Variable(index) = formal.ty {
                    bound[index] = self.elem(value);
                }
                inputs.push(Some(value));
            }
        }
        let attributes = self.attributes(schema)?;
        let outputs: Vec<ValueId> = (0..schema.min_outputs.max(1))
            .map(|_| {
                let name = self.model.fresh_name("v");
                self.model.add_value(name)
            })
            .collect();
        let name = self.model.fresh_name("n");
        let node = self.model.insert(
            NewNode {
                name,
                op: Operator::onnx(schema.name),
                inputs,
                outputs: outputs.iter().copied().map(Some).collect(),
                attributes,
                origin: Origin::NONE,
            },
            Place::Back(self.model.main()),
        );
        let types = infer::infer_node(&self.model, node);
        if types.len() != outputs.len()
            || types.iter().any(|ty| !matches!(ty, Some(Type::Tensor { .. })))
        {
            self.model.remove(node);
            return None;
        }
        for (value, ty) in outputs.into_iter().zip(types) {
            self.model.set_type(value, ty);
            self.values.push(value);
        }
        Some(())
    }
}

fn is_usable(schema: &OpSchema) -> bool {
    let graphs = schema.attributes.iter().any(|attribute| {
        matches!(attribute.kind, schema::AttributeKind::Graph | schema::AttributeKind::Graphs)
    });
    schema.domain.is_empty()
        && !schema.deprecated
        && !schema.experimental
        && !schema.random
        && !graphs
}

/// The newest version of every operator at an opset.
fn operators(opset: i64) -> Vec<&'static OpSchema> {
    let mut found: Vec<&'static OpSchema> = Vec::new();
    for schema in schema::all().iter().filter(|schema| schema.domain.is_empty()) {
        if schema::lookup("", schema.name, opset).is_some_and(|at| std::ptr::eq(at, schema))
            && is_usable(schema)
        {
            found.push(schema);
        }
    }
    found
}

fn random_model(number: u64) -> Model {
    let mut random = SmallRng::seed_from_u64(number);
    let opset = OPSETS[random.random_range(0..OPSETS.len())];
    let import = OpsetImport { domain: String::new(), version: opset, origin: Origin::NONE };
    let info = ModelInfo { ir_version: 8, opsets: vec![import], ..ModelInfo::default() };
    let mut growing = Growing { model: Model::new(info), random, values: Vec::new() };
    let main = growing.model.main();
    growing.model.graph_mut(main).name = "random".into();
    growing.input("x", DataType::FLOAT);
    growing.input("z", DataType::FLOAT);
    growing.input("i", DataType::INT64);
    growing.input("b", DataType::BOOL);
    growing.weight();
    let operators = operators(opset);
    let nodes = growing.random.random_range(1..6);
    let mut made = 0;
    for _ in 0..100 {
        let schema = growing.pick(&operators);
        made += usize::from(growing.grow(schema).is_some());
        if made == nodes {
            break;
        }
    }
    let unread: Vec<ValueId> = growing
        .values
        .iter()
        .copied()
        .filter(|&v| {
            growing.model.producer_node(v).is_some() && growing.model.value(v).uses().is_empty()
        })
        .collect();
    for value in unread {
        let ty = growing.model.value(value).ty().cloned().map(Into::into);
        growing.model.add_output(main, ValueInfo { value, ty, origin: Origin::NONE });
    }
    growing.model
}

/// What a tool accepts, asked in as many processes as there are cores.
fn accepted(models: &[PathBuf], ask: fn(&[PathBuf]) -> Vec<oracle::Answer>) -> Vec<Option<String>> {
    let parts: Vec<&[PathBuf]> = models.chunks(models.len().div_ceil(2).max(1)).collect();
    let answers = parallel(&parts, |part| ask(part));
    answers.into_iter().flatten().map(|answer| answer.error).collect()
}

fn checked(models: &[PathBuf]) -> Vec<Option<String>> {
    accepted(models, |part| oracle::check_models(part).unwrap())
}

fn loaded(models: &[PathBuf]) -> Vec<Option<String>> {
    accepted(models, |part| oracle::load_models(part).unwrap())
}

/// Why onnxruntime does not run a model, for each; a shape that cannot be is only seen then.
fn run(models: &[PathBuf], sample: &Path) -> Vec<Option<String>> {
    let job = |model: &PathBuf| RunJob {
        original: model.clone(),
        candidate: model.clone(),
        samples: vec![sample.to_owned()],
        time: false,
    };
    let jobs: Vec<RunJob> = models.iter().map(job).collect();
    let parts: Vec<&[RunJob]> = jobs.chunks(jobs.len().div_ceil(2).max(1)).collect();
    let answers = parallel(&parts, |part| oracle::run_models(part).unwrap());
    answers.into_iter().flatten().map(|answer| answer.error).collect()
}

/// One array for each input of a random graph.
fn write_sample(path: &Path) {
    let mut file = NpzWriter::new(fs_err::File::create(path).unwrap());
    let count = SHAPE.iter().product::<usize>();
    let numbers = |scale: f32| (0..count).map(move |n| (n as f32 - 7.5) * scale);
    let shaped = |numbers: Vec<f32>| Array::from_shape_vec(SHAPE, numbers).unwrap();
    file.add_array("x", &shaped(numbers(0.2).collect())).unwrap();
    file.add_array("z", &shaped(numbers(-0.1).collect())).unwrap();
    file.add_array("i", &shaped(numbers(1.0).collect()).mapv(|x| x as i64 % 2)).unwrap();
    file.add_array("b", &shaped(numbers(1.0).collect()).mapv(|x| x > 0.0)).unwrap();
    file.finish().unwrap();
}

fn configurations() -> [(&'static str, Config, bool); 3] {
    let io = Config { io: Interface::Fp16, ..Config::converting(Scheme::FP16) };
    [
        ("fp16", Config::converting(Scheme::FP16), true),
        ("io", io, true),
        // onnxruntime has few kernels for it.
        ("bf16", Config::converting(Scheme::BF16), false),
    ]
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_was_accepted_is_accepted_after_conversion() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("random_graphs");
    fs_err::create_dir_all(&folder).unwrap();
    let sample = folder.join("sample.npz");
    write_sample(&sample);
    let (mut number, mut found, mut converted) = (0, 0, 0);
    let mut wrong: Vec<String> = Vec::new();
    while found < wanted() {
        let models: Vec<(u64, Model)> =
            (number..number + 1000).map(|number| (number, random_model(number))).collect();
        number += 1000;
        assert!(number < 200 * wanted() as u64 + 2000, "too few graphs are accepted: {found}");
        let path = |number: u64, way: &str| folder.join(format!("{number}.{way}.onnx"));
        let save = |model: &Model, path: &PathBuf| {
            fs_err::write(path, modelopt::onnx::to_bytes(model).unwrap()).unwrap();
        };
        let originals: Vec<PathBuf> = models.iter().map(|(n, _)| path(*n, "original")).collect();
        for ((_, model), path) in models.iter().zip(&originals) {
            save(model, path);
        }
        let refused = checked(&originals).into_iter().zip(run(&originals, &sample));
        let good: Vec<&(u64, Model)> = models
            .iter()
            .zip(refused)
            .filter(|(_, (check, run))| check.is_none() && run.is_none())
            .map(|(model, _)| model)
            .collect();
        found += good.len();
        for (way, config, must_load) in configurations() {
            let candidates: Vec<PathBuf> = parallel(&good, |(number, model)| {
                let transformed = modelopt::transform(model, &config).unwrap();
                let path = path(*number, way);
                save(&transformed.model, &path);
                path
            });
            let loads = if must_load { loaded(&candidates) } else { vec![None; candidates.len()] };
            for ((path, check), load) in candidates.iter().zip(checked(&candidates)).zip(loads) {
                converted += usize::from(check.is_none() && load.is_none());
                let complaint = check.or(load).map(|error| format!("{}: {error}", path.display()));
                wrong.extend(complaint);
            }
        }
    }
    println!("{found} of {number} graphs accepted, {converted} conversions of them");
    assert!(wrong.is_empty(), "{} of {found}:\n{}", wrong.len(), wrong.join("\n"));
}
