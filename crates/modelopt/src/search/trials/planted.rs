//! Trials in a planted runtime, with planted metrics.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use modelopt_rewrite::Scheme;

use super::*;
use crate::budget::Stop;
use crate::metric::{CustomMetric, Metric};
use crate::target::planted::{self, Planted, Run, Terms, outputs, samples};
use crate::testing::{Bed, Layer};

fn bed() -> Bed {
    Bed::of(&[Layer::Even; 2], 20.0)
}

/// What comes of one int8 plan on two samples, and what is recorded of it.
fn tried(runtime: &Planted) -> (Result<Evaluation, TrialError>, Vec<report::Trial>) {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    bed.judge_in(runtime, samples(2), &Stop::default(), |mut trials| {
        let told = trials.run(&plan, "a plan".to_owned());
        (told, trials.record)
    })
}

#[test]
fn noise_is_held_against_the_limit() {
    let (told, record) = tried(&Planted::noisy(0.05));
    let told = told.unwrap();
    assert!(told.passes && (told.excess - 0.25).abs() < 1e-3, "{told:?}");
    assert!((record[0].sqnr_db.unwrap() - 26.02).abs() < 0.01 && record[0].pass);
    let (told, record) = tried(&Planted::noisy(0.2));
    let told = told.unwrap();
    assert!(!told.passes && (told.excess - 4.0).abs() < 1e-2, "{told:?}");
    assert!(!record[0].pass && record[0].failure.is_none());
}

#[test]
fn the_sample_that_was_worst_is_told_by_its_place() {
    let second = |run: &Run<'_>| {
        let noisy = !run.is_original() && run.numbers()[0] > 3.0;
        Ok(run.times(if noisy { 1.5 } else { 1.0 }))
    };
    assert_eq!(tried(&Planted::new(second)).0.unwrap().worst, Some(1));
}

#[test]
fn numbers_that_are_none_never_pass_and_count_as_too_much() {
    let nan = |run: &Run<'_>| {
        Ok(if run.is_original() { run.times(1.0) } else { outputs(&[f32::NAN; 8]) })
    };
    let (told, record) = tried(&Planted::new(nan));
    let told = told.unwrap();
    assert!(!told.passes && told.excess > 1.0, "{told:?}");
    assert!(!record[0].pass);
}

#[test]
fn a_crash_is_recorded_as_a_trial_that_failed() {
    for error in [planted::crash, planted::refusal, planted::panicked] {
        let runtime =
            Planted::new(
                move |run| {
                    if run.is_original() { Ok(run.times(1.0)) } else { Err(error()) }
                },
            );
        let (told, record) = tried(&runtime);
        assert_eq!(told.unwrap(), Evaluation::FAILED);
        assert_eq!((record.len(), record[0].pass, record[0].bytes), (1, false, 0));
        let failure = record[0].failure.as_ref().unwrap();
        assert!(failure.contains(planted::NAME) && !failure.contains("/somewhere"), "{failure}");
    }
}

#[test]
fn what_is_wrong_here_is_no_trial() {
    let runtime = Planted::new(|run| {
        if run.is_original() { Ok(run.times(1.0)) } else { Err(planted::no_memory()) }
    });
    let (told, record) = tried(&runtime);
    assert!(matches!(told, Err(TrialError::Environment(_))));
    assert!(record.is_empty());
}

#[test]
fn who_waits_is_told_of_each_trial_unless_it_is_nobodys_concern() {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    let told = |tells: bool| {
        let mut events = 0;
        let mut progress = |_| events += 1;
        let terms = Terms { progress: Some(&mut progress), ..bed.terms() };
        bed.judge_by(terms, &Planted::noisy(0.1), samples(1), |mut trials| {
            trials.tells = tells;
            trials.run(&plan, String::new()).unwrap();
            assert_eq!(trials.record.len(), 1);
        });
        events
    };
    assert!(told(true) >= 2);
    assert_eq!(told(false), 0);
}

#[test]
fn time_that_is_over_lets_the_first_trial_be_made_and_no_other() {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    bed.judge_within(Some(0.0), &Stop::default(), |mut trials| {
        assert_eq!(trials.is_over(), None);
        trials.run(&plan, String::new()).unwrap();
        assert_eq!(trials.is_over(), Some(End::OutOfTime));
        assert_eq!(trials.cannot_afford(Duration::ZERO), Some(End::OutOfTime));
    });
}

#[test]
fn being_stopped_comes_before_being_out_of_time() {
    let stop = Stop::default();
    bed().judge_within(Some(0.0), &stop, |mut trials| {
        trials.record.push(report::Trial::default());
        stop.stop();
        assert_eq!(trials.is_over(), Some(End::Stopped));
    });
}

