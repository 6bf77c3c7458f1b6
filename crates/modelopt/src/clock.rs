//! Measures how slow a plan makes the whole model, beside the original.

use std::time::{Duration, Instant};

use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, ExplainedPlan, Prepared};
use modelopt_runtime::Sample;
use modelopt_validate::{
    LatencyComparison, LatencyOptions, Limits, Measurements, SizeChange, judge,
};

use crate::budget::Budget;
use crate::config::Config;
use crate::overhead;
use crate::quicken::{Clock, Timed};
use crate::scratch::Scratch;
use crate::search;
use crate::target::Rig;
use crate::trial_error::TrialError;
use crate::{Progress, Step};

/// Shorter than for a verdict: what comes of it is measured again.
const BRIEF: LatencyOptions = LatencyOptions { min_pairs: 12, min_seconds: 0.25, max_seconds: 2.0 };

/// How long all may take, so that a slow model does not keep a build waiting.
const PATIENCE: Duration = Duration::from_mins(2);

/// Runs candidates in the target, each for a moment, on the first sample.
pub(crate) struct TargetClock<'a, 'b> {
    pub(crate) prepared: &'a Prepared,
    pub(crate) sample: &'a Sample,
    pub(crate) rig: &'a mut Rig<'b>,
    pub(crate) config: &'a Config,
    pub(crate) budget: &'a Budget,
    pub(crate) started: Instant,
    /// What was measured.
    pub(crate) trials: Vec<report::Trial>,
    pub(crate) progress: &'a mut dyn FnMut(Progress),
}

impl Clock for TargetClock<'_, '_> {
    fn time(&mut self, plan: &ExplainedPlan, what: &str) -> Result<Timed, TrialError> {
        (self.progress)(Progress::Step(Step::TimingPlan));
        let mut trial = report::Trial {
            what: what.to_owned(),
            schemes: search::schemes(plan),
            ..report::Trial::default()
        };
        let measured = self.measure(plan);
        match &measured {
            Ok((latency, bytes)) => {
                trial.bytes = *bytes;
                trial.slowdown = Some(latency.ratio_median);
                trial.pass = self.passes(latency);
            }
            Err(why) => trial.failure = Some(why.to_string()),
        }
        (self.progress)(Progress::Trial(Box::new(trial.clone())));
        let passes = trial.pass;
        self.trials.push(trial);
        measured.map(|(latency, _)| Timed { slowdown: latency.ratio_median, passes })
    }

    fn is_over(&self) -> bool {
        self.started.elapsed() > PATIENCE
            || !self.budget.allows(Duration::from_secs_f64(BRIEF.max_seconds) * 2)
    }
}

impl TargetClock<'_, '_> {
    /// Latency of the model under a plan, and its size.
    fn measure(&mut self, plan: &ExplainedPlan) -> Result<(LatencyComparison, u64), TrialError> {
        let plan = rewrite::plan_from(self.prepared, plan)?;
        let (model, _) = self.prepared.apply(&plan)?;
        let scratch = Scratch::new()?;
        let staged = scratch.write(&self.rig.copy_of(&model), "trial.onnx")?;
        let mut candidate = self.rig.prepare(staged.path())?;
        let (original, inputs) = (self.rig.original.as_mut(), &self.sample.inputs);
        let threads = self.config.threads;
        let latency = modelopt_validate::compare_latency(
            original,
            candidate.as_mut(),
            inputs,
            threads,
            &BRIEF,
        );
        let mut latency = latency?;
        latency.call_ms = overhead::call_ms(self.rig, inputs.len());
        Ok((latency, staged.size()))
    }

    /// Whether the median meets the limit, not only the end of its interval: what is measured so
    /// briefly has a wide one.
    fn passes(&self, latency: &LatencyComparison) -> bool {
        let strict = LatencyComparison { ratio_low: latency.ratio_median, ..latency.clone() };
        let limits = Limits {
            max_slowdown: self.config.gate.max_slowdown,
            min_shrink: None,
            ..Limits::default()
        };
        let size = SizeChange { original_bytes: 0, candidate_bytes: 0 };
        judge(&limits, &Measurements { parity: None, size, latency: Some(&strict) }).pass
    }
}

#[cfg(test)]
mod planted;
