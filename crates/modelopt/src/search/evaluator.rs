//! What a search asks of the world: to run a candidate, to measure where noise is made, and whether
//! it may go on.

use super::problem::Selection;
use crate::trial_error::TrialError;

/// Runs candidates.
pub(crate) trait Evaluator {
    /// Makes the candidate of a selection, which is tried for a reason, and runs it on all samples.
    fn evaluate(&mut self, selection: &Selection, why: Why) -> Result<Evaluation, TrialError>;

    /// The noise that each source of the problem makes alone on one sample, as excess over the limits.
    fn probe(&mut self, sample: usize) -> Result<Vec<f64>, TrialError>;

    /// Why nothing else may begin, if that is so.
    fn is_over(&self) -> Option<End>;
}

/// Why a candidate is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// So much was moved down.
    Down,
    /// So many of the moves were undone.
    Back(usize),
    /// This move was made as well.
    AsWell(usize),
    /// This move was undone.
    Undone(usize),
}

/// What one candidate told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Evaluation {
    /// Whether it meets the limits, and the metric where there is one.
    pub(crate) passes: bool,
    /// Noise over what is allowed: above 1 it is too much.
    pub(crate) excess: f64,
    /// The sample that was worst; none where it did not run.
    pub(crate) worst: Option<usize>,
    /// What of the user's metric is lost, where that is too much.
    pub(crate) lost: f64,
}

impl Evaluation {
    /// Of a candidate that does not run.
    pub(crate) const FAILED: Evaluation =
        Evaluation { passes: false, excess: f64::INFINITY, worst: None, lost: 0.0 };
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// There is nothing better to look for.
    Found,
    /// No plan that is of use passes.
    Impossible,
    /// All trials were made.
    OutOfTrials,
    /// There is no time for another one.
    OutOfTime,
    /// Somebody ended it.
    Stopped,
}
