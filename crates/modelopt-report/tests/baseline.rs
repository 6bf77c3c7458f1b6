//! What counts as worse than an earlier report.

mod common;
mod judged;

use judged::{document, judge_again, scores};
use modelopt_report::{
    Change, Document, Outcome, REGRESSION_SCHEMA, Regression, RegressionLimits,
    compare_with_baseline,
};
use modelopt_validate::Limits;

fn compared(change: impl FnOnce(&mut Document)) -> Regression {
    compared_within(&RegressionLimits::default(), change)
}

/// The comparison of a changed report with the unchanged one.
fn compared_within(limits: &RegressionLimits, change: impl FnOnce(&mut Document)) -> Regression {
    let old = document();
    let mut new = document();
    change(&mut new);
    let regression = compare_with_baseline(&new, &old, limits);
    assert_eq!(regression.pass, regression.failures().next().is_none());
    regression
}

fn failures(regression: &Regression) -> Vec<(&str, &str)> {
    regression.failures().map(|change| (change.name.as_str(), change.subject.as_str())).collect()
}

fn change<'a>(regression: &'a Regression, name: &str, subject: &str) -> &'a Change {
    let of = |change: &&Change| change.name == name && change.subject == subject;
    regression.changes.iter().find(of).unwrap()
}

fn size(bytes: u64) -> impl FnOnce(&mut Document) {
    move |new| new.size.as_mut().unwrap().candidate_bytes = bytes
}

fn sqnr(db: f64) -> impl FnOnce(&mut Document) {
    move |new| scores(new).sqnr_db = db
}

fn latency(low: f64, high: f64) -> impl FnOnce(&mut Document) {
    move |new| {
        let latency = new.runs[0].latency.as_mut().unwrap();
        (latency.ratio_low, latency.ratio_high) = (low, high);
        latency.ratio_median = f64::midpoint(low, high);
    }
}

#[test]
fn a_report_is_no_worse_than_itself() {
    let regression = compared(|_| {});
    assert!(regression.pass && regression.notes.is_empty());
    assert_eq!(regression.schema, REGRESSION_SCHEMA);
    let figures: Vec<_> =
        regression.changes.iter().map(|c| (c.name.as_str(), c.subject.as_str())).collect();
    assert_eq!(
        figures,
        [
            ("verdict", "model"),
            ("size", "model"),
            ("runs", "model"),
            ("slowdown", "model"),
            ("load_time", "model"),
            ("peak_memory", "model"),
            ("present", "scores"),
            ("sqnr", "scores"),
            ("max_abs_error", "scores"),
            ("top1", "scores"),
            ("present", "label"),
            ("mismatches", "label"),
        ]
    );
}

#[test]
fn size_may_grow_by_a_hundredth() {
    assert!(compared(size(1_010_000)).pass);
    assert_eq!(failures(&compared(size(1_010_001))), [("size", "model")]);
    assert!(compared(size(1)).pass);
    let off = RegressionLimits { max_size_growth: None, ..RegressionLimits::default() };
    let regression = compared_within(&off, size(9_000_000));
    assert_eq!(change(&regression, "size", "model").outcome, Outcome::NotJudged);
    assert!(regression.pass);
}

#[test]
fn noise_is_no_slowdown() {
    for (low, high) in [(0.5, 0.7), (0.63, 0.9), (0.1, 5.0)] {
        assert!(compared(latency(low, high)).pass, "{low} to {high}");
    }
    for (low, high) in [(0.64, 0.7), (f64::NAN, f64::NAN)] {
        assert_eq!(failures(&compared(latency(low, high))), [("slowdown", "model")]);
    }
    let regression = compared(latency(0.64, 0.7));
    let slowdown = change(&regression, "slowdown", "model");
    assert_eq!((slowdown.old, slowdown.new), (Some(0.6), Some(0.64)));
    assert_eq!(
        slowdown.note.as_deref(),
        Some("upper end of 0.5x (0.4x to 0.6x), lower end of 0.67x (0.64x to 0.7x)")
    );
}

#[test]
fn sqnr_may_drop_by_a_decibel() {
    assert!(compared(sqnr(37.25)).pass);
    assert!(compared(sqnr(f64::INFINITY)).pass);
    for worse in [37.2, f64::NEG_INFINITY, f64::NAN] {
        assert_eq!(failures(&compared(sqnr(worse))), [("sqnr", "scores")], "{worse}");
    }
}

