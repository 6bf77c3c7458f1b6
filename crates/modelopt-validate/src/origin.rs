//! Where outputs come from, as far as that says how to judge them: whether they are probabilities,
//! and what is chosen among on the way to them.
//!
//! ```text
//! l = MatMul(...)   token = ArgMax(l)       integers that are the places of something
//!                   boxes = Gather(b, NonMaxSuppression(b, s))     rows that are chosen
//! ```
//!
//! A choice turns a small error into a large one where it is close. So what is chosen among is
//! judged as well, and what is chosen only as far as the choice is clear.

use std::collections::{HashMap, HashSet};

use modelopt_graph::{DataType, Model, NodeId, ValueId};

/// More values than this are not judged beside outputs.
const MOST_WITNESSES: usize = 16;

/// More nodes than this are not walked back for one output.
const MOST_NODES: usize = 100_000;

/// Operators whose results are between 0 and 1.
const PROBABILITIES: [&str; 4] = ["Sigmoid", "Softmax", "HardSigmoid", "Hardmax"];

/// Operators that hand elements on, in another order or shape.
const MOVERS: [&str; 14] = [
    "Identity",
    "Cast",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Concat",
    "Slice",
    "Split",
    "Gather",
    "Expand",
    "Dropout",
    "Resize",
];

/// Those that keep the order of elements.
const KEEPERS: [&str; 6] = ["Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"];

/// Operators that choose rows or places.
const CHOOSERS: [&str; 7] =
    ["ArgMax", "ArgMin", "TopK", "NonMaxSuppression", "NonZero", "Compress", "Unique"];

/// Operators that read at chosen places.
const READERS: [&str; 4] = ["Gather", "GatherElements", "GatherND", "Compress"];

/// Integers that are places of chosen elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Name of the value that is chosen among.
    pub(crate) value: String,
    /// The axis along which; negative from the end.
    pub(crate) axis: i64,
}

/// An output whose rows are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// The operator that chooses.
    pub(crate) op: String,
    /// Names of the values that it reads, and of what is read at the chosen places.
    pub(crate) reads: Vec<String>,
}

/// Where one output comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Origin {
    probability: bool,
    /// Whether floats that are computed decide it.
    from_floats: bool,
    choice: Option<Choice>,
    selection: Option<Selection>,
}

/// Where the outputs of a model come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    outputs: HashMap<String, Origin>,
    witnesses: Vec<String>,
}

impl Origins {
    /// Of all outputs of a model's main graph.
    pub fn of(model: &Model) -> Self {
        let mut origins = Origins::default();
        let main = model.graph(model.main());
        let own: HashSet<&str> = main.outputs.iter().map(|i| model.value(i.value).name()).collect();
        for info in &main.outputs {
            let origin = Walk::new(model, info.value).origin();
            let choice = origin.choice.iter().map(|choice| &choice.value);
            let reads = origin.selection.iter().flat_map(|selection| &selection.reads);
            for name in choice.chain(reads) {
                let known = own.contains(name.as_str()) || origins.witnesses.contains(name);
                if !known && origins.witnesses.len() < MOST_WITNESSES {
                    origins.witnesses.push(name.clone());
                }
            }
            origins.outputs.insert(model.value(info.value).name().to_owned(), origin);
        }
        origins
    }

    /// Names of values that are no outputs and have to be seen, to judge outputs that are chosen by
    /// them.
    pub fn witnesses(&self) -> &[String] {
        &self.witnesses
    }

    /// The same where those values cannot be seen.
    #[must_use]
    pub fn without_witnesses(mut self) -> Self {
        self.witnesses.clear();
        self
    }

    pub(crate) fn are_probabilities(&self, name: &str) -> bool {
        self.outputs.get(name).is_some_and(|origin| origin.probability)
    }

    /// Whether integers of this output depend on floats that the model computes; not known is no.
    pub(crate) fn is_from_floats(&self, name: &str) -> bool {
        self.outputs.get(name).is_some_and(|origin| origin.from_floats)
    }

    pub(crate) fn choice(&self, name: &str) -> Option<&Choice> {
        self.outputs.get(name)?.choice.as_ref()
    }

    pub(crate) fn selection(&self, name: &str) -> Option<&Selection> {
        self.outputs.get(name)?.selection.as_ref()
    }

    /// Whether a value is judged beside the outputs.
    pub(crate) fn is_witness(&self, name: &str) -> bool {
        self.witnesses.iter().any(|witness| witness == name)
    }
}

/// A walk back from an output.
struct Walk<'a> {
    model: &'a Model,
    output: ValueId,
}

impl<'a> Walk<'a> {
    fn new(model: &'a Model, output: ValueId) -> Self {
        Walk { model, output }
    }

    fn origin(&self) -> Origin {
        Origin {
            probability: self.is_probability(),
            from_floats: self.behind(self.output, &mut |_| {}),
            choice: self.choice(),
            selection: self.selection(),
        }
    }

    /// The node that makes a value in the main graph.
    fn maker(&self, value: ValueId) -> Option<NodeId> {
        let id = self.model.producer_node(value)?;
        (self.model.node(id).graph() == self.model.main()).then_some(id)
    }

    fn is_one_of(&self, id: NodeId, names: &[&str]) -> bool {
        names.iter().any(|name| self.model.node(id).op.is(name))
    }

