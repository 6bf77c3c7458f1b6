//! Regions as they are shown to people: what belongs to each, and why it ends where it does.

mod reason;

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexSet;
use modelopt_graph::{Model, NodeId, ValueId};

use crate::integer::{self, Costing, Regions};
use crate::layers;
use crate::plan::ExplainedPlan;
use crate::policy::{self, Capabilities, OnIntegers};

use reason::Surroundings;
pub use reason::{Edge, EndReason, RegionEnd};

/// Layers that compute on integers by ranges, with what stands between them: what hangs together by
/// tensors that are quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Ids of its layers, in model order.
    pub layers: Vec<String>,
    /// How many other nodes compute on integers in it, by operator.
    pub operators: BTreeMap<String, usize>,
    /// The tensors that are quantized, in model order.
    pub tensors: Vec<RegionTensor>,
    /// Where numbers go in and out, and why there.
    pub ends: Vec<RegionEnd>,
    /// What it takes, where the target's costs and the sizes of all tensors are known.
    pub predicted: Option<Predicted>,
}

/// A tensor of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionTensor {
    /// Its name.
    pub name: String,
    /// Whether its range is of what is left once smoothing has divided it by channel.
    pub is_divided: bool,
}

/// What a region takes, from sizes and what kernels of the target take, in milliseconds on one thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// Its nodes in float32.
    pub float_ms: f64,
    /// Its nodes on integers.
    pub integer_ms: f64,
    /// Quantizing what goes in, and dequantizing what goes out.
    pub border_ms: f64,
    /// The share of its nodes in what the whole model takes in float32, from 0 to 1; operators of which
    /// no costs are known take next to nothing.
    pub share: f64,
}

/// Nanoseconds of a millisecond.
const NANOSECONDS: f64 = 1e6;

/// The regions of a plan, in the order of their first layers. Where the model has fixed shapes, as it has
/// once it was inferred from a sample, their times are predicted.
pub fn described_regions(
    model: &Model,
    plan: &ExplainedPlan,
    target: &Capabilities,
) -> Vec<Region> {
    let OnIntegers { layers, regions, .. } = OnIntegers::of(model, plan);
    if layers.is_empty() {
        return Vec::new();
    }
    let all = layers::find(model, 0).into_iter();
    let ids: HashMap<NodeId, String> = all.map(|layer| (layer.node, layer.id)).collect();
    let around = Surroundings::new(model, plan, target, (&layers, &regions), &ids);
    let divided = policy::divided(model, plan);
    let whole = whole_ns(model, target);
    let described = members(model, &layers, &regions).into_iter().map(|own| {
        let ids = own.nodes.iter().filter(|node| layers.contains(*node));
        let mut operators: BTreeMap<String, usize> = BTreeMap::new();
        for node in own.nodes.iter().filter(|node| !layers.contains(*node)) {
            *operators.entry(model.node(*node).op.to_string()).or_default() += 1;
        }
        let tensor = |&value: &ValueId| RegionTensor {
            name: model.value(value).name().to_owned(),
            is_divided: divided.contains(&value),
        };
        Region {
            layers: ids.filter_map(|node| around.ids.get(node).cloned()).collect(),
            operators,
            tensors: own.tensors.iter().map(tensor).collect(),
            ends: around.ends(&own.nodes, &own.tensors),
            predicted: predicted(model, target, (&layers, &regions), &own, whole),
        }
    });
    described.collect()
}

/// What belongs to one region, in model order.
#[derive(Debug, Default)]
struct Members {
    nodes: Vec<NodeId>,
    tensors: Vec<ValueId>,
}

/// What belongs to each region that hangs together, in the order of their first nodes.
fn members(model: &Model, layers: &HashSet<NodeId>, regions: &Regions) -> Vec<Members> {
    let groups = integer::components(model, layers, regions);
    let place = |tensor: ValueId| {
        let holders: IndexSet<NodeId> = regions.holders(model, layers, tensor);
        groups.iter().position(|group| holders.iter().any(|holder| group.contains(holder)))
    };
    let of_tensor: HashMap<ValueId, usize> =
        regions.tensors.iter().filter_map(|&tensor| Some((tensor, place(tensor)?))).collect();
    let mut members: Vec<Members> = groups.iter().map(|_| Members::default()).collect();
    for &node in &regions.nodes {
        let of_group = groups.iter().position(|group| group.contains(&node));
        let touched = || model.node(node).outputs().iter().chain(model.node(node).inputs());
        let ends = || touched().flatten().map(|&value| integer::end(model, value).0);
        let place = of_group.or_else(|| ends().find_map(|value| of_tensor.get(&value).copied()));
        if let Some(own) = place.and_then(|place| members.get_mut(place)) {
            own.nodes.push(node);
        }
    }
    for &tensor in &regions.tensors {
        let place = of_tensor.get(&tensor).copied();
        if let Some(own) = place.and_then(|place| members.get_mut(place)) {
            own.tensors.push(tensor);
        }
    }
    members.retain(|own| own.nodes.iter().any(|node| layers.contains(node)));
    let order: HashMap<NodeId, usize> =
        model.nodes_of(model.main()).enumerate().map(|(place, node)| (node, place)).collect();
    members.sort_by_key(|own| own.nodes.first().and_then(|node| order.get(node)).copied());
    members
}

/// What a region takes, if that can be told.
fn predicted(
    model: &Model,
    target: &Capabilities,
    (layers, regions): (&HashSet<NodeId>, &Regions),
    own: &Members,
    whole: f64,
) -> Option<Predicted> {
    let costs = target.static_costs?;
    let elements = |value: ValueId| policy::elements(model, value);
    let are_known = own.tensors.iter().all(|&tensor| elements(tensor).is_some());
    if !are_known || whole <= 0.0 {
        return None;
    }
    let costing = Costing { model, costs, elements: &elements };
    let sum = |side: usize| own.nodes.iter().map(|&node| costing.node(node)[side]).sum::<f64>();
    let [float, integer] = [0, 1].map(sum);
    let borders = own.tensors.iter().map(|&tensor| costing.border(layers, regions, tensor));
    Some(Predicted {
        float_ms: float / NANOSECONDS,
        integer_ms: integer / NANOSECONDS,
        border_ms: borders.sum::<f64>() / NANOSECONDS,
        share: (float / whole).min(1.0),
    })
}

/// What all nodes of the main graph take in float32, in nanoseconds; 0 where nothing is known of the target.
fn whole_ns(model: &Model, target: &Capabilities) -> f64 {
    let Some(costs) = target.static_costs else { return 0.0 };
    let elements = |value: ValueId| policy::elements(model, value);
    let costing = Costing { model, costs, elements: &elements };
    model.nodes_of(model.main()).map(|node| costing.node(node)[0]).sum()
}

#[cfg(test)]
mod tests;
