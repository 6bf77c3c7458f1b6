//! Plans that running the model tells something: how long its layers take, what flows through it,
//! and what rounding does to its outputs.

use modelopt_graph::Model;
use modelopt_rewrite::Plan;

use crate::Progress;
use crate::casting::Casting;
use crate::config::Config;
use crate::error::Error;
use crate::measure::{self, Cache};
use crate::observe;
use crate::repair::{Patient, is_sixteen};
use crate::run::Ground;
use crate::transform::{self, Hints, Measurements};

/// What is kept of planning, besides the plan.
pub(crate) struct Notes<'a> {
    pub(crate) cache: &'a mut Cache,
    pub(crate) warnings: &'a mut Vec<String>,
}

/// Whether the plan depends on what the model does when it runs.
pub(crate) fn runs_the_model(config: &Config) -> bool {
    config.plan.is_none() && (config.measure || config.scheme.is_some_and(is_sixteen))
}

/// The plan for a prepared model, with the original running. A given plan is not changed.
pub(crate) fn informed(
    original: &Model,
    prepared: &Model,
    ground: &mut Ground<'_>,
    config: &Config,
    notes: &mut Notes<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Plan, Error> {
    let mut hints = Hints::default();
    if config.measure {
        hints.measured = measure_layers(prepared, ground, config, notes, progress);
    }
    let Ground { bench, samples } = ground;
    if let Some(to) = config.computes_in() {
        let least = config.min_rounding_sqnr_db;
        let seen = observe::activations(prepared, to, least, samples, bench, progress);
        hints.unfit = seen.unfit;
        notes.warnings.extend(seen.warning);
    }
    let plan = transform::planned(prepared, config, &hints)?;
    if !config.scheme.is_some_and(is_sixteen) {
        return Ok(plan);
    }
    let casting = plan.io.precision().map(|to| Casting::of(original, to));
    let patient = Patient {
        prepared,
        plan: &plan,
        samples,
        limits: &config.gate,
        bench,
        casting: casting.as_ref(),
    };
    patient.repair(progress).apply(prepared, plan.clone())
}

fn measure_layers(
    prepared: &Model,
    ground: &Ground<'_>,
    config: &Config,
    notes: &mut Notes<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Measurements {
    let Some(sample) = ground.samples.first() else { return Measurements::new() };
    let measured =
        measure::layers(prepared, sample, config.numerics, &ground.bench, notes.cache, progress);
    if !measured.unknown.is_empty() {
        notes.warnings.push(format!(
            "{} layers are planned by the table: their shapes are known only while the model runs",
            measured.unknown.len()
        ));
    }
    tracing::info!(layers = measured.layers.len(), fresh = measured.fresh, "measured layers");
    measured.layers
}
