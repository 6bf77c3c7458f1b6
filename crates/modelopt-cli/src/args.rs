//! The command line, as people read it in `--help`.

mod metric;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use modelopt::rewrite::{self, Granularity, Interface, Scheme};
use modelopt::runtime::Optimization;
use modelopt::{Objective, RuntimeChoice, Smoothing};

pub(crate) use metric::Measuring;

/// Makes ONNX models smaller and faster, and proves that they still are the same model.
#[derive(Debug, Parser)]
#[command(
    name = "modelopt",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done; 1 error; 2 wrong usage; 3 the gate said no and nothing was written; 130 stopped by Ctrl-C."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Print one JSON document on stdout instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no summary; errors and warnings only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Settings file [default: modelopt.toml in the current folder, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Quantize a model, and write it only if it still agrees with the original
    #[command(after_help = QUANTIZE_EXAMPLES)]
    Quantize(Quantize),
    /// Convert a model to float16 or bfloat16, and write it only if it still agrees
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(Convert),
    /// Show what would be done to each layer, and why; or what each layer costs
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Plan),
    /// Run two models on the same inputs and judge how close they are
    Compare(Compare),
    /// Measure the latency of models, on several runtimes, thread counts and sizes
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Bench),
    /// Show what is in a model: inputs, outputs, operators, weights
    Inspect(Inspect),
    /// Render a report, or hold it against an earlier one
    #[command(after_help = REPORT_EXAMPLES)]
    Report(Report),
    /// Print a completion script for a shell
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
    /// Write man pages into a folder
    Man {
        /// Folder
        folder: PathBuf,
    },
    /// Try one model for a parent process
    #[command(hide = true)]
    Worker {
        /// Model
        model: PathBuf,
        /// Library of ONNX Runtime
        library: Option<PathBuf>,
    },
}

const QUANTIZE_EXAMPLES: &str = "\
Examples:
  modelopt quantize model.onnx -o model.int8.onnx --samples inputs/
  modelopt quantize model.onnx -o small.onnx --min-sqnr 30 --objective size --time-budget 5m
  modelopt quantize model.onnx -o small.onnx --scheme int8-weights
  modelopt quantize model.onnx -o fast.onnx --exclude '/decoder/*' --explain
  modelopt quantize model.onnx -o out.onnx --dim batch=1 --input sr=16000
  modelopt quantize model.onnx -o out.onnx --runtime onnxruntime,rten --report report/";

const CONVERT_EXAMPLES: &str = "\
Examples:
  modelopt convert model.onnx -o model.fp16.onnx --to fp16-weights
  modelopt convert model.onnx -o model.fp16.onnx --to fp16 --samples inputs/ --explain
  modelopt convert model.onnx -o model.fp16.onnx --to fp16 --io fp16
  modelopt convert model.onnx -o model.bf16.onnx --to bf16 --exclude Softmax";

const PLAN_EXAMPLES: &str = "\
Examples:
  modelopt plan model.onnx --runtime onnxruntime --save plan.toml
  modelopt plan model.onnx --runtime onnxruntime --samples inputs/ --sensitivity";

const BENCH_EXAMPLES: &str = "\
Examples:
  modelopt bench model.onnx model.int8.onnx --runtime onnxruntime,tract,rten
  modelopt bench model.onnx --runtime onnxruntime --threads 1,2,4 --dim batch=1,8";

const REPORT_EXAMPLES: &str = "\
Examples:
  modelopt report report/report.json --format html > report.html
  modelopt report new/report.json --baseline old/report.json --max-sqnr-loss 2";

