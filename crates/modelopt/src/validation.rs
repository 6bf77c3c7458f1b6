//! Runs both models in every runtime that was asked for, and judges what the target says.

use std::path::Path;
use std::sync::Arc;

use modelopt_graph::Model;
use modelopt_report as report;
use modelopt_runtime::worker::Cost;
use modelopt_runtime::{RuntimeError, Sample, Session, graph_inputs};
use modelopt_validate::{
    CompareError, Footprint, LatencyComparison, Measurements, MetricChange, Origins, Parity,
    Reason, Side, SizeChange, Verdict, compare_latency, judge,
};

use crate::budget::Stop;
use crate::config::Config;
use crate::error::Error;
use crate::io_cast::IoCast;
use crate::meter::{LabelMetric, Meter, labelled};
use crate::overhead;
use crate::runtime_choice::{Engine, RuntimeChoice};
use crate::subject::Subject;
use crate::target::{self, Ready, Rig};
use crate::witness;
use crate::{Progress, Step};

/// The model that is judged.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    /// What is run for it: its file or a copy.
    pub(crate) path: &'a Path,
    /// How it takes and gives what the original has in float32, if in another type.
    pub(crate) casting: Option<&'a IoCast>,
    /// Whether it ran already and is not going to be emitted, so that nobody need know what it
    /// costs.
    pub(crate) known: bool,
}

impl Candidate<'_> {
    fn ready(&self, rig: &Rig<'_>, samples: &[Sample]) -> Result<Ready, RuntimeError> {
        if self.known {
            return Ok(Ready { session: rig.prepare(self.path)?, cost: None, how: None });
        }
        let Some(casting) = self.casting else { return rig.ready(self.path, samples) };
        rig.ready(self.path, &casting.samples(samples.get(..1).unwrap_or_default()))
    }

    /// The candidate with the values that are judged beside its outputs, if there are any.
    fn shown(&self, rig: &Rig<'_>) -> Result<Option<Box<dyn Session>>, RuntimeError> {
        let names = rig.witnesses();
        if names.is_empty() {
            return Ok(None);
        }
        // What cannot be written is judged by its outputs alone.
        let Ok(copy) = witness::copy_of(self.path, names) else { return Ok(None) };
        rig.prepare(copy.path()).map(Some)
    }
}

/// A run of the candidate that takes longer than this, in milliseconds, and so many times longer
/// than one of the original, is not waited for where another runtime may do better.
const ABSURD: (f64, f64) = (1000.0, 10.0);

/// What is absurd about how long the candidate takes, if anything.
fn absurdity(original: Option<Cost>, candidate: Option<Cost>) -> Option<String> {
    let (before, after) = (original?.run_ms?, candidate?.run_ms?);
    (after > ABSURD.0 && after > before * ABSURD.1)
        .then(|| format!("the candidate took {after:.0} ms there, the original {before:.0}"))
}

