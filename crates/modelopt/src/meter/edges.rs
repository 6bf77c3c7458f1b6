//! Metrics that are stopped, that panic, and that change their mind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::error::ErrorKind;

/// Gives the number that its closure does, and a further one beside it.
struct Planted<F>(F);

impl<F: FnMut(&Path) -> Result<f64, MetricError>> Metric for Planted<F> {
    fn name(&self) -> &'static str {
        "planted"
    }

    fn evaluate(&mut self, model: &Path) -> Result<f64, MetricError> {
        (self.0)(model)
    }

    fn further(&self) -> IndexMap<String, f64> {
        [("loss".to_owned(), 0.25)].into()
    }
}

fn config(metric: impl FnMut(&Path) -> Result<f64, MetricError> + Send + 'static) -> Config {
    let mut config = Config::default();
    config.metric.custom = Some(CustomMetric::new(Planted(metric)));
    config
}

fn meter(config: &Config) -> Meter<'_> {
    let none = |_: &Labels| Err(ErrorKind::Config(String::new()).into());
    Meter::new(config, Path::new("original.onnx"), &Stop::default(), none).unwrap().unwrap()
}

#[test]
fn without_a_metric_there_is_no_meter() {
    let none = |_: &Labels| -> Result<LabelMetric<'_>, Error> { unreachable!() };
    let meter = Meter::new(&Config::default(), Path::new("x"), &Stop::default(), none).unwrap();
    assert!(meter.is_none());
}

#[test]
fn labels_that_cannot_be_read_are_an_error() {
    let mut config = Config::default();
    config.metric.labels = Some("y:label".parse().unwrap());
    let none = |labels: &Labels| Err(ErrorKind::Config(labels.to_string()).into());
    let error = Meter::new(&config, Path::new("x"), &Stop::default(), none).err().unwrap();
    assert_eq!(error.to_string(), "y:label");
}

#[test]
fn a_lower_figure_may_be_the_better_one() {
    let mut config = config(|model| Ok(if model.ends_with("original.onnx") { 1.0 } else { 1.5 }));
    let lost = meter(&config).measure("a", |_| Ok(())).unwrap();
    assert!(lost.check().pass && (lost.lost() + 0.5).abs() < 1e-12, "more is better");
    config.metric.direction = Direction::Lower;
    let lost = meter(&config).measure("a", |_| Ok(())).unwrap();
    assert!(!lost.check().pass && (lost.lost() - 0.5).abs() < 1e-12);
    config.metric.max_drop = MaxDrop::Absolute(0.6);
    assert!(meter(&config).measure("a", |_| Ok(())).unwrap().check().pass);
}

#[test]
fn further_figures_are_told_of_both_models() {
    let config = config(|_| Ok(1.0));
    let change = meter(&config).measure("a", |_| Ok(())).unwrap();
    let [further] = &change.further[..] else { panic!("{change:?}") };
    assert_eq!((further.name.as_str(), further.original, further.candidate), ("loss", 0.25, 0.25));
    assert_eq!(change.name, "planted");
}

#[test]
fn an_original_without_a_figure_is_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let config = config(move |_| match counted.fetch_add(1, Ordering::Relaxed) {
        0 => Err(MetricError::Stopped),
        _ => Ok(1.0),
    });
    let mut meter = meter(&config);
    assert!(matches!(meter.measure("a", |_| Ok(())), Err(MetricError::Stopped)));
    assert!(meter.measure("a", |_| Ok(())).is_ok());
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[test]
fn a_candidate_without_a_figure_is_made_again_and_the_original_is_not() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let config = config(move |_| match counted.fetch_add(1, Ordering::Relaxed) {
        1 => Err(MetricError::Other("it is broken".to_owned())),
        _ => Ok(1.0),
    });
    let mut meter = meter(&config);
    assert!(meter.measure("a", |_| Ok(())).is_err());
    let mut made = 0;
    let make = |_: &Path| {
        made += 1;
        Ok(())
    };
    meter.measure("a", make).unwrap();
    assert_eq!((made, asked.load(Ordering::Relaxed)), (1, 3));
}

#[test]
fn the_candidate_is_there_during_the_call_and_gone_after_it() {
    let seen = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&seen);
    let config = config(move |model| {
        if !model.ends_with("original.onnx") {
            assert!(model.exists());
            *kept.lock().unwrap() = Some(model.to_owned());
        }
        Ok(1.0)
    });
    let make = |path: &Path| std::fs::write(path, "candidate").map_err(|e| e.to_string());
    meter(&config).measure("a", make).unwrap();
    assert!(!seen.lock().unwrap().as_ref().unwrap().exists());
}

#[test]
fn a_metric_that_panicked_once_can_be_asked_again() {
    let config = config(|model| {
        assert!(!model.ends_with("broken.onnx"), "planted");
        Ok(1.0)
    });
    let mut meter = meter(&config);
    let broken = AssertUnwindSafe(|| meter.measure_file(Path::new("broken.onnx")));
    assert!(catch_unwind(broken).is_err());
    assert!(meter.measure_file(Path::new("whole.onnx")).is_ok());
}

#[test]
fn one_metric_serves_two_runs_at_once_one_after_the_other() {
    let busy = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&busy);
    let config = config(move |_| {
        assert_eq!(counted.fetch_add(1, Ordering::SeqCst), 0, "somebody else is in it");
        std::thread::yield_now();
        counted.fetch_sub(1, Ordering::SeqCst);
        Ok(1.0)
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| meter(&config).measure_file(Path::new("x.onnx")).unwrap());
        }
    });
    assert_eq!(busy.load(Ordering::SeqCst), 0);
}
