//! ONNX Runtime, by the user's shared library, which is loaded at run time.

mod find;
#[cfg(feature = "onnxruntime")]
mod library;
#[cfg(feature = "onnxruntime")]
mod session;
#[cfg(feature = "onnxruntime")]
mod value;

use modelopt_rewrite::{Capabilities, Known, Precision};

pub use self::find::LibrarySearch;
#[cfg(feature = "onnxruntime")]
use crate::RuntimeError;
#[cfg(feature = "onnxruntime")]
use crate::descriptor::Open;
use crate::descriptor::{RuntimeDescriptor, Source};

const NAME: &str = "onnxruntime";

/// As int8, products take 0.43 of float32's time in version 1.32, and convolutions 3.3 to 6 times.
pub(crate) static DESCRIPTOR: RuntimeDescriptor = RuntimeDescriptor {
    name: NAME,
    capabilities: Capabilities {
        runtime: Some(NAME),
        integer_operators: &["MatMul", "Gemm"],
        no_integer_batches: None,
        no_shared_parts: None,
    },
    sixteen_bits: Known { stored: &Precision::ALL, castable: &Precision::ALL },
    source: Source::Library { find: find::find, install: "pip install onnxruntime" },
    has_choices: true,
    is_broadest: true,
    #[cfg(feature = "onnxruntime")]
    open: Some(OPEN),
    #[cfg(not(feature = "onnxruntime"))]
    open: None,
};

#[cfg(feature = "onnxruntime")]
const OPEN: Open = |library| {
    let library = library.ok_or(RuntimeError::NoLibrary)?;
    Ok(Box::new(session::Onnxruntime::load(library)?))
};
