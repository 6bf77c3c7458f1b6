//! The passes, one file each: before/after picture on top, tests below.

mod affine;
mod aliases;
mod batchnorm;
mod constants;
pub(crate) mod dead;
mod fold;
pub(crate) mod functions;
mod fusion;
mod gelu;
mod hard_swish;
mod inputs;
mod layer_norm;
mod scale_in_front;
mod scale_shift;
mod sort;
#[cfg(test)]
mod testing;
mod types;

pub(crate) use aliases::Aliases;
pub(crate) use batchnorm::BatchNorm;
pub(crate) use constants::Constants;
pub(crate) use dead::Dead;
pub(crate) use fold::Fold;
pub(crate) use functions::Functions;
pub(crate) use gelu::Gelu;
pub(crate) use hard_swish::HardSwish;
pub(crate) use inputs::FreezeInputs;
pub(crate) use layer_norm::LayerNorm;
pub(crate) use scale_in_front::ScaleInFront;
pub(crate) use scale_shift::ScaleShift;
pub(crate) use sort::Sort;
pub(crate) use types::Types;
