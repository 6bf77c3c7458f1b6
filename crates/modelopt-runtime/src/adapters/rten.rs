//! The `rten` crate.

mod descriptor;
#[cfg(feature = "rten")]
mod session;
#[cfg(feature = "rten")]
mod value;

pub(super) use self::descriptor::DESCRIPTOR;

const NAME: &str = "rten";
