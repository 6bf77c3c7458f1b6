//! A second set of scales for convolutions, one per input channel.
//!
//! With scales along the output channels alone, all input channels are rounded in the same steps.
//! Yet the filters of an input channel tend to be small where its activations are large
//! (normalization that was folded into the layers before sees to that), so that equal steps cost
//! the most where the activations are the largest. Here each input channel's filters are divided
//! by `f = sqrt(rms of the channel / rms of all)` before rounding and multiplied by it afterwards:
//! half-way between equal absolute and equal relative errors, as in cross-layer equalization
//! (Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019).
//! The multiplication is on constants, so runtimes fold it away when they load the model.

use modelopt_graph::Tensor;

use super::numerics::{Channels, Quantized, Unquantizable, quantize};

/// Channels that are all but empty count as this share of the average one.
const SMALLEST_SHARE: f64 = 1e-4;

/// Quantizes filters of shape `[O, I / groups, ..]` with scales along both of the first axes.
pub(crate) fn quantize_filters(
    data: &[f32],
    shape: &[usize],
    channels: &Channels,
    limit: f32,
) -> Result<Quantized, Unquantizable> {
    let Some(factors) = factors(data, shape) else {
        return quantize(data, shape, channels, limit);
    };
    let kernel = shape.iter().skip(2).product::<usize>().max(1);
    let factor = |index: usize| factors[index / kernel % factors.len()];
    let scaled: Vec<f32> = data.iter().enumerate().map(|(i, x)| x / factor(i)).collect();
    let Ok(mut quantized) = quantize(&scaled, shape, channels, limit) else {
        // Numbers at the edge of their range.
        return quantize(data, shape, channels, limit);
    };
    let values = quantized.values.elements::<i8>().ok_or(Unquantizable::NotFloat)?;
    let scales = quantized.scales.to_f32().ok_or(Unquantizable::NotFloat)?;
    let per_output = (data.len() / shape[0]).max(1);
    (quantized.error, quantized.signal) = (0.0, 0.0);
    for (index, (&x, &q)) in data.iter().zip(values.iter()).enumerate() {
        let back = f32::from(q) * scales[index / per_output] * factor(index);
        let difference = f64::from(x) - f64::from(back);
        quantized.error += difference * difference;
        quantized.signal += f64::from(x) * f64::from(x);
    }
    let mut factor_shape = vec![1; shape.len()];
    factor_shape[1] = shape[1];
    quantized.input_scales = Tensor::of(factor_shape, &factors).ok();
    Ok(quantized)
}

/// One factor per input channel; none where there is a single one or nothing to even out.
fn factors(data: &[f32], shape: &[usize]) -> Option<Vec<f32>> {
    let inputs = *shape.get(1).filter(|&&inputs| inputs > 1)?;
    let kernel = shape.iter().skip(2).product::<usize>().max(1);
    let mut squares = vec![0f64; inputs];
    for (index, filter) in data.chunks(kernel).enumerate() {
        squares[index % inputs] += filter.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    }
    let mean = squares.iter().sum::<f64>() / inputs as f64;
    (mean > 0.0 && mean.is_finite()).then(|| {
        // The fourth root of the ratio of squares is the root of the ratio of magnitudes.
        let share = |square: &f64| (square / mean).sqrt().max(SMALLEST_SHARE).sqrt() as f32;
        squares.iter().map(share).collect()
    })
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;
    use crate::testing::noise;

    const SHAPE: [usize; 4] = [16, 8, 3, 3];

    /// Noise whose input channels differ in size by powers of two.
    fn uneven() -> Vec<f32> {
        let mut data = noise(SHAPE.iter().product(), 1);
        for (index, x) in data.iter_mut().enumerate() {
            *x *= (1 << (index / 9 % 8)) as f32;
        }
        data
    }

    fn back(quantized: &Quantized) -> Vec<f32> {
        let q = quantized.values.elements::<i8>().unwrap();
        let s = quantized.scales.to_f32().unwrap();
        let f = quantized.input_scales.as_ref().map(|f| f.to_f32().unwrap());
        let f = |i: usize| f.as_ref().map_or(1.0, |f| f[i / 9 % 8]);
        q.iter().enumerate().map(|(i, &q)| f32::from(q) * s[i / 72] * f(i)).collect()
    }

    /// SQNR of each input channel, in dB.
    fn per_input(data: &[f32], back: &[f32]) -> Vec<f64> {
        (0..8)
            .map(|channel| {
                let own = |i: &usize| i / 9 % 8 == channel;
                let (mut signal, mut error) = (0.0, 0.0);
                for i in (0..data.len()).filter(own) {
                    signal += f64::from(data[i]).powi(2);
                    error += f64::from(data[i] - back[i]).powi(2);
                }
                10.0 * (signal / error).log10()
            })
            .collect()
    }

    #[test]
    fn small_input_channels_keep_their_precision() {
        let data = uneven();
        let channels = Channels::along(&SHAPE, 0, 0).summed();
        let plain = quantize(&data, &SHAPE, &channels, 127.0).unwrap();
        let even = quantize_filters(&data, &SHAPE, &channels, 127.0).unwrap();
        assert_eq!(even.input_scales.as_ref().unwrap().shape(), [1, 8, 1, 1]);
        let worst = |q: &Quantized| per_input(&data, &back(q)).into_iter().fold(99.0, f64::min);
        assert!(worst(&even) > worst(&plain) + 5.0, "{} {}", worst(&even), worst(&plain));
        let error: f64 = data.iter().zip(back(&even)).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        assert_relative_eq!(error, even.error, max_relative = 1e-4);
    }

    #[test]
    fn a_single_input_channel_and_zeros_are_left_as_they_are() {
        let shape = [4, 1, 5, 5];
        let channels = Channels::along(&shape, 0, 0).summed();
        let quantized = quantize_filters(&noise(100, 2), &shape, &channels, 127.0).unwrap();
        assert!(quantized.input_scales.is_none());
        let shape = [4, 2, 1, 1];
        let channels = Channels::along(&shape, 0, 0).summed();
        let zero = quantize_filters(&[0.0; 8], &shape, &channels, 127.0);
        assert_eq!(zero.unwrap_err(), Unquantizable::Zero);
        let sparse = [1.0, 0.0, -1.0, 0.0, 0.5, 0.0, 0.25, 0.0];
        let quantized = quantize_filters(&sparse, &shape, &channels, 127.0).unwrap();
        assert!(quantized.sqnr_db() > 40.0);
        let huge = [3e38, 1e30, 3e38, -3e38, 1.0, 1e-3, 3e38, 3e38];
        assert!(quantize_filters(&huge, &shape, &channels, 127.0).is_ok());
    }
}
