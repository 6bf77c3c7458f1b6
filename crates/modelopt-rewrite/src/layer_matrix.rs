//! A layer as a matrix product, and what its channels are like: enough to say in closed form what
//! rounding does to its output.

use modelopt_graph::{Model, NodeId};

use crate::layers::{Role, WeightUse};
use crate::statistics::Statistics;

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

    pub(crate) fn unknown(channels: usize) -> Self {
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
