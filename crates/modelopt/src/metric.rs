//! The user's own metric: a model in, a number out.
//!
//! Parity says how close two models are; the metric says whether that is close enough. It is the
//! verdict where there is one, and the last word of a search, which parity guides in between.

mod command;
mod labels;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use indexmap::IndexMap;
use modelopt_validate::{Direction, FurtherFigure, MaxDrop, MetricChange};
use serde::{Deserialize, Serialize};

pub use command::CommandMetric;
pub use labels::Labels;
pub(crate) use labels::{LabelMetric, labelled};

use crate::budget::Stop;
use crate::config::Config;
use crate::error::{Error, ErrorKind};

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
    pub(crate) fn check(&self, samples: Option<&Path>) -> Result<(), Error> {
        let wrong = |message: &str| Err(ErrorKind::Config(message.to_owned()).into());
        let given = [self.command.is_some(), self.labels.is_some(), self.custom.is_some()];
        if given.into_iter().filter(|given| *given).count() > 1 {
            return wrong("there can be one metric: a command or labels");
        }
        match &self.command {
            Some(command) if !command.contains(command::PLACE) => {
                return wrong(
                    "the metric's command has no {model}, where the path of the model goes",
                );
            }
            _ => {}
        }
        if self.labels.is_some() && samples.is_none() {
            return wrong("labels stand in samples: give some with --samples");
        }
        if !(self.timeout > 0.0 && self.timeout.is_finite()) {
            return wrong("the metric's timeout must be above 0");
        }
        Ok(())
    }
}

/// What a metric said of one model.
#[derive(Clone, Debug, PartialEq)]
struct Evaluated {
    value: f64,
    further: IndexMap<String, f64>,
}

/// A metric, with what it said before.
pub(crate) struct Meter<'a> {
    metric: Held<'a>,
    direction: Direction,
    max_drop: MaxDrop,
    original: &'a Path,
    of_original: Option<Evaluated>,
    /// By digest of the model, or of what it was made by.
    known: HashMap<String, Evaluated>,
}

/// Where a metric comes from.
enum Held<'a> {
    Command(CommandMetric),
    Labels(Box<LabelMetric<'a>>),
    Custom(CustomMetric),
}

impl<'a> Meter<'a> {
    /// The meter for the settings' metric, if there is one; `labels` makes the one that counts
    /// right answers.
    pub(crate) fn new(
        config: &Config,
        original: &'a Path,
        stop: &Stop,
        labels: impl FnOnce(&Labels) -> Result<LabelMetric<'a>, Error>,
    ) -> Result<Option<Self>, Error> {
        let options = &config.metric;
        let metric = if let Some(command) = &options.command {
            let metric = CommandMetric::new(command, options.name.clone(), options.timeout);
            Held::Command(metric.until(stop.clone()))
        } else if let Some(custom) = &options.custom {
            Held::Custom(custom.clone())
        } else if let Some(own) = &options.labels {
            Held::Labels(Box::new(labels(own)?))
        } else {
            return Ok(None);
        };
        Ok(Some(Meter {
            metric,
            direction: options.direction,
            max_drop: options.max_drop,
            original,
            of_original: None,
            known: HashMap::new(),
        }))
    }

    /// The metric of a candidate beside the original's. `digest` tells candidates apart; only one
    /// that is not known is made, at the path that is given then.
    pub(crate) fn measure(
        &mut self,
        digest: &str,
        make: impl FnOnce(&Path) -> Result<(), String>,
    ) -> Result<MetricChange, MetricError> {
        let original = if let Some(known) = &self.of_original {
            known.clone()
        } else {
            let path = self.original;
            let evaluated = self.evaluate(path, true)?;
            self.of_original.insert(evaluated).clone()
        };
        let candidate = if let Some(known) = self.known.get(digest) {
            known.clone()
        } else {
            let folder = tempfile::tempdir().map_err(|e| MetricError::Other(e.to_string()))?;
            let path = folder.path().join("candidate.onnx");
            make(&path).map_err(MetricError::Other)?;
            let evaluated = self.evaluate(&path, false)?;
            self.known.insert(digest.to_owned(), evaluated.clone());
            evaluated
        };
        Ok(self.change(&original, &candidate))
    }

