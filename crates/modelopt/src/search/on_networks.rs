//! Searches of small networks that really run.

use modelopt_report::SearchEnd;
use modelopt_rewrite::{ExplainedPlan, Scheme};

use super::{Found, Searcher};
use crate::budget::Stop;
use crate::search::tuning::Tuning;
use crate::testing::{Bed, Layer};

fn searched(bed: &Bed, start: &ExplainedPlan, most: usize) -> Found {
    bed.judge(&Stop::default(), |trials| {
        Searcher::new(trials, &Tuning::default(), most).run(start).unwrap()
    })
}

fn schemes(plan: &ExplainedPlan) -> Vec<Scheme> {
    plan.layers.iter().map(|line| line.scheme).collect()
}

const STORED: Scheme = Scheme::INT8_WEIGHTS;

/// A network of which one layer does not take int8, at a limit that the others meet.
fn one_bad_layer() -> Bed {
    Bed::of(&[Layer::Even, Layer::Even, Layer::Outliers, Layer::Even], 28.0)
}

#[test]
fn a_default_plan_that_passes_is_the_only_trial() {
    let bed = Bed::of(&[Layer::Even; 3], 15.0);
    let start = bed.plan(STORED);
    let found = searched(&bed, &start, 25);
    assert_eq!((found.end, found.passes), (SearchEnd::Found, true));
    assert_eq!(found.trials.len(), 1);
    assert_eq!(schemes(&found.plan), [STORED; 3]);
    assert!(found.sensitivity.is_empty());
}

#[test]
fn the_layer_that_does_not_take_int8_goes_down() {
    let bed = one_bad_layer();
    let found = searched(&bed, &bed.plan(STORED), 25);
    assert_eq!((found.end, found.passes), (SearchEnd::Found, true), "{:?}", found.trials);
    let schemes = schemes(&found.plan);
    assert_ne!(schemes[2], STORED);
    assert!(schemes.iter().filter(|scheme| **scheme == STORED).count() >= 2, "{schemes:?}");
    assert_eq!(found.sensitivity[0].layers, ["product2"]);
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
}

#[test]
fn trials_are_counted_with_the_verdict() {
    let bed = one_bad_layer();
    for most in [1, 2] {
        let found = searched(&bed, &bed.plan(STORED), most);
        assert!(found.trials.len() < most, "{:?}", found.trials);
        assert_eq!((found.end, found.passes), (SearchEnd::OutOfTrials, false));
    }
}

#[test]
fn a_limit_that_int8_cannot_meet_is_impossible() {
    let bed = Bed::of(&[Layer::Even; 3], 120.0);
    let found = searched(&bed, &bed.plan(STORED), 25);
    assert_eq!((found.end, found.passes), (SearchEnd::Impossible, false));
    assert!(found.plan.layers.iter().any(|line| line.scheme == STORED), "some stay int8");
}

#[test]
fn a_stopped_search_gives_the_plan_it_was_given() {
    let bed = one_bad_layer();
    let start = bed.plan(STORED);
    let stop = Stop::default();
    stop.stop();
    let found = bed
        .judge(&stop, |trials| Searcher::new(trials, &Tuning::default(), 25).run(&start).unwrap());
    assert_eq!((found.end, found.passes), (SearchEnd::Stopped, false));
    assert_eq!(schemes(&found.plan), schemes(&start));
    assert!(found.trials.is_empty());
}

#[test]
fn a_search_gives_the_same_plan_each_time() {
    let bed = one_bad_layer();
    let start = bed.plan(STORED);
    let (a, b) = (searched(&bed, &start, 25), searched(&bed, &start, 25));
    assert_eq!(a.plan, b.plan);
    let told = |found: &Found| found.trials.iter().map(|t| t.what.clone()).collect::<Vec<_>>();
    assert_eq!(told(&a), told(&b));
}

#[test]
fn without_switches_layers_are_ranked_by_their_own_errors() {
    let bed = one_bad_layer();
    let mut tuning = Tuning::default();
    tuning.probing.most_bytes = 0;
    let start = bed.plan(STORED);
    let found = bed
        .judge(&Stop::default(), |trials| Searcher::new(trials, &tuning, 25).run(&start).unwrap());
    assert!(found.passes, "{:?}", found.trials);
    let [warning] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
    assert_eq!(warning.kind(), "ranked-by-own-error");
}
