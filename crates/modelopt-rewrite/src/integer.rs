//! Computing on 8-bit integers with ranges that were found beforehand: which tensors are quantized so
//! that the runtime's integer kernels apply from one layer to the next, and the nodes that do it.
//!
//! ```text
//! x ─ Conv ─ Relu ─ Add ─ Conv ─ y
//!                    │
//!                    s
//!   =>
//! x ─ Q ─ DQ ─ Conv ─ Q ─ DQ ─ Add ─ Q ─ DQ ─ Conv ─ Q ─ DQ ─ y
//!                               │
//!                    s ─ Q ─ DQ ┘
//! ```
//!
//! A plan says which *layers* are integer and has a table of *tensors* with their ranges. What stands
//! between layers follows from that: a node computes on integers where all that it reads and makes
//! is in the table. A *region* is what hangs together by such tensors. Runtimes fuse each operator with
//! the `DequantizeLinear` before it and the `QuantizeLinear` behind it into one integer kernel; or the plan
//! asks for operators of integers to begin with (`qoperator.rs`).

mod affine;
mod cost;
mod emit;
mod kernels;
mod qoperator;
mod regions;
mod spelled_out;
mod switches;
#[cfg(test)]
mod tests;

pub(crate) use affine::Affine;
pub use cost::IntegerCosts;
pub(crate) use cost::{Costing, components, gains, worthwhile};
pub(crate) use emit::{emit, made_inside};
pub(crate) use kernels::{Kernel, end, kernel, numbers};
pub(crate) use qoperator::fuse;
pub(crate) use regions::{Bounds, Regions, needed, ranges, regions};
pub(crate) use switches::disturb;
