//! What commands that make models have in common.

use std::path::PathBuf;

use clap::Args;

/// From which file to which.
#[derive(Args, Debug)]
pub(crate) struct Files {
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
}

/// From which file to which, and what else to write.
#[derive(Args, Debug)]
pub(crate) struct Making {
    #[command(flatten)]
    pub(crate) files: Files,
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
