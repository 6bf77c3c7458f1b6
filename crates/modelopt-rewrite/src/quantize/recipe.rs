//! How a weight is stored: all that the result depends on but the weight itself.

use modelopt_graph::Tensor;

use super::equalize;
use super::numerics::{Channels, Quantized, dequantized, quantize};
use crate::plan::Precision;
use crate::precision;

/// How a weight is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Recipe {
    /// The shape that the weight is seen in.
    shape: Vec<usize>,
    way: Way,
    /// Bits of the largest integer, as a float.
    limit: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Way {
    /// As integers along those of these channels that leave the least error.
    BestOf(Vec<Channels>),
    /// As integers with scales along these channels and factors along the input channels.
    Filters(Channels),
    /// In a 16-bit type.
    Rounded(Precision),
}

impl Recipe {
    /// As integers along those of some channels that leave the least error, in a shape of as many
    /// numbers as the weight has.
    pub(crate) fn best_of(shape: &[usize], choices: Vec<Channels>, limit: f32) -> Self {
        Recipe { shape: shape.to_vec(), way: Way::BestOf(choices), limit: limit.to_bits() }
    }

    /// As integers, for the filters of a convolution that computes in float.
    pub(crate) fn filters(shape: &[usize], channels: Channels, limit: f32) -> Self {
        Recipe { shape: shape.to_vec(), way: Way::Filters(channels), limit: limit.to_bits() }
    }

    /// In a 16-bit type.
    pub(crate) fn rounded(to: Precision) -> Self {
        Recipe { shape: Vec::new(), way: Way::Rounded(to), limit: 0 }
    }

    /// Whether carrying it out is more than a window that moves over the weight while it is written.
    pub(crate) fn is_work(&self) -> bool {
        !matches!(self.way, Way::Rounded(_))
    }

    /// What becomes of the weight; none where it cannot be stored so.
    pub(crate) fn carry_out(&self, weight: &Tensor) -> Option<StoredWeight> {
        let shape = self.shape.as_slice();
        let limit = f32::from_bits(self.limit);
        let quantized = match &self.way {
            Way::Rounded(to) => return StoredWeight::rounded(weight, *to),
            Way::Filters(channels) => {
                let numbers = weight.to_f32()?;
                equalize::quantize_filters(&numbers, shape, channels, limit).ok()?
            }
            Way::BestOf(choices) => {
                let numbers = weight.to_f32()?;
                let tried = choices.iter();
                tried
                    .filter_map(|channels| quantize(&numbers, shape, channels, limit).ok())
                    .min_by(|a, b| a.error.total_cmp(&b.error))?
            }
        };
        Some(quantized.into())
    }
}

/// What a weight turns into.
#[derive(Clone, Debug)]
pub(crate) struct StoredWeight {
    /// What is stored; forms that read it transposed do so when it is emitted.
    pub(crate) values: Tensor,
    /// float32 factors of the values, shaped to broadcast over them.
    pub(crate) scales: Option<Tensor>,
    /// More of them.
    pub(crate) input_scales: Option<Tensor>,
    /// Signal-to-quantization-noise ratio of the weight alone, in dB; infinite where it is exact.
    pub(crate) sqnr_db: f64,
}

impl StoredWeight {
    /// A float32 weight rounded to 16 bits; it is rounded when it is written.
    pub(crate) fn rounded(tensor: &Tensor, to: Precision) -> Option<Self> {
        let sqnr_db = precision::of_tensor(tensor, to)?.sqnr_db();
        let values = tensor.rounded(to.dtype())?;
        Some(StoredWeight { values, scales: None, input_scales: None, sqnr_db })
    }

    /// Bytes of all its parts.
    pub(crate) fn byte_len(&self) -> usize {
        let factors = self.scales.iter().chain(&self.input_scales).map(Tensor::byte_len);
        self.values.byte_len() + factors.sum::<usize>()
    }

    /// The numbers that it stands for, in the order of the original.
    pub(crate) fn numbers(&self) -> Option<Vec<f32>> {
        dequantized(&self.values, self.scales.iter().chain(&self.input_scales))
    }
}

impl From<Quantized> for StoredWeight {
    fn from(quantized: Quantized) -> Self {
        StoredWeight {
            sqnr_db: quantized.sqnr_db(),
            values: quantized.values,
            scales: Some(quantized.scales),
            input_scales: quantized.input_scales,
        }
    }
}
