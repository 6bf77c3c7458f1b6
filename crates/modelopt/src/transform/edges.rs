//! Models that are planned and rewritten without being run.

use modelopt_rewrite::{Interface, Numerics, Precision};

use super::*;
use crate::error::ErrorKind;
use crate::testing::{Bed, Layer, network};

const INT8: Scheme = Scheme::INT8_WEIGHTS;

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config { min_weight_bytes: 0, ..Config::default() };
    change(&mut config);
    config
}

fn transformed(change: impl FnOnce(&mut Config)) -> Result<Transformed, Error> {
    transform(&network(&[Layer::Even; 2]), &config(change))
}

fn bytes(model: &Model) -> Vec<u8> {
    modelopt_onnx::to_bytes(model).unwrap()
}

#[test]
fn the_same_model_and_settings_give_the_same_bytes_from_any_thread() {
    let bytes = || bytes(&transformed(|config| config.scheme = Some(INT8)).unwrap().model);
    let first = bytes();
    let others: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads = [(); 3].map(|()| scope.spawn(bytes));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert!(others.iter().all(|other| *other == first));
}

#[test]
fn what_is_kept_is_the_model_as_it_was_given() {
    let kept = transformed(|config| config.scheme = Some(Scheme::KEEP)).unwrap();
    assert!(kept.unchanged && kept.weights.is_empty() && kept.plan.changed() == 0);
    assert!(bytes(&kept.model) == bytes(&network(&[Layer::Even; 2])));
    let int8 = transformed(|config| config.scheme = Some(INT8)).unwrap();
    assert!(!int8.unchanged && int8.weights.len() == 2 && int8.plan.changed() == 2);
    assert!(bytes(&int8.model).len() * 2 < bytes(&kept.model).len());
}

#[test]
fn a_model_without_anything_in_it_is_left_alone() {
    let model = Model::new(modelopt_graph::ModelInfo::default());
    for scheme in Scheme::all() {
        let made = transform(&model, &config(|config| config.scheme = Some(scheme))).unwrap();
        assert!(made.unchanged && made.plan.layers.is_empty(), "{scheme}");
    }
}

#[test]
fn frozen_and_converted_inputs_are_a_change_of_their_own() {
    let frozen = transformed(|config| {
        (config.scheme, config.freeze_inputs) = (Some(Scheme::KEEP), true);
    });
    assert!(!frozen.unwrap().unchanged);
    let converted = transformed(|config| {
        (config.scheme, config.io) = (Some(Scheme::FP16), Interface::Fp16);
    })
    .unwrap();
    assert!(!converted.unchanged);
    assert_eq!(converted.plan.io.precision(), Some(Precision::Fp16));
    // The interface is of no concern to a plan of another type.
    let other = transformed(|config| (config.scheme, config.io) = (Some(INT8), Interface::Fp16));
    assert_eq!(other.unwrap().plan.io, Interface::Float32);
}

#[test]
fn a_plan_that_is_given_is_carried_out_and_must_fit() {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let mut plan = bed.plan(INT8).into_plan();
    plan.layers[1].scheme = Scheme::KEEP;
    let made = transformed(|config| config.plan = Some(plan.clone())).unwrap();
    assert_eq!((made.plan.changed(), made.weights.len()), (1, 1));
    plan.layers[0].id = "somebody else's".to_owned();
    let error = transformed(|config| config.plan = Some(plan)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Plan(_)), "{error}");
}

#[test]
fn layers_are_left_out_by_pattern_and_by_size() {
    let changed = |change: fn(&mut Config)| {
        transformed(|config| {
            config.scheme = Some(INT8);
            change(config);
        })
    };
    assert_eq!(changed(|config| config.exclude = vec!["*0".into()]).unwrap().plan.changed(), 1);
    assert_eq!(changed(|config| config.include = vec!["*0".into()]).unwrap().plan.changed(), 1);
    assert_eq!(changed(|config| config.min_weight_bytes = 1 << 20).unwrap().plan.changed(), 0);
    let error = changed(|config| config.include = vec!["none of them".into()]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Plan(_)), "{error}");
    let error = changed(|config| config.skip_rewrite = vec!["none of them".into()]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Config(_)), "{error}");
}

#[test]
fn what_is_left_alone_is_known_before_anything_runs() {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let alone = |change: fn(&mut Config)| leaves_alone(&bed.prepared, &config(change)).unwrap();
    assert!(!alone(|config| config.scheme = Some(INT8)));
    assert!(alone(|config| config.scheme = Some(Scheme::KEEP)));
    assert!(alone(|config| {
        (config.scheme, config.min_weight_bytes) = (Some(INT8), 1 << 20);
    }));
    assert!(!alone(|config| (config.scheme, config.measure) = (Some(Scheme::KEEP), true)));
    assert!(!alone(|config| (config.scheme, config.freeze_inputs) = (Some(Scheme::KEEP), true)));
    assert!(alone(|config| config.plan = Some(rewrite::Plan::new(Numerics::default()))));
}

#[test]
fn weights_that_are_of_16_bits_already_are_not_made_so_again() {
    let half = transformed(|config| config.scheme = Some(Scheme::FP16_WEIGHTS)).unwrap();
    assert!(!half.unchanged);
    let again = config(|config| config.scheme = Some(Scheme::FP16_WEIGHTS));
    let made = transform(&half.model, &again).unwrap();
    assert!(made.unchanged && made.plan.changed() == 0);
    assert!(bytes(&made.model) == bytes(&half.model));
}

#[test]
fn measured_layers_get_what_was_fast() {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let measured = |ratio: f64| MeasuredLayer {
        ratios: vec![(INT8, ratio), (Scheme::INT8_DYNAMIC, ratio)],
        place: "here".to_owned(),
    };
    let mut hints = Hints::default();
    hints.measured.insert("product0".to_owned(), measured(3.0));
    hints.measured.insert("product1".to_owned(), measured(0.2));
    let plan = planned(&bed.prepared, &config(|_| {}), &hints).unwrap();
    assert!(plan.layers[0].scheme.is_keep() || !plan.layers[0].scheme.is_int8(), "{plan:?}");
    assert!(plan.layers[1].scheme.is_int8(), "{plan:?}");
}
