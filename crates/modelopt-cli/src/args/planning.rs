//! What decides about layers.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use modelopt::rewrite::{Granularity, Interface, QuantFormat};

use super::forms_help;
use super::values::{Wanted, limit, scheme, step};

/// What decides about layers.
#[derive(Args, Debug)]
#[command(next_help_heading = "Plan")]
pub(crate) struct Planning {
    /// What to do to layers [default: auto]
    #[arg(long, long_help = forms_help::of_scheme(), value_parser = scheme, value_name = "SCHEME", conflicts_with = "plan")]
    pub(crate) scheme: Option<Wanted>,
    #[command(flatten)]
    pub(crate) integers: Integers,
    /// How int8-static layers are written: qdq is float operators between QuantizeLinear and
    /// DequantizeLinear, which runtimes fuse; qoperator is integer operators, for older ONNX Runtimes and
    /// for opsets 10 to 12 [default: qdq]
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "plan")]
    pub(crate) quant_format: Option<QuantFormatArgument>,
    #[command(flatten)]
    pub(crate) selection: Selection,
}

/// `QuantFormat` as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum QuantFormatArgument {
    Qdq,
    Qoperator,
}

impl From<QuantFormatArgument> for QuantFormat {
    fn from(argument: QuantFormatArgument) -> Self {
        match argument {
            QuantFormatArgument::Qdq => QuantFormat::Qdq,
            QuantFormatArgument::Qoperator => QuantFormat::Qoperator,
        }
    }
}

/// How weights become integers.
#[derive(Args, Debug)]
#[command(next_help_heading = "Plan")]
pub(crate) struct Integers {
    /// One scale per output channel, or one per weight
    #[arg(long, value_enum, value_name = "HOW", conflicts_with = "plan")]
    pub(crate) granularity: Option<GranularityArgument>,
    /// 7-bit weights, for x86 processors without VNNI, where 8-bit dynamic products can saturate
    #[arg(long, conflicts_with = "plan")]
    pub(crate) reduce_range: bool,
}

/// `Granularity` as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum GranularityArgument {
    PerChannel,
    PerTensor,
}

impl From<GranularityArgument> for Granularity {
    fn from(argument: GranularityArgument) -> Self {
        match argument {
            GranularityArgument::PerChannel => Granularity::PerChannel,
            GranularityArgument::PerTensor => Granularity::PerTensor,
        }
    }
}

/// How to compute in 16 bits.
#[derive(Args, Debug)]
#[command(next_help_heading = "Plan")]
pub(crate) struct Precision {
    /// What the float32 inputs and outputs become: float32, or what the model computes in [default:
    /// float32]
    #[arg(long, value_enum, value_name = "TYPE", conflicts_with = "plan")]
    pub(crate) io: Option<InterfaceArgument>,
    /// Keep normalizations and Softmax in float32
    #[arg(long, conflicts_with = "plan")]
    pub(crate) float32_statistics: bool,
    /// Weights and activations of which rounding leaves less than this stay float32 [default: 40]
    #[arg(long, value_parser = limit, value_name = "DB", allow_negative_numbers = true, conflicts_with = "plan")]
    pub(crate) min_rounding_sqnr: Option<f64>,
}

/// `Interface` as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum InterfaceArgument {
    Float32,
    Fp16,
    Bf16,
}

impl From<InterfaceArgument> for Interface {
    fn from(argument: InterfaceArgument) -> Self {
        match argument {
            InterfaceArgument::Float32 => Interface::Float32,
            InterfaceArgument::Fp16 => Interface::Fp16,
            InterfaceArgument::Bf16 => Interface::Bf16,
        }
    }
}

/// Which layers change, and how the model is prepared.
#[derive(Args, Debug)]
#[command(next_help_heading = "Plan")]
pub(crate) struct Selection {
    /// Carry out this plan (from `modelopt plan --save`) instead of the default rules
    #[arg(long, value_name = "FILE", conflicts_with_all = ["include", "exclude", "min_weight_bytes"])]
    pub(crate) plan: Option<PathBuf>,
    /// Change only layers that match: a layer's name, an operator, or a glob over either
    #[arg(long, value_name = "PATTERN")]
    pub(crate) include: Vec<String>,
    /// Leave layers alone that match
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Leave weights alone that are smaller than this
    #[arg(long, value_name = "BYTES")]
    pub(crate) min_weight_bytes: Option<usize>,
    #[arg(long, help = forms_help::of_steps(), value_parser = step, value_name = "NAME")]
    pub(crate) skip_rewrite: Vec<String>,
    /// Ranges of tensors that `modelopt calibrate` observed, for int8-static; all samples judge then
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    pub(crate) calibration: Option<PathBuf>,
    /// Keep the version of the operators; int8-static needs 13 and raises older models otherwise
    #[arg(long)]
    pub(crate) keep_opset: bool,
    /// Make inputs that have a default constants, so that callers can no longer override them
    #[arg(long)]
    pub(crate) freeze_inputs: bool,
}
