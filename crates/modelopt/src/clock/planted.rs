//! The clock of the target with planted models: what cannot be timed, and what passes.

use modelopt_rewrite::Scheme;

use super::*;
use crate::budget::Stop;
use crate::target::Ground;
use crate::target::planted::{self, Planted, TRIAL, samples};
use crate::testing::{Bed, Layer, latency};

/// Lets something be done with a clock that may run for so many seconds.
fn clocked<T>(
    runtime: &Planted,
    seconds: Option<f64>,
    max_slowdown: Option<f64>,
    use_it: impl FnOnce(&mut TargetClock<'_, '_>, &Bed) -> T,
) -> T {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let mut config = planted::named(&bed);
    config.gate.max_slowdown = max_slowdown;
    let Ground { mut rig, samples, .. } = bed.planted(runtime, samples(1), &config).unwrap();
    let budget = Budget::new(Instant::now(), seconds, Stop::default());
    let mut clock = TargetClock {
        prepared: &bed.prepared,
        sample: &samples[0],
        rig: &mut rig,
        config: &config,
        budget: &budget,
        started: Instant::now(),
        trials: Vec::new(),
        progress: &mut |_| {},
    };
    use_it(&mut clock, &bed)
}

#[test]
fn a_plan_that_cannot_be_timed_is_a_trial_that_failed() {
    for (error, ends) in [
        (planted::refusal as fn() -> _, false),
        (planted::crash, false),
        (planted::no_memory, true),
    ] {
        let runtime = Planted::noisy(0.0).refusing(move |model, _| (model == TRIAL).then(error));
        clocked(&runtime, None, Some(1.05), |clock, bed| {
            let failed = clock.time(&bed.plan(Scheme::INT8_WEIGHTS), "a plan").unwrap_err();
            assert_eq!(matches!(failed, TrialError::Environment(_)), ends, "{failed}");
            let [trial] = &clock.trials[..] else { panic!("{:?}", clock.trials) };
            assert_eq!((trial.what.as_str(), trial.pass, trial.slowdown), ("a plan", false, None));
            assert!(trial.failure.is_some());
        });
    }
}

#[test]
fn a_plan_that_does_not_fit_is_not_even_written() {
    let runtime = Planted::noisy(0.0);
    clocked(&runtime, None, Some(1.05), |clock, bed| {
        let mut plan = bed.plan(Scheme::INT8_WEIGHTS);
        plan.layers[0].id = "somebody else's".to_owned();
        assert!(matches!(clock.time(&plan, ""), Err(TrialError::Refused(_))));
    });
    assert_eq!(runtime.loaded(TRIAL), 0);
}

#[test]
fn the_median_has_to_meet_the_limit_and_not_only_its_interval() {
    clocked(&Planted::noisy(0.0), None, Some(1.05), |clock, _| {
        assert!(clock.passes(&latency(1.04)) && !clock.passes(&latency(1.2)));
        let wide = LatencyComparison { ratio_low: 0.5, ..latency(1.2) };
        assert!(!clock.passes(&wide));
        // What nobody can tell is no reason to go on.
        let mut slight = latency(1.2);
        slight.candidate.p50_ms = slight.original.p50_ms + 1e-6;
        assert!(clock.passes(&slight));
    });
    clocked(&Planted::noisy(0.0), None, None, |clock, _| {
        assert!(clock.passes(&latency(9.0)), "there is no limit");
    });
}

#[test]
fn it_is_over_when_time_is_by_the_clock_by_the_budget_or_by_hand() {
    let over = |seconds: Option<f64>| {
        clocked(&Planted::noisy(0.0), seconds, Some(1.05), |clock, _| clock.is_over())
    };
    assert!(!over(None) && !over(Some(100.0)));
    assert!(over(Some(1.0)), "another measurement would not fit");
    clocked(&Planted::noisy(0.0), None, Some(1.05), |clock, _| {
        if let Some(before) = Instant::now().checked_sub(PATIENCE * 2) {
            clock.started = before;
            assert!(clock.is_over());
        }
        clock.started = Instant::now();
        clock.budget.stop().stop();
        assert!(clock.is_over());
    });
}
