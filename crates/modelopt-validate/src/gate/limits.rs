//! What a candidate must meet.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// What a candidate must meet; the `[gate]` table of `modelopt.toml`.
///
/// A figure exactly at its limit passes. `None` means no limit, and is written `"off"`; a key
/// left out has its default. Types, shapes, the set of outputs, and integer, boolean and string
/// elements that no float decides must always be equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limits {
    /// Lowest SQNR of any float output, in dB; 20 by default.
    #[serde(with = "crate::number::limit")]
    pub min_sqnr_db: Option<f64>,
    /// Highest ratio of latencies, candidate to original; 1.05 by default. Judged only if
    /// latency was measured, and broken only if the whole confidence interval is above it and the
    /// time lost is one that can be told, for limits of at least 1: see
    /// [`LatencyComparison::is_told`](crate::LatencyComparison::is_told).
    #[serde(with = "crate::number::limit")]
    pub max_slowdown: Option<f64>,
    /// Lowest ratio of sizes, original to candidate; 1 (not larger) by default. A limit of at most
    /// 1 is not judged where it is missed by no more than [`SizeChange::SLACK`](crate::SizeChange::SLACK).
    #[serde(with = "crate::number::limit")]
    pub min_shrink: Option<f64>,
    /// Whether NaN and infinities may appear where the original has none, and may change where
    /// it has them; no by default.
    pub allow_new_non_finite: bool,
    /// Lowest top-1 agreement, from 0 to 1, of every output that looks like scores; none by
    /// default. Fails if there is no such output.
    #[serde(with = "crate::number::limit")]
    pub min_top1: Option<f64>,
    /// Lowest share of equal elements, from 0 to 1, of integers and booleans that depend on floats
    /// and are not known to be places of chosen elements; 0.99 by default. Other integers, booleans
    /// and strings must be equal.
    #[serde(with = "crate::number::limit")]
    pub min_agreement: Option<f64>,
    /// Highest absolute error of any float output, in the unit of the output; none by default.
    #[serde(with = "crate::number::limit")]
    pub max_abs_error: Option<f64>,
    /// Other limits for some outputs, by name. A name that is no output of the original fails.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub per_output: IndexMap<String, OutputLimits>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            min_sqnr_db: Some(20.0),
            max_slowdown: Some(1.05),
            min_shrink: Some(1.0),
            allow_new_non_finite: false,
            min_top1: None,
            min_agreement: Some(0.99),
            max_abs_error: None,
            per_output: IndexMap::new(),
        }
    }
}

/// Limits of one output that replace those of [`Limits`]; `None` keeps the one there. To lift a
/// limit for one output, set the lower ones to −∞ and the upper ones to +∞ (TOML: `-inf`, `inf`).
///
/// A limit given here on an output that has no such figure fails.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct OutputLimits {
    /// Replaces [`Limits::min_sqnr_db`].
    #[serde(with = "crate::number::optional", skip_serializing_if = "Option::is_none")]
    pub min_sqnr_db: Option<f64>,
    /// Replaces [`Limits::allow_new_non_finite`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_new_non_finite: Option<bool>,
    /// Replaces [`Limits::min_top1`].
    #[serde(with = "crate::number::optional", skip_serializing_if = "Option::is_none")]
    pub min_top1: Option<f64>,
    /// Replaces [`Limits::max_abs_error`].
    #[serde(with = "crate::number::optional", skip_serializing_if = "Option::is_none")]
    pub max_abs_error: Option<f64>,
}

impl Limits {
    /// The limits of one output; those of a sequence hold for its elements.
    pub fn of(&self, output: &str) -> OutputLimits {
        let own = self.per_output.iter().find(|(name, _)| is_of(output, name));
        own.map(|(_, own)| own.clone()).unwrap_or_default()
    }
}

/// Whether an output is the one of a name, or a part of what that holds: `y[0]` and `y.length` of
/// `y`.
pub(super) fn is_of(output: &str, name: &str) -> bool {
    output == name || output.strip_prefix(name).is_some_and(|rest| rest.starts_with(['[', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_a_table_of_the_configuration() {
        let limits: Limits = toml::from_str(
            r#"
            min-sqnr-db = 30
            max-slowdown = "off"
            min-top1 = 0.99
            [per-output."logits:0"]
            min-sqnr-db = -inf
            allow-new-non-finite = true
            "#,
        )
        .unwrap();
        assert_eq!((limits.min_sqnr_db, limits.max_slowdown), (Some(30.0), None));
        assert_eq!((limits.min_shrink, limits.min_top1), (Some(1.0), Some(0.99)));
        let own = &limits.per_output["logits:0"];
        assert_eq!(own.min_sqnr_db, Some(f64::NEG_INFINITY));
        assert_eq!((own.allow_new_non_finite, own.min_top1), (Some(true), None));
        let written = toml::to_string(&limits).unwrap();
        assert_eq!(toml::from_str::<Limits>(&written).unwrap(), limits, "{written}");
    }

    #[test]
    fn an_empty_table_is_the_default_and_unknown_keys_are_refused() {
        assert_eq!(toml::from_str::<Limits>("").unwrap(), Limits::default());
        for wrong in ["min-sqnr = 20", "min-sqnr-db = true", "[per-output.y]\nmin-shrink = 1"] {
            assert!(toml::from_str::<Limits>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_survive_json_with_infinities_and_without_limits() {
        let own = OutputLimits { max_abs_error: Some(f64::INFINITY), ..OutputLimits::default() };
        let limits = Limits {
            min_sqnr_db: Some(f64::INFINITY),
            min_shrink: None,
            per_output: [("y".to_owned(), own)].into(),
            ..Limits::default()
        };
        let json = serde_json::to_string(&limits).unwrap();
        assert!(json.contains(r#""min-sqnr-db":"inf""#), "{json}");
        assert!(json.contains(r#""min-shrink":"off""#), "{json}");
        assert_eq!(serde_json::from_str::<Limits>(&json).unwrap(), limits);
    }
}
