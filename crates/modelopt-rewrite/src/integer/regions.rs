//! Which tensors are quantized, and which nodes compute on integers because of it.

use std::collections::HashSet;

use indexmap::{IndexMap, IndexSet};
use modelopt_graph::{DataType, Dim, Model, NodeId, Type, ValueId};

use crate::choices::TensorRange;

use super::kernels::{Kernel, end, kernel, numbers};

/// What is quantized, and what computes on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regions {
    /// The tensors that are quantized, in the order in which the model makes them.
    pub(crate) tensors: IndexSet<ValueId>,
    /// The nodes that compute on integers, layers and others, in model order.
    pub(crate) nodes: IndexSet<NodeId>,
}

/// What limits a region.
pub(crate) struct Bounds<'a> {
    /// Whether a tensor has a range.
    pub(crate) has_range: &'a dyn Fn(ValueId) -> bool,
    /// Whether the target computes a node on integers.
    pub(crate) is_fused: &'a dyn Fn(NodeId) -> bool,
}

/// The tensors that a layer cannot be integer without: what it reads, and what it makes, where that is
/// not computed as float from integers.
pub(crate) fn needed(model: &Model, layer: NodeId) -> Vec<ValueId> {
    let node = model.node(layer);
    let made = node.output(0).filter(|_| node.op.is("Conv")).map(|made| end(model, made).0);
    node.input(0).into_iter().chain(made).collect()
}

/// The regions around layers that are integer: what they need, and what stands between them as far as
/// it computes on integers as well.
pub(crate) fn regions(model: &Model, layers: &HashSet<NodeId>, bounds: &Bounds<'_>) -> Regions {
    let required: HashSet<ValueId> =
        layers.iter().flat_map(|&layer| needed(model, layer)).collect();
    let between = candidates(model, layers, bounds);
    let mut tensors = required.clone();
    loop {
        let before = tensors.len();
        for ends in between.values() {
            if ends.joins(&tensors) {
                tensors.extend(ends.all());
            }
        }
        if tensors.len() == before {
            break;
        }
    }
    // What nobody goes on computing with on integers is not worth being made so.
    let mut useful: HashSet<ValueId> = required.clone();
    for ends in between.values().rev() {
        let joined = ends.all().all(|value| tensors.contains(&value));
        if joined && ends.made.iter().any(|made| useful.contains(made)) {
            useful.extend(ends.all());
        }
    }
    tensors.retain(|value| useful.contains(value));
    Regions::of(model, layers, |value| tensors.contains(&value))
}

impl Regions {
    /// What a table of tensors means beside layers that are integer.
    pub(crate) fn of(
        model: &Model,
        layers: &HashSet<NodeId>,
        in_table: impl Fn(ValueId) -> bool,
    ) -> Self {
        let bounds = Bounds { has_range: &in_table, is_fused: &|_| true };
        let between = candidates(model, layers, &bounds);
        let mut regions = Regions::default();
        let main = model.graph(model.main());
        let given = main.inputs.iter().map(|info| info.value);
        regions.tensors.extend(given.filter(|&value| in_table(value)));
        for node in model.nodes_of(model.main()) {
            if layers.contains(&node) || between.contains_key(&node) {
                regions.nodes.insert(node);
            }
            let made = model.node(node).outputs().iter().flatten().copied();
            regions.tensors.extend(made.filter(|&value| in_table(value)));
        }
        regions
    }

    /// Who computes on a tensor as integers, and at which input.
    pub(crate) fn readers(&self, model: &Model, tensor: ValueId) -> Vec<(NodeId, usize)> {
        let all = model.consumers(tensor);
        all.filter(|&(node, input)| self.reads(model, node, input)).collect()
    }

    /// The layers because of which a tensor is quantized: those that read or make it, and those that go
    /// on computing with what comes of it.
    pub(crate) fn holders(
        &self,
        model: &Model,
        layers: &HashSet<NodeId>,
        tensor: ValueId,
    ) -> IndexSet<NodeId> {
        let makes = |&layer: &NodeId| needed(model, layer).contains(&tensor);
        let maker = model.producer_node(tensor).filter(|node| self.nodes.contains(node));
        let mut holders: IndexSet<NodeId> = IndexSet::new();
        // What cuts numbers off stands between a layer and what it makes.
        let before = model.producer_node(tensor).and_then(|cut| {
            let source = model.node(cut).input(0)?;
            model
                .producer_node(source)
                .filter(|_| kernel(model.node(cut)) == Some(Kernel::Clipping))
        });
        holders.extend(
            maker.into_iter().chain(before).filter(|node| layers.contains(node)).filter(makes),
        );
        let mut next = vec![tensor];
        let mut seen: HashSet<ValueId> = HashSet::new();
        while let Some(value) = next.pop() {
            if !seen.insert(value) {
                continue;
            }
            for (node, _) in self.readers(model, value) {
                if layers.contains(&node) {
                    holders.insert(node);
                } else {
                    let made = model.node(node).outputs().iter().flatten();
                    next.extend(made.map(|&made| end(model, made).0));
                }
            }
        }
        holders
    }

    /// Whether an input of a node is one of the numbers that it computes on integers.
    pub(crate) fn reads(&self, model: &Model, node: NodeId, input: usize) -> bool {
        self.nodes.contains(&node) && numbers(model.node(node)).contains(&input)
    }
}

/// What a node reads and makes that would be quantized.
struct Ends {
    read: Vec<ValueId>,
    made: Vec<ValueId>,
    /// Those of `read` that are so small that quantizing them costs nothing.
    small: Vec<ValueId>,
    /// Whether what it reads as float is worth quantizing for it. A product of integers takes longer than
    /// one of floats, and is half of an activation function more often than not.
    may_join_partly: bool,
}

