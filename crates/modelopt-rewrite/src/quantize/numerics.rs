//! Symmetric integer quantization of weights.
//!
//! `q = clamp(round(x / s), -Q, Q)`, rounding half to even as ONNX's `QuantizeLinear` does,
//! with zero point 0 and `Q` = 127, or 63 in reduced range. One scale per channel (or one in
//! all). Two refinements cost nothing at run time:
//!
//! - The scale starts at `max|x| / Q` and is shrunk where clipping the few largest weights lowers
//!   the mean squared error of the rest by more than it costs (Banner et al., "Post training
//!   4-bit quantization of convolutional networks", 2019, on a fixed grid).
//! - Where a channel's weights are summed against activations that are mostly of one sign, as
//!   behind a Relu, the few numbers that were nearest to the other side are rounded there instead,
//!   so that the errors of the channel add up to nothing: a common offset would become a bias
//!   (Guo et al., "SQuant: On-the-fly data-free quantization via diagonal Hessian approximation",
//!   2022).

use ndarray::ArrayD;
use rayon::prelude::*;

use modelopt_graph::{Tensor, TensorError};

/// How finely scales are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// One scale for each output channel.
    #[default]
    PerChannel,
    /// One scale for the whole tensor.
    PerTensor,
}

/// Numbers below this are taken for zero: their scale would not be a normal float32.
pub(crate) const SMALLEST: f32 = 1e-30;

/// Scales that are tried, as parts of the one that covers the maximum. Finer steps and deeper
/// clipping were not seen to lower the error further for weights of 8 bits.
const SHRINK: [f32; 6] = [0.97, 0.94, 0.90, 0.85, 0.79, 0.72];

/// Which numbers of a tensor share a scale: the tensor is seen as
/// `[groups, outer, channels, inner]`, with a scale for each group and channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Channels {
    groups: usize,
    outer: usize,
    count: usize,
    inner: usize,
    /// Shape of the scales, broadcastable to the tensor's.
    scale_shape: Vec<usize>,
    /// Whether each channel's weights are summed against activations that are mostly of one sign.
    summed: bool,
}

impl Channels {
    /// One scale for the whole tensor; the scale is a scalar.
    pub fn whole(shape: &[usize]) -> Self {
        let inner = shape.iter().product();
        Channels { groups: 1, outer: 1, count: 1, inner, scale_shape: Vec::new(), summed: false }
    }

    /// One scale for each index along `axis`, and for each index along the leading
    /// `separate` axes (a batch of matrices, the directions of an LSTM), which come before it.
    pub fn along(shape: &[usize], axis: usize, separate: usize) -> Self {
        let separate = separate.min(axis);
        let product = |range: std::ops::Range<usize>| shape[range].iter().product();
        let mut scale_shape = vec![1; shape.len()];
        scale_shape[..separate].copy_from_slice(&shape[..separate]);
        scale_shape[axis] = shape[axis];
        Channels {
            groups: product(0..separate),
            outer: product(separate..axis),
            count: shape[axis],
            inner: product(axis + 1..shape.len()),
            scale_shape,
            summed: false,
        }
    }

    /// The same channels, each of which is one output: its weights are summed against activations
    /// that are mostly of one sign.
    #[must_use]
    pub fn summed(mut self) -> Self {
        self.summed = true;
        self
    }

    /// Number of scales.
    pub fn count(&self) -> usize {
        self.groups * self.count
    }

    /// Shape of the scales, broadcastable to the tensor's shape.
    pub fn scale_shape(&self) -> &[usize] {
        &self.scale_shape
    }
}

/// A quantized tensor.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// int8, in the shape of the original.
    pub values: Tensor,
    /// float32, shaped to broadcast.
    pub scales: Tensor,
    /// float32 factors that the values are multiplied by besides, shaped to broadcast.
    pub input_scales: Option<Tensor>,
    /// Sum of squared errors.
    pub error: f64,
    /// Sum of squares of the original.
    pub signal: f64,
}

impl Quantized {
    /// Bytes of the values and all scales.
    pub fn byte_len(&self) -> usize {
        let factors = self.input_scales.as_ref().map_or(0, Tensor::byte_len);
        self.values.byte_len() + self.scales.byte_len() + factors
    }

    /// Signal-to-quantization-noise ratio of the weights, in dB; infinite when exact.
    pub fn sqnr_db(&self) -> f64 {
        10.0 * (self.signal / self.error).log10()
    }
}

