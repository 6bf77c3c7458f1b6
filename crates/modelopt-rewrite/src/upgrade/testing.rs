//! Models of one node for the tests of adapters.

use modelopt_graph::{
    AttributeValue, DataType, Model, Node, NodeId, Type, Use, ValueId, infer, verify,
};

use super::upgrade;
use crate::testing::{Build, float};

/// Attributes of a node.
pub(super) type Attributes<'a> = &'a [(&'a str, AttributeValue)];

/// `y = op(x, ...)` with `x` of a shape and other inputs of theirs.
pub(super) fn one(opset: i64, op: &str, shapes: &[&[usize]], attributes: Attributes<'_>) -> Build {
    let mut b = Build::new(opset);
    let inputs: Vec<ValueId> = shapes
        .iter()
        .enumerate()
        .map(|(index, shape)| b.input(&format!("x{index}"), float(shape)))
        .collect();
    let y = b.node(op, &inputs, attributes);
    b.output(y, Type::tensor(DataType::FLOAT));
    b
}

/// Brings a model to an operator set, and says what it holds then, in order.
pub(super) fn raised(b: &mut Build, to: i64) -> Vec<String> {
    let done = upgrade(&mut b.model, to).unwrap();
    assert!(done.changed);
    verify::check(&b.model).unwrap();
    assert!(!upgrade(&mut b.model, to).unwrap().changed);
    b.ops()
}

/// The node that makes the first output.
pub(super) fn last(model: &Model) -> &Node {
    model.node(last_id(model))
}

pub(super) fn last_id(model: &Model) -> NodeId {
    let output = model.graph(model.main()).outputs[0].value;
    model.producer_node(output).unwrap()
}

/// The integers of a constant input of the node that makes the first output.
pub(super) fn integers(model: &Model, input: usize) -> Vec<i64> {
    let value = last(model).input(input).unwrap();
    model.constant(value).unwrap().to_i64().unwrap()
}

/// The numbers of a constant input of the node that makes the first output.
pub(super) fn numbers(model: &Model, input: usize) -> Vec<f32> {
    let value = last(model).input(input).unwrap();
    model.constant(value).unwrap().to_f32().unwrap().into_owned()
}

/// Gives the node that makes the first output one more output, which is an output of the graph too.
pub(super) fn add_output(b: &mut Build, name: &str) -> ValueId {
    let id = last_id(&b.model);
    let node = b.model.node(id).clone();
    let value = b.model.add_value(name);
    let y = node.output(0).unwrap();
    let mut outputs = node.outputs().to_vec();
    outputs.push(Some(value));
    let new = modelopt_graph::NewNode {
        name: node.name.clone(),
        op: node.op.clone(),
        inputs: node.inputs().to_vec(),
        outputs,
        attributes: node.attributes.clone(),
        origin: node.origin.clone(),
    };
    b.model.insert(new, modelopt_graph::Place::After(id));
    b.model.remove(id);
    b.output(value, Type::tensor(DataType::FLOAT));
    infer::infer(&mut b.model);
    assert!(b.model.value(y).uses().iter().any(|u| matches!(u, Use::Output(..))));
    value
}
