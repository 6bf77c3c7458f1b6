//! What is planned again after a verdict, in a planted runtime.

use modelopt_validate::Check;

use super::*;
use crate::optimize::planted::{INT8, Stage, outcome, verdict};
use crate::target::planted::Planted;
use crate::testing::latency;

/// What would be done after an outcome of an int8 plan.
fn after(stage: &Stage, rounds: usize, change: impl FnOnce(&mut Outcome)) -> Option<Next> {
    stage.run(&Planted::noisy(0.01), |mut course| {
        let outcome = outcome(&course, stage.bed.plan(INT8), change);
        course.next(&outcome, rounds, &mut |_| {}).unwrap()
    })
}

#[test]
fn what_is_no_smaller_and_no_faster_is_not_emitted() {
    let larger = |outcome: &mut Outcome| outcome.size.candidate_bytes = outcome.size.original_bytes;
    let stage = Stage::new(|config| config.gate.min_shrink = Some(1.0));
    let next = after(&stage, 1, larger).unwrap();
    assert!(next.plan.changed() == 0 && next.why.is_some());
    assert!(after(&stage, 1, |_| {}).is_none(), "it is smaller");
    let quick = |outcome: &mut Outcome, ratio: f64| {
        larger(outcome);
        outcome.runs[0].latency = Some(latency(ratio));
        let slow = Check { pass: true, ..verdict(&["slowdown"]).checks.remove(0) };
        outcome.verdict.as_mut().unwrap().checks.push(slow);
    };
    assert!(after(&stage, 1, |outcome| quick(outcome, 0.9)).is_none(), "it is faster");
    assert!(after(&stage, 1, |outcome| quick(outcome, 0.97)).is_some(), "it is not, to speak of");
    // What fails on parity is not saved by emitting the original in its place.
    let failed = |outcome: &mut Outcome| {
        larger(outcome);
        outcome.verdict = Some(verdict(&["sqnr", "shrink"]));
    };
    assert!(after(&stage, 1, failed).is_none());
}

#[test]
fn who_asked_for_it_gets_it_however_large_it_is() {
    let larger = |outcome: &mut Outcome| outcome.size.candidate_bytes = outcome.size.original_bytes;
    let asked: [fn(&mut Config); 4] = [
        |config| config.plan = Some(rewrite::Plan::new(rewrite::Numerics::default())),
        |config| config.freeze_inputs = true,
        |config| config.gate.min_shrink = Some(1.5),
        |config| config.gate.min_shrink = None,
    ];
    for ask in asked {
        let stage = Stage::new(|config| {
            config.gate.min_shrink = Some(1.0);
            ask(config);
        });
        assert!(after(&stage, 1, larger).is_none());
    }
    let stage = Stage::new(|config| config.gate.min_shrink = Some(1.0));
    let sixteen = |outcome: &mut Outcome| {
        larger(outcome);
        outcome.plan.io = Interface::Fp16;
    };
    assert!(after(&stage, 1, sixteen).is_none());
    assert!(after(&stage, 1, larger).is_some());
}

#[test]
fn nothing_is_planned_again_where_that_was_not_asked_for_or_leads_nowhere() {
    let failed = |outcome: &mut Outcome| outcome.verdict = Some(verdict(&["sqnr"]));
    let stage = Stage::new(|_| {});
    assert!(after(&stage, 1, failed).is_none(), "a search has looked at that");
    assert!(after(&stage, 3, failed).is_none(), "and there is an end to it");
    let judging = Stage::new(|config| config.enforcement = Enforcement::Judge);
    assert!(after(&judging, 2, failed).is_none());
    let stopped = Stage::new(|_| {});
    stopped.stop.stop();
    assert!(after(&stopped, 2, failed).is_none());
    assert!(after(&Stage::new(|config| config.scheme = Some(INT8)), 2, failed).is_none());
}

#[test]
fn what_is_still_slow_in_the_last_round_is_kept_unless_speed_was_asked_for() {
    let slow = |outcome: &mut Outcome| {
        outcome.verdict = Some(verdict(&["slowdown"]));
        outcome.runs[0].latency = Some(latency(1.5));
    };
    let limited = |limit: f64| Stage::new(|config| config.gate.max_slowdown = Some(limit));
    let next = after(&limited(1.05), 3, slow).unwrap();
    assert!(next.plan.changed() == 0 && next.why.is_some());
    assert!(next.plan.layers.iter().all(|line| !line.at_load && line.scheme.is_keep()));
    assert!(after(&limited(0.9), 3, slow).is_none(), "who asks for speed is not given the same");
    let untimed = |outcome: &mut Outcome| outcome.verdict = Some(verdict(&["slowdown"]));
    assert!(after(&limited(1.05), 3, untimed).is_none());
}

#[test]
fn computing_in_sixteen_bits_gives_way_to_storing_in_them_where_that_passes() {
    let stage = |change: fn(&mut Config)| {
        Stage::new(|config| {
            config.scheme = Some(Scheme::FP16);
            change(config);
        })
    };
    let slow = |outcome: &mut Outcome| {
        outcome.verdict = Some(verdict(&["slowdown"]));
        outcome.runs[0].latency = Some(latency(1.5));
        outcome.alternative = Some(Scheme::FP16_WEIGHTS);
    };
    let next = after(&stage(|_| {}), 1, slow).unwrap();
    assert!(next.why.is_some());
    assert!(next.plan.layers.iter().any(|line| line.scheme == Scheme::FP16_WEIGHTS));
    assert!(after(&stage(|_| {}), 2, slow).is_none(), "once");
    let untried = |outcome: &mut Outcome| {
        slow(outcome);
        outcome.alternative = None;
    };
    assert!(after(&stage(|_| {}), 1, untried).is_none());
    assert!(after(&stage(|config| config.scheme = Some(Scheme::INT8_DYNAMIC)), 1, slow).is_none());
}
