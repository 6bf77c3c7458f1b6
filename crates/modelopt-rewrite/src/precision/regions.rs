//! Which nodes are of 16 bits: all that compute and can be, and whatever only moves numbers
//! between them.
//!
//! ```text
//! x ─▶ Conv ─▶ Transpose ─▶ MatMul ─▶ CumSum ─▶ Reshape ─▶ y
//!      16       16           16        32        32
//! ```
//!
//! Nodes that compute are the seeds. From them the region spreads along values, through nodes that
//! move or compare numbers and through control flow, and ends at whatever stays float32.

use std::collections::{HashMap, HashSet};

use modelopt_graph::{Model, NodeId, ValueId};

use super::chains::{Chain, chains};
use super::form::{Form, Kind, Slot, form, is_float};
use super::options::PrecisionOptions;
use super::unsafe_ops;
use super::values::{self, Unfit};
use crate::plan::{Interface, Precision};

/// Operators that move, choose or compare numbers and compute none.
const MOVING: &[&str] = &[
    "Cast",
    "CastLike",
    "CenterCropPad",
    "Col2Im",
    "Compress",
    "Concat",
    "ConstantOfShape",
    "DepthToSpace",
    "Dropout",
    "Equal",
    "Expand",
    "EyeLike",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Greater",
    "GreaterOrEqual",
    "Hardmax",
    "Identity",
    "Less",
    "LessOrEqual",
    "OneHot",
    "Pad",
    "Reshape",
    "ReverseSequence",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "TensorScatter",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unique",
    "Unsqueeze",
    "Where",
];

/// Weights from this size on make a moving node worth its casts: they are half as large.
const HEAVY: usize = 4096;

/// What is to become of a node that has to do with float32.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// It stays, and nothing else is possible.
    Must(String),
    /// It stays, though it could be of 16 bits.
    Should(String),
    /// It is of 16 bits.
    Narrow,
    /// It stays because it only moves what stays.
    Idle,
    /// Control flow: whether anything that goes through it is of 16 bits.
    Through(bool),
}

/// What is of 16 bits.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    /// Nodes.
    pub(crate) nodes: HashMap<NodeId, Form>,
    /// Nodes that take a value in whichever type it is made.
    pub(crate) followers: HashMap<NodeId, Form>,
    /// Chains through control flow.
    pub(crate) chains: Vec<(NodeId, Chain)>,
}

/// All nodes that read or make float32, in order, with what can be done to each.
fn survey(model: &Model, to: Precision) -> Vec<(NodeId, Kind)> {
    let kinds = model.walk().into_iter().map(|id| (id, form(model, id, to)));
    kinds.filter(|(_, kind)| *kind != Kind::Unconcerned).collect()
}

/// Decides about every node. `refused` are nodes that the user or a measurement leaves out.
pub(crate) fn decide(
    model: &Model,
    to: Precision,
    options: &PrecisionOptions,
    refused: &HashMap<NodeId, String>,
) -> Vec<(NodeId, Fate)> {
    let kinds = survey(model, to);
    let unfit = values::unfit(model, &kinds, to, options);
    let counting = values::counting(model);
    let mut fates: Vec<(NodeId, Fate)> = Vec::new();
    let mut candidates: HashMap<NodeId, Form> = HashMap::new();
    let mut seeds: Vec<NodeId> = Vec::new();
    let mut controls: Vec<NodeId> = Vec::new();
    for (id, kind) in kinds {
        let form = match kind {
            Kind::Fixed(reason) => {
                fates.push((id, Fate::Must(reason)));
                continue;
            }
            Kind::Control => {
                let fate = fate_of_control(model, id, to, refused);
                if let Some(Fate::Through(_)) = fate {
                    controls.push(id);
                }
                fates.extend(fate.map(|fate| (id, fate)));
                continue;
            }
            Kind::Free(form) if form.only_follows() => continue,
            Kind::Free(form) => form,
            Kind::Unconcerned => continue,
        };
        let counts = || {
            let counts = counting.contains(&id);
            counts.then(|| "it computes with counts, which need every digit".to_owned())
        };
        let reason = refused
            .get(&id)
            .cloned()
            .or_else(|| objection(model, id, &form, &unfit))
            .or_else(|| unsafe_ops::objection(model, id, to, options))
            .or_else(counts);
        if let Some(reason) = reason {
            fates.push((id, Fate::Should(reason)));
            continue;
        }
        if !moves(model, id) || is_heavy(model, id, &form) {
            seeds.push(id);
        }
        candidates.insert(id, form);
        fates.push((id, Fate::Idle));
    }
    let spread =
        Spread::new(model, to, candidates, &controls, &unfit, options.io != Interface::Float32);
    let regions = spread.from(&seeds);
    settle(&mut fates, &regions);
    fates
}

