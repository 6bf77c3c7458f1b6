//! What can be chosen for a whole plan: 16-bit types, how weights become integers and between which numbers
//! tensors do, and what becomes of the model's inputs and outputs.

use modelopt_graph::DataType;
use serde::{Deserialize, Serialize};

use crate::quantize::Granularity;

/// A 16-bit float type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// float16: 11 significant bits, up to 65504.
    Fp16,
    /// bfloat16: 8 significant bits, the range of float32.
    Bf16,
}

impl Precision {
    /// Both.
    pub const ALL: [Precision; 2] = [Precision::Fp16, Precision::Bf16];

    /// Element type.
    pub fn dtype(self) -> DataType {
        match self {
            Precision::Fp16 => DataType::FLOAT16,
            Precision::Bf16 => DataType::BFLOAT16,
        }
    }

    /// Name, as on the command line and in names of new values.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Fp16 => "fp16",
            Precision::Bf16 => "bf16",
        }
    }

    /// The largest finite number.
    pub fn largest(self) -> f32 {
        match self {
            Precision::Fp16 => half::f16::MAX.to_f32(),
            Precision::Bf16 => half::bf16::MAX.to_f32(),
        }
    }
}

/// What becomes of float32 inputs and outputs of a model that computes in 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interface {
    /// They stay float32, with casts behind and before them.
    #[default]
    Float32,
    /// They become float16.
    Fp16,
    /// They become bfloat16.
    Bf16,
}

impl Interface {
    #[allow(clippy::trivially_copy_pass_by_ref)] // What serde calls.
    pub(crate) fn is_default(&self) -> bool {
        *self == Interface::default()
    }

    /// The type that they become, if they change.
    pub fn precision(self) -> Option<Precision> {
        match self {
            Interface::Float32 => None,
            Interface::Fp16 => Some(Precision::Fp16),
            Interface::Bf16 => Some(Precision::Bf16),
        }
    }
}

/// How computing on integers is written, for forms that quantize activations by ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuantFormat {
    /// Operators of float between `DequantizeLinear` and `QuantizeLinear`, which runtimes fuse.
    #[default]
    Qdq,
    /// Operators of integers, such as `QLinearConv`.
    Qoperator,
}

impl QuantFormat {
    #[allow(clippy::trivially_copy_pass_by_ref)] // What serde calls.
    pub(crate) fn is_default(&self) -> bool {
        *self == QuantFormat::default()
    }
}

/// How weights are turned into integers, for all layers of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Numerics {
    /// One scale per output channel, or one per weight.
    #[serde(default)]
    pub granularity: Granularity,
    /// Use [-63, 63] rather than [-127, 127]: for x86 processors without VNNI, whose 8-bit
    /// multiply-add saturates at 16 bits in `int8-dynamic` layers.
    #[serde(default)]
    pub reduce_range: bool,
}

impl Numerics {
    /// The largest magnitude of a quantized weight.
    pub(crate) fn limit(self) -> f32 {
        if self.reduce_range { 63.0 } else { 127.0 }
    }
}

/// The numbers that a tensor takes, for forms that quantize it by a range found beforehand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TensorRange {
    /// Name of the tensor in the model.
    pub name: String,
    /// Its smallest number.
    pub min: f32,
    /// Its largest number.
    pub max: f32,
    /// What its channels are divided by where they are made, and the weights that read them multiplied by: a
    /// power of two for each channel, or none. The range is then that of what is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub divided_by: Vec<f32>,
}

impl TensorRange {
    /// The range of a tensor that is not divided.
    pub fn new(name: impl Into<String>, min: f32, max: f32) -> Self {
        TensorRange { name: name.into(), min, max, divided_by: Vec::new() }
    }

    /// Whether numbers can lie in it.
    pub fn is_sound(&self) -> bool {
        self.min.is_finite() && self.max.is_finite() && self.min <= self.max
    }
}
