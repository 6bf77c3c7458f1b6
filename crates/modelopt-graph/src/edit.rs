//! The few ways in which a [`Model`] changes. Every one keeps producers and uses in step.

use crate::model::{Constant, Names};
use crate::{
    Attribute, Graph, GraphId, Model, Node, NodeId, Operator, Origin, Owner, Producer, Type, Use,
    Value, ValueId, ValueInfo,
};

/// Where a node goes.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Before all nodes of a graph.
    Front(GraphId),
    /// After all nodes of a graph.
    Back(GraphId),
    /// Right before a node, in its graph.
    Before(NodeId),
    /// Right after a node, in its graph.
    After(NodeId),
}

/// What a new node consists of.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Name.
    pub name: String,
    /// Operator.
    pub op: Operator,
    /// Inputs.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs; values that nothing else produces.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes.
    pub attributes: Vec<Attribute>,
    /// The loader's note.
    pub origin: Origin,
}

impl NewNode {
    /// A node of `ai.onnx` with one output and without left-out inputs.
    pub fn onnx(
        name: String,
        op: &str,
        inputs: &[ValueId],
        output: ValueId,
        attributes: Vec<Attribute>,
    ) -> Self {
        NewNode {
            name,
            op: Operator::onnx(op),
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: vec![Some(output)],
            attributes,
            origin: Origin::NONE,
        }
    }
}

impl Model {
    /// Adds an empty graph. The caller puts it into an attribute of the owner.
    pub fn add_graph(&mut self, owner: Owner) -> GraphId {
        let id = GraphId::at(self.graphs.len());
        self.graphs.push(Graph {
            name: String::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            declared: Vec::new(),
            origin: Origin::NONE,
            initializers: Vec::new(),
            owner,
            first: None,
            last: None,
        });
        id
    }

    /// Adds a value that nothing produces yet.
    pub fn add_value(&mut self, name: impl Into<String>) -> ValueId {
        let id = ValueId::at(self.values.len());
        let name = name.into();
        if let Some(names) = &mut self.names {
            *names.count.entry(name.clone()).or_default() += 1;
        }
        self.values.push(Value {
            name,
            producer: Producer::None,
            uses: indexmap::IndexSet::new(),
            constant: None,
            ty: None,
        });
        id
    }

    /// Makes a value an input of a graph, after those it has.
    pub fn add_input(&mut self, graph: GraphId, info: ValueInfo) {
        let value = info.value;
        self.values[value.index()].producer = Producer::Input(graph);
        if let Some(declared) = &info.ty {
            self.values[value.index()].ty = Some(declared.ty.clone());
        }
        self.graphs[graph.index()].inputs.push(info);
    }

    /// Makes a value an output of a graph, after those it has.
    pub fn add_output(&mut self, graph: GraphId, info: ValueInfo) {
        let index = self.graph(graph).outputs.len() as u32;
        let value = &mut self.values[info.value.index()];
        value.uses.insert(Use::Output(graph, index));
        if let (None, Some(declared)) = (&value.ty, &info.ty) {
            value.ty = Some(declared.ty.clone());
        }
        self.graphs[graph.index()].outputs.push(info);
    }

    /// Makes a value an initializer of a graph, or, where it is an input already, its default.
    pub fn set_constant(&mut self, graph: GraphId, value: ValueId, constant: Constant) {
        let entry = &mut self.values[value.index()];
        entry.constant = Some(constant);
        if !matches!(entry.producer, Producer::Input(_)) {
            entry.producer = Producer::Initializer(graph);
        }
        self.graphs[graph.index()].initializers.push(value);
    }

    /// Takes the constant away from an initializer; afterwards nothing produces the value, or,
    /// where it is an input, it has no default. [`Model::compact`] drops it from its graph's list.
    pub fn clear_constant(&mut self, value: ValueId) {
        let entry = &mut self.values[value.index()];
        entry.constant = None;
        if matches!(entry.producer, Producer::Initializer(_)) {
            entry.producer = Producer::None;
        }
    }

    /// Drops from the lists of initializers those whose constant was cleared. One pass, to be
    /// called after many changes.
    pub fn compact(&mut self) {
        let values = &self.values;
        for graph in &mut self.graphs {
            graph.initializers.retain(|value| values[value.index()].constant.is_some());
        }
    }

    /// Turns inputs of the main graph that have a constant default into plain initializers.
    pub fn freeze_defaulted_inputs(&mut self) -> usize {
        let main = self.main();
        let values = &mut self.values;
        let inputs = &mut self.graphs[main.index()].inputs;
        let before = inputs.len();
        inputs.retain(|info| {
            let value = &mut values[info.value.index()];
            let frozen = value.constant.is_some();
            if frozen {
                value.producer = Producer::Initializer(main);
            }
            !frozen
        });
        before - inputs.len()
    }