/// The numbers that stored values stand for, each multiplied by all of the factors, which broadcast;
/// none if the parts do not fit together.
pub(crate) fn dequantized<'a>(
    values: &Tensor,
    factors: impl Iterator<Item = &'a Tensor>,
) -> Option<Vec<f32>> {
    let array =
        |numbers: Vec<f32>, shape: &[usize]| ArrayD::from_shape_vec(shape.to_vec(), numbers).ok();
    let numbers = match values.elements::<i8>() {
        Some(integers) => integers.iter().map(|&q| f32::from(q)).collect(),
        None => values.to_f32()?.into_owned(),
    };
    let mut numbers = array(numbers, values.shape())?;
    for factor in factors {
        let factor = array(factor.to_f32()?.into_owned(), factor.shape())?;
        numbers *= &factor.broadcast(numbers.raw_dim())?;
    }
    Some(numbers.into_raw_vec_and_offset().0)
}

/// Why a weight cannot be quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unquantizable {
    /// It holds NaN or infinity.
    NotFinite,
    /// All numbers are (nearly) zero.
    Zero,
    /// Its type is not a float type.
    NotFloat,
}

/// Quantizes `data` of `shape` to `-limit..=limit`.
pub fn quantize(
    data: &[f32],
    shape: &[usize],
    channels: &Channels,
    limit: f32,
) -> Result<Quantized, Unquantizable> {
    let row = channels.count * channels.inner;
    let group = (channels.outer * row).max(1);
    let mut values = vec![0i8; data.len()];
    // A few channels at a time, so that reading across the rows of a matrix stays in cache.
    let block = if channels.inner == 1 { 16 } else { 1 };
    let starts: Vec<(usize, usize)> = (0..channels.groups)
        .flat_map(|group| (0..channels.count).step_by(block).map(move |first| (group, first)))
        .collect();
    let blocks: Vec<Block> = starts
        .into_par_iter()
        .map(|(g, first)| {
            let numbers = data.get(g * group..(g + 1) * group).unwrap_or_default();
            quantize_block(numbers, channels, first..(first + block).min(channels.count), limit)
        })
        .collect::<Result<_, _>>()?;
    let (mut scales, mut error, mut signal) = (Vec::with_capacity(channels.count()), 0.0, 0.0);
    for block in &blocks {
        scales.extend_from_slice(&block.scales);
        error += block.error;
        signal += block.signal;
    }
    if signal == 0.0 {
        return Err(Unquantizable::Zero);
    }
    for (g, values) in values.chunks_mut(group).enumerate() {
        let count = blocks.len() / channels.groups.max(1);
        let blocks = blocks.get(g * count..(g + 1) * count).unwrap_or_default();
        for (index, block_values) in blocks.iter().enumerate() {
            block_values.write(values, channels, index * block);
        }
    }
    let tensor = |result: Result<Tensor, TensorError>| result.map_err(|_| Unquantizable::NotFloat);
    Ok(Quantized {
        values: tensor(Tensor::of(shape.to_vec(), &values))?,
        scales: tensor(Tensor::of(channels.scale_shape.clone(), &scales))?,
        input_scales: None,
        error,
        signal,
    })
}

/// A few neighbouring channels of one group, quantized.
struct Block {
    scales: Vec<f32>,
    /// One after the other, each as long as all of its numbers.
    values: Vec<i8>,
    error: f64,
    signal: f64,
}

impl Block {
    /// Puts the values where they belong in the group; `first` is the first channel.
    fn write(&self, group: &mut [i8], channels: &Channels, first: usize) {
        let Channels { outer, count, inner, .. } = *channels;
        for (offset, channel) in self.values.chunks(outer * inner).enumerate() {
            for (row, piece) in channel.chunks(inner).enumerate() {
                let at = (row * count + first + offset) * inner;
                group[at..at + inner].copy_from_slice(piece);
            }
        }
    }
}

