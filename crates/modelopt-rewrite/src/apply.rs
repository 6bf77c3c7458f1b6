//! Carrying out a plan: weights are stored in parallel, then every layer is rewritten.

use indexmap::IndexMap;
use modelopt_graph::{Model, ValueId};
use rayon::prelude::*;

use crate::eligibility::{Look, candidates};
use crate::engine::{self, Broken, BrokenRewrite};
use crate::forms::{Emission, SharedWeight};
use crate::integer::{self, Affine};
use crate::memo::Memo;
use crate::plan::{Plan, QuantFormat, TensorRange};
use crate::policy::{self, OnIntegers};
use crate::quantize::StoredWeight;
use crate::shared::shared_weights;
use crate::{precision, prepare, refine, upgrade};

pub use crate::quantize::QuantizedWeight;

/// Rewrites the model as the plan says. The model must be prepared the way it was when the plan
/// was made. Returns what became of each weight, in model order.
pub fn apply(model: &mut Model, plan: &Plan) -> Result<Vec<QuantizedWeight>, BrokenRewrite> {
    apply_with(model, plan, &Memo::none())
}

/// The same with weights that may be stored already.
pub(crate) fn apply_with(
    model: &mut Model,
    plan: &Plan,
    memo: &Memo,
) -> Result<Vec<QuantizedWeight>, BrokenRewrite> {
    if let Some(opset) = policy::opset(plan) {
        // Whether that is possible was checked when the plan was made.
        upgrade::raise(model, opset).map_err(|error| BrokenRewrite {
            rewrite: "upgrade",
            what: Broken::OperatorSet(error.to_string()),
        })?;
    }
    refine::apply(model, plan)?;
    // Names and types are those of the model as it is.
    let conversions = precision::conversions(model, plan);
    let mut results = apply_to_weights(model, plan, memo)?;
    for conversion in &conversions {
        results.extend(precision::convert(model, conversion)?);
    }
    prepare::remove_dead(model)?;
    Ok(results)
}

/// Carries out the schemes that are about weights.
fn apply_to_weights(
    model: &mut Model,
    plan: &Plan,
    memo: &Memo,
) -> Result<Vec<QuantizedWeight>, BrokenRewrite> {
    let candidates = candidates(model, &Look::at(plan));
    let decided = plan.decided();
    let shared = shared_weights(model, &candidates, &decided);
    let stored: Vec<Option<StoredWeight>> =
        shared.par_values().map(|weight| weight.stored(memo)).collect();
    let mut results = Vec::new();
    let OnIntegers { table, regions, .. } = OnIntegers::of(model, plan);
    let affine = |(value, range): (&ValueId, &TensorRange)| (*value, Affine::of_range(range));
    let table: IndexMap<ValueId, Affine> = table.iter().map(affine).collect();
    engine::checked(model, "quantize", |model| {
        let at_load = plan.layers.iter().filter(|line| line.at_load);
        let mut emission = Emission::new(table, at_load.map(|line| line.id.as_str()));
        for candidate in &candidates {
            let (scheme, _) = decided(&candidate.layer.id);
            scheme.form().begin(model, candidate.layer.node, &mut emission);
        }
        for ((&value, weight), stored) in shared.iter().zip(stored) {
            // Checked when the plan was made; a weight that cannot be stored stays.
            let Some(stored) = stored else { continue };
            results.push(QuantizedWeight {
                name: model.value(value).name().to_owned(),
                bytes_before: weight.tensor.byte_len() as u64,
                bytes_after: stored.byte_len() as u64,
                sqnr_db: stored.sqnr_db,
            });
            rewrite(model, value, weight, stored, &emission);
        }
        integer::emit(model, &regions, &emission.ranges);
        if plan.format == QuantFormat::Qoperator {
            integer::fuse(model, &regions);
        }
        results.len()
    })?;
    Ok(results)
}

/// Rewrites everything that reads one weight.
fn rewrite(
    model: &mut Model,
    value: ValueId,
    weight: &SharedWeight<'_>,
    stored: StoredWeight,
    emission: &Emission<'_>,
) {
    let Some(emitted) = weight.emit(model, value, stored) else { return };
    for layer in &weight.uses {
        layer.form.rewrite(model, layer, &emitted, emission);
    }
    // Whoever still reads it is not particular about how it is made.
    let plain = weight.uses.iter().map(|layer| layer.form);
    let restoring = plain.min_by_key(|form| form.has_own_layout());
    if let Some(form) = restoring.filter(|_| !model.value(value).uses().is_empty()) {
        form.restore(model, value, &emitted, weight.elem);
    }
}
