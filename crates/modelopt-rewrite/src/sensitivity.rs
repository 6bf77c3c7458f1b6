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

use crate::error_injection::{WeightError, errors};
use crate::forms::Scheme;
use crate::layers::{self, Role, WeightUse};
use crate::memo::Memo;
use crate::plan::{Plan, Precision};
use crate::precision;
use crate::refine;
use crate::statistics::{Seen, Statistics};

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

/// A weight as the matrix of a product: which channel of the activation and which of the output
/// its numbers belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    /// `[outer, rows, taps]`, in the order of storage.
    dims: [usize; 3],
    /// Whether `outer` counts output channels and `rows` input channels, or the other way round.
    output_first: bool,
    groups: usize,
}

impl Matrix {
    pub(crate) fn of(model: &Model, node: NodeId, weight: &WeightUse) -> Option<Self> {
        let shape = weight.tensor.shape();
        let groups = usize::try_from(model.node(node).int("group", 1)).ok()?.max(1);
        let taps = |shape: &[usize]| shape.iter().skip(2).product();
        let (dims, output_first, groups) = match (weight.role, shape) {
            (Role::MatMulRight, &[k, n]) => ([k, n, 1], false, 1),
            (Role::GemmB { transposed }, &[a, b]) => ([a, b, 1], transposed, 1),
            (Role::ConvFilters, &[o, i, ..]) => ([o, i, taps(shape)], true, groups),
            (Role::ConvTransposeFilters, &[i, o, ..]) => ([i, o, taps(shape)], false, groups),
            _ => return None,
        };
        let outer_fits = dims[0] % groups == 0;
        (weight.input == 1 && outer_fits).then_some(Matrix { dims, output_first, groups })
    }

    /// Number of channels that are summed over.
    pub(crate) fn inputs(&self) -> usize {
        let [outer, rows, _] = self.dims;
        if self.output_first { rows * self.groups } else { outer }
    }

    pub(crate) fn outputs(&self) -> usize {
        let [outer, rows, _] = self.dims;
        if self.output_first { outer } else { rows * self.groups }
    }

    /// Calls `each` with every number, its input channel and its output channel, taps together.
    fn walk(&self, numbers: &[f32], mut each: impl FnMut(&[f32], usize, usize)) {
        let [outer, rows, taps] = self.dims;
        for (index, piece) in numbers.chunks_exact(taps.max(1)).enumerate() {
            let (first, second) = (index / rows, index % rows);
            let second = first / (outer / self.groups).max(1) * rows + second;
            let (input, output) = if self.output_first { (second, first) } else { (first, second) };
            each(piece, input, output);
        }
    }

    /// `sum_k numbers_kn means_k`, for each output channel.
    pub(crate) fn mean_output(&self, numbers: &[f32], means: &[f64]) -> Vec<f64> {
        let mut sums = vec![0f64; self.outputs()];
        self.walk(numbers, |piece, input, output| {
            sums[output] += piece.iter().map(|&x| f64::from(x)).sum::<f64>() * means[input];
        });
        sums
    }

    /// Sum of squares for each input channel.
    pub(crate) fn input_powers(&self, numbers: &[f32]) -> Vec<f64> {
        let mut powers = vec![0f64; self.inputs()];
        self.walk(numbers, |piece, input, _| {
            powers[input] += piece.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        });
        powers
    }

    /// Power of `x numbers`, summed over output channels, for one position.
    pub(crate) fn power(&self, numbers: &[f32], moments: &Moments) -> f64 {
        let mean: f64 =
            self.mean_output(numbers, &moments.means).iter().map(|mean| mean * mean).sum();
        let powers = self.input_powers(numbers);
        mean + powers.iter().zip(&moments.variances).map(|(p, v)| p * v).sum::<f64>()
    }
}

/// Mean and variance of each input channel.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    pub(crate) means: Vec<f64>,
    pub(crate) variances: Vec<f64>,
}

impl Moments {
    /// Of what was seen, divided by `divisors`.
    pub(crate) fn of(seen: &Statistics, divisors: Option<&[f32]>) -> Self {
        let divisor = |channel: usize| {
            let own = divisors.and_then(|divisors| divisors.get(channel));
            own.map_or(1.0, |&divisor| f64::from(divisor))
        };
        let means: Vec<f64> =
            seen.means.iter().enumerate().map(|(k, mean)| mean / divisor(k)).collect();
        let squares = &seen.mean_squares;
        let variances = squares
            .iter()
            .enumerate()
            .map(|(k, square)| (square / divisor(k).powi(2) - means[k] * means[k]).max(0.0))
            .collect();
        Moments { means, variances }
    }

    fn unknown(channels: usize) -> Self {
        Moments { means: vec![0.0; channels], variances: vec![1.0; channels] }
    }

    /// Mean over steps of the error's mean square in each channel, when the activation is rounded
    /// to multiples of the step.
    pub(crate) fn rounding(&self, steps: &[f64]) -> Vec<f64> {
        let squares = self.means.iter().zip(&self.variances).map(|(m, v)| m * m + v);
        let of = |square: f64| {
            let total: f64 = steps.iter().map(|step| (step * step / 12.0).min(square)).sum();
            total / steps.len().max(1) as f64
        };
        squares.map(of).collect()
    }
}

/// Power of the noise that rounding an activation to multiples of its step makes at the output.
pub(crate) fn activation_noise(matrix: &Matrix, weight: &[f32], errors: &[f64]) -> f64 {
    matrix.input_powers(weight).iter().zip(errors).map(|(power, error)| power * error).sum()
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
            let place = *places.get(layer.name.as_str())?;
            let errors = by_layer.get(&place)?;
            let line = &plan.layers[place];
            let divisors = Some(line.smoothing.as_slice()).filter(|s| !s.is_empty());
            let own = errors.iter().filter_map(|error| {
                let weight = layer.weights.iter().find(|weight| weight.value == error.value)?;
                let seen = seen.get(&layer.name);
                Some(noise(&model, layer.node, weight, &error.error, seen, divisors, line.scheme))
            });
            // A layer with two weights is as bad as the worse of them.
            let worst = own.max_by(|a, b| a.int8_weights.total_cmp(&b.int8_weights))?;
            Some(LayerNoise { layer: place, ..worst })
        })
        .collect()
}

fn noise(
    model: &Model,
    node: NodeId,
    weight: &WeightUse,
    error: &[f32],
    seen: Option<&Statistics>,
    divisors: Option<&[f32]>,
    scheme: Scheme,
) -> LayerNoise {
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
            (layer.name, work)
        })
        .collect()
}
