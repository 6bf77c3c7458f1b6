//! Inference through bodies of control flow, calls of functions, and declarations.

use std::sync::Arc;
use std::time::{Duration, Instant};

use modelopt_graph::{
    Attribute, AttributeValue, Constant, DataType, Dim, Function, GraphId, Model, ModelInfo,
    NewNode, NodeId, Operator, OpsetImport, Origin, Owner, Place, Tensor, Type, ValueId, ValueInfo,
    infer,
};

/// A model under construction; values go by name.
struct Build {
    model: Model,
}

impl Build {
    fn new() -> Self {
        let opsets = imports();
        Build { model: Model::new(ModelInfo { ir_version: 10, opsets, ..ModelInfo::default() }) }
    }

    fn main(&self) -> GraphId {
        self.model.main()
    }

    fn value(&mut self, name: &str) -> ValueId {
        let found = self.model.values().find(|&value| self.model.value(value).name() == name);
        found.unwrap_or_else(|| self.model.add_value(name))
    }

    fn graph(&mut self) -> GraphId {
        self.model.add_graph(Owner::Model)
    }

    fn input(&mut self, graph: GraphId, name: &str, ty: Option<Type>) {
        let value = self.value(name);
        let ty = ty.map(Into::into);
        self.model.add_input(graph, ValueInfo { value, ty, origin: Origin::NONE });
    }

    fn output(&mut self, graph: GraphId, name: &str) {
        let value = self.value(name);
        self.model.add_output(graph, ValueInfo { value, ty: None, origin: Origin::NONE });
    }

    fn declare(&mut self, name: &str, ty: Type) {
        let value = self.value(name);
        self.model.set_type(value, Some(ty.clone()));
        let main = self.main();
        let info = ValueInfo { value, ty: Some(ty.into()), origin: Origin::NONE };
        self.model.graph_mut(main).declared.push(info);
    }

    fn constant(&mut self, name: &str, tensor: Tensor) {
        let (main, value) = (self.main(), self.value(name));
        self.model.set_constant(main, value, Constant::Dense(Arc::new(tensor)));
    }

    fn node(
        &mut self,
        graph: GraphId,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<(&str, AttributeValue)>,
    ) -> NodeId {
        let (domain, name) = op.rsplit_once('.').unwrap_or(("", op));
        let inputs = inputs.iter().map(|name| (!name.is_empty()).then(|| self.value(name)));
        let inputs = inputs.collect();
        let outputs = outputs.iter().map(|name| Some(self.value(name))).collect();
        let node = NewNode {
            name: String::new(),
            op: Operator { domain: domain.into(), ..Operator::onnx(name) },
            inputs,
            outputs,
            attributes: attributes
                .into_iter()
                .map(|(name, value)| Attribute::new(name, value))
                .collect(),
            origin: Origin::NONE,
        };
        self.model.insert(node, Place::Back(graph))
    }

    fn function(&mut self, name: &str, inputs: &[&str]) -> GraphId {
        let body = self.model.add_graph(Owner::Function(self.model.functions.len()));
        for input in inputs {
            self.input(body, input, None);
        }
        self.model.functions.push(Function {
            domain: "local".into(),
            name: name.into(),
            overload: String::new(),
            opsets: imports(),
            body,
            has_attribute_defaults: false,
            origin: Origin::NONE,
        });
        body
    }

    fn infer(&mut self) {
        infer::infer(&mut self.model);
    }

    fn ty(&mut self, name: &str) -> String {
        let value = self.value(name);
        self.model.value(value).ty().map_or("-".into(), ToString::to_string)
    }
}

fn imports() -> Vec<OpsetImport> {
    let import = |domain: &str, version| OpsetImport {
        domain: domain.into(),
        version,
        origin: Origin::NONE,
    };
    vec![import("", 17), import("local", 1)]
}

/// A float tensor type; 0 stands for the symbol `n`.
fn float(sizes: &[usize]) -> Type {
    let size = |&size: &usize| if size == 0 { Dim::Symbol("n".into()) } else { Dim::Fixed(size) };
    Type::Tensor { elem: DataType::FLOAT, shape: Some(sizes.iter().map(size).collect()) }
}

fn if_with(build: &mut Build, condition: &str) {
    let main = build.main();
    build.input(main, "x", Some(float(&[0, 3])));
    build.input(main, "y", Some(float(&[0, 4])));
    let (yes, no) = (build.graph(), build.graph());
    build.node(yes, "Relu", &["x"], &["a"], vec![]);
    build.output(yes, "a");
    build.node(no, "Neg", &["y"], &["b"], vec![]);
    build.output(no, "b");
    let branches = vec![("then_branch", yes.into()), ("else_branch", no.into())];
    build.node(main, "If", &[condition], &["z"], branches);
    build.infer();
}

