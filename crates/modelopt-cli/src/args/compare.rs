//! `modelopt compare`.

use std::path::PathBuf;

use clap::Args;

use super::judging::Judging;

#[derive(Args, Debug)]
pub(crate) struct Compare {
    /// The model to trust
    pub(crate) original: PathBuf,
    /// The model to judge
    pub(crate) candidate: PathBuf,
    #[command(flatten)]
    pub(crate) judging: Judging,
    /// Write report.json, report.md, report.html and junit.xml into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Exit with 0 whatever the verdict
    #[arg(long, help_heading = "Gate")]
    pub(crate) no_gate: bool,
}
