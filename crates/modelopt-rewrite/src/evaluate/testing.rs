//! Nodes with constant inputs for this module's tests.

use std::sync::Arc;

use modelopt_graph::{
    Attribute, AttributeValue, Model, ModelInfo, NewNode, Operator, Origin, Place, Tensor,
};

use super::{NotFolded, evaluate};

/// A node to evaluate.
pub(super) struct Case {
    op: &'static str,
    inputs: Vec<Option<Arc<Tensor>>>,
    open: bool,
    attributes: Vec<Attribute>,
    outputs: usize,
    limit: usize,
}

impl Case {
    pub(super) fn new(op: &'static str) -> Self {
        let (inputs, attributes) = (Vec::new(), Vec::new());
        Case { op, inputs, open: false, attributes, outputs: 1, limit: 1 << 30 }
    }

    pub(super) fn input(mut self, tensor: Tensor) -> Self {
        self.inputs.push(Some(Arc::new(tensor)));
        self
    }

    /// Leaves an optional input out.
    pub(super) fn skip(mut self) -> Self {
        self.inputs.push(None);
        self
    }

    /// Makes the node read one more value, which is not constant.
    pub(super) fn open_input(mut self) -> Self {
        self.open = true;
        self
    }

    pub(super) fn attribute(mut self, name: &str, value: impl Into<AttributeValue>) -> Self {
        self.attributes.push(Attribute::new(name, value));
        self
    }

    pub(super) fn outputs(mut self, count: usize) -> Self {
        self.outputs = count;
        self
    }

    pub(super) fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// All outputs under a version of `ai.onnx`.
    pub(super) fn run(&self, version: i64) -> Result<Vec<Tensor>, NotFolded> {
        let mut model = Model::new(ModelInfo::default());
        let mut inputs: Vec<_> = self
            .inputs
            .iter()
            .map(|input| input.as_ref().map(|_| model.add_value("input")))
            .collect();
        if self.open {
            inputs.push(Some(model.add_value("open")));
        }
        let outputs = (0..self.outputs).map(|_| Some(model.add_value("output"))).collect();
        let node = NewNode {
            name: String::new(),
            op: Operator::onnx(self.op),
            inputs,
            outputs,
            attributes: self.attributes.clone(),
            origin: Origin::NONE,
        };
        let place = Place::Back(model.main());
        let id = model.insert(node, place);
        evaluate(model.node(id), version, &self.inputs, self.limit)
    }

    /// The only output.
    pub(super) fn one(&self, version: i64) -> Result<Tensor, NotFolded> {
        self.run(version).map(|mut outputs| outputs.remove(0))
    }
}

/// A rank-1 int64 tensor.
pub(super) fn ints(values: &[i64]) -> Tensor {
    Tensor::of(vec![values.len()], values).unwrap()
}

/// A float32 tensor.
pub(super) fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::of(shape.to_vec(), values).unwrap()
}

/// A bool tensor of rank 1.
pub(super) fn bools(values: &[bool]) -> Tensor {
    let bytes: Vec<u8> = values.iter().map(|&value| u8::from(value)).collect();
    Tensor::dense(modelopt_graph::DataType::BOOL, vec![values.len()], bytes).unwrap()
}

/// The float32 tensor `0, 1, 2, …`.
pub(super) fn counting(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    floats(shape, &(0..count).map(|x| x as f32).collect::<Vec<_>>())
}
