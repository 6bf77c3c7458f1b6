//! Plans that running the model tells something: how long its layers take, what flows through it,
//! and what rounding does to its outputs.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use modelopt_calibrate::Calibration;
use modelopt_graph::Model;
use modelopt_onnx as onnx;
use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, ExplainedPlan, ObservedTensor, Prepared, Scheme};
use modelopt_runtime::Sample;

use crate::budget::{Budget, Stop};
use crate::calibrate;
use crate::config::{Config, Smoothing};
use crate::error::{Error, ErrorKind};
use crate::evaluator::Prover;
use crate::ground::{Told, ground};
use crate::io_cast::IoCast;
use crate::measure::{self, Cache};
use crate::patience::Patience;
use crate::ranges::SeenTensors;
use crate::regions;
use crate::resource_limits;
use crate::scratch::Scratch;
use crate::search::{self, Court, Trials, mixing, tuning::Tuning};
use crate::sensitivity;
use crate::subject::Subject;
use crate::target::{self, Ground, Rig};
use crate::transform::{self, Hints, Measurements};
use crate::warning::Warning;
use crate::{Progress, Step};

/// What is kept of planning besides the plan, and what bounds it.
pub(crate) struct Notes<'a> {
    pub(crate) cache: &'a mut Cache,
    pub(crate) warnings: &'a mut Vec<Warning>,
    /// What was seen of tensors.
    pub(crate) tensors: &'a mut SeenTensors,
    /// What was observed of them before.
    pub(crate) calibration: Option<&'a Calibration>,
    /// How long it may take.
    pub(crate) budget: &'a Budget,
}

/// Whether the plan depends on what the model does when it runs.
pub(crate) fn runs_the_model(config: &Config) -> bool {
    let of_values = |scheme: Scheme| scheme.is_sixteen() || scheme.needs_ranges();
    let looks = config.scheme.is_some_and(of_values);
    config.plan.is_none() && (config.measure || looks || smooths(config) || config.searches())
}

/// Whether plans are smoothed without a search.
fn smooths(config: &Config) -> bool {
    config.search.smoothing == Smoothing::On
        && config.plan.is_none()
        && config.scheme.is_none_or(Scheme::is_int8)
}

