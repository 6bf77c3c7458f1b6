//! Puts nodes before another one, at whatever opset the model has.

use modelopt_graph::{
    Attribute, AttributeValue, DataType, GraphId, Model, NewNode, NodeId, Place, Tensor, ValueId,
};

/// Adds nodes before one of a model. Constants become `Constant` nodes, which stand in functions
/// as well.
pub(super) struct Nodes<'a> {
    pub(super) model: &'a mut Model,
    before: NodeId,
    pub(super) graph: GraphId,
    pub(super) version: i64,
    name: String,
}

impl<'a> Nodes<'a> {
    /// `version` is that of `ai.onnx`; `name` is what new names begin with.
    pub(super) fn new(model: &'a mut Model, before: NodeId, version: i64, name: String) -> Self {
        let graph = model.node(before).graph();
        Nodes { model, before, graph, version, name }
    }

    /// A node with one new output.
    pub(super) fn op(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attributes: &[(&str, AttributeValue)],
    ) -> ValueId {
        let name = self.model.fresh_name(&format!("{}/{}", self.name, op.to_lowercase()));
        let output = self.model.add_value(name);
        self.make(op, inputs, attributes, output);
        output
    }

    /// A node that makes a value which another node made.
    pub(super) fn make(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attributes: &[(&str, AttributeValue)],
        output: ValueId,
    ) {
        let attributes =
            attributes.iter().map(|(name, value)| Attribute::new(*name, value.clone())).collect();
        let name = self.model.fresh_name(&format!("{}/{op}", self.name));
        let node = NewNode::onnx(name, op, inputs, output, attributes);
        self.model.insert(node, Place::Before(self.before));
    }

    pub(super) fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.op("Constant", &[], &[("value", tensor.into())])
    }

    pub(super) fn float(&mut self, number: f32) -> ValueId {
        self.constant(Tensor::scalar(number))
    }

    pub(super) fn int(&mut self, number: i64) -> ValueId {
        self.constant(Tensor::scalar(number))
    }

    /// A list of integers.
    pub(super) fn ints(&mut self, numbers: &[i64]) -> ValueId {
        let shape = vec![numbers.len()];
        self.constant(Tensor::of(shape, numbers).unwrap_or_else(|_| Tensor::scalar(0i64)))
    }

    /// Numbers below each other.
    pub(super) fn column(&mut self, numbers: [f32; 3]) -> ValueId {
        self.constant(Tensor::of(vec![3, 1], &numbers).unwrap_or_else(|_| Tensor::scalar(0f32)))
    }

    pub(super) fn cast(&mut self, value: ValueId, to: DataType) -> ValueId {
        self.op("Cast", &[value], &[("to", i64::from(to.number()).into())])
    }

    pub(super) fn unsqueeze(&mut self, value: ValueId, axis: i64) -> ValueId {
        if self.version < 13 {
            return self.op("Unsqueeze", &[value], &[("axes", vec![axis].into())]);
        }
        let axes = self.ints(&[axis]);
        self.op("Unsqueeze", &[value, axes], &[])
    }

    /// The sum along the first axis, which goes.
    pub(super) fn sum_of_rows(&mut self, value: ValueId) -> ValueId {
        let keep = ("keepdims", 0i64.into());
        if self.version < 13 {
            return self.op("ReduceSum", &[value], &[("axes", vec![0i64].into()), keep]);
        }
        let axes = self.ints(&[0]);
        self.op("ReduceSum", &[value, axes], &[keep])
    }
}