#[test]
fn branches_give_what_they_agree_on() {
    let mut build = Build::new();
    let main = build.main();
    build.input(main, "c", Some(Type::tensor(DataType::BOOL)));
    if_with(&mut build, "c");
    assert_eq!((build.ty("a"), build.ty("b")), ("float[n, 3]".into(), "float[n, 4]".into()));
    assert_eq!(build.ty("z"), "float[n, ?]");
}

#[test]
fn a_constant_condition_takes_its_branch() {
    let mut build = Build::new();
    build.constant("c", Tensor::dense(DataType::BOOL, vec![], vec![0]).unwrap());
    if_with(&mut build, "c");
    assert_eq!(build.ty("z"), "float[n, 4]");
}

/// A loop with one state `s` (in the body: `in` to `out`) and one scan output.
fn loop_with(build: &mut Build, body_op: &str, operands: &[&str], axis: i64) {
    let main = build.main();
    build.input(main, "x", Some(float(&[2, 3])));
    let body = build.graph();
    build.input(body, "i", None);
    build.input(body, "go", None);
    build.input(body, "in", None);
    build.node(body, "Identity", &["go"], &["on"], vec![]);
    build.node(body, body_op, operands, &["out"], vec![("axis", axis.into())]);
    build.node(body, "Shape", &["in"], &["row"], vec![]);
    for output in ["on", "out", "row"] {
        build.output(body, output);
    }
    let loop_body = vec![("body", body.into())];
    build.node(main, "Loop", &["", "", "x"], &["last", "rows"], loop_body);
    build.infer();
}

#[test]
fn state_that_keeps_its_shape_has_it_inside() {
    let mut build = Build::new();
    loop_with(&mut build, "Softmax", &["in"], 0);
    assert_eq!(build.ty("i"), "int64[..]");
    assert_eq!(build.ty("in"), "float[2, 3]");
    assert_eq!(build.ty("last"), "float[2, 3]");
    assert_eq!(build.ty("rows"), "int64[?, 2]");
}

#[test]
fn state_that_grows_keeps_what_stays() {
    let mut build = Build::new();
    loop_with(&mut build, "Concat", &["in", "x"], 0);
    assert_eq!(build.ty("in"), "float[?, 3]");
    assert_eq!(build.ty("last"), "float[?, 3]");
}

#[test]
fn state_that_nothing_is_known_of_keeps_its_element_type() {
    let mut build = Build::new();
    loop_with(&mut build, "local.Unheard", &["in"], 0);
    assert_eq!(build.ty("out"), "-");
    assert_eq!(build.ty("last"), "float[..]");
}

#[test]
fn scans_slice_and_stack() {
    let mut build = Build::new();
    let main = build.main();
    build.input(main, "x", Some(float(&[0, 7, 3])));
    build.input(main, "start", Some(float(&[0, 3])));
    let body = build.graph();
    build.input(body, "in", None);
    build.input(body, "slice", None);
    build.node(body, "Add", &["in", "slice"], &["out"], vec![]);
    build.node(body, "ReduceSum", &["out"], &["row"], vec![("keepdims", 0i64.into())]);
    build.output(body, "out");
    build.output(body, "row");
    let attributes = vec![
        ("body", body.into()),
        ("num_scan_inputs", 1i64.into()),
        ("scan_input_axes", vec![1i64].into()),
    ];
    build.node(main, "Scan", &["start", "x"], &["last", "rows"], attributes);
    build.infer();
    assert_eq!(build.ty("slice"), "float[n, 3]");
    assert_eq!(build.ty("last"), "float[n, 3]");
    assert_eq!(build.ty("rows"), "float[7]");
}

#[test]
fn deep_nesting_ends_soon() {
    for op in ["If", "Loop"] {
        let mut build = Build::new();
        let main = build.main();
        build.input(main, "x", Some(float(&[2, 3])));
        let x = build.value("x");
        let mut graph = main;
        for _ in 0..3000 {
            let body = build.graph();
            let inner = build.model.add_value("v");
            let mut attributes = vec![Attribute::new("body", body)];
            if op == "If" {
                let other = build.graph();
                attributes[0].name = "then_branch".into();
                attributes.push(Attribute::new("else_branch", other));
            }
            if op == "Loop" {
                for _ in 0..3 {
                    let value = build.model.add_value("p");
                    build
                        .model
                        .add_input(body, ValueInfo { value, ty: None, origin: Origin::NONE });
                }
            }
            let node = NewNode {
                name: String::new(),
                op: Operator::onnx(op),
                inputs: vec![Some(x), Some(x), Some(x)],
                outputs: vec![Some(inner)],
                attributes,
                origin: Origin::NONE,
            };
            build.model.insert(node, Place::Back(graph));
            let info = ValueInfo { value: x, ty: None, origin: Origin::NONE };
            build.model.add_output(body, info.clone());
            build.model.add_output(body, info);
            graph = body;
        }
        build.node(graph, "Relu", &["x"], &["y"], vec![]);
        let start = Instant::now();
        build.infer();
        assert!(start.elapsed() < Duration::from_secs(5), "{op}");
    }
}

