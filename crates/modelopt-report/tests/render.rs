//! What readers of a report see, and what its JSON promises.

mod common;

use common::{
    by_ranges, equal, label, latency, output, plan_line, quantized, refused, rich, scores,
};
use modelopt_report::{Document, FileName, ModelFile, SCHEMA, Schema};

#[test]
fn markdown_of_a_pass() {
    insta::assert_snapshot!(quantized(vec![scores()], Some(latency(2.0, 1.0))).to_markdown());
}

#[test]
fn markdown_of_a_failure() {
    insta::assert_snapshot!(quantized(vec![equal(), label()], None).to_markdown());
}

#[test]
fn markdown_of_several_runtimes() {
    insta::assert_snapshot!(rich(3).to_markdown());
}

#[test]
fn markdown_of_slow_and_bad_layers() {
    insta::assert_snapshot!(refused(1).to_markdown());
}

#[test]
fn markdown_of_ranges() {
    insta::assert_snapshot!(by_ranges().to_markdown());
}

#[test]
fn long_tables_of_ranges_are_folded() {
    let mut document = by_ranges();
    let one = document.ranges[0].clone();
    document.ranges = vec![one; 13];
    let markdown = document.to_markdown();
    assert!(markdown.contains("<details><summary>13 tensors</summary>\n\n| Tensor"), "{markdown}");
}

#[test]
fn markdown_of_next_to_nothing() {
    let document = Document { command: "inspect".into(), ..Document::default() };
    insta::assert_snapshot!(document.to_markdown());
}

#[test]
fn long_plans_are_folded() {
    let line = plan_line("a", "keep", "b", 1);
    let document = Document { plan: vec![line; 13], ..Document::default() };
    let markdown = document.to_markdown();
    assert!(markdown.contains("<details><summary>13 layers</summary>\n\n| #"), "{markdown}");
    assert!(markdown.contains("|\n\n</details>\n"), "{markdown}");
}

#[test]
fn markdown_fits_a_step_summary() {
    let long = "&_*".repeat(4000);
    let outputs: Vec<_> = (0..2000).map(|at| output(&format!("{at}{long}"), 0.0)).collect();
    let mut document = quantized(outputs, Some(latency(2.0, 1.0)));
    document.plan = vec![plan_line(&long, &long, &long, 1); 2000];
    document.warnings = vec![long; 2000];
    let markdown = document.to_markdown();
    assert!(markdown.len() < 1024 * 1024, "{} bytes", markdown.len());
    assert!(markdown.contains("more rows are in the JSON report"));
}

#[test]
fn json() {
    insta::assert_snapshot!(quantized(vec![equal(), label()], Some(latency(2.0, 1.0))).to_json());
}

#[test]
fn json_reads_back() {
    for document in [rich(4), refused(4), by_ranges(), Document::default()] {
        assert_eq!(serde_json::from_str::<Document>(&document.to_json()).unwrap(), document);
    }
}

#[test]
fn other_schemas_are_refused() {
    let json = Document::default().to_json().replace(SCHEMA, "modelopt.report/2");
    let error = serde_json::from_str::<Document>(&json).unwrap_err().to_string();
    assert!(error.contains("reads modelopt.report/1, not modelopt.report/2"), "{error}");
    assert_eq!(String::from(Schema), SCHEMA);
}

#[test]
fn folders_never_get_in() {
    for path in ["/models/v1/m.onnx", "C:\\models\\m.onnx", "m.onnx", "a/m.onnx/"] {
        assert_eq!(FileName::from(path).as_str(), "m.onnx");
        assert_eq!(FileName::from(std::path::Path::new(path)).as_str(), "m.onnx");
        let original = ModelFile { name: "x".into(), blake3: None };
        let document = Document { original, ..Document::default() };
        let json = document.to_json().replace("\"x\"", &format!("{path:?}"));
        let read = serde_json::from_str::<Document>(&json).unwrap();
        assert_eq!(read.original.name.as_str(), "m.onnx");
    }
}