#[test]
fn measuring_latency_is_held_back_where_it_is_asked_for() {
    let bed = bed();
    let mut reserves = Vec::new();
    for (measure_latency, min_seconds) in [(false, 5.0), (true, 5.0), (true, f64::NAN)] {
        let mut terms = bed.terms();
        terms.config.measure_latency = measure_latency;
        terms.config.latency.min_seconds = min_seconds;
        bed.judge_by(terms, &Planted::noisy(0.1), samples(1), |trials| {
            reserves.push(trials.reserve());
        });
    }
    assert_eq!(reserves[1], reserves[0] + Duration::from_secs(5));
    assert_eq!(reserves[2], reserves[0]);
}

/// Gives what it is told to, one figure after the other.
struct Figures {
    figures: Arc<Mutex<Vec<Result<f64, MetricError>>>>,
    asked: Arc<AtomicUsize>,
}

impl Metric for Figures {
    fn name(&self) -> &'static str {
        "planted"
    }

    fn evaluate(&mut self, model: &Path) -> Result<f64, MetricError> {
        assert!(model.exists(), "it is there during the call");
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.figures.lock().unwrap().remove(0)
    }
}

/// What comes of plans whose noise is this with a metric that says so, the original's figure first;
/// and how often it was asked.
fn consulted(
    error: f32,
    figures: Vec<Result<f64, MetricError>>,
    plans: usize,
) -> (Vec<Result<Evaluation, TrialError>>, Vec<report::Trial>, usize) {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    let asked = Arc::new(AtomicUsize::new(0));
    let metric = Figures { figures: Arc::new(Mutex::new(figures)), asked: Arc::clone(&asked) };
    let mut config = Config::default();
    config.metric.custom = Some(CustomMetric::new(metric));
    let path = bed.path();
    let mut meter = Meter::new(&config, &path, &Stop::default(), |_| unreachable!()).unwrap();
    let terms = Terms { meter: meter.as_mut(), ..bed.terms() };
    let (told, record) = bed.judge_by(terms, &Planted::noisy(error), samples(1), |mut trials| {
        assert!(trials.by_metric());
        let told = (0..plans).map(|_| trials.run(&plan, String::new())).collect();
        (told, trials.record)
    });
    (told, record, asked.load(Ordering::Relaxed))
}

#[test]
fn a_metric_has_the_last_word_on_what_meets_the_limits() {
    let (told, record, asked) = consulted(0.01, vec![Ok(0.9), Ok(0.5)], 2);
    let first = told[0].as_ref().unwrap();
    assert!(!first.passes && first.excess < 1.0 && (first.lost - 0.4).abs() < 1e-9, "{first:?}");
    assert_eq!((record[0].metric, record[0].pass), (Some(0.5), false));
    assert_eq!((record[1].metric, asked), (Some(0.5), 2), "the same plan is asked about once");
    let (told, ..) = consulted(0.01, vec![Ok(0.9), Ok(0.9)], 1);
    let first = told[0].as_ref().unwrap();
    assert!(first.passes && first.lost == 0.0);
}

#[test]
fn a_metric_is_not_asked_about_what_misses_the_limits() {
    let (told, record, asked) = consulted(0.5, Vec::new(), 1);
    assert!(!told[0].as_ref().unwrap().passes);
    assert_eq!((record[0].metric, asked), (None, 0));
}

#[test]
fn a_metric_that_has_no_figure_ends_it_and_one_that_was_stopped_says_so() {
    let broken = || MetricError::Other("it is broken".to_owned());
    let (told, record, _) = consulted(0.01, vec![Ok(0.9), Err(broken())], 1);
    let ended = told[0].as_ref().unwrap_err();
    assert!(matches!(ended, TrialError::Environment(_)) && record.is_empty(), "{ended}");
    let (told, ..) = consulted(0.01, vec![Ok(0.9), Err(MetricError::Stopped)], 1);
    assert!(matches!(told[0], Err(TrialError::Refused(_))));
    // So does one that has none of the original.
    let (told, ..) = consulted(0.01, vec![Err(broken())], 1);
    assert!(matches!(told[0], Err(TrialError::Environment(_))));
}

#[test]
fn schemes_are_counted_by_name() {
    let bed = bed();
    let mut plan = bed.plan(Scheme::INT8_WEIGHTS);
    plan.layers[0].scheme = Scheme::KEEP;
    let counted = schemes(&plan);
    assert_eq!(counted, [("int8-weights".to_owned(), 1), ("keep".to_owned(), 1)].into());
    plan.layers.clear();
    assert!(schemes(&plan).is_empty());
}