/// What is known of control flow before any region is; none where it has no float32.
fn fate_of_control(
    model: &Model,
    id: NodeId,
    to: Precision,
    refused: &HashMap<NodeId, String>,
) -> Option<Fate> {
    if let Some(reason) = refused.get(&id) {
        return Some(Fate::Should(reason.clone()));
    }
    if !chains(model, id, to).is_empty() {
        return Some(Fate::Through(false));
    }
    let node = model.node(id);
    let mut values = node.inputs().iter().chain(node.outputs()).flatten();
    let reason = || Fate::Must(format!("{} passes no {} at this opset", node.op, to.dtype()));
    values.any(|&value| is_float(model, value)).then(reason)
}

/// Takes in which nodes the regions reached.
fn settle(fates: &mut [(NodeId, Fate)], regions: &Regions) {
    let through: HashSet<NodeId> = regions.chains.iter().map(|(node, _)| *node).collect();
    for (id, fate) in fates {
        match fate {
            Fate::Idle if regions.nodes.contains_key(id) => *fate = Fate::Narrow,
            Fate::Through(any) => *any = through.contains(id),
            _ => {}
        }
    }
}

/// The regions that a plan asks for: its nodes, and what goes through control flow between them.
pub(crate) fn planned(
    model: &Model,
    to: Precision,
    nodes: &HashSet<NodeId>,
    changes_io: bool,
) -> Regions {
    let mut candidates = HashMap::new();
    let mut controls = Vec::new();
    let mut followers = HashMap::new();
    for (id, kind) in survey(model, to) {
        match kind {
            Kind::Control if nodes.contains(&id) => controls.push(id),
            Kind::Free(form) if form.only_follows() => {
                followers.insert(id, form);
            }
            Kind::Free(form) if nodes.contains(&id) => {
                candidates.insert(id, form);
            }
            _ => {}
        }
    }
    // Values that may not be rounded were looked at when the plan was made.
    let seeds: Vec<NodeId> = candidates.keys().copied().collect();
    let regions =
        Spread::new(model, to, candidates, &controls, &Unfit::new(), changes_io).from(&seeds);
    Regions { followers, ..regions }
}

/// Why a node stays because of what it reads or makes.
fn objection(model: &Model, id: NodeId, form: &Form, unfit: &Unfit) -> Option<String> {
    let node = model.node(id);
    let read = node.inputs().iter().zip(&form.inputs).filter(|(_, slot)| **slot == Slot::Narrow);
    let made = node.outputs().iter().zip(&form.outputs).filter(|(_, narrow)| **narrow);
    let values = read.map(|(value, _)| value).chain(made.map(|(value, _)| value));
    values.flatten().find_map(|value| unfit.get(value)).cloned()
}

/// Whether a node moves numbers and computes none.
pub(crate) fn moves(model: &Model, id: NodeId) -> bool {
    MOVING.contains(&model.node(id).op.name.as_str())
}

fn is_heavy(model: &Model, id: NodeId, form: &Form) -> bool {
    model.node(id).inputs().iter().zip(&form.inputs).any(|(value, slot)| {
        *slot == Slot::Narrow
            && value
                .and_then(|value| model.constant(value))
                .is_some_and(|tensor| tensor.byte_len() >= HEAVY)
    })
}

/// A node or a chain.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Node(NodeId),
    Chain(usize),
}

/// The spreading of regions along values.
struct Spread<'a> {
    model: &'a Model,
    candidates: HashMap<NodeId, Form>,
    chains: Vec<(NodeId, Chain)>,
    /// What makes a value, and what reads it, as far as either can be of 16 bits.
    makers: HashMap<ValueId, Part>,
    readers: HashMap<ValueId, Vec<Part>>,
    unfit: &'a Unfit,
    changes_io: bool,
}

impl<'a> Spread<'a> {
    fn new(
        model: &'a Model,
        to: Precision,
        candidates: HashMap<NodeId, Form>,
        controls: &[NodeId],
        unfit: &'a Unfit,
        changes_io: bool,
    ) -> Self {
        let chains = controls
            .iter()
            .flat_map(|&id| chains(model, id, to).into_iter().map(move |chain| (id, chain)))
            .filter(|(id, chain)| {
                !chain.values(model, *id).iter().any(|value| unfit.contains_key(value))
            })
            .collect();
        let (makers, readers) = (HashMap::new(), HashMap::new());
        let mut spread = Spread { model, candidates, chains, makers, readers, unfit, changes_io };
        spread.link();
        spread
    }

