//! Model in, model out: preparation, plan and rewriting, without files and without running.

use std::collections::HashMap;

use modelopt_graph::Model;
use modelopt_graph::infer;
use modelopt_rewrite::{self as rewrite, MeasuredLayer, Plan, PlanOptions, QuantizedWeight};

use crate::config::Config;
use crate::error::Error;

/// A model that was planned and rewritten.
#[derive(Clone, Debug)]
pub struct Transformed {
    /// The candidate. Where nothing was to be changed, the model as it was given.
    pub model: Model,
    /// The plan.
    pub plan: Plan,
    /// What became of each weight.
    pub weights: Vec<QuantizedWeight>,
    /// Whether the candidate is the model as it was given.
    pub unchanged: bool,
}

/// A model that is ready to be planned.
pub(crate) fn prepared(model: &Model, config: &Config) -> Result<Model, Error> {
    config.check()?;
    let mut model = model.clone();
    if config.freeze_inputs {
        model.freeze_defaulted_inputs();
    }
    rewrite::prepare(&mut model, &config.skip_rewrite)?;
    infer::infer(&mut model);
    Ok(model)
}

/// How long layers took, by name.
pub(crate) type Measurements = HashMap<String, MeasuredLayer>;

/// The plan for a prepared model: the given one, or that of the default rules.
pub(crate) fn planned(
    prepared: &Model,
    config: &Config,
    measured: Measurements,
) -> Result<Plan, Error> {
    Ok(match &config.plan {
        Some(plan) => rewrite::plan_from(prepared, plan)?,
        None => rewrite::plan(prepared, &PlanOptions { measured, ..config.plan_options()? })?,
    })
}

/// Plans and rewrites a model. The same model and settings give the same candidate.
pub fn transform(model: &Model, config: &Config) -> Result<Transformed, Error> {
    let prepared = prepared(model, config)?;
    let plan = planned(&prepared, config, Measurements::new())?;
    rewritten(model, &prepared, plan, config)
}

/// Plans and rewrites a model of which the prepared form is at hand.
pub(crate) fn rewritten(
    original: &Model,
    prepared: &Model,
    plan: Plan,
    config: &Config,
) -> Result<Transformed, Error> {
    // Whoever asks for frozen inputs gets them, also where nothing is quantized.
    let unchanged = plan.changed() == 0 && !config.freeze_inputs;
    if unchanged {
        return Ok(Transformed { model: original.clone(), plan, weights: Vec::new(), unchanged });
    }
    let mut candidate = prepared.clone();
    let weights = rewrite::apply(&mut candidate, &plan)?;
    Ok(Transformed { model: candidate, plan, weights, unchanged })
}
