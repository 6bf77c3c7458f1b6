//! `modelopt plan`.

use std::path::PathBuf;

use clap::Args;
use modelopt::rewrite::Scheme;

use super::forms_help;
use super::planning::{Integers, Precision, Selection};
use super::running::{Sampling, Target};

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
    #[arg(long, help = forms_help::of_planned_scheme(), value_name = "SCHEME", help_heading = "Plan", conflicts_with = "plan")]
    pub(crate) scheme: Option<Scheme>,
    #[command(flatten)]
    pub(crate) integers: Integers,
    #[command(flatten)]
    pub(crate) precision: Precision,
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}
