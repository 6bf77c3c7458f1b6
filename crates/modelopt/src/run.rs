//! Where and on what the models run.

use std::path::Path;

use modelopt_graph::Model;
use modelopt_report as report;
use modelopt_runtime::{
    Runtime, RuntimeError, Sample, SampleKind, Session, SessionOptions, graph_inputs, load_samples,
    runtime, synthesize,
};

use crate::config::Config;
use crate::error::{Error, ErrorKind};

/// The runtime that ran, and why it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Name.
    pub runtime: &'static str,
    /// Version.
    pub version: String,
    /// Why this one.
    pub reason: String,
    /// Threads it could use; 0 for all of the machine.
    pub threads: usize,
}

/// A runtime with the original loaded and seen to run.
pub(crate) struct Bench {
    pub(crate) runtime: Box<dyn Runtime>,
    pub(crate) original: Box<dyn Session>,
    pub(crate) ran: Ran,
    options: SessionOptions,
}

impl Bench {
    /// Loads another model into the same runtime.
    pub(crate) fn prepare(&self, model: &Path) -> Result<Box<dyn Session>, RuntimeError> {
        self.runtime.prepare(model, &self.options)
    }
}

/// The samples to run: the user's, or invented ones.
pub(crate) fn samples(model: &Model, config: &Config) -> Result<Vec<Sample>, Error> {
    match &config.samples {
        Some(path) => {
            let names: Vec<String> =
                graph_inputs(model).into_iter().map(|input| input.name).collect();
            Ok(load_samples(path, &names)?)
        }
        None => Ok(synthesize(model, &config.synthesis()?)?),
    }
}

/// The first runtime of the choice that runs the original on the first sample.
pub(crate) fn bench(original: &Path, samples: &[Sample], config: &Config) -> Result<Bench, Error> {
    let options = SessionOptions { threads: config.threads };
    let candidates = config.runtime.candidates();
    let mut failures: Vec<RuntimeError> = Vec::new();
    for &kind in candidates {
        let attempt = runtime(kind).and_then(|runtime| {
            let mut session = runtime.prepare(original, &options)?;
            if let Some(sample) = samples.first() {
                session.run(&sample.inputs)?;
            }
            Ok((runtime, session))
        });
        match attempt {
            Ok((runtime, session)) => {
                let reason = match failures.first() {
                    Some(failure) => without_path(failure),
                    None if candidates.len() > 1 => "the default, and it runs the original".into(),
                    None => "as asked".to_owned(),
                };
                let ran = Ran {
                    runtime: runtime.name(),
                    version: runtime.version(),
                    reason,
                    threads: options.threads,
                };
                return Ok(Bench { runtime, original: session, ran, options });
            }
            Err(failure) => failures.push(failure),
        }
    }
    match (failures.len(), failures.pop()) {
        (1, Some(failure)) => Err(failure.into()),
        (_, last) => {
            failures.extend(last);
            Err(ErrorKind::NoRuntime(failures).into())
        }
    }
}

/// What a runtime said of the model, for reports: they travel, so they do not say where it lies.
pub(crate) fn without_path(error: &RuntimeError) -> String {
    match error {
        RuntimeError::Load { runtime, message, .. } => {
            format!("{runtime} cannot load it: {message}")
        }
        RuntimeError::Run { runtime, message, .. } => format!("{runtime} cannot run it: {message}"),
        RuntimeError::Panicked { runtime, stage, message, .. } => {
            format!("{runtime} panicked while {stage} it: {message}")
        }
        other => other.to_string(),
    }
}

impl Ran {
    pub(crate) fn used(&self) -> report::RuntimeUsed {
        report::RuntimeUsed {
            name: format!("{} {}", self.runtime, self.version),
            reason: self.reason.clone(),
        }
    }
}

/// How many samples there are, and where they came from.
pub(crate) fn summary(samples: &[Sample]) -> report::Samples {
    let synthetic = samples.iter().filter(|s| s.kind == SampleKind::Synthetic).count();
    let kind = match synthetic {
        0 => report::SampleKind::Real,
        count if count == samples.len() => report::SampleKind::Synthetic,
        _ => report::SampleKind::Mixed,
    };
    report::Samples { kind, count: samples.len() }
}
