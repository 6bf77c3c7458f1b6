//! `modelopt convert`.

use clap::Args;
use modelopt::rewrite::Scheme;

use super::forms_help;
use super::gate::Enforcing;
use super::judging::Judging;
use super::making::Making;
use super::planning::{Precision, Selection};
use super::values::sixteen;

#[derive(Args, Debug)]
pub(crate) struct Convert {
    #[command(flatten)]
    pub(crate) making: Making,
    /// What to convert to, wherever it is possible and safe
    #[arg(
        long,
        long_help = forms_help::of_to(),
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
    pub(crate) judging: Judging,
    #[command(flatten)]
    pub(crate) enforcing: Enforcing,
}
