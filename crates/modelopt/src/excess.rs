//! How far a candidate is from its limits, as one number to go down: what a search steers by.

use modelopt_validate::{Limits, OutputParity, Parity, margin};

use crate::evaluator::noise;

/// What a limit that is no number counts as when it is missed: twice the noise that is allowed.
const MISSED: f64 = 2.0;

/// What a clear choice that is lost counts as: the plan nearly passes. How much noise there is says more
/// of how far there is to go than the one row in which it was too much.
const LOST: f64 = 1.2;

/// The limits of parity.
#[derive(Clone, Debug)]
pub(crate) struct Excess<'a> {
    limits: &'a Limits,
}

impl<'a> Excess<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Excess { limits }
    }

    /// The worst output's noise power divided by what its limit allows: above 1 it fails. Without a
    /// limit on the ratio, noise relative to the signal.
    pub(crate) fn of(&self, parity: &Parity) -> f64 {
        let mut worst = if parity.extra_outputs.is_empty() { 0f64 } else { MISSED };
        for output in parity.judged() {
            worst = worst.max(self.of_output(output));
        }
        worst
    }

    fn of_output(&self, output: &OutputParity) -> f64 {
        let own = self.limits.of(&output.name);
        let asked = own.min_sqnr_db.or(self.limits.min_sqnr_db);
        let mut excess = self.of_choices(output, asked);
        if !has_its_form(output) || output.sentinels.iter().any(|sentinel| sentinel.changed > 0) {
            excess = excess.max(MISSED);
        }
        let Some(float) = &output.float else { return excess };
        let limit = asked.map(|limit| output.attainable_db(limit));
        excess = excess.max(noise(float.sqnr_db - limit.unwrap_or(0.0)));
        if let Some(limit) = own.max_abs_error.or(self.limits.max_abs_error) {
            excess = excess.max((float.max_abs_error / limit).powi(2));
        }
        let limit = own.min_top1.or(self.limits.min_top1);
        if float.top1.zip(limit).is_some_and(|(top1, limit)| top1 < limit) {
            excess = excess.max(MISSED);
        }
        // They are no part of the ratio, whatever there is of them.
        let odd = float.new_non_finite + float.changed_non_finite;
        if odd > 0 && !own.allow_new_non_finite.unwrap_or(self.limits.allow_new_non_finite) {
            excess = excess.max(MISSED);
        }
        excess
    }

    /// By how much choices are off: margins that were lost, and integers that differ.
    fn of_choices(&self, output: &OutputParity, limit: Option<f64>) -> f64 {
        if let Some(decisions) = &output.decisions {
            let limit = limit.filter(|limit| *limit > f64::NEG_INFINITY);
            // A margin that is no number was not kept.
            let kept = limit.is_none_or(|limit| decisions.lost_margin <= margin(Some(limit)));
            return if kept { 0.0 } else { LOST };
        }
        match (output.mismatches, output.agreement, self.limits.min_agreement) {
            (Some(0) | None, ..) | (_, Some(_), None) => 0.0,
            (_, Some(agreement), Some(least)) if agreement >= least => 0.0,
            (_, Some(agreement), Some(least)) => (1.0 - agreement) / (1.0 - least).max(1e-6),
            (Some(_), None, _) => MISSED,
        }
    }
}

/// Whether an output is there, of the type and shape of the original's on every sample, and was
/// compared.
fn has_its_form(output: &OutputParity) -> bool {
    let compared = output.float.is_some() || output.mismatches.is_some();
    // What is seen inside of a model may be of another float type.
    let of_its_type = output.type_equal || (output.witness && output.float.is_some());
    output.present && of_its_type && output.shape_equal && compared
}

#[cfg(test)]
mod tests;