impl Ends {
    fn all(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.read.iter().chain(&self.made).copied()
    }

    /// Whether a node computes on integers beside tensors that are quantized: all that is large of what
    /// it reads is, or some of it and what it makes.
    fn joins(&self, tensors: &HashSet<ValueId>) -> bool {
        let is_in = |value: &ValueId| tensors.contains(value);
        let large = || self.read.iter().filter(|value| !self.small.contains(value));
        let any = self.read.iter().any(is_in);
        let partly = self.may_join_partly && self.made.iter().any(is_in);
        any && (large().all(is_in) && large().next().is_some() || partly)
    }
}

/// The nodes that may compute on integers between layers.
fn candidates(
    model: &Model,
    layers: &HashSet<NodeId>,
    bounds: &Bounds<'_>,
) -> IndexMap<NodeId, Ends> {
    let mut found: IndexMap<NodeId, Ends> = IndexMap::new();
    // What belongs to the node before it.
    let mut cutting: HashSet<NodeId> = HashSet::new();
    for id in model.nodes_of(model.main()) {
        let node = model.node(id);
        let made = || node.outputs().iter().flatten();
        if layers.contains(&id) {
            cutting.extend(made().filter_map(|&made| end(model, made).1));
            continue;
        }
        let fits = match kernel(node) {
            None | Some(Kernel::Product) => false,
            Some(Kernel::Clipping) => !cutting.contains(&id),
            Some(Kernel::Combining | Kernel::Moving) => true,
        };
        if !fits || !(bounds.is_fused)(id) {
            continue;
        }
        let ends: Vec<_> = made().map(|&made| end(model, made)).collect();
        let Some(read) = read(model, id) else { continue };
        let ends_at: Vec<ValueId> = ends.iter().map(|&(made, _)| made).collect();
        let known = |&value: &ValueId| is_float(model, value) && (bounds.has_range)(value);
        if read.is_empty() || !read.iter().chain(&ends_at).all(known) {
            continue;
        }
        cutting.extend(ends.iter().filter_map(|&(_, cut)| cut));
        let small = read.iter().copied().filter(|&value| is_small(model, value)).collect();
        let may_join_partly = !node.op.is("Mul");
        found.insert(id, Ends { read, made: ends_at, small, may_join_partly });
    }
    found
}

/// The values that a node reads as numbers, other than constants; none where a constant is not one
/// that can be quantized.
fn read(model: &Model, id: NodeId) -> Option<Vec<ValueId>> {
    let node = model.node(id);
    let mut read = Vec::new();
    for place in numbers(node) {
        let value = node.input(place)?;
        match model.constant(value) {
            Some(tensor) if tensor.dtype() == DataType::FLOAT => {}
            Some(_) => return None,
            None => read.push(value),
        }
    }
    Some(read)
}

fn is_float(model: &Model, value: ValueId) -> bool {
    model.value(value).elem() == Some(DataType::FLOAT)
}

/// Whether a value has one number for each channel.
fn is_small(model: &Model, value: ValueId) -> bool {
    let shape = model.value(value).ty().and_then(Type::shape);
    shape.is_some_and(|shape| {
        shape.len() > 2 && shape.iter().skip(2).all(|dim| matches!(dim, Dim::Fixed(1)))
    })
}

/// A tensor that takes this much of the range of what it is put together with is given all of it: it is then
/// copied, where integers of another step are looked up one by one.
const NEARLY_ALL: f32 = 0.8;

/// The range of each tensor of a region: what only moves numbers makes tensors of the range that it reads.
pub(crate) fn ranges(
    model: &Model,
    regions: &Regions,
    observed: impl Fn(ValueId) -> Option<(f32, f32)>,
) -> Vec<TensorRange> {
    let mut known: IndexMap<ValueId, (f32, f32)> = IndexMap::new();
    for &tensor in &regions.tensors {
        if let Some(range) = observed(tensor) {
            known.insert(tensor, range);
        }
    }
    move_on(model, regions, &mut known);
    for &node in &regions.nodes {
        if model.node(node).op.is("Concat") {
            put_together(model, regions, node, &mut known);
        }
    }
    move_on(model, regions, &mut known);
    let range = |(tensor, (min, max))| TensorRange::new(model.value(tensor).name(), min, max);
    known.into_iter().map(range).collect()
}

/// What makes a tensor of a region by only moving numbers.
fn mover(model: &Model, regions: &Regions, tensor: ValueId) -> Option<NodeId> {
    let maker = model.producer_node(tensor).filter(|node| regions.nodes.contains(node))?;
    (kernel(model.node(maker)) == Some(Kernel::Moving)).then_some(maker)
}

fn move_on(model: &Model, regions: &Regions, known: &mut IndexMap<ValueId, (f32, f32)>) {
    for &tensor in &regions.tensors {
        let source = mover(model, regions, tensor).and_then(|node| model.node(node).input(0));
        if let Some(range) = source.and_then(|source| known.get(&source).copied()) {
            known.insert(tensor, range);
        }
    }
}

/// Gives parts that have nearly all of the range of what they are put together to that range: whatever was
/// seen of them is in it.
fn put_together(
    model: &Model,
    regions: &Regions,
    concat: NodeId,
    known: &mut IndexMap<ValueId, (f32, f32)>,
) {
    let node = model.node(concat);
    let Some(whole) = node.output(0).and_then(|whole| known.get(&whole).copied()) else { return };
    let span = |(low, high): (f32, f32)| high.max(0.0) - low.min(0.0);
    for part in node.inputs().iter().flatten() {
        let moved = mover(model, regions, *part).is_some();
        if let Some(range) = known.get_mut(part).filter(|_| !moved)
            && span(*range) >= NEARLY_ALL * span(whole)
        {
            *range = whole;
        }
    }
}
