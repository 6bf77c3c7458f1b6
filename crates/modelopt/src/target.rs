//! Where and on what the models run.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use modelopt_graph::Model;
use modelopt_onnx as onnx;
use modelopt_report as report;
use modelopt_runtime::worker::Cost;
use modelopt_runtime::{
    Attempt, FittingSamples, Runtime, RuntimeError, RuntimeKind, Sample, SampleKind, Session,
    SessionOptions, fit_samples, fitting_samples, graph_inputs, synthesize,
};
use modelopt_validate::{Accumulator, Kept, Origins, Parity, Profile, References, Tolerance};

use crate::config::Config;
use crate::emulation::StandIn;
use crate::error::{Error, ErrorKind};
use crate::runtime_choice::{Engine, RuntimeChoice};
use crate::subject::{Copies, Subject};
use crate::warning::Warning;
use crate::witness;

/// The embedded runtimes in the order in which a model is tried in them.
fn embedded(model: &Path) -> Vec<RuntimeKind> {
    let bytes = onnx::load(model).and_then(|loaded| onnx::stored_size(model, &loaded));
    RuntimeKind::embedded_for(bytes.unwrap_or_default())
}

/// A runtime with the original loaded and seen to run.
pub(crate) struct Rig<'a> {
    pub(crate) original: Box<dyn Session>,
    /// The original with values that are judged beside its outputs, if there are any.
    watched: Option<Box<dyn Session>>,
    kept: Kept,
    profile: Arc<Profile>,
    pub(crate) used: report::RuntimeUsed,
    /// What the original costs a process of its own, if it was loaded by one.
    pub(crate) cost: Option<Cost>,
    host: Host<'a>,
    /// The original, to be run elsewhere.
    subject: Arc<Subject>,
    /// The same with its types, if it is watched.
    watching: Option<Model>,
    /// Runtimes that were tried by default, and the one that is used.
    tried: Vec<RuntimeKind>,
}

/// Where validation starts: the target with the original running in it.
pub(crate) struct Ground<'a> {
    pub(crate) rig: Rig<'a>,
    /// What models are judged on.
    pub(crate) samples: Vec<Sample>,
    /// What ranges were taken from, where those are others.
    pub(crate) calibrating: Vec<Sample>,
}

/// A runtime and how it is used.
pub(crate) struct Host<'a> {
    engine: Engine,
    runtime: Box<dyn Runtime>,
    options: SessionOptions,
    /// How models are run here.
    pub(crate) copies: Copies,
    config: &'a Config,
    /// Whether what computes in 16 bits is run in float32 between roundings.
    emulates: bool,
    /// How long the last run of a model took here, in nanoseconds.
    took: AtomicU64,
}

/// A model that is ready to run.
pub(crate) struct Ready {
    pub(crate) session: Box<dyn Session>,
    pub(crate) cost: Option<Cost>,
    /// How it runs, where that is not as it would be run there.
    pub(crate) how: Option<&'static str>,
}

impl<'a> Host<'a> {
    pub(crate) fn new(
        engine: Engine,
        copies: &Copies,
        config: &'a Config,
    ) -> Result<Self, RuntimeError> {
        let options = config.session();
        let runtime = engine.open(&config.library_search(), config.worker.as_ref())?;
        // Who names a runtime wants to know what its own kernels give.
        let emulates = config.runtime == RuntimeChoice::Auto
            && !config.judge_latency_anywhere
            && engine.is_embedded();
        let copies = copies.clone();
        let took = AtomicU64::new(0);
        Ok(Host { engine, runtime, options, copies, config, emulates, took })
    }

    /// What is run in place of a model, if it is not run itself.
    fn stand_in(&self, model: &Path) -> Result<Option<StandIn>, RuntimeError> {
        match self.engine.kind() {
            Some(kind) if self.emulates => StandIn::of(model, kind),
            _ => Ok(None),
        }
    }

    /// Loads a model of which nobody knows whether it runs, and runs it on the first sample.
    fn ready(&self, model: &Path, samples: &[Sample]) -> Result<Ready, RuntimeError> {
        let inputs = samples.first().map(|sample| &sample.inputs);
        let stand_in = self.stand_in(model)?;
        let model = stand_in.as_ref().map_or(model, StandIn::path);
        let Attempt { session, cost } = self.runtime.attempt(model, &self.options, inputs)?;
        Ok(Ready { session, cost, how: stand_in.map(|stand_in| stand_in.how) })
    }

