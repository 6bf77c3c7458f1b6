//! What reports say of planted tensors and regions.

use modelopt_calibrate::{Histogram, Observer, View};
use modelopt_graph::Tensor;
use modelopt_rewrite::{EndReason, RegionEnd, RegionTensor, Scheme};

use super::*;
use crate::testing::{Bed, Layer};

fn seen(numbers: &[f32]) -> Distribution {
    let mut histogram = Histogram::new();
    let tensor = Tensor::of(vec![numbers.len()], numbers).unwrap();
    Observer::see(&mut histogram, &View::new(&tensor, 0));
    histogram.statistic()
}

fn range(min: f32, max: f32) -> TensorRange {
    TensorRange::new("t", min, max)
}

/// Evenly from -1 to 1.
fn even() -> Distribution {
    seen(&(0..=20_000u16).map(|x| f32::from(x) / 10_000.0 - 1.0).collect::<Vec<_>>())
}

#[test]
fn a_range_of_all_that_was_seen_clips_nothing() {
    let told = observed(&even(), &range(-1.0, 1.0)).unwrap();
    assert_eq!((told.min, told.max, told.clipped), (-1.0, 1.0, 0.0));
    // A third of a square against a twelfth of a step's: 8 bits of even numbers.
    assert!((told.sqnr_db - 48.1).abs() < 0.2, "{}", told.sqnr_db);
}

#[test]
fn what_is_clipped_is_counted_and_is_noise() {
    let told = observed(&even(), &range(-0.5, 1.0)).unwrap();
    assert!((told.clipped - 0.25).abs() < 1e-3, "{}", told.clipped);
    assert!(told.sqnr_db < 13.0, "{}", told.sqnr_db);
    let nothing = observed(&even(), &range(0.0, 0.0)).unwrap();
    assert!((nothing.clipped - 1.0).abs() < 1e-3 && nothing.sqnr_db.abs() < 1e-6);
}

#[test]
fn zeros_are_exact() {
    let told = observed(&seen(&[0.0; 8]), &range(0.0, 0.0)).unwrap();
    assert_eq!((told.clipped, told.sqnr_db), (0.0, f64::INFINITY));
    assert!(observed(&seen(&[f32::NAN]), &range(0.0, 1.0)).is_none());
}

#[test]
fn histograms_have_few_bins_and_lose_no_number() {
    let few = histogram(&even());
    assert!(few.counts.len() <= MOST_BINS && few.counts.len() > MOST_BINS / 2);
    assert_eq!(few.counts.iter().sum::<u64>(), 20_001);
    assert!(few.start <= -1.0 && few.start + few.width * few.counts.len() as f64 >= 1.0);
    let none = histogram(&seen(&[]));
    assert!(none.counts.is_empty());
}

#[test]
fn ends_keep_their_kind_and_their_sentence() {
    let end = |edge, why| RegionEnd { tensor: "t".to_owned(), edge, why };
    let no_kernel = EndReason::NoKernel { op: "Elu".to_owned(), runtime: Some("planted") };
    let found = rewrite::Region {
        layers: vec!["a".to_owned()],
        operators: [("Add".to_owned(), 2)].into(),
        tensors: vec![RegionTensor { name: "t".to_owned(), is_divided: false }],
        ends: vec![end(Edge::Begin, EndReason::Input), end(Edge::End, no_kernel)],
        predicted: None,
    };
    let told = region(&found);
    let ends: Vec<(report::RegionEdge, &str, &str)> =
        told.ends.iter().map(|end| (end.edge, end.kind.as_str(), end.reason.as_str())).collect();
    let why = "Elu has no integer kernel on planted that is worth its time";
    assert_eq!(
        ends,
        [
            (report::RegionEdge::Begin, "input", "it is an input of the model"),
            (report::RegionEdge::End, "no_kernel", why),
        ]
    );
}

/// A plan of two products on integers, with what is not known between them.
fn by_ranges(bed: &Bed) -> ExplainedPlan {
    let mut plan = bed.plan(Scheme::INT8_WEIGHTS).into_plan();
    for layer in &mut plan.layers {
        layer.scheme = Scheme::INT8_STATIC;
    }
    let range = |name: &str| TensorRange::new(name, -1.0, 1.0);
    plan.tensors = ["x", "tanh0_out"].map(range).to_vec();
    rewrite::plan_from(&bed.prepared, &plan).unwrap()
}

#[test]
fn tensors_know_their_regions() {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let plan = by_ranges(&bed);
    let told = described(&bed.prepared, &plan, &bed.config, (&[], &SeenTensors::default()));
    let layers: Vec<&[String]> = told.regions.iter().map(|region| &*region.layers).collect();
    assert_eq!(layers, [["product0"], ["product1"]]);
    let places: Vec<(&str, Option<usize>)> =
        told.ranges.iter().map(|range| (range.tensor.as_str(), range.region)).collect();
    assert_eq!(places, [("x", Some(1)), ("tanh0_out", Some(2))]);
    assert!(told.ranges.iter().all(|range| range.observed.is_none()));
    assert_eq!(regions(&bed.prepared, &plan, &bed.config), told.regions);
    let ends: Vec<&str> = told.regions[0].ends.iter().map(|end| end.kind.as_str()).collect();
    assert_eq!(ends, ["input", "no_kernel"]);
}

#[test]
fn a_plan_without_ranges_has_none() {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    assert_eq!(regions(&bed.prepared, &plan, &bed.config), []);
}
