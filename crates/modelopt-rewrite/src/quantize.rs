//! Carrying out a plan: weights are quantized in parallel, then every layer is rewritten.

mod dynamic;
mod equalize;
mod error_injection;
mod gather;
mod numerics;
mod weights;
mod weights_16bit;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::{DataType, GraphId, Model, Operand, Patch, Tensor, ValueId};
use rayon::prelude::*;

use crate::eligibility::{Candidate, Look, candidates};
use crate::engine::{self, BrokenRewrite};
use crate::layers::{Role, WeightUse};
use crate::plan::{Numerics, Plan, Precision, Scheme};
use crate::{precision, prepare, refine};

pub use error_injection::{Switch, Switchboard, switchboard};
pub(crate) use error_injection::{WeightError, errors};
pub(crate) use numerics::SMALLEST;
pub use numerics::{Channels, Granularity, Quantized, Unquantizable, quantize};

/// What became of one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedWeight {
    /// Name of the value that held it.
    pub name: String,
    /// Size before, in bytes.
    pub bytes_before: u64,
    /// Size after, scales included, in bytes.
    pub bytes_after: u64,
    /// Signal-to-quantization-noise ratio of the weight alone, in dB.
    pub sqnr_db: f64,
}

/// A weight that is to be stored in another type, and all layers that will read it.
struct Job<'a> {
    tensor: Arc<Tensor>,
    /// Element type in which layers read it.
    elem: DataType,
    /// Where the constant lives.
    home: GraphId,
    /// The layers that read it, with their schemes.
    uses: Vec<(&'a Candidate, &'a WeightUse, Scheme)>,
}

impl Job<'_> {
    /// Whether all that read it are convolutions that compute in float.
    fn is_float_filters(&self) -> bool {
        self.uses.iter().all(|(_, weight, scheme)| {
            *scheme == Scheme::Int8Weights && weight.role == Role::ConvFilters
        })
    }
}

/// The int8 form of a weight in the model: what the patterns build on.
struct Stored {
    /// int8 values; transposed to `[K, N]` where `transposed` is set.
    values: ValueId,
    /// float32 scales, shaped to broadcast over the (untransposed) values.
    scales: ValueId,
    scale_tensor: Tensor,
    /// float32 factors besides the scales, for filters that are computed in float.
    input_scales: Option<ValueId>,
    home: GraphId,
}

/// What a weight turns into.
enum Change {
    Int8(Box<Quantized>),
    Half(Precision),
}

/// Rewrites the model as the plan says. The model must be prepared the way it was when the plan
/// was made. Returns what became of each weight, in model order.
pub fn apply(model: &mut Model, plan: &Plan) -> Result<Vec<QuantizedWeight>, BrokenRewrite> {
    refine::apply(model, plan)?;
    // Names and types are those of the model as it is.
    let conversions = precision::conversions(model, plan);
    let mut results = apply_to_weights(model, plan)?;
    for conversion in &conversions {
        results.extend(precision::convert(model, conversion)?);
    }
    prepare::remove_dead(model)?;
    Ok(results)
}

/// Carries out the schemes that are about weights.
fn apply_to_weights(model: &mut Model, plan: &Plan) -> Result<Vec<QuantizedWeight>, BrokenRewrite> {
    let candidates = candidates(model, &Look::at(plan));
    let schemes: HashMap<&str, Scheme> =
        plan.layers.iter().map(|layer| (layer.name.as_str(), layer.scheme)).collect();
    let at_load = plan.layers.iter().filter(|line| line.at_load);
    let at_load: HashSet<&str> = at_load.map(|line| line.name.as_str()).collect();
    let jobs = jobs(model, &candidates, &schemes);
    let changes: Vec<Option<(Change, QuantizedWeight)>> =
        jobs.par_iter().map(|(&value, job)| change(model, value, job, plan.numerics)).collect();
    let mut results = Vec::new();
    engine::checked(model, "quantize", |model| {
        let mut activations = dynamic::Activations::default();
        for candidate in &candidates {
            if schemes.get(candidate.layer.name.as_str()) == Some(&Scheme::Int8Dynamic) {
                activations.quantize(model, candidate.layer.node);
            }
        }
        for ((&value, job), change) in jobs.iter().zip(changes) {
            // Checked when the plan was made; a weight that cannot be quantized stays.
            let Some((change, result)) = change else { continue };
            results.push(result);
            match change {
                Change::Int8(quantized) => {
                    rewrite(model, value, job, *quantized, &activations, &at_load);
                }
                Change::Half(to) => weights_16bit::rewrite(model, value, job.home, &job.tensor, to),
            }
        }
        results.len()
    })?;
    Ok(results)
}

fn change(
    model: &Model,
    value: ValueId,
    job: &Job<'_>,
    numerics: Numerics,
) -> Option<(Change, QuantizedWeight)> {
    let name = model.value(value).name().to_owned();
    if let Some(to) = job.uses.iter().find_map(|(_, _, scheme)| scheme.stores_in()) {
        return Some((Change::Half(to), precision::weight(name, &job.tensor, to)));
    }
    let quantized = quantize_weight(job, numerics)?;
    let result = QuantizedWeight {
        name,
        bytes_before: job.tensor.byte_len() as u64,
        bytes_after: quantized.byte_len() as u64,
        sqnr_db: quantized.sqnr_db(),
    };
    Some((Change::Int8(quantized.into()), result))
}

