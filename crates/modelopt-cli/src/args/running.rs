//! Where and on what models run.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use modelopt::RuntimeChoice;
use modelopt::runtime::Optimization;

use super::values::{sample_count, seconds};

/// Where and on what models run.
#[derive(Args, Debug)]
#[command(next_help_heading = "Validation")]
pub(crate) struct Running {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Threads for the runtime; 0 for all
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Measure no latency, load time and memory
    #[arg(long, conflicts_with_all = ["max_slowdown", "latency_seconds"])]
    pub(crate) no_latency: bool,
    /// Whether both models run with the same noise: auto where random operators would make them
    /// differ, on or not at all, off [default: auto]
    ///
    /// Nodes that draw random numbers, and Dropout in training mode, compute the same numbers of the
    /// same distribution in both models then. What is written keeps its randomness.
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) same_noise: Option<SameNoiseArgument>,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

/// `Config::same_noise` as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SameNoiseArgument {
    Auto,
    On,
    Off,
}

/// What models run on.
#[derive(Args, Debug)]
#[command(next_help_heading = "Validation")]
pub(crate) struct Sampling {
    /// Real inputs: an .npz (keys are input names), a folder of them, a folder of NAME.npy, or a
    /// folder with `test_data_set_*`; invented ones are used otherwise
    #[arg(long, value_name = "PATH")]
    pub(crate) samples: Option<PathBuf>,
    /// Size of a symbolic dimension of invented inputs: NAME=SIZE, or INPUT.AXIS=SIZE
    #[arg(long, value_name = "NAME=SIZE", conflicts_with = "samples")]
    pub(crate) dim: Vec<String>,
    /// Value of an invented input: NAME=VALUE, or NAME=VALUE,VALUE,…
    #[arg(long = "input", value_name = "NAME=VALUE", conflicts_with = "samples")]
    pub(crate) fixed: Vec<String>,
    /// Seed of invented inputs
    #[arg(long, value_name = "N", conflicts_with = "samples")]
    pub(crate) seed: Option<u64>,
    /// How many samples to invent
    #[arg(long, value_parser = sample_count, value_name = "N", conflicts_with = "samples")]
    pub(crate) sample_count: Option<usize>,
}

impl Sampling {
    /// Whether anything was said of what to run on.
    pub(crate) fn is_given(&self) -> bool {
        self.samples.is_some()
            || !self.dim.is_empty()
            || !self.fixed.is_empty()
            || self.seed.is_some()
            || self.sample_count.is_some()
    }
}

/// Where models run.
#[derive(Args, Debug)]
#[command(next_help_heading = "Validation")]
pub(crate) struct Target {
    /// Where the model will run, then others to report on: onnxruntime, tract, rten
    ///
    /// The first is the target, which default rules and gate follow. auto, the default, proves
    /// parity in the embedded tract (or rten where tract cannot run the original), plans for
    /// anywhere, and reports latency without judging it.
    #[arg(long, value_name = "NAME[,NAME…]")]
    pub(crate) runtime: Option<RuntimeChoice>,
    /// Library of ONNX Runtime, or a folder that holds it [default: that of the variable
    /// `ORT_DYLIB_PATH`, of the system's library path, or of the Python on PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) onnxruntime: Option<PathBuf>,
    /// How far ONNX Runtime optimises graphs [default: all]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) optimization: Option<OptimizationArgument>,
    /// Where ONNX Runtime computes: cpu, cuda, tensorrt, openvino, … [default: cpu]
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Least time to measure latency for, in seconds [default: 1]
    #[arg(long, value_parser = seconds, value_name = "S")]
    pub(crate) latency_seconds: Option<f64>,
}

/// `Optimization` as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OptimizationArgument {
    Off,
    Basic,
    Extended,
    All,
}

impl From<OptimizationArgument> for Optimization {
    fn from(argument: OptimizationArgument) -> Self {
        match argument {
            OptimizationArgument::Off => Optimization::Off,
            OptimizationArgument::Basic => Optimization::Basic,
            OptimizationArgument::Extended => Optimization::Extended,
            OptimizationArgument::All => Optimization::All,
        }
    }
}