#[test]
fn calls_are_followed_each_with_its_own_types() {
    let mut build = Build::new();
    let main = build.main();
    let body = build.function("Double", &["p", "to_shape"]);
    build.node(body, "Add", &["p", "p"], &["q"], vec![]);
    build.node(body, "Reshape", &["q", "to_shape"], &["r"], vec![]);
    let to = ("to", AttributeValue::Reference("kind".into()));
    build.node(body, "Cast", &["r"], &["s"], vec![to]);
    build.output(body, "s");
    build.input(main, "a", Some(float(&[2, 3])));
    build.input(main, "b", Some(float(&[4, 3])));
    build.constant("six", Tensor::of(vec![1], &[6i64]).unwrap());
    build.constant("pair", Tensor::of(vec![2], &[-1i64, 6]).unwrap());
    let kind = |number: i64| vec![("kind", number.into())];
    build.node(main, "local.Double", &["a", "six"], &["c"], kind(10));
    build.node(main, "local.Double", &["b", "pair"], &["d"], kind(11));
    build.infer();
    assert_eq!(build.ty("c"), "float16[6]");
    assert_eq!(build.ty("d"), "double[2, 6]");
    assert_eq!(build.ty("q"), "float[?, 3]");
    assert_eq!(build.ty("r"), "float[..]");
    assert_eq!(build.ty("s"), "-");
}

#[test]
fn attributes_that_callers_leave_out_fall_back_unless_the_function_has_defaults() {
    for (has_defaults, expected) in [(false, "float[2, 1]"), (true, "float[..]")] {
        let mut build = Build::new();
        let main = build.main();
        let body = build.function("Sum", &["p"]);
        let attributes = vec![
            ("axes", AttributeValue::Reference("over".into())),
            ("keepdims", AttributeValue::Reference("keep".into())),
        ];
        build.node(body, "ReduceMean", &["p"], &["q"], attributes);
        build.output(body, "q");
        build.model.functions[0].has_attribute_defaults = has_defaults;
        build.input(main, "x", Some(float(&[2, 3])));
        let given = vec![("over", vec![1i64].into())];
        build.node(main, "local.Sum", &["x"], &["y"], given);
        build.infer();
        assert_eq!(build.ty("y"), expected);
    }
}

#[test]
fn recursive_and_exponential_calls_end() {
    let mut build = Build::new();
    let main = build.main();
    let body = build.function("Endless", &["e"]);
    build.node(body, "local.Endless", &["e"], &["f"], vec![]);
    build.output(body, "f");
    for level in 0..40 {
        let [p, q, r] = ["p", "q", "r"].map(|name| format!("{name}{level}"));
        let body = build.function(&format!("F{level}"), &[&p]);
        let next = format!("local.F{}", level + 1);
        build.node(body, &next, &[&p], &[&q], vec![]);
        build.node(body, &next, &[&q], &[&r], vec![]);
        build.output(body, &r);
    }
    build.input(main, "x", Some(float(&[2])));
    build.node(main, "local.Endless", &["x"], &["y"], vec![]);
    build.node(main, "local.F0", &["x"], &["z"], vec![]);
    build.node(main, "Relu", &["x"], &["w"], vec![]);
    let start = Instant::now();
    build.infer();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!((build.ty("y"), build.ty("z")), ("-".into(), "-".into()));
    assert_eq!(build.ty("w"), "float[2]");
}

#[test]
fn stale_declarations_lose_and_lone_ones_count() {
    let mut build = Build::new();
    let main = build.main();
    build.input(main, "x", Some(float(&[0, 3])));
    build.declare("a", float(&[1, 3]));
    build.declare("b", float(&[5]));
    build.node(main, "Relu", &["x"], &["a"], vec![]);
    let unheard = build.node(main, "elsewhere.Unheard", &["a"], &["b"], vec![]);
    build.node(main, "Neg", &["b"], &["c"], vec![]);
    build.infer();
    assert_eq!(build.ty("a"), "float[n, 3]");
    assert_eq!(build.ty("b"), "float[5]");
    assert_eq!(build.ty("c"), "float[5]");
    assert_eq!(infer::infer_node(&build.model, unheard), vec![None]);
}

#[test]
fn symbols_that_mean_nothing_are_not_equal() {
    let mut build = Build::new();
    let main = build.main();
    let any = |name: &str| Type::Tensor {
        elem: DataType::FLOAT,
        shape: Some(vec![Dim::Symbol(name.into()); 2]),
    };
    build.input(main, "x", Some(any("?")));
    build.input(main, "y", Some(any("n")));
    build.node(main, "Relu", &["x"], &["a"], vec![]);
    build.node(main, "Relu", &["y"], &["b"], vec![]);
    build.infer();
    let a = build.value("a");
    assert_eq!(build.model.value(a).ty().unwrap().shape(), Some(&vec![Dim::Unknown; 2]));
    assert_eq!(build.ty("b"), "float[n, n]");
}
