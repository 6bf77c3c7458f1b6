//! The user's own figure of both models, and how much of it may be lost.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Float;
use crate::{Bound, Check, Unit};

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The higher, the better: accuracy, mAP, BLEU.
    #[default]
    Higher,
    /// The lower, the better: loss, perplexity, word error rate.
    Lower,
}

/// How much of a metric may be lost; written `"0.5%"` of the original's or `0.005`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum MaxDrop {
    /// A share of the original's figure: 0.005 is half a percent.
    Relative(f64),
    /// In the metric's own unit.
    Absolute(f64),
}

impl Default for MaxDrop {
    /// One percent.
    fn default() -> Self {
        MaxDrop::Relative(0.01)
    }
}

impl MaxDrop {
    /// What may be lost of a figure, in its unit.
    pub fn of(self, original: f64) -> f64 {
        match self {
            MaxDrop::Relative(share) => original.abs() * share,
            MaxDrop::Absolute(drop) => drop,
        }
    }
}

impl fmt::Display for MaxDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Multiplying leaves digits that nobody wrote.
            MaxDrop::Relative(share) => write!(f, "{}%", (share * 1e11).round() / 1e9),
            MaxDrop::Absolute(drop) => write!(f, "{drop}"),
        }
    }
}

impl FromStr for MaxDrop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (number, is_relative) = match text.strip_suffix('%') {
            Some(number) => (number.trim_end(), true),
            None => (text, false),
        };
        let number = number.parse::<f64>().ok().filter(|x| x.is_finite() && *x >= 0.0);
        let number = number.ok_or_else(|| {
            format!("'{text}': it must be a share such as 0.5%, or a number such as 0.005")
        })?;
        Ok(if is_relative { MaxDrop::Relative(number / 100.0) } else { MaxDrop::Absolute(number) })
    }
}

/// A drop as a file has it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Number(f64),
}

impl TryFrom<Written> for MaxDrop {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Text(text) => text.parse(),
            Written::Number(number) => number.to_string().parse(),
        }
    }
}

impl From<MaxDrop> for Written {
    fn from(drop: MaxDrop) -> Self {
        Written::Text(drop.to_string())
    }
}

/// The user's metric of both models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricChange {
    /// What it is called.
    pub name: String,
    /// Which way is better.
    pub direction: Direction,
    /// The original's figure.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub original: f64,
    /// The candidate's figure.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub candidate: f64,
    /// How much may be lost, such as `0.5%` of the original's figure, or `0.005`.
    #[schemars(with = "String")]
    pub max_drop: MaxDrop,
    /// More figures that came with it and are not judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<FurtherFigure>,
}

/// A figure beside the metric that is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FurtherFigure {
    /// What it is called.
    pub name: String,
    /// The original's.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub original: f64,
    /// The candidate's.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub candidate: f64,
}

impl MetricChange {
    /// What is lost, in the metric's unit; below 0 the candidate is better.
    pub fn lost(&self) -> f64 {
        match self.direction {
            Direction::Higher => self.original - self.candidate,
            Direction::Lower => self.candidate - self.original,
        }
    }

    /// The metric against its limit. A figure exactly at the limit passes, as far as floats tell.
    pub fn check(&self) -> Check {
        let allowed = self.max_drop.of(self.original);
        let (limit, bound) = match self.direction {
            Direction::Higher => (self.original - allowed, Bound::AtLeast),
            Direction::Lower => (self.original + allowed, Bound::AtMost),
        };
        // Shares of counts are rounded: 0.98 - 0.01 is above 0.97.
        let rounding = 1e-12 * self.original.abs().max(limit.abs());
        Check {
            name: "metric".to_owned(),
            subject: self.name.clone(),
            value: self.candidate,
            limit,
            bound,
            unit: Unit::Metric,
            pass: self.lost() <= allowed + rounding,
            note: Some(format!(
                "the original has {}, {} may be lost",
                self.original, self.max_drop
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(original: f64, candidate: f64, drop: &str, direction: Direction) -> MetricChange {
        MetricChange {
            name: "accuracy".to_owned(),
            direction,
            original,
            candidate,
            max_drop: drop.parse().unwrap(),
            further: Vec::new(),
        }
    }

    #[test]
    fn drops_are_shares_or_numbers() {
        assert_eq!("0.5%".parse(), Ok(MaxDrop::Relative(0.005)));
        assert_eq!("1 %".parse(), Ok(MaxDrop::Relative(0.01)));
        assert_eq!("0.005".parse(), Ok(MaxDrop::Absolute(0.005)));
        for wrong in ["", "%", "-1%", "half", "nan", "inf%"] {
            assert!(wrong.parse::<MaxDrop>().is_err(), "{wrong}");
        }
        for text in ["0.5%", "0.005", "0%", "7%", "0.07%"] {
            assert_eq!(text.parse::<MaxDrop>().unwrap().to_string(), text);
        }
        assert_eq!(serde_json::from_str::<MaxDrop>("0.005").unwrap(), MaxDrop::Absolute(0.005));
        assert_eq!(serde_json::to_string(&MaxDrop::Relative(0.005)).unwrap(), "\"0.5%\"");
    }

    #[test]
    fn what_is_lost_counts_in_either_direction() {
        use Direction::{Higher, Lower};
        for (original, candidate, drop, direction, pass) in [
            (0.98, 0.97, "0.01", Higher, true),
            (0.98, 0.969, "0.01", Higher, false),
            (0.98, 0.99, "0", Higher, true),
            (0.80, 0.792, "1%", Higher, true),
            (0.80, 0.791, "1%", Higher, false),
            (2.0, 2.02, "1%", Lower, true),
            (2.0, 2.03, "1%", Lower, false),
            (2.0, 1.0, "0", Lower, true),
            // A share of what is below zero is lost downwards, too.
            (-2.0, -2.02, "1%", Higher, true),
            (-2.0, -2.03, "1%", Higher, false),
            (f64::NAN, 1.0, "1%", Higher, false),
            (1.0, f64::NAN, "1%", Lower, false),
        ] {
            let check = change(original, candidate, drop, direction).check();
            assert_eq!(check.pass, pass, "{original} -> {candidate}, {drop}: {check:?}");
        }
        assert!(change(1.0, 1.2, "0", Higher).lost() < 0.0);
    }
}