fn quantize_block(
    group: &[f32],
    channels: &Channels,
    range: std::ops::Range<usize>,
    limit: f32,
) -> Result<Block, Unquantizable> {
    let Channels { outer, count, inner, .. } = *channels;
    let length = outer * inner;
    let mut numbers = vec![0f32; range.len() * length];
    for row in 0..outer {
        for (offset, channel) in range.clone().enumerate() {
            let from = (row * count + channel) * inner;
            let to = offset * length + row * inner;
            numbers[to..to + inner].copy_from_slice(&group[from..from + inner]);
        }
    }
    let mut block = Block {
        scales: Vec::with_capacity(range.len()),
        values: Vec::with_capacity(numbers.len()),
        error: 0.0,
        signal: 0.0,
    };
    for channel in numbers.chunks(length.max(1)) {
        let scale = best_scale(channel, limit)?;
        let start = block.values.len();
        block.values.extend(channel.iter().map(|&x| round(x, 1.0 / scale, limit) as i8));
        let values = &mut block.values[start..];
        if channels.summed {
            balance(channel, values, scale, limit);
        }
        for (&x, &q) in channel.iter().zip(values.iter()) {
            let difference = f64::from(x) - f64::from(q) * f64::from(scale);
            block.error += difference * difference;
            block.signal += f64::from(x) * f64::from(x);
        }
        block.scales.push(scale);
    }
    Ok(block)
}

/// The scale with the least squared error.
fn best_scale(channel: &[f32], limit: f32) -> Result<f32, Unquantizable> {
    // As integers, magnitudes order like floats, and NaN sorts above infinity.
    let largest = channel.iter().fold(0, |max, x| (x.to_bits() & 0x7fff_ffff).max(max));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return Err(Unquantizable::NotFinite);
    }
    if largest < SMALLEST {
        return Ok(1.0);
    }
    let cover = largest / limit;
    let mut best = (squared_error(channel, cover, limit), cover);
    for part in SHRINK {
        let error = squared_error(channel, cover * part, limit);
        if error < best.0 {
            best = (error, cover * part);
        }
    }
    Ok(best.1)
}

fn squared_error(channel: &[f32], scale: f32, limit: f32) -> f64 {
    let inverse = 1.0 / scale;
    let mut total = 0f64;
    for piece in channel.chunks(1024) {
        // Eight sums, because the compiler may not reorder the additions of one.
        let mut sums = [0f32; 8];
        let (chunks, rest) = piece.as_chunks::<8>();
        for chunk in chunks {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                let difference = x - round(x, inverse, limit) * scale;
                *sum += difference * difference;
            }
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            let difference = x - round(x, inverse, limit) * scale;
            *sum += difference * difference;
        }
        total += f64::from(sums.iter().sum::<f32>());
    }
    total
}

/// Rounds the numbers that were nearest to the other side there, as many as it takes for the
/// errors to add up to less than half a step.
fn balance(channel: &[f32], values: &mut [i8], scale: f32, limit: f32) {
    let inverse = 1.0 / scale;
    let off = |x: f32, q: i8| f32::from(q) - x * inverse;
    let sum: f64 = channel.iter().zip(values.iter()).map(|(&x, &q)| f64::from(off(x, q))).sum();
    let flips = sum.abs().round_ties_even() as usize;
    let direction = if sum > 0.0 { 1.0f32 } else { -1.0 };
    // Numbers that were rounded the way of the sum, not clipped, and have room on the other side.
    let mut movable: Vec<(f32, u32)> = channel
        .iter()
        .zip(values.iter())
        .enumerate()
        .filter_map(|(index, (&x, &q))| {
            let off = off(x, q) * direction;
            let room = (f32::from(q) - direction).abs() <= limit;
            (off > 0.0 && off <= 0.5 && room).then_some((off, index as u32))
        })
        .collect();
    let flips = flips.min(movable.len());
    if flips == 0 {
        return;
    }
    // The largest first; equal ones in order of place, so that the result is always the same.
    let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    movable.select_nth_unstable_by(flips - 1, order);
    for &(_, index) in &movable[..flips] {
        values[index as usize] -= direction as i8;
    }
}

