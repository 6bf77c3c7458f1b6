//! The user's own metric: a model in, a number out.
//!
//! Parity says how close two models are; the metric says whether that is close enough. It is the
//! verdict where there is one, and the last word of a search, which parity guides in between.

mod command;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use modelopt_validate::{Direction, MaxDrop};
use serde::{Deserialize, Serialize};

pub use command::CommandMetric;

/// Where the path of the model goes in a command.
const PLACE: &str = "{model}";

/// Turns a model into a number.
///
/// ```
/// use std::path::Path;
/// use modelopt::{CustomMetric, Metric, MetricError};
///
/// struct Bytes;
///
/// impl Metric for Bytes {
///     fn name(&self) -> &str {
///         "bytes"
///     }
///     fn evaluate(&mut self, model: &Path) -> Result<f64, MetricError> {
///         let size = std::fs::metadata(model).map_err(|e| MetricError::Other(e.to_string()))?;
///         Ok(size.len() as f64)
///     }
/// }
///
/// let mut config = modelopt::Config::default();
/// config.metric.custom = Some(CustomMetric::new(Bytes));
/// ```
pub trait Metric {
    /// What it is called in reports, such as `accuracy`; asked for after evaluating.
    fn name(&self) -> &str;

    /// The figure of the model in a file, which is there only during the call.
    fn evaluate(&mut self, model: &Path) -> Result<f64, MetricError>;

    /// Other figures of the model that was evaluated last. They are reported, and not judged.
    fn further(&self) -> IndexMap<String, f64> {
        IndexMap::new()
    }
}

/// A metric that settings can hold.
#[derive(Clone)]
pub struct CustomMetric(Arc<Mutex<dyn Metric + Send>>);

impl CustomMetric {
    /// Takes in a metric.
    pub fn new(metric: impl Metric + Send + 'static) -> Self {
        CustomMetric(Arc::new(Mutex::new(metric)))
    }

    /// The metric, for as long as nobody else asks it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, dyn Metric + Send + 'static> {
        // Whoever panicked with it held has told so.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CustomMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomMetric")
    }
}

impl PartialEq for CustomMetric {
    /// Whether it is the same one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Why a metric has no figure of a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// The command could not be started.
    #[error("the metric '{command}' cannot be run: {source}")]
    Start {
        /// The command, with its placeholder.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// The command failed.
    #[error("the metric '{command}' failed on the {subject} ({status}){}", quoted(said))]
    Failed {
        /// The command, with its placeholder.
        command: String,
        /// Which model.
        subject: &'static str,
        /// How it ended.
        status: String,
        /// The last lines that it wrote to stderr.
        said: String,
    },
    /// The command did not end in time, and was ended.
    #[error("the metric '{command}' was not done with the {subject} after {seconds} s")]
    TimedOut {
        /// The command, with its placeholder.
        command: String,
        /// Which model.
        subject: &'static str,
        /// How long it had.
        seconds: f64,
    },
    /// The command printed something else than a number.
    #[error(
        "the metric '{command}' printed {found} for the {subject}; its last line must be a number, or a JSON object of numbers"
    )]
    NoNumber {
        /// The command, with its placeholder.
        command: String,
        /// Which model.
        subject: &'static str,
        /// What it printed.
        found: String,
    },
    /// Nothing that it printed has the name that was asked for.
    #[error("the metric '{command}' printed no '{name}'; there are {}", found.join(", "))]
    NoSuchName {
        /// The command, with its placeholder.
        command: String,
        /// The name.
        name: String,
        /// The names that it printed.
        found: Vec<String>,
    },
    /// Somebody stopped it.
    #[error("stopped")]
    Stopped,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Lines below a message.
fn quoted(said: &str) -> String {
    said.lines().fold(String::new(), |text, line| text + "\n  | " + line)
}

/// The user's metric; the `[metric]` table of `modelopt.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct MetricOptions {
    /// A command for the shell that prints the figure of the model whose path stands in place of
    /// `{model}`: a number, or a JSON object of numbers, on the last line of its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Which figure of a JSON object counts; the first by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The output and the array in the samples, `OUTPUT:KEY`, that accuracy is counted from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// A metric in the program that uses this library.
    #[serde(skip)]
    pub custom: Option<CustomMetric>,
    /// Which way is better.
    pub direction: Direction,
    /// How much may be lost.
    pub max_drop: MaxDrop,
    /// How long the command may take for one model, in seconds.
    pub timeout: f64,
}