    /// Says what is known of a value's type.
    pub fn set_type(&mut self, value: ValueId, ty: Option<Type>) {
        self.values[value.index()].ty = ty;
    }

    /// Adds a node.
    pub fn insert(&mut self, node: NewNode, place: Place) -> NodeId {
        let id = NodeId::at(self.nodes.len());
        let (graph, previous, next) = match place {
            Place::Front(graph) => (graph, None, self.graph(graph).first),
            Place::Back(graph) => (graph, self.graph(graph).last, None),
            Place::Before(at) => (self.node(at).graph, self.node(at).previous, Some(at)),
            Place::After(at) => (self.node(at).graph, Some(at), self.node(at).next),
        };
        for (index, input) in node.inputs.iter().enumerate() {
            if let Some(value) = input {
                self.values[value.index()].uses.insert(Use::Node(id, index as u32));
            }
        }
        for (index, output) in node.outputs.iter().enumerate() {
            if let Some(value) = output {
                self.values[value.index()].producer = Producer::Node(id, index as u32);
            }
        }
        for body in node.attributes.iter().flat_map(Attribute::graphs) {
            self.graphs[body.index()].owner = Owner::Node(id);
        }
        if let Some(names) = &mut self.names {
            *names.count.entry(node.name.clone()).or_default() += 1;
        }
        self.nodes.push(Node {
            name: node.name,
            op: node.op,
            attributes: node.attributes,
            origin: node.origin,
            graph,
            inputs: node.inputs,
            outputs: node.outputs,
            previous,
            next,
            removed: false,
        });
        match previous {
            Some(previous) => self.nodes[previous.index()].next = Some(id),
            None => self.graphs[graph.index()].first = Some(id),
        }
        match next {
            Some(next) => self.nodes[next.index()].previous = Some(id),
            None => self.graphs[graph.index()].last = Some(id),
        }
        id
    }

    /// Removes a node, and everything in its nested graphs. Its outputs stay, produced by
    /// nothing, so that another node can take them over.
    pub fn remove(&mut self, id: NodeId) {
        for inner in self.node(id).bodies().collect::<Vec<_>>() {
            for node in self.nodes_of(inner).collect::<Vec<_>>() {
                self.remove(node);
            }
            for index in 0..self.graph(inner).outputs.len() {
                let value = self.graph(inner).outputs[index].value;
                self.values[value.index()].uses.swap_remove(&Use::Output(inner, index as u32));
            }
        }
        let node = &mut self.nodes[id.index()];
        node.removed = true;
        let (graph, previous, next) = (node.graph, node.previous.take(), node.next.take());
        let inputs = std::mem::take(&mut node.inputs);
        let outputs = std::mem::take(&mut node.outputs);
        for (index, input) in inputs.into_iter().enumerate() {
            if let Some(value) = input {
                self.values[value.index()].uses.swap_remove(&Use::Node(id, index as u32));
            }
        }
        for value in outputs.into_iter().flatten() {
            let producer = &mut self.values[value.index()].producer;
            // Another node may have taken the value over already.
            if matches!(*producer, Producer::Node(node, _) if node == id) {
                *producer = Producer::None;
            }
        }
        self.unlink(graph, previous, next);
    }

    /// Moves a node, with its nested graphs, to another place in the same graph.
    pub fn move_node(&mut self, id: NodeId, before: NodeId) {
        if id == before || self.node(id).next == Some(before) {
            return;
        }
        let (graph, previous, next) = {
            let node = self.node(id);
            (node.graph, node.previous, node.next)
        };
        self.unlink(graph, previous, next);
        let ahead = self.node(before).previous;
        self.nodes[before.index()].previous = Some(id);
        let node = &mut self.nodes[id.index()];
        node.previous = ahead;
        node.next = Some(before);
        match ahead {
            Some(ahead) => self.nodes[ahead.index()].next = Some(id),
            None => self.graphs[graph.index()].first = Some(id),
        }
    }

    /// Takes whatever stands between two neighbours out of a graph's order.
    fn unlink(&mut self, graph: GraphId, previous: Option<NodeId>, next: Option<NodeId>) {
        match previous {
            Some(previous) => self.nodes[previous.index()].next = next,
            None => self.graphs[graph.index()].first = next,
        }
        match next {
            Some(next) => self.nodes[next.index()].previous = previous,
            None => self.graphs[graph.index()].last = previous,
        }
    }

