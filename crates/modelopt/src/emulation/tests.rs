//! What is run in place of models of 16 bits.

use modelopt_graph::DataType;
use modelopt_rewrite::Scheme;

use super::*;
use crate::search::carried_out;
use crate::testing::{Bed, Layer};

/// What embedded runtimes run for what a scheme makes of a network.
fn stand_ins(scheme: Scheme) -> Vec<Option<StandIn>> {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let path = bed.path().with_file_name("candidate.onnx");
    carried_out(&bed.prepared, &bed.plan(scheme), &path).unwrap();
    RuntimeKind::embedded().map(|kind| StandIn::of(&path, kind).unwrap()).collect()
}

#[test]
fn what_has_nothing_of_16_bits_is_run_itself() {
    for scheme in [Scheme::KEEP, Scheme::INT8_WEIGHTS, Scheme::INT8_DYNAMIC] {
        assert!(stand_ins(scheme).iter().all(Option::is_none), "{scheme}");
    }
}

#[test]
fn what_computes_in_16_bits_is_computed_in_float32_between_roundings() {
    for scheme in [Scheme::FP16, Scheme::BF16] {
        let stand_ins: Vec<StandIn> = stand_ins(scheme).into_iter().flatten().collect();
        assert!(!stand_ins.is_empty(), "{scheme}");
        for stand_in in stand_ins {
            assert_eq!(stand_in.how, COMPUTED);
            let model = onnx::load(stand_in.path()).unwrap();
            for node in model.walk().into_iter().filter(|&id| model.node(id).op.is("MatMul")) {
                let weight = model.node(node).input(1).unwrap();
                assert_ne!(model.value(weight).elem(), Some(DataType::FLOAT16));
            }
        }
    }
}

#[test]
fn its_file_goes_with_it() {
    let stand_in = stand_ins(Scheme::BF16).into_iter().flatten().next().unwrap();
    let path = stand_in.path().to_owned();
    assert!(path.exists());
    drop(stand_in);
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_model_is_an_error_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.onnx");
    std::fs::write(&path, b"not a model").unwrap();
    let kind = RuntimeKind::embedded().next().unwrap();
    let error = StandIn::of(&path, kind).err().unwrap();
    assert!(!error.is_of_machine(), "{error}");
    let error = StandIn::of(&folder.path().join("none.onnx"), kind).err().unwrap();
    assert!(error.is_of_machine(), "what cannot be read cannot be read in any runtime: {error}");
}
