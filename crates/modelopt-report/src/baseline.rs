//! A report held against an earlier one.

use modelopt_validate::{Bound, number};
use serde::{Deserialize, Serialize};

use crate::Document;

mod compare;
mod notes;
mod render;

/// Name and version of the schema of [`Regression`]. Within a version, fields are only added.
pub const REGRESSION_SCHEMA: &str = "modelopt.regression/1";

/// How much worse than the baseline a report may be.
///
/// A figure exactly at its limit passes. `None` means no limit, and is written `"off"`; a key left
/// out has its default. Without limits, these are always regressions: a verdict that passed and no
/// longer does, a target runtime that no longer runs the models, an output that is gone, and more
/// mismatches in an output that must be equal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RegressionLimits {
    /// Highest ratio of the candidates' sizes, new to old; 1.01 by default.
    #[serde(with = "number::limit")]
    pub max_size_growth: Option<f64>,
    /// Highest ratio of the latency ratios, new to old; 1.05 by default. Broken only if the whole
    /// new confidence interval is above the upper end of the old one times this.
    #[serde(with = "number::limit")]
    pub max_slowdown: Option<f64>,
    /// Most SQNR that an output may lose, in dB; 1 by default. What was above 120 dB counts as
    /// 120: beyond it lies the rounding of float32.
    #[serde(with = "number::limit")]
    pub max_sqnr_loss_db: Option<f64>,
    /// Highest ratio of the highest absolute errors of an output, new to old; none by default.
    #[serde(with = "number::limit")]
    pub max_error_growth: Option<f64>,
    /// Most top-1 agreement that an output may lose, from 0 to 1; none by default.
    #[serde(with = "number::limit")]
    pub max_top1_loss: Option<f64>,
    /// Highest ratio of the candidates' load times, new to old; none by default.
    #[serde(with = "number::limit")]
    pub max_load_growth: Option<f64>,
    /// Highest ratio of the candidates' peak memory, new to old; none by default.
    #[serde(with = "number::limit")]
    pub max_memory_growth: Option<f64>,
}

impl Default for RegressionLimits {
    fn default() -> Self {
        RegressionLimits {
            max_size_growth: Some(1.01),
            max_slowdown: Some(1.05),
            max_sqnr_loss_db: Some(1.0),
            max_error_growth: None,
            max_top1_loss: None,
            max_load_growth: None,
            max_memory_growth: None,
        }
    }
}

/// A report compared with an earlier one, figure by figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    /// Always [`REGRESSION_SCHEMA`].
    pub schema: String,
    /// Whether nothing is worse than it may be.
    pub pass: bool,
    /// All figures of either report: the model first, then output by output.
    pub changes: Vec<Change>,
    /// Why figures may not be comparable: what else differs between the two reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Regression {
    /// What is worse than it may be.
    pub fn failures(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.outcome == Outcome::Fail)
    }
}

/// One figure of both reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What it is: `verdict`, `runs`, `size`, `slowdown`, `load_time`, `peak_memory`, `present`,
    /// `sqnr`, `max_abs_error`, `top1` or `mismatches`.
    pub name: String,
    /// Name of an output, or `model`.
    pub subject: String,
    /// The baseline's figure, if it has one. Of `slowdown`, the upper end of the interval.
    #[serde(default, with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub old: Option<f64>,
    /// The new figure, if there is one. Of `slowdown`, the lower end of the interval.
    #[serde(default, with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub new: Option<f64>,
    /// What the new figure must meet, in the same unit, if it was judged.
    #[serde(default, with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Which side of the limit is good.
    pub bound: Bound,
    /// Unit of all three.
    pub unit: ChangeUnit,
    /// Whether the new figure meets the limit.
    pub outcome: Outcome,
    /// More to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Unit of a figure that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeUnit {
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Decibels.
    Decibels,
    /// A ratio of two like things.
    Times,
    /// A share, from 0 to 1.
    Share,
    /// A number of things.
    Count,
    /// The unit of the output itself.
    Output,
    /// 1 for yes, 0 for no.
    Flag,
}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is not worse than it may be.
    Pass,
    /// It is, or it is gone.
    Fail,
    /// There is no limit, or nothing in the baseline to compare with.
    NotJudged,
}

/// Holds a report against an earlier one, the target runtime's figures against those of the same
/// runtime.
///
/// A figure that the baseline has and the new report has not fails if it has a limit: what cannot
/// be judged is no silent pass.
pub fn compare_with_baseline(
    new: &Document,
    old: &Document,
    limits: &RegressionLimits,
) -> Regression {
    compare::compare(new, old, limits)
}
