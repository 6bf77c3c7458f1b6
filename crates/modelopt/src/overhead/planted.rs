//! What a call costs in planted runtimes.

use super::*;
use crate::target::Ground;
use crate::target::planted::{self, Planted, samples};
use crate::testing::{Bed, Layer};

fn call(runtime: &Planted, inputs: usize) -> Option<f64> {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let config = planted::named(&bed);
    let Ground { rig, .. } = bed.planted(runtime, samples(1), &config).unwrap();
    call_ms(&rig, inputs)
}

#[test]
fn a_call_is_made_with_as_many_inputs_as_the_model_has() {
    for (inputs, expected) in [(0, 1), (1, 1), (5, 5)] {
        let runtime = Planted::new(move |run| {
            if !run.is_original() {
                assert_eq!((run.model, run.inputs.len()), ("shortest.onnx", expected));
                return Ok(planted::outputs(&[1.0]));
            }
            Ok(run.times(1.0))
        });
        let cost = call(&runtime, inputs).unwrap();
        assert!((0.0..50.0).contains(&cost), "{cost}");
    }
}

#[test]
fn who_does_not_run_the_shortest_model_has_no_figure() {
    let refusing =
        Planted::noisy(0.0).refusing(|model, _| (model == "shortest.onnx").then(planted::refusal));
    assert_eq!(call(&refusing, 1), None);
    let failing =
        Planted::new(
            |run| {
                if run.is_original() { Ok(run.times(1.0)) } else { Err(planted::crash()) }
            },
        );
    assert_eq!(call(&failing, 1), None);
}
