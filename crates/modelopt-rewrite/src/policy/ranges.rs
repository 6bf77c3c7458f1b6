//! The table of tensors that layers with ranges need: made by the default rules, held against the model
//! where somebody gave it.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use modelopt_graph::{Model, NodeId, Type, ValueId};

use super::decision::{Decision, first_of};
use super::options::{ObservedTensor, PlanOptions};
use crate::eligibility::{Candidate, Look, candidates};
use crate::forms::{Considered, Scheme};
use crate::integer::{self, Bounds, Costing, IntegerCosts, Regions};
use crate::layers;
use crate::plan::{Plan, PlanError, QuantFormat, TensorRange};
use crate::upgrade;

/// The ranges that layers take which compute on integers by ranges. Those that cannot, because something
/// they need was not observed, go down.
pub(super) fn choose(
    model: &Model,
    candidates: &[Candidate],
    decisions: &mut [Decision],
    options: &PlanOptions,
) -> Vec<TensorRange> {
    let observed = |value: ValueId| options.observed.get(model.value(value).name());
    let go_down = |candidate: &Candidate, decision: &mut Decision, reason: String| {
        let below: Vec<_> = decision.scheme.rungs().into_iter().skip(1).collect();
        *decision = Decision { reason, ..first_of(&below, model, candidate, options) };
    };
    let by_ranges = decisions.iter().map(|decision| decision.scheme).find(|s| s.needs_ranges());
    let too_old =
        by_ranges.and_then(|scheme| too_old(model, scheme, options.format, options.keep_opset));
    for (candidate, decision) in candidates.iter().zip(decisions.iter_mut()) {
        if !decision.scheme.needs_ranges() {
            continue;
        }
        if let Some(why) = &too_old {
            go_down(candidate, decision, why.clone());
            continue;
        }
        let needed = integer::needed(model, candidate.layer.node);
        if let Some(unknown) = needed.iter().find(|&&value| observed(value).is_none()) {
            let unknown = model.value(*unknown).name();
            go_down(candidate, decision, format!("no range of '{unknown}' is known"));
        }
    }
    let chosen = candidates.iter().zip(decisions.iter());
    let chosen = chosen.filter(|(_, decision)| decision.scheme.needs_ranges());
    let all: HashSet<NodeId> = chosen.map(|(candidate, _)| candidate.layer.node).collect();
    let bounds = Bounds {
        has_range: &|value| observed(value).is_some(),
        is_fused: &|node| options.target.fuses(model.node(node)),
    };
    let regions = |layers: &HashSet<NodeId>| integer::regions(model, layers, &bounds);
    let mut layers = all.clone();
    if let (Some(costs), None) = (options.target.static_costs, options.scheme) {
        let elements = |value| observed(value).map(|seen| seen.elements);
        let costing = Costing { model, costs, elements: &elements };
        layers = integer::worthwhile(&costing, &all, &regions);
    }
    for (candidate, decision) in candidates.iter().zip(decisions.iter_mut()) {
        let node = candidate.layer.node;
        if decision.scheme.needs_ranges() && !layers.contains(&node) {
            let place = options.target.place();
            go_down(candidate, decision, format!("on integers it would save no time{place}"));
        }
    }
    let regions = regions(&layers);
    let range = |value: ValueId| observed(value).map(|&ObservedTensor { min, max, .. }| (min, max));
    integer::ranges(model, &regions, range)
}

/// Why a model cannot be expressed in the operator set that a form needs, if it cannot.
fn too_old(model: &Model, scheme: Scheme, format: QuantFormat, keep_opset: bool) -> Option<String> {
    let needed = scheme.form().opset().filter(|_| format != QuantFormat::Qoperator)?;
    let version = model.opset(model.main(), "").unwrap_or(needed);
    if version >= needed {
        return None;
    }
    if keep_opset {
        return Some(format!("{scheme} needs operator set {needed}, and {version} is to be kept"));
    }
    let raised = upgrade::raise(&mut model.clone(), needed);
    raised.err().map(|why| format!("{scheme} needs operator set {needed}: {why}"))
}

/// The version of `ai.onnx` that a plan needs beyond the model's own, if it does: operators of integers are
/// older than what quantizes by channel.
pub(crate) fn opset(plan: &Plan) -> Option<i64> {
    if plan.format == QuantFormat::Qoperator {
        return None;
    }
    plan.layers.iter().filter_map(|layer| layer.scheme.form().opset()).max()
}