#[derive(Args, Debug)]
pub(crate) struct Quantize {
    #[command(flatten)]
    pub(crate) making: Making,
    #[command(flatten)]
    pub(crate) planning: Planning,
    /// Choose schemes by measuring the model's own layers on the target, not by the table
    #[arg(long, help_heading = "Plan", conflicts_with_all = ["plan", "scheme", "no_validate"])]
    pub(crate) measure: bool,
    /// Where measurements of layers are kept [default: modelopt/layers.json in the user's cache]
    #[arg(long, help_heading = "Plan", value_name = "FILE", requires = "measure")]
    pub(crate) measure_cache: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) searching: Searching,
    #[command(flatten)]
    pub(crate) running: Running,
    #[command(flatten)]
    pub(crate) gate: Gate,
    #[command(flatten)]
    pub(crate) measuring: Measuring,
    #[command(flatten)]
    pub(crate) enforcing: Enforcing,
}

/// How to search for a plan.
#[derive(Args, Debug)]
#[command(next_help_heading = "Search")]
pub(crate) struct Searching {
    /// What to keep most of while layers go down the ladder: balanced, latency, size [default:
    /// balanced]
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with_all = ["plan", "no_validate", "no_gate"])]
    pub(crate) objective: Option<ObjectiveArgument>,
    /// How long all may take, the verdict included: 60s, 5m, or seconds [default: no limit]
    ///
    /// The best plan found by then is judged. Without a limit the same model and settings give the
    /// same plan on any machine.
    #[arg(long, value_parser = time, value_name = "TIME", conflicts_with_all = ["plan", "no_validate", "no_gate"])]
    pub(crate) time_budget: Option<f64>,
    /// How many plans are run on all samples at most, the verdict included [default: 25]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N", conflicts_with_all = ["plan", "no_validate", "no_gate"])]
    pub(crate) max_trials: Option<u32>,
    /// When to move ranges of activations into weights: auto where parity fails without, on
    /// wherever it lowers the error, off [default: auto]
    #[arg(long, value_enum, value_name = "WHEN", conflicts_with_all = ["plan", "no_validate"])]
    pub(crate) smoothing: Option<SmoothingArgument>,
    /// Do not correct biases for the mean error of rounded weights
    #[arg(long, conflicts_with_all = ["plan", "no_validate"])]
    pub(crate) no_bias_correction: bool,
}

/// `Objective` as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ObjectiveArgument {
    Balanced,
    Latency,
    Size,
}

impl From<ObjectiveArgument> for Objective {
    fn from(argument: ObjectiveArgument) -> Self {
        match argument {
            ObjectiveArgument::Balanced => Objective::Balanced,
            ObjectiveArgument::Latency => Objective::Latency,
            ObjectiveArgument::Size => Objective::Size,
        }
    }
}

/// `Smoothing` as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SmoothingArgument {
    Auto,
    On,
    Off,
}

impl From<SmoothingArgument> for Smoothing {
    fn from(argument: SmoothingArgument) -> Self {
        match argument {
            SmoothingArgument::Auto => Smoothing::Auto,
            SmoothingArgument::On => Smoothing::On,
            SmoothingArgument::Off => Smoothing::Off,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Convert {
    #[command(flatten)]
    pub(crate) making: Making,
    /// What to convert to, wherever it is possible and safe
    ///
    /// fp16, bf16: computed in 16 bits, with casts where that ends. fp16-weights, bf16-weights:
    /// weights stored in 16 bits, computed in float32: half the size at no cost.
    #[arg(
        long,
        value_parser = sixteen,
        value_name = "TYPE",
        help_heading = "Plan",
        required_unless_present = "plan",
        conflicts_with = "plan"
    )]
    pub(crate) to: Option<Scheme>,
    #[command(flatten)]
    pub(crate) precision: Precision,
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) running: Running,
    #[command(flatten)]
    pub(crate) gate: Gate,
    #[command(flatten)]
    pub(crate) measuring: Measuring,
    #[command(flatten)]
    pub(crate) enforcing: Enforcing,
}

