//! Model in, model out: preparation, plan and rewriting, without files and without running.

use std::collections::HashMap;

use modelopt_graph::{Model, ValueId, infer};
use modelopt_rewrite::{
    self as rewrite, ExplainedPlan, Interface, MeasuredLayer, ObservedTensor, Preparation,
    Prepared, QuantizedWeight, Scheme,
};

use crate::config::Config;
use crate::error::Error;
use crate::warning::Warning;

/// A model that was planned and rewritten.
#[derive(Clone, Debug)]
pub struct Transformed {
    /// The candidate. Where nothing was to be changed, the model as it was given.
    pub model: Model,
    /// The plan.
    pub plan: ExplainedPlan,
    /// What became of each weight.
    pub weights: Vec<QuantizedWeight>,
    /// Whether the candidate is the model as it was given.
    pub unchanged: bool,
    /// Whether that is because its weights are of 16 bits already.
    pub narrow_already: bool,
}

impl Transformed {
    /// The model as it was given.
    fn unchanged(original: &Model, plan: ExplainedPlan, narrow_already: bool) -> Self {
        let (model, weights) = (original.clone(), Vec::new());
        Transformed { model, plan, weights, unchanged: true, narrow_already }
    }
}

/// A model that is ready to be planned.
pub(crate) fn prepared(model: &Model, config: &Config) -> Result<Prepared, Error> {
    config.check()?;
    let mut model = model.clone();
    if config.freeze_inputs {
        model.freeze_defaulted_inputs();
    }
    let how = Preparation {
        skip: &config.skip_rewrite,
        inline_functions: config.computes_in().is_some(),
    };
    rewrite::prepare(&mut model, how)?;
    infer::infer(&mut model);
    Ok(Prepared::new(model))
}

/// How long layers took, by name.
pub(crate) type Measurements = HashMap<String, MeasuredLayer>;

/// What running the model told the default rules.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// How long layers took.
    pub(crate) measured: Measurements,
    /// What was seen of tensors.
    pub(crate) observed: HashMap<String, ObservedTensor>,
    /// Values that must not be rounded to 16 bits, with the reason.
    pub(crate) unfit: HashMap<ValueId, String>,
}

/// The plan for a prepared model: the given one, or that of the default rules.
pub(crate) fn planned(
    prepared: &Model,
    config: &Config,
    hints: &Hints,
) -> Result<ExplainedPlan, Error> {
    if let Some(plan) = &config.plan {
        return Ok(rewrite::plan_from(prepared, plan)?);
    }
    let mut options = config.plan_options()?;
    options.measured.clone_from(&hints.measured);
    options.observed.clone_from(&hints.observed);
    options.precision.unfit.clone_from(&hints.unfit);
    Ok(rewrite::plan(prepared, &options)?)
}

/// Whether the default rules, or the given plan, leave the model as it is, whatever running it would
/// tell: then nothing need be run.
pub(crate) fn leaves_alone(prepared: &Model, config: &Config) -> Result<bool, Error> {
    // Measured layers may get what the rules would not give them; frozen inputs are a change.
    if config.measure || config.freeze_inputs {
        return Ok(false);
    }
    let plan = planned(prepared, config, &Hints::default())?;
    Ok(plan.changed() == 0 && plan.io == Interface::Float32)
}

/// The first IR version in which weights need not be among the inputs.
const WEIGHTS_APART_SINCE: i64 = 4;

/// What whoever reads the candidate should know of its format.
pub(crate) fn format_warnings(original: &Model, made: &Transformed) -> Vec<Warning> {
    let models = [original, &made.model];
    let [before, after] = models.map(|model| model.info.ir_version);
    let opened = before < WEIGHTS_APART_SINCE && before != after;
    let format = opened.then_some(Warning::FormatChanges { before, after });
    let raised = match models.map(|model| model.opset(model.main(), "")) {
        [Some(before), Some(after)] if before != after => {
            Some(Warning::OperatorSetRaised { before, after })
        }
        _ => None,
    };
    format.into_iter().chain(raised).collect()
}

/// Plans and rewrites a model. The same model and settings give the same candidate.
pub fn transform(model: &Model, config: &Config) -> Result<Transformed, Error> {
    let prepared = prepared(model, config)?;
    let plan = planned(&prepared, config, &Hints::default())?;
    rewritten(model, &prepared, plan, config)
}

/// Plans and rewrites a model of which the prepared form is at hand.
pub(crate) fn rewritten(
    original: &Model,
    prepared: &Prepared,
    plan: ExplainedPlan,
    config: &Config,
) -> Result<Transformed, Error> {
    // Whoever asks for frozen or converted inputs gets them, also where nothing else changes.
    let changes_io = plan.io != Interface::Float32;
    let unchanged = plan.changed() == 0 && !config.freeze_inputs && !changes_io;
    if unchanged {
        return Ok(Transformed::unchanged(original, plan, false));
    }
    let (candidate, weights) = prepared.apply(&plan)?;
    if !config.freeze_inputs && !changes_io && has_nothing_to_shrink(original, &plan, &weights) {
        return Ok(Transformed::unchanged(original, left_alone(plan), true));
    }
    Ok(Transformed { model: candidate, plan, weights, unchanged, narrow_already: false })
}

/// A plan for 16 bits that makes weights smaller by less than this share of those that are of 16 bits
/// already has nothing to do.
const WORTHWHILE: f64 = 0.02;

/// Why a plan for 16 bits that shrinks nothing is not carried out.
const NARROW_ALREADY: &str = "the weights are 16-bit already";

fn left_alone(mut plan: ExplainedPlan) -> ExplainedPlan {
    for (layer, why) in plan.lines_mut().filter(|(layer, _)| !layer.scheme.is_keep()) {
        layer.scheme = Scheme::default();
        NARROW_ALREADY.clone_into(&mut why.reason);
    }
    plan
}

/// Whether a plan for 16 bits finds the weights in 16 bits already.
fn has_nothing_to_shrink(
    original: &Model,
    plan: &ExplainedPlan,
    weights: &[QuantizedWeight],
) -> bool {
    if plan.layers.iter().any(|line| line.scheme.is_int8()) {
        return false;
    }
    let saved: u64 = weights.iter().map(|w| w.bytes_before.saturating_sub(w.bytes_after)).sum();
    let narrow = rewrite::narrow_weight_bytes(original);
    narrow > 0 && (saved as f64) < narrow as f64 * WORTHWHILE
}

#[cfg(test)]
mod tests {
    use modelopt_graph::ModelInfo;
    use modelopt_rewrite::Numerics;

    use super::*;

    fn model(ir_version: i64) -> Model {
        Model::new(ModelInfo { ir_version, ..ModelInfo::default() })
    }

    #[test]
    fn a_format_that_had_to_change_is_told() {
        let plan = ExplainedPlan::new(Numerics::default());
        let made = Transformed::unchanged(&model(4), plan, false);
        assert_eq!(format_warnings(&model(4), &made), []);
        let warnings = format_warnings(&model(3), &made);
        assert_eq!(warnings, [Warning::FormatChanges { before: 3, after: 4 }]);
    }

    #[test]
    fn a_model_without_weights_is_left_alone() {
        assert!(leaves_alone(&model(8), &Config::default()).unwrap());
        let measured = Config { measure: true, ..Config::default() };
        assert!(!leaves_alone(&model(8), &measured).unwrap());
    }
}

#[cfg(test)]
mod edges;
