//! The visit of graphs and nodes, in order.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::env::{Env, MAX_DEPTH};
use super::node;
use super::types::{complete, tame};
use crate::{GraphId, Model, NodeId, Type, ValueId};

/// Visits graphs and nodes and keeps what it finds.
pub(super) struct Engine<'a> {
    pub(super) env: Env<'a>,
    /// Types declared for values that nodes make; empty when one node is asked about.
    pub(super) declared: HashMap<ValueId, &'a Type>,
    /// Place of each function in the model.
    pub(super) functions: HashMap<(&'a str, &'a str, &'a str), usize>,
    /// Functions being inferred.
    pub(super) active: Vec<usize>,
    /// Functions with a call that could not be followed.
    pub(super) unfollowed: HashSet<usize>,
    /// What all calls so far agree on, for values in bodies of functions.
    pub(super) agreed: HashMap<ValueId, Option<Type>>,
    /// How many more nodes may be visited by following calls.
    pub(super) fuel: usize,
}

impl<'a> Engine<'a> {
    pub(super) fn new(model: &'a Model) -> Self {
        let functions = model.functions.iter().enumerate().map(|(index, function)| {
            ((function.domain.as_str(), function.name.as_str(), function.overload.as_str()), index)
        });
        Engine {
            env: Env {
                model,
                found: HashMap::new(),
                callers: Vec::new(),
                arguments: HashMap::new(),
            },
            declared: HashMap::new(),
            functions: functions.collect(),
            active: Vec::new(),
            unfollowed: HashSet::new(),
            agreed: HashMap::new(),
            fuel: model.node_capacity().saturating_mul(8).saturating_add(1000),
        }
    }

    pub(super) fn whole(model: &'a Model) -> Self {
        let mut engine = Engine::new(model);
        for graph in model.all_graphs() {
            let graph = model.graph(graph);
            for info in graph.outputs.iter().chain(&graph.declared).chain(&graph.inputs) {
                if let Some(declared) = &info.ty {
                    engine.declared.entry(info.value).or_insert(&declared.ty);
                }
            }
        }
        engine
    }

    /// Infers the nodes of a graph in order.
    pub(super) fn graph(&mut self, graph: GraphId, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        let model = self.env.model;
        for node in model.nodes_of(graph) {
            let types = self.node(node, depth);
            for (output, ty) in model.node(node).outputs().iter().zip(types) {
                if let Some(value) = *output {
                    self.set(value, ty);
                }
            }
        }
    }

    /// Keeps what was found of a value, or what is declared where nothing was.
    pub(super) fn set(&mut self, value: ValueId, ty: Option<Type>) {
        let ty = complete(ty, self.declared.get(&value).copied());
        self.env.found.insert(value, ty);
    }

    /// The types of a node's outputs.
    pub(super) fn node(&mut self, id: NodeId, depth: usize) -> Vec<Option<Type>> {
        let node = self.env.model.node(id);
        let mut types = match (node.op.is_onnx(), node.op.name.as_str()) {
            (true, "If") => self.branches(id, depth),
            (true, "Loop") => self.repeat(id, depth),
            (true, "Scan") => self.scan(id, depth),
            (true, "SequenceMap") => self.sequence_map(id, depth),
            _ => {
                if let Some(function) = self.called(node) {
                    self.call(id, function, depth)
                } else {
                    // Bodies of operators that are not known here have declared inputs at best.
                    for body in node.bodies() {
                        self.graph(body, depth + 1);
                    }
                    node::types(&self.env, id)
                }
            }
        };
        types.resize(node.outputs().len(), None);
        for ty in &mut types {
            *ty = ty.take().and_then(|ty| tame(Cow::Owned(ty)).map(Cow::into_owned));
        }
        types
    }

    /// Completes functions, and hands out what was found.
    pub(super) fn finish(mut self) -> HashMap<ValueId, Option<Type>> {
        self.visit_uncalled();
        let Engine { env, agreed, .. } = self;
        let mut found = env.found;
        found.extend(agreed);
        found
    }
}
