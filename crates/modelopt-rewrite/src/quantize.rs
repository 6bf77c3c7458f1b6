//! The numerics of quantization: scales, rounding, and channels that share a scale.

mod equalize;
mod numerics;
mod recipe;

pub(crate) use numerics::SMALLEST;
pub use numerics::{Channels, Granularity, Quantized, Unquantizable, quantize};
pub(crate) use recipe::{Recipe, StoredWeight};

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
