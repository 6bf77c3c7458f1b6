//! What a search steers by, held against what the verdict says.
#![allow(clippy::float_cmp)] // What is missed counts as a number of its own.

use modelopt_validate::{
    Decisions, FloatParity, Measurements, OutputLimits, SentinelParity, SizeChange, TensorForm,
    judge,
};

use super::*;

fn float(sqnr_db: f64) -> FloatParity {
    FloatParity {
        max_abs_error: 0.1,
        mean_abs_error: 0.01,
        rmse: 0.01,
        sqnr_db,
        worst_sample: "s0".to_owned(),
        cosine: 1.0,
        outside_tolerance: 0.0,
        new_non_finite: 0,
        changed_non_finite: 0,
        top1: None,
        top5: None,
    }
}

/// An output that is equal but for what is done to it.
fn output(change: impl FnOnce(&mut OutputParity)) -> OutputParity {
    let form = || TensorForm { dtype: "float".to_owned(), shape: vec![8] };
    let mut output = OutputParity {
        name: "y".to_owned(),
        elements: 8,
        present: true,
        type_equal: true,
        shape_equal: true,
        original: form(),
        candidate: Some(form()),
        float: Some(float(60.0)),
        mismatches: None,
        agreement: None,
        parts: Vec::new(),
        sentinels: Vec::new(),
        decisions: None,
        itself_db: None,
        witness: false,
        selected: None,
    };
    change(&mut output);
    output
}

fn parity(outputs: Vec<OutputParity>) -> Parity {
    Parity { outputs, extra_outputs: Vec::new(), samples: 1, synthetic: false }
}

fn decisions(lost_margin: f64) -> Decisions {
    let worst_sample = "s0".to_owned();
    Decisions { rows: 4, decided: 4, kept: 3, lost_margin, worst_sample, among: None }
}

/// Only parity is limited, at 20 dB.
fn limits() -> Limits {
    Limits { min_shrink: None, max_slowdown: None, ..Limits::default() }
}

fn excess(limits: &Limits, change: impl FnOnce(&mut OutputParity)) -> f64 {
    Excess::new(limits).of(&parity(vec![output(change)]))
}

/// Whether the verdict says of parity what the excess says: above 1 it fails.
fn agrees(limits: &Limits, parity: &Parity) -> bool {
    let size = SizeChange { original_bytes: 2, candidate_bytes: 1 };
    let measured = Measurements { parity: Some(parity), size, latency: None };
    judge(limits, &measured).pass == (Excess::new(limits).of(parity) <= 1.0)
}

#[test]
fn noise_is_relative_to_what_the_limit_allows() {
    let of = |sqnr_db: f64| excess(&limits(), |y| y.float = Some(float(sqnr_db)));
    assert!((of(20.0) - 1.0).abs() < 1e-12 && (of(10.0) - 10.0).abs() < 1e-9);
    assert!((of(30.0) - 0.1).abs() < 1e-12 && of(f64::INFINITY) == 0.0);
    assert!(of(f64::NAN).is_infinite() && of(f64::NEG_INFINITY).is_infinite());
    // Without a limit it is relative to the signal.
    let free = Limits { min_sqnr_db: None, ..limits() };
    assert!((excess(&free, |y| y.float = Some(float(10.0))) - 0.1).abs() < 1e-12);
}

#[test]
fn the_worst_output_counts_and_each_is_held_to_its_own_limit() {
    let named = |name: &str, sqnr_db: f64| {
        output(|y| (y.name, y.float) = (name.to_owned(), Some(float(sqnr_db))))
    };
    let outputs = parity(vec![named("a", 40.0), named("b[0]", 17.0), named("c", 30.0)]);
    let mut limits = limits();
    let of = |limits: &Limits| Excess::new(limits).of(&outputs);
    assert!((of(&limits) - 10f64.powf(0.3)).abs() < 1e-9);
    let own =
        |min_sqnr_db: f64| OutputLimits { min_sqnr_db: Some(min_sqnr_db), ..Default::default() };
    // Limits of a sequence are those of its elements.
    limits.per_output.insert("b".to_owned(), own(10.0));
    assert!((of(&limits) - 10f64.powf(-0.7)).abs() < 1e-9);
    limits.per_output.insert("c".to_owned(), own(50.0));
    assert!((of(&limits) - 100.0).abs() < 1e-6);
    limits.per_output.insert("c".to_owned(), own(f64::NEG_INFINITY));
    assert!(of(&limits) < 1.0);
    assert_eq!(Excess::new(&limits).of(&parity(Vec::new())), 0.0);
}

#[test]
fn what_the_original_cannot_do_is_not_asked_of_the_candidate() {
    let of = |itself: f64| {
        excess(&limits(), |y| (y.float, y.itself_db) = (Some(float(14.0)), Some(itself)))
    };
    assert!(of(60.0) > 1.0 && of(17.0) <= 1.0);
    assert!(of(5.0) > 1.0, "so little proves nothing");
}

