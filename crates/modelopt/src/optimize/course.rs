//! A run under way: the plan is searched for, made, judged, and made anew where that is of use.

use modelopt_onnx::Staged;
use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, ExplainedPlan};
use modelopt_validate::Verdict;

use super::Outcome;
use super::given::Given;
use crate::config::{Config, Enforcement};
use crate::culprits::{self, Inquiry, Suspects};
use crate::error::Error;
use crate::evaluator::{self, Prover};
use crate::ground::Told;
use crate::io_cast::IoCast;
use crate::measure::{self, Cache};
use crate::meter::Meter;
use crate::planning::{self, Notes};
use crate::provenance;
use crate::ranges::SeenTensors;
use crate::regions;
use crate::search::tuning::Tuning;
use crate::search::{self, Found};
use crate::subject::Copy;
use crate::target::{self, Ground};
use crate::transform::{self, Hints, Transformed};
use crate::validation::{self, Candidate};
use crate::warning::Warning;
use crate::{Progress, Step};

/// A run under way.
pub(super) struct Course<'a> {
    pub(super) given: &'a Given<'a>,
    /// Whether models are run at all.
    pub(super) runs: bool,
    /// The original where it runs, once it does.
    pub(super) ground: Option<Ground<'a>>,
    pub(super) told: Told,
    pub(super) meter: Option<Meter<'a>>,
    pub(super) cache: Cache,
    /// What was seen of tensors, where ranges come into question.
    pub(super) tensors: SeenTensors,
    pub(super) warnings: Vec<Warning>,
    pub(super) searched: Searched,
}

/// What searching told, over all rounds.
#[derive(Default)]
pub(super) struct Searched {
    pub(super) trials: Vec<report::Trial>,
    pub(super) end: Option<report::SearchEnd>,
    pub(super) passes: bool,
    pub(super) sensitivity: Vec<report::Sensitivity>,
    pub(super) warnings: Vec<Warning>,
}

impl Searched {
    /// Takes in what a search found; gives its plan.
    pub(super) fn take(&mut self, found: Found) -> ExplainedPlan {
        self.trials.extend(found.trials);
        self.end = Some(found.end);
        self.passes = found.passes;
        if !found.sensitivity.is_empty() {
            self.sensitivity = found.sensitivity;
        }
        self.warnings.extend(found.warnings);
        found.plan
    }

    fn tell(&self, outcome: &mut Outcome) {
        outcome.trials.clone_from(&self.trials);
        outcome.search_end = self.end;
        outcome.sensitivity.clone_from(&self.sensitivity);
        outcome.warnings.extend(self.warnings.iter().cloned());
    }
}

/// A candidate as it was made, and how it takes what the original has in float32.
pub(super) type Made = (Transformed, Option<IoCast>);

