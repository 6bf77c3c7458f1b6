//! What comes of holding figures against limits.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Float;

/// Pass or fail, with every figure that has a limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Whether all checks passed.
    pub pass: bool,
    /// All that was judged: the model first, then output by output.
    pub checks: Vec<Check>,
    /// Limits that were set but had nothing to judge, because it was not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unjudged: Vec<Unjudged>,
}

impl Verdict {
    /// The checks that did not pass.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.pass)
    }
}

/// One figure against its limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What was judged: `samples`, `outputs`, `shrink`, `slowdown`, `known_output`, `top1`,
    /// `present`, `extra_output`, `type`, `shape`, `compared`, `sqnr`, `max_abs_error`,
    /// `new_non_finite`, `changed_non_finite`, `sentinels`, `decisions`, `agreement`, `mismatches` or
    /// `metric`.
    pub name: String,
    /// Name of an output or of the user's metric, or `model`.
    pub subject: String,
    /// The figure; NaN if there is none, which fails.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub value: f64,
    /// Its limit.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub limit: f64,
    /// Which side of the limit is good.
    pub bound: Bound,
    /// Unit of figure and limit.
    pub unit: Unit,
    /// Whether the figure meets the limit.
    pub pass: bool,
    /// More to say, such as which sample was the worst or which type was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Check {
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.note = Some(note.into());
    }
}

/// Which side of a limit is good; the limit itself always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The limit is the lowest that passes.
    AtLeast,
    /// The limit is the highest that passes.
    AtMost,
}

/// Unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
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
    /// The unit of the user's own metric.
    Metric,
}

/// A limit without a figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unjudged {
    /// What would have been judged: `parity`, `slowdown`, `shrink` or the name of an output.
    pub name: String,
    /// Why it was not.
    #[schemars(with = "String")]
    pub reason: Reason,
}

/// Why a limit was not judged. In reports it is a sentence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum Reason {
    /// Nobody named the runtime that the model is meant for.
    NoTarget {
        /// The candidate's time divided by the original's, where both were run.
        slowdown: f64,
    },
    /// Another one, in a sentence.
    Said(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoTarget { slowdown } => {
                write!(f, "{slowdown:.2}x here, but no target was named")
            }
            Reason::Said(sentence) => f.write_str(sentence),
        }
    }
}

impl From<String> for Reason {
    fn from(sentence: String) -> Self {
        Reason::Said(sentence)
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.to_string()
    }
}
