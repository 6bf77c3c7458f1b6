//! What rounding costs each layer, told from its weights and from statistics of what it reads.
//!
//! For a layer `y = x W` with the error `D` of the weights and the step `q` of the activation, the
//! noise in `y` relative to its power is
//!
//! ```text
//! sum_n (sum_k D_kn m_k)^2 + sum_kn D_kn^2 v_k + sum_kn W_kn^2 min(q^2 / 12, m_k^2 + v_k)
//! ---------------------------------------------------------------------------------------
//!                   sum_n (sum_k W_kn m_k)^2 + sum_kn W_kn^2 v_k
//! ```
//!
//! with mean `m` and variance `v` of each input channel, taken as independent of each other: errors
//! of rounding are uniform, `q^2 / 12`, unless the numbers vanish below the step. Filters are read
//! as matrices of all their taps.

use std::collections::HashMap;

use modelopt_graph::{Model, NodeId};
use rayon::prelude::*;

use crate::forms::Scheme;
use crate::layer_matrix::{Matrix, Moments, activation_noise};
use crate::layers::{self, WeightUse};
use crate::memo::Memo;
use crate::plan::{Plan, Precision};
use crate::precision;
use crate::refine;
use crate::statistics::{Seen, Statistics};
use crate::weight_errors::{WeightError, errors};

/// What rounding does to the output of one layer, by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNoise {
    /// Place of the layer in the plan.
    pub layer: usize,
    /// Noise relative to the signal at the layer's output when its weights are stored as int8.
    pub int8_weights: f64,
    /// What quantizing its activation adds; none where it is not quantized or not known.
    pub activation: Option<f64>,
    /// The same as `int8_weights` for weights stored as float16; none where that is not possible.
    pub fp16_weights: Option<f64>,
    /// Whether statistics of what it reads were known; if not, all that it reads is taken to be
    /// alike and centred.
    pub informed: bool,
}

/// What int8 and float16 cost each int8 layer of a plan, from what was seen of its activation, by
/// name of the layer.
pub fn sensitivity(prepared: &Model, plan: &Plan, seen: &Seen) -> Vec<LayerNoise> {
    sensitivity_with(prepared, plan, seen, &Memo::none())
}

/// The same with weights that may be quantized already.
pub(crate) fn sensitivity_with(
    prepared: &Model,
    plan: &Plan,
    seen: &Seen,
    memo: &Memo,
) -> Vec<LayerNoise> {
    let mut model = prepared.clone();
    if refine::apply(&mut model, plan).is_err() {
        return Vec::new();
    }
    let errors = errors(&model, plan, memo);
    let mut by_layer: HashMap<usize, Vec<&WeightError>> = HashMap::new();
    for error in &errors {
        for &layer in &error.layers {
            by_layer.entry(layer).or_default().push(error);
        }
    }
    let places = plan.places();
    layers::find(&model, 0)
        .into_par_iter()
        .filter_map(|layer| {
            let place = *places.get(layer.id.as_str())?;
            let errors = by_layer.get(&place)?;
            let line = &plan.layers[place];
            let divisors = Some(line.smoothing.as_slice()).filter(|s| !s.is_empty());
            let own = errors.iter().filter_map(|error| {
                let weight = layer.weights.iter().find(|weight| weight.value == error.value)?;
                let known = Known { seen: seen.get(&layer.id), divisors, scheme: line.scheme };
                Some(noise(&model, layer.node, weight, &error.error, &known))
            });
            // A layer with two weights is as bad as the worse of them.
            let worst = own.max_by(|a, b| a.int8_weights.total_cmp(&b.int8_weights))?;
            Some(LayerNoise { layer: place, ..worst })
        })
        .collect()
}

/// What is known of the activation of a layer, and what becomes of it.
struct Known<'a> {
    seen: Option<&'a Statistics>,
    /// What it is divided by before it is quantized, by channel.
    divisors: Option<&'a [f32]>,
    scheme: Scheme,
}

fn noise(
    model: &Model,
    node: NodeId,
    weight: &WeightUse,
    error: &[f32],
    known: &Known<'_>,
) -> LayerNoise {
    let &Known { seen, divisors, scheme } = known;
    let numbers = weight.tensor.to_f32().unwrap_or_default();
    let fp16_relative = precision::of_tensor(&weight.tensor, Precision::Fp16)
        .filter(|rounding| rounding.objection(Precision::Fp16, 0.0).is_none())
        .map(|rounding| 10f64.powf(-rounding.sqnr_db() / 10.0));
    let square = |numbers: &[f32]| numbers.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let plain = square(error) / square(&numbers);
    let uninformed = LayerNoise {
        layer: 0,
        int8_weights: plain,
        activation: None,
        fp16_weights: fp16_relative,
        informed: false,
    };
    let Some(matrix) = Matrix::of(model, node, weight) else { return uninformed };
    let known = seen.filter(|seen| seen.channels() == matrix.inputs() && seen.is_finite());
    let moments =
        known.map_or(Moments::unknown(matrix.inputs()), |seen| Moments::of(seen, divisors));
    let signal = matrix.power(&numbers, &moments);
    if signal <= 0.0 {
        return uninformed;
    }
    let activation = known.filter(|_| scheme.quantizes_activations()).map(|seen| {
        let rounding = moments.rounding(&seen.steps(divisors));
        activation_noise(&matrix, &numbers, &rounding) / signal
    });
    LayerNoise {
        int8_weights: matrix.power(error, &moments) / signal,
        activation,
        informed: known.is_some(),
        ..uninformed
    }
}

/// Multiplications of each layer of a model whose values have fixed shapes, by name; for values of
/// unknown shape, as many as for one position.
pub fn work(shaped: &Model) -> HashMap<String, f64> {
    let known = |layer: &layers::Layer| {
        let node = shaped.node(layer.node);
        let shape = shaped.value(node.output(0)?).ty()?.shape()?;
        let sizes = shape.iter().map(|dim| dim.fixed().map(|size| size as f64));
        let outputs: f64 = sizes.collect::<Option<Vec<f64>>>()?.iter().product();
        let weight = layer.weights.iter().max_by_key(|weight| weight.tensor.len())?;
        let matrix = Matrix::of(shaped, layer.node, weight)?;
        Some(outputs * (weight.tensor.len() / matrix.outputs().max(1)) as f64)
    };
    layers::find(shaped, 0)
        .into_iter()
        .map(|layer| {
            let once = || layer.weights.iter().map(|weight| weight.tensor.len()).sum::<usize>();
            let work = known(&layer).unwrap_or_else(|| once() as f64);
            (layer.id, work)
        })
        .collect()
}