impl Course<'_> {
    /// The plan to begin with.
    pub(super) fn start(
        &mut self,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ExplainedPlan, Error> {
        let given = self.given;
        if self.runs && planning::runs_the_model(given.config) {
            self.survey(progress)?;
        }
        let Some(ground) = &mut self.ground else {
            let mut hints = Hints::default();
            if let Some(calibration) = given.calibration {
                let tensors = rewrite::to_observe(given.prepared, &given.config.plan_options()?);
                let seen = SeenTensors::calibrated(given.prepared, &tensors, calibration, &[]);
                hints.observed = seen.observed();
            }
            return transform::planned(given.prepared, given.config, &hints);
        };
        let (cache, warnings) = (&mut self.cache, &mut self.warnings);
        let tensors = &mut self.tensors;
        let calibration = given.calibration;
        let mut notes = Notes { cache, warnings, tensors, calibration, budget: given.budget };
        let plan = planning::informed(
            given.original,
            given.prepared,
            ground,
            given.config,
            &mut notes,
            progress,
        )?;
        if plan.changed() > 0 {
            self.meter = given.meter(ground, &plan)?;
        }
        Ok(plan)
    }

    /// Runs the original, where it is not running and candidates are to be run.
    pub(super) fn prepare_for(
        &mut self,
        made: &Transformed,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let given = self.given;
        let is_late = self.ground.is_none() && !planning::runs_the_model(given.config);
        if !made.unchanged && self.runs && is_late {
            self.survey(progress)?;
            if let Some(ground) = &self.ground {
                self.meter = given.meter(ground, &made.plan)?;
            }
        }
        Ok(())
    }

    /// Runs the original; where it does not run, the settings may let that pass.
    fn survey(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
        let given = self.given;
        let survey =
            planning::survey(given.subject, given.original, given.prepared, given.config, progress);
        match survey {
            Ok((ground, mut heard)) => {
                self.warnings.append(&mut heard.warnings);
                (self.ground, self.told) = (Some(ground), heard);
                Ok(())
            }
            Err(error) if given.config.measure => Err(error),
            Err(error) => tolerate(error, given.config, &mut self.warnings),
        }
    }

    /// Says what the plan computes on integers, and how many samples that comes from.
    pub(super) fn describe(&self, outcome: &mut Outcome) {
        let (calibrating, judging) = self.ground.as_ref().map_or((&[][..], &[][..]), |ground| {
            (ground.calibrating.as_slice(), ground.samples.as_slice())
        });
        let seeing = if calibrating.is_empty() { judging } else { calibrating };
        let Given { prepared, config, .. } = self.given;
        let told = regions::described(prepared, &outcome.plan, config, (seeing, &self.tensors));
        (outcome.regions, outcome.ranges) = (told.regions, told.ranges);
        if let Some(samples) = &mut outcome.samples {
            samples.calibrating = Some(calibrating.len()).filter(|&count| count > 0);
        }
    }

    /// Candidates, one after the other, until one stands or there is none left to make.
    pub(super) fn rounds(
        &mut self,
        (mut made, mut casting): Made,
        mut of_plan: Vec<Warning>,
        original: &report::ModelFile,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Outcome, Staged), Error> {
        let given = self.given;
        let mut rounds = 0;
        loop {
            rounds += 1;
            let skip = made.unchanged || !self.runs;
            let (mut outcome, staged) = given.staged(made, original, progress)?;
            outcome.warnings = self.warnings.iter().chain(&of_plan).cloned().collect();
            if self.ground.is_some() {
                outcome.warnings.extend(given.subject.warnings.iter().cloned());
            }
            self.searched.tell(&mut outcome);
            if !skip && self.ground.is_some() && !given.budget.is_stopped() {
                self.judge_staged(&mut outcome, &staged, casting.as_ref(), progress)?;
            }
            if !skip && outcome.verdict.is_none() && !given.budget.is_stopped() {
                outcome.verdict = Some(validation::verdict(None, outcome.size, given.config));
            }
            // What turned out slow or pointless is planned again.
            let Some(next) = self.next(&outcome, rounds, progress)? else {
                outcome.trials.clone_from(&self.searched.trials);
                self.describe(&mut outcome);
                return Ok((outcome, staged));
            };
            drop(staged);
            of_plan.clear();
            (made, casting) = given.made(next.plan, &mut of_plan)?;
            if next.why.is_some() && made.unchanged {
                // Why nothing changes is said already.
                of_plan.clear();
            }
            of_plan.extend(next.why);
        }
    }

    /// Judges a candidate that was written, by a copy where it is run as one.
    fn judge_staged(
        &mut self,
        outcome: &mut Outcome,
        staged: &Staged,
        casting: Option<&IoCast>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let given = self.given;
        let known = self.searched.end.is_some() && !self.searched.passes;
        let copy = given.subject.copies().of_file(staged.path())?;
        let path = copy.as_ref().map_or(staged.path(), Copy::path);
        match self.judge(outcome, Candidate { path, casting, known }, progress) {
            // What was stopped has no verdict.
            Err(_) if given.budget.is_stopped() => Ok(()),
            Err(error) => tolerate(error, given.config, &mut outcome.warnings),
            Ok(()) => Ok(()),
        }
    }

    /// Runs both models everywhere, judges, and looks for what a refusal is due to.
    fn judge(
        &mut self,
        outcome: &mut Outcome,
        candidate: Candidate<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let given = self.given;
        let verdict = self.verdict(outcome, candidate, progress)?;
        let failed = |slow: bool| {
            verdict.failures().any(|c| c.name != "shrink" && (c.name == "slowdown") == slow)
        };
        if failed(false) {
            outcome.culprits = self.culprits(outcome, progress)?;
        }
        let may_keep = given.config.gate.max_slowdown.is_some_and(|limit| limit >= 1.0);
        let goes_down = given.config.searches() && may_keep && !failed(false);
        if failed(true) && !goes_down {
            self.look_for_slow_layers(outcome, !failed(false), progress)?;
        }
        if self.searched.end.is_some() {
            let trial = outcome.as_trial(&verdict);
            progress(Progress::Trial(Box::new(trial.clone())));
            self.searched.trials.push(trial.clone());
            outcome.trials.push(trial);
        }
        outcome.verdict = Some(verdict);
        Ok(())
    }

    /// The figures of both models on the target and everywhere else, against the limits.
    fn verdict(
        &mut self,
        outcome: &mut Outcome,
        candidate: Candidate<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Verdict, Error> {
        let given = self.given;
        let config = &given.judging(&self.searched);
        let Some(Ground { rig, samples, .. }) = &mut self.ground else {
            return Ok(validation::verdict(None, outcome.size, config));
        };
        outcome.samples = Some(target::summary(samples));
        if outcome.samples.is_some_and(|samples| samples.kind == report::SampleKind::Synthetic) {
            outcome.warnings.push(Warning::InventedInputs);
        }
        let target = validation::run_somewhere(rig, candidate, samples, config, progress)?;
        outcome.warnings.extend(target.failure.clone().map(Warning::CandidateFails));
        outcome.warnings.extend(rig.left_out());
        outcome.warnings.extend(rig.unsteady());
        let mut verdict = validation::verdict(Some(&target), outcome.size, config);
        if let (Some(meter), None) = (&mut self.meter, &target.failure) {
            progress(Progress::Step(Step::EvaluatingMetric));
            let plan = &outcome.plan;
            let write = |path: &std::path::Path| search::carried_out(given.prepared, plan, path);
            outcome.metric = Some(meter.measure(&provenance::plan_digest(plan), write)?);
            validation::add_metric(&mut verdict, outcome.metric.as_ref());
        }
        outcome.runs = vec![target];
        let others = validation::run_others(given.subject, candidate, samples, config, progress)?;
        outcome.runs.extend(others);
        Ok(verdict)
    }

    /// The layers that parity failed for; predicted ones where there is no time to measure.
    fn culprits(
        &mut self,
        outcome: &Outcome,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<modelopt_validate::Culprit>, Error> {
        let (given, tuning) = (self.given, Tuning::default());
        let ranked = self.searched.sensitivity.as_slice();
        let ground = self.ground.as_mut().filter(|_| given.budget.allows(tuning.culprits.reserve));
        let Some(Ground { rig, samples, .. }) = ground else {
            let mut culprits: Vec<_> = ranked.iter().filter_map(culprits::predicted).collect();
            culprits.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
            return Ok(culprits);
        };
        let worst = outcome.parity().and_then(evaluator::worst_sqnr).map(|(_, sample)| sample);
        let worst = worst.and_then(|name| samples.iter().position(|s| s.name == name));
        let suspects = match ranked {
            [] => Suspects::Weights(&outcome.weights),
            ranked => Suspects::Ranked(ranked),
        };
        let inquiry = Inquiry {
            prover: Prover::new(given.prepared, samples, rig, None),
            plan: &outcome.plan,
            sample: worst.unwrap_or(0),
            budget: given.budget,
            tuning: &tuning,
            progress,
        };
        inquiry.culprits(&suspects)
    }

    /// The layers that became slower, and whether a gentler scheme would not.
    fn look_for_slow_layers(
        &mut self,
        outcome: &mut Outcome,
        only_slow: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let given = self.given;
        let Some(Ground { rig, samples, .. }) = &mut self.ground else { return Ok(()) };
        let reserve = Tuning::default().culprits.reserve;
        let (Some(sample), true) = (samples.first(), given.budget.allows(reserve)) else {
            return Ok(());
        };
        let (plan, cache) = (&outcome.plan, &mut self.cache);
        outcome.slow_layers =
            measure::slow_layers(given.prepared, plan, sample, rig, cache, progress);
        if given.config.enforcement == Enforcement::Gate && only_slow {
            outcome.alternative = self.alternative(progress)?;
            outcome.trials.clone_from(&self.searched.trials);
        }
        Ok(())
    }
}

/// What cannot be proven is emitted only where the user said to emit whatever the verdict. Samples
/// that are not what the model takes are a mistake even then.
fn tolerate(error: Error, config: &Config, warnings: &mut Vec<Warning>) -> Result<(), Error> {
    if config.enforcement == Enforcement::Judge && !error.is_mistake() {
        warnings.push(Warning::Unproven { reason: error.to_string(), hint: error.hint() });
        return Ok(());
    }
    Err(error)
}
