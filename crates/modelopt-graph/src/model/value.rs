//! One value of a model: who makes it and who uses it.

use std::sync::Arc;

use indexmap::IndexSet;

use super::id::{GraphId, NodeId};
use crate::{DataType, SparseTensor, Tensor, Type};

/// What defines a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// Nothing: the value is only declared, or its node was removed.
    None,
    /// It is an input of a graph. With a constant, that is its default.
    Input(GraphId),
    /// It is an initializer of a graph.
    Initializer(GraphId),
    /// It is the output of a node at this place.
    Node(NodeId, u32),
}

/// Where a value is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// As a node's input at this place.
    Node(NodeId, u32),
    /// As a graph's output at this place.
    Output(GraphId, u32),
}

/// A named value: the result of a node, an input or an initializer.
#[derive(Clone, Debug)]
pub struct Value {
    pub(crate) name: String,
    pub(crate) producer: Producer,
    pub(crate) uses: IndexSet<Use>,
    pub(crate) constant: Option<Constant>,
    pub(crate) ty: Option<Type>,
}

impl Value {
    /// Name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What defines it.
    pub fn producer(&self) -> Producer {
        self.producer
    }

    /// Where it is used, in all graphs.
    pub fn uses(&self) -> &IndexSet<Use> {
        &self.uses
    }

    /// Whether it is an output of any graph.
    pub fn is_output(&self) -> bool {
        self.uses.iter().any(|u| matches!(u, Use::Output(..)))
    }

    /// The tensor of an initializer, or the default of an input.
    pub fn constant(&self) -> Option<&Constant> {
        self.constant.as_ref()
    }

    /// Type, as declared or inferred.
    pub fn ty(&self) -> Option<&Type> {
        self.ty.as_ref()
    }

    /// Element type, when it is a tensor and the type is known.
    pub fn elem(&self) -> Option<DataType> {
        match &self.constant {
            Some(Constant::Dense(tensor)) => Some(tensor.dtype()),
            Some(Constant::Sparse(tensor)) => Some(tensor.values.dtype()),
            None => self.ty.as_ref().and_then(Type::elem),
        }
    }
}

/// A constant that an initializer holds.
#[derive(Clone, Debug)]
pub enum Constant {
    /// A dense tensor.
    Dense(Arc<Tensor>),
    /// A sparse tensor.
    Sparse(Arc<SparseTensor>),
}
