//! `modelopt quantize`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use modelopt::{Objective, Smoothing};

use super::gate::Enforcing;
use super::judging::Judging;
use super::making::Making;
use super::planning::Planning;
use super::values::time;

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
    pub(crate) judging: Judging,
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