/// Both models in one runtime, or, where nobody named it, in the first of several in which the
/// candidate runs, and in reasonable time.
pub(crate) fn run_somewhere(
    rig: &mut Rig<'_>,
    candidate: Candidate<'_>,
    samples: &[Sample],
    config: &Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<report::Run, Error> {
    let mut first = None;
    loop {
        let run = run_both(rig, candidate, samples, config, progress)?;
        let Some(failure) = run.failure.clone() else { return Ok(run) };
        let first = first.get_or_insert(run);
        if !rig.moves_on(samples, &failure) {
            return Ok(first.clone());
        }
    }
}

/// Both models in one runtime: parity, latency, load time and memory. A candidate that does not
/// run is a run with a failure; an original that does not is an error.
pub(crate) fn run_both(
    rig: &mut Rig<'_>,
    candidate: Candidate<'_>,
    samples: &[Sample],
    config: &Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<report::Run, Error> {
    let mut run = report::Run {
        runtime: rig.used.clone(),
        original: rig.cost.filter(|_| config.measure_latency).and_then(footprint),
        ..report::Run::default()
    };
    progress(Progress::Step(Step::PreparingCandidate));
    let sample = samples.first().map_or("", |sample| &sample.name);
    let mut ready = match candidate.ready(rig, samples) {
        Ok(ready) => ready,
        Err(error) if error.is_of_machine() => return Err(error.into()),
        Err(error) => {
            run.failure = Some(failure(sample, &error));
            return Ok(run);
        }
    };
    if let Some(absurd) = absurdity(rig.cost, ready.cost)
        && rig.moves_on(samples, &absurd)
    {
        drop(ready);
        return run_both(rig, candidate, samples, config, progress);
    }
    run.runtime.how = ready.how.map(str::to_owned).or(run.runtime.how);
    run.candidate = ready.cost.filter(|_| config.measure_latency).and_then(footprint);
    progress(Progress::Step(Step::Comparing));
    let mut shown = match candidate.shown(rig) {
        Ok(shown) => shown,
        Err(error) => {
            run.failure = Some(failure(sample, &error));
            return Ok(run);
        }
    };
    let session = shown.as_mut().unwrap_or(&mut ready.session).as_mut();
    match compared(rig, candidate, session, samples, progress)? {
        Ok(parity) => run.parity = Some(parity),
        Err(failure) => {
            run.failure = Some(failure);
            return Ok(run);
        }
    }
    // What is not run as it will be has no time of its own.
    let measures = config.measure_latency && ready.how.is_none();
    if let (true, Some(sample)) = (measures, samples.first()) {
        progress(Progress::Step(Step::MeasuringLatency));
        run.latency = Some(timed(rig, candidate, ready.session, sample, config)?);
    }
    Ok(run)
}

/// How close a candidate comes on all samples, or how it fails; `session` shows what has to be seen to
/// tell.
fn compared(
    rig: &mut Rig<'_>,
    candidate: Candidate<'_>,
    session: &mut dyn Session,
    samples: &[Sample],
    progress: &mut dyn FnMut(Progress),
) -> Result<Result<Parity, String>, Error> {
    let mut seen = |done, total| progress(Progress::Part { done, total });
    let (mut references, profile, _) = rig.judging(samples);
    let compared = match candidate.casting {
        Some(casting) => {
            let mut cast = casting.clone().around(session);
            modelopt_validate::compare(&mut references, &mut cast, &profile, &mut seen)
        }
        None => modelopt_validate::compare(&mut references, session, &profile, &mut seen),
    };
    match compared {
        Ok(parity) => Ok(Ok(parity)),
        Err(CompareError::Run { side: Side::Candidate, sample, source }) => {
            Ok(Err(failure(&sample, &source)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The latency of a candidate beside the original's, on one sample.
fn timed(
    rig: &mut Rig<'_>,
    candidate: Candidate<'_>,
    session: Box<dyn Session>,
    sample: &Sample,
    config: &Config,
) -> Result<LatencyComparison, Error> {
    let mut session = rig.beside(session, candidate.path)?;
    let (original, inputs) = (rig.original.as_mut(), &sample.inputs);
    let (threads, options) = (config.threads, &config.latency);
    let mut latency = match candidate.casting {
        Some(casting) => {
            let mut called = casting.called(session.as_mut(), inputs);
            compare_latency(original, &mut called, inputs, threads, options)?
        }
        None => compare_latency(original, session.as_mut(), inputs, threads, options)?,
    };
    if config.gate.max_slowdown.is_some_and(|limit| latency.ratio_low > limit) {
        latency.call_ms = overhead::call_ms(rig, sample.inputs.len());
    }
    Ok(latency)
}

/// Both models in the runtimes that were named behind the target, one after the other. A runtime
/// that cannot run the original is a run with a failure.
pub(crate) fn run_others(
    original: &Arc<Subject>,
    candidate: Candidate<'_>,
    samples: &[Sample],
    config: &Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<report::Run>, Error> {
    let run = |engine: Engine| match Rig::new(engine.clone(), original, samples, config, "as asked")
    {
        Ok(mut rig) => {
            rig.look(Origins::default(), samples)?;
            run_both(&mut rig, candidate, samples, config, progress)
        }
        Err(error) => Ok(report::Run {
            runtime: target::unknown(&engine, config.threads),
            failure: Some(error.without_path()),
            ..report::Run::default()
        }),
    };
    config.runtime.engines().into_iter().skip(1).map(run).collect()
}

fn failure(sample: &str, error: &RuntimeError) -> String {
    format!("the candidate fails on sample '{sample}': {}", error.without_path())
}

fn footprint(cost: Cost) -> Option<Footprint> {
    Some(Footprint { load_ms: cost.load_ms, peak_bytes: cost.peak_bytes? })
}

/// The verdict on the target's figures.
pub(crate) fn verdict(target: Option<&report::Run>, size: SizeChange, config: &Config) -> Verdict {
    let judged = config.runtime != RuntimeChoice::Auto || config.judge_latency_anywhere;
    let latency = target.and_then(|run| run.latency.as_ref());
    let measured = Measurements {
        parity: target.and_then(|run| run.parity.as_ref()),
        size,
        latency: latency.filter(|_| judged),
    };
    let mut verdict = judge(&config.limits(), &measured);
    if let (false, Some(latency)) = (judged, latency) {
        for left in verdict.unjudged.iter_mut().filter(|left| left.name == "slowdown") {
            left.reason = Reason::NoTarget { slowdown: latency.ratio_median };
        }
    }
    if target.is_some_and(|run| run.runtime.how.is_some()) {
        for left in verdict.unjudged.iter_mut().filter(|left| left.name == "slowdown") {
            left.reason = "what was run is not what will be".to_owned().into();
        }
    }
    verdict.pass &= target.is_none_or(|run| run.failure.is_none());
    verdict
}

/// The user's metric beside the other figures.
pub(crate) fn add_metric(verdict: &mut Verdict, change: Option<&MetricChange>) {
    let Some(check) = change.map(MetricChange::check) else { return };
    verdict.pass &= check.pass;
    verdict.checks.insert(0, check);
}

/// What evaluates the user's metric, if there is one: in the target's runtime, where it has to run
/// models. `casting` is how candidates take what the original does.
pub(crate) fn meter<'a>(
    original: &'a Path,
    model: &Model,
    rig: &Rig<'a>,
    config: &'a Config,
    stop: &Stop,
    casting: Option<IoCast>,
) -> Result<Option<Meter<'a>>, Error> {
    Meter::new(config, original, stop, |labels| {
        let inputs: Vec<String> = graph_inputs(model).into_iter().map(|input| input.name).collect();
        let path = config.samples.as_deref().unwrap_or(Path::new(""));
        let samples = labelled(path, &inputs, labels)?;
        Ok(LabelMetric::new(rig.another_host()?, &labels.output, samples, casting))
    })
}

#[cfg(test)]
mod planted;