    /// The metric of a candidate that lies in a file.
    pub(crate) fn measure_file(&mut self, path: &Path) -> Result<MetricChange, MetricError> {
        let original = self.original;
        let original = self.evaluate(original, true)?;
        let candidate = self.evaluate(path, false)?;
        Ok(self.change(&original, &candidate))
    }

    fn change(&mut self, original: &Evaluated, candidate: &Evaluated) -> MetricChange {
        let further = candidate.further.iter().filter_map(|(name, &candidate)| {
            let original = *original.further.get(name)?;
            Some(FurtherFigure { name: name.clone(), original, candidate })
        });
        MetricChange {
            name: self.metric.with(|metric| metric.name().to_owned()),
            direction: self.direction,
            original: original.value,
            candidate: candidate.value,
            max_drop: self.max_drop,
            further: further.collect(),
        }
    }

    fn evaluate(&mut self, path: &Path, is_original: bool) -> Result<Evaluated, MetricError> {
        match &mut self.metric {
            Held::Command(metric) => {
                metric.subject(if is_original { "original" } else { "candidate" });
            }
            Held::Labels(metric) => metric.casts(!is_original),
            Held::Custom(_) => {}
        }
        self.metric.with(|metric| {
            let value = metric.evaluate(path)?;
            Ok(Evaluated { value, further: metric.further() })
        })
    }
}

impl Held<'_> {
    fn with<T>(&mut self, use_it: impl FnOnce(&mut dyn Metric) -> T) -> T {
        match self {
            Held::Command(metric) => use_it(metric),
            Held::Labels(metric) => use_it(metric.as_mut()),
            // Whoever panicked with it held has told so.
            Held::Custom(CustomMetric(metric)) => {
                let mut metric = metric.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                use_it(&mut *metric)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // They are whole numbers.
mod tests {
    use super::*;

    /// Gives the size of the file, and counts how often it was asked.
    struct Size(Arc<Mutex<usize>>);

    impl Metric for Size {
        fn name(&self) -> &'static str {
            "size"
        }

        fn evaluate(&mut self, model: &Path) -> Result<f64, MetricError> {
            *self.0.lock().unwrap() += 1;
            let size = std::fs::metadata(model).map_err(|e| MetricError::Other(e.to_string()))?;
            Ok(size.len() as f64)
        }
    }

    #[test]
    fn nothing_is_evaluated_twice() {
        let folder = tempfile::tempdir().unwrap();
        let original = folder.path().join("original.onnx");
        std::fs::write(&original, [0; 100]).unwrap();
        let asked = Arc::new(Mutex::new(0));
        let mut config = Config::default();
        config.metric.custom = Some(CustomMetric::new(Size(asked.clone())));
        let no_labels = |_: &Labels| Err(ErrorKind::Config(String::new()).into());
        let mut meter =
            Meter::new(&config, &original, &Stop::default(), no_labels).unwrap().unwrap();
        let make = |path: &Path| std::fs::write(path, [0; 98]).map_err(|e| e.to_string());
        for _ in 0..2 {
            let change = meter.measure("a", make).unwrap();
            assert_eq!((change.original, change.candidate), (100.0, 98.0));
            assert!(!change.check().pass, "2 % are lost and 1 % may be");
        }
        assert_eq!(*asked.lock().unwrap(), 2);
        meter.measure("b", make).unwrap();
        assert_eq!(*asked.lock().unwrap(), 3);
        let error = meter.measure("c", |_| Err("no".to_owned())).unwrap_err().to_string();
        assert_eq!(error, "no");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let options = |text: &str| toml::from_str::<MetricOptions>(text).unwrap();
        let fails = |text: &str, samples: Option<&Path>| {
            options(text).check(samples).unwrap_err().to_string()
        };
        let both = r#"command = "x {model}"
            labels = "y:label""#;
        assert!(fails(both, None).contains("one metric"));
        assert!(fails(r#"command = "x""#, None).contains("{model}"));
        assert!(fails(r#"labels = "y:label""#, None).contains("--samples"));
        assert!(
            fails(
                r#"command = "x {model}"
            timeout = 0"#,
                None
            )
            .contains("above 0")
        );
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
}
