//! What is to be known of ONNX Runtime.

use modelopt_rewrite::{Capabilities, Known, Precision};

use super::NAME;
#[cfg(feature = "onnxruntime")]
use crate::RuntimeError;
#[cfg(feature = "onnxruntime")]
use crate::descriptor::Open;
use crate::descriptor::{Opsets, RuntimeDescriptor, Source};

/// As int8, products take 0.43 of float32's time in version 1.32, and convolutions 3.3 to 6 times.
pub(in crate::adapters) static DESCRIPTOR: RuntimeDescriptor = RuntimeDescriptor {
    name: NAME,
    capabilities: Capabilities {
        runtime: Some(NAME),
        integer_operators: &["MatMul", "Gemm"],
        no_integer_batches: None,
        no_shared_parts: None,
    },
    sixteen_bits: Known { stored: &Precision::ALL, castable: &Precision::ALL },
    // Measured in version 1.32; of 28 it has no kernels of QuantizeLinear, Optional and others.
    opsets: Opsets { newest: 27, without: WITHOUT },
    source: Source::Library { find: super::find::find, install: "pip install onnxruntime" },
    has_choices: true,
    is_broadest: true,
    #[cfg(feature = "onnxruntime")]
    open: Some(OPEN),
    #[cfg(not(feature = "onnxruntime"))]
    open: None,
};

/// Kernels that end at an older version. `Bernoulli` is made of `RandomUniformLike`; `Swish` is taken apart
/// at its own version and at no newer one.
const WITHOUT: &[(&str, i64)] = &[
    ("Bernoulli", 22),
    ("Multinomial", 22),
    ("RandomNormal", 22),
    ("RandomNormalLike", 22),
    ("RandomUniform", 22),
    ("RandomUniformLike", 22),
    ("RoiAlign", 22),
    ("Swish", 25),
];

#[cfg(feature = "onnxruntime")]
const OPEN: Open = |library| {
    let library = library.ok_or(RuntimeError::NoLibrary)?;
    Ok(Box::new(super::session::Onnxruntime::load(library)?))
};
