//! The `tract` crate.

mod descriptor;
#[cfg(feature = "tract")]
mod hazards;
#[cfg(feature = "tract")]
mod plans;
#[cfg(feature = "tract")]
mod session;
#[cfg(feature = "tract")]
mod tensor;

pub(super) use self::descriptor::DESCRIPTOR;

const NAME: &str = "tract";