#[test]
fn an_exact_output_may_differ_by_rounding() {
    let mut old = document();
    scores(&mut old).sqnr_db = f64::INFINITY;
    let mut new = document();
    for (sqnr_db, pass) in [(f64::INFINITY, true), (119.0, true), (118.9, false)] {
        scores(&mut new).sqnr_db = sqnr_db;
        let regression = compare_with_baseline(&new, &old, &RegressionLimits::default());
        assert_eq!(regression.pass, pass, "{sqnr_db}");
    }
}

#[test]
fn other_figures_have_limits_on_request() {
    let worsen = |new: &mut Document| {
        let scores = scores(new);
        scores.max_abs_error *= 3.0;
        scores.top1 = Some(0.5);
        let cost = new.runs[0].candidate.as_mut().unwrap();
        cost.load_ms *= 3.0;
        cost.peak_bytes *= 3;
    };
    assert!(compared(worsen).pass);
    let strict = RegressionLimits {
        max_error_growth: Some(2.0),
        max_top1_loss: Some(0.1),
        max_load_growth: Some(2.0),
        max_memory_growth: Some(2.0),
        ..RegressionLimits::default()
    };
    assert_eq!(
        failures(&compared_within(&strict, worsen)),
        [
            ("load_time", "model"),
            ("peak_memory", "model"),
            ("max_abs_error", "scores"),
            ("top1", "scores"),
        ]
    );
    assert!(compared_within(&strict, |_| {}).pass);
}

#[test]
fn a_pass_must_not_become_a_refusal() {
    let refuse = |document: &mut Document| {
        judge_again(document, &Limits { min_sqnr_db: Some(99.0), ..Limits::default() });
    };
    assert_eq!(failures(&compared(refuse)), [("verdict", "model")]);

    let (mut old, mut new) = (document(), document());
    refuse(&mut old);
    assert!(compare_with_baseline(&new, &old, &RegressionLimits::default()).pass);
    refuse(&mut new);
    let regression = compare_with_baseline(&new, &old, &RegressionLimits::default());
    assert!(regression.pass);
    let note = change(&regression, "verdict", "model").note.as_deref();
    assert_eq!(note, Some("the baseline was refused too"));
}

#[test]
fn outputs_must_not_vanish() {
    let gone = [("present", "scores")];
    assert_eq!(
        failures(&compared(|new| {
            new.runs[0].parity.as_mut().unwrap().outputs.remove(0);
        })),
        gone
    );
    assert_eq!(
        failures(&compared(|new| new.runs[0].parity.as_mut().unwrap().outputs[0].present = false)),
        gone
    );
    let regression = compared(|new| {
        let outputs = &mut new.runs[0].parity.as_mut().unwrap().outputs;
        let mut more = outputs[0].clone();
        more.name = "more".into();
        outputs.push(more);
    });
    assert!(regression.pass);
    let more = change(&regression, "sqnr", "more");
    assert_eq!((more.outcome, more.old), (Outcome::NotJudged, None));
    assert_eq!(more.note.as_deref(), Some("not in the baseline"));
}

#[test]
fn what_must_be_equal_must_not_differ_more() {
    let regression =
        compared(|new| new.runs[0].parity.as_mut().unwrap().outputs[1].mismatches = Some(1));
    assert_eq!(failures(&regression), [("mismatches", "label")]);
}

#[test]
fn a_figure_that_is_gone_is_a_regression_if_it_has_a_limit() {
    assert_eq!(failures(&compared(|new| new.runs[0].latency = None)), [("slowdown", "model")]);
    assert!(compared(|new| new.runs[0].candidate = None).pass);
    assert_eq!(failures(&compared(|new| new.verdict = None)), [("verdict", "model")]);
    let regression = compared(|new| {
        new.runs[0].failure = Some("out of memory".into());
        new.runs[0].parity = None;
    });
    assert_eq!(
        failures(&regression),
        [("runs", "model"), ("present", "scores"), ("present", "label")]
    );
    let nothing = compared(|new| *new = Document::default());
    assert!(!nothing.pass);
    let first =
        compare_with_baseline(&document(), &Document::default(), &RegressionLimits::default());
    assert!(first.pass && first.changes.iter().all(|c| c.outcome == Outcome::NotJudged));
}

