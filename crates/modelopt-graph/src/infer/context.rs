//! A node as its rule sees it: types and known elements of its inputs, and its attributes.

use std::borrow::Cow;

use super::contents::{self, Int};
use super::env::Env;
use crate::{AttributeValue, DataType, Dim, Node, NodeId, Shape, Type, ValueId};

/// A node as its rule sees it.
pub(super) struct Context<'a> {
    env: &'a Env<'a>,
    pub(super) node: &'a Node,
    /// Version of the operator set.
    pub(super) version: i64,
    inputs: Vec<Option<Cow<'a, Type>>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(env: &'a Env<'a>, id: NodeId) -> Self {
        let node = env.model.node(id);
        // A model that leaves out an import means the newest version, if anything.
        let version = env.model.opset(node.graph(), &node.op.domain).unwrap_or(i64::MAX);
        let inputs = node.inputs().iter().map(|input| env.ty((*input)?)).collect();
        Context { env, node, version, inputs }
    }

    /// How many inputs are listed, left-out ones included.
    pub(super) fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// How many outputs are listed, left-out ones included.
    pub(super) fn output_count(&self) -> usize {
        self.node.outputs().len()
    }

    /// Name of the operator.
    pub(super) fn op(&self) -> &'a str {
        &self.node.op.name
    }

    /// Whether an input is given.
    pub(super) fn has(&self, index: usize) -> bool {
        self.node.input(index).is_some()
    }

    /// Type of an input.
    pub(super) fn ty(&self, index: usize) -> Option<&Type> {
        self.inputs.get(index)?.as_deref()
    }

    /// Element type of an input.
    pub(super) fn elem(&self, index: usize) -> Option<DataType> {
        self.ty(index)?.elem()
    }

    /// Shape of an input.
    pub(super) fn shape(&self, index: usize) -> Option<&Shape> {
        self.ty(index)?.shape()
    }

    /// One size of an input; unknown where the shape is, or where it has no such axis.
    pub(super) fn dim(&self, index: usize, axis: usize) -> Dim {
        self.shape(index).and_then(|shape| shape.get(axis)).cloned().unwrap_or(Dim::Unknown)
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'a AttributeValue> {
        self.env.attribute(self.node, name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        match self.attribute(name) {
            Some(AttributeValue::Int(value)) => *value,
            _ => default,
        }
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        match self.attribute(name) {
            Some(AttributeValue::Ints(values)) => Some(values),
            _ => None,
        }
    }

    pub(super) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        match self.attribute(name) {
            Some(AttributeValue::Floats(values)) => Some(values),
            _ => None,
        }
    }

    pub(super) fn float(&self, name: &str) -> Option<f32> {
        match self.attribute(name) {
            Some(AttributeValue::Float(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn string(&self, name: &str) -> Option<&'a str> {
        match self.attribute(name) {
            Some(AttributeValue::String(value)) => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }

    /// An element type given as an integer attribute.
    pub(super) fn data_type(&self, name: &str) -> Option<DataType> {
        match self.attribute(name) {
            Some(AttributeValue::Int(number)) => {
                i32::try_from(*number).ok().filter(|n| *n != 0).map(DataType::from_number)
            }
            _ => None,
        }
    }

    fn value(&self, index: usize) -> Option<ValueId> {
        self.node.input(index)
    }

    /// What is known of the elements of a small integer input of rank 0 or 1.
    pub(super) fn contents(&self, index: usize) -> Option<Vec<Int>> {
        contents::of(self.env, self.value(index)?)
    }

    /// The elements of a small integer input of rank 0 or 1, if all are known.
    pub(super) fn constant_ints(&self, index: usize) -> Option<Vec<i64>> {
        self.contents(index)?.iter().map(Int::known).collect()
    }

    /// The only element of an integer input, if known.
    pub(super) fn constant_int(&self, index: usize) -> Option<i64> {
        match self.constant_ints(index)?.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// The elements of a constant float input.
    pub(super) fn constant_floats(&self, index: usize) -> Option<Vec<f32>> {
        if self.shape(index).is_some_and(|shape| !contents::few(shape)) {
            return None;
        }
        let tensor = self.env.constant(self.value(index)?)?;
        (tensor.len() <= contents::MOST).then(|| tensor.to_f32().map(Cow::into_owned))?
    }
}
