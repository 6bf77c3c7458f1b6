//! A runtime that does as it is told, for tests.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use modelopt_graph::{DataType, Dim, Model, Tensor, Type};
use modelopt_runtime::{
    Outputs, Runtime, RuntimeError, Session, SessionOptions, graph_inputs, graph_outputs,
};

use super::held::Maker;
use super::rows::Tensors;
use crate::{Dimension, Signature, TensorSpec};

/// What the model computes from the rows of `x`.
type Rule = fn(&[f32]) -> Vec<f32>;

/// A runtime whose one model computes `y` from `x` as it is told.
#[derive(Clone)]
pub(crate) struct Planted {
    rule: Rule,
    panics_at: Option<f32>,
    refuses: Option<f32>,
    takes: Duration,
    when_loading: Option<Arc<dyn Fn() + Send + Sync>>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    loads: AtomicUsize,
    /// The rows of each run.
    runs: Mutex<Vec<usize>>,
    /// Why nothing is loaded any more.
    refusal: Mutex<Option<String>>,
}

impl Planted {
    pub(crate) fn computing(rule: Rule) -> Self {
        let (panics_at, refuses, takes) = (None, None, Duration::ZERO);
        Planted { rule, panics_at, refuses, takes, when_loading: None, seen: Arc::default() }
    }

    /// `y = 2 x`.
    pub(crate) fn doubling() -> Self {
        Planted::computing(|x| x.iter().map(|x| x * 2.0).collect())
    }

    /// `y = x - mean(x)` over all rows: what no batch may do.
    pub(crate) fn mixing() -> Self {
        Planted::computing(|x| {
            let mean = x.iter().sum::<f32>() / x.len() as f32;
            x.iter().map(|x| x - mean).collect()
        })
    }

    pub(crate) fn panicking_at(self, value: f32) -> Self {
        Planted { panics_at: Some(value), ..self }
    }

    pub(crate) fn refusing(self, value: f32) -> Self {
        Planted { refuses: Some(value), ..self }
    }

    pub(crate) fn taking(self, takes: Duration) -> Self {
        Planted { takes, ..self }
    }

    pub(crate) fn when_loading(self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        Planted { when_loading: Some(Arc::new(hook)), ..self }
    }

    pub(crate) fn load_no_more(&self, why: &str) {
        *self.seen.refusal.lock().unwrap() = Some(why.to_owned());
    }

    pub(crate) fn load_again(&self) {
        *self.seen.refusal.lock().unwrap() = None;
    }

    pub(crate) fn loads(&self) -> usize {
        self.seen.loads.load(Ordering::SeqCst)
    }

    pub(crate) fn runs(&self) -> Vec<usize> {
        self.seen.runs.lock().unwrap().clone()
    }

    pub(crate) fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.clone())
    }

    pub(crate) fn maker(&self) -> Maker {
        let (path, options) = ("planted.onnx".into(), SessionOptions::default());
        Maker { runtime: self.runtime(), path, options }
    }
}

/// One row of `x`.
pub(crate) fn row(values: &[f32]) -> Tensors {
    rows(1, values)
}

/// Rows of `x`.
pub(crate) fn rows(count: usize, values: &[f32]) -> Tensors {
    let x = Tensor::of(vec![count, values.len() / count], values).unwrap();
    Tensors::from([("x".to_owned(), x)])
}

/// The first element of `y`, in thousandths.
pub(crate) fn first(outputs: &Outputs) -> i64 {
    (outputs["y"].to_f32().unwrap()[0] * 1e3).round() as i64
}

/// The signature of a real model of tensors.
pub(crate) fn describe(model: &Model) -> Result<Signature, String> {
    let spec = |name: String, ty: Type| {
        let Type::Tensor { elem: dtype, shape } = ty else { return Err(format!("{name} is {ty}")) };
        let dimension = |dim| match dim {
            Dim::Fixed(size) => Dimension::Fixed(size),
            Dim::Symbol(name) => Dimension::Named(name),
            Dim::Unknown => Dimension::Any,
        };
        let shape = shape.map(|dims| dims.into_iter().map(dimension).collect());
        Ok(TensorSpec { name, dtype, shape })
    };
    let inputs = graph_inputs(model).into_iter().map(|input| spec(input.name, input.ty));
    let outputs = graph_outputs(model).into_iter().map(|output| spec(output.name, output.ty));
    Ok(Signature {
        inputs: inputs.collect::<Result<_, _>>()?,
        outputs: outputs.collect::<Result<_, _>>()?,
    })
}

/// What the planted model declares.
pub(crate) fn signature() -> Signature {
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        dtype: DataType::FLOAT,
        shape: Some(vec![Dimension::Named("batch".to_owned()), Dimension::Any]),
    };
    Signature { inputs: vec![spec("x")], outputs: vec![spec("y")] }
}

impl Runtime for Planted {
    fn name(&self) -> &'static str {
        "planted"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn prepare(&self, path: &Path, _: &SessionOptions) -> Result<Box<dyn Session>, RuntimeError> {
        if let Some(why) = &*self.seen.refusal.lock().unwrap() {
            return Err(RuntimeError::load("planted", path, why));
        }
        self.seen.loads.fetch_add(1, Ordering::SeqCst);
        if let Some(hook) = &self.when_loading {
            hook();
        }
        Ok(Box::new(self.clone()))
    }
}

impl Session for Planted {
    fn run(&mut self, inputs: &Tensors) -> Result<Outputs, RuntimeError> {
        let x = &inputs[0];
        let values = x.to_f32().unwrap();
        self.seen.runs.lock().unwrap().push(x.shape()[0]);
        if !self.takes.is_zero() {
            std::thread::sleep(self.takes);
        }
        if let Some(unlucky) = self.panics_at.filter(|unlucky| values.contains(unlucky)) {
            panic!("{unlucky} is unlucky");
        }
        if let Some(refused) = self.refuses.filter(|refused| values.contains(refused)) {
            let said = format!("{refused} is refused");
            return Err(RuntimeError::run("planted", Path::new("planted.onnx"), said));
        }
        let y = (self.rule)(&values);
        // A rule that gives one number gives no rows.
        let shape = if y.len() == values.len() { x.shape().to_vec() } else { vec![y.len()] };
        Ok(Outputs::from([("y".to_owned(), Tensor::of(shape, &y).unwrap())]))
    }
}
