//! Rows of measurements, and what stands in them where there is nothing to measure.

use modelopt_validate::LatencyOptions;

use super::*;
use crate::error::ErrorKind;
use crate::testing::{Bed, Layer};

fn config(bed: &Bed) -> Config {
    let latency = LatencyOptions { min_pairs: 2, min_seconds: 0.0, max_seconds: 0.01 };
    Config { latency, ..bed.config.clone() }
}

fn rows(change: impl FnOnce(&mut Config), options: &BenchOptions) -> Result<Vec<BenchRow>, Error> {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let mut config = config(&bed);
    change(&mut config);
    bench(&bed.path(), &config, options, &mut |_| {})
}

#[test]
fn every_runtime_is_measured_with_every_number_of_threads() {
    let options = BenchOptions { threads: vec![1, 2], ..BenchOptions::default() };
    let rows = rows(|_| {}, &options).unwrap();
    let found: Vec<(&str, usize)> =
        rows.iter().map(|row| (row.runtime.name.as_str(), row.runtime.threads)).collect();
    let kinds = RuntimeKind::embedded();
    let expected: Vec<(&str, usize)> =
        kinds.flat_map(|kind| [(kind.name(), 1), (kind.name(), 2)]).collect();
    assert_eq!(found, expected);
    for row in &rows {
        assert_eq!((row.model.as_str(), &row.failure), ("model.onnx", &None));
        assert!(row.latency.as_ref().unwrap().runs > 0);
        assert_eq!(row.inputs["x"], [4, crate::testing::WIDTH]);
        assert!(row.dims.is_empty());
    }
}

#[test]
fn what_does_not_run_is_a_row_that_says_why_and_the_others_are_measured() {
    let kinds: Vec<RuntimeKind> = RuntimeKind::all().collect();
    let change = |config: &mut Config| {
        config.runtime = RuntimeChoice::Named(kinds.clone());
        config.onnxruntime = Some("/no such folder/library.so".into());
    };
    let rows = rows(change, &BenchOptions::default()).unwrap();
    assert_eq!(rows.len(), kinds.len());
    for (row, kind) in rows.iter().zip(kinds) {
        assert_eq!(row.runtime.name, kind.name());
        // There is no library.
        assert_eq!(row.failure.is_none(), kind.is_embedded(), "{row:?}");
        assert_eq!(row.latency.is_some(), row.failure.is_none());
    }
}

#[test]
fn sizes_that_the_model_does_not_have_are_an_error_once() {
    let dims = [("no such dimension".to_owned(), vec![1, 2])].into();
    let options = BenchOptions { dims, ..BenchOptions::default() };
    let error = rows(|_| {}, &options).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Samples(_)), "{error}");
}

#[test]
fn no_sizes_to_choose_from_are_no_rows() {
    let dims = [("n".to_owned(), Vec::new())].into();
    let options = BenchOptions { dims, ..BenchOptions::default() };
    assert!(rows(|_| {}, &options).unwrap().is_empty());
}
