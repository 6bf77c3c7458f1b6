//! Plans that run in a planted runtime.

use modelopt_graph::Tensor;
use modelopt_rewrite::Scheme;
use modelopt_runtime::{Outputs, RuntimeError};
use modelopt_validate::Limits;

use super::*;
use crate::config::Config;
use crate::excess::Excess;
use crate::target::Ground;
use crate::target::planted::{self, Planted, Run, TRIAL, outputs, samples};
use crate::testing::{Bed, Layer};

fn bed() -> Bed {
    Bed::of(&[Layer::Even; 2], 20.0)
}

/// What comes of an int8 plan on all of so many samples.
fn proved(runtime: &Planted, count: usize) -> Result<Proved, TrialError> {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    bed.prove_in(runtime, samples(count), |mut prover| {
        let all = prover.all();
        prover.prove(&plan, &all)
    })
}

/// A runtime whose original gives back its input, and whose candidate answers as told.
fn candidate(
    answer: impl Fn(&Run<'_>) -> Result<Outputs, RuntimeError> + Send + Sync + 'static,
) -> Planted {
    Planted::new(move |run| if run.is_original() { Ok(run.times(1.0)) } else { answer(run) })
}

#[test]
fn the_ratio_is_that_of_the_noise() {
    for (error, expected) in [(0.1, 20.0), (0.01, 40.0), (1.0, 0.0)] {
        let parity = proved(&Planted::noisy(error), 3).unwrap().parity;
        let (sqnr_db, _) = worst_sqnr(&parity).unwrap();
        assert!((sqnr_db - expected).abs() < 1e-3, "{error}: {sqnr_db}");
        assert_eq!(parity.samples, 3);
    }
}

#[test]
fn the_worst_sample_is_named_and_of_equal_ones_the_first() {
    let runtime = candidate(|run| Ok(run.times(if run.before == 1 { 1.2 } else { 1.1 })));
    let parity = proved(&runtime, 3).unwrap().parity;
    let (sqnr_db, sample) = worst_sqnr(&parity).unwrap();
    assert_eq!(sample, "s1");
    assert!((sqnr_db - 10.0 * 25f64.log10()).abs() < 1e-3, "{sqnr_db}");
    let parity = proved(&candidate(|run| Ok(run.times(0.0))), 3).unwrap().parity;
    assert_eq!(worst_sqnr(&parity).unwrap(), (0.0, "s0"));
}

#[test]
fn only_the_samples_that_were_asked_for_are_run() {
    let bed = bed();
    let plan = bed.plan(Scheme::KEEP);
    let runtime = Planted::noisy(0.5);
    bed.prove_in(&runtime, samples(5), |mut prover| {
        let parity = prover.prove(&plan, &[4, 2]).unwrap().parity;
        assert_eq!((parity.samples, runtime.ran(TRIAL)), (2, 2));
        assert_eq!(worst_sqnr(&parity).unwrap().1, "s4");
        // None at all is no figure, rather than a good one.
        let parity = prover.prove(&plan, &[]).unwrap().parity;
        assert_eq!(parity.samples, 0);
        assert!(worst_sqnr(&parity).is_none());
    });
}

#[test]
fn the_original_runs_once_on_each_sample_however_many_plans_are_run() {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    let runtime = Planted::noisy(0.1);
    bed.prove_in(&runtime, samples(4), |mut prover| {
        let before = runtime.ran(planted::ORIGINAL);
        let all = prover.all();
        for _ in 0..3 {
            prover.prove(&plan, &all).unwrap();
        }
        assert_eq!(runtime.ran(planted::ORIGINAL), before);
        assert_eq!(runtime.ran(TRIAL), 12);
    });
}

#[test]
fn numbers_that_are_none_are_too_much_however_few_they_are() {
    let limits = Limits::default();
    for odd in [f32::NAN, f32::INFINITY] {
        let runtime = candidate(move |run| {
            let mut numbers = run.numbers();
            numbers[3] = odd;
            Ok(outputs(&numbers))
        });
        let parity = proved(&runtime, 2).unwrap().parity;
        let excess = Excess::new(&limits).of(&parity);
        assert!(excess > 1.0, "{odd}: {excess}");
        assert_eq!(parity.outputs[0].float.as_ref().unwrap().new_non_finite, 2);
    }
}

#[test]
fn outputs_of_another_shape_are_not_compared_and_not_good() {
    let runtime = candidate(|run| Ok(outputs(&run.numbers()[..7])));
    let parity = proved(&runtime, 2).unwrap().parity;
    let output = &parity.outputs[0];
    assert!(!output.shape_equal && output.float.is_none());
    let limits = Limits::default();
    assert!(Excess::new(&limits).of(&parity) > 1.0);
}

#[test]
fn an_output_that_is_missing_is_not_good_either() {
    let limits = Limits::default();
    let other = || Tensor::of(vec![1], &[1.0f32]).unwrap();
    let runtime = candidate(move |_| Ok([("z".to_owned(), other())].into()));
    let parity = proved(&runtime, 1).unwrap().parity;
    assert!(!parity.outputs[0].present);
    assert_eq!(parity.extra_outputs, ["z"]);
    assert!(Excess::new(&limits).of(&parity) > 1.0);
    assert!(worst_sqnr(&parity).is_none());
}

#[test]
fn a_run_that_fails_on_the_second_sample_fails_the_plan() {
    let failing = |error: fn() -> RuntimeError| {
        let runtime =
            candidate(move |run| if run.before == 1 { Err(error()) } else { Ok(run.times(1.0)) });
        proved(&runtime, 3).map(|_| ()).unwrap_err()
    };
    let refused = failing(planted::refusal);
    assert!(matches!(&refused, TrialError::Refused(why) if why.contains("no kernel")));
    assert!(!refused.to_string().contains("/somewhere"), "{refused}");
    assert!(matches!(failing(planted::crash), TrialError::Crashed(_)));
    assert!(matches!(failing(planted::panicked), TrialError::Refused(_)));
    assert!(matches!(failing(planted::no_memory), TrialError::Environment(_)));
}

#[test]
fn what_does_not_load_fails_the_plan_and_the_next_one_is_run() {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    let runtime = Planted::noisy(0.1).refusing(|model, before| match (model, before) {
        (TRIAL, 0) => Some(planted::crash()),
        (TRIAL, 1) => Some(planted::no_memory()),
        _ => None,
    });
    bed.prove_in(&runtime, samples(1), |mut prover| {
        assert!(matches!(prover.prove(&plan, &[0]), Err(TrialError::Crashed(_))));
        assert!(matches!(prover.prove(&plan, &[0]), Err(TrialError::Environment(_))));
        assert!(prover.prove(&plan, &[0]).is_ok());
    });
}

#[test]
fn an_original_that_does_not_run_is_an_error_before_any_plan() {
    let bed = bed();
    let config = planted::named(&bed);
    let runtime =
        Planted::new(
            |run| {
                if run.before == 2 { Err(planted::refusal()) } else { Ok(run.times(1.0)) }
            },
        );
    let error = bed.planted(&runtime, samples(3), &config).err().unwrap();
    assert!(error.to_string().contains("no kernel for it"), "{error}");
}

#[test]
fn an_original_that_differs_from_itself_bounds_what_can_be_asked() {
    let bed = bed();
    let config = planted::named(&bed);
    // Each run of it is off by another part.
    let runtime = Planted::new(|run| Ok(run.times(1.0 + 0.01 * run.before as f32)));
    let ground = bed.planted(&runtime, samples(1), &config).unwrap();
    assert!(ground.rig.unsteady().is_some());
    let steady = bed.planted(&Planted::noisy(0.1), samples(1), &config).unwrap();
    assert!(steady.rig.unsteady().is_none());
}

#[test]
fn the_same_plan_gives_the_same_figures_whatever_the_number_of_threads() {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    let with = |threads: usize| {
        let config = Config { threads, ..planted::named(&bed) };
        let runtime = candidate(|run| {
            // By the sample and not by who runs it.
            Ok(run.times(1.0 + run.numbers()[0] * 0.01))
        });
        let Ground { mut rig, samples, .. } = bed.planted(&runtime, samples(9), &config).unwrap();
        let mut prover = Prover::new(&bed.prepared, &samples, &mut rig, None);
        let all = prover.all();
        let proved = prover.prove(&plan, &all).unwrap();
        (proved.parity, proved.bytes)
    };
    let first = with(1);
    assert_eq!(worst_sqnr(&first.0).unwrap().1, "s8");
    assert!(first == with(0) && first == with(64));
}

#[test]
fn the_worst_of_several_outputs_counts() {
    let two = |a: f32, b: f32| {
        let tensor = |x: f32| Tensor::of(vec![2], &[3.0 * x, -5.0 * x]).unwrap();
        Outputs::from([("a".to_owned(), tensor(a)), ("b".to_owned(), tensor(b))])
    };
    let runtime =
        Planted::new(move |run| Ok(if run.is_original() { two(1.0, 1.0) } else { two(1.01, 1.1) }));
    let parity = proved(&runtime, 1).unwrap().parity;
    let (sqnr_db, _) = worst_sqnr(&parity).unwrap();
    assert!((sqnr_db - 20.0).abs() < 1e-3, "{sqnr_db}");
    assert_eq!(parity.outputs.len(), 2);
}
