//! Candidates and probes in a planted runtime: switches that do what they are said to.

use modelopt_rewrite::Scheme;
use modelopt_runtime::RuntimeError;

use super::*;
use crate::config::Objective;
use crate::search::ladder::{Known, Weights};
use crate::search::problem::{Problem, Selection};
use crate::sensitivity;
use crate::target::planted::{self, Planted, SWITCHES, Terms, samples, sum};
use crate::testing::{Bed, Layer};

fn bed() -> Bed {
    Bed::of(&[Layer::Even; 3], 20.0)
}

/// Lets something be done with the candidates of an int8 plan.
fn with_candidates<T>(
    runtime: &Planted,
    use_it: impl FnOnce(&mut Candidates<'_, '_, '_, '_>, &Problem) -> T,
) -> T {
    with_budget(runtime, None, use_it)
}

/// The same where so many seconds are left.
fn with_budget<T>(
    runtime: &Planted,
    seconds: Option<f64>,
    use_it: impl FnOnce(&mut Candidates<'_, '_, '_, '_>, &Problem) -> T,
) -> T {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    let tuning = Tuning::default();
    let weights = Weights::of(Objective::Balanced, &tuning);
    let terms = Terms { seconds, ..bed.terms() };
    bed.judge_by(terms, runtime, samples(2), |mut trials| {
        let prepared = trials.prover.prepared;
        let (ladder, problem) = Ladder::below(prepared, &plan, Known::default(), weights, &tuning);
        let board = || sensitivity::board(prepared, &plan, u64::MAX);
        let moves = problem.moves.clone();
        let mut candidates = Candidates::new(&mut trials, &ladder, moves, &tuning, Box::new(board));
        use_it(&mut candidates, &problem)
    })
}

#[test]
fn a_probe_tells_what_each_layer_does() {
    // A tenth of the input is 20 dB, which is what is allowed.
    let noises = with_candidates(&Planted::switched(&[0.1, 0.2, 0.01]), |candidates, problem| {
        assert_eq!(problem.sources.len(), 3);
        candidates.probe(1).unwrap()
    });
    for (noise, expected) in noises.iter().zip([1.0, 4.0, 0.01]) {
        assert!((noise / expected - 1.0).abs() < 1e-3, "{noises:?}");
    }
}

#[test]
fn switches_are_loaded_once_however_many_samples_are_probed() {
    let runtime = Planted::switched(&[0.1, 0.2, 0.3]);
    with_candidates(&runtime, |candidates, _| {
        let first = candidates.probe(0).unwrap();
        let copies = runtime.loaded(SWITCHES);
        let second = candidates.probe(1).unwrap();
        assert_eq!(runtime.loaded(SWITCHES), copies);
        assert_eq!((candidates.probed, first.len(), second.len()), (2, 3, 3));
    });
    // Each of the two with all switches off, and with each of the three alone.
    assert_eq!(runtime.ran(SWITCHES), 8);
}

#[test]
fn an_error_that_nothing_resolves_is_made_larger_until_something_does() {
    // Silent unless it is made larger, and then eight times as large.
    let runtime = Planted::new(|run| {
        let strengths = run.switches();
        let amplified = strengths.iter().any(|strength| *strength > 1.0);
        Ok(run.times(if amplified { 1.0 + sum(&[0.01; 3], &strengths) } else { 1.0 }))
    });
    let noises = with_candidates(&runtime, |candidates, _| candidates.probe(0).unwrap());
    for noise in &noises {
        assert!((noise / 0.01 - 1.0).abs() < 1e-3, "{noises:?}");
    }
}

#[test]
fn noise_is_told_against_the_switched_model_itself() {
    // Its kernels are others: it is off by half even with all switches off.
    let runtime = Planted::new(|run| {
        let own = if run.model == SWITCHES { 1.5 } else { 1.0 };
        Ok(run.times(own * (1.0 + sum(&[0.1, 0.0, 0.0], &run.switches()))))
    });
    let noises = with_candidates(&runtime, |candidates, _| candidates.probe(0).unwrap());
    assert!((noises[0] - 1.0).abs() < 1e-2 && noises[1] == 0.0, "{noises:?}");
}

#[test]
fn switches_that_are_refused_are_no_switches_and_are_not_tried_again() {
    let runtime = Planted::switched(&[0.1; 3])
        .refusing(|model, _| (model == SWITCHES).then(planted::refusal));
    with_candidates(&runtime, |candidates, _| {
        let first = candidates.probe(0).unwrap_err();
        assert!(matches!(&first, TrialError::Refused(why) if why.contains("no kernel")), "{first}");
        assert!(matches!(candidates.probe(0), Err(TrialError::Refused(_))));
        assert_eq!((runtime.loaded(SWITCHES), candidates.probed), (1, 0));
    });
}

#[test]
fn what_fails_under_switches_is_told_by_its_kind() {
    let failing = |error: fn() -> RuntimeError| {
        let runtime = Planted::new(move |run| {
            if run.model == SWITCHES && run.before == 2 { Err(error()) } else { Ok(run.times(1.0)) }
        });
        with_candidates(&runtime, |candidates, _| candidates.probe(0).unwrap_err())
    };
    assert!(matches!(failing(planted::crash), TrialError::Crashed(_)));
    assert!(matches!(failing(planted::no_memory), TrialError::Environment(_)));
    assert!(matches!(failing(planted::refusal), TrialError::Refused(_)));
}

#[test]
fn a_probe_leaves_the_verdict_its_time() {
    let ended = with_budget(&Planted::switched(&[0.1; 3]), Some(0.0), |candidates, _| {
        candidates.probe(0).unwrap_err()
    });
    assert!(matches!(ended, TrialError::Refused(_)), "{ended}");
}

#[test]
fn a_selection_is_carried_out_and_told_what_it_is() {
    with_candidates(&Planted::noisy(0.05), |candidates, problem| {
        let mut selection = problem.start();
        selection.0[1] = 2;
        for why in [Why::Down, Why::Back(7), Why::AsWell(2), Why::Undone(0)] {
            assert!(candidates.evaluate(&selection, why).unwrap().passes);
        }
        let record = &candidates.trials.record;
        for trial in record {
            let kept = trial.schemes.get(Scheme::KEEP.name()).copied();
            assert_eq!((kept, trial.schemes.values().sum::<usize>()), (Some(1), 3));
        }
        let what: Vec<&str> = record.iter().map(|trial| trial.what.as_str()).collect();
        assert!(what[0].starts_with("1 layer") && what[1].starts_with('7'), "{what:?}");
        assert!(what[2].contains("product1") && what[3].contains("product0"), "{what:?}");
    });
}

#[test]
fn every_level_of_every_item_is_a_plan_that_runs() {
    with_candidates(&Planted::noisy(0.05), |candidates, problem| {
        for step in &problem.moves {
            let mut selection: Selection = problem.start();
            step.to.iter().for_each(|&(item, level)| selection.0[item] = level);
            assert!(candidates.evaluate(&selection, Why::Down).unwrap().worst.is_some());
        }
        assert!(candidates.trials.record.iter().all(|trial| trial.failure.is_none()));
        assert!(candidates.trials.record.len() >= 6);
    });
}
