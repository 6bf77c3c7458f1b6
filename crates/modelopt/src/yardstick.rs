//! How far a candidate is from its limits, as one number to go down: what a search steers by.

use modelopt_validate::{Limits, Parity};

use crate::prover::noise;

/// What a limit that is no number counts as when it is missed: twice the noise that is allowed.
const MISSED: f64 = 2.0;

/// The limits of parity.
#[derive(Clone, Debug)]
pub(crate) struct Yardstick<'a> {
    limits: &'a Limits,
}

impl<'a> Yardstick<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Yardstick { limits }
    }

    /// The worst output's noise power divided by what its limit allows: above 1 it fails. Without a
    /// limit on the ratio, noise relative to the signal.
    pub(crate) fn excess(&self, parity: &Parity) -> f64 {
        let mut worst = 0f64;
        for output in &parity.outputs {
            let own = self.limits.per_output.get(&output.name);
            if output.mismatches.is_some_and(|count| count > 0) || !output.present {
                worst = worst.max(MISSED);
            }
            let Some(float) = &output.float else { continue };
            let limit = own.and_then(|own| own.min_sqnr_db).or(self.limits.min_sqnr_db);
            let mut excess = noise(float.sqnr_db - limit.unwrap_or(0.0));
            let limit = own.and_then(|own| own.max_abs_error).or(self.limits.max_abs_error);
            if let Some(limit) = limit {
                excess = excess.max((float.max_abs_error / limit).powi(2));
            }
            let limit = own.and_then(|own| own.min_top1).or(self.limits.min_top1);
            if float.top1.zip(limit).is_some_and(|(top1, limit)| top1 < limit) {
                excess = excess.max(MISSED);
            }
            worst = worst.max(excess);
        }
        worst
    }
}