/// The plan for a prepared model, with the original running. A given plan is not changed.
pub(crate) fn informed(
    original: &Model,
    prepared: &Prepared,
    ground: &mut Ground<'_>,
    config: &Config,
    notes: &mut Notes<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<ExplainedPlan, Error> {
    let mut hints = Hints::default();
    if config.measure {
        hints.measured = measure_layers(prepared, ground, config, notes, progress);
    }
    hints.observed = observed(prepared, ground, config, notes, progress)?;
    let Ground { rig, samples, calibrating } = ground;
    if let Some(to) = config.computes_in() {
        let rounding = (to, config.min_rounding_sqnr_db);
        let seen = calibrate::activations(prepared, rounding, samples, rig.parts().1, progress);
        hints.unfit = seen.unfit;
        notes.warnings.extend(seen.warning);
    }
    let mut plan = transform::planned(prepared, config, &hints)?;
    if smooths(config) {
        let real = target::summary(samples).kind == report::SampleKind::Real;
        let prover = Prover::new(prepared, samples, rig, None);
        // Ranges go with what is refined, and come from other samples than those that judge.
        let seeing: &[Sample] = if calibrating.is_empty() { samples } else { calibrating };
        return match sensitivity::statistics_on(&prover, &plan, seeing, progress) {
            Ok(seen) => {
                prepared.improve(&mut plan, &seen, search::improvements(config, real));
                Ok(plan)
            }
            Err(why) => {
                notes.warnings.push(Warning::NotSmoothed { reason: why });
                Ok(plan)
            }
        };
    }
    if !config.scheme.is_some_and(Scheme::is_sixteen) {
        return Ok(plan);
    }
    let casting = plan.io.precision().map(|to| IoCast::of(original, to));
    let first = casting.as_ref().map(|casting| casting.samples(samples));
    accommodate(prepared, &plan, first.as_deref().unwrap_or(samples), rig);
    let patience = Patience::of(rig, config);
    let prover = Prover::new(prepared, samples, rig, casting.as_ref());
    let limits = mixing::limits(&config.gate);
    let (budget, original_bytes, meter) = (notes.budget, 0, None);
    let court = Court { config, limits: &limits, budget, original_bytes, meter, progress };
    mixing::mixed(&plan, Trials::new(prover, court), &patience, &Tuning::default())
}

/// What is in the tensors that layers could take by ranges.
fn observed(
    prepared: &Prepared,
    ground: &Ground<'_>,
    config: &Config,
    notes: &mut Notes<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<HashMap<String, ObservedTensor>, Error> {
    let tensors = if config.plan.is_none() {
        rewrite::to_observe(prepared, &config.plan_options()?)
    } else {
        Vec::new()
    };
    let Ground { rig, samples, calibrating } = ground;
    let seeing = if calibrating.is_empty() { samples } else { calibrating };
    if tensors.is_empty() {
        return Ok(HashMap::new());
    }
    if let Some(calibration) = notes.calibration {
        *notes.tensors = SeenTensors::calibrated(prepared, &tensors, calibration, samples);
        return Ok(notes.tensors.observed());
    }
    if !wants_ranges(config, seeing) {
        notes.warnings.push(Warning::RangesNeedSamples);
        return Ok(HashMap::new());
    }
    if !is_real(seeing) {
        notes.warnings.push(Warning::InventedRanges);
    }
    match SeenTensors::of(prepared, &tensors, seeing, rig.host(), progress) {
        Ok(seen) => *notes.tensors = seen,
        Err(reason) => notes.warnings.push(Warning::UnknownRanges { reason }),
    }
    Ok(notes.tensors.observed())
}

fn is_real(samples: &[Sample]) -> bool {
    target::summary(samples).kind == report::SampleKind::Real
}

/// Whether tensors are to be observed, so that layers can take them by ranges: ranges of invented inputs
/// say nothing of real ones, unless somebody asks for them.
fn wants_ranges(config: &Config, samples: &[Sample]) -> bool {
    match config.scheme {
        Some(scheme) => scheme.needs_ranges(),
        None => config.plan.is_none() && is_real(samples),
    }
}

/// How many samples there must be for some of them to be kept for judging.
const FEWEST_TO_SPLIT: usize = 4;

/// Sets samples apart that ranges are taken from, so that models are judged on others: every second
/// one, because neighbours tend to be alike.
fn set_apart(ground: &mut Ground<'_>) {
    if ground.samples.len() < FEWEST_TO_SPLIT {
        return;
    }
    let all = std::mem::take(&mut ground.samples).into_iter().enumerate();
    let (calibrating, judging): (Vec<_>, Vec<_>) = all.partition(|(place, _)| place % 2 == 0);
    let plain = |samples: Vec<(usize, Sample)>| samples.into_iter().map(|(_, s)| s).collect();
    (ground.calibrating, ground.samples) = (plain(calibrating), plain(judging));
}

/// Lets the rig move on to where what a plan makes of the model runs.
fn accommodate(prepared: &Prepared, plan: &ExplainedPlan, samples: &[Sample], rig: &mut Rig<'_>) {
    let Ok(scratch) = Scratch::new() else { return };
    // Whatever is wrong here is told when the candidate is made.
    if let Ok((model, _)) = prepared.apply(plan)
        && let Ok(staged) = scratch.write(&model, "trial.onnx")
    {
        rig.accommodate(staged.path(), samples);
    }
}

fn measure_layers(
    prepared: &Prepared,
    ground: &Ground<'_>,
    config: &Config,
    notes: &mut Notes<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Measurements {
    let Some(sample) = ground.samples.first() else { return Measurements::new() };
    let measured =
        measure::layers(prepared, sample, config.numerics, &ground.rig, notes.cache, progress);
    if !measured.unknown.is_empty() {
        notes.warnings.push(Warning::Unmeasured { layers: measured.unknown });
    }
    tracing::info!(layers = measured.layers.len(), fresh = measured.fresh, "measured layers");
    measured.layers
}

/// What each layer of a plan costs at the outputs.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// The plan of the default rules, or the one that was given.
    pub plan: ExplainedPlan,
    /// What that computes on integers by ranges.
    pub regions: Vec<report::Region>,
    /// Its int8 layers, those that share a weight together: the ones that are best left out first.
    pub layers: Vec<report::Sensitivity>,
    /// Where it was measured.
    pub runtime: report::RuntimeUsed,
    /// On what.
    pub samples: report::Samples,
    /// What the user should know of the samples.
    pub warnings: Vec<Warning>,
}

/// Measures what each int8 layer of a plan costs at the outputs: alone, and by what the whole gains
/// without it. The model is loaded twice, however many layers it has.
pub fn rank(
    input: &Path,
    config: &Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ranked, Error> {
    let budget = Budget::new(Instant::now(), config.search.time_budget, Stop::default());
    progress(Progress::Step(Step::Loading));
    let original = onnx::load(input)?;
    let prepared = transform::prepared(&original, config)?;
    let plan = transform::planned(&prepared, config, &Hints::default())?;
    let subject = Arc::new(Subject::new(input, &original, &[], config)?);
    let (Ground { mut rig, samples, .. }, told) =
        survey(&subject, &original, &prepared, config, progress)?;
    let runtime = rig.used.clone();
    let prover = Prover::new(&prepared, &samples, &mut rig, None);
    let unknown = |why: String| Error::from(ErrorKind::Candidate(why));
    let seen = sensitivity::statistics(&prover, &plan, progress).map_err(unknown)?;
    let layers = sensitivity::ranked(&prover, &plan, &seen, &budget, progress)
        .map_err(|error| error.of_plan().map_or_else(|error| error, unknown))?;
    Ok(Ranked {
        regions: regions::regions(&prepared, &plan, config),
        plan,
        layers,
        runtime,
        samples: target::summary(&samples),
        warnings: told.warnings,
    })
}

/// The original, running in the target, if it is one that can be run, and what is to be told of its
/// samples.
pub(crate) fn survey<'a>(
    subject: &Arc<Subject>,
    original: &Model,
    prepared: &Prepared,
    config: &'a Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Ground<'a>, Told), Error> {
    resource_limits::check(prepared)?;
    progress(Progress::Step(Step::PreparingOriginal));
    let (mut ground, told) = ground(subject, original, config)?;
    let splits = config.calibration.is_none()
        && wants_ranges(config, &ground.samples)
        && !rewrite::to_observe(prepared, &config.plan_options()?).is_empty();
    if splits {
        set_apart(&mut ground);
    }
    ground.rig.watch(prepared, &ground.samples)?;
    Ok((ground, told))
}

#[cfg(test)]
mod tests;
