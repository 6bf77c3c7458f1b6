//! What readers of a report see, and what its JSON promises.

use modelopt_report::{
    Document, FileName, PlanLine, RuntimeUsed, SCHEMA, SampleKind, Samples, Schema,
};
use modelopt_validate::{
    FloatParity, LatencyComparison, Limits, Measurements, OutputParity, Parity, SizeChange,
    TensorForm, judge,
};

fn scores() -> OutputParity {
    let form = TensorForm { dtype: "float".into(), shape: vec![1, 10] };
    OutputParity {
        name: "class|scores".into(),
        elements: 40,
        present: true,
        type_equal: true,
        shape_equal: true,
        original: form.clone(),
        candidate: Some(form),
        float: Some(FloatParity {
            max_abs_error: 0.0125,
            mean_abs_error: 0.001_5,
            rmse: 0.002_25,
            sqnr_db: 38.25,
            worst_sample: "digit_7".into(),
            cosine: 0.999_912,
            outside_tolerance: 0.25,
            new_non_finite: 0,
            changed_non_finite: 0,
            top1: Some(0.75),
            top5: Some(1.0),
        }),
        mismatches: None,
    }
}

fn label() -> OutputParity {
    let form = TensorForm { dtype: "int64".into(), shape: vec![1] };
    OutputParity {
        name: "label".into(),
        elements: 4,
        original: form.clone(),
        candidate: Some(form),
        float: None,
        mismatches: Some(1),
        ..scores()
    }
}

fn plan_line(layer: &str, scheme: &str, reason: &str, bytes_after: u64) -> PlanLine {
    PlanLine {
        layer: layer.into(),
        op: "Conv".into(),
        scheme: scheme.into(),
        reason: reason.into(),
        bytes_before: 294_912,
        bytes_after,
    }
}

/// A report whose verdict comes from the figures in it.
fn quantized(outputs: Vec<OutputParity>, latency: Option<LatencyComparison>) -> Document {
    let parity = Parity { outputs, extra_outputs: vec![], samples: 4, synthetic: true };
    let size = SizeChange { original_bytes: 4_000_000, candidate_bytes: 1_024_000 };
    let measured = Measurements { parity: Some(&parity), size, latency: latency.as_ref() };
    Document {
        tool_version: "0.1.0".into(),
        command: "quantize".into(),
        original: FileName::from("models/mnist.onnx"),
        candidate: Some(FileName::from("out\\mnist.int8.onnx")),
        size: Some(size),
        runtime: Some(RuntimeUsed { name: "tract".into(), reason: "the default".into() }),
        samples: Some(Samples { kind: SampleKind::Synthetic, count: 4 }),
        plan: vec![
            plan_line("/conv_1/Conv", "int8-weights", "asked for", 73_984),
            plan_line("__head__", "keep", "bias | too small\nto matter", 294_912),
        ],
        verdict: Some(judge(&Limits::default(), &measured)),
        latency,
        parity: Some(parity),
        warnings: vec!["samples are synthetic; give real ones with `--samples`".into()],
        ..Document::default()
    }
}

fn latency() -> LatencyComparison {
    LatencyComparison {
        ratio_median: 0.5,
        ratio_low: 0.45,
        ratio_high: 0.625,
        confidence: 0.95,
        pairs: 40,
        original_median_ms: 2.0,
        candidate_median_ms: 1.0,
        threads: 1,
    }
}

fn equal() -> OutputParity {
    let mut output = scores();
    output.float = output.float.map(|float| FloatParity {
        max_abs_error: 0.0,
        mean_abs_error: 0.0,
        rmse: 0.0,
        sqnr_db: f64::INFINITY,
        cosine: 1.0,
        outside_tolerance: 0.0,
        top1: Some(1.0),
        ..float
    });
    output
}

#[test]
fn markdown_of_a_pass() {
    insta::assert_snapshot!(quantized(vec![scores()], Some(latency())).to_markdown());
}

#[test]
fn markdown_of_a_failure() {
    insta::assert_snapshot!(quantized(vec![equal(), label()], None).to_markdown());
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
    assert!(markdown.contains("<details><summary>13 layers</summary>\n\n| Layer"), "{markdown}");
    assert!(markdown.ends_with("|\n\n</details>\n"), "{markdown}");
}

#[test]
fn json() {
    insta::assert_snapshot!(quantized(vec![equal(), label()], Some(latency())).to_json());
}

#[test]
fn json_reads_back() {
    for document in [quantized(vec![equal()], Some(latency())), Document::default()] {
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
        let document = Document { original: FileName::from("x"), ..Document::default() };
        let json = document.to_json().replace("\"x\"", &format!("{path:?}"));
        assert_eq!(serde_json::from_str::<Document>(&json).unwrap().original.as_str(), "m.onnx");
    }
}
