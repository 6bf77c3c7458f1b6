//! Attributes of nodes.

use std::sync::Arc;

use bytes::Bytes;

use crate::{DeclaredType, GraphId, Origin, Tensor};

/// A named attribute of a node.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// Name, unique within the node.
    pub name: String,
    /// Value.
    pub value: AttributeValue,
    /// The loader's note.
    pub origin: Origin,
}

/// The value of an [`Attribute`].
#[derive(Clone, Debug)]
#[allow(missing_docs)] // Each variant is the ONNX attribute type of the same name.
pub enum AttributeValue {
    Float(f32),
    Int(i64),
    String(Bytes),
    Tensor(Arc<Tensor>),
    Graph(GraphId),
    SparseTensor(Arc<SparseTensor>),
    Type(DeclaredType),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Strings(Vec<Bytes>),
    Tensors(Vec<Arc<Tensor>>),
    Graphs(Vec<GraphId>),
    SparseTensors(Vec<Arc<SparseTensor>>),
    Types(Vec<DeclaredType>),
    /// Inside a model-local function: the attribute of this name on the calling node.
    Reference(String),
    /// No value, or one of a kind newer than this crate; carried in the loader's note.
    Other,
}

/// A sparse tensor in coordinate form.
#[derive(Clone, Debug)]
pub struct SparseTensor {
    /// The non-default elements, rank 1.
    pub values: Tensor,
    /// Their places: rank 1 (linear) or rank 2 (one row per element), int64.
    pub indices: Tensor,
    /// Shape of the dense equivalent.
    pub shape: Vec<usize>,
    /// The loader's note.
    pub origin: Origin,
}

impl SparseTensor {
    /// Size of what is stored, values and places, in bytes.
    pub fn byte_len(&self) -> u64 {
        (self.values.byte_len() + self.indices.byte_len()) as u64
    }
}

impl Attribute {
    /// A new attribute.
    pub fn new(name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        Attribute { name: name.into(), value: value.into(), origin: Origin::NONE }
    }

    /// The graphs this attribute holds.
    pub fn graphs(&self) -> &[GraphId] {
        match &self.value {
            AttributeValue::Graph(graph) => std::slice::from_ref(graph),
            AttributeValue::Graphs(graphs) => graphs,
            _ => &[],
        }
    }
}

impl From<i64> for AttributeValue {
    fn from(value: i64) -> Self {
        AttributeValue::Int(value)
    }
}

impl From<f32> for AttributeValue {
    fn from(value: f32) -> Self {
        AttributeValue::Float(value)
    }
}

impl From<Vec<i64>> for AttributeValue {
    fn from(value: Vec<i64>) -> Self {
        AttributeValue::Ints(value)
    }
}

impl From<&str> for AttributeValue {
    fn from(value: &str) -> Self {
        AttributeValue::String(Bytes::copy_from_slice(value.as_bytes()))
    }
}

impl From<Tensor> for AttributeValue {
    fn from(value: Tensor) -> Self {
        AttributeValue::Tensor(Arc::new(value))
    }
}

impl From<GraphId> for AttributeValue {
    fn from(value: GraphId) -> Self {
        AttributeValue::Graph(value)
    }
}
