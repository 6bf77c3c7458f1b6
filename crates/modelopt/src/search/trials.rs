//! Runs plans: carries each out, runs what comes of it, judges, asks the user's metric, and keeps the
//! record that a report shows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use modelopt_onnx::{SaveOptions, Staged};
use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, Plan, Prepared};
use modelopt_validate::{Limits, Measurements, SizeChange, judge};

use super::evaluator::{End, Evaluation};
use crate::budget::Budget;
use crate::config::Config;
use crate::evaluator::{Proved, Prover, worst_sqnr};
use crate::excess::Excess;
use crate::meter::Meter;
use crate::metric::MetricError;
use crate::provenance;
use crate::trial_error::TrialError;
use crate::{Progress, Step};

/// What measuring latency takes besides its runs.
const STARTING_CLOCKS: Duration = Duration::from_millis(300);

/// What plans are held against, and how long that may take.
pub(crate) struct Court<'a, 'm> {
    pub(crate) config: &'a Config,
    pub(crate) limits: &'a Limits,
    pub(crate) budget: &'a Budget,
    pub(crate) original_bytes: u64,
    /// The user's metric, which has the last word.
    pub(crate) meter: Option<&'a mut Meter<'m>>,
    pub(crate) progress: &'a mut dyn FnMut(Progress),
}

/// Plans that are run, one after the other.
pub(crate) struct Trials<'a, 'b, 'm> {
    pub(crate) prover: Prover<'a, 'b>,
    pub(crate) court: Court<'a, 'm>,
    pub(crate) excess: Excess<'a>,
    /// What was tried.
    pub(crate) record: Vec<report::Trial>,
    /// Whether whoever waits is told of each.
    pub(crate) tells: bool,
    /// How long the last trial took.
    pub(crate) last: Duration,
}

impl<'a, 'b, 'm> Trials<'a, 'b, 'm> {
    pub(crate) fn new(prover: Prover<'a, 'b>, court: Court<'a, 'm>) -> Self {
        let excess = Excess::new(court.limits);
        Trials { prover, court, excess, record: Vec::new(), tells: true, last: Duration::ZERO }
    }

    /// Whether a metric decides.
    pub(crate) fn by_metric(&self) -> bool {
        self.court.meter.is_some()
    }

    /// Runs a plan on all samples.
    pub(crate) fn run(&mut self, plan: &Plan, what: String) -> Result<Evaluation, TrialError> {
        let started = Instant::now();
        if self.tells {
            (self.court.progress)(Progress::Step(Step::TryingPlan));
        }
        let proved = self.prove(plan);
        self.last = started.elapsed();
        let mut trial = report::Trial { what, schemes: schemes(plan), ..report::Trial::default() };
        let told = match proved {
            Ok((proved, plan)) => {
                let mut told = self.judge(&proved, &mut trial);
                if told.passes {
                    self.consult(&plan, &mut trial, &mut told)?;
                }
                Ok(told)
            }
            Err(error) => {
                trial.failure = Some(error.of_plan()?);
                Ok(Evaluation::FAILED)
            }
        };
        if self.tells {
            (self.court.progress)(Progress::Trial(Box::new(trial.clone())));
        }
        self.record.push(trial);
        told
    }

    fn prove(&mut self, plan: &Plan) -> Result<(Proved, Plan), TrialError> {
        let mut plan = plan.clone();
        rewrite::settle(self.prover.prepared, &mut plan);
        let plan = rewrite::plan_from(self.prover.prepared, &plan)?.into_plan();
        let all = self.prover.all();
        Ok((self.prover.prove(&plan, &all)?, plan))
    }

    fn judge(&self, proved: &Proved, trial: &mut report::Trial) -> Evaluation {
        let original_bytes = self.court.original_bytes;
        let size = SizeChange { original_bytes, candidate_bytes: proved.bytes };
        let measured = Measurements { parity: Some(&proved.parity), size, latency: None };
        trial.pass = judge(self.court.limits, &measured).pass;
        trial.bytes = proved.bytes;
        let worst = worst_sqnr(&proved.parity);
        trial.sqnr_db = worst.map(|(sqnr_db, _)| sqnr_db);
        let place = worst.and_then(|(_, sample)| self.prover.place(sample));
        Evaluation {
            passes: trial.pass,
            excess: self.excess.of(&proved.parity),
            worst: Some(place.unwrap_or(0)),
            lost: 0.0,
        }
    }

    /// Asks the user's metric about a plan that meets the limits.
    fn consult(
        &mut self,
        plan: &Plan,
        trial: &mut report::Trial,
        told: &mut Evaluation,
    ) -> Result<(), TrialError> {
        let Some(meter) = self.court.meter.as_mut() else { return Ok(()) };
        (self.court.progress)(Progress::Step(Step::EvaluatingMetric));
        let prepared = self.prover.prepared;
        match meter
            .measure(&provenance::plan_digest(plan), |path| carried_out(prepared, plan, path))
        {
            Ok(change) => {
                let pass = change.check().pass;
                trial.metric = Some(change.candidate);
                trial.pass &= pass;
                told.passes &= pass;
                told.lost = if pass { 0.0 } else { change.lost() };
                Ok(())
            }
            // Nothing else begins then.
            Err(error @ MetricError::Stopped) => Err(TrialError::Refused(error.to_string())),
            Err(error) => Err(TrialError::Environment(error.into())),
        }
    }