    /// Loads a model that was made from one that runs.
    pub(crate) fn prepare(&self, model: &Path) -> Result<Box<dyn Session>, RuntimeError> {
        let stand_in = self.stand_in(model)?;
        self.runtime.prepare(stand_in.as_ref().map_or(model, StandIn::path), &self.options)
    }

    /// The same where another model is, to be timed with it.
    fn prepare_beside(
        &self,
        other: &dyn Session,
        model: &Path,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        let stand_in = self.stand_in(model)?;
        let model = stand_in.as_ref().map_or(model, StandIn::path);
        self.runtime.prepare_beside(other, model, &self.options)
    }

    /// How long the last run that was noted took; nothing before there was one.
    pub(crate) fn took(&self) -> Duration {
        Duration::from_nanos(self.took.load(Ordering::Relaxed))
    }

    pub(crate) fn note_run(&self, took: Duration) {
        self.took.store(took.as_nanos() as u64, Ordering::Relaxed);
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
        let choice = self.engine.has_choices();
        report::RuntimeUsed {
            name: self.runtime.name().to_owned(),
            version: self.runtime.version(),
            library: self.runtime.library().map(report::FileName::from),
            provider: choice.then(|| self.options.provider.clone()),
            optimization: choice.then(|| self.options.optimization.name().to_owned()),
            threads: self.options.threads,
            reason,
            how: None,
        }
    }
}

impl<'a> Rig<'a> {
    pub(crate) fn new(
        engine: Engine,
        original: &Arc<Subject>,
        samples: &[Sample],
        config: &'a Config,
        reason: &str,
    ) -> Result<Self, RuntimeError> {
        let tried = engine.kind().into_iter().collect();
        let host = Host::new(engine, original.copies(), config)?;
        let ready = host.ready(original.path(), samples);
        let ready = ready.map_err(|error| error.about(original.file()))?;
        let Ready { session, cost, how } = ready;
        let used =
            report::RuntimeUsed { how: how.map(str::to_owned), ..host.used(reason.to_owned()) };
        Ok(Rig {
            original: original.named(session),
            watched: None,
            kept: Kept::default(),
            profile: Arc::default(),
            watching: None,
            used,
            cost,
            host,
            subject: Arc::clone(original),
            tried,
        })
    }

    /// Looks at what the original makes of the samples, so that candidates can be judged; `model` is
    /// the original with its types inferred. Values that are judged beside outputs are shown by a
    /// copy of it, if that runs.
    pub(crate) fn watch(&mut self, model: &Model, samples: &[Sample]) -> Result<(), Error> {
        self.watching = Some(model.clone());
        let mut origins = Origins::of(model);
        if !origins.witnesses().is_empty() {
            match self.show(model, origins.witnesses(), samples) {
                Ok(session) => self.watched = Some(session),
                Err(error) if error.is_of_machine() => return Err(error),
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
        let limit = self.host.config.limits().min_sqnr_db;
        let profile = self.references(samples).profile(origins)?.within(limit);
        self.profile = Arc::new(profile.clone());
        let again = self.again(samples)?;
        self.profile = Arc::new(profile.beside_itself(&again));
        Ok(())
    }

    /// The original against itself, in another run on the first sample.
    fn again(&mut self, samples: &[Sample]) -> Result<Parity, Error> {
        let mut parity = Accumulator::new(Arc::clone(&self.profile), Tolerance::default());
        if let Some(sample) = samples.first() {
            let session = self.watched.as_mut().unwrap_or(&mut self.original);
            let again = session.run(&sample.inputs)?;
            parity.add(&sample.name, false, &*self.references(samples).get(0)?, &again);
        }
        Ok(parity.finish())
    }

    /// What to say of an original that differs from itself.
    pub(crate) fn unsteady(&self) -> Option<Warning> {
        let outputs: Vec<(String, f64)> =
            self.profile.unsteady().map(|(name, db)| (name.to_owned(), db)).collect();
        (!outputs.is_empty()).then_some(Warning::Unsteady { outputs })
    }

    fn show(
        &self,
        model: &Model,
        names: &[String],
        samples: &[Sample],
    ) -> Result<Box<dyn Session>, Error> {
        let copy = witness::copy(&self.host.copies.of(model), names)?;
        let mut session = self.host.prepare(copy.path())?;
        if let Some(sample) = samples.first() {
            session.run(&sample.inputs)?;
        }
        Ok(session)
    }

    fn references<'s>(&'s mut self, samples: &'s [Sample]) -> References<'s> {
        self.judging(samples).0
    }

    /// A model as it is run here.
    pub(crate) fn copy_of<'m>(&self, model: &'m Model) -> Cow<'m, Model> {
        self.host.copies.of(model)
    }