    /// Lets a node read another value at one of its inputs.
    pub fn set_input(&mut self, node: NodeId, index: usize, value: Option<ValueId>) {
        let at = Use::Node(node, index as u32);
        let inputs = &mut self.nodes[node.index()].inputs;
        if inputs.len() <= index {
            inputs.resize(index + 1, None);
        }
        let old = std::mem::replace(&mut inputs[index], value);
        if let Some(old) = old {
            self.values[old.index()].uses.swap_remove(&at);
        }
        if let Some(value) = value {
            self.values[value.index()].uses.insert(at);
        }
    }

    /// Lets a node make another value, which nothing else makes, at one of its outputs. What it
    /// made there until now is made by nothing.
    pub fn set_output(&mut self, node: NodeId, index: usize, value: ValueId) {
        let old = self.nodes[node.index()].outputs[index].replace(value);
        if let Some(old) = old {
            self.values[old.index()].producer = Producer::None;
        }
        self.values[value.index()].producer = Producer::Node(node, index as u32);
    }

    /// Lets a graph return another value at one of its outputs.
    pub fn set_graph_output(&mut self, graph: GraphId, index: usize, value: ValueId) {
        let at = Use::Output(graph, index as u32);
        let old = std::mem::replace(&mut self.graphs[graph.index()].outputs[index].value, value);
        self.values[old.index()].uses.swap_remove(&at);
        self.values[value.index()].uses.insert(at);
    }

    /// Drops outputs of a graph: those of which `keep` says no to their place.
    pub fn retain_outputs(&mut self, graph: GraphId, keep: impl Fn(usize) -> bool) {
        let outputs = std::mem::take(&mut self.graphs[graph.index()].outputs);
        for (index, info) in outputs.iter().enumerate() {
            let at = Use::Output(graph, index as u32);
            self.values[info.value.index()].uses.swap_remove(&at);
        }
        let kept = outputs.into_iter().enumerate().filter(|(index, _)| keep(*index));
        for (_, info) in kept {
            self.add_output(graph, info);
        }
    }

    /// Gives an initializer, or an input that has a default, another tensor.
    pub fn replace_constant(&mut self, value: ValueId, tensor: std::sync::Arc<crate::Tensor>) {
        self.values[value.index()].constant = Some(Constant::Dense(tensor));
    }

    /// Lets all nodes that read `old` read `new`. Graph outputs keep `old`.
    pub fn replace_reads(&mut self, old: ValueId, new: ValueId) {
        if old == new {
            return;
        }
        let (moved, kept): (Vec<Use>, Vec<Use>) =
            std::mem::take(&mut self.values[old.index()].uses)
                .into_iter()
                .partition(|u| matches!(u, Use::Node(..)));
        self.values[old.index()].uses = kept.into_iter().collect();
        for &at in &moved {
            if let Use::Node(node, index) = at {
                self.nodes[node.index()].inputs[index as usize] = Some(new);
            }
        }
        self.values[new.index()].uses.extend(moved);
    }

    /// Drops declarations (`value_info`) that say nothing of use: of values that nothing produces
    /// any more and of constants. Declarations that never named a value of the graph go too.
    pub fn prune_declarations(&mut self) {
        let values = &self.values;
        for graph in &mut self.graphs {
            graph.declared.retain(|info| {
                matches!(
                    values[info.value.index()].producer,
                    Producer::Node(..) | Producer::Input(_)
                )
            });
        }
    }

    /// A name that no value and no node of the model has: `base`, or `base_1`, `base_2`, ….
    pub fn fresh_name(&mut self, base: &str) -> String {
        let names = self.names();
        if !names.count.contains_key(base) {
            return base.to_owned();
        }
        loop {
            let number = names.tried.entry(base.to_owned()).or_default();
            *number += 1;
            let name = format!("{base}_{number}");
            if !names.count.contains_key(&name) {
                return name;
            }
        }
    }

    /// Whether no other value or node has the name of this value, so that it can be read from
    /// any nested graph without being hidden there.
    pub fn has_unique_name(&mut self, value: ValueId) -> bool {
        let name = self.values[value.index()].name.clone();
        self.names().count.get(&name).is_none_or(|&count| count <= 1)
    }

    fn names(&mut self) -> &mut Names {
        self.names.get_or_insert_with(|| {
            let mut names = Names::default();
            let values = self.values.iter().map(|value| &value.name);
            let nodes = self.nodes.iter().map(|node| &node.name);
            for name in values.chain(nodes) {
                *names.count.entry(name.clone()).or_default() += 1;
            }
            names
        })
    }
}
