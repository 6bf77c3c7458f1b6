//! Mixed precision in a planted runtime: what is not searched, and what ends it.

use modelopt_rewrite::Scheme;

use super::*;
use crate::budget::Stop;
use crate::target::planted::{self, Planted, SWITCHES, TRIAL, samples};
use crate::testing::{Bed, Layer};

fn bed() -> Bed {
    Bed::of(&[Layer::Even; 3], 20.0)
}

/// What comes of a plan of 16 bits, and how many candidates of it were run.
fn mixed_in(
    runtime: &Planted,
    plan: &ExplainedPlan,
    tuning: &Tuning,
) -> (Result<ExplainedPlan, Error>, usize) {
    let found = bed().judge_in(runtime, samples(2), &Stop::default(), |trials| {
        mixed(plan, trials, &Patience::unbounded(), tuning)
    });
    (found, runtime.loaded(TRIAL))
}

#[test]
fn what_passes_or_does_not_run_is_left_as_it_is() {
    let plan = bed().plan(Scheme::BF16);
    let runtimes = [
        Planted::noisy(0.01),
        Planted::noisy(0.01).refusing(|model, _| (model == TRIAL).then(planted::crash)),
    ];
    for runtime in runtimes {
        let (found, tried) = mixed_in(&runtime, &plan, &Tuning::default());
        assert_eq!((found.unwrap(), tried), (plan.clone(), 1));
    }
}

#[test]
fn what_is_wrong_here_ends_it() {
    let plan = bed().plan(Scheme::BF16);
    let first = Planted::noisy(0.5).refusing(|model, _| (model == TRIAL).then(planted::no_memory));
    assert!(mixed_in(&first, &plan, &Tuning::default()).0.unwrap_err().is_of_machine());
    let probing =
        Planted::noisy(0.5).refusing(|model, _| (model == SWITCHES).then(planted::no_memory));
    assert!(mixed_in(&probing, &plan, &Tuning::default()).0.unwrap_err().is_of_machine());
    let later = Planted::noisy(0.5)
        .refusing(|model, before| (model == TRIAL && before > 0).then(planted::no_memory));
    assert!(mixed_in(&later, &plan, &Tuning::default()).0.unwrap_err().is_of_machine());
}

#[test]
fn what_never_passes_costs_no_more_than_its_trials() {
    let plan = bed().plan(Scheme::BF16);
    let mut tuning = Tuning::default();
    tuning.mixing.most_trials = 2;
    let (found, tried) = mixed_in(&Planted::noisy(0.5), &plan, &tuning);
    assert!(found.is_ok());
    // The first is the plan itself, which is no trial of the search.
    assert!(tried <= 3, "{tried}");
}

#[test]
fn without_switches_it_is_searched_all_the_same() {
    let plan = bed().plan(Scheme::BF16);
    // Only with everything in float32 it is close enough.
    let runtime = Planted::new(|run| {
        let whole = run.is_original() || run.before >= 2;
        Ok(run.times(if whole { 1.0 } else { 1.5 }))
    })
    .refusing(|model, _| (model == SWITCHES).then(planted::refusal));
    let (found, tried) = mixed_in(&runtime, &plan, &Tuning::default());
    assert!(tried > 1);
    assert!(found.unwrap().changed() < plan.changed());
}

#[test]
fn a_stop_ends_it_with_what_is_nearest() {
    let plan = bed().plan(Scheme::BF16);
    let stop = Stop::default();
    let handle = stop.clone();
    let runtime = Planted::new(move |run| {
        if !run.is_original() {
            handle.stop();
        }
        Ok(run.times(if run.is_original() { 1.0 } else { 1.5 }))
    });
    let found = bed().judge_in(&runtime, samples(1), &stop, |trials| {
        mixed(&plan, trials, &Patience::unbounded(), &Tuning::default())
    });
    assert_eq!(found.unwrap(), plan);
    assert_eq!(runtime.loaded(TRIAL), 1);
}
