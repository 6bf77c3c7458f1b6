//! The `tract` crate.

#[cfg(feature = "tract")]
mod hazards;
#[cfg(feature = "tract")]
mod plans;
#[cfg(feature = "tract")]
mod session;
#[cfg(feature = "tract")]
mod tensor;

use modelopt_rewrite::{Capabilities, Known, Precision};

#[cfg(feature = "tract")]
use crate::descriptor::Open;
use crate::descriptor::{RuntimeDescriptor, Source};

const NAME: &str = "tract";

/// int8 products take 1.2 to 14 times as long as float32 in tract 0.23.
pub(crate) static DESCRIPTOR: RuntimeDescriptor = RuntimeDescriptor {
    name: NAME,
    capabilities: Capabilities {
        runtime: Some(NAME),
        integer_operators: &[],
        no_integer_batches: None,
        no_shared_parts: None,
    },
    sixteen_bits: Known { stored: &[Precision::Fp16], castable: &[Precision::Fp16] },
    // It knows more operators than others that are embedded.
    source: Source::Embedded { first_from_bytes: 0 },
    has_choices: false,
    is_broadest: false,
    #[cfg(feature = "tract")]
    open: Some(OPEN),
    #[cfg(not(feature = "tract"))]
    open: None,
};

#[cfg(feature = "tract")]
const OPEN: Open = |_| Ok(Box::new(session::Tract));