/// From which file to which, and what else to write.
#[derive(Args, Debug)]
pub(crate) struct Making {
    /// Model to start from; - reads from stdin
    pub(crate) input: PathBuf,
    /// Where to write the result; - writes to stdout
    #[arg(long, short, value_name = "FILE", required_unless_present = "in_place")]
    pub(crate) output: Option<PathBuf>,
    /// Write the result over the input
    #[arg(long)]
    pub(crate) in_place: bool,
    /// Write large weights to an external file beside the model even if it is below 2 GB
    #[arg(long)]
    pub(crate) external_data: bool,
    /// Also print the plan: each layer, what was done and why
    #[arg(long)]
    pub(crate) explain: bool,
    /// Save the plan that was carried out, for --plan
    #[arg(long, value_name = "FILE")]
    pub(crate) save_plan: Option<PathBuf>,
    /// Write report.json, report.md, report.html and junit.xml into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
}

/// What the verdict is for.
#[derive(Args, Debug)]
pub(crate) struct Enforcing {
    /// Run and judge, but write the result whatever the verdict
    #[arg(long, conflicts_with = "no_validate", help_heading = "Gate")]
    pub(crate) no_gate: bool,
    /// Run nothing and write the result unproven
    #[arg(
        long,
        help_heading = "Gate",
        conflicts_with_all = [
            "threads", "same_noise", "samples", "dim", "fixed", "seed", "sample_count", "onnxruntime",
            "optimization", "provider", "no_latency", "latency_seconds", "min_sqnr",
            "max_abs_error", "min_top1", "min_shrink", "max_slowdown",
        ]
    )]
    pub(crate) no_validate: bool,
}

/// What decides about layers.
#[derive(Args, Debug)]
#[command(next_help_heading = "Plan")]
pub(crate) struct Planning {
    /// What to do to layers [default: auto]
    ///
    /// auto: search for the plan that meets the limits and gives up the least, from what pays on
    /// the target (see --runtime) down the ladder int8-dynamic, int8-weights, fp16-weights, keep.
    /// The others are done wherever they are possible, elsewhere the next one down.
    /// int8-dynamic: activations quantized at run time, integer matrix products, the other weights
    /// stored as int8. int8-weights: all weights stored as int8, computed in float. keep: nothing.
    /// For 16 bits see `modelopt convert`.
    #[arg(long, value_parser = scheme, value_name = "SCHEME", conflicts_with = "plan")]
    pub(crate) scheme: Option<Wanted>,
    #[command(flatten)]
    pub(crate) integers: Integers,
    #[command(flatten)]
    pub(crate) selection: Selection,
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
    /// Leave out a preparation step: sort, freeze-inputs, functions, aliases, constants, fold, batchnorm, dead
    #[arg(long, value_parser = step, value_name = "NAME")]
    pub(crate) skip_rewrite: Vec<String>,
    /// Make inputs that have a default constants, so that callers can no longer override them
    #[arg(long)]
    pub(crate) freeze_inputs: bool,
}

/// One scheme for all layers, or a search; not `Option`, which means that nothing was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Auto,
    Scheme(Scheme),
}

/// A scheme that `quantize` knows.
fn scheme(text: &str) -> Result<Wanted, String> {
    if text == "auto" {
        return Ok(Wanted::Auto);
    }
    let known = |scheme: Scheme| scheme.is_int8() || scheme.is_keep();
    among(text, known).map(Wanted::Scheme).map_err(|others| format!("{others}, auto"))
}

/// A length of time, in seconds.
fn time(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.chars().last().unwrap_or('s')),
        None => (text, 's'),
    };
    let factor = match unit {
        'm' => 60.0,
        'h' => 3600.0,
        _ => 1.0,
    };
    limit(number)
        .ok()
        .map(|number| number * factor)
        .filter(|seconds| *seconds > 0.0 && *seconds <= 1e6)
        .ok_or_else(|| "it must be above 0, such as 60s or 5m".to_owned())
}

/// A scheme that `convert` knows.
fn sixteen(text: &str) -> Result<Scheme, String> {
    among(text, Scheme::is_sixteen)
}

