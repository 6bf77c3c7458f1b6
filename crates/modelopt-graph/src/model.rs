//! The model as a value: arenas of graphs, nodes and values that know each other.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use indexmap::IndexSet;

use crate::{
    Attribute, AttributeValue, DataType, DeclaredType, Origin, SparseTensor, Tensor, Type,
};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub(crate) u32);

        impl $name {
            /// Place in the model's arena.
            pub fn index(self) -> usize {
                self.0 as usize
            }

            pub(crate) fn at(index: usize) -> Self {
                // An arena of 2^32 entries would take hundreds of gigabytes.
                $name(u32::try_from(index).unwrap_or(u32::MAX))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id!(
    /// A graph of a [`Model`]: the main graph, a body of a control-flow node, or a function's body.
    GraphId
);
id!(
    /// A node of a [`Model`].
    NodeId
);
id!(
    /// A value of a [`Model`].
    ValueId
);

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

    /// All nodes of the main graph and, after each node, those of its nested graphs.
    pub fn walk(&self) -> Vec<NodeId> {
        self.walk_graph(self.main())
    }

    /// All nodes of a graph and, after each node, those of its nested graphs.
    pub fn walk_graph(&self, graph: GraphId) -> Vec<NodeId> {
        let mut order = Vec::new();
        // One entry per open graph: the next node to visit there.
        let mut open = vec![self.graph(graph).first];
        while let Some(top) = open.last_mut() {
            let Some(node) = *top else {
                open.pop();
                continue;
            };
            *top = self.node(node).next;
            order.push(node);
            open.extend(self.node(node).bodies().rev().map(|body| self.graph(body).first));
        }
        order
    }

    /// The main graph and all graphs nested in it, outer before inner.
    pub fn live_graphs(&self) -> Vec<GraphId> {
        let mut graphs = vec![self.main()];
        graphs.extend(self.walk().into_iter().flat_map(|node| self.node(node).bodies()));
        graphs
    }

    /// Like [`Model::live_graphs`], with the bodies of functions after them.
    pub fn all_graphs(&self) -> Vec<GraphId> {
        let mut graphs = self.live_graphs();
        for function in &self.functions {
            graphs.push(function.body);
            graphs.extend(
                self.walk_graph(function.body)
                    .into_iter()
                    .flat_map(|node| self.node(node).bodies()),
            );
        }
        graphs
    }

    /// The owner of a graph.
    pub fn owner(&self, graph: GraphId) -> Owner {
        self.graph(graph).owner
    }

    /// The graph that encloses `graph`; `None` for the main graph and function bodies.
    pub fn parent(&self, graph: GraphId) -> Option<GraphId> {
        match self.owner(graph) {
            Owner::Node(node) => Some(self.node(node).graph),
            Owner::Model | Owner::Function(_) => None,
        }
    }

    /// Whether `inner` is `outer` or nested in it.
    pub fn encloses(&self, outer: GraphId, inner: GraphId) -> bool {
        std::iter::successors(Some(inner), |&graph| self.parent(graph)).any(|graph| graph == outer)
    }

    /// The function whose body holds `graph`, if any.
    pub fn function_of(&self, graph: GraphId) -> Option<&Function> {
        let root = std::iter::successors(Some(graph), |&graph| self.parent(graph)).last()?;
        match self.owner(root) {
            Owner::Function(index) => self.functions.get(index),
            _ => None,
        }
    }

    /// The imported version of `domain` in `graph`, if imported.
    pub fn opset(&self, graph: GraphId, domain: &str) -> Option<i64> {
        let normal =
            |domain: &str| if domain == "ai.onnx" { String::new() } else { domain.to_owned() };
        let imports = match self.function_of(graph) {
            Some(function) => &function.opsets,
            None => &self.info.opsets,
        };
        let wanted = normal(domain);
        imports.iter().find(|import| normal(&import.domain) == wanted).map(|import| import.version)
    }

    /// The function that a node calls, if it calls one.
    pub fn called_function(&self, node: NodeId) -> Option<&Function> {
        let op = &self.node(node).op;
        self.functions.iter().find(|function| {
            function.name == op.name
                && function.domain == op.domain
                && function.overload == op.overload
        })
    }

    /// The graph in which a value is defined: where its node, input or initializer stands.
    pub fn home(&self, value: ValueId) -> Option<GraphId> {
        match self.value(value).producer {
            Producer::None => None,
            Producer::Input(graph) | Producer::Initializer(graph) => Some(graph),
            Producer::Node(node, _) => Some(self.node(node).graph),
        }
    }

    /// The node that produces a value.
    pub fn producer_node(&self, value: ValueId) -> Option<NodeId> {
        match self.value(value).producer {
            Producer::Node(node, _) => Some(node),
            _ => None,
        }
    }

    /// The nodes that use a value as input, in any graph; a node may occur more than once.
    pub fn consumers(&self, value: ValueId) -> impl Iterator<Item = (NodeId, usize)> + '_ {
        self.value(value).uses.iter().filter_map(|u| match u {
            Use::Node(node, index) => Some((*node, *index as usize)),
            Use::Output(..) => None,
        })
    }

    /// Whether an input with a default is a constant: before IR version 4 every initializer had
    /// to be listed as an input, so being listed says nothing; since then it means that callers
    /// may override it.
    pub fn defaults_are_constants(&self) -> bool {
        self.info.ir_version < 4
    }

    /// The constant tensor that a value is: an initializer, an input with a constant default
    /// (see [`Model::defaults_are_constants`]), or the output of a `Constant` node.
    pub fn constant(&self, value: ValueId) -> Option<Arc<Tensor>> {
        let Value { producer, constant, .. } = self.value(value);
        match (producer, constant) {
            (Producer::Initializer(_), Some(Constant::Dense(tensor))) => Some(tensor.clone()),
            (Producer::Input(graph), Some(Constant::Dense(tensor)))
                if self.defaults_are_constants() && *graph == self.main() =>
            {
                Some(tensor.clone())
            }
            (Producer::Node(node, 0), _) => constant_node_tensor(self.node(*node)),
            _ => None,
        }
    }

    /// The value that `value` is another name of: followed back through `Identity` nodes.
    pub fn resolve(&self, value: ValueId) -> ValueId {
        let mut current = value;
        while let Some(node) = self.producer_node(current) {
            let node = self.node(node);
            match node.input(0) {
                Some(input) if node.op.is("Identity") => current = input,
                _ => break,
            }
        }
        current
    }

    /// A node as people refer to it: operator and name, or operator and first output.
    pub fn label(&self, id: NodeId) -> String {
        let node = self.node(id);
        if !node.name.is_empty() {
            return format!("{} '{}'", node.op, node.name);
        }
        match node.outputs.iter().flatten().next() {
            Some(&output) => format!("{} (unnamed, makes '{}')", node.op, self.value(output).name),
            None => format!("{} (unnamed)", node.op),
        }
    }

    /// Where a graph is: empty for the main graph, else the path of owning nodes and attributes,
    /// such as `If_3/then_branch`.
    pub fn graph_path(&self, graph: GraphId) -> String {
        let mut parts = Vec::new();
        let mut current = graph;
        loop {
            match self.owner(current) {
                Owner::Model => break,
                Owner::Function(index) => {
                    if let Some(function) = self.functions.get(index) {
                        parts.push(format!("function {}", function.name));
                    }
                    break;
                }
                Owner::Node(id) => {
                    let node = self.node(id);
                    let attribute = node
                        .attributes
                        .iter()
                        .find(|attribute| attribute.graphs().contains(&current))
                        .map_or("?", |attribute| attribute.name.as_str());
                    let name = if node.name.is_empty() {
                        node.outputs.iter().flatten().next().map_or_else(
                            || node.op.name.clone(),
                            |&output| self.value(output).name.clone(),
                        )
                    } else {
                        node.name.clone()
                    };
                    parts.push(format!("{name}/{attribute}"));
                    current = node.graph;
                }
            }
        }
        parts.reverse();
        parts.join("/")
    }
}

/// The tensor of a `Constant` node, in whichever of its attributes it stands.
fn constant_node_tensor(node: &Node) -> Option<Arc<Tensor>> {
    if !node.op.is("Constant") {
        return None;
    }
    let [attribute] = node.attributes.as_slice() else {
        return None;
    };
    match (attribute.name.as_str(), &attribute.value) {
        ("value", AttributeValue::Tensor(tensor)) => Some(tensor.clone()),
        ("value_float", AttributeValue::Float(x)) => Some(Arc::new(Tensor::scalar(*x))),
        ("value_int", AttributeValue::Int(x)) => Some(Arc::new(Tensor::scalar(*x))),
        ("value_floats", AttributeValue::Floats(xs)) => {
            Tensor::of(vec![xs.len()], xs).ok().map(Arc::new)
        }
        ("value_ints", AttributeValue::Ints(xs)) => {
            Tensor::of(vec![xs.len()], xs).ok().map(Arc::new)
        }
        _ => None,
    }
}
