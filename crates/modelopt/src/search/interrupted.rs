//! Searches in a planted runtime that are ended at each step, by hand and by what is wrong here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use modelopt_graph::DataType;
use modelopt_report::SearchEnd;
use modelopt_rewrite::Scheme;

use super::*;
use crate::budget::Stop;
use crate::target::planted::{self, Planted, Run, SWITCHES, TRIAL, samples, sum};
use crate::testing::{Bed, Layer};

fn bed(layers: usize) -> Bed {
    Bed::of(&vec![Layer::Even; layers], 20.0)
}

/// What each layer of the plan adds as int8, as a share of its input: two of them have to go down.
const ERRORS: [f32; 4] = [0.3, 0.02, 0.2, 0.02];

/// A world in which candidates are as noisy as their int8 layers are, and switches are what they are.
/// Each run of either counts, and with one of them something may end it.
fn world(
    counted: &Arc<AtomicUsize>,
    ended: usize,
    end: impl Fn() + Send + Sync + 'static,
) -> Planted {
    let counted = Arc::clone(counted);
    let answer = move |run: &Run<'_>| {
        if ![TRIAL, SWITCHES].contains(&run.model) {
            return Ok(run.times(1.0));
        }
        if counted.fetch_add(1, Ordering::Relaxed) + 1 == ended {
            end();
        }
        let is_int8 = run.stored.iter().map(|ty| f32::from(u8::from(*ty == DataType::INT8)));
        let on = if run.model == TRIAL { is_int8.collect() } else { run.switches() };
        Ok(run.times(1.0 + sum(&ERRORS, &on)))
    };
    Planted::new(answer).looking()
}

fn searched(runtime: &Planted, stop: &Stop) -> Result<Found, Error> {
    searched_in(&bed(3), runtime, stop)
}

fn searched_in(bed: &Bed, runtime: &Planted, stop: &Stop) -> Result<Found, Error> {
    let start = bed.plan(Scheme::INT8_WEIGHTS);
    bed.judge_in(runtime, samples(1), stop, |trials| {
        Searcher::new(trials, &Tuning::default(), 25).run(&start)
    })
}

/// How many runs a search makes that nobody ends, and what it finds.
fn undisturbed() -> (usize, Found) {
    let counted = Arc::new(AtomicUsize::new(0));
    let found = searched(&world(&counted, 0, || {}), &Stop::default()).unwrap();
    (counted.load(Ordering::Relaxed), found)
}

#[test]
fn a_stop_at_any_step_ends_the_search_with_the_best_so_far() {
    let (runs, found) = undisturbed();
    assert!(found.passes && runs > 6, "{runs}");
    for ended in 1..=runs {
        let (stop, counted) = (Stop::default(), Arc::new(AtomicUsize::new(0)));
        let handle = stop.clone();
        let stopped = searched(&world(&counted, ended, move || handle.stop()), &stop).unwrap();
        // What was under way is finished, and nothing else begins.
        let after = counted.load(Ordering::Relaxed) - ended;
        assert!(after <= 1, "{after} runs after {ended}");
        assert!(stopped.trials.len() <= found.trials.len());
        let passed = stopped.trials.iter().any(|trial| trial.pass);
        assert_eq!(stopped.passes, passed, "what passed is not forgotten: {ended}");
        if ended < runs {
            assert_eq!(stopped.end, SearchEnd::Stopped, "{ended}");
        }
    }
}

#[test]
fn what_is_wrong_here_ends_it_at_any_trial_and_any_probe() {
    let (_, found) = undisturbed();
    for at in 0..found.trials.len() {
        let counted = Arc::new(AtomicUsize::new(0));
        let full = world(&counted, 0, || {}).refusing(move |model, before| {
            (model == TRIAL && before == at).then(planted::no_memory)
        });
        assert!(searched(&full, &Stop::default()).err().unwrap().is_of_machine(), "{at}");
    }
    let full = world(&Arc::default(), 0, || {})
        .refusing(|model, _| (model == SWITCHES).then(planted::no_memory));
    assert!(searched(&full, &Stop::default()).err().unwrap().is_of_machine());
}

#[test]
fn a_crash_at_any_trial_is_one_trial_that_failed() {
    // Of three layers nothing else would be left to try that keeps one in int8.
    let bed = bed(4);
    for at in 0..4 {
        let crashing = world(&Arc::default(), 0, || {})
            .refusing(move |model, before| (model == TRIAL && before == at).then(planted::crash));
        let found = searched_in(&bed, &crashing, &Stop::default()).unwrap();
        let failed: Vec<usize> =
            (0..found.trials.len()).filter(|&at| found.trials[at].failure.is_some()).collect();
        let expected = if at < found.trials.len() { vec![at] } else { Vec::new() };
        assert_eq!(failed, expected);
        assert!(at > 0 || failed == [0], "the first is always made");
        assert!(found.passes, "it went on: {:?}", found.trials);
    }
}

#[test]
fn searches_beside_each_other_find_what_each_finds_alone() {
    let alone = undisturbed().1;
    let others: Vec<Found> = std::thread::scope(|scope| {
        let threads = [(); 3].map(|()| scope.spawn(|| undisturbed().1));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    for other in others {
        assert!(other.plan == alone.plan && other.trials == alone.trials);
        assert_eq!(other.sensitivity, alone.sensitivity);
    }
}

#[test]
fn a_search_says_which_layers_cost_the_most() {
    let (_, found) = undisturbed();
    let layers: Vec<&str> = found.sensitivity.iter().map(|s| s.layers[0].as_str()).collect();
    assert_eq!(layers[..2], ["product0", "product2"]);
    let alone = found.sensitivity[0].alone_db.unwrap();
    assert!((alone + 20.0 * 0.3f64.log10()).abs() < 0.1, "{alone}");
    let int8 = |at: usize| found.plan.layers[at].scheme == Scheme::INT8_WEIGHTS;
    assert_eq!([0, 1, 2].map(int8), [false, true, false]);
}

#[test]
fn fewer_trials_find_less_and_never_more_than_there_are() {
    let bed = bed(3);
    let start = bed.plan(Scheme::INT8_WEIGHTS);
    for most in 0..6 {
        let runtime = world(&Arc::default(), 0, || {});
        let found = bed.judge_in(&runtime, samples(1), &Stop::default(), |trials| {
            Searcher::new(trials, &Tuning::default(), most).run(&start).unwrap()
        });
        // One is left for the verdict.
        assert!(found.trials.len() <= most.saturating_sub(1), "{most}: {:?}", found.trials);
        let passed = found.trials.iter().any(|trial| trial.pass);
        assert!(found.passes == passed && (passed || found.end == SearchEnd::OutOfTrials));
    }
}