    /// Whether elements between 0 and 1 reach the output, through nothing but movers.
    fn is_probability(&self) -> bool {
        let mut seen = HashSet::new();
        let mut next = vec![self.output];
        while let Some(value) = next.pop() {
            let Some(id) = self.maker(value).filter(|_| seen.insert(value)) else { continue };
            if self.is_one_of(id, &PROBABILITIES) {
                return true;
            }
            if self.is_one_of(id, &MOVERS) {
                next.extend(self.model.node(id).inputs().iter().flatten());
            }
            // What is scaled by a constant may be boxes; a product of scores is a score.
            if self.model.node(id).op.is("Mul") {
                let inputs = self.model.node(id).inputs().iter().flatten().copied();
                let inputs: Vec<ValueId> = inputs.collect();
                if inputs.iter().all(|&input| self.model.constant(input).is_none()) {
                    next.extend(inputs);
                }
            }
        }
        false
    }

    /// Shows the nodes of the main graph that a value depends on, but for those that it depends on
    /// by shape alone; whether floats that a node makes are among what it depends on.
    fn behind(&self, from: ValueId, see: &mut dyn FnMut(NodeId)) -> bool {
        let mut seen = HashSet::new();
        let mut next = vec![from];
        let mut floats = false;
        while let Some(value) = next.pop() {
            let Some(id) = self.maker(value) else { continue };
            floats |= self.is_float(value);
            if seen.len() > MOST_NODES || !seen.insert(id) || self.is_one_of(id, &["Shape", "Size"])
            {
                continue;
            }
            see(id);
            let inputs = self.model.node(id).inputs().iter().flatten();
            next.extend(inputs.filter(|&&input| self.model.constant(input).is_none()));
        }
        floats
    }

    fn is_float(&self, value: ValueId) -> bool {
        use DataType as T;
        let elem = self.model.value(value).elem();
        elem.is_some_and(|elem| [T::FLOAT, T::DOUBLE, T::FLOAT16, T::BFLOAT16].contains(&elem))
    }

    /// The choice whose places the output is, in their order.
    fn choice(&self) -> Option<Choice> {
        let mut value = self.output;
        for _ in 0..KEEPERS.len() * 4 {
            let id = self.maker(value)?;
            let node = self.model.node(id);
            if self.is_one_of(id, &["ArgMax", "ArgMin", "TopK"]) {
                let places = !node.op.is("TopK") || node.output(1) == Some(value);
                let default = if node.op.is("TopK") { -1 } else { 0 };
                let among = node.input(0).filter(|&among| places && self.is_float(among))?;
                let name = self.model.value(among).name().to_owned();
                return Some(Choice { value: name, axis: node.int("axis", default) });
            }
            if !self.is_one_of(id, &KEEPERS) {
                return None;
            }
            value = node.input(0)?;
        }
        None
    }

    /// The operator that chooses the output's rows, with what it and whoever reads by it look at.
    fn selection(&self) -> Option<Selection> {
        if self.choice().is_some() {
            return None;
        }
        let mut nodes = Vec::new();
        self.behind(self.output, &mut |id| nodes.push(id));
        let chosen_by = nodes.iter().copied().find(|&id| self.chooses(id))?;
        let mut reads: Vec<String> = Vec::new();
        let mut add = |walk: &Self, value: ValueId| {
            let name = walk.model.value(value).name();
            let computed = walk.maker(value).is_some() && walk.is_float(value);
            if computed && !name.is_empty() && !reads.iter().any(|known| known == name) {
                reads.push(name.to_owned());
            }
        };
        for &id in &nodes {
            let node = self.model.node(id);
            if self.chooses(id) {
                for &input in node.inputs().iter().flatten() {
                    self.floats_behind(input, &mut |value| add(self, value));
                }
            } else if self.is_one_of(id, &READERS) && self.reads_by_choice(id) {
                node.input(0).into_iter().for_each(|value| {
                    self.floats_behind(value, &mut |value| add(self, value));
                });
            }
        }
        let op = self.model.node(chosen_by).op.name.clone();
        (!reads.is_empty()).then_some(Selection { op, reads })
    }

    /// Whether a node chooses by floats, and hands on places or chosen rows.
    fn chooses(&self, id: NodeId) -> bool {
        if !self.is_one_of(id, &CHOOSERS) {
            return false;
        }
        let node = self.model.node(id);
        if node.op.is("TopK") {
            // Values in their order are the same however close they are.
            let places = node.output(1).map(|value| self.model.value(value).uses().len());
            return places.unwrap_or(0) > 0;
        }
        let mut floats = false;
        for &input in node.inputs().iter().flatten() {
            self.floats_behind(input, &mut |value| floats |= self.maker(value).is_some());
        }
        floats
    }

    /// Whether places that a node reads at are chosen.
    fn reads_by_choice(&self, id: NodeId) -> bool {
        let Some(places) = self.model.node(id).input(1) else { return false };
        let mut chosen = false;
        self.behind(places, &mut |id| chosen |= self.is_one_of(id, &CHOOSERS));
        chosen
    }

    /// The floats that a value is, or that decide it.
    fn floats_behind(&self, value: ValueId, see: &mut dyn FnMut(ValueId)) {
        let mut seen = HashSet::new();
        let mut next = vec![value];
        while let Some(value) = next.pop() {
            if self.model.constant(value).is_some() || !seen.insert(value) {
                continue;
            }
            if self.is_float(value) {
                see(value);
            } else if let Some(id) = self.maker(value)
                && !self.is_one_of(id, &["Shape", "Size"])
                && seen.len() < MOST_NODES
            {
                next.extend(self.model.node(id).inputs().iter().flatten());
            }
        }
    }
}
