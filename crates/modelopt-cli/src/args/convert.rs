//! `modelopt convert`.

use clap::Args;
use modelopt::rewrite::Scheme;

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
    ///
    /// fp16, bf16: computed in 16 bits, with casts where that ends. fp16-weights, bf16-weights:
    /// weights stored in 16 bits, computed in float32: half the size at no cost.
    #[arg(
        long,
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
