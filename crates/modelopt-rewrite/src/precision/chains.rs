//! What goes through control flow: one chain is a value that passes from outside into bodies, and
//! out again, and has one type all the way.
//!
//! ```text
//! If:    result k of each branch ─▶ output k
//! Loop:  initial value ─▶ input of the body ─▶ output of the body ─▶ final value
//! Scan:  the same for its state; scanned inputs end in the body, scanned outputs start there
//! ```

use modelopt_graph::schema;
use modelopt_graph::{GraphId, Model, NodeId, ValueId};

use super::form::is_float;
use crate::plan::Precision;

/// A value on its way through a control-flow node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    /// Which input of the node it starts at.
    pub(crate) enters: Option<usize>,
    /// What the body calls it.
    pub(crate) inside: Option<ValueId>,
    /// The outputs of bodies that it leaves by.
    pub(crate) leaves: Vec<(GraphId, usize)>,
    /// What it is outside afterwards.
    pub(crate) outside: Option<ValueId>,
    /// Whether the body runs many times, so that a cast in it costs more than one outside.
    pub(crate) repeats: bool,
}

impl Chain {
    /// What it takes from outside, and what bodies give it.
    pub(crate) fn read(&self, model: &Model, node: NodeId) -> Vec<ValueId> {
        let enters = self.enters.and_then(|index| model.node(node).input(index));
        let leaves =
            self.leaves.iter().map(|&(body, index)| model.graph(body).outputs[index].value);
        enters.into_iter().chain(leaves).collect()
    }

    /// What it is in bodies, and outside afterwards.
    pub(crate) fn made(&self) -> impl Iterator<Item = ValueId> {
        self.inside.into_iter().chain(self.outside)
    }

    /// All values of it.
    pub(crate) fn values(&self, model: &Model, node: NodeId) -> Vec<ValueId> {
        self.read(model, node).into_iter().chain(self.made()).collect()
    }
}

/// The chains of float32 tensors through a control-flow node that may be of 16 bits.
pub(crate) fn chains(model: &Model, id: NodeId, to: Precision) -> Vec<Chain> {
    let node = model.node(id);
    let version = model.opset(node.graph(), "").unwrap_or(1);
    let allowed = schema::lookup("", &node.op.name, version).is_some_and(|schema| {
        let formal = schema.outputs.last();
        formal.is_some_and(|formal| schema.allows(formal, to.dtype()))
    });
    if !allowed {
        return Vec::new();
    }
    let all = match node.op.name.as_str() {
        "If" => branches(model, id),
        "Loop" => turns(model, id),
        // Version 8 has an axis more than its body.
        "Scan" if version >= 9 => scans(model, id),
        _ => Vec::new(),
    };
    let is_whole = |chain: &Chain| {
        let values = chain.values(model, id);
        !values.is_empty() && values.into_iter().all(|value| is_float(model, value))
    };
    all.into_iter().filter(is_whole).collect()
}

fn branches(model: &Model, id: NodeId) -> Vec<Chain> {
    let node = model.node(id);
    let bodies: Vec<GraphId> = node.bodies().collect();
    let fits = |&index: &usize| bodies.iter().all(|&b| index < model.graph(b).outputs.len());
    (0..node.outputs().len())
        .filter(fits)
        .map(|index| Chain {
            leaves: bodies.iter().map(|&body| (body, index)).collect(),
            outside: node.output(index),
            ..Chain::default()
        })
        .collect()
}

fn turns(model: &Model, id: NodeId) -> Vec<Chain> {
    let node = model.node(id);
    let Some(body) = node.bodies().next() else { return Vec::new() };
    // The body also takes the number of the turn and a condition, and returns a condition.
    carried_and_scanned(
        model,
        id,
        body,
        Layout { first_input: 2, inner_inputs: 2, first_result: 1 },
    )
}

fn scans(model: &Model, id: NodeId) -> Vec<Chain> {
    let node = model.node(id);
    let Some(body) = node.bodies().next() else { return Vec::new() };
    let scanned = usize::try_from(node.int("num_scan_inputs", 0)).unwrap_or(usize::MAX);
    let Some(states) = node.inputs().len().checked_sub(scanned) else { return Vec::new() };
    let layout = Layout { first_input: 0, inner_inputs: 0, first_result: 0 };
    let mut chains = carried(model, id, body, states, layout);
    for index in states..node.inputs().len() {
        chains.push(Chain {
            enters: Some(index),
            inside: model.graph(body).inputs.get(index).map(|info| info.value),
            repeats: true,
            ..Chain::default()
        });
    }
    chains.extend(stacked(model, id, body, states, layout));
    chains
}

/// Where state stands in the lists of a loop and its body.
#[derive(Clone, Copy)]
struct Layout {
    first_input: usize,
    inner_inputs: usize,
    first_result: usize,
}

fn carried_and_scanned(model: &Model, id: NodeId, body: GraphId, layout: Layout) -> Vec<Chain> {
    let states = model.graph(body).inputs.len().saturating_sub(layout.inner_inputs);
    let mut chains = carried(model, id, body, states, layout);
    chains.extend(stacked(model, id, body, states, layout));
    chains
}

/// State that goes round.
fn carried(model: &Model, id: NodeId, body: GraphId, states: usize, layout: Layout) -> Vec<Chain> {
    let (inner, node) = (model.graph(body), model.node(id));
    let has = |index: usize| {
        node.input(layout.first_input + index).is_some()
            && layout.inner_inputs + index < inner.inputs.len()
            && layout.first_result + index < inner.outputs.len()
    };
    (0..states)
        .filter(|&index| has(index))
        .map(|index| Chain {
            enters: Some(layout.first_input + index),
            inside: Some(inner.inputs[layout.inner_inputs + index].value),
            leaves: vec![(body, layout.first_result + index)],
            outside: node.output(index),
            repeats: true,
        })
        .collect()
}

/// What each turn adds to.
fn stacked(model: &Model, id: NodeId, body: GraphId, states: usize, layout: Layout) -> Vec<Chain> {
    let inner = model.graph(body);
    (layout.first_result + states..inner.outputs.len())
        .map(|index| Chain {
            leaves: vec![(body, index)],
            outside: model.node(id).output(index - layout.first_result),
            repeats: true,
            ..Chain::default()
        })
        .collect()
}
