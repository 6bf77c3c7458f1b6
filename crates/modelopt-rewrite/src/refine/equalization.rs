//! Cross-layer equalization (Nagel et al., "Data-free quantization through weight equalization and bias
//! correction", 2019): channels of a tensor between two layers are divided by factors where they are made.
//!
//! ```text
//! t = Relu(Conv(x, W, b)); y = Conv(t, V)
//!   =>
//! t / f = Relu(Conv(x, W / f, b / f)); y = Conv(t / f, V * f)     f: a power of two for each channel
//! ```
//!
//! A tensor on integers has one step for all of its channels, and no channel sets it for the others once
//! they are alike. That costs nothing at run time, and powers of two change no digit of any number. It is
//! done where nothing but channel-wise operators that commute with positive factors stand between, where
//! nothing else reads a tensor between, and where weights and biases are nobody else's.

mod chance;
mod link;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::{Model, NodeId, Tensor, ValueId};

use self::chance::Chance;
use self::link::Link;
use crate::engine::{self, BrokenRewrite};
use crate::layers;
use crate::plan::{Plan, PlanError, PlannedLayer};
use crate::policy::OnIntegers;
use crate::quantize::Granularity;
use crate::statistics::Seen;

/// Two layers with what one tensor between them is divided by.
struct Equalized {
    link: Link,
    factors: Vec<f32>,
}

/// Gives the tensors of a plan factors by channel where they make less noise, with the ranges that go with
/// them. Those that have some keep them.
pub(super) fn choose(model: &Model, plan: &mut Plan, seen: &Seen) {
    let OnIntegers { table, .. } = OnIntegers::of(model, plan);
    let ids: HashMap<NodeId, String> =
        layers::all(model).into_iter().map(|layer| (layer.node, layer.id)).collect();
    // Of two links that share a layer, the second has the weights that the first leaves.
    let mut current = model.clone();
    if apply(&mut current, plan).is_err() {
        return;
    }
    let mut tried: HashSet<NodeId> = HashSet::new();
    for &tensor in table.keys() {
        let Some(link) = Link::around(model, tensor) else { continue };
        let is_free = |value: &ValueId| table.get(value).is_none_or(|r| r.divided_by.is_empty());
        if !tried.insert(link.maker) || !link.values().all(|value| is_free(&value)) {
            continue;
        }
        if !may_change(plan, &link, &ids) {
            continue;
        }
        let quantized = |value: ValueId| table.contains_key(&value);
        let Some(chance) = Chance::of(model, (plan, seen), &link, &ids, &quantized) else {
            continue;
        };
        let Some(factors) = chance.best() else { continue };
        let Some(constants) = link.scaled(&current, &factors) else { continue };
        put(&mut current, constants);
        let ranges: HashMap<&str, (f32, f32)> = link
            .values()
            .filter_map(|value| Some((model.value(value).name(), chance.range(value, &factors)?)))
            .collect();
        for range in &mut plan.tensors {
            if let Some(&(min, max)) = ranges.get(range.name.as_str()) {
                (range.min, range.max) = (min, max);
                range.divided_by.clone_from(&factors);
            }
        }
    }
}

/// Whether the layers of a link may have other weights: none has refinements that go with those that it has,
/// and none has one scale for all channels, which would be another after it.
fn may_change(plan: &Plan, link: &Link, ids: &HashMap<NodeId, String>) -> bool {
    let places = plan.places();
    let lines = link.layers().filter_map(|node| {
        let place = places.get(ids.get(&node)?.as_str())?;
        Some((node, &plan.layers[*place]))
    });
    lines.into_iter().all(|(node, line)| {
        let by_channel = plan.numerics_of(line).granularity == Granularity::PerChannel;
        let is_plain = line.smoothing.is_empty() || node == link.maker;
        is_plain && (by_channel || !line.scheme.is_int8())
    })
}

