//! Symmetric integer quantization of weights.
//!
//! `q = clamp(round(x / s), -Q, Q)`, rounding half to even as ONNX's `QuantizeLinear` does,
//! with zero point 0 and `Q` = 127, or 63 in reduced range. One scale per channel (or one in
//! all). The scale starts at `max|x| / Q` and is shrunk where clipping the few largest weights
//! lowers the mean squared error of the rest by more than it costs (the search of Banner et al.,
//! "Post training 4-bit quantization of convolutional networks", 2019, on a fixed grid).

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
const SMALLEST: f32 = 1e-30;

/// Scales that are tried, as parts of the one that covers the maximum. Finer steps and deeper
/// clipping were not seen to lower the error further for weights of 8 bits.
const SHRINK: [f32; 6] = [0.97, 0.94, 0.90, 0.85, 0.79, 0.72];

/// Which numbers of a tensor share a scale: the tensor is seen as
/// `[groups, outer, channels, inner]`, with a scale for each group and channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    groups: usize,
    outer: usize,
    channels: usize,
    inner: usize,
    /// Shape of the scales, broadcastable to the tensor's.
    scale_shape: Vec<usize>,
}

impl Channels {
    /// One scale for the whole tensor; the scale is a scalar.
    pub fn whole(shape: &[usize]) -> Self {
        let inner = shape.iter().product();
        Channels { groups: 1, outer: 1, channels: 1, inner, scale_shape: Vec::new() }
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
            channels: shape[axis],
            inner: product(axis + 1..shape.len()),
            scale_shape,
        }
    }

    /// Number of scales.
    pub fn count(&self) -> usize {
        self.groups * self.channels
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
    /// Sum of squared errors.
    pub error: f64,
    /// Sum of squares of the original.
    pub signal: f64,
}

impl Quantized {
    /// Signal-to-quantization-noise ratio of the weights, in dB; infinite when exact.
    pub fn sqnr_db(&self) -> f64 {
        10.0 * (self.signal / self.error).log10()
    }
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
    let Channels { outer, channels: count, inner, .. } = *channels;
    let group_len = outer * count * inner;
    let mut values: Vec<i8> = Vec::with_capacity(data.len());
    let mut scales = Vec::with_capacity(channels.count());
    let (mut error, mut signal) = (0.0, 0.0);
    for group in data.chunks(group_len.max(1)) {
        let largest = channel_maxima(group, count, inner);
        if largest.iter().any(|x| !x.is_finite()) {
            return Err(Unquantizable::NotFinite);
        }
        let best = best_scales(group, &largest, inner, limit);
        error += best.errors.iter().sum::<f64>();
        signal += group.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        for row in group.chunks(count * inner) {
            for (channel, scale) in row.chunks(inner).zip(&best.scales) {
                let inverse = 1.0 / scale;
                values.extend(channel.iter().map(|&x| round(x, inverse, limit) as i8));
            }
        }
        scales.extend_from_slice(&best.scales);
    }
    if signal == 0.0 {
        return Err(Unquantizable::Zero);
    }
    let tensor = |result: Result<Tensor, TensorError>| result.map_err(|_| Unquantizable::NotFloat);
    Ok(Quantized {
        values: tensor(Tensor::of(shape.to_vec(), &values))?,
        scales: tensor(Tensor::of(channels.scale_shape.clone(), &scales))?,
        error,
        signal,
    })
}

struct Scales {
    scales: Vec<f32>,
    errors: Vec<f64>,
}

/// The largest magnitude of each channel; infinite or NaN where the channel holds such a number.
fn channel_maxima(group: &[f32], count: usize, inner: usize) -> Vec<f32> {
    // As integers, magnitudes order like floats and NaN sorts above infinity.
    let mut largest = vec![0u32; count];
    let magnitude = |x: f32| x.to_bits() & 0x7fff_ffff;
    for row in group.chunks(count * inner) {
        if inner == 1 {
            for (max, &x) in largest.iter_mut().zip(row) {
                *max = (*max).max(magnitude(x));
            }
        } else {
            for (max, channel) in largest.iter_mut().zip(row.chunks(inner)) {
                *max = channel.iter().fold(*max, |max, &x| max.max(magnitude(x)));
            }
        }
    }
    largest.into_iter().map(f32::from_bits).collect()
}

fn best_scales(group: &[f32], largest: &[f32], inner: usize, limit: f32) -> Scales {
    let cover: Vec<f32> =
        largest.iter().map(|&max| if max < SMALLEST { 1.0 } else { max / limit }).collect();
    let mut best = Scales { errors: errors(group, &cover, inner, limit), scales: cover.clone() };
    for part in SHRINK {
        let scales: Vec<f32> = cover.iter().map(|scale| scale * part).collect();
        let errors = errors(group, &scales, inner, limit);
        for (channel, error) in errors.into_iter().enumerate() {
            if error < best.errors[channel] {
                best.errors[channel] = error;
                best.scales[channel] = scales[channel];
            }
        }
    }
    best
}

/// The sum of squared errors of each channel.
fn errors(group: &[f32], scales: &[f32], inner: usize, limit: f32) -> Vec<f64> {
    let inverses: Vec<f32> = scales.iter().map(|scale| 1.0 / scale).collect();
    let mut total = vec![0f64; scales.len()];
    if inner == 1 {
        // Rows are summed in float32 a few at a time, so that the loop stays vectorized.
        let mut partial = vec![0f32; scales.len()];
        for rows in group.chunks(scales.len() * 64) {
            partial.fill(0.0);
            for row in rows.chunks(scales.len()) {
                for (((sum, &x), &scale), &inverse) in
                    partial.iter_mut().zip(row).zip(scales).zip(&inverses)
                {
                    let difference = x - round(x, inverse, limit) * scale;
                    *sum += difference * difference;
                }
            }
            for (sum, &part) in total.iter_mut().zip(&partial) {
                *sum += f64::from(part);
            }
        }
    } else {
        for row in group.chunks(scales.len() * inner) {
            for ((sum, channel), (&scale, &inverse)) in
                total.iter_mut().zip(row.chunks(inner)).zip(scales.iter().zip(&inverses))
            {
                for piece in channel.chunks(1024) {
                    *sum += f64::from(squared_error(piece, scale, inverse, limit));
                }
            }
        }
    }
    total
}

fn squared_error(numbers: &[f32], scale: f32, inverse: f32, limit: f32) -> f32 {
    // Eight sums, because the compiler may not reorder the additions of one.
    let mut sums = [0f32; 8];
    let (chunks, rest) = numbers.as_chunks::<8>();
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
    sums.iter().sum()
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
                let channel = i / channels.inner % channels.channels;
                let group = i / (channels.inner * channels.channels * channels.outer);
                f32::from(q) * s[group * channels.channels + channel]
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
    fn channels_of_zeros_and_hostile_numbers() {
        let channels = Channels::along(&[2, 2], 0, 0);
        let quantized = quantize(&[0.0, 0.0, 1.0, -1.0], &[2, 2], &channels, 127.0).unwrap();
        assert_eq!(*quantized.values.elements::<i8>().unwrap(), [0, 0, 127, -127]);
        assert_eq!(quantized.scales.to_f32().unwrap()[0], 1.0);
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
