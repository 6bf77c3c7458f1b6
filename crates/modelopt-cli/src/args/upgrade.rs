//! `modelopt upgrade`.

use std::path::PathBuf;

use clap::Args;

use super::gate::Enforcing;
use super::judging::Judging;

#[derive(Args, Debug)]
pub(crate) struct Upgrade {
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
    /// Operator set of ai.onnx to bring the model to [default: the newest that ONNX Runtime runs the
    /// model with]
    #[arg(long, value_name = "N")]
    pub(crate) opset: Option<i64>,
    /// Write report.json, report.md, report.html and junit.xml of the comparison into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "no_validate")]
    pub(crate) report: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) judging: Judging,
    #[command(flatten)]
    pub(crate) enforcing: Enforcing,
}
