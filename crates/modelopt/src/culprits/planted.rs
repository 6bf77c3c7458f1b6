//! Who is to blame in a planted runtime.

use modelopt_runtime::RuntimeError;

use super::*;
use crate::budget::Stop;
use crate::target::planted::{self, Planted, SWITCHES, TRIAL, samples};
use crate::testing::{Bed, Layer};

fn bed() -> Bed {
    Bed::of(&[Layer::Even; 3], 20.0)
}

/// The layers to blame for an int8 plan of three layers, and what each does.
fn blamed(
    runtime: &Planted,
    suspects: &Suspects<'_>,
    change: impl FnOnce(&mut Tuning),
) -> Result<Vec<(String, f64)>, Error> {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    let mut tuning = Tuning::default();
    change(&mut tuning);
    let culprits = bed.judge_in(runtime, samples(2), &Stop::default(), |trials| {
        let inquiry = Inquiry {
            prover: trials.prover,
            plan: &plan,
            sample: 1,
            budget: trials.court.budget,
            tuning: &tuning,
            progress: trials.court.progress,
        };
        inquiry.culprits(suspects)
    })?;
    assert!(culprits.iter().all(|culprit| !culprit.predicted));
    Ok(culprits.into_iter().map(|c| (c.layers.join("+"), c.sqnr_db)).collect())
}

fn names(blamed: &[(String, f64)]) -> Vec<&str> {
    blamed.iter().map(|(name, _)| name.as_str()).collect()
}

const ANYONE: Suspects<'_> = Suspects::Weights(&[]);

#[test]
fn the_worst_comes_first_with_what_it_does_alone() {
    let runtime = Planted::switched(&[0.01, 0.1, 0.001]);
    let found = blamed(&runtime, &ANYONE, |_| {}).unwrap();
    assert_eq!(names(&found), ["product1", "product0", "product2"]);
    for ((_, db), expected) in found.iter().zip([20.0, 40.0, 60.0]) {
        assert!((db - expected).abs() < 0.1, "{found:?}");
    }
    assert_eq!(runtime.loaded(TRIAL), 0, "who has a switch needs no candidate");
}

#[test]
fn equal_ones_stay_in_their_order() {
    let found = blamed(&Planted::switched(&[0.1; 3]), &ANYONE, |_| {}).unwrap();
    assert_eq!(names(&found), ["product0", "product1", "product2"]);
}

#[test]
fn only_the_first_so_many_are_looked_at() {
    let few = |tuning: &mut Tuning| tuning.culprits.most_switched = 1;
    let runtime = Planted::switched(&[0.01, 0.1, 0.001]);
    let weight = |name: &str, sqnr_db: f64| rewrite::QuantizedWeight {
        name: name.to_owned(),
        bytes_before: 4,
        bytes_after: 1,
        sqnr_db,
    };
    let weights = [weight("W0", 30.0), weight("W2", 20.0)];
    let found = blamed(&runtime, &Suspects::Weights(&weights), few).unwrap();
    assert_eq!(names(&found), ["product2"], "the one whose weight lost the most");
    assert_eq!(runtime.ran(SWITCHES), 2);
}

#[test]
fn without_switches_each_is_tried_and_one_that_crashes_is_left_out() {
    let runtime = Planted::noisy(0.1).refusing(|model, before| match (model, before) {
        (SWITCHES, _) => Some(planted::refusal()),
        (TRIAL, 1) => Some(planted::crash()),
        _ => None,
    });
    let found = blamed(&runtime, &ANYONE, |_| {}).unwrap();
    assert_eq!(names(&found), ["product0", "product2"]);
    assert_eq!(runtime.loaded(TRIAL), 3);
    assert!((found[0].1 - 20.0).abs() < 0.1);
}

#[test]
fn what_is_wrong_here_ends_it_under_switches_and_without() {
    let full = |model: &'static str, rest: fn() -> Option<RuntimeError>| {
        Planted::noisy(0.1).refusing(move |name, _| {
            if name == model {
                Some(planted::no_memory())
            } else {
                (name == SWITCHES).then(rest)?
            }
        })
    };
    let under_switches = full(SWITCHES, || None);
    assert!(blamed(&under_switches, &ANYONE, |_| {}).unwrap_err().is_of_machine());
    assert_eq!(under_switches.loaded(TRIAL), 0);
    let without = full(TRIAL, || Some(planted::crash()));
    assert!(blamed(&without, &ANYONE, |_| {}).unwrap_err().is_of_machine());
}

#[test]
fn a_stop_in_the_middle_leaves_those_that_were_found() {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    let stop = Stop::default();
    let handle = stop.clone();
    let runtime = Planted::new(move |run| {
        if run.model == TRIAL {
            handle.stop();
        }
        Ok(run.times(if run.is_original() { 1.0 } else { 1.1 }))
    });
    let mut tuning = Tuning::default();
    tuning.probing.most_bytes = 0;
    let found = bed.judge_in(&runtime, samples(1), &stop, |trials| {
        let inquiry = Inquiry {
            prover: trials.prover,
            plan: &plan,
            sample: 0,
            budget: trials.court.budget,
            tuning: &tuning,
            progress: trials.court.progress,
        };
        inquiry.culprits(&ANYONE).unwrap()
    });
    assert_eq!(found.len(), 1);
}

#[test]
fn a_plan_that_keeps_everything_has_nobody_to_blame() {
    let plan = bed().plan(Scheme::KEEP);
    assert!(groups(&plan, |_| true).is_empty());
    assert!(ANYONE.groups(&plan, 8).is_empty());
    assert!(groups(&ExplainedPlan::new(plan.numerics), |_| true).is_empty());
}

#[test]
fn what_was_never_measured_is_not_predicted() {
    let plan = bed().plan(Scheme::INT8_WEIGHTS);
    let entry = sensitivity::described(&plan, &[0], &HashMap::new());
    assert!(predicted(&entry).is_none());
    let measured = report::Sensitivity { alone_db: Some(12.0), ..entry };
    let culprit = predicted(&measured).unwrap();
    assert_eq!((culprit.layers, culprit.sqnr_db), (vec!["product0".to_owned()], 12.0));
}
