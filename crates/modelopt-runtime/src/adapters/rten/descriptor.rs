//! What is to be known of the `rten` crate.

use modelopt_rewrite::{Capabilities, Known, Precision};

use super::NAME;
#[cfg(feature = "rten")]
use crate::descriptor::Open;
use crate::descriptor::{Opsets, RuntimeDescriptor, Source};

/// Models from this size on are tried here first, in bytes: they run two to seven times faster.
const LARGE: u64 = 2 << 20;

/// As int8, products take 0.67 to 0.87 of float32's time in rten 0.27, convolutions of high
/// intensity 0.4 to 0.9. It gives wrong products of batches of int8 matrices; in a branch it folds
/// what is done to constants, but not to what the graph around it folds.
pub(in crate::adapters) static DESCRIPTOR: RuntimeDescriptor = RuntimeDescriptor {
    name: NAME,
    capabilities: Capabilities {
        runtime: Some(NAME),
        integer_operators: &["MatMul", "Gemm", "Conv"],
        static_operators: &[],
        static_costs: None,
        no_integer_batches: Some("rten multiplies batches of int8 matrices wrongly"),
        no_shared_parts: Some("rten would take it apart in every run: branches share it"),
    },
    // It reads float16 as float32.
    sixteen_bits: Known { stored: &[Precision::Fp16], castable: &[] },
    source: Source::Embedded { first_from_bytes: LARGE },
    opsets: Opsets { newest: 27, without: &[] },
    has_choices: false,
    is_broadest: false,
    #[cfg(feature = "rten")]
    open: Some(OPEN),
    #[cfg(not(feature = "rten"))]
    open: None,
};

#[cfg(feature = "rten")]
const OPEN: Open = |_| Ok(Box::new(super::session::Rten));
