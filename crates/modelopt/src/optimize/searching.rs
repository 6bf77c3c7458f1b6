//! The search of a run: from the plan to begin with, and, where that computes by ranges and few of its layers
//! can stay so, from one without ranges as well. Of two plans that pass, the cheaper one is taken.

use modelopt_report as report;
use modelopt_rewrite::ExplainedPlan;
use modelopt_runtime::Sample;
use modelopt_validate::Limits;

use super::course::Course;
use crate::config::Objective;
use crate::error::Error;
use crate::evaluator::Prover;
use crate::patience::Patience;
use crate::quicken::Clock;
use crate::search::tuning::Tuning;
use crate::search::{Court, Found, Searcher, Trials};
use crate::target::Ground;
use crate::transform::{self, Hints};
use crate::{Progress, Step};

impl Course<'_> {
    /// The plan that a search from `start` finds; `start` itself where there is nothing to search.
    pub(super) fn search(
        &mut self,
        start: &ExplainedPlan,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ExplainedPlan, Error> {
        let (given, used) = (self.given, self.searched.trials.len());
        let Some(Ground { rig, samples, calibrating }) = &self.ground else {
            return Ok(start.clone());
        };
        if !given.config.searches() || start.changed() == 0 {
            return Ok(start.clone());
        }
        let by_ranges = !start.tensors.is_empty();
        let tuning = Tuning::default();
        let (patience, wanted) = (Patience::of(rig, given.config), given.config.search.max_trials);
        let runs_each = samples.len() + if by_ranges { calibrating.len() } else { 0 };
        let runs_each = runs_each as f64;
        let allowed = patience.allowed(wanted, tuning.patience.fewest_trials, runs_each);
        self.searched.warnings.extend(patience.warning(wanted, allowed));
        patience.announce(Step::Searching, allowed as f64 * runs_each, progress);
        let most = allowed.saturating_sub(used);
        if !by_ranges {
            let found = self.search_from(start, most, progress)?;
            return Ok(self.searched.take(found));
        }
        let first = (most as f64 * tuning.ranging.trials) as usize;
        let found = self.search_from(start, first, progress)?;
        if is_worthwhile(&found, start) || found.is_cut_short() {
            return Ok(self.searched.take(found));
        }
        // What little is left on integers may have cost more than it is worth.
        let plain = transform::planned(given.prepared, given.config, &Hints::default())?;
        let left = most.saturating_sub(found.trials.len());
        let other = self.search_from(&plain, left, progress)?;
        let (with_ranges, timed) = match (found.passes, other.passes) {
            (true, true) => self.is_cheaper(&found.plan, &other.plan, progress),
            (passes, _) => (passes, Vec::new()),
        };
        let trials = [&found.trials[..], &other.trials, &timed].concat();
        let better = if with_ranges { found } else { other };
        Ok(self.searched.take(Found { trials, ..better }))
    }

    /// A search of so many trials from one plan.
    fn search_from(
        &mut self,
        start: &ExplainedPlan,
        most: usize,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Found, Error> {
        let (given, tuning) = (self.given, Tuning::default());
        let Some(Ground { rig, samples, calibrating }) = &mut self.ground else {
            return Ok(Found::nothing(start.clone()));
        };
        // What computes by ranges is tried on the samples that those come from, too: the more samples, the
        // less others do that none of these did.
        let by_ranges = !start.tensors.is_empty();
        let also = if by_ranges { calibrating.as_slice() } else { &[] };
        let all: Vec<Sample> = samples.iter().chain(also).cloned().collect();
        let prover = Prover::new(given.prepared, &all, rig, None);
        let margin_db = if by_ranges { tuning.ranging.margin_db(all.len()) } else { 0.0 };
        let limits = Limits {
            min_sqnr_db: given.limits.min_sqnr_db.map(|limit| limit + margin_db),
            ..given.limits.clone()
        };
        let court = Court {
            config: given.config,
            limits: &limits,
            budget: given.budget,
            original_bytes: given.original_bytes,
            meter: self.meter.as_mut(),
            progress,
        };
        Searcher::new(Trials::new(prover, court), &tuning, most)
            .with_tensors(&self.tensors, calibrating)
            .run(start)
    }

    /// Whether a plan costs no more than another one, by what the user is after: bytes, measured time, or
    /// both alike; and what was measured for that.
    fn is_cheaper(
        &mut self,
        plan: &ExplainedPlan,
        other: &ExplainedPlan,
        progress: &mut dyn FnMut(Progress),
    ) -> (bool, Vec<report::Trial>) {
        let mut trials = Vec::new();
        let bits = stored_bits(plan) / stored_bits(other).max(1.0);
        let time = self.time_against((plan, other), &mut trials, progress);
        (is_no_worse(self.given.config.search.objective, bits, time), trials)
    }

    /// The time of the model under a plan as a share of that under another one; none where it is not
    /// measured.
    fn time_against(
        &mut self,
        (plan, other): (&ExplainedPlan, &ExplainedPlan),
        trials: &mut Vec<report::Trial>,
        progress: &mut dyn FnMut(Progress),
    ) -> Option<f64> {
        let given = self.given;
        if !given.config.measure_latency {
            return None;
        }
        let mut clock = given.clock(self.ground.as_mut()?, progress)?;
        let mut time = |plan, what| {
            if clock.is_over() {
                None
            } else {
                clock.time(plan, what).ok().map(|told| told.slowdown)
            }
        };
        let of_plan = time(plan, "the time that computing on integers saves");
        let of_other = of_plan.and_then(|_| time(other, "the time without ranges"));
        trials.append(&mut clock.trials);
        Some(of_plan? / of_other?)
    }
}

/// Whether a plan that passes has most of the layers on integers by ranges that the search began with.
fn is_worthwhile(found: &Found, start: &ExplainedPlan) -> bool {
    let count =
        |plan: &ExplainedPlan| plan.layers.iter().filter(|line| line.scheme.needs_ranges()).count();
    found.passes && count(&found.plan) * 2 >= count(start)
}

/// Whether what takes these shares of another one's bytes and time is no worse by what the user is after.
fn is_no_worse(objective: Objective, bytes: f64, time: Option<f64>) -> bool {
    match (objective, time) {
        (Objective::Size, _) | (_, None) => bytes <= 1.0,
        (Objective::Latency, Some(time)) => time <= 1.0,
        (Objective::Balanced, Some(time)) => time * bytes <= 1.0,
    }
}

/// Bits of all weights under a plan.
fn stored_bits(plan: &ExplainedPlan) -> f64 {
    let bits =
        plan.lines().map(|(line, why)| why.bytes as f64 * f64::from(line.scheme.weight_bits()));
    bits.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_saves_more_time_than_it_takes_bytes_is_better_unless_bytes_alone_count() {
        let larger_and_faster = |objective| is_no_worse(objective, 1.1, Some(0.8));
        assert!(larger_and_faster(Objective::Balanced) && larger_and_faster(Objective::Latency));
        assert!(!larger_and_faster(Objective::Size));
        assert!(!is_no_worse(Objective::Balanced, 1.1, Some(0.95)), "more bytes than time");
        assert!(!is_no_worse(Objective::Latency, 0.9, Some(1.2)));
    }

    #[test]
    fn where_time_is_not_measured_bytes_decide() {
        for objective in [Objective::Balanced, Objective::Latency, Objective::Size] {
            assert!(is_no_worse(objective, 1.0, None) && !is_no_worse(objective, 1.01, None));
        }
    }
}