fn among(text: &str, fits: impl Fn(Scheme) -> bool) -> Result<Scheme, String> {
    let fitting: Vec<Scheme> = Scheme::all().filter(|&scheme| fits(scheme)).collect();
    let named = fitting.iter().copied().find(|scheme| scheme.name() == text);
    named.ok_or_else(|| {
        let names: Vec<&str> = fitting.iter().map(|scheme| scheme.name()).collect();
        format!("there are {}", names.join(", "))
    })
}

fn step(text: &str) -> Result<String, String> {
    if rewrite::steps().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    let known = rewrite::steps().collect::<Vec<_>>().join(", ");
    Err(format!("'{text}' is not a preparation step; there are {known}"))
}

/// The most samples that are invented: they are all kept in memory.
const MOST_SAMPLES: usize = 10_000;

fn sample_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=MOST_SAMPLES).contains(&count) => Ok(count),
        _ => Err(format!("it must be a number from 1 to {MOST_SAMPLES}")),
    }
}

fn limit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if !number.is_nan() => Ok(number),
        _ => Err("it must be a number".to_owned()),
    }
}

/// A ratio that a limit can be, or `off`.
fn ratio(text: &str) -> Result<f64, String> {
    if text == "off" {
        return Ok(f64::INFINITY);
    }
    limit(text)
        .ok()
        .filter(|&ratio| ratio > 0.0)
        .ok_or_else(|| "it must be above 0, such as 1.05, or off".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    limit(text)
        .ok()
        .filter(|seconds| (0.0..=3600.0).contains(seconds))
        .ok_or_else(|| "it must be from 0 to 3600".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    limit(text)
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "it must be from 0 to 1".to_owned())
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

/// Where and on what models run.
#[derive(Args, Debug)]
#[command(next_help_heading = "Validation")]
pub(crate) struct Running {
    #[command(flatten)]
    pub(crate) place: Place,
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
pub(crate) struct Place {
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

/// Limits; a figure exactly at its limit passes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Gate")]
pub(crate) struct Gate {
    /// Lowest signal-to-quantization-noise ratio of any float output [default: 20; 40 for convert]
    #[arg(long, value_parser = limit, value_name = "DB", allow_negative_numbers = true)]
    pub(crate) min_sqnr: Option<f64>,
    /// Highest absolute error of any float output [default: none]
    #[arg(long, value_parser = limit, value_name = "X")]
    pub(crate) max_abs_error: Option<f64>,
    /// Lowest share of rows whose best class is the original's, 0 to 1 [default: none]
    #[arg(long, value_parser = share, value_name = "SHARE")]
    pub(crate) min_top1: Option<f64>,
    /// Highest ratio of latencies, result to original, beyond the measured noise [default: 1.05 on
    /// a runtime that --runtime names]
    #[arg(long, value_parser = ratio, value_name = "X")]
    pub(crate) max_slowdown: Option<f64>,
    /// Lowest ratio of sizes, original to result [default: 1]
    #[arg(long, value_parser = limit, value_name = "X")]
    pub(crate) min_shrink: Option<f64>,
}

#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// Model; - reads from stdin
    pub(crate) input: PathBuf,
    /// Run the model and show what each int8 layer costs at the outputs, the one first that is best
    /// left out
    #[arg(long)]
    pub(crate) sensitivity: bool,
    /// Save the plan as a file that `modelopt quantize --plan` takes
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// What to do wherever it is possible: int8-dynamic, int8-weights, fp16, bf16, fp16-weights,
    /// bf16-weights, keep [default: what pays on the target, see --runtime]
    #[arg(long, value_name = "SCHEME", help_heading = "Plan", conflicts_with = "plan")]
    pub(crate) scheme: Option<Scheme>,
    #[command(flatten)]
    pub(crate) integers: Integers,
    #[command(flatten)]
    pub(crate) precision: Precision,
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

#[derive(Args, Debug)]
pub(crate) struct Compare {
    /// The model to trust
    pub(crate) original: PathBuf,
    /// The model to judge
    pub(crate) candidate: PathBuf,
    #[command(flatten)]
    pub(crate) running: Running,
    #[command(flatten)]
    pub(crate) gate: Gate,
    #[command(flatten)]
    pub(crate) measuring: Measuring,
    /// Write report.json, report.md, report.html and junit.xml into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Exit with 0 whatever the verdict
    #[arg(long, help_heading = "Gate")]
    pub(crate) no_gate: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// Model; - reads from stdin
    pub(crate) input: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// Models
    #[arg(required = true)]
    pub(crate) models: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Thread counts; 0 for all of the machine
    #[arg(long, value_delimiter = ',', value_name = "N[,N…]")]
    pub(crate) threads: Vec<usize>,
    /// Real inputs, of which the first is measured; invented ones are used otherwise
    #[arg(long, value_name = "PATH")]
    pub(crate) samples: Option<PathBuf>,
    /// Sizes of a symbolic dimension of invented inputs: NAME=SIZE[,SIZE…], or INPUT.AXIS=…
    #[arg(long, value_name = "NAME=SIZE[,SIZE…]", conflicts_with = "samples")]
    pub(crate) dim: Vec<String>,
    /// Value of an invented input: NAME=VALUE, or NAME=VALUE,VALUE,…
    #[arg(long = "input", value_name = "NAME=VALUE", conflicts_with = "samples")]
    pub(crate) fixed: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Report {
    /// Report that --report or --json wrote
    #[arg(value_name = "REPORT")]
    pub(crate) file: PathBuf,
    /// An earlier report; exits with 3 where the new one is worse than the limits allow
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    pub(crate) baseline: Option<PathBuf>,
    /// What to print [default: markdown]
    #[arg(long, value_enum, conflicts_with = "json")]
    pub(crate) format: Option<FormatArgument>,
    /// Highest ratio of sizes, new to old, or off [default: 1.01]
    #[arg(long, value_parser = ratio, value_name = "X", requires = "baseline")]
    pub(crate) max_size_growth: Option<f64>,
    /// Highest ratio of latency ratios, new to old, beyond the measured noise, or off [default: 1.05]
    #[arg(long, value_parser = ratio, value_name = "X", requires = "baseline")]
    pub(crate) max_slowdown: Option<f64>,
    /// Most SQNR that an output may lose [default: 1]
    #[arg(long, value_parser = limit, value_name = "DB", requires = "baseline")]
    pub(crate) max_sqnr_loss: Option<f64>,
    /// Highest ratio of load times, new to old [default: none]
    #[arg(long, value_parser = ratio, value_name = "X", requires = "baseline")]
    pub(crate) max_load_growth: Option<f64>,
    /// Highest ratio of peak memory, new to old [default: none]
    #[arg(long, value_parser = ratio, value_name = "X", requires = "baseline")]
    pub(crate) max_memory_growth: Option<f64>,
}

/// Formats of a report.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FormatArgument {
    Json,
    Markdown,
    Html,
    Junit,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// The files that docs/ci.md gives away call the program as it is.
    #[test]
    fn the_ci_files_call_it_rightly() {
        for name in ["github-actions.yml", "gitlab-ci.yml"] {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ci/");
            let text = std::fs::read_to_string(format!("{folder}{name}")).unwrap();
            let mut commands: Vec<String> = Vec::new();
            let mut goes_on = false;
            for line in text.lines().map(str::trim) {
                let line = line.strip_prefix("run: ").unwrap_or(line);
                if line.starts_with("modelopt ") {
                    commands.push(line.to_owned());
                    goes_on = true;
                } else if goes_on && line.starts_with("--") {
                    let last = commands.last_mut().unwrap();
                    *last = format!("{last} {line}");
                } else {
                    goes_on = false;
                }
            }
            assert_eq!(commands.len(), 2, "{name}: {commands:?}");
            for command in commands {
                let command = command.split(" || ").next().unwrap();
                let parsed = Arguments::try_parse_from(command.split_whitespace());
                assert!(parsed.is_ok(), "{name}: {command}: {}", parsed.unwrap_err());
            }
        }
    }
}
