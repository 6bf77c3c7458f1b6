//! The published JSON schema is that of the types, and reports keep to it.

mod common;

use common::{by_ranges, equal, label, latency, quantized, refused, rich, scores};
use modelopt_report::Document;
use serde_json::{Value, json};

fn published() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/report.schema.json");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// What the schema has against a document.
fn complaints(document: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(&published()).unwrap();
    validator.iter_errors(document).map(|error| error.to_string()).collect()
}

fn value(document: &Document) -> Value {
    serde_json::from_str(&document.to_json()).unwrap()
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    let generated: Value = serde_json::from_str(&Document::json_schema()).unwrap();
    // Values, because the order of keys depends on what else is built.
    assert!(
        published() == generated,
        "docs/report.schema.json is not what the types say; write it anew with\n\
         cargo run -p modelopt-report --example schema > docs/report.schema.json"
    );
    jsonschema::meta::validate(&generated).unwrap();
}

#[test]
fn reports_keep_to_it() {
    let mut strange = rich(5);
    strange.plan[0].sqnr_db = Some(f64::NAN);
    strange.runs[0].latency = Some(latency(0.0, 0.0));
    for document in [
        quantized(vec![scores()], Some(latency(2.0, 1.0))),
        quantized(vec![equal(), label()], None),
        quantized(vec![], None),
        rich(40),
        by_ranges(),
        refused(3),
        strange,
        Document { command: "inspect".into(), ..Document::default() },
    ] {
        assert_eq!(complaints(&value(&document)), [""; 0], "{}", document.to_json());
    }
}

#[test]
fn fields_of_later_versions_are_allowed() {
    let mut later = value(&rich(1));
    later["verdict"]["confidence"] = json!(0.5);
    later["runs"][0]["energy"] = json!({ "joules": 3 });
    assert_eq!(complaints(&later), [""; 0]);
}

#[test]
fn wrong_documents_do_not_pass() {
    let wrong = [
        ("/schema", json!("modelopt.report/2")),
        ("/verdict/pass", json!("yes")),
        ("/verdict/checks/0/unit", json!("metres")),
        ("/verdict/checks/0/value", json!("infinite")),
        ("/verdict/checks/0/value", json!(null)),
        ("/runs", json!({})),
        ("/runs/0/latency/ratio_median", json!(true)),
        ("/runs/0/parity/outputs/0/float/sqnr_db", json!("off")),
        ("/size/original_bytes", json!(-1)),
        ("/original/name", json!("folder/model.onnx")),
        ("/plan/0/sqnr_db", json!("high")),
    ];
    for (place, value_there) in wrong {
        let mut document = value(&rich(1));
        *document.pointer_mut(place).unwrap() = value_there;
        assert!(!complaints(&document).is_empty(), "{place}");
    }
    let mut headless = value(&rich(1));
    headless.as_object_mut().unwrap().remove("schema");
    assert!(!complaints(&headless).is_empty());
}
