//! One operation of a model.

use std::fmt;

use super::id::{GraphId, NodeId, ValueId};
use crate::{Attribute, AttributeValue, Origin};

/// Which operator a node is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Operator {
    /// Domain; empty for `ai.onnx`.
    pub domain: String,
    /// Type, such as `Conv`.
    pub name: String,
    /// Overload of a model-local function; mostly empty.
    pub overload: String,
}

impl Operator {
    /// An operator of the default domain.
    pub fn onnx(name: &str) -> Self {
        Operator { domain: String::new(), name: name.to_owned(), overload: String::new() }
    }

    /// Whether this is the operator `name` of `ai.onnx`.
    pub fn is(&self, name: &str) -> bool {
        self.name == name && self.is_onnx()
    }

    /// Whether the domain is `ai.onnx`.
    pub fn is_onnx(&self) -> bool {
        self.domain.is_empty() || self.domain == "ai.onnx"
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_onnx() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}.{}", self.domain, self.name)
        }
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name, not necessarily unique, possibly empty.
    pub name: String,
    /// Operator.
    pub op: Operator,
    /// Attributes, in order.
    pub attributes: Vec<Attribute>,
    /// The loader's note.
    pub origin: Origin,
    pub(crate) graph: GraphId,
    pub(crate) inputs: Vec<Option<ValueId>>,
    pub(crate) outputs: Vec<Option<ValueId>>,
    pub(crate) previous: Option<NodeId>,
    pub(crate) next: Option<NodeId>,
    pub(crate) removed: bool,
}

impl Node {
    /// Inputs; `None` where an optional input is left out.
    pub fn inputs(&self) -> &[Option<ValueId>] {
        &self.inputs
    }

    /// Input at `index`, if there is one and it is not left out.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// Outputs; `None` where an optional output is left out.
    pub fn outputs(&self) -> &[Option<ValueId>] {
        &self.outputs
    }

    /// Output at `index`, if there is one and it is not left out.
    pub fn output(&self, index: usize) -> Option<ValueId> {
        self.outputs.get(index).copied().flatten()
    }

    /// The graph it is in.
    pub fn graph(&self) -> GraphId {
        self.graph
    }

    /// Whether it was removed from the model.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// Attribute by name.
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes
            .iter()
            .find(|attribute| attribute.name == name)
            .map(|attribute| &attribute.value)
    }

    /// Integer attribute, or `default` where it is absent.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attribute(name) {
            Some(AttributeValue::Int(value)) => *value,
            _ => default,
        }
    }

    /// Float attribute, or `default` where it is absent.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        match self.attribute(name) {
            Some(AttributeValue::Float(value)) => *value,
            _ => default,
        }
    }

    /// Integer-list attribute.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attribute(name) {
            Some(AttributeValue::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// String attribute, if it is there and UTF-8.
    pub fn string(&self, name: &str) -> Option<&str> {
        match self.attribute(name) {
            Some(AttributeValue::String(value)) => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }

    /// Nested graphs, in attribute order.
    pub fn bodies(&self) -> impl DoubleEndedIterator<Item = GraphId> + '_ {
        self.attributes.iter().flat_map(|attribute| attribute.graphs().iter().copied())
    }
}
