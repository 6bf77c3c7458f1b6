//! Calls of model-local functions, followed into their bodies.

use super::engine::Engine;
use super::env::MAX_DEPTH;
use super::types::join_known;
use crate::{GraphId, Node, NodeId, Type, ValueId};

impl<'a> Engine<'a> {
    /// The function that a node calls.
    pub(super) fn called(&self, node: &'a Node) -> Option<usize> {
        if self.functions.is_empty() {
            return None;
        }
        let op = &node.op;
        let key = (op.domain.as_str(), op.name.as_str(), op.overload.as_str());
        self.functions.get(&key).copied()
    }

    /// Types of the outputs of a call, by inferring the body with the types of its arguments.
    ///
    /// Calls are followed only as far as the whole inference stays linear.
    pub(super) fn call(&mut self, id: NodeId, function: usize, depth: usize) -> Vec<Option<Type>> {
        let model = self.env.model;
        let node = model.node(id);
        let Some(called) = model.functions.get(function) else {
            return Vec::new();
        };
        let body = called.body;
        if self.fuel == 0 || depth > MAX_DEPTH || self.active.contains(&function) {
            self.unfollowed.insert(function);
            return Vec::new();
        }
        let inner = model.walk_graph(body);
        self.fuel = self.fuel.saturating_sub(inner.len() + 1);
        if self.fuel == 0 {
            self.unfollowed.insert(function);
            return Vec::new();
        }
        let types = self.input_types(id, 0);
        let inputs: Vec<ValueId> = model.graph(body).inputs.iter().map(|info| info.value).collect();
        for (index, &input) in inputs.iter().enumerate() {
            self.env.found.insert(input, types.get(index).cloned().flatten());
            match node.input(index) {
                Some(argument) => self.env.arguments.insert(input, argument),
                None => self.env.arguments.remove(&input),
            };
        }
        self.active.push(function);
        self.env.callers.push((node, called.has_attribute_defaults));
        self.graph(body, depth + 1);
        self.env.callers.pop();
        self.active.pop();
        let results = self.results(body);
        self.agree(body, &inner);
        for input in inputs {
            self.env.arguments.remove(&input);
        }
        results
    }

    /// Infers the bodies of functions that nothing calls, and of those with a call that was not
    /// followed, with nothing known of their inputs.
    pub(super) fn visit_uncalled(&mut self) {
        let model = self.env.model;
        for (index, function) in model.functions.iter().enumerate() {
            let inputs = &model.graph(function.body).inputs;
            let inner = model.walk_graph(function.body);
            let called = inner
                .iter()
                .flat_map(|&node| model.node(node).outputs().iter().flatten())
                .chain(inputs.iter().map(|info| &info.value))
                .any(|value| self.agreed.contains_key(value));
            if called && !self.unfollowed.contains(&index) {
                continue;
            }
            for info in inputs {
                let declared = info.ty.as_ref().map(|declared| declared.ty.clone());
                self.set(info.value, declared);
            }
            self.active.push(index);
            // Calls in it were followed, or will be visited in turn.
            self.fuel = 0;
            self.graph(function.body, 0);
            self.active.pop();
            self.agree(function.body, &inner);
        }
    }

    /// Notes what was found in a function's body, next to what other calls found.
    fn agree(&mut self, body: GraphId, inner: &[NodeId]) {
        let model = self.env.model;
        let bodies = inner.iter().flat_map(|&node| model.node(node).bodies());
        let inputs = std::iter::once(body).chain(bodies).flat_map(|graph| {
            model.graph(graph).inputs.iter().map(|info| info.value).collect::<Vec<_>>()
        });
        let outputs =
            inner.iter().flat_map(|&node| model.node(node).outputs().iter().flatten().copied());
        for value in inputs.chain(outputs) {
            let found = self.env.found.get(&value).cloned().flatten();
            match self.agreed.get_mut(&value) {
                Some(agreed) => *agreed = join_known(agreed.as_ref(), found.as_ref()),
                None => {
                    self.agreed.insert(value, found);
                }
            }
        }
    }
}