    fn link(&mut self) {
        let Spread { model, candidates, chains, makers, readers, .. } = self;
        for (&id, form) in candidates.iter() {
            for (value, _) in chosen(model.node(id).outputs(), &form.outputs, true) {
                makers.insert(value, Part::Node(id));
            }
            for (value, _) in chosen(model.node(id).inputs(), &form.inputs, Slot::Narrow) {
                readers.entry(value).or_default().push(Part::Node(id));
            }
        }
        for (index, (id, chain)) in chains.iter().enumerate() {
            let part = Part::Chain(index);
            for value in chain.made() {
                makers.insert(value, part);
            }
            for value in chain.read(model, *id) {
                readers.entry(value).or_default().push(part);
            }
        }
    }

    /// The regions that grow from some nodes.
    fn from(mut self, seeds: &[NodeId]) -> Regions {
        let mut open: Vec<Part> = seeds.iter().map(|&id| Part::Node(id)).collect();
        if self.changes_io {
            open.extend(self.at_the_interface());
        }
        let mut reached: HashSet<Part> = HashSet::new();
        while let Some(part) = open.pop() {
            if reached.insert(part) {
                open.extend(
                    self.neighbours(part).into_iter().filter(|next| !reached.contains(next)),
                );
            }
        }
        self.candidates.retain(|id, _| reached.contains(&Part::Node(*id)));
        let chains = self.chains.into_iter().enumerate();
        let chains = chains.filter(|(index, _)| reached.contains(&Part::Chain(*index)));
        Regions {
            nodes: self.candidates,
            followers: HashMap::new(),
            chains: chains.map(|(_, chain)| chain).collect(),
        }
    }

    /// What reads inputs and makes outputs that are of 16 bits.
    fn at_the_interface(&self) -> Vec<Part> {
        let main = self.model.graph(self.model.main());
        let read = main.inputs.iter().filter_map(|info| self.readers.get(&info.value));
        let made = main.outputs.iter().filter_map(|info| self.makers.get(&info.value));
        read.flatten().chain(made).copied().collect()
    }

    /// Where a region spreads to from a part of it.
    fn neighbours(&self, part: Part) -> Vec<Part> {
        let model = self.model;
        let (read, made): (Vec<ValueId>, Vec<ValueId>) = match part {
            Part::Node(id) => {
                let Some(form) = self.candidates.get(&id) else { return Vec::new() };
                let node = model.node(id);
                (
                    chosen(node.inputs(), &form.inputs, Slot::Narrow).map(|(v, _)| v).collect(),
                    chosen(node.outputs(), &form.outputs, true).map(|(v, _)| v).collect(),
                )
            }
            Part::Chain(index) => {
                let (id, chain) = &self.chains[index];
                (chain.read(model, *id), chain.made().collect())
            }
        };
        let makers = read.iter().filter_map(|value| self.makers.get(value).map(|p| (*value, *p)));
        let readers = made.iter().flat_map(|value| {
            self.readers.get(value).into_iter().flatten().map(|part| (*value, *part))
        });
        makers
            .chain(readers)
            .filter(|(value, next)| {
                !self.unfit.contains_key(value) && self.may_enter(*next, *value)
            })
            .map(|(_, next)| next)
            .collect()
    }

    /// Loops are entered from inside only: a cast in a body that gains nothing runs every turn.
    fn may_enter(&self, part: Part, by: ValueId) -> bool {
        let Part::Chain(index) = part else { return true };
        let (id, chain) = &self.chains[index];
        let outside = chain.outside == Some(by)
            || chain.enters.and_then(|input| self.model.node(*id).input(input)) == Some(by);
        let leaves =
            chain.leaves.iter().any(|&(body, at)| self.model.graph(body).outputs[at].value == by);
        !chain.repeats || !outside || leaves
    }
}

fn chosen<'a, T: PartialEq + Copy + 'a>(
    values: &'a [Option<ValueId>],
    marks: &'a [T],
    wanted: T,
) -> impl Iterator<Item = (ValueId, usize)> + 'a {
    values
        .iter()
        .zip(marks)
        .enumerate()
        .filter(move |(_, (_, mark))| **mark == wanted)
        .filter_map(|(index, (value, _))| value.map(|value| (value, index)))
}
