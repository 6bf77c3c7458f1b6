//! Where and on what the models run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelopt_graph::Model;
use modelopt_report as report;
use modelopt_runtime::worker::{Cost, Trial};
use modelopt_runtime::{
    FittingSamples, Runtime, RuntimeError, RuntimeKind, Sample, SampleKind, Session,
    SessionOptions, find_onnxruntime, fitting_samples, graph_inputs, runtime, synthesize,
};
use modelopt_validate::{Kept, Origins, Profile, References};

use crate::config::{Config, RuntimeChoice};
use crate::error::{Error, ErrorKind};
use crate::subject::{Copies, Subject};
use crate::witness;

/// A runtime with the original loaded and seen to run.
pub(crate) struct Bench<'a> {
    pub(crate) original: Box<dyn Session>,
    /// The original with values that are judged beside its outputs, if there are any.
    watched: Option<Box<dyn Session>>,
    kept: Kept,
    profile: Arc<Profile>,
    pub(crate) used: report::RuntimeUsed,
    /// What the original costs a process of its own, if a child tried it.
    pub(crate) cost: Option<Cost>,
    place: Place<'a>,
}

/// Where validation starts: the target with the original running in it.
pub(crate) struct Ground<'a> {
    pub(crate) bench: Bench<'a>,
    pub(crate) samples: Vec<Sample>,
}

/// A runtime and how it is used.
pub(crate) struct Place<'a> {
    kind: RuntimeKind,
    runtime: Box<dyn Runtime>,
    library: Option<PathBuf>,
    options: SessionOptions,
    /// How models are run here.
    pub(crate) copies: Copies,
    config: &'a Config,
}

/// A model that is ready to run.
pub(crate) struct Ready {
    pub(crate) session: Box<dyn Session>,
    pub(crate) cost: Option<Cost>,
}

impl<'a> Place<'a> {
    fn new(kind: RuntimeKind, copies: &Copies, config: &'a Config) -> Result<Self, RuntimeError> {
        let options = config.session();
        let library = match kind {
            RuntimeKind::Onnxruntime => Some(find_onnxruntime(&config.library_search())?),
            _ => None,
        };
        if let (Some(worker), Some(library)) = (&config.worker, &library) {
            // A damaged library can take the process down.
            worker.attempt(&Trial {
                runtime: kind,
                library: Some(library),
                model: None,
                options: &options,
                inputs: None,
            })?;
        }
        let runtime = runtime(kind, library.as_deref())?;
        Ok(Place { kind, runtime, library, options, copies: copies.clone(), config })
    }

    /// Loads a model and runs it on the first sample: first in a child, if there may be one.
    fn ready(&self, model: &Path, samples: &[Sample]) -> Result<Ready, RuntimeError> {
        let inputs = samples.first().map(|sample| &sample.inputs);
        let trial = Trial {
            runtime: self.kind,
            library: self.library.as_deref(),
            model: Some(model),
            options: &self.options,
            inputs,
        };
        let worker = self.config.worker.as_ref();
        let cost = worker.map(|worker| worker.attempt(&trial)).transpose()?.flatten();
        let mut session = self.runtime.prepare(model, &self.options)?;
        if let (None, Some(inputs)) = (cost, inputs) {
            session.run(inputs)?;
        }
        Ok(Ready { session, cost })
    }

    /// Loads a model that was made from one that runs, without a child.
    pub(crate) fn prepare(&self, model: &Path) -> Result<Box<dyn Session>, RuntimeError> {
        self.runtime.prepare(model, &self.options)
    }

    /// How many runs fit beside each other on this machine.
    pub(crate) fn idle_cores(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        match self.options.threads {
            0 => 1,
            threads => cores / threads,
        }
    }

    fn used(&self, reason: String) -> report::RuntimeUsed {
        let choice = self.kind == RuntimeKind::Onnxruntime;
        report::RuntimeUsed {
            name: self.runtime.name().to_owned(),
            version: self.runtime.version(),
            library: self.runtime.library().map(report::FileName::from),
            provider: choice.then(|| self.options.provider.clone()),
            optimization: choice.then(|| self.options.optimization.name().to_owned()),
            threads: self.options.threads,
            reason,
        }
    }
}

impl<'a> Bench<'a> {
    pub(crate) fn new(
        kind: RuntimeKind,
        original: &Subject,
        samples: &[Sample],
        config: &'a Config,
        reason: &str,
    ) -> Result<Self, RuntimeError> {
        let place = Place::new(kind, original.copies(), config)?;
        let ready = place.ready(original.path(), samples);
        let Ready { session, cost } = ready.map_err(|error| error.about(original.file()))?;
        let used = place.used(reason.to_owned());
        Ok(Bench {
            original: original.named(session),
            watched: None,
            kept: Kept::default(),
            profile: Arc::default(),
            used,
            cost,
            place,
        })
    }

    /// Looks at what the original makes of the samples, so that candidates can be judged; `model` is
    /// the original with its types inferred. Values that are judged beside outputs are shown by a
    /// copy of it, if that runs.
    pub(crate) fn watch(&mut self, model: &Model, samples: &[Sample]) -> Result<(), Error> {
        let mut origins = Origins::of(model);
        if !origins.witnesses().is_empty() {
            match self.show(model, origins.witnesses(), samples) {
                Ok(session) => self.watched = Some(session),
                Err(error) => {
                    tracing::info!(%error, "what outputs are chosen by is not seen");
                    origins = origins.without_witnesses();
                }
            }
        }
        self.look(origins, samples)
    }

