//! The user's own metric.

use clap::{Args, ValueEnum};
use modelopt::Labels;
use modelopt::validate::{Direction, MaxDrop};

use super::values::time;

/// A figure of the user's own, which decides instead of the default limit of parity.
#[derive(Args, Debug)]
#[command(next_help_heading = "Metric")]
pub(crate) struct Measuring {
    /// Command that prints the figure of the model at {model}, such as 'python eval.py {model}'
    ///
    /// It runs in the shell, for the original and for candidates; the last line that it prints is a
    /// number, or a JSON object of numbers. With a metric, --min-sqnr has no default: the metric
    /// decides, and parity only says what to try.
    #[arg(long, value_name = "COMMAND", conflicts_with = "labels")]
    pub(crate) metric: Option<String>,
    /// Which figure of a JSON object counts [default: the first]
    #[arg(long, value_name = "NAME", requires = "metric")]
    pub(crate) metric_name: Option<String>,
    /// Which way the metric is better [default: higher]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub(crate) metric_direction: Option<DirectionArgument>,
    /// How much of the metric may be lost: a share of the original's, such as 0.5%, or a number,
    /// such as 0.005 [default: 1%]
    #[arg(long, value_name = "DROP")]
    pub(crate) max_metric_drop: Option<MaxDrop>,
    /// How long the command may take for one model [default: 10m]
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub(crate) metric_timeout: Option<f64>,
    /// Count accuracy instead of running a command: the output, and the array in the samples that
    /// holds the right classes
    #[arg(long, value_name = "OUTPUT:KEY")]
    pub(crate) labels: Option<Labels>,
}

/// `Direction` as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DirectionArgument {
    Higher,
    Lower,
}

impl From<DirectionArgument> for Direction {
    fn from(argument: DirectionArgument) -> Self {
        match argument {
            DirectionArgument::Higher => Direction::Higher,
            DirectionArgument::Lower => Direction::Lower,
        }
    }
}

impl Measuring {
    /// Whether anything was said of a metric.
    pub(crate) fn is_given(&self) -> bool {
        self.metric.is_some()
            || self.metric_direction.is_some()
            || self.max_metric_drop.is_some()
            || self.metric_timeout.is_some()
            || self.labels.is_some()
    }
}
