//! Parity, latency and size of any two models.

use std::path::Path;
use std::sync::Arc;

use modelopt_onnx as onnx;
use modelopt_report as report;
use modelopt_validate::{MetricChange, Parity, SizeChange, Verdict};

use crate::budget::Stop;
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::found_inputs::FoundInputs;
use crate::ground::ground;
use crate::provenance;
use crate::resource_limits;
use crate::subject::{Copy, Subject};
use crate::target::{self, Ground};
use crate::validation;
use crate::warning::Warning;
use crate::{Progress, Step};

/// How two models compare.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Sizes, external data included.
    pub size: SizeChange,
    /// How many samples they ran on, and whether those were real.
    pub samples: report::Samples,
    /// What invented inputs had to be for the original to run, where the first guess was refused.
    pub found_inputs: Option<FoundInputs>,
    /// What each runtime said; the target first.
    pub runs: Vec<report::Run>,
    /// The user's own metric of both, if there is one.
    pub metric: Option<MetricChange>,
    /// The figures against the limits.
    pub verdict: Verdict,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    original: report::ModelFile,
    candidate: report::ModelFile,
}

/// Runs two models on the same samples and judges the second against the first.
pub fn compare(
    original: &Path,
    candidate: &Path,
    config: &Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<Compared, Error> {
    compare_until(original, candidate, config, &Stop::default(), progress)
}

/// [`compare`], with a handle that ends the user's metric early; the error is
/// [`crate::MetricError::Stopped`] then.
pub fn compare_until(
    original: &Path,
    candidate: &Path,
    config: &Config,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<Compared, Error> {
    config.check()?;
    progress(Progress::Step(Step::Loading));
    let model = onnx::load(original)?;
    let other = onnx::load(candidate)?;
    let inferred = resource_limits::check_loaded(&model)?;
    resource_limits::check_loaded(&other)?;
    let size = SizeChange {
        original_bytes: onnx::stored_size(original, &model)?,
        candidate_bytes: onnx::stored_size(candidate, &other)?,
    };
    progress(Progress::Step(Step::PreparingOriginal));
    let subject = Arc::new(Subject::new(original, &model, &[&other], config)?);
    let copy = subject.copies().of_file(candidate)?;
    let (Ground { rig: mut target, samples, .. }, told) = ground(&subject, &model, config)?;
    target.watch(&inferred, &samples)?;
    let path = copy.as_ref().map_or(candidate, Copy::path);
    let judged = validation::Candidate { path, casting: None, known: false };
    let run = validation::run_somewhere(&mut target, judged, &samples, config, progress)?;
    if let Some(failure) = &run.failure {
        return Err(ErrorKind::Candidate(failure.clone()).into());
    }
    let mut warnings = told.warnings;
    warnings.extend(subject.warnings.iter().cloned().chain(target.left_out()));
    warnings.extend(target.unsteady());
    let mut verdict = validation::verdict(Some(&run), size, config);
    let mut runs = vec![run];
    let mut meter = validation::meter(original, &model, &target, config, stop, None)?;
    let metric = meter.as_mut().map(|meter| {
        progress(Progress::Step(Step::EvaluatingMetric));
        meter.measure_file(candidate)
    });
    let metric = metric.transpose()?;
    validation::add_metric(&mut verdict, metric.as_ref());
    runs.extend(validation::run_others(&subject, judged, &samples, config, progress)?);
    Ok(Compared {
        size,
        samples: target::summary(&samples),
        found_inputs: told.found,
        runs,
        metric,
        verdict,
        warnings,
        original: provenance::model_file(original, original),
        candidate: provenance::model_file(candidate, candidate),
    })
}

impl Compared {
    /// How close the outputs are on the target.
    pub fn parity(&self) -> Option<&Parity> {
        self.runs.first()?.parity.as_ref()
    }

    /// The comparison as a report document. `say` words warnings: `Warning::to_string` does, and a
    /// program that has settings may name them.
    pub fn document(&self, say: impl Fn(&Warning) -> String) -> report::Document {
        report::Document {
            tool_version: crate::VERSION.to_owned(),
            command: "compare".to_owned(),
            original: self.original.clone(),
            candidate: Some(self.candidate.clone()),
            size: Some(self.size),
            samples: Some(self.samples),
            runs: self.runs.clone(),
            metric: self.metric.clone(),
            verdict: Some(self.verdict.clone()),
            warnings: self.warnings.iter().map(say).collect(),
            machine: Some(provenance::machine()),
            ..report::Document::default()
        }
    }
}

#[cfg(test)]
mod tests;
