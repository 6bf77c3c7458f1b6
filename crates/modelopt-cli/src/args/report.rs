//! `modelopt report`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{limit, ratio};

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
