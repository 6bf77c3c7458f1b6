//! What a plan computes on integers by ranges, as it is told: in the table of the plan, for programs, and in
//! reports.

use std::path::Path;

use insta::assert_snapshot;
use serde_json::Value;
use xtask::testdata::fixture;

use crate::support::{Output, finish, run_in, tempdir, with_onnxruntime};

/// Makes a model of integers of a fixture, with a plan and a report beside it.
fn quantize(folder: &Path, name: &str, more: &[&str]) -> Output {
    let (model, samples) = (fixture(format!("ranges/{name}.onnx")), fixture("ranges/samples"));
    let mut arguments = args!["quantize", model, "-o", "out.onnx", "--samples", samples].to_vec();
    let usual = "--scheme int8-static --runtime onnxruntime --no-latency --no-gate --explain \
        --min-weight-bytes 0 --save-plan plan.toml --report report";
    arguments.extend(usual.split_whitespace().map(Into::into));
    arguments.extend(more.iter().map(Into::into));
    finish(with_onnxruntime(folder).args(arguments)).expect(0)
}

/// The part of what is printed that is about the plan.
fn plan_of(output: &Output) -> &str {
    output.stdout.split_inclusive("layers are changed\n").next().unwrap()
}

fn report(folder: &Path) -> Value {
    let text = fs_err::read_to_string(folder.join("report/report.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn plans_say_why_regions_end() {
    let folder = tempdir();
    let output = quantize(folder.path(), "silu", &["--exclude", "n_conv_3"]);
    assert_snapshot!(plan_of(&output));
    assert!(output.stdout.contains("calibrated on 3 samples, judged on 3 others"), "{output:?}");
    // A plan that was saved is explained as well, without a target.
    let model = fixture("ranges/silu.onnx");
    let arguments = args!["plan", model, "--plan", "plan.toml"];
    assert_snapshot!(run_in(folder.path(), &arguments).expect(0).stdout);
    let json = run_in(folder.path(), arguments.iter().chain(&args!["--json"])).expect(0).json();
    let regions = json["plan"]["regions"].as_array().unwrap();
    assert_eq!(regions.len(), report(folder.path())["regions"].as_array().unwrap().len());
    assert!(regions.iter().all(|region| !region["ends"].as_array().unwrap().is_empty()));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn reports_have_regions_ranges_and_the_split() {
    let folder = tempdir();
    quantize(folder.path(), "residual", &[]);
    let report = report(folder.path());
    assert_eq!(
        (&report["samples"]["count"], &report["samples"]["calibrating"]),
        (&3.into(), &3.into())
    );
    let regions = report["regions"].as_array().unwrap();
    let [region] = regions.as_slice() else { panic!("{regions:#?}") };
    let time = &region["predicted"];
    assert!(time["float_ms"].as_f64().unwrap() > 0.0 && time["border_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(region["operators"]["Add"], 1);
    for line in report["plan"].as_array().unwrap() {
        assert_eq!(line["region"], 1, "{line}");
    }
    let ranges = report["ranges"].as_array().unwrap();
    assert_eq!(ranges.len(), region["tensors"].as_array().unwrap().len());
    for range in ranges {
        let seen = &range["observed"];
        let counts = seen["histogram"]["counts"].as_array().unwrap();
        assert!(counts.len() <= 64 && counts.iter().any(|count| count.as_u64() > Some(0)));
        assert!(range["max"].as_f64() > range["min"].as_f64(), "{range}");
        assert!(seen["clipped"].as_f64().unwrap() < 0.5, "{range}");
    }
    let page = fs_err::read_to_string(folder.path().join("report/report.html")).unwrap();
    assert!(page.contains("Time by region, predicted") && page.contains("calibrated on 3 others"));
    let markdown = fs_err::read_to_string(folder.path().join("report/report.md")).unwrap();
    assert!(markdown.contains("judged on 3 real, calibrated on 3 others"), "{markdown}");
}
