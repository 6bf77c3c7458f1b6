//! Inference against the ONNX node tests: what is derived must be what ONNX declares and what
//! its reference implementation returned.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use modelopt_graph::{
    AttributeValue, Constant, DataType, Dim, GraphId, Model, NodeId, Producer, Shape, Tensor, Type,
    ValueId, infer,
};

/// How many outputs there are, and for how many what was derived.
#[derive(Default)]
struct Count {
    outputs: usize,
    types: usize,
    tensors: usize,
    ranks: usize,
    shapes: usize,
    sizes: usize,
    sizes_known: usize,
}

impl Count {
    fn add(&mut self, found: Option<&Type>, truth: &Type) {
        self.outputs += 1;
        self.types += usize::from(found.is_some_and(|found| same_kind(found, truth)));
        let Some(wanted) = truth.shape() else {
            return;
        };
        self.tensors += 1;
        self.sizes += wanted.len();
        if let Some(shape) = found.and_then(Type::shape) {
            let known = shape.iter().filter(|size| **size != Dim::Unknown).count();
            self.ranks += 1;
            self.shapes += usize::from(known == shape.len());
            self.sizes_known += known;
        }
    }

    fn report(&self, what: &str) {
        let share = |part: usize, whole: usize| 100.0 * part as f64 / whole as f64;
        println!(
            "{what}: {} outputs, types {:.2} %, ranks {:.2} %, full shapes {:.2} %, sizes {:.2} %",
            self.outputs,
            share(self.types, self.outputs),
            share(self.ranks, self.tensors),
            share(self.shapes, self.tensors),
            share(self.sizes_known, self.sizes),
        );
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn derived_types_are_those_of_onnx() {
    let (mut as_is, mut constant) = (Count::default(), Count::default());
    let (mut wrong, mut unknown) = (String::new(), String::new());
    for folder in xtask::testdata::node_tests() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let loaded = load(&folder);
        let declared = output_types(&loaded);
        let returned = tensors(&folder, "output", declared.len());

        let mut model = loaded.clone();
        forget(&mut model);
        infer::infer(&mut model);
        compare(&name, &model, &declared, &returned, &mut as_is, &mut wrong, &mut unknown);

        // With constant inputs, shapes that depend on their elements follow too.
        let mut model = loaded;
        let inputs = model.graph(model.main()).inputs.len();
        fix_inputs(&mut model, tensors(&folder, "input", inputs));
        forget(&mut model);
        infer::infer(&mut model);
        let mut seen = String::new();
        compare(&name, &model, &declared, &returned, &mut constant, &mut wrong, &mut seen);
    }
    as_is.report("inputs open");
    constant.report("inputs constant");
    println!("types not derived:\n{unknown}");
    assert!(wrong.is_empty(), "derived, but not so:\n{wrong}");
    assert!(as_is.outputs >= 1884);
    for count in [&as_is, &constant] {
        assert!(count.types * 100 >= count.outputs * 99, "{} of {}", count.types, count.outputs);
    }
    assert!(as_is.ranks * 100 >= as_is.tensors * 99);
    assert!(as_is.shapes * 100 >= as_is.tensors * 84);
    assert!(constant.shapes * 100 >= constant.tensors * 95);
}

/// Whatever sizes, attributes and versions say, inference ends without a panic.
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn hostile_models_are_survived() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for folder in xtask::testdata::node_tests() {
        let loaded = load(&folder);
        let inputs = loaded.graph(loaded.main()).inputs.len();
        let mut fixed = loaded.clone();
        fix_inputs(&mut fixed, tensors(&folder, "input", inputs));
        for round in 0..12 {
            let mut model = if round % 2 == 0 { loaded.clone() } else { fixed.clone() };
            forget(&mut model);
            spoil(&mut model, &mut random);
            infer::infer(&mut model);
            for node in model.walk() {
                let types = infer::infer_node(&model, node);
                assert_eq!(types.len(), model.node(node).outputs().len());
            }
        }
    }
}

