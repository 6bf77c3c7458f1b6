//! What parsers of JUnit XML read in a report.

mod common;
mod judged;

use judged::{document, judge_again, scores};
use modelopt_report::{Document, RuntimeUsed};
use modelopt_validate::{FloatParity, Limits, OutputParity, Unjudged};
use proptest::prelude::*;
use quick_junit::{Report, TestCase, TestCaseStatus};

/// The report as `quick_junit` reads it, after another parser has seen the same in it.
fn read(document: &Document) -> Report {
    let xml = document.to_junit();
    let tree = roxmltree::Document::parse(&xml).unwrap_or_else(|error| panic!("{error}: {xml}"));
    let report = Report::deserialize_from_str(&xml).unwrap();
    let [suite] = report.test_suites.as_slice() else { panic!("{xml}") };
    let count = |tag| tree.descendants().filter(|node| node.has_tag_name(tag)).count();
    for (tag, counted) in [
        ("testcase", suite.tests),
        ("failure", suite.failures),
        ("error", suite.errors),
        ("skipped", suite.skipped),
    ] {
        assert_eq!(count(tag), counted, "{tag} in {xml}");
    }
    assert_eq!(
        (report.tests, report.failures, report.errors, report.skipped),
        (suite.tests, suite.failures, suite.errors, suite.skipped)
    );
    report
}

fn counts(document: &Document) -> [usize; 4] {
    let report = read(document);
    [report.tests, report.failures, report.errors, report.skipped]
}

fn case<'a>(report: &'a Report, class: &str, name: &str) -> &'a TestCase {
    let cases = &report.test_suites[0].test_cases;
    let of = |case: &&TestCase| case.classname.as_deref() == Some(class) && &*case.name == name;
    cases.iter().find(of).unwrap_or_else(|| panic!("no {name} of {class} in {cases:#?}"))
}

fn message(case: &TestCase) -> &str {
    match &case.status {
        TestCaseStatus::NonSuccess { message, .. } | TestCaseStatus::Skipped { message, .. } => {
            message.as_deref().unwrap()
        }
        TestCaseStatus::Success { .. } => case.system_out.as_deref().unwrap(),
    }
}

#[test]
fn each_check_and_each_runtime_of_a_pass_is_a_passed_test() {
    let document = document();
    let checks = document.verdict.as_ref().unwrap().checks.len();
    assert_eq!(counts(&document), [checks + 2, 0, 0, 0]);
    let report = read(&document);
    assert_eq!(&*report.test_suites[0].name, "modelopt.quantize");
    assert_eq!(
        message(case(&report, "scores", "sqnr")),
        "38.25 dB, limit ≥ 20 dB: worst on sample digit_7, class|scores[:, 4:10]"
    );
    assert_eq!(message(case(&report, "model", "shrink")), "4x, limit ≥ 1x");
    assert_eq!(message(case(&report, "label", "type")), "yes, limit yes: int64[1]");
    assert_eq!(
        message(case(&report, "model", "runs in tract")),
        "tract 1.2.3: 1 thread, asked for"
    );
    let properties: Vec<_> =
        report.test_suites[0].properties.iter().map(|p| (&*p.name, &*p.value)).collect();
    assert_eq!(
        properties,
        [
            ("original", "mnist.onnx"),
            ("candidate", "mnist.int8.onnx"),
            ("samples", "4 synthetic"),
            ("machine", "Example CPU 3000, 2 logical processors, x86_64-linux"),
            ("version", "0.1.0"),
        ]
    );
}

#[test]
fn each_figure_past_its_limit_is_a_failure() {
    let mut document = document();
    scores(&mut document).sqnr_db = 12.5;
    document.runs[0].latency.as_mut().unwrap().ratio_low = 1.25;
    let limits = Limits { max_abs_error: Some(0.01), ..Limits::default() };
    judge_again(&mut document, &limits);
    let failures = document.verdict.as_ref().unwrap().failures().count();
    let [_, failed, errors, skipped] = counts(&document);
    assert_eq!(([failed, errors, skipped], failures), ([3, 0, 0], 3));
    let report = read(&document);
    assert_eq!(
        message(case(&report, "scores", "sqnr")),
        "12.5 dB, limit ≥ 20 dB: worst on sample digit_7, class|scores[:, 4:10]"
    );
    assert_eq!(
        message(case(&report, "scores", "max_abs_error")),
        "0.0125, limit ≤ 0.01 (unit of the output)"
    );
    assert!(
        message(case(&report, "model", "slowdown")).starts_with("1.25x, limit ≤ 1.05x: the lower")
    );
}

#[test]
fn limits_without_a_figure_are_skipped() {
    let mut document = document();
    document.runs[0].latency = None;
    judge_again(&mut document, &Limits::default());
    let [_, failed, errors, skipped] = counts(&document);
    assert_eq!([failed, errors, skipped], [0, 0, 1]);
    let report = read(&document);
    assert_eq!(message(case(&report, "model", "slowdown")), "latency was not measured");
}

#[test]
fn only_the_target_must_run_the_models() {
    let mut document = document();
    document.runs[1].failure = Some("no kernel for ConvInteger".into());
    let [_, failed, errors, skipped] = counts(&document);
    assert_eq!([failed, errors, skipped], [0, 0, 1]);

    document.runs.swap(0, 1);
    document.runs[0].parity = None;
    document.runs[0].latency = None;
    judge_again(&mut document, &Limits::default());
    assert_eq!(counts(&document), [5, 0, 1, 2]);
    let report = read(&document);
    assert_eq!(message(case(&report, "model", "runs in tract")), "no kernel for ConvInteger");
    assert_eq!(message(case(&report, "model", "parity")), "the models were not run");
}

#[test]
fn a_report_without_a_verdict_has_no_tests() {
    assert_eq!(counts(&Document::default()), [0; 4]);
}

/// A document with one text wherever a model file could have put it.
fn with_everywhere(text: &str) -> Document {
    let name = || text.to_owned();
    let mut document = Document { command: name(), tool_version: name(), ..document() };
    document.original.name = text.into();
    for run in &mut document.runs {
        run.runtime = RuntimeUsed { name: name(), ..RuntimeUsed::default() };
    }
    document.runs[1].failure = Some(name());
    let output = &mut document.runs[0].parity.as_mut().unwrap().outputs[0];
    let float = output.float.clone();
    *output = OutputParity {
        name: name(),
        float: float.map(|float| FloatParity { worst_sample: name(), sqnr_db: 1.0, ..float }),
        ..output.clone()
    };
    judge_again(&mut document, &Limits::default());
    let unjudged = &mut document.verdict.as_mut().unwrap().unjudged;
    unjudged.push(Unjudged { name: name(), reason: name().into() });
    document
}

#[test]
fn hostile_names_are_names() {
    let report =
        read(&with_everywhere("</testcase><failure/>&lt;\"']]>\u{0}\u{1b}[31m\n\u{ffff}é"));
    let shown = r#"</testcase><failure/>&lt;"']]>\u{0}\u{1b}[31m\n\u{ffff}é"#;
    assert_eq!(&*report.test_suites[0].name, format!("modelopt.{shown}"));
    assert_eq!((report.failures, report.errors, report.skipped), (1, 0, 2));
    assert!(message(case(&report, shown, "sqnr")).contains(&format!("worst on sample {shown}")));
    assert_eq!(message(case(&report, "model", shown)), shown);
}

proptest! {
    #[test]
    fn any_text_keeps_its_place(text in any::<String>()) {
        let report = read(&with_everywhere(&text));
        prop_assert_eq!((report.failures, report.errors, report.skipped), (1, 0, 2));
    }
}
