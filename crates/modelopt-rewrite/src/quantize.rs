//! The numerics of quantization: scales, rounding, and channels that share a scale.

mod equalize;
mod numerics;

pub(crate) use equalize::quantize_filters as filters;
pub use numerics::{Channels, Granularity, Quantized, Unquantizable, quantize};
pub(crate) use numerics::{SMALLEST, dequantized};