fn jobs<'a>(
    model: &Model,
    candidates: &'a [Candidate],
    schemes: &HashMap<&str, Scheme>,
) -> IndexMap<ValueId, Job<'a>> {
    let mut jobs: IndexMap<ValueId, Job<'a>> = IndexMap::new();
    for candidate in candidates {
        let scheme = schemes.get(candidate.layer.name.as_str()).copied().unwrap_or(Scheme::Keep);
        for weight in candidate.weights(scheme) {
            let Some(home) = model.home(weight.value) else { continue };
            jobs.entry(weight.value)
                .or_insert_with(|| Job {
                    tensor: weight.tensor.clone(),
                    elem: weight.elem,
                    home,
                    uses: Vec::new(),
                })
                .uses
                .push((candidate, weight, scheme));
        }
    }
    jobs
}

/// Whether the int8 values are stored transposed, as `[K, N]` for a dynamic Gemm.
fn stored_transposed(job: &Job<'_>) -> bool {
    job.uses.iter().any(|(_, weight, scheme)| {
        *scheme == Scheme::Int8Dynamic && weight.role == Role::GemmB { transposed: true }
    })
}

fn quantize_weight(job: &Job<'_>, numerics: Numerics) -> Option<Quantized> {
    let shape = job.tensor.shape();
    let numbers = job.tensor.to_f32()?;
    let limit = numerics.limit();
    let best = |choices: Vec<Channels>| {
        choices
            .into_iter()
            .filter_map(|channels| quantize(&numbers, shape, &channels, limit).ok())
            .min_by(|a, b| a.error.total_cmp(&b.error))
    };
    if numerics.granularity == Granularity::PerTensor {
        return best(vec![Channels::whole(shape)]);
    }
    if let Some(channels) = job.uses.iter().find_map(|(_, weight, _)| weight.role.channels(shape)) {
        if job.is_float_filters() {
            return equalize::quantize_filters(&numbers, shape, &channels, limit).ok();
        }
        return best(vec![channels]);
    }
    let gathered = job.uses.iter().find_map(|(_, weight, _)| match weight.role {
        Role::GatherTable { axis } => Some(axis),
        _ => None,
    });
    match gathered {
        Some(axis) => best(gather::channels(shape, axis)),
        None => best(any_axis(shape)),
    }
}

/// For a weight whose use does not say where its channels are: any axis whose scales would take
/// at most an eighth of the values, or none.
fn any_axis(shape: &[usize]) -> Vec<Channels> {
    let count: usize = shape.iter().product();
    let mut choices = vec![Channels::whole(shape)];
    for (axis, &dim) in shape.iter().enumerate() {
        if dim > 1 && dim * 32 <= count {
            choices.push(Channels::along(shape, axis, 0));
        }
    }
    choices
}

/// Rewrites everything that reads one weight.
fn rewrite(
    model: &mut Model,
    value: ValueId,
    job: &Job<'_>,
    quantized: Quantized,
    activations: &dynamic::Activations,
    at_load: &HashSet<&str>,
) {
    let transposed = stored_transposed(job);
    let values = if transposed { transpose(&quantized.values) } else { quantized.values };
    let name = model.value(value).name().to_owned();
    let mut patch = Patch::new();
    patch.constant(job.home, format!("{name}_int8"), Arc::new(values));
    patch.constant(job.home, format!("{name}_scale"), Arc::new(quantized.scales.clone()));
    if let Some(factors) = quantized.input_scales {
        patch.constant(job.home, format!("{name}_input_scale"), Arc::new(factors));
    }
    let made = model.apply(patch);
    let [values, scales, ..] = made[..] else { return };
    let stored = Stored {
        values,
        scales,
        scale_tensor: quantized.scales,
        input_scales: made.get(2).copied(),
        home: job.home,
    };
    for (candidate, weight, scheme) in &job.uses {
        match (scheme, weight.role) {
            (Scheme::Int8Dynamic, _) => {
                dynamic::rewrite(model, candidate.layer.node, weight, &stored, activations);
            }
            (_, Role::GatherTable { axis }) if !at_load.contains(candidate.layer.name.as_str()) => {
                gather::rewrite(model, candidate.layer.node, axis, &stored, job.elem);
            }
            _ => {}
        }
    }
    if !model.value(value).uses().is_empty() {
        weights::rewrite(model, value, &stored, job.elem);
    }
}

/// Transposed in blocks of this size, so that both sides stay in cache.
const BLOCK: usize = 64;

/// `[N, K]` to `[K, N]`.
fn transpose(values: &Tensor) -> Tensor {
    let (Some(data), [rows, columns]) = (values.bytes(), values.shape()) else {
        return values.clone();
    };
    let (rows, columns) = (*rows, *columns);
    let mut out = vec![0u8; data.len()];
    for row_block in (0..rows).step_by(BLOCK) {
        for column_block in (0..columns).step_by(BLOCK) {
            for row in row_block..(row_block + BLOCK).min(rows) {
                for column in column_block..(column_block + BLOCK).min(columns) {
                    out[column * rows + row] = data[row * columns + column];
                }
            }
        }
    }
    Tensor::dense(values.dtype(), vec![columns, rows], out).unwrap_or_else(|_| values.clone())
}

/// A name for the parts of a pattern: the node's, or its first output's.
fn base_name(model: &Model, node: modelopt_graph::NodeId) -> String {
    let node = model.node(node);
    if !node.name.is_empty() {
        return node.name.clone();
    }
    let output = node.outputs().iter().flatten().next();
    output.map_or_else(|| node.op.name.clone(), |&output| model.value(output).name().to_owned())
}

/// The operand for an optional input.
fn operand(input: Option<ValueId>) -> Operand {
    input.map_or(Operand::Missing, Operand::Value)
}