    /// The same of an original of which nothing but its file is known.
    pub(crate) fn look(&mut self, origins: Origins, samples: &[Sample]) -> Result<(), Error> {
        let limit = self.place.config.gate.min_sqnr_db;
        self.profile = Arc::new(self.references(samples).profile(origins)?.within(limit));
        Ok(())
    }

    fn show(
        &self,
        model: &Model,
        names: &[String],
        samples: &[Sample],
    ) -> Result<Box<dyn Session>, Error> {
        let copy = witness::copy(&self.place.copies.of(model), names)?;
        let mut session = self.place.prepare(copy.path())?;
        if let Some(sample) = samples.first() {
            session.run(&sample.inputs)?;
        }
        Ok(session)
    }

    fn references<'s>(&'s mut self, samples: &'s [Sample]) -> References<'s> {
        let session = self.watched.as_mut().unwrap_or(&mut self.original);
        References::new(session.as_mut(), samples, &mut self.kept)
    }

    /// Names of values that are judged beside the outputs.
    pub(crate) fn witnesses(&self) -> &[String] {
        self.profile.witnesses()
    }

    /// What candidates are held against, and where they are loaded.
    pub(crate) fn judging<'s>(
        &'s mut self,
        samples: &'s [Sample],
    ) -> (References<'s>, Arc<Profile>, &'s Place<'a>) {
        let session = self.watched.as_mut().unwrap_or(&mut self.original);
        let references = References::new(session.as_mut(), samples, &mut self.kept);
        (references, Arc::clone(&self.profile), &self.place)
    }

    /// Loads another model into the same runtime, after a child survived it.
    pub(crate) fn ready(&self, model: &Path, samples: &[Sample]) -> Result<Ready, RuntimeError> {
        self.place.ready(model, samples)
    }

    /// Loads a model that was made from one that runs, without a child.
    pub(crate) fn prepare(&self, model: &Path) -> Result<Box<dyn Session>, RuntimeError> {
        self.place.prepare(model)
    }

    /// The original, and where other models are loaded beside it.
    pub(crate) fn parts(&mut self) -> (&mut dyn Session, &Place<'a>) {
        (self.original.as_mut(), &self.place)
    }

    /// What the runtime cannot return, in words.
    pub(crate) fn left_out(&self) -> Option<String> {
        let left = self.original.left_out();
        let outputs = left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let name = &self.used.name;
        let elsewhere = match self.place.kind {
            RuntimeKind::Onnxruntime => "",
            _ => "; --runtime onnxruntime may return more",
        };
        (!left.is_empty())
            .then(|| format!("not compared, because {name} cannot return it: {outputs}{elsewhere}"))
    }

    /// What tells measurements apart: runtime, version and settings.
    pub(crate) fn key(&self) -> String {
        let SessionOptions { threads, optimization, provider } = &self.place.options;
        let report::RuntimeUsed { name, version, .. } = &self.used;
        format!("{name} {version} {provider} {} threads={threads}", optimization.name())
    }
}

/// The samples to run, and what is odd about them: the user's, which must be what the model takes,
/// or invented ones.
pub(crate) fn samples(model: &Model, config: &Config) -> Result<FittingSamples, Error> {
    match &config.samples {
        Some(path) => Ok(fitting_samples(path, &graph_inputs(model))?),
        None => {
            let samples = synthesize(model, &config.synthesis()?)?;
            Ok(FittingSamples { samples, warnings: Vec::new() })
        }
    }
}

/// The target with the original running in it: the first runtime that was named, or of the
/// embedded ones the first that runs it, but for those that are left out.
pub(crate) fn target<'a>(
    original: &Subject,
    samples: &[Sample],
    config: &'a Config,
    left_out: &[&str],
) -> Result<Bench<'a>, Error> {
    if let RuntimeChoice::Named(kinds) = &config.runtime {
        let reason = if kinds.len() > 1 { "the target, named first" } else { "as asked" };
        let kind = kinds.first().copied().unwrap_or_default();
        return Ok(Bench::new(kind, original, samples, config, reason)?);
    }
    let mut failures: Vec<RuntimeError> = Vec::new();
    // What runs the original, but cannot return all of its outputs.
    let mut partial: Option<Bench<'_>> = None;
    let kinds = [RuntimeKind::Tract, RuntimeKind::Rten];
    for kind in kinds.into_iter().filter(|kind| !left_out.contains(&kind.name())) {
        let reason = match (failures.first(), &partial) {
            (Some(failure), _) => without_path(failure),
            (None, Some(bench)) => format!("{} cannot return all outputs", bench.used.name),
            (None, None) => "the default, and it runs the original".to_owned(),
        };
        match Bench::new(kind, original, samples, config, &reason) {
            Ok(bench) if bench.original.left_out().is_empty() => return Ok(bench),
            Ok(bench) => partial = partial.or(Some(bench)),
            Err(failure) => failures.push(failure),
        }
    }
    partial.ok_or_else(|| ErrorKind::NoRuntime(failures).into())
}

/// A runtime of which nothing is known but that it was asked for.
pub(crate) fn unknown(kind: RuntimeKind, threads: usize) -> report::RuntimeUsed {
    let name = kind.name().to_owned();
    report::RuntimeUsed { name, threads, ..report::RuntimeUsed::default() }
}

/// Names and shapes of a sample's inputs.
pub(crate) fn shapes(sample: &Sample) -> impl Iterator<Item = (String, Vec<usize>)> {
    sample.inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()))
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
        RuntimeError::Died { runtime, message, .. } => {
            format!("{runtime} does not survive it: {message}")
        }
        RuntimeError::Library { path, message } => {
            format!("cannot load {}: {message}", report::FileName::from(path.as_path()).as_str())
        }
        other => other.to_string(),
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
