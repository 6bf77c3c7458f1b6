//! One module per runtime.

#[cfg(feature = "rten")]
mod rten;
#[cfg(feature = "tract")]
mod tract;

#[cfg(feature = "rten")]
pub use self::rten::Rten;
#[cfg(feature = "tract")]
pub use self::tract::Tract;
