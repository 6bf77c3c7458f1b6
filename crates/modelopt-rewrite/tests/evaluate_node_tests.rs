//! The evaluator against ONNX's own node tests.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use modelopt_graph::{DataType, Model, Tensor, Type, ValueId, ValueInfo};
use modelopt_rewrite::evaluate::{NotFolded, evaluate};

/// Operators that do not round, or only once: their results must agree to the last bit.
const EXACT: &str = "Identity Reshape Flatten Squeeze Unsqueeze Shape Size Transpose Concat \
    Split Slice Gather Expand Tile Pad Where ConstantOfShape Cast Neg Abs Relu Clip Min \
    Max";

/// How many cases are evaluated; raise it with what the evaluator learns.
const EVALUATED: usize = 392;

enum Outcome {
    Agrees,
    /// Not a single node with tensors, or not supported by the evaluator.
    Skipped,
    Disagrees(String),
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn results_agree_with_the_node_tests() {
    let mut evaluated = 0;
    let mut problems = Vec::new();
    for folder in xtask::testdata::node_tests() {
        match check(&folder) {
            Outcome::Agrees => evaluated += 1,
            Outcome::Skipped => {}
            Outcome::Disagrees(why) => problems.push(format!("{}: {why}", folder.display())),
        }
    }
    assert!(problems.is_empty(), "{} cases:\n{}", problems.len(), problems.join("\n"));
    assert!(evaluated >= EVALUATED, "only {evaluated} cases were evaluated");
}

fn check(folder: &Path) -> Outcome {
    let Some(case) = Case::load(folder) else {
        return Outcome::Skipped;
    };
    let nodes = case.model.walk();
    let (&[node], Some(version)) = (&nodes[..], onnx_version(&case.model)) else {
        return Outcome::Skipped;
    };
    let node = case.model.node(node);
    let value = |input: &Option<ValueId>| case.values.get(&(*input)?).cloned();
    let inputs: Vec<_> = node.inputs().iter().map(value).collect();
    let outputs = match evaluate(node, version, &inputs, 1 << 24) {
        Ok(outputs) => outputs,
        Err(NotFolded::Unsupported) => return Outcome::Skipped,
        Err(problem) => return Outcome::Disagrees(problem.to_string()),
    };
    let exact = EXACT.split_whitespace().any(|name| node.op.is(name));
    let tolerance = if exact { 0.0 } else { 1e-5 };
    let mut pairs = outputs.iter().zip(&case.expected);
    if outputs.len() == case.expected.len() && pairs.all(|(a, b)| agree(a, b, tolerance)) {
        Outcome::Agrees
    } else {
        Outcome::Disagrees(format!("{outputs:?}\ninstead of\n{:?}", case.expected))
    }
}

struct Case {
    model: Model,
    /// The values of the model's inputs.
    values: HashMap<ValueId, Arc<Tensor>>,
    /// The model's outputs for them.
    expected: Vec<Tensor>,
}

impl Case {
    /// `None` where an input or output is not a tensor.
    fn load(folder: &Path) -> Option<Self> {
        let model = modelopt_onnx::load(&folder.join("model.onnx")).expect("node tests load");
        let graph = model.graph(model.main());
        let read = |kind: &str, index: usize, info: &ValueInfo| {
            let declared = info.ty.as_ref().map(|declared| &declared.ty);
            if !matches!(declared, Some(Type::Tensor { .. })) {
                return None;
            }
            let path = folder.join("test_data_set_0").join(format!("{kind}_{index}.pb"));
            let bytes = fs::read(path).expect("node tests come with their data");
            let (_, tensor) = modelopt_onnx::read_tensor(bytes.into()).expect("their data reads");
            Some(tensor)
        };
        let inputs = graph.inputs.iter().enumerate();
        let values = inputs
            .map(|(index, info)| Some((info.value, Arc::new(read("input", index, info)?))))
            .collect::<Option<_>>()?;
        let outputs = graph.outputs.iter().enumerate();
        let expected =
            outputs.map(|(index, info)| read("output", index, info)).collect::<Option<_>>()?;
        Some(Case { model, values, expected })
    }
}

fn onnx_version(model: &Model) -> Option<i64> {
    let imports = &model.info.opsets;
    imports.iter().find(|import| import.domain.is_empty()).map(|import| import.version)
}

/// Same type, shape and elements; floats within a relative `tolerance`, or that of one rounding
/// of a 16-bit type where it is not exact.
fn agree(a: &Tensor, b: &Tensor, tolerance: f32) -> bool {
    if a == b || tolerance == 0.0 {
        return a == b;
    }
    let tolerance = match a.dtype() {
        DataType::FLOAT16 => 1e-3,
        DataType::BFLOAT16 => 8e-3,
        _ => tolerance,
    };
    let close = |(x, y): (&f32, &f32)| {
        (x.is_nan() && y.is_nan())
            || (x - y).abs() <= tolerance * y.abs().max(1e-3)
            || x.total_cmp(y).is_eq()
    };
    let elements = a.to_f32().zip(b.to_f32());
    a.dtype() == b.dtype()
        && a.shape() == b.shape()
        && elements.is_some_and(|(x, y)| x.iter().zip(y.iter()).all(close))
}