/// `round_half_to_even(x * inverse)` within the limits. Adding and subtracting 1.5 * 2^23 rounds
/// every number below 2^22, without the function call that `f32::round_ties_even` is on processors
/// of the baseline.
#[inline]
fn round(x: f32, inverse: f32, limit: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let scaled = (x * inverse).clamp(-limit, limit);
    (scaled + MAGIC) - MAGIC
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;
    use crate::testing::noise;

    fn dequantized(quantized: &Quantized, channels: &Channels) -> Vec<f32> {
        let q = quantized.values.elements::<i8>().unwrap();
        let s = quantized.scales.to_f32().unwrap();
        q.iter()
            .enumerate()
            .map(|(i, &q)| {
                let channel = i / channels.inner % channels.count;
                let group = i / (channels.inner * channels.count * channels.outer);
                f32::from(q) * s[group * channels.count + channel]
            })
            .collect()
    }

    #[test]
    fn errors_are_what_the_numbers_say() {
        for (shape, channels) in [
            (vec![8, 3, 5, 5], Channels::along(&[8, 3, 5, 5], 0, 0)),
            (vec![96, 16], Channels::along(&[96, 16], 1, 0)),
            (vec![3, 20, 7], Channels::along(&[3, 20, 7], 2, 1)),
            (vec![2, 12, 9], Channels::along(&[2, 12, 9], 1, 1)),
            (vec![33, 7], Channels::whole(&[33, 7])),
            (vec![96, 33], Channels::along(&[96, 33], 1, 0).summed()),
            (vec![5, 64], Channels::along(&[5, 64], 0, 0).summed()),
        ] {
            let data = noise(shape.iter().product(), 7);
            let quantized = quantize(&data, &shape, &channels, 127.0).unwrap();
            assert_eq!(quantized.scales.shape(), channels.scale_shape());
            let back = dequantized(&quantized, &channels);
            let error: f64 =
                data.iter().zip(&back).map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum();
            assert_relative_eq!(error, quantized.error, max_relative = 1e-3);
            assert!(quantized.sqnr_db() > 40.0, "{}", quantized.sqnr_db());
        }
    }

    #[test]
    fn an_outlier_is_clipped_where_that_helps() {
        let mut data = noise(4096, 3);
        data[17] = 3.0;
        let channels = Channels::whole(&[4096]);
        let quantized = quantize(&data, &[4096], &channels, 127.0).unwrap();
        assert!(quantized.scales.to_f32().unwrap()[0] <= 3.0 / 127.0);
        // A channel without outliers keeps its full range.
        let flat = [1.0f32, -1.0, 0.5, -0.5];
        let quantized = quantize(&flat, &[4], &Channels::whole(&[4]), 127.0).unwrap();
        assert_relative_eq!(quantized.scales.to_f32().unwrap()[0], 1.0 / 127.0);
    }

    #[test]
    fn errors_of_a_summed_channel_add_up_to_nothing() {
        let data = noise(64 * 300, 5);
        for summed in [false, true] {
            let mut channels = Channels::along(&[64, 300], 0, 0);
            channels.summed = summed;
            let quantized = quantize(&data, &[64, 300], &channels, 127.0).unwrap();
            let back = dequantized(&quantized, &channels);
            let scales = quantized.scales.to_f32().unwrap();
            let worst = (0..64)
                .map(|c| {
                    let sum: f64 =
                        (c * 300..(c + 1) * 300).map(|i| f64::from(back[i] - data[i])).sum();
                    sum.abs() / f64::from(scales[c])
                })
                .fold(0.0, f64::max);
            assert_eq!(worst < 0.51, summed, "{worst}");
            // The price in squared error is small.
            assert!(quantized.sqnr_db() > 45.0, "{}", quantized.sqnr_db());
        }
    }

    #[test]
    fn channels_of_zeros_and_hostile_numbers() {
        let channels = Channels::along(&[2, 2], 0, 0);
        let quantized = quantize(&[0.0, 0.0, 1.0, -1.0], &[2, 2], &channels, 127.0).unwrap();
        assert_eq!(*quantized.values.elements::<i8>().unwrap(), [0, 0, 127, -127]);
        assert_relative_eq!(quantized.scales.to_f32().unwrap()[0], 1.0);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let result = quantize(&[0.0, bad, 1.0, 1.0], &[2, 2], &channels, 127.0);
            assert_eq!(result.unwrap_err(), Unquantizable::NotFinite);
        }
        let zero = quantize(&[0.0; 4], &[2, 2], &channels, 127.0);
        assert_eq!(zero.unwrap_err(), Unquantizable::Zero);
        let tiny = quantize(&[1e-40, 1e-38, 1e30, 3e38], &[2, 2], &channels, 127.0).unwrap();
        assert!(tiny.scales.to_f32().unwrap().iter().all(|scale| scale.is_normal()));
    }

    #[test]
    fn rounding_is_half_to_even_and_reduced_range_is_kept() {
        let data = [0.5f32, 1.5, 2.5, -0.5, -1.5, 63.0];
        let quantized = quantize(&data, &[6], &Channels::whole(&[6]), 63.0).unwrap();
        assert_eq!(*quantized.values.elements::<i8>().unwrap(), [0, 2, 2, 0, -2, 63]);
    }
}
