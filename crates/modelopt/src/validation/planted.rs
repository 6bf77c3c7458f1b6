//! Both models in a planted runtime, and the verdict on that.

use modelopt_rewrite::Scheme;
use modelopt_validate::{Direction, Limits, MaxDrop};

use super::*;
use crate::target::Ground;
use crate::target::planted::{self, ORIGINAL, Planted, samples};
use crate::testing::{Bed, Layer, latency};

/// The file of the candidate.
const CANDIDATE: &str = "candidate.onnx";

fn bed() -> Bed {
    Bed::of(&[Layer::Even; 2], 20.0)
}

/// What comes of a candidate on two samples, and the settings that it is judged by.
fn run(
    runtime: &Planted,
    known: bool,
    change: impl FnOnce(&mut Config),
) -> (Result<report::Run, Error>, Config) {
    let bed = bed();
    let mut config = planted::named(&bed);
    config.latency.min_pairs = 2;
    (config.latency.min_seconds, config.latency.max_seconds) = (0.0, 0.01);
    change(&mut config);
    let Ground { mut rig, samples, .. } = bed.planted(runtime, samples(2), &config).unwrap();
    let path = bed.path().with_file_name(CANDIDATE);
    search_plan(&bed, &path);
    let candidate = Candidate { path: &path, casting: None, known };
    let run = run_somewhere(&mut rig, candidate, &samples, &config, &mut |_| {});
    drop(rig);
    (run, config)
}

/// Writes the candidate of an int8 plan, which nobody looks at here.
fn search_plan(bed: &Bed, path: &Path) {
    crate::search::carried_out(&bed.prepared, &bed.plan(Scheme::INT8_WEIGHTS), path).unwrap();
}

const HALF: SizeChange = SizeChange { original_bytes: 2000, candidate_bytes: 1000 };

fn failing_checks(verdict: &Verdict) -> Vec<&str> {
    verdict.failures().map(|check| check.name.as_str()).collect()
}

#[test]
fn what_is_close_passes_and_what_is_not_fails_on_parity() {
    for (error, passes) in [(0.01, true), (0.3, false)] {
        let (run, config) = run(&Planted::noisy(error), false, |_| {});
        let run = run.unwrap();
        assert_eq!((run.runtime.name.as_str(), &run.failure), (planted::NAME, &None));
        assert_eq!(run.parity.as_ref().unwrap().samples, 2);
        assert!(run.latency.is_none(), "nobody asked for it");
        let verdict = verdict(Some(&run), HALF, &config);
        assert_eq!(verdict.pass, passes);
        assert_eq!(failing_checks(&verdict), if passes { vec![] } else { vec!["sqnr"] });
    }
}

#[test]
fn a_candidate_that_does_not_load_is_a_run_that_failed() {
    for error in [planted::refusal, planted::crash, planted::panicked] {
        let refusing =
            Planted::noisy(0.0).refusing(move |model, _| (model == CANDIDATE).then(error));
        let (run, config) = run(&refusing, false, |_| {});
        let run = run.unwrap();
        let failure = run.failure.as_ref().unwrap();
        assert!(failure.contains("'s0'") && !failure.contains("/somewhere"), "{failure}");
        assert!(run.parity.is_none());
        assert!(!verdict(Some(&run), HALF, &config).pass, "what did not run does not pass");
    }
}

#[test]
fn a_candidate_that_fails_on_a_later_sample_names_it() {
    let failing = Planted::new(|run| match (run.is_original(), run.numbers()[0] > 3.0) {
        (false, true) => Err(planted::refusal()),
        _ => Ok(run.times(1.0)),
    });
    let (run, _) = run(&failing, false, |_| {});
    let failure = run.unwrap().failure.unwrap();
    assert!(failure.contains("'s1'"), "{failure}");
}

#[test]
fn what_is_wrong_here_ends_the_run_wherever_it_is_met() {
    let loading =
        Planted::noisy(0.0).refusing(|model, _| (model == CANDIDATE).then(planted::no_memory));
    let error = run(&loading, false, |_| {}).0.unwrap_err();
    assert!(error.is_of_machine(), "{error}");
    let running = Planted::new(|run| {
        if run.is_original() { Ok(run.times(1.0)) } else { Err(planted::no_memory()) }
    });
    assert!(run(&running, false, |_| {}).0.unwrap_err().is_of_machine());
}

#[test]
fn a_candidate_that_is_known_to_run_is_loaded_and_not_tried() {
    let runtime = Planted::noisy(0.01);
    run(&runtime, false, |_| {}).0.unwrap();
    // On the first sample while it is tried, and on both of them to be compared.
    assert_eq!((runtime.loaded(CANDIDATE), runtime.ran(CANDIDATE)), (1, 3));
    let runtime = Planted::noisy(0.01);
    run(&runtime, true, |_| {}).0.unwrap();
    assert_eq!((runtime.loaded(CANDIDATE), runtime.ran(CANDIDATE)), (1, 2));
    assert_eq!(runtime.loaded(ORIGINAL), 1);
}

