//! What a model says of the sizes of its inputs before anything runs.

use indexmap::IndexMap;
use modelopt_graph::{
    AttributeValue, Constant, Dim, GraphId, Model, NodeId, Tensor, Type, infer, verify,
};

use super::constraints::{self, Demand};
use super::dims::Sizes;
use crate::{InputSpec, graph_inputs};

/// How many nodes are looked at in all, over all sizes that are thought through.
const FUEL: usize = 1_500_000;

/// A model whose types are inferred from one set of sizes after another.
pub(super) struct Check {
    scratch: Model,
    specs: Vec<InputSpec>,
    /// The nodes of the main graph and, behind each `If`, those of its branches. Bodies of loops
    /// need not run.
    order: Vec<NodeId>,
    fuel: usize,
}

/// The first node whose demands are not all met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// Its place in the graph.
    pub(super) at: usize,
    /// All of its demands, met or not.
    pub(super) demands: Vec<Demand>,
}

impl Check {
    /// `None` for a model whose nodes have no order.
    pub(super) fn new(model: &Model) -> Option<Self> {
        let specs = graph_inputs(model);
        let mut scratch = model.clone();
        verify::sort(&mut scratch).ok()?;
        // What is declared of values in between speaks of other sizes.
        for graph in scratch.all_graphs() {
            let graph = scratch.graph_mut(graph);
            graph.declared.clear();
            for info in &mut graph.outputs {
                info.ty = None;
            }
        }
        let mut order = Vec::new();
        collect(&scratch, scratch.main(), 0, &mut order);
        Some(Check { scratch, specs, order, fuel: FUEL })
    }

    pub(super) fn specs(&self) -> &[InputSpec] {
        &self.specs
    }

    /// Lets the values of small inputs be known.
    pub(super) fn fix(&mut self, values: &IndexMap<String, Tensor>) {
        // In models of this version an input with a default is a constant.
        self.scratch.info.ir_version = 3;
        let main = self.scratch.main();
        for (name, tensor) in values {
            let found = self.scratch.graph(main).inputs.iter().map(|info| info.value);
            let found = { found }.find(|&value| self.scratch.value(value).name() == name);
            if let Some(value) = found {
                let tensor = std::sync::Arc::new(tensor.clone());
                if self.scratch.value(value).constant().is_some() {
                    self.scratch.replace_constant(value, tensor);
                } else {
                    self.scratch.set_constant(main, value, Constant::Dense(tensor));
                }
            }
        }
    }

    /// The first conflict under these sizes of open dimensions.
    pub(super) fn conflict(
        &mut self,
        sizes: &IndexMap<String, usize>,
    ) -> Result<Option<Conflict>, Tired> {
        self.infer(sizes)?;
        // Of the branches of an `If` only the one that is known to be taken counts.
        let mut active = vec![self.scratch.main()];
        for (at, &id) in self.order.iter().enumerate() {
            if !active.contains(&self.scratch.node(id).graph()) {
                continue;
            }
            let demands = constraints::demands(&self.scratch, id);
            if !demands.iter().all(|demand| demand.is_met()) {
                return Ok(Some(Conflict { at, demands }));
            }
            active.extend(self.taken(id));
        }
        let demands = constraints::outputs(&self.scratch);
        let all_met = demands.iter().all(|demand| demand.is_met());
        Ok((!all_met).then_some(Conflict { at: self.order.len(), demands }))
    }

    /// The branch that an `If` takes, if that is known.
    fn taken(&self, id: NodeId) -> Option<GraphId> {
        let node = self.scratch.node(id);
        if !node.op.is("If") {
            return None;
        }
        let condition = infer::known_integers(&self.scratch, node.input(0)?)?;
        let name = match *condition.as_slice() {
            [Some(0)] => "else_branch",
            [Some(_)] => "then_branch",
            _ => return None,
        };
        match node.attribute(name)? {
            AttributeValue::Graph(branch) => Some(*branch),
            _ => None,
        }
    }

    /// The demands of one node under other sizes.
    pub(super) fn demands(
        &mut self,
        at: usize,
        sizes: &IndexMap<String, usize>,
    ) -> Result<Vec<Demand>, Tired> {
        self.infer(sizes)?;
        Ok(match self.order.get(at) {
            Some(&id) => constraints::demands(&self.scratch, id),
            None => constraints::outputs(&self.scratch),
        })
    }

    fn infer(&mut self, sizes: &IndexMap<String, usize>) -> Result<(), Tired> {
        let cost = self.scratch.node_capacity() + 1;
        self.fuel = self.fuel.checked_sub(cost).ok_or(Tired)?;
        let chosen = Sizes::choose(&self.specs, sizes);
        let main = self.scratch.main();
        let values: Vec<_> =
            self.scratch.graph(main).inputs.iter().map(|info| info.value).collect();
        for spec in &self.specs {
            let Type::Tensor { elem, shape: Some(dims) } = &spec.ty else { continue };
            let shape = chosen.shape(&spec.name, dims).into_iter().map(Dim::Fixed).collect();
            let named = |value: &&_| self.scratch.value(**value).name() == spec.name;
            if let Some(&value) = values.iter().find(named) {
                let ty = Type::Tensor { elem: *elem, shape: Some(shape) };
                self.scratch.set_type(value, Some(ty));
            }
        }
        infer::infer(&mut self.scratch);
        Ok(())
    }
}

/// The nodes of a graph, each with those of its branches behind it.
fn collect(model: &Model, graph: GraphId, depth: usize, order: &mut Vec<NodeId>) {
    const DEEPEST: usize = 16;
    for id in model.nodes_of(graph) {
        order.push(id);
        if model.node(id).op.is("If") && depth < DEEPEST {
            for branch in model.node(id).bodies() {
                collect(model, branch, depth + 1, order);
            }
        }
    }
}

/// Enough was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tired;