/// Carries out the factors of a plan.
pub(super) fn apply(model: &mut Model, plan: &Plan) -> Result<(), BrokenRewrite> {
    let Ok(found) = equalized(model, plan) else { return Ok(()) };
    if found.is_empty() {
        return Ok(());
    }
    engine::checked(model, "equalization", |model| {
        for Equalized { link, factors } in &found {
            // Checked when the plan was made.
            put(model, link.scaled(model, factors).unwrap_or_default());
        }
        found.len()
    })?;
    Ok(())
}

/// What layers read that is divided by factors of its channels before it is quantized.
pub(crate) struct Divisors(HashMap<NodeId, Vec<f32>>);

impl Divisors {
    /// Those of a plan, for the model that it was made for.
    pub(crate) fn of(model: &Model, plan: &Plan) -> Self {
        let found = equalized(model, plan).unwrap_or_default();
        let of = |Equalized { link, factors }: Equalized| {
            let readers = link.readers.into_iter();
            readers.map(move |(node, _)| (node, factors.clone()))
        };
        Divisors(found.into_iter().flat_map(of).collect())
    }

    /// The factors of what one layer reads, if it is divided.
    pub(crate) fn by<'a>(&'a self, node: NodeId, line: &'a PlannedLayer) -> Option<&'a [f32]> {
        let smoothing = Some(line.smoothing.as_slice()).filter(|factors| !factors.is_empty());
        smoothing.or_else(|| self.0.get(&node).map(Vec::as_slice))
    }
}

/// Refuses factors that cannot be carried out.
pub(super) fn check(model: &Model, plan: &Plan) -> Result<(), PlanError> {
    let wrong = |tensor: String, why| Err(PlanError::Range { tensor, why });
    let mut current = model.clone();
    let found = match equalized(model, plan) {
        Ok(found) => found,
        Err((tensor, why)) => return wrong(tensor, why),
    };
    for Equalized { link, factors } in found {
        let Some(constants) = link.scaled(&current, &factors) else {
            let name = model.value(link.made).name().to_owned();
            return wrong(name, "divided by factors that its layers cannot make up for exactly");
        };
        put(&mut current, constants);
    }
    Ok(())
}

/// The links of a plan, in its order; or the name of a tensor that has none, and why.
fn equalized(model: &Model, plan: &Plan) -> Result<Vec<Equalized>, (String, &'static str)> {
    if plan.tensors.iter().all(|range| range.divided_by.is_empty()) {
        return Ok(Vec::new());
    }
    let OnIntegers { table, .. } = OnIntegers::of(model, plan);
    let mut found: IndexMap<NodeId, Equalized> = IndexMap::new();
    for (&tensor, range) in table.iter().filter(|(_, range)| !range.divided_by.is_empty()) {
        let refuse = |why| Err((range.name.clone(), why));
        let factors = &range.divided_by;
        if !factors.iter().all(|&factor| is_exact(factor)) {
            return refuse("divided by factors that are not powers of two");
        }
        let Some(link) = Link::around(model, tensor) else {
            return refuse("divided by factors that no layers can make up for");
        };
        if link.channels != factors.len() {
            return refuse("divided by factors that do not fit its channels");
        }
        let agrees = |value: ValueId| table.get(&value).is_none_or(|r| &r.divided_by == factors);
        if !link.values().all(agrees) {
            return refuse("divided by other factors than what is made of it");
        }
        let factors = factors.clone();
        found.entry(link.maker).or_insert(Equalized { link, factors });
    }
    Ok(found.into_values().collect())
}

/// Whether a factor changes no digit of what it is multiplied with.
fn is_exact(factor: f32) -> bool {
    factor.is_normal() && factor > 0.0 && factor.to_bits().trailing_zeros() >= 23
}

fn put(model: &mut Model, constants: Vec<(ValueId, Tensor)>) {
    for (value, tensor) in constants {
        model.replace_constant(value, Arc::new(tensor));
    }
}
