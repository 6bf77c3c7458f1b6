//! Asks the user's metric of the original and of candidates, each once.

mod labels;

use std::collections::HashMap;
use std::path::Path;

use indexmap::IndexMap;
use modelopt_validate::{Direction, FurtherFigure, MaxDrop, MetricChange};

pub(crate) use labels::{LabelMetric, labelled};

use crate::budget::Stop;
use crate::config::Config;
use crate::error::Error;
use crate::metric::{CommandMetric, CustomMetric, Labels, Metric, MetricError};

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
            Held::Custom(metric) => use_it(&mut *metric.lock()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // They are whole numbers.
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::error::ErrorKind;

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
}

#[cfg(test)]
mod edges;
