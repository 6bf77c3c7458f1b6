//! `modelopt upgrade`.

use std::path::PathBuf;

use clap::Args;

use super::gate::Enforcing;
use super::judging::Judging;
use super::making::Files;

#[derive(Args, Debug)]
pub(crate) struct Upgrade {
    #[command(flatten)]
    pub(crate) files: Files,
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