    /// Names of values that are judged beside the outputs.
    pub(crate) fn witnesses(&self) -> &[String] {
        self.profile.witnesses()
    }

    /// What candidates are held against, and where they are loaded.
    pub(crate) fn judging<'s>(
        &'s mut self,
        samples: &'s [Sample],
    ) -> (References<'s>, Arc<Profile>, &'s Host<'a>) {
        let session = self.watched.as_mut().unwrap_or(&mut self.original);
        let references = References::new(session.as_mut(), samples, &mut self.kept);
        (references, Arc::clone(&self.profile), &self.host)
    }

    /// Goes on in another way after `why` a model could not be run here: with 16 bits emulated, or,
    /// where nobody named this runtime, in another one, the original too. Says whether there was one.
    pub(crate) fn moves_on(&mut self, samples: &[Sample], why: &str) -> bool {
        let config = self.host.config;
        let named = config.runtime != RuntimeChoice::Auto;
        // Whoever names a runtime that is not embedded means its kernels.
        let may_emulate = !named || self.host.engine.is_embedded();
        if !self.host.emulates && may_emulate {
            self.host.emulates = true;
            return true;
        }
        if named {
            return false;
        }
        let reason = format!("taken over from {}: {why}", self.used.name);
        for kind in embedded(self.subject.path()).into_iter().chain(RuntimeKind::by_library()) {
            if self.tried.contains(&kind) {
                continue;
            }
            self.tried.push(kind);
            let next = Rig::new(Engine::Registered(kind), &self.subject, samples, config, &reason);
            if let Ok(mut next) = next {
                next.tried.clone_from(&self.tried);
                if let Some(model) = &self.watching
                    && next.watch(model, samples).is_err()
                {
                    continue;
                }
                *self = next;
                return true;
            }
        }
        false
    }

    /// Moves on until a model that is to be judged runs, if it does anywhere.
    pub(crate) fn accommodate(&mut self, model: &Path, samples: &[Sample]) {
        while let Err(error) = self.host.ready(model, samples) {
            if error.is_of_machine() || !self.moves_on(samples, &error.without_path()) {
                return;
            }
        }
    }

    /// Loads another model into the same runtime, of which nobody knows whether it runs there.
    pub(crate) fn ready(&self, model: &Path, samples: &[Sample]) -> Result<Ready, RuntimeError> {
        self.host.ready(model, samples)
    }

    /// Loads a model that was made from one that runs, where the original is, so that both can be
    /// timed.
    pub(crate) fn prepare(&self, model: &Path) -> Result<Box<dyn Session>, RuntimeError> {
        self.host.prepare_beside(self.original.as_ref(), model)
    }

    /// A model that runs, to be timed with the original: loaded once more where it is in another
    /// worker.
    pub(crate) fn beside(
        &self,
        session: Box<dyn Session>,
        model: &Path,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        if session.seat().is_none() {
            return Ok(session);
        }
        drop(session);
        self.prepare(model)
    }

    /// The same runtime once more, for who has to outlive this.
    pub(crate) fn another_host(&self) -> Result<Host<'a>, RuntimeError> {
        Host::new(self.host.engine.clone(), &self.host.copies, self.host.config)
    }

    /// The original, and where other models are loaded beside it.
    pub(crate) fn parts(&mut self) -> (&mut dyn Session, &Host<'a>) {
        (self.original.as_mut(), &self.host)
    }

    /// Where models are loaded.
    pub(crate) fn host(&self) -> &Host<'a> {
        &self.host
    }

    /// What the runtime cannot return.
    pub(crate) fn left_out(&self) -> Option<Warning> {
        let (runtime, outputs) = (self.used.name.clone(), self.original.left_out().to_vec());
        let elsewhere =
            RuntimeKind::broadest().filter(|broadest| Some(*broadest) != self.host.engine.kind());
        let left_out = !outputs.is_empty();
        left_out.then_some(Warning::NotReturned { runtime, outputs, elsewhere })
    }

    /// What tells measurements apart: runtime, version and settings.
    pub(crate) fn key(&self) -> String {
        let SessionOptions { threads, optimization, provider } = &self.host.options;
        let report::RuntimeUsed { name, version, .. } = &self.used;
        // Who brings a runtime may call it like another one.
        let whose = if self.host.engine.kind().is_some() { "" } else { "custom " };
        format!("{whose}{name} {version} {provider} {} threads={threads}", optimization.name())
    }
}

