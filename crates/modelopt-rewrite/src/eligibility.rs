//! What can be done to each layer, and why not more.

use std::cell::OnceCell;

use modelopt_graph::Model;
use rayon::prelude::*;

use crate::forms::Scheme;
use crate::layers::{self, Layer, WeightUse};
use crate::plan::Plan;
use crate::site::Site;

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
        self.places(scheme).iter().filter_map(|&place| self.layer.weights.get(place))
    }

    /// The same by place in `layer.weights`.
    pub(crate) fn places(&self, scheme: Scheme) -> &[usize] {
        self.found(scheme).and_then(|found| found.as_deref().ok()).unwrap_or_default()
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
}

/// All layers, with what can be done to each.
pub(crate) fn candidates(model: &Model, look: &Look) -> Vec<Candidate> {
    layers::find(model, look.min_weight_bytes)
        .into_par_iter()
        .map(|layer| {
            let site = Site {
                model,
                layer: &layer,
                min_weight_bytes: look.min_weight_bytes,
                min_rounding_sqnr_db: look.min_rounding_sqnr_db,
                int8: OnceCell::new(),
            };
            let found = |&scheme: &Scheme| (scheme, scheme.form().eligible(&site));
            let eligible = look.schemes.iter().map(found).collect();
            Candidate { layer, eligible }
        })
        .collect()
}
