//! One module per runtime.

#[cfg(feature = "onnxruntime")]
mod onnxruntime;
#[cfg(feature = "rten")]
mod rten;
#[cfg(feature = "tract")]
mod tract;

#[cfg(feature = "onnxruntime")]
pub use self::onnxruntime::{LibrarySearch, Onnxruntime, find as find_onnxruntime};
#[cfg(feature = "rten")]
pub use self::rten::Rten;
#[cfg(feature = "tract")]
pub use self::tract::Tract;
