//! The table of tensors that layers with ranges need: made by the default rules, held against the model
//! where somebody gave it.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use modelopt_graph::{Model, NodeId, ValueId};

use super::decision::{Decision, first_of};
use super::options::{ObservedTensor, PlanOptions};
use crate::eligibility::{Candidate, Look, candidates};
use crate::forms::{Considered, Scheme};
use crate::integer::{self, Bounds, Regions};
use crate::layers;
use crate::plan::{Plan, PlanError, QuantFormat, TensorRange};

/// The ranges that layers take which compute on integers by ranges. Those that cannot, because something
/// they need was not observed, go down.
pub(super) fn choose(
    model: &Model,
    candidates: &[Candidate],
    decisions: &mut [Decision],
    options: &PlanOptions,
) -> Vec<TensorRange> {
    let observed = |value: ValueId| options.observed.get(model.value(value).name());
    for (candidate, decision) in candidates.iter().zip(decisions.iter_mut()) {
        if !decision.scheme.needs_ranges() {
            continue;
        }
        let needed = integer::needed(model, candidate.layer.node);
        if let Some(unknown) = needed.iter().find(|&&value| observed(value).is_none()) {
            let below: Vec<_> = decision.scheme.rungs().into_iter().skip(1).collect();
            *decision = first_of(&below, model, candidate, options);
            let unknown = model.value(*unknown).name();
            decision.reason = format!("no range of '{unknown}' is known");
        }
    }
    let chosen = candidates.iter().zip(decisions.iter());
    let chosen = chosen.filter(|(_, decision)| decision.scheme.needs_ranges());
    let layers: HashSet<NodeId> = chosen.map(|(candidate, _)| candidate.layer.node).collect();
    let bounds = Bounds {
        has_range: &|value| observed(value).is_some(),
        is_fused: &|node| options.target.fuses(model.node(node)),
    };
    let regions = integer::regions(model, &layers, &bounds);
    let range = |value: ValueId| observed(value).map(|&ObservedTensor { min, max, .. }| (min, max));
    integer::ranges(model, &regions, range)
}

/// The tensors whose ranges layers could take by the default rules, in model order: what is to be
/// observed before a plan is made.
pub fn to_observe(model: &Model, options: &PlanOptions) -> Vec<ValueId> {
    let scheme = options.scheme.map_or_else(|| Scheme::all().next(), Some);
    let Some(scheme) = scheme.filter(|scheme| scheme.needs_ranges()) else { return Vec::new() };
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
    for candidate in candidates {
        let id = candidate.layer.id.as_str();
        let (scheme, _) = decided(id);
        let needed = integer::needed(model, candidate.layer.node);
        let name = |value: &ValueId| model.value(*value).name();
        let missing = needed.iter().map(name).find(|name| !seen.contains(name));
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
    let in_table: HashSet<ValueId> = table(model, plan).into_keys().collect();
    let bounds = Bounds { has_range: &|value| in_table.contains(&value), is_fused: &|_| true };
    let regions = integer::regions(model, &integer_layers(model, plan), &bounds);
    let names = regions.tensors.iter().map(|&value| model.value(value).name());
    names.collect()
}

/// The layers of a plan that compute on integers by ranges.
pub(crate) fn integer_layers(model: &Model, plan: &Plan) -> HashSet<NodeId> {
    if !plan.layers.iter().any(|layer| layer.scheme.needs_ranges()) {
        return HashSet::new();
    }
    let decided = plan.decided();
    let all = layers::find(model, 0).into_iter();
    all.filter(|layer| decided(&layer.id).0.needs_ranges()).map(|layer| layer.node).collect()
}

/// The ranges of a plan by tensor of the main graph.
pub(crate) fn table(model: &Model, plan: &Plan) -> IndexMap<ValueId, TensorRange> {
    if plan.tensors.is_empty() {
        return IndexMap::new();
    }
    let known = by_name(model);
    let of = |range: &TensorRange| Some((*known.get(range.name.as_str())?, range.clone()));
    plan.tensors.iter().filter_map(of).collect()
}

/// What a plan quantizes by ranges.
pub(crate) fn regions(model: &Model, plan: &Plan) -> Regions {
    let table = table(model, plan);
    Regions::of(model, &integer_layers(model, plan), |value| table.contains_key(&value))
}

fn by_name(model: &Model) -> HashMap<&str, ValueId> {
    let main = model.graph(model.main());
    let given = main.inputs.iter().map(|info| info.value);
    let made = model.nodes_of(model.main()).flat_map(|node| model.node(node).outputs().iter());
    let all = given.chain(made.flatten().copied());
    all.map(|value| (model.value(value).name(), value)).collect()
}