#[test]
fn the_target_is_compared_with_the_same_runtime() {
    let swap = |new: &mut Document| new.runs.swap(0, 1);
    let mut old = document();
    scores(&mut old).sqnr_db = 99.0;
    let mut new = document();
    swap(&mut new);
    let regression = compare_with_baseline(&new, &old, &RegressionLimits::default());
    assert!(regression.pass && regression.notes.is_empty());
    new.runs[0].runtime.name = "rten".into();
    let regression = compare_with_baseline(&new, &old, &RegressionLimits::default());
    assert_eq!(failures(&regression), [("sqnr", "scores")]);
    assert_eq!(
        regression.notes,
        ["other runtime: onnxruntime 1.2.3 in the baseline, rten 1.2.3 now"]
    );
}

#[test]
fn what_makes_figures_incomparable_is_noted() {
    let regression = compared(|new| {
        new.original.blake3 = Some("c".repeat(64));
        new.samples.as_mut().unwrap().count = 5;
        new.machine.as_mut().unwrap().cpu = "Other".into();
        let runtime = &mut new.runs[0].runtime;
        runtime.version = "1.3".into();
        runtime.threads = 2;
        runtime.provider = Some("cuda".into());
        runtime.optimization = Some("none".into());
    });
    assert!(regression.pass);
    insta::assert_snapshot!(regression.notes.join("\n"));
}

#[test]
fn markdown_of_a_regression() {
    let regression = compared(|new| {
        size(1_019_000)(new);
        sqnr(f64::NEG_INFINITY)(new);
        latency(0.9, 1.0)(new);
        new.runs[0].parity.as_mut().unwrap().outputs[1].name = "new|label".into();
        new.samples.as_mut().unwrap().count = 5;
        judge_again(new, &Limits::default());
    });
    insta::assert_snapshot!(regression.to_markdown());
}

#[test]
fn markdown_of_many_figures_shows_those_that_are_worse() {
    let many = |sqnr_db: f64| {
        let mut document = document();
        scores(&mut document).sqnr_db = sqnr_db;
        let outputs = &mut document.runs[0].parity.as_mut().unwrap().outputs;
        let one = outputs[0].clone();
        outputs.extend((0..20).map(|at| {
            let mut output = one.clone();
            output.name = format!("scores_{at}");
            output
        }));
        document
    };
    let regression = compare_with_baseline(&many(30.0), &many(40.0), &RegressionLimits::default());
    let markdown = regression.to_markdown();
    let (shown, folded) = markdown.split_once("<details><summary>Other figures").unwrap();
    assert_eq!(shown.matches("**FAIL**").count(), 21, "{markdown}");
    assert!(!folded.contains("FAIL") && folded.contains("| pass |"), "{markdown}");
}

#[test]
fn json_reads_back() {
    let regression = compared(|new| {
        sqnr(f64::NEG_INFINITY)(new);
        new.runs[0].latency = None;
        new.machine = None;
    });
    let json = serde_json::to_string(&regression).unwrap();
    assert_eq!(serde_json::from_str::<Regression>(&json).unwrap(), regression);
    assert!(
        json.contains(
            r#""new":"-inf","limit":37.25,"bound":"at_least","unit":"decibels","outcome":"fail""#
        ),
        "{json}"
    );
}

#[test]
fn limits_are_written_in_kebab_case_and_may_be_off() {
    let limits: RegressionLimits =
        serde_json::from_str(r#"{"max-slowdown":"off","max-error-growth":2}"#).unwrap();
    let expected = RegressionLimits {
        max_slowdown: None,
        max_error_growth: Some(2.0),
        ..RegressionLimits::default()
    };
    assert_eq!(limits, expected);
    assert!(serde_json::from_str::<RegressionLimits>(r#"{"max-speed":1}"#).is_err());
    let json = serde_json::to_string(&limits).unwrap();
    assert_eq!(serde_json::from_str::<RegressionLimits>(&json).unwrap(), limits);
}

#[test]
fn infinite_limits_are_none() {
    let limits = RegressionLimits {
        max_error_growth: Some(f64::INFINITY),
        max_sqnr_loss_db: Some(f64::INFINITY),
        ..RegressionLimits::default()
    };
    let mut old = document();
    scores(&mut old).max_abs_error = 0.0;
    let mut new = document();
    scores(&mut new).sqnr_db = f64::NEG_INFINITY;
    assert!(compare_with_baseline(&new, &old, &limits).pass);
}