/// The tensors whose ranges layers could take by the default rules, in model order: what is to be
/// observed before a plan is made.
pub fn to_observe(model: &Model, options: &PlanOptions) -> Vec<ValueId> {
    let scheme = options.scheme.map_or_else(|| Scheme::all().next(), Some);
    let Some(scheme) = scheme.filter(|scheme| scheme.needs_ranges()) else { return Vec::new() };
    if too_old(model, scheme, options.format, options.keep_opset).is_some() {
        return Vec::new();
    }
    let look = Look::new([scheme], options.min_weight_bytes, f64::NEG_INFINITY);
    let asked = options.scheme == Some(scheme);
    let fits = |candidate: &Candidate| {
        let (layer, eligible) = (&candidate.layer, candidate.places(scheme));
        let considered = Considered { model, layer, eligible, asked };
        candidate.possible(scheme).is_ok()
            && scheme.form().objection(&considered, &options.target).is_none()
    };
    let all = candidates(model, &look);
    let layers: HashSet<NodeId> =
        all.iter().filter(|candidate| fits(candidate)).map(|found| found.layer.node).collect();
    let bounds =
        Bounds { has_range: &|_| true, is_fused: &|node| options.target.fuses(model.node(node)) };
    integer::regions(model, &layers, &bounds).tensors.into_iter().collect()
}

/// Whether tensors that a plan has ranges for are there, and are what its layers need.
pub(super) fn check(
    model: &Model,
    wanted: &Plan,
    candidates: &[Candidate],
) -> Result<(), PlanError> {
    let wrong =
        |range: &TensorRange, why| Err(PlanError::Range { tensor: range.name.clone(), why });
    let known = by_name(model);
    let mut seen: HashSet<&str> = HashSet::new();
    for range in &wanted.tensors {
        if !known.contains_key(range.name.as_str()) {
            return wrong(range, "which the model does not have");
        }
        if !range.is_sound() {
            return wrong(range, "which is empty or not finite");
        }
        if !seen.insert(range.name.as_str()) {
            return wrong(range, "which has one already");
        }
    }
    let decided = wanted.decided();
    let by_ranges = wanted.layers.iter().map(|layer| layer.scheme).find(|s| s.needs_ranges());
    let too_old = by_ranges.and_then(|scheme| too_old(model, scheme, wanted.format, false));
    for candidate in candidates {
        let id = candidate.layer.id.as_str();
        let (scheme, _) = decided(id);
        let needed = integer::needed(model, candidate.layer.node);
        let name = |value: &ValueId| model.value(*value).name();
        let missing = needed.iter().map(name).find(|name| !seen.contains(name));
        if let Some(why) = too_old.as_ref().filter(|_| scheme.needs_ranges()) {
            return Err(PlanError::Impossible { layer: id.to_owned(), scheme, why: why.clone() });
        }
        if let Some(missing) = missing.filter(|_| scheme.needs_ranges()) {
            let why = format!("the plan has no range for '{missing}', which it reads or makes");
            return Err(PlanError::Impossible { layer: id.to_owned(), scheme, why });
        }
    }
    if !wanted.format.is_default() && wanted.tensors.is_empty() {
        return Err(PlanError::Format);
    }
    let useful = useful(model, wanted);
    // Nothing may stand in a plan that is not carried out.
    let pointless = wanted.tensors.iter().find(|range| !useful.contains(range.name.as_str()));
    pointless.map_or(Ok(()), |range| wrong(range, "which no form of its layers takes"))
}

/// Drops the ranges of a plan that its layers do not take any more, once some of them are something else,
/// and how they are written once there are none.
pub fn settle(model: &Model, plan: &mut Plan) {
    if !plan.tensors.is_empty() {
        let useful: HashSet<String> = useful(model, plan).into_iter().map(str::to_owned).collect();
        plan.tensors.retain(|range| useful.contains(&range.name));
    }
    if plan.tensors.is_empty() {
        plan.format = QuantFormat::default();
    }
}

/// The names of the tensors that layers of a plan, and what stands between them, compute on.
fn useful<'a>(model: &'a Model, plan: &Plan) -> HashSet<&'a str> {
    let (layers, table) = layers_and_table(model, plan);
    let bounds = Bounds { has_range: &|value| table.contains_key(&value), is_fused: &|_| true };
    let regions = integer::regions(model, &layers, &bounds);
    let names = regions.tensors.iter().map(|&value| model.value(value).name());
    names.collect()
}

/// What a plan computes on integers by ranges.
pub(crate) struct OnIntegers {
    /// The layers.
    pub(crate) layers: HashSet<NodeId>,
    /// The ranges, by tensor of the main graph.
    pub(crate) table: IndexMap<ValueId, TensorRange>,
    /// What both mean.
    pub(crate) regions: Regions,
}

impl OnIntegers {
    pub(crate) fn of(model: &Model, plan: &Plan) -> Self {
        let (layers, table) = layers_and_table(model, plan);
        let regions = Regions::of(model, &layers, |value| table.contains_key(&value));
        OnIntegers { layers, table, regions }
    }
}

