//! What to do after a verdict: the plan to judge next, if the last one does not stand.

use std::time::Instant;

use modelopt_rewrite::{self as rewrite, ExplainedPlan, Interface, Scheme};
use modelopt_validate::{Measurements, SizeChange, judge};

use super::Outcome;
use super::course::Course;
use super::given::Given;
use crate::clock::TargetClock;
use crate::config::{Config, Enforcement};
use crate::error::Error;
use crate::evaluator::Prover;
use crate::quicken::{self, Clock};
use crate::search;
use crate::search::tuning::Tuning;
use crate::target::Ground;
use crate::transform::{self, Hints};
use crate::warning::Warning;
use crate::{Progress, Step};

/// How many verdicts there are at most: what turned out slow is moved in between. If the last one
/// is slow as well, everything is kept.
const MOST_ROUNDS: usize = 3;

/// A candidate that is no smaller is of use if it takes less than this of the original's time, on a
/// runtime that was named.
const FASTER: f64 = 0.95;

/// What to do after a verdict.
pub(super) struct Next {
    pub(super) plan: ExplainedPlan,
    /// What the user should know of it.
    pub(super) why: Option<Warning>,
}

impl Course<'_> {
    /// The plan to judge next, if the last one does not stand: one that is not slow, one that passes
    /// on parity once more, or the model as it is.
    pub(super) fn next(
        &mut self,
        outcome: &Outcome,
        rounds: usize,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<Next>, Error> {
        let given = self.given;
        if given.config.enforcement != Enforcement::Gate || given.budget.is_stopped() {
            return Ok(None);
        }
        if let Some(why) = given.pointless(outcome) {
            let plan = kept(&outcome.plan, "there is nothing to gain");
            return Ok(Some(Next { plan, why: Some(why) }));
        }
        let passes = outcome.verdict.as_ref().is_none_or(|verdict| verdict.pass);
        if !passes
            && rounds == 1
            && let Some(next) = given.stored(outcome)?
        {
            return Ok(Some(next));
        }
        if passes || !given.config.searches() {
            return Ok(None);
        }
        if outcome.fails_on(&["slowdown"]) && self.ground.is_some() {
            return self.quickened(outcome, rounds, progress);
        }
        // Whether errors of layers that were moved cancelled those of others is seen only now.
        if rounds == 1 || rounds >= MOST_ROUNDS {
            return Ok(None);
        }
        let plan = self.search(&outcome.plan, progress)?;
        let is_new = plan != outcome.plan && self.searched.passes;
        Ok(is_new.then_some(Next { plan, why: None }))
    }

    /// The plan that is not slow; everything is kept if there is no other.
    fn quickened(
        &mut self,
        outcome: &Outcome,
        rounds: usize,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<Next>, Error> {
        let (given, searched) = (self.given, &mut self.searched);
        let latency = outcome.runs.first().and_then(|run| run.latency.as_ref());
        let (Some(ground), Some(latency)) = (&mut self.ground, latency) else { return Ok(None) };
        // Whoever asks for a faster model is not given the same.
        let keep = given.config.gate.max_slowdown.is_some_and(|limit| limit >= 1.0);
        let found = if rounds < MOST_ROUNDS {
            let Some(mut clock) = given.clock(ground, progress) else { return Ok(None) };
            let tuning = Tuning::default().latency;
            let slowdown = latency.ratio_median;
            let found = quicken::quicken(&outcome.plan, slowdown, keep, &mut clock, &tuning);
            searched.trials.append(&mut clock.trials);
            found?
        } else {
            keep.then(|| kept(&outcome.plan, "the model is slower with anything changed"))
        };
        let Some(mut plan) = found else { return Ok(None) };
        search::tidy(&mut plan);
        // Layers that share a weight agree.
        let Ok(plan) = rewrite::agreed(given.prepared, &plan) else { return Ok(None) };
        let runtime = &ground.rig.used.name;
        let why = (plan.changed() == 0).then(|| Warning::AllSlower { runtime: runtime.to_owned() });
        Ok(Some(Next { plan, why }))
    }

    /// A gentler scheme than the one that was asked for, if it passes: on all samples, and briefly
    /// on the clock.
    pub(super) fn alternative(
        &mut self,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<Scheme>, Error> {
        let (given, searched) = (self.given, &mut self.searched);
        // A step that gives up speed, and no bytes.
        let asked = given.config.scheme;
        let gentler = asked.and_then(Scheme::down).filter(|scheme| {
            asked.is_some_and(|asked| scheme.weight_bits() == asked.weight_bits())
        });
        let (Some(scheme), Some(ground)) = (gentler, &mut self.ground) else { return Ok(None) };
        let config =
            Config { scheme: Some(scheme), io: Interface::Float32, ..given.config.clone() };
        let Ok(plan) = transform::planned(given.prepared, &config, &Hints::default()) else {
            return Ok(None);
        };
        progress(Progress::Step(Step::TryingGentlerScheme));
        let mut prover = Prover::new(given.prepared, &ground.samples, &mut ground.rig, None);
        let all = prover.all();
        let proved = match prover.prove(&plan, &all) {
            Ok(proved) => proved,
            Err(error) => return error.of_plan().map(|_| None),
        };
        let size =
            SizeChange { original_bytes: given.original_bytes, candidate_bytes: proved.bytes };
        let measured = Measurements { parity: Some(&proved.parity), size, latency: None };
        if !judge(given.limits, &measured).pass {
            return Ok(None);
        }
        let Some(mut clock) = given.clock(ground, progress) else { return Ok(None) };
        let timed = clock.time(&plan, &format!("{scheme} instead"));
        searched.trials.append(&mut clock.trials);
        match timed {
            Ok(timed) => Ok(timed.passes.then_some(scheme)),
            Err(error) => error.of_plan().map(|_| None),
        }
    }
}

impl<'a> Given<'a> {
    /// The plan that only stores weights in 16 bits, where computing in them was asked for and is slower,
    /// and that plan was seen to pass.
    fn stored(&self, outcome: &Outcome) -> Result<Option<Next>, Error> {
        let computes = self.config.computes_in().filter(|_| self.config.plan.is_none());
        let alternative = outcome.alternative.filter(|_| outcome.plan.io == Interface::Float32);
        let (Some(to), Some(scheme)) = (computes, alternative) else { return Ok(None) };
        let config = Config { scheme: Some(scheme), ..self.config.clone() };
        let plan = transform::planned(self.prepared, &config, &Hints::default())?;
        let latency = outcome.runs.first().and_then(|run| run.latency.as_ref());
        let ratio = latency.map_or(f64::NAN, |latency| latency.ratio_median);
        let why = Warning::SlowerIn16Bits {
            precision: to,
            ratio,
            allowance: ratio + 0.05,
            stored: (plan.changed() > 0).then_some(scheme),
        };
        Ok(Some(Next { plan, why: Some(why) }))
    }

    /// Why the candidate is of no use, if it is of none and nobody asked for it as it is.
    fn pointless(&self, outcome: &Outcome) -> Option<Warning> {
        let config = self.config;
        let as_asked = config.plan.is_some()
            || config.freeze_inputs
            || outcome.plan.io != Interface::Float32
            || config.gate.min_shrink.is_none_or(|limit| limit > 1.0);
        let SizeChange { original_bytes, candidate_bytes } = outcome.size;
        if as_asked || outcome.unchanged || candidate_bytes < original_bytes {
            return None;
        }
        let verdict = outcome.verdict.as_ref()?;
        if !verdict.pass && !outcome.fails_on(&["slowdown", "shrink"]) {
            return None;
        }
        let judged = verdict.checks.iter().any(|check| check.name == "slowdown");
        let latency = outcome.runs.first().and_then(|run| run.latency.as_ref());
        if latency.is_some_and(|latency| judged && latency.ratio_high < FASTER && latency.is_told())
        {
            return None;
        }
        Some(Warning::NothingToGain { more_bytes: candidate_bytes - original_bytes })
    }

    /// Measures how slow plans are.
    pub(super) fn clock<'c>(
        &'c self,
        ground: &'c mut Ground<'a>,
        progress: &'c mut dyn FnMut(Progress),
    ) -> Option<TargetClock<'c, 'a>> {
        Some(TargetClock {
            prepared: self.prepared,
            sample: ground.samples.first()?,
            rig: &mut ground.rig,
            config: self.config,
            budget: self.budget,
            started: Instant::now(),
            trials: Vec::new(),
            progress,
        })
    }
}

/// The plan with everything kept.
fn kept(plan: &ExplainedPlan, reason: &str) -> ExplainedPlan {
    let mut plan = plan.clone();
    for (layer, why) in plan.lines_mut().filter(|(layer, _)| !layer.scheme.is_keep()) {
        (layer.scheme, layer.at_load) = (Scheme::default(), false);
        reason.clone_into(&mut why.reason);
    }
    search::tidy(&mut plan);
    plan
}

#[cfg(test)]
mod planted;