/// The samples to run, and what is odd about them: the user's, which must be what the model takes,
/// or invented ones.
pub(crate) fn samples(model: &Model, config: &Config) -> Result<FittingSamples, Error> {
    if let Some(given) = &config.given_samples {
        return Ok(fit_samples(given.to_vec(), &graph_inputs(model))?);
    }
    if let Some(path) = &config.samples {
        return Ok(fitting_samples(path, &graph_inputs(model))?);
    }
    let samples = synthesize(model, &config.synthesis()?)?;
    Ok(FittingSamples { samples, oddities: Vec::new() })
}

/// The target with the original running in it: the first runtime that was named, or of the
/// embedded ones the first that runs it and returns all of its outputs, but for those that are left
/// out; one whose library is found where none does.
pub(crate) fn target<'a>(
    original: &Arc<Subject>,
    samples: &[Sample],
    config: &'a Config,
    left_out: &[&str],
) -> Result<Rig<'a>, Error> {
    if config.runtime != RuntimeChoice::Auto {
        let engines = config.runtime.engines();
        let reason = if engines.len() > 1 { "the target, named first" } else { "as asked" };
        let Some(engine) = engines.into_iter().next() else {
            return Err(ErrorKind::NoRuntime(Vec::new()).into());
        };
        return Ok(Rig::new(engine, original, samples, config, reason)?);
    }
    let mut failures: Vec<RuntimeError> = Vec::new();
    // What runs the original, but cannot return all of its outputs.
    let mut partial: Option<Rig<'_>> = None;
    let mut tried = Vec::new();
    let search = config.library_search();
    let found = RuntimeKind::by_library().filter(|kind| kind.find_library(&search).is_ok());
    let kinds = embedded(original.path()).into_iter().chain(found);
    for kind in kinds.filter(|kind| !left_out.contains(&kind.name())) {
        let reason = match (failures.as_slice(), &partial) {
            ([], None) => "the default, and it runs the original".to_owned(),
            ([], Some(rig)) => format!("{} cannot return all outputs", rig.used.name),
            (failures, _) => {
                failures.iter().map(RuntimeError::without_path).collect::<Vec<_>>().join("; ")
            }
        };
        tried.push(kind);
        match Rig::new(Engine::Registered(kind), original, samples, config, &reason) {
            Ok(rig) if rig.original.left_out().is_empty() => {
                return Ok(Rig { tried, ..rig });
            }
            Ok(rig) => partial = partial.or(Some(rig)),
            // Others would fare no better.
            Err(failure) if failure.is_of_machine() => return Err(failure.into()),
            Err(failure) => failures.push(failure),
        }
    }
    partial.ok_or_else(|| ErrorKind::NoRuntime(failures).into())
}

/// A runtime of which nothing is known but that it was asked for.
pub(crate) fn unknown(engine: &Engine, threads: usize) -> report::RuntimeUsed {
    let name = engine.name().to_owned();
    report::RuntimeUsed { name, threads, ..report::RuntimeUsed::default() }
}

/// Names and shapes of a sample's inputs.
pub(crate) fn shapes(sample: &Sample) -> impl Iterator<Item = (String, Vec<usize>)> {
    sample.inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()))
}

/// How many samples there are, and where they came from.
pub(crate) fn summary(samples: &[Sample]) -> report::Samples {
    let synthetic = samples.iter().filter(|s| s.kind == SampleKind::Synthetic).count();
    let kind = match synthetic {
        0 => report::SampleKind::Real,
        count if count == samples.len() => report::SampleKind::Synthetic,
        _ => report::SampleKind::Mixed,
    };
    report::Samples { kind, count: samples.len(), calibrating: None }
}

#[cfg(test)]
pub(crate) mod planted;

#[cfg(test)]
mod tests;
