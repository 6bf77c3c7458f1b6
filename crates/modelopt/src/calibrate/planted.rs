//! Activations of planted originals.

use modelopt_rewrite::Scheme;

use super::*;
use crate::config::Config;
use crate::target::planted::{self, Planted, samples};
use crate::testing::{Bed, Layer};

/// The file of a model with its activations as outputs.
const ACTIVATIONS: &str = "activations.onnx";

/// What is seen of the activations of two products in a runtime.
fn seen(runtime: &Planted) -> Result<Seen, String> {
    let (bed, config) = (Bed::of(&[Layer::Even; 2], 20.0), Config::default());
    let plan = bed.plan(Scheme::INT8_DYNAMIC);
    statistics(&bed.prepared, &plan, &samples(2), &runtime.host(&config), &mut |_| {})
}

fn refusing(error: fn() -> RuntimeError) -> Planted {
    Planted::noisy(0.0).refusing(move |model, _| (model == ACTIVATIONS).then(error))
}

#[test]
fn what_does_not_load_says_why_and_not_where() {
    for error in [planted::crash, planted::refusal, planted::no_memory] {
        let said = seen(&refusing(error)).unwrap_err();
        assert!(!said.is_empty() && !said.contains("/somewhere"), "{said}");
        assert!(said.contains(&error().without_path()), "{said}");
    }
}

#[test]
fn a_run_that_fails_on_the_second_sample_leaves_nothing_seen() {
    let runtime = Planted::new(|run| {
        if run.model == ACTIVATIONS && run.before == 1 {
            Err(planted::crash())
        } else {
            Ok(run.times(1.0))
        }
    });
    assert!(seen(&runtime).is_err());
    assert_eq!(runtime.ran(ACTIVATIONS), 2);
}

#[test]
fn files_of_activations_go_with_their_session() {
    let (bed, config) = (Bed::of(&[Layer::Even], 20.0), Config::default());
    let runtime = Planted::noisy(0.0);
    let host = runtime.host(&config);
    let before = runtime.loaded(ACTIVATIONS);
    let mut session = host.open(&bed.original).unwrap();
    assert_eq!(runtime.loaded(ACTIVATIONS), before + 1);
    let inputs = samples(1).remove(0).inputs;
    assert_eq!(session.run(&inputs).unwrap().len(), 1);
    assert!(session.left_out().is_empty());
}

#[test]
fn activations_that_cannot_be_seen_are_told_and_fit() {
    let (bed, config) = (Bed::of(&[Layer::Even; 2], 20.0), Config::default());
    let rounding = (Precision::Fp16, 40.0);
    let runtime = refusing(planted::refusal);
    let host = runtime.host(&config);
    let observed = activations(&bed.prepared, rounding, &samples(1), &host, &mut |_| {});
    assert!(observed.unfit.is_empty() && observed.warning.is_some());
}

#[test]
fn activations_that_overflow_are_unfit_for_float16_and_no_others() {
    let bed = Bed::of(&[Layer::Even, Layer::Outliers], 20.0);
    let unfit = |factor: f32, to: Precision| {
        bed.prove(|prover| {
            let mut given = prover.samples.to_vec();
            let x = given[0].inputs["x"].clone();
            let numbers: Vec<f32> = x.to_f32().unwrap().iter().map(|x| x * factor).collect();
            given[0].inputs["x"] = Tensor::of(x.shape().to_vec(), &numbers).unwrap();
            let seen = activations(&bed.prepared, (to, 30.0), &given, prover.host, &mut |_| {});
            assert!(seen.warning.is_none());
            seen.unfit.len()
        })
    };
    assert_eq!(unfit(1.0, Precision::Fp16), 0);
    assert!(unfit(1e6, Precision::Fp16) > 0);
    assert_eq!(unfit(1e6, Precision::Bf16), 0);
}
