//! What is to be known of ONNX Runtime.

use modelopt_rewrite::{Capabilities, Known, Precision};

use super::NAME;
#[cfg(feature = "onnxruntime")]
use crate::RuntimeError;
#[cfg(feature = "onnxruntime")]
use crate::descriptor::Open;
use crate::descriptor::{RuntimeDescriptor, Source};

/// What version 1.32 computes on integers between `DequantizeLinear` and `QuantizeLinear` without being slower
/// for it than in float32. `Softmax`, `Where`, `AveragePool` have integer kernels that are slower by far;
/// `ConvTranspose`, `Sub`, `Div`, `Pad`, `ReduceMean` and linear `Resize` have none.
const FUSED: &[&str] = &[
    "Conv",
    "MatMul",
    "Gemm",
    "Add",
    "Mul",
    "Concat",
    "Sigmoid",
    "LeakyRelu",
    "MaxPool",
    "GlobalAveragePool",
    "Relu",
    "Clip",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Slice",
    "Split",
    "Gather",
    "Expand",
    "Resize",
];

/// As int8, products take 0.43 of float32's time in version 1.32, and convolutions 3.3 to 6 times.
pub(in crate::adapters) static DESCRIPTOR: RuntimeDescriptor = RuntimeDescriptor {
    name: NAME,
    capabilities: Capabilities {
        runtime: Some(NAME),
        integer_operators: &["MatMul", "Gemm"],
        static_operators: FUSED,
        no_integer_batches: None,
        no_shared_parts: None,
    },
    sixteen_bits: Known { stored: &Precision::ALL, castable: &Precision::ALL },
    source: Source::Library { find: super::find::find, install: "pip install onnxruntime" },
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
    Ok(Box::new(super::session::Onnxruntime::load(library)?))
};
