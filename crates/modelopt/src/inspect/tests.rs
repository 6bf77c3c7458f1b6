//! What is said of models.

use modelopt_rewrite::Scheme;
use xtask::testdata::fixture;

use super::*;
use crate::error::ErrorKind;
use crate::testing::{Bed, Layer, WIDTH};

fn inspected(name: &str) -> Inspection {
    inspect(&fixture(name), &Config::default()).unwrap()
}

#[test]
fn a_model_is_told_by_its_parts() {
    let bed = Bed::of(&[Layer::Even; 3], 20.0);
    let told = inspect(&bed.path(), &bed.config).unwrap();
    assert_eq!(told.bytes, std::fs::metadata(bed.path()).unwrap().len());
    assert_eq!((told.ir_version, told.opsets["ai.onnx"]), (8, 17));
    let counts: Vec<(&str, usize)> =
        told.operators.iter().map(|entry| (entry.operator.as_str(), entry.count)).collect();
    assert_eq!(counts, [("MatMul", 3), ("Tanh", 2)]);
    let [weights] = &told.weights[..] else { panic!("{:?}", told.weights) };
    assert_eq!((weights.tensors, weights.bytes), (3, (3 * WIDTH * WIDTH * 4) as u64));
    assert_eq!((told.inputs.len(), told.inputs[0].name.as_str()), (1, "x"));
    assert!(!told.inputs[0].has_default && told.inputs[0].ty.contains("48"));
    assert_eq!((told.outputs.len(), told.nested_graphs, told.functions), (1, 0, 0));
    assert_eq!(told.plan.layers.len(), 3);
}

#[test]
fn what_would_be_done_follows_the_settings() {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let config = Config { scheme: Some(Scheme::FP16_WEIGHTS), ..bed.config.clone() };
    let told = inspect(&bed.path(), &config).unwrap();
    assert!(told.plan.layers.iter().all(|line| line.scheme == Scheme::FP16_WEIGHTS));
    let config = Config { exclude: vec!["product0".to_owned()], ..config };
    assert_eq!(inspect(&bed.path(), &config).unwrap().plan.changed(), 1);
}

#[test]
fn graphs_inside_of_nodes_and_functions_are_counted() {
    let told = inspected("graphs/if_nested.onnx");
    assert!(told.nested_graphs >= 4, "{}", told.nested_graphs);
    assert!(told.operators.iter().any(|entry| entry.operator == "If" && entry.count > 1));
    assert!(inspected("graphs/functions.onnx").functions > 0);
}

#[test]
fn weights_are_told_by_their_type_the_largest_first() {
    for name in ["graphs/already_quantized_qdq.onnx", "graphs/sparse_initializer.onnx"] {
        let weights = inspected(name).weights;
        assert!(weights.len() > 1, "{name}");
        assert!(weights.is_sorted_by(|a, b| a.bytes >= b.bytes), "{weights:?}");
    }
    let sparse = inspected("graphs/sparse_initializer.onnx").weights;
    assert!(sparse.iter().any(|entry| entry.ty.contains("sparse")), "{sparse:?}");
    // Those that nodes hold count as well.
    assert!(inspected("graphs/constant_weights.onnx").weights.iter().any(|w| w.bytes > 0));
}

#[test]
fn inputs_with_a_default_are_told() {
    let told = inspected("graphs/ir7_overridable.onnx");
    assert!(told.inputs.iter().any(|port| port.has_default));
    assert!(told.inputs.iter().any(|port| !port.has_default));
}

#[test]
fn who_made_it_and_what_was_written_into_it_are_told() {
    let told = inspected("graphs/metadata_rich.onnx");
    assert!(!told.metadata.is_empty() && !told.producer.is_empty());
    assert_eq!(told.producer.trim(), told.producer);
}

#[test]
fn what_is_no_model_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.onnx");
    std::fs::write(&path, b"not a model").unwrap();
    let error = inspect(&path, &Config::default()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Onnx(_)), "{error}");
}
