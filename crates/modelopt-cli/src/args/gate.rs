//! What a result must meet, and what the verdict is for.

use clap::Args;

use super::values::{limit, ratio, share};

/// Limits; a figure exactly at its limit passes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Gate")]
pub(crate) struct Gate {
    /// Lowest signal-to-quantization-noise ratio of any float output [default: 20; 40 for convert, 100
    /// for upgrade]
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
