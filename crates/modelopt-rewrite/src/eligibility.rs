//! What can be done to each layer, and why not more.

use std::cell::OnceCell;

use modelopt_graph::Model;
use rayon::prelude::*;

use crate::forms::Scheme;
use crate::layers::{self, Layer, WeightUse};
use crate::plan::Plan;

/// A layer with what can be done to it.
pub(crate) struct Candidate {
    pub(crate) layer: Layer,
    /// For each scheme that was looked at, its weights that it would store, by place in
    /// `layer.weights`.
    eligible: Vec<(Scheme, Result<Vec<usize>, String>)>,
}

impl Candidate {
    /// The weights that a scheme would store.
    pub(crate) fn weights(&self, scheme: Scheme) -> impl Iterator<Item = &WeightUse> {
        let places = self.found(scheme).and_then(|found| found.as_deref().ok());
        let places = places.unwrap_or_default().iter();
        places.filter_map(|&place| self.layer.weights.get(place))
    }

    /// Whether a scheme is possible, or why not.
    pub(crate) fn possible(&self, scheme: Scheme) -> Result<(), String> {
        if !is_by_weight(scheme) {
            return Ok(());
        }
        let found = self.found(scheme);
        found.map_or(Err("not asked for".to_owned()), |found| found.clone().map(|_| ()))
    }

    fn found(&self, scheme: Scheme) -> Option<&Result<Vec<usize>, String>> {
        self.eligible.iter().find(|(known, _)| *known == scheme).map(|(_, found)| found)
    }
}

/// Whether a scheme is chosen weight by weight.
fn is_by_weight(scheme: Scheme) -> bool {
    !scheme.is_keep() && scheme.computes_in().is_none()
}

/// A layer that is looked at.
pub(crate) struct Site<'a> {
    pub(crate) model: &'a Model,
    pub(crate) layer: &'a Layer,
    /// Weights smaller than this are left alone, in bytes.
    min_weight_bytes: usize,
    /// What rounding to 16 bits must leave, in dB.
    pub(crate) min_rounding_sqnr_db: f64,
    /// The weights that can be stored as int8, which several forms ask for.
    pub(crate) int8: OnceCell<Result<Vec<usize>, String>>,
}

/// What to look at: every scheme that is looked at reads all weights.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    schemes: Vec<Scheme>,
    /// Weights smaller than this are left alone, in bytes.
    pub(crate) min_weight_bytes: usize,
    /// What rounding to 16 bits must leave, in dB.
    min_rounding_sqnr_db: f64,
}

impl Look {
    /// Looks at these schemes, and at those that are tried in their place.
    pub(crate) fn new(
        schemes: impl IntoIterator<Item = Scheme>,
        min_weight_bytes: usize,
        min_rounding_sqnr_db: f64,
    ) -> Self {
        let mut wanted: Vec<Scheme> = schemes.into_iter().flat_map(Scheme::rungs).collect();
        wanted.sort_unstable();
        wanted.dedup();
        Look { schemes: wanted, min_weight_bytes, min_rounding_sqnr_db }
    }

    /// Looks at what a plan asks for, without a threshold: whoever writes a plan by hand may mean
    /// a small layer, or one that loses much.
    pub(crate) fn at(plan: &Plan) -> Self {
        Look::new(plan.layers.iter().map(|layer| layer.scheme), 0, f64::NEG_INFINITY)
    }

    pub(crate) fn site<'a>(&self, model: &'a Model, layer: &'a Layer) -> Site<'a> {
        Site {
            model,
            layer,
            min_weight_bytes: self.min_weight_bytes,
            min_rounding_sqnr_db: self.min_rounding_sqnr_db,
            int8: OnceCell::new(),
        }
    }
}

/// All layers, with what can be done to each.
pub(crate) fn candidates(model: &Model, look: &Look) -> Vec<Candidate> {
    layers::find(model, look.min_weight_bytes)
        .into_par_iter()
        .map(|layer| {
            let site = look.site(model, &layer);
            let found = |&scheme: &Scheme| (scheme, scheme.form().eligible(&site));
            let eligible = look.schemes.iter().map(found).collect();
            Candidate { layer, eligible }
        })
        .collect()
}

/// Which weights of a layer can be stored in another type, or why none can.
pub(crate) fn storable(
    site: &Site<'_>,
    fits: impl Fn(&WeightUse) -> Result<(), String>,
) -> Result<Vec<usize>, String> {
    let &Site { model, layer, .. } = site;
    if layers::is_quantized_operator(model, layer.node) {
        return Err("already quantized".to_owned());
    }
    let mut first_reason = None;
    let mut places = Vec::new();
    // The largest weight's reason is the one to tell.
    let mut order: Vec<usize> = (0..layer.weights.len()).collect();
    order.sort_by_key(|&place| std::cmp::Reverse(layer.weights[place].tensor.byte_len()));
    for place in order {
        let weight = &layer.weights[place];
        match replaceable(site, weight).and_then(|()| fits(weight)) {
            Ok(()) => places.push(place),
            Err(reason) => {
                first_reason.get_or_insert(reason);
            }
        }
    }
    places.sort_unstable();
    if places.is_empty() {
        let sparse = !layers::sparse_weights(model, layer.node).is_empty();
        let otherwise =
            if sparse { "sparse: it is stored small already" } else { "already quantized" };
        Err(first_reason.unwrap_or_else(|| otherwise.to_owned()))
    } else {
        Ok(places)
    }
}

/// Whether a weight can be replaced by something computed, and is worth it.
fn replaceable(site: &Site<'_>, weight: &WeightUse) -> Result<(), String> {
    let &Site { model, layer, min_weight_bytes: min, .. } = site;
    if layers::is_overridable(model, weight.value) {
        return Err(format!(
            "'{}' is an input with a default, which callers may override",
            model.value(weight.value).name()
        ));
    }
    if layers::is_returned(model, weight.value) {
        return Err("the weight is also an output of the graph".to_owned());
    }
    if let Some(reason) = layers::refuses_computed(model, layer.node) {
        return Err(reason.to_owned());
    }
    let size = weight.tensor.byte_len();
    if size < min { Err(format!("{size} bytes: below the threshold of {min}")) } else { Ok(()) }
}