impl Default for MetricOptions {
    fn default() -> Self {
        MetricOptions {
            command: None,
            name: None,
            labels: None,
            custom: None,
            direction: Direction::default(),
            max_drop: MaxDrop::default(),
            timeout: 600.0,
        }
    }
}

impl MetricOptions {
    /// Whether there is a metric.
    pub fn is_given(&self) -> bool {
        self.command.is_some() || self.labels.is_some() || self.custom.is_some()
    }

    /// Whether the settings make sense together.
    pub(crate) fn check(&self, samples: Option<&Path>) -> Result<(), MetricMistake> {
        let given = [self.command.is_some(), self.labels.is_some(), self.custom.is_some()];
        if given.into_iter().filter(|given| *given).count() > 1 {
            return Err(MetricMistake::SeveralMetrics);
        }
        if self.command.as_ref().is_some_and(|command| !command.contains(PLACE)) {
            return Err(MetricMistake::NoPlace);
        }
        if self.labels.is_some() && samples.is_none() {
            return Err(MetricMistake::LabelsWithoutSamples);
        }
        if !(self.timeout > 0.0 && self.timeout.is_finite()) {
            return Err(MetricMistake::NoTime);
        }
        Ok(())
    }
}

/// Settings of a metric that do not make sense together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricMistake {
    /// There is more than one metric.
    #[error("there can be one metric: a command or labels")]
    SeveralMetrics,
    /// The command does not say where the path of the model goes.
    #[error("the metric's command has no {PLACE}, where the path of the model goes")]
    NoPlace,
    /// Labels stand in samples, and there are none.
    #[error("labels stand in samples, and there are none")]
    LabelsWithoutSamples,
    /// The command has no time.
    #[error("the metric's timeout must be above 0")]
    NoTime,
}

/// Which output is judged by which array of the samples; written `OUTPUT:KEY`.
///
/// The array holds the index of the right class for each row of the output: its shape is the
/// output's without the classes, which are along the last axis, or along the second (as in
/// segmentation). An output that holds classes already has the shape of the array. Labels below 0
/// do not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Labels {
    /// Name of the output.
    pub output: String,
    /// Key of the array.
    pub key: String,
}

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Names of outputs may have colons in them.
        match text.rsplit_once(':') {
            Some((output, key)) if !output.is_empty() && !key.is_empty() => {
                Ok(Labels { output: output.to_owned(), key: key.to_owned() })
            }
            _ => Err(format!("'{text}': give it as OUTPUT:KEY")),
        }
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.output, self.key)
    }
}

impl TryFrom<String> for Labels {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Labels> for String {
    fn from(labels: Labels) -> Self {
        labels.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let options = |text: &str| toml::from_str::<MetricOptions>(text).unwrap();
        let fails = |text: &str| options(text).check(None).unwrap_err();
        let both = r#"command = "x {model}"
            labels = "y:label""#;
        assert_eq!(fails(both), MetricMistake::SeveralMetrics);
        let error = fails(r#"command = "x""#);
        assert!(error == MetricMistake::NoPlace && error.to_string().contains("{model}"));
        assert_eq!(fails(r#"labels = "y:label""#), MetricMistake::LabelsWithoutSamples);
        let labels = options(r#"labels = "y:label""#);
        assert_eq!(labels.check(Some(Path::new("samples"))), Ok(()));
        let no_time = r#"command = "x {model}"
            timeout = 0"#;
        assert_eq!(fails(no_time), MetricMistake::NoTime);
        let all = options(
            r#"command = "python eval.py {model}"
            name = "f1"
            direction = "lower"
            max-drop = 0.005
            timeout = 60"#,
        );
        assert!(all.check(None).is_ok() && all.is_given());
        assert_eq!(all.max_drop, MaxDrop::Absolute(0.005));
        assert!(!MetricOptions::default().is_given());
    }

    #[test]
    fn names_of_outputs_may_have_colons() {
        let labels: Labels = "logits:0:label".parse().unwrap();
        assert_eq!((labels.output.as_str(), labels.key.as_str()), ("logits:0", "label"));
        assert_eq!(labels.to_string(), "logits:0:label");
        for wrong in ["scores", ":label", "scores:", ""] {
            assert!(wrong.parse::<Labels>().is_err(), "{wrong}");
        }
    }
}
