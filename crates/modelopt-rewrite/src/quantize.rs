//! The numerics of quantization: scales, rounding, and channels that share a scale.

mod equalize;
mod numerics;
mod recipe;

pub(crate) use numerics::SMALLEST;
pub use numerics::{Channels, Granularity, Quantized, Unquantizable, quantize};
pub(crate) use recipe::{Recipe, StoredWeight};