fn load(folder: &Path) -> Model {
    let path = folder.join("model.onnx");
    modelopt_onnx::load(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn output_types(model: &Model) -> Vec<Option<Type>> {
    let outputs = &model.graph(model.main()).outputs;
    outputs.iter().map(|info| info.ty.as_ref().map(|declared| declared.ty.clone())).collect()
}

/// Takes away every type but those of inputs and constants.
fn forget(model: &mut Model) {
    for graph in model.all_graphs() {
        let graph = model.graph_mut(graph);
        graph.declared.clear();
        for output in &mut graph.outputs {
            output.ty = None;
        }
    }
    let values: Vec<ValueId> = model.values().collect();
    for value in values {
        if matches!(model.value(value).producer(), Producer::Node(..) | Producer::None) {
            model.set_type(value, None);
        }
    }
}

/// The recorded tensors of a test; `None` for what is no tensor.
fn tensors(folder: &Path, side: &str, count: usize) -> Vec<Option<Tensor>> {
    let path = |index: usize| -> PathBuf {
        folder.join("test_data_set_0").join(format!("{side}_{index}.pb"))
    };
    (0..count)
        .map(|index| {
            let bytes = std::fs::read(path(index)).ok()?;
            modelopt_onnx::read_tensor(Bytes::from(bytes)).ok().map(|(_, tensor)| tensor)
        })
        .collect()
}

/// Makes the main graph's tensor inputs constants.
fn fix_inputs(model: &mut Model, tensors: Vec<Option<Tensor>>) {
    let main = model.main();
    let infos: Vec<_> = model
        .graph(main)
        .inputs
        .iter()
        .map(|info| (info.value, info.ty.as_ref().and_then(|declared| declared.ty.elem())))
        .collect();
    for ((value, elem), tensor) in infos.into_iter().zip(tensors) {
        // Sequences are read as empty tensors, so the type has to agree.
        if let Some(tensor) = tensor.filter(|tensor| elem == Some(tensor.dtype())) {
            model.set_constant(main, value, Constant::Dense(Arc::new(tensor)));
        }
    }
    model.freeze_defaulted_inputs();
}

fn compare(
    name: &str,
    model: &Model,
    declared: &[Option<Type>],
    returned: &[Option<Tensor>],
    count: &mut Count,
    wrong: &mut String,
    unknown: &mut String,
) {
    let outputs = &model.graph(model.main()).outputs;
    for ((info, declared), returned) in outputs.iter().zip(declared).zip(returned) {
        let Some(declared) = declared else {
            continue;
        };
        let found = match model.producer_node(info.value) {
            Some(node) => derived(model, node, info.value),
            None => model.value(info.value).ty().cloned(),
        };
        count.add(found.as_ref(), declared);
        let Some(found) = found else {
            let _ = writeln!(unknown, "  {name}: {declared}");
            continue;
        };
        let actual = returned
            .as_ref()
            .filter(|tensor| declared.elem() == Some(tensor.dtype()))
            .map(|tensor| tensor.shape().iter().map(|&size| Dim::Fixed(size)).collect::<Shape>());
        if !same_kind(&found, declared)
            || contradicts(&found, declared)
            || actual.is_some_and(|shape| shapes_contradict(found.shape(), Some(&shape)))
        {
            let shape = returned.as_ref().map(Tensor::shape);
            let _ = writeln!(
                wrong,
                "  {name}: derived {found}, declared {declared}, returned {shape:?}"
            );
        }
    }
}

/// What [`infer::infer_node`] says of one output, which must be what [`infer::infer`] said.
fn derived(model: &Model, node: NodeId, value: ValueId) -> Option<Type> {
    let outputs = model.node(node).outputs();
    let index = outputs.iter().position(|output| *output == Some(value)).unwrap();
    infer::infer_node(model, node)[index].clone()
}

fn same_kind(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Tensor { elem, .. }, Type::Tensor { elem: other, .. })
        | (Type::SparseTensor { elem, .. }, Type::SparseTensor { elem: other, .. }) => {
            elem == other
        }
        (Type::Sequence(a), Type::Sequence(b)) | (Type::Optional(a), Type::Optional(b)) => {
            same_kind(a, b)
        }
        (Type::Map { key, value }, Type::Map { key: other, value: with }) => {
            key == other && same_kind(value, with)
        }
        _ => a == b,
    }
}