#[test]
fn what_is_no_number_is_missed_however_good_the_ratio_of_the_rest_is() {
    let odds: [fn(&mut FloatParity); 2] = [|f| f.new_non_finite = 1, |f| f.changed_non_finite = 1];
    for odd in odds {
        let change = |y: &mut OutputParity| {
            let mut float = float(f64::INFINITY);
            odd(&mut float);
            y.float = Some(float);
        };
        assert_eq!(excess(&limits(), change), MISSED);
        let allowed = Limits { allow_new_non_finite: true, ..limits() };
        assert_eq!(excess(&allowed, change), 0.0);
        let own = OutputLimits { allow_new_non_finite: Some(true), ..OutputLimits::default() };
        let mut allowed = limits();
        allowed.per_output.insert("y".to_owned(), own);
        assert_eq!(excess(&allowed, change), 0.0);
    }
}

#[test]
fn what_is_of_another_form_on_any_sample_is_missed() {
    let changes: [fn(&mut OutputParity); 5] = [
        |y| y.present = false,
        |y| y.type_equal = false,
        |y| y.shape_equal = false,
        |y| y.float = None,
        |y| y.sentinels = vec![SentinelParity { value: -1e9, elements: 4, changed: 1 }],
    ];
    for (at, change) in changes.into_iter().enumerate() {
        assert_eq!(excess(&limits(), change), MISSED, "{at}");
    }
    // What is seen inside of a model may be of another float type.
    assert!(excess(&limits(), |y| (y.type_equal, y.witness) = (false, true)) < 1.0);
    let mut extra = parity(vec![output(|_| {})]);
    extra.extra_outputs.push("z".to_owned());
    assert_eq!(Excess::new(&limits()).of(&extra), MISSED);
}

#[test]
fn lost_choices_nearly_pass() {
    let of = |lost: f64| excess(&limits(), |y| y.decisions = Some(decisions(lost)));
    assert!(of(0.3) < 1.0);
    assert_eq!((of(0.5), of(f64::NAN)), (LOST, LOST));
    // The noise says more of how far there is to go, where that is more.
    let both = excess(&limits(), |y| {
        (y.decisions, y.float) = (Some(decisions(0.5)), Some(float(10.0)));
    });
    assert!((both - 10.0).abs() < 1e-9);
}

#[test]
fn integers_that_differ_count_by_how_many_may() {
    let of = |mismatches: u64, agreement: Option<f64>, least: Option<f64>| {
        let limits = Limits { min_agreement: least, ..limits() };
        excess(&limits, |y| {
            (y.float, y.mismatches, y.agreement) = (None, Some(mismatches), agreement);
        })
    };
    assert_eq!(of(0, Some(1.0), Some(0.99)), 0.0);
    assert_eq!(of(1, None, Some(0.99)), MISSED, "those that do not come from floats");
    assert!((of(4, Some(0.96), Some(0.99)) - 4.0).abs() < 1e-9);
    assert_eq!(of(4, Some(0.96), Some(0.9)), 0.0);
    assert_eq!(of(4, Some(0.96), None), 0.0);
    assert!(of(4, Some(0.96), Some(1.0)) > 1.0);
}

#[test]
fn the_largest_error_counts_as_power_and_scores_as_missed() {
    let limit = |limit: f64| Limits { max_abs_error: Some(limit), ..limits() };
    assert!((excess(&limit(0.05), |_| {}) - 4.0).abs() < 1e-9);
    assert!(excess(&limit(0.2), |_| {}) < 1.0);
    let top1 = |top1: f64| {
        move |y: &mut OutputParity| y.float = Some(FloatParity { top1: Some(top1), ..float(60.0) })
    };
    let least = Limits { min_top1: Some(0.9), ..limits() };
    assert_eq!(excess(&least, top1(0.8)), MISSED);
    assert!(excess(&least, top1(0.95)) < 1.0);
}

#[test]
fn the_verdict_fails_where_the_excess_says_so_and_nowhere_else() {
    let floats = [-10.0, 14.0, 19.9, 20.1, 80.0, f64::INFINITY, f64::NAN];
    let itself = [None, Some(5.0), Some(17.0), Some(60.0)];
    let choices = [None, Some(0.0), Some(0.3), Some(0.45), Some(f64::NAN)];
    let odd = [(0, 0), (1, 0), (0, 3)];
    let own = [None, Some(f64::NEG_INFINITY), Some(10.0), Some(40.0)];
    let mut count = 0;
    for (sqnr_db, itself_db) in floats.into_iter().flat_map(|a| itself.map(|b| (a, b))) {
        for (lost, odd) in choices.into_iter().flat_map(|a| odd.map(|b| (a, b))) {
            for min_sqnr_db in own {
                for limit in [None, Some(20.0)] {
                    let mut limits = Limits { min_sqnr_db: limit, ..limits() };
                    let own = OutputLimits { min_sqnr_db, ..OutputLimits::default() };
                    limits.per_output.insert("y".to_owned(), own);
                    let compared = parity(vec![output(|y| {
                        let mut float = float(sqnr_db);
                        (float.new_non_finite, float.changed_non_finite) = odd;
                        (y.float, y.itself_db) = (Some(float), itself_db);
                        y.decisions = lost.map(decisions);
                    })]);
                    // Without any limit there is noise, and nothing that it could fail.
                    let free = limit.is_none() && min_sqnr_db.is_none();
                    assert!(free || agrees(&limits, &compared), "{limits:?} {compared:?}");
                    count += usize::from(!free);
                }
            }
        }
    }
    assert!(count > 1000);
}