    /// Why no other trial may begin, if none may.
    pub(crate) fn is_over(&self) -> Option<End> {
        if self.record.is_empty() { self.stopped() } else { self.cannot_afford(self.last) }
    }

    /// Why nothing may begin that takes this long: there has to be time for the verdict.
    pub(crate) fn cannot_afford(&self, cost: Duration) -> Option<End> {
        let fits = self.court.budget.allows(cost + self.reserve());
        self.stopped().or((!fits).then_some(End::OutOfTime))
    }

    fn stopped(&self) -> Option<End> {
        self.court.budget.is_stopped().then_some(End::Stopped)
    }

    /// What the verdict will take: one more run, and latency.
    pub(crate) fn reserve(&self) -> Duration {
        self.last.mul_f64(2.5) + self.latency_seconds()
    }

    /// What measuring latency takes at least.
    fn latency_seconds(&self) -> Duration {
        let config = self.court.config;
        let seconds = if config.measure_latency { config.latency.min_seconds } else { 0.0 };
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default() + STARTING_CLOCKS
    }
}

/// Writes a model under a plan.
pub(crate) fn carried_out(prepared: &Prepared, plan: &Plan, path: &Path) -> Result<(), String> {
    let (model, _) = prepared.apply(plan).map_err(|error| error.to_string())?;
    let staged = Staged::write(&model, path, SaveOptions::default());
    staged.and_then(Staged::commit).map_err(|error| error.to_string())
}

/// How many layers have each scheme.
pub(crate) fn schemes(plan: &Plan) -> BTreeMap<String, usize> {
    plan.layers.iter().fold(BTreeMap::new(), |mut counts, layer| {
        *counts.entry(layer.scheme.to_string()).or_default() += 1;
        counts
    })
}

#[cfg(test)]
mod tests {
    use modelopt_rewrite::Scheme;

    use super::*;
    use crate::budget::Stop;
    use crate::testing::{Bed, Layer};

    #[test]
    fn a_trial_is_judged_and_recorded() {
        let bed = Bed::of(&[Layer::Even; 2], 20.0);
        let plan = bed.plan(Scheme::INT8_WEIGHTS);
        bed.judge(&Stop::default(), |mut trials| {
            let told = trials.run(&plan, "a plan".to_owned()).unwrap();
            assert!(told.passes && told.excess < 1.0 && told.worst.is_some());
            let trial = &trials.record[0];
            assert_eq!(trial.what, "a plan");
            assert_eq!(trial.schemes, [("int8-weights".to_owned(), 2)].into());
            assert!(trial.pass && trial.bytes > 0 && trial.failure.is_none());
            // 20 dB are allowed: that is what the excess is relative to.
            let excess = 10f64.powf((20.0 - trial.sqnr_db.unwrap()) / 10.0);
            assert!((excess / told.excess - 1.0).abs() < 1e-6, "{excess} {told:?}");
        });
    }

    #[test]
    fn what_misses_a_limit_says_by_how_much() {
        let bed = Bed::of(&[Layer::Even; 2], 80.0);
        let plan = bed.plan(Scheme::INT8_WEIGHTS);
        bed.judge(&Stop::default(), |mut trials| {
            let told = trials.run(&plan, String::new()).unwrap();
            assert!(!told.passes && told.excess > 100.0, "{told:?}");
        });
    }

    #[test]
    fn a_plan_that_does_not_fit_is_a_trial_that_failed() {
        let bed = Bed::of(&[Layer::Even; 2], 20.0);
        let mut plan = bed.plan(Scheme::INT8_WEIGHTS);
        plan.layers[0].id = "somebody else's".to_owned();
        bed.judge(&Stop::default(), |mut trials| {
            let told = trials.run(&plan, String::new()).unwrap();
            assert_eq!(told, Evaluation::FAILED);
            let failure = trials.record[0].failure.as_ref().unwrap();
            assert!(failure.contains("somebody else's"), "{failure}");
        });
    }

    #[test]
    fn a_stop_is_over_before_the_first_trial() {
        let bed = Bed::of(&[Layer::Even], 20.0);
        let stop = Stop::default();
        bed.judge(&stop, |trials| {
            assert_eq!(trials.is_over(), None);
            stop.stop();
            assert_eq!(trials.is_over(), Some(End::Stopped));
        });
    }

    #[test]
    fn the_verdict_has_its_time_held_back() {
        let bed = Bed::of(&[Layer::Even], 20.0);
        bed.judge_within(Some(20.0), &Stop::default(), |mut trials| {
            trials.record.push(report::Trial::default());
            assert_eq!(trials.is_over(), None);
            trials.last = Duration::from_secs(10);
            assert!(trials.reserve() >= Duration::from_secs(25));
            assert_eq!(trials.is_over(), Some(End::OutOfTime));
        });
    }

    #[test]
    fn a_plan_is_written_as_it_is_run() {
        let bed = Bed::of(&[Layer::Even], 20.0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.onnx");
        let plan = bed.plan(Scheme::INT8_WEIGHTS);
        carried_out(&bed.prepared, &plan, &path).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > 0);
        let nowhere = folder.path().join("no such folder/out.onnx");
        assert!(carried_out(&bed.prepared, &plan, &nowhere).is_err());
    }
}

#[cfg(test)]
mod planted;
