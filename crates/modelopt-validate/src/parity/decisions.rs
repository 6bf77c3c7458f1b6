//! How choices among elements came out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Float;

/// How choices among the elements of an output came out.
///
/// A row is *decided* if its margin, the distance from its highest element to the next, is more than
/// errors that the limit of parity allows could take; the others are tosses of a coin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Decisions {
    /// Rows, over all samples.
    pub rows: u64,
    /// Rows that are decided.
    pub decided: u64,
    /// Decided rows in which the candidate chooses the same.
    pub kept: u64,
    /// The most that any choice of the candidate loses in the original's eyes: the distance from
    /// the original's highest element to the one that the candidate chose, relative to the size of
    /// what is chosen among, `√(Σ d⁴ / Σ d²)` of differences from the mean. 0 if all are kept.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub lost_margin: f64,
    /// The sample of that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub worst_sample: String,
    /// The value that the choice is made among, for outputs of integers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub among: Option<String>,
}

impl Decisions {
    /// Takes in one row's choices.
    pub(crate) fn add(&mut self, sample: &str, margin: f64, loss: f64, beyond: f64) {
        self.rows += 1;
        if margin > beyond {
            self.decided += 1;
            self.kept += u64::from(loss == 0.0);
        }
        if loss > self.lost_margin || (loss.is_nan() && !self.lost_margin.is_nan()) {
            self.lost_margin = loss;
            sample.clone_into(&mut self.worst_sample);
        }
    }

    /// Takes in those of another set of rows.
    pub(crate) fn merge(&mut self, other: Decisions) {
        self.rows += other.rows;
        self.decided += other.decided;
        self.kept += other.kept;
        if other.lost_margin > self.lost_margin || other.lost_margin.is_nan() {
            self.lost_margin = other.lost_margin;
            self.worst_sample = other.worst_sample;
        }
    }
}
