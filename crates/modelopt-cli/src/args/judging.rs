//! What commands that judge have in common.

use clap::Args;

use super::gate::Gate;
use super::metric::Measuring;
use super::running::Running;

/// What models run on, and what the outcome must meet.
#[derive(Args, Debug)]
pub(crate) struct Judging {
    #[command(flatten)]
    pub(crate) running: Running,
    #[command(flatten)]
    pub(crate) gate: Gate,
    #[command(flatten)]
    pub(crate) measuring: Measuring,
}
