//! ONNX Runtime, by the user's shared library, which is loaded at run time.

mod descriptor;
mod find;
#[cfg(feature = "onnxruntime")]
mod library;
#[cfg(feature = "onnxruntime")]
mod session;
#[cfg(feature = "onnxruntime")]
mod value;

pub(super) use self::descriptor::DESCRIPTOR;
pub use self::find::LibrarySearch;

const NAME: &str = "onnxruntime";
