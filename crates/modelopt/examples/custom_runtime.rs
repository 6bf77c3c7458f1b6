//! A runtime of one's own: models are proven in it, and plans are made for it.
//!
//! This one knows four operators. As nothing is said of its capabilities, default rules only use what
//! any runtime can do, so weights are stored as int8 and multiplied back by `Cast` and `Mul`.

mod small_model;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use indexmap::IndexMap;
use modelopt::graph::ValueId;
use modelopt::prelude::*;
use modelopt::runtime::{RuntimeError, SessionOptions};

const NAME: &str = "four-operators";

#[derive(Default)]
struct FourOperators {
    /// How often models ran in it.
    runs: Arc<AtomicUsize>,
}

/// Values of a model.
type Values = HashMap<ValueId, Arc<Tensor>>;

struct Loaded {
    model: Model,
    /// What depends on no input, so that it is computed once.
    constants: Values,
    runs: Arc<AtomicUsize>,
}

impl Runtime for FourOperators {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        "1.0".to_owned()
    }

    fn prepare(&self, path: &Path, _: &SessionOptions) -> Result<Box<dyn Session>, RuntimeError> {
        let model = modelopt::onnx::load(path)?;
        let mut constants = Values::new();
        evaluate(&model, &mut constants)?;
        Ok(Box::new(Loaded { model, constants, runs: Arc::clone(&self.runs) }))
    }
}

impl Session for Loaded {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let graph = self.model.graph(self.model.main());
        let name = |value: ValueId| self.model.value(value).name().to_owned();
        let mut values = self.constants.clone();
        for input in &graph.inputs {
            let given = inputs.get(&name(input.value));
            values.extend(given.map(|given| (input.value, Arc::new(given.clone()))));
        }
        evaluate(&self.model, &mut values)?;
        let output = |value| Some((name(value), values.get(&value)?.as_ref().clone()));
        Ok(graph.outputs.iter().filter_map(|info| output(info.value)).collect())
    }
}

/// Computes all that can be computed from what is known.
fn evaluate(model: &Model, values: &mut Values) -> Result<(), RuntimeError> {
    for id in model.nodes_of(model.main()) {
        let node = model.node(id);
        let Some(output) = node.output(0).filter(|output| !values.contains_key(output)) else {
            continue;
        };
        let operand = |value: &ValueId| values.get(value).cloned().or(model.constant(*value));
        let operands: Option<Vec<_>> = node.inputs().iter().flatten().map(operand).collect();
        let Some(operands) = operands else { continue };
        let result = compute(&node.op.name, &operands).ok_or_else(|| {
            let what = format!("{} as in '{}'", node.op.name, node.name);
            RuntimeError::Unsupported { runtime: NAME, what }
        })?;
        values.insert(output, Arc::new(result));
    }
    Ok(())
}

/// The result of an operator, if it is one of the four.
fn compute(operator: &str, operands: &[Arc<Tensor>]) -> Option<Tensor> {
    let (x, rest) = operands.split_first()?;
    let shape = x.shape().to_vec();
    match (operator, rest) {
        ("Relu", []) => {
            let numbers: Vec<f32> = x.to_f32()?.iter().map(|x| x.max(0.0)).collect();
            Tensor::of(shape, &numbers).ok()
        }
        // Only ever from integers to float32.
        ("Cast", []) => {
            let numbers: Vec<f32> = x.to_i64()?.iter().map(|&x| x as f32).collect();
            Tensor::of(shape, &numbers).ok()
        }
        // By a scale for each column.
        ("Mul", [scale]) if scale.shape().last() == Some(&scale.len()) => {
            let scale = scale.to_f32()?;
            let numbers = x.to_f32()?;
            let numbers = numbers.iter().zip(scale.iter().cycle());
            Tensor::of(shape, &numbers.map(|(x, scale)| x * scale).collect::<Vec<_>>()).ok()
        }
        ("MatMul", [w]) => {
            let (&[rows, inner], &[also_inner, columns]) = (x.shape(), w.shape()) else {
                return None;
            };
            let (x, w) = (x.to_f32()?, w.to_f32()?);
            let row = |row| &x[row * inner..][..inner];
            let element = |at: usize| {
                let column = w.iter().skip(at % columns).step_by(columns);
                row(at / columns).iter().zip(column).map(|(x, w)| x * w).sum::<f32>()
            };
            let numbers: Vec<f32> = (0..rows * columns).map(element).collect();
            (inner == also_inner).then(|| Tensor::of(vec![rows, columns], &numbers).ok())?
        }
        _ => None,
    }
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = FourOperators::default();
    let runs = Arc::clone(&runtime.runs);
    let optimized = Optimizer::builder()
        .model(small_model::perceptron(4))
        .samples(SampleSource::arrays(small_model::inputs(3)))
        .target(Target::custom(CustomRuntime::new(Arc::new(runtime))))
        // It is written to be read, not to be fast.
        .configure(|config| config.measure_latency = false)
        .build()?
        .run(&mut |_| {})?;

    let used = &optimized.outcome.runs.first().ok_or("the models were not run")?.runtime;
    println!("proven in {} {}, in {} runs", used.name, used.version, runs.load(Ordering::Relaxed));
    assert_eq!(used.name, NAME);
    let layers = optimized.outcome.plan.layers.iter();
    let schemes: Vec<String> = layers.map(|layer| layer.scheme.to_string()).collect();
    println!("stored as {}", schemes.join(", "));
    assert_eq!(schemes, ["int8-weights"; 3]);
    optimized.artifact()?;
    Ok(())
}