/// The layers of a plan that compute on integers by ranges, and the ranges by tensor of the main graph.
fn layers_and_table(
    model: &Model,
    plan: &Plan,
) -> (HashSet<NodeId>, IndexMap<ValueId, TensorRange>) {
    let layers = integer_layers(model, plan);
    if plan.tensors.is_empty() {
        return (layers, IndexMap::new());
    }
    let known = by_name(model);
    let of = |range: &TensorRange| Some((*known.get(range.name.as_str())?, range.clone()));
    let mut table: IndexMap<ValueId, TensorRange> = plan.tensors.iter().filter_map(of).collect();
    // What smoothing divides is quantized behind the division, and not before it.
    let mut sources: HashSet<ValueId> = HashSet::new();
    for &layer in &layers {
        let read = model.node(layer).input(0).filter(|read| !table.contains_key(read));
        let divided = read.and_then(|read| {
            let node = model.node(model.producer_node(read)?);
            let source = node.input(0).filter(|_| node.op.is("Mul"))?;
            Some((read, source, table.get(&source)?.clone()))
        });
        if let Some((read, source, range)) = divided {
            table.insert(read, range);
            sources.insert(source);
        }
    }
    table.retain(|value, _| !sources.contains(value));
    (layers, table)
}

fn integer_layers(model: &Model, plan: &Plan) -> HashSet<NodeId> {
    if !plan.layers.iter().any(|layer| layer.scheme.needs_ranges()) {
        return HashSet::new();
    }
    let decided = plan.decided();
    let all = layers::find(model, 0).into_iter();
    all.filter(|layer| decided(&layer.id).0.needs_ranges()).map(|layer| layer.node).collect()
}

fn by_name(model: &Model) -> HashMap<&str, ValueId> {
    let main = model.graph(model.main());
    let given = main.inputs.iter().map(|info| info.value);
    let made = model.nodes_of(model.main()).flat_map(|node| model.node(node).outputs().iter());
    let all = given.chain(made.flatten().copied());
    all.map(|value| (model.value(value).name(), value)).collect()
}

/// How many numbers a value of fixed shape has.
pub(crate) fn elements(model: &Model, value: ValueId) -> Option<u64> {
    let shape = model.value(value).ty().and_then(Type::shape)?;
    shape.iter().map(|dim| dim.fixed().map(|size| size as u64)).product()
}

/// What each layer saves that computes on integers by ranges, by id, as multiplications of float32 that take as
/// long; values must have fixed shapes.
pub(crate) fn gains(shaped: &Model, plan: &Plan, costs: &IntegerCosts) -> HashMap<String, f64> {
    let (layers, table) = layers_and_table(shaped, plan);
    let bounds = Bounds { has_range: &|value| table.contains_key(&value), is_fused: &|_| true };
    let regions = |layers: &HashSet<NodeId>| integer::regions(shaped, layers, &bounds);
    let elements = |value: ValueId| elements(shaped, value);
    let costing = Costing { model: shaped, costs, elements: &elements };
    let gains: HashMap<NodeId, f64> =
        integer::gains(&costing, &layers, &regions).into_iter().collect();
    let [float, integer] = costs.multiply;
    let of = |layer: layers::Layer| {
        let gain = gains.get(&layer.node)?.max(0.0);
        Some((layer.id, gain / (float - integer)))
    };
    layers::find(shaped, 0).into_iter().filter_map(of).collect()
}

/// Gives the tensors of a plan other ranges, by name; those that none is given for keep theirs. What only
/// moves numbers makes tensors of the range that it reads.
pub fn set_ranges(model: &Model, plan: &mut Plan, range: &dyn Fn(&str) -> Option<(f32, f32)>) {
    let OnIntegers { table, regions, .. } = OnIntegers::of(model, plan);
    let divided = divided(model, plan);
    let known = |value: ValueId| {
        let now = table.get(&value).map(|range| (range.min, range.max));
        let other = range(model.value(value).name()).filter(|_| !divided.contains(&value));
        other.or(now)
    };
    let before = std::mem::take(&mut plan.tensors);
    plan.tensors = integer::ranges(model, &regions, known);
    let mut factors: HashMap<String, Vec<f32>> =
        before.into_iter().map(|range| (range.name, range.divided_by)).collect();
    for range in &mut plan.tensors {
        range.divided_by = factors.remove(&range.name).unwrap_or_default();
    }
}

/// The tensors that are divided by factors of their channels, where they are made or where layers read them:
/// their ranges are those of what is left.
pub(crate) fn divided(model: &Model, plan: &Plan) -> HashSet<ValueId> {
    let places = plan.places();
    let all = layers::find(model, 0).into_iter();
    let divided = all.filter(|layer| {
        let line = places.get(layer.id.as_str()).map(|&place| &plan.layers[place]);
        line.is_some_and(|line| line.scheme.needs_ranges() && !line.smoothing.is_empty())
    });
    let read = divided.filter_map(|layer| model.node(layer.node).input(0));
    let known = by_name(model);
    let made = plan.tensors.iter().filter(|range| !range.divided_by.is_empty());
    read.chain(made.filter_map(|range| known.get(range.name.as_str()).copied())).collect()
}
