//! What does not change from one candidate to the next, and how a candidate is made of a plan.

use std::path::Path;
use std::sync::Arc;

use modelopt_calibrate::Calibration;
use modelopt_graph::Model;
use modelopt_onnx::{SaveOptions, Staged};
use modelopt_report as report;
use modelopt_rewrite::{ExplainedPlan, Prepared, Scheme};
use modelopt_validate::{Limits, SizeChange};

use super::Outcome;
use super::course::Searched;
use crate::budget::Budget;
use crate::config::Config;
use crate::error::Error;
use crate::io_cast::IoCast;
use crate::meter::Meter;
use crate::provenance;
use crate::subject::Subject;
use crate::target::Ground;
use crate::transform::{self, Transformed};
use crate::validation;
use crate::warning::Warning;
use crate::{Progress, Step};

/// What does not change from one candidate to the next.
pub(super) struct Given<'a> {
    pub(super) subject: &'a Arc<Subject>,
    pub(super) output: &'a Path,
    pub(super) config: &'a Config,
    pub(super) limits: &'a Limits,
    pub(super) original: &'a Model,
    pub(super) original_bytes: u64,
    pub(super) prepared: &'a Prepared,
    /// What was observed of its tensors before.
    pub(super) calibration: Option<&'a Calibration>,
    pub(super) budget: &'a Budget,
}

impl<'a> Given<'a> {
    /// What evaluates the user's metric, if there is one.
    pub(super) fn meter(
        &self,
        ground: &Ground<'a>,
        plan: &ExplainedPlan,
    ) -> Result<Option<Meter<'a>>, Error> {
        let casting = plan.io.precision().map(|to| IoCast::of(self.original, to));
        let stop = self.budget.stop();
        validation::meter(
            self.subject.file(),
            self.original,
            &ground.rig,
            self.config,
            &stop,
            casting,
        )
    }

    /// The candidate under a plan, and how it is run.
    pub(super) fn made(
        &self,
        plan: ExplainedPlan,
        warnings: &mut Vec<Warning>,
    ) -> Result<(Transformed, Option<IoCast>), Error> {
        let made = transform::rewritten(self.original, self.prepared, plan, self.config)?;
        if made.unchanged {
            warnings.push(self.unchanged(&made));
        }
        warnings.extend(transform::format_warnings(self.original, &made));
        if self.config.plan.is_none() && made.plan.format != self.config.quant_format {
            warnings.push(Warning::UnusedQuantFormat);
        }
        warnings.extend(made.plan.layers.iter().find_map(|line| slow_on_processors(line.scheme)));
        let casting = made.plan.io.precision().map(|to| IoCast::of(self.original, to));
        Ok((made, casting))
    }

    /// Why a candidate is the model as it was given. An original that differs from run to run leaves
    /// nothing of a plan that depends on what it computes.
    fn unchanged(&self, made: &Transformed) -> Warning {
        let layers = made.plan.layers.len();
        if self.subject.is_unsteady {
            return Warning::KeptUnproven { layers };
        }
        Warning::NothingToDo { layers, narrow_already: made.narrow_already }
    }

    /// Writes a candidate beside the target.
    pub(super) fn staged(
        &self,
        mut made: Transformed,
        original: &report::ModelFile,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Outcome, Staged), Error> {
        if !made.unchanged {
            provenance::stamp(&mut made.model, original.blake3.clone(), &made.plan);
        }
        progress(Progress::Step(Step::WritingCandidate));
        let save = SaveOptions { external_data: self.config.external_data };
        // The candidate's weights are on disk then.
        let staged = Staged::write(&made.model, self.output, save)?;
        let size =
            SizeChange { original_bytes: self.original_bytes, candidate_bytes: staged.size() };
        let outcome = Outcome {
            emitted: false,
            unchanged: made.unchanged,
            plan: made.plan,
            weights: made.weights,
            size,
            samples: None,
            found_inputs: None,
            runs: Vec::new(),
            metric: None,
            verdict: None,
            culprits: Vec::new(),
            slow_layers: Vec::new(),
            alternative: None,
            trials: Vec::new(),
            search_end: None,
            sensitivity: Vec::new(),
            regions: Vec::new(),
            ranges: Vec::new(),
            warnings: Vec::new(),
            original: original.clone(),
            candidate: provenance::model_file(self.output, staged.path()),
        };
        Ok((outcome, staged))
    }

    /// The settings for judging what a search found: no longer than its time allows, and without
    /// latency where parity is known to fail.
    pub(super) fn judging(&self, searched: &Searched) -> Config {
        let mut config = self.config.clone();
        if let Some(left) = self.budget.left() {
            // Runs on either side of measuring take time, too.
            let most = left.as_secs_f64() * 0.5;
            config.latency.max_seconds = config.latency.max_seconds.min(most);
            config.latency.min_seconds = config.latency.min_seconds.min(most);
        }
        config.measure_latency &= searched.end.is_none() || searched.passes;
        config
    }
}

/// What is said of a scheme that computes in 16 bits.
fn slow_on_processors(scheme: Scheme) -> Option<Warning> {
    let precision = scheme.computes_in()?;
    Some(Warning::SlowOnProcessors { precision, stored: scheme.down() })
}
