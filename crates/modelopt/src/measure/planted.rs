//! Layers measured in a planted runtime, and what is kept of that.

use super::*;
use crate::target::planted::{self, Planted, outputs, samples};
use crate::testing::{Bed, Layer};

/// What a cache on disk holds after layers were measured.
const LAYER: &str = "product0";

fn bed() -> Bed {
    Bed::of(&[Layer::Even], 20.0)
}

/// A runtime in which nothing takes any time.
fn instant() -> Planted {
    Planted::new(|run| Ok(if run.is_original() { run.times(1.0) } else { outputs(&[1.0]) }))
}

/// Measures the layers of a network of one layer.
fn measured(runtime: &Planted, cache: &mut Cache) -> Measured {
    let (bed, config) = (bed(), planted::named(&bed()));
    let ground = bed.planted(runtime, samples(1), &config).unwrap();
    let numerics = Numerics::default();
    layers(&bed.prepared, &ground.samples[0], numerics, &ground.rig, cache, &mut |_| {})
}

/// The changed layers of an int8 plan that became slower.
fn slow(cache: &mut Cache, scheme: Scheme) -> Vec<SlowLayer> {
    let (bed, config) = (bed(), planted::named(&bed()));
    let ground = bed.planted(&instant(), samples(1), &config).unwrap();
    let (sample, plan) = (&ground.samples[0], bed.plan(scheme));
    slow_layers(&bed.prepared, &plan, sample, &ground.rig, cache, &mut |_| {})
}

/// A cache of one measured layer, each scheme of which is said to take so many times as long.
fn planted_cache(ratio: f64) -> Cache {
    let mut cache = Cache::open(None);
    let found = measured(&instant(), &mut cache);
    assert_eq!(found.layers.keys().collect::<Vec<_>>(), [LAYER]);
    assert!(found.fresh > 0 && found.fresh == cache.known.len() && cache.changed);
    cache.known.values_mut().for_each(|figure| *figure = Figure { original_ms: 2.0, ratio });
    cache.changed = false;
    cache
}

#[test]
fn what_is_known_is_not_measured_again() {
    let mut cache = planted_cache(1.5);
    let refusing = instant().refusing(|model, _| (model == "changed.onnx").then(planted::crash));
    let found = measured(&refusing, &mut cache);
    assert_eq!((found.fresh, cache.changed), (0, false));
    assert!(!found.layers[LAYER].ratios.is_empty());
    assert!(found.layers[LAYER].ratios.iter().all(|(_, ratio)| (ratio - 1.5).abs() < 1e-12));
}

#[test]
fn differences_that_cannot_be_told_are_none() {
    let found = measured(&instant(), &mut Cache::open(None));
    assert!(found.layers[LAYER].ratios.iter().all(|(_, ratio)| (ratio - 1.0).abs() < 1e-12));
    assert!(found.unknown.is_empty());
}

#[test]
fn schemes_that_do_not_run_have_no_figure() {
    let refusing = instant().refusing(|model, _| (model == "changed.onnx").then(planted::refusal));
    let mut cache = Cache::open(None);
    let found = measured(&refusing, &mut cache);
    assert!(found.layers[LAYER].ratios.is_empty());
    assert_eq!((found.fresh, cache.changed), (0, false));
}

#[test]
fn only_changed_layers_that_became_slower_are_named() {
    let mut cache = planted_cache(1.5);
    let found = slow(&mut cache, Scheme::INT8_DYNAMIC);
    assert_eq!((found.len(), found[0].layer.as_str(), found[0].slowdown), (1, LAYER, 1.5));
    assert_eq!(found[0].scheme, Scheme::INT8_DYNAMIC.name());
    assert!(slow(&mut cache, Scheme::KEEP).is_empty());
    cache.known.values_mut().for_each(|figure| figure.ratio = 1.04);
    assert!(slow(&mut cache, Scheme::INT8_DYNAMIC).is_empty(), "it is within what nobody notices");
}

#[test]
fn measurements_outlive_the_run_that_made_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new folder/measured.json");
    let mut cache = Cache { file: Some(file.clone()), ..planted_cache(1.25) };
    cache.changed = true;
    let (known, cpu) = (cache.known.len(), cache.cpu.clone());
    assert_eq!(cache.close(), None);
    let again = Cache::open(Some(&file));
    assert_eq!((again.known.len(), again.cpu), (known, cpu));
    assert!(again.known.values().all(|figure| (figure.ratio - 1.25).abs() < 1e-12));
}

#[test]
fn nothing_new_is_nothing_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("measured.json");
    assert_eq!(Cache::open(Some(&file)).close(), None);
    assert!(!file.exists());
    assert_eq!(Cache { changed: true, ..Cache::open(None) }.close(), None);
}

#[test]
fn a_file_that_cannot_be_read_is_an_empty_one_and_one_that_cannot_be_written_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("measured.json");
    std::fs::write(&file, "{ not json").unwrap();
    let mut cache = Cache::open(Some(&file));
    assert!(cache.known.is_empty());
    (cache.changed, cache.file) = (true, Some(file.join("below a file")));
    assert!(cache.close().is_some());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{ not json");
}

#[test]
fn inputs_are_of_both_signs_and_of_their_type() {
    let bed = bed();
    let shapes = [("x".to_owned(), vec![4, crate::testing::WIDTH])];
    let (isolated, unknown) = isolate(&bed.prepared, &shapes);
    assert!(unknown.is_empty());
    let mut layer = isolated.into_iter().next().unwrap();
    let numbers = inputs(&layer).unwrap()[0].to_f32().unwrap().into_owned();
    assert_eq!(numbers.len(), 4 * crate::testing::WIDTH);
    assert!(numbers.iter().any(|x| *x > 0.5) && numbers.iter().any(|x| *x < -0.5));
    assert!(numbers.iter().all(|x| x.abs() <= 1.01 && (*x == 0.0 || x.is_normal())));
    layer.inputs[0].1 = DataType::INT64;
    assert!(inputs(&layer).unwrap()[0].to_i64().unwrap().iter().all(|x| *x == 0));
    // More than there is room for is no input.
    layer.inputs[0].2 = vec![usize::MAX, 2];
    assert!(inputs(&layer).is_none());
}