fn contradicts(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Sequence(a), Type::Sequence(b)) | (Type::Optional(a), Type::Optional(b)) => {
            contradicts(a, b)
        }
        _ => shapes_contradict(a.shape(), b.shape()),
    }
}

fn shapes_contradict(a: Option<&Shape>, b: Option<&Shape>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return false;
    };
    a.len() != b.len()
        || a.iter().zip(b).any(|pair| match pair {
            (Dim::Fixed(a), Dim::Fixed(b)) => a != b,
            _ => false,
        })
}

/// A small deterministic generator (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn number(&mut self) -> i64 {
        const EXTREME: [i64; 14] = [
            i64::MIN,
            i64::MIN + 1,
            -(1 << 32),
            -3,
            -2,
            -1,
            0,
            1,
            2,
            3,
            7,
            1 << 31,
            i64::MAX - 1,
            i64::MAX,
        ];
        EXTREME[self.below(EXTREME.len())]
    }

    fn shape(&mut self) -> Option<Shape> {
        let rank = [0, 1, 2, 3, 4, 5, 9, 70][self.below(8)];
        let size = |random: &mut Self| match random.below(8) {
            0 => Dim::Unknown,
            1 => Dim::Symbol("n".into()),
            2 => Dim::Symbol("m".repeat(300)),
            3 => Dim::Fixed(usize::MAX),
            4 => Dim::Fixed(i64::MAX as usize),
            5 => Dim::Fixed(0),
            other => Dim::Fixed(other - 5),
        };
        (!self.one_in(5)).then(|| (0..rank).map(|_| size(self)).collect())
    }
}

/// Puts extreme values where a file could.
fn spoil(model: &mut Model, random: &mut Random) {
    for import in &mut model.info.opsets {
        if random.one_in(3) {
            import.version = random.number();
        }
    }
    for node in model.walk() {
        for attribute in &mut model.node_mut(node).attributes {
            match &mut attribute.value {
                AttributeValue::Int(value) if random.one_in(2) => *value = random.number(),
                AttributeValue::Ints(values) => {
                    for value in values.iter_mut() {
                        if random.one_in(3) {
                            *value = random.number();
                        }
                    }
                    match random.below(4) {
                        0 => values.push(random.number()),
                        1 => drop(values.pop()),
                        _ => {}
                    }
                }
                AttributeValue::Float(value) if random.one_in(3) => *value = f32::NAN,
                _ => {}
            }
        }
        let inputs = model.node(node).inputs().len();
        if inputs > 0 && random.one_in(6) {
            let index = random.below(inputs);
            model.set_input(node, index, None);
        }
        if inputs > 1 && random.one_in(6) {
            let other = model.node(node).input(random.below(inputs));
            model.set_input(node, random.below(inputs), other);
        }
    }
    for graph in model.all_graphs() {
        spoil_inputs(model, graph, random);
        spoil_constants(model, graph, random);
    }
}

fn spoil_inputs(model: &mut Model, graph: GraphId, random: &mut Random) {
    let inputs: Vec<ValueId> = model.graph(graph).inputs.iter().map(|info| info.value).collect();
    for value in inputs {
        let Some(elem) = model.value(value).ty().and_then(Type::elem) else {
            continue;
        };
        let elem =
            if random.one_in(6) { DataType::from_number(random.below(40) as i32) } else { elem };
        if random.one_in(2) {
            model.set_type(value, Some(Type::Tensor { elem, shape: random.shape() }));
        } else if random.one_in(9) {
            model.set_type(value, None);
        }
    }
}

fn spoil_constants(model: &mut Model, graph: GraphId, random: &mut Random) {
    for value in model.initializers_of(graph).to_vec() {
        let Some(Constant::Dense(tensor)) = model.value(value).constant() else {
            continue;
        };
        if tensor.dtype() != DataType::INT64 || tensor.len() > 64 || random.one_in(3) {
            continue;
        }
        let shape = tensor.shape().to_vec();
        let numbers: Vec<i64> = (0..tensor.len()).map(|_| random.number()).collect();
        let tensor = Tensor::of(shape, &numbers).unwrap();
        model.clear_constant(value);
        model.set_constant(graph, value, Constant::Dense(Arc::new(tensor)));
    }
}
