//! What is to be known of ONNX Runtime.

use modelopt_rewrite::{Capabilities, IntegerCosts, Known, Precision};

use super::NAME;
#[cfg(feature = "onnxruntime")]
use crate::RuntimeError;
#[cfg(feature = "onnxruntime")]
use crate::descriptor::Open;
use crate::descriptor::{Opsets, RuntimeDescriptor, Source};

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

/// What version 1.32 takes on one thread of an x86-64 processor with VNNI, from profiles of its kernels on
/// tensors of 200,000 to 500,000 numbers. They hold as ratios.
const COSTS: IntegerCosts = IntegerCosts {
    multiply: [7.6e-3, 1.9e-3],
    narrow: 1.4,
    tap: 0.9,
    thin_tap: 2.2,
    made: 0.05,
    depthwise: [(0.05, 0.0095), (0.68, 0.016)],
    border: [0.10, 0.14],
    reorder: 0.08,
    node: 1_000.0,
    operators: &[
        ("Add", 0.13, 0.10),
        ("Mul", 0.10, 0.18),
        ("Sigmoid", 0.10, 0.245),
        ("LeakyRelu", 0.18, 0.24),
        ("Concat", 0.17, 0.12),
        ("MaxPool", 0.10, 0.15),
        ("GlobalAveragePool", 0.045, 0.03),
        ("Resize", 0.14, 0.58),
        ("Relu", 0.03, 0.15),
        ("Clip", 0.03, 0.15),
        ("Transpose", 0.14, 0.045),
        ("Slice", 0.08, 0.02),
        ("Split", 0.07, 0.02),
        ("Gather", 0.08, 0.02),
        ("Expand", 0.15, 0.03),
    ],
};

/// As int8, products take 0.43 of float32's time in version 1.32, and convolutions 3.3 to 6 times.
pub(in crate::adapters) static DESCRIPTOR: RuntimeDescriptor = RuntimeDescriptor {
    name: NAME,
    capabilities: Capabilities {
        runtime: Some(NAME),
        integer_operators: &["MatMul", "Gemm"],
        static_operators: FUSED,
        static_costs: Some(&COSTS),
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
