//! The model as a value: arenas of graphs, nodes and values that know each other.

mod id;
mod links;
mod node;
mod value;

use std::collections::HashMap;

pub use id::{GraphId, NodeId, ValueId};
pub use node::{Node, Operator};
pub use value::{Constant, Producer, Use, Value};

use crate::{DeclaredType, Origin};

/// A whole ONNX model.
///
/// All graphs, nested ones included, share one arena, so a value that a branch captures from an
/// outer graph is simply the same [`ValueId`], and its list of uses has the branch's nodes in it.
/// Ids stay valid for the life of the model; removed nodes keep their id and leave the order.
#[derive(Clone, Debug)]
pub struct Model {
    /// What describes the model as a whole.
    pub info: ModelInfo,
    pub(crate) graphs: Vec<Graph>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) values: Vec<Value>,
    /// Model-local functions.
    pub functions: Vec<Function>,
    /// How many values and nodes have each name; made on first need.
    pub(crate) names: Option<Names>,
}

/// What describes a model as a whole.
#[derive(Clone, Debug, Default)]
pub struct ModelInfo {
    /// Version of the ONNX format (`ir_version`).
    pub ir_version: i64,
    /// Operator sets the model uses.
    pub opsets: Vec<OpsetImport>,
    /// Name of the tool that made it.
    pub producer_name: String,
    /// Version of the tool that made it.
    pub producer_version: String,
    /// Reverse-DNS name space of the model.
    pub domain: String,
    /// Version of the model itself.
    pub model_version: i64,
    /// Free text.
    pub doc_string: String,
    /// Named strings (`metadata_props`).
    pub metadata: Vec<Metadata>,
    /// The loader's note.
    pub origin: Origin,
}

/// One entry of `metadata_props`.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// The loader's note.
    pub origin: Origin,
}

/// One imported operator set.
#[derive(Clone, Debug)]
pub struct OpsetImport {
    /// Domain; empty for `ai.onnx`.
    pub domain: String,
    /// Version.
    pub version: i64,
    /// The loader's note.
    pub origin: Origin,
}

/// A model-local function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Domain that calling nodes name.
    pub domain: String,
    /// Operator type that calling nodes name.
    pub name: String,
    /// Overload that calling nodes name.
    pub overload: String,
    /// Operator sets its body uses.
    pub opsets: Vec<OpsetImport>,
    /// Body; its inputs are the formal parameters.
    pub body: GraphId,
    /// Whether it has attributes with default values, which the loader's note holds.
    pub has_attribute_defaults: bool,
    /// The loader's note.
    pub origin: Origin,
}

/// Where a graph belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The main graph.
    Model,
    /// A body of a node (`If`, `Loop`, `Scan`, …).
    Node(NodeId),
    /// The body of `Model::functions` at this place.
    Function(usize),
}

/// A list of nodes with inputs and outputs.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Name.
    pub name: String,
    /// Inputs, in order.
    pub inputs: Vec<ValueInfo>,
    /// Outputs, in order.
    pub outputs: Vec<ValueInfo>,
    /// Types declared for values in between (`value_info`), possibly stale.
    pub declared: Vec<ValueInfo>,
    /// The loader's note.
    pub origin: Origin,
    pub(crate) initializers: Vec<ValueId>,
    pub(crate) owner: Owner,
    pub(crate) first: Option<NodeId>,
    pub(crate) last: Option<NodeId>,
}

/// An input, output or declared value of a graph.
#[derive(Clone, Debug)]
pub struct ValueInfo {
    /// Value.
    pub value: ValueId,
    /// Type as declared.
    pub ty: Option<DeclaredType>,
    /// The loader's note.
    pub origin: Origin,
}

/// How often each name occurs, and the last number tried behind each base name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) count: HashMap<String, u32>,
    pub(crate) tried: HashMap<String, u32>,
}

impl Model {
    /// A model with an empty main graph.
    pub fn new(info: ModelInfo) -> Self {
        let mut model = Model {
            info,
            graphs: Vec::new(),
            nodes: Vec::new(),
            values: Vec::new(),
            functions: Vec::new(),
            names: None,
        };
        model.add_graph(Owner::Model);
        model
    }

    /// The main graph.
    #[allow(clippy::unused_self)] // Read as a property of the model.
    pub fn main(&self) -> GraphId {
        GraphId(0)
    }

    /// A graph.
    pub fn graph(&self, id: GraphId) -> &Graph {
        &self.graphs[id.index()]
    }

    /// A graph's names, inputs, outputs and declarations, to change.
    pub fn graph_mut(&mut self, id: GraphId) -> &mut Graph {
        &mut self.graphs[id.index()]
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// A node's name, operator and attributes, to change.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// Every value that was ever made, in order of creation.
    pub fn values(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.values.len()).map(ValueId::at)
    }

    /// How many nodes were ever made; an upper bound of [`NodeId::index`].
    pub fn node_capacity(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes of one graph in order, without those of nested graphs.
    pub fn nodes_of(&self, graph: GraphId) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::successors(self.graph(graph).first, |&node| self.node(node).next)
    }

    /// The initializers of a graph, in order.
    pub fn initializers_of(&self, graph: GraphId) -> &[ValueId] {
        &self.graph(graph).initializers
    }
}
