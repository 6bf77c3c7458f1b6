//! Copies that show values inside of a model.

use super::*;
use crate::testing::{Bed, Layer};

fn outputs(model: &Model) -> Vec<String> {
    let outputs = &model.graph(model.main()).outputs;
    outputs.iter().map(|info| model.value(info.value).name().to_owned()).collect()
}

fn shown(names: &[&str]) -> Vec<String> {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let copy = copy_of(&bed.path(), &names).unwrap();
    let shown = outputs(&onnx::load(copy.path()).unwrap());
    // The model itself is what it was.
    assert_eq!(outputs(&onnx::load(&bed.path()).unwrap()), ["product1_out"]);
    shown
}

#[test]
fn values_that_nodes_make_are_shown_behind_the_outputs() {
    assert_eq!(shown(&["tanh0_out"]), ["product1_out", "tanh0_out"]);
    let both = shown(&["tanh0_out", "product0_out"]);
    assert_eq!((both.len(), both[0].as_str()), (3, "product1_out"));
}

#[test]
fn what_no_node_makes_is_not_shown() {
    for names in [&[][..], &["nobody"], &["x"], &["W0"]] {
        assert_eq!(shown(names), ["product1_out"], "{names:?}");
    }
}

#[test]
fn an_output_is_not_shown_twice() {
    assert_eq!(shown(&["product1_out"]), ["product1_out"]);
}
