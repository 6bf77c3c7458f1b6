//! What is to be known of the `tract` crate.

use modelopt_rewrite::{Capabilities, Known, Precision};

use super::NAME;
#[cfg(feature = "tract")]
use crate::descriptor::Open;
use crate::descriptor::{Opsets, RuntimeDescriptor, Source};

/// int8 products take 1.2 to 14 times as long as float32 in tract 0.23.
pub(in crate::adapters) static DESCRIPTOR: RuntimeDescriptor = RuntimeDescriptor {
    name: NAME,
    capabilities: Capabilities {
        runtime: Some(NAME),
        integer_operators: &[],
        static_operators: &[],
        static_costs: None,
        no_integer_batches: None,
        no_shared_parts: None,
    },
    sixteen_bits: Known { stored: &[Precision::Fp16], castable: &[Precision::Fp16] },
    // It knows more operators than others that are embedded.
    source: Source::Embedded { first_from_bytes: 0 },
    opsets: Opsets { newest: 27, without: &[] },
    has_choices: false,
    is_broadest: false,
    #[cfg(feature = "tract")]
    open: Some(OPEN),
    #[cfg(not(feature = "tract"))]
    open: None,
};

#[cfg(feature = "tract")]
const OPEN: Open = |_| Ok(Box::new(super::session::Tract));
