//! Models that are held against each other.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use modelopt_rewrite::Scheme;

use super::*;
use crate::metric::{CustomMetric, Metric, MetricError};
use crate::search::carried_out;
use crate::testing::{Bed, Layer};

/// A network, and what a scheme makes of it.
fn with_candidate(scheme: Scheme) -> (Bed, PathBuf) {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let path = bed.path().with_file_name("candidate.onnx");
    carried_out(&bed.prepared, &bed.plan(scheme), &path).unwrap();
    (bed, path)
}

#[test]
fn a_model_is_equal_to_itself() {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let same = compare(&bed.path(), &bed.path(), &bed.config, &mut |_| {}).unwrap();
    let float = same.parity().unwrap().outputs[0].float.as_ref().unwrap();
    assert!(float.sqnr_db.is_infinite() && same.verdict.pass);
    assert_eq!(same.size.original_bytes, same.size.candidate_bytes);
    assert_eq!((same.runs.len(), &same.metric), (1, &None));
}

#[test]
fn what_was_lost_is_told_and_judged() {
    let (bed, candidate) = with_candidate(Scheme::INT8_WEIGHTS);
    let lossy = compare(&bed.path(), &candidate, &bed.config, &mut |_| {}).unwrap();
    let float = lossy.parity().unwrap().outputs[0].float.as_ref().unwrap();
    assert!(float.sqnr_db > 20.0 && float.sqnr_db < 70.0 && lossy.verdict.pass);
    assert!(lossy.size.candidate_bytes * 2 < lossy.size.original_bytes);
    let mut strict = bed.config.clone();
    strict.gate.min_sqnr_db = Some(float.sqnr_db + 1.0);
    let judged = compare(&bed.path(), &candidate, &strict, &mut |_| {}).unwrap();
    assert!(!judged.verdict.pass);
    // Whoever compares wants the figures, which do not depend on the limit.
    assert_eq!(judged.parity().unwrap().outputs[0].float.as_ref(), Some(float));
}

#[test]
fn a_report_says_what_was_compared() {
    let (bed, candidate) = with_candidate(Scheme::INT8_WEIGHTS);
    let document = compare(&bed.path(), &candidate, &bed.config, &mut |_| {})
        .unwrap()
        .document(|_| String::new());
    assert_eq!(document.original.name.as_str(), "model.onnx");
    let candidate = document.candidate.unwrap();
    assert_eq!(candidate.name.as_str(), "candidate.onnx");
    assert!(candidate.blake3.is_some() && candidate.blake3 != document.original.blake3);
    assert!(document.verdict.is_some() && document.machine.is_some() && document.plan.is_empty());
}

#[test]
fn a_candidate_that_does_not_take_the_inputs_is_an_error() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let other = xtask::testdata::fixture("graphs/gru.onnx");
    let error = compare(&bed.path(), &other, &bed.config, &mut |_| {}).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Candidate(_)), "{error}");
    assert!(!error.to_string().contains("graphs/gru"), "{error}");
}

#[test]
fn files_that_are_not_there_are_told_apart() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let none = bed.path().with_file_name("none.onnx");
    for (original, candidate) in [(&none, &bed.path()), (&bed.path(), &none)] {
        let error = compare(original, candidate, &bed.config, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("none.onnx"), "{error}");
    }
}

#[test]
fn what_no_machine_can_run_is_not_compared_on_either_side() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let bomb = xtask::testdata::fixture("attacks/fold_constant_of_shape.onnx");
    for (original, candidate) in [(&bomb, &bed.path()), (&bed.path(), &bomb)] {
        let error = compare(original, candidate, &bed.config, &mut |_| {}).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unreasonable(_)), "{error}");
    }
}

/// Gives one figure after the other, or says that it was stopped.
struct Counting(AtomicUsize, bool);

impl Metric for Counting {
    fn name(&self) -> &'static str {
        "count"
    }

    fn evaluate(&mut self, _: &Path) -> Result<f64, MetricError> {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        if self.1 { Err(MetricError::Stopped) } else { Ok(10.0 - count as f64) }
    }
}

#[test]
fn a_metric_decides_beside_the_figures() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let with = |stops: bool| {
        let mut config = bed.config.clone();
        config.metric.custom = Some(CustomMetric::new(Counting(AtomicUsize::new(0), stops)));
        compare(&bed.path(), &bed.path(), &config, &mut |_| {})
    };
    let compared = with(false).unwrap();
    let change = compared.metric.unwrap();
    assert_eq!((change.original, change.candidate), (10.0, 9.0));
    assert!(!compared.verdict.pass && !compared.verdict.checks[0].pass);
    let error = with(true).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Metric(MetricError::Stopped)), "{error}");
}