#[test]
fn costs_are_told_where_times_are_asked_for() {
    let cost = |load_ms: f64| Cost { load_ms, peak_bytes: Some(7), run_ms: Some(1.0) };
    let runtime = Planted::noisy(0.01)
        .costing(move |model| Some(cost(if model == ORIGINAL { 1.0 } else { 2.0 })));
    let (told, _) = run(&runtime, false, |config| config.measure_latency = true);
    let told = told.unwrap();
    assert!(told.latency.is_some());
    assert_eq!(told.original, Some(Footprint { load_ms: 1.0, peak_bytes: 7 }));
    assert_eq!(told.candidate, Some(Footprint { load_ms: 2.0, peak_bytes: 7 }));
    let (quiet, _) = run(&runtime, false, |_| {});
    let quiet = quiet.unwrap();
    assert_eq!((quiet.original, quiet.candidate, quiet.latency), (None, None, None));
}

#[test]
fn memory_that_nobody_knows_is_no_footprint() {
    assert!(footprint(Cost { load_ms: 1.0, peak_bytes: None, run_ms: None }).is_none());
}

#[test]
fn a_candidate_is_absurdly_slow_by_both_measures_or_not_at_all() {
    let cost = |run_ms| Some(Cost { load_ms: 0.0, peak_bytes: None, run_ms });
    let absurd = |before, after| absurdity(cost(before), cost(after)).is_some();
    assert!(absurd(Some(100.0), Some(1001.0)));
    assert!(!absurd(Some(101.0), Some(1001.0)), "ten times as long is not waited for");
    assert!(!absurd(Some(0.1), Some(999.0)), "a second is");
    assert!(!absurd(None, Some(9999.0)) && !absurd(Some(1.0), None));
    assert!(absurdity(None, cost(Some(9999.0))).is_none());
}

#[test]
fn time_is_judged_where_somebody_named_the_target_or_asked_for_it() {
    let bed = bed();
    let slow = report::Run { latency: Some(latency(2.0)), ..report::Run::default() };
    let gate = Limits { max_slowdown: Some(1.05), ..bed.config.gate.clone() };
    let auto = Config { gate, ..bed.config.clone() };
    let left = verdict(Some(&slow), HALF, &auto);
    assert!(!failing_checks(&left).contains(&"slowdown"));
    assert!(left.unjudged.iter().any(|left| left.name == "slowdown"));
    let named = Config { gate: auto.gate.clone(), ..planted::named(&bed) };
    assert_eq!(failing_checks(&verdict(Some(&slow), HALF, &named)), ["slowdown"]);
    let anywhere = Config { judge_latency_anywhere: true, ..auto };
    assert_eq!(failing_checks(&verdict(Some(&slow), HALF, &anywhere)), ["slowdown"]);
    let quick = report::Run { latency: Some(latency(0.5)), ..report::Run::default() };
    assert!(verdict(Some(&quick), HALF, &named).pass);
}

#[test]
fn without_runs_only_the_size_is_judged() {
    let bed = bed();
    let gate = Limits { min_shrink: Some(1.5), ..bed.config.gate.clone() };
    let config = Config { gate, ..bed.config.clone() };
    let of = |candidate_bytes| {
        verdict(None, SizeChange { original_bytes: 2000, candidate_bytes }, &config)
    };
    assert!(of(1000).pass);
    assert_eq!(failing_checks(&of(1900)), ["shrink"]);
    assert!(of(1000).unjudged.iter().any(|left| left.name == "parity"));
}

#[test]
fn a_metric_is_the_first_check_and_can_fail_what_passed() {
    let change = |candidate: f64| MetricChange {
        name: "f1".to_owned(),
        direction: Direction::Higher,
        original: 0.9,
        candidate,
        max_drop: MaxDrop::Absolute(0.01),
        further: Vec::new(),
    };
    let bed = bed();
    let mut passing = verdict(None, HALF, &bed.config);
    let checks = passing.checks.len();
    add_metric(&mut passing, None);
    assert!(passing.pass && passing.checks.len() == checks);
    add_metric(&mut passing, Some(&change(0.895)));
    assert!(passing.pass && passing.checks.len() == checks + 1);
    add_metric(&mut passing, Some(&change(0.88)));
    assert!(!passing.pass && !passing.checks[0].pass);
    // What failed is not saved by it.
    let mut failed = Verdict { pass: false, ..verdict(None, HALF, &bed.config) };
    add_metric(&mut failed, Some(&change(0.9)));
    assert!(!failed.pass);
}

#[test]
fn nothing_else_is_run_where_nothing_else_was_named() {
    let bed = bed();
    let path = bed.path();
    let subject = Arc::new(Subject::as_it_is(&path));
    let candidate = Candidate { path: &path, casting: None, known: false };
    for config in [bed.config.clone(), planted::named(&bed)] {
        let runs = run_others(&subject, candidate, &samples(1), &config, &mut |_| {}).unwrap();
        assert!(runs.is_empty());
    }
}
