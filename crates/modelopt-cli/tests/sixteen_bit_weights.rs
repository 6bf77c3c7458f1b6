//! Weights of 16 bits: of what has to compute in float32, and those that a model comes with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::support::{Output, finish, run, tempdir};
use serde_json::Value;
use xtask::testdata::{python, workspace_root};

/// Where the models lie that are made for these tests.
static MODELS: LazyLock<PathBuf> = LazyLock::new(|| {
    let script = workspace_root().join("testdata/sixteen_bits/make.py");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sixteen_bit_weights");
    fs_err::create_dir_all(&folder).unwrap();
    finish(Command::new(python()).args([script, folder.clone()])).expect(0);
    folder
});

fn make(command: &str, model: &str, output: &Path, more: &[&str]) -> Output {
    let model = MODELS.join(format!("{model}.onnx"));
    let mut all = args![command, model, "-o", output, "--json"].to_vec();
    all.extend(more.iter().map(OsString::from));
    run(all)
}

/// Scheme and reason of each layer.
fn plan(report: &Value) -> BTreeMap<&str, (&str, &str)> {
    let lines = report["plan"].as_array().unwrap().iter();
    let text = |line: &'_ Value, key: &str| line[key].as_str().unwrap().to_owned().leak() as &str;
    lines.map(|l| (text(l, "layer"), (text(l, "scheme"), text(l, "reason")))).collect()
}

/// How many times smaller the output is.
fn shrink(report: &Value) -> f64 {
    let size = |key: &str| report["size"][key].as_f64().unwrap();
    size("original_bytes") / size("candidate_bytes")
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_stays_float32_stores_its_weights_in_16_bits() {
    let folder = tempdir();
    let output = folder.path().join("m.onnx");
    let least = ["--min-weight-bytes", "256", "--no-validate"];
    for to in ["fp16", "bf16"] {
        let report = make("convert", "contrib", &output, &[&["--to", to], &least[..]].concat());
        let report = report.expect(0).json();
        let plan = plan(&report);
        assert_eq!(plan["product"].0, to);
        let (scheme, reason) = plan["fused"];
        assert_eq!(scheme, format!("{to}-weights"));
        assert!(reason.contains("not an operator of ai.onnx"), "{reason}");
        assert!(reason.contains("its weights are stored in "), "{reason}");
        assert!(shrink(&report) > 1.9, "{}", shrink(&report));
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_is_excluded_keeps_its_weights() {
    let folder = tempdir();
    let output = folder.path().join("m.onnx");
    let more = ["--to", "fp16", "--exclude", "fused", "--no-validate"];
    let report = make("convert", "contrib", &output, &more).expect(0).json();
    assert_eq!(plan(&report)["fused"].0, "keep");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn weights_that_are_16_bit_already_leave_nothing_to_do() {
    let folder = tempdir();
    for to in ["fp16", "fp16-weights"] {
        let output = folder.path().join(format!("{to}.onnx"));
        let made = make("convert", "casted", &output, &["--to", to]).expect(0);
        let size = |path: &Path| fs_err::metadata(path).unwrap().len();
        assert_eq!(size(&output), size(&MODELS.join("casted.onnx")));
        assert!(made.stderr.contains("nothing to do"), "{}", made.stderr);
        assert!(plan(&made.json()).values().all(|(scheme, _)| *scheme == "keep"));
    }
    let made = make("convert", "casted", &folder.path().join("m.onnx"), &["--to", "fp16"]);
    let why =
        "warning: nothing to do: the weights are 16-bit already; the model is emitted as it is\n";
    assert_eq!(made.stderr, why);
}

/// They are weights like others where they are to become smaller than that.
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn weights_behind_casts_are_quantized() {
    let folder = tempdir();
    let output = folder.path().join("m.onnx");
    let more = ["--scheme", "int8-weights", "--min-weight-bytes", "0"];
    let report = make("quantize", "casted", &output, &more).expect(0).json();
    let plan = plan(&report);
    for layer in ["conv", "gemm", "transpose"] {
        assert_eq!(plan[layer].0, "int8-weights", "{plan:?}");
    }
    assert!(!plan.keys().any(|layer| layer.contains("InsertedCast")), "{plan:?}");
    assert!(shrink(&report) > 1.8, "{}", shrink(&report));
    let types: Vec<Value> = {
        let inspected = run(args!["inspect", output, "--json"]).expect(0).json();
        inspected["weights"].as_array().unwrap().iter().map(|w| w["type"].clone()).collect()
    };
    assert!(types.contains(&"int8".into()), "{types:?}");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn products_of_casted_weights_can_be_dynamic() {
    let folder = tempdir();
    let output = folder.path().join("m.onnx");
    let more = ["--scheme", "int8-dynamic", "--min-weight-bytes", "0", "--runtime", "rten"];
    let more = [&more[..], &["--max-slowdown", "100"]].concat();
    let report = make("quantize", "casted", &output, &more).expect(0).json();
    assert_eq!(plan(&report)["gemm"].0, "int8-dynamic");
}
