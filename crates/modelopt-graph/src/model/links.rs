//! What the links of a model tell: orders, owners, producers and consumers.

use std::sync::Arc;

use super::id::{GraphId, NodeId, ValueId};
use super::node::Node;
use super::value::{Constant, Producer, Use, Value};
use super::{Function, Model, Owner};
use crate::{AttributeValue, Tensor};

impl Model {
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
