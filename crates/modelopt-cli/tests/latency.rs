//! What became slower: it goes down the ladder, and ends well. How slow anything is depends on the
//! machine; what is asked here does not.

#[macro_use]
mod support;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Output, PROGRAM, finish, tempdir, with_onnxruntime};
use xtask::testdata::{fixture, python, workspace_root};

/// Quantizes in a folder, with onnxruntime on the path.
fn quantize(folder: &Path, more: &[OsString]) -> Output {
    let mut command = with_onnxruntime(folder);
    command.arg("quantize").args(more).args(args!["-o", "out.onnx", "--json"]);
    command.args(args!["--latency-seconds", "0.1", "--min-weight-bytes", "1024"]);
    finish(&mut command)
}

/// Tables and small products, with their samples.
fn recommender(folder: &Path) -> Vec<OsString> {
    let script = workspace_root().join("testdata/recommender/make.py");
    finish(Command::new(python()).arg(script).arg(folder)).expect(0);
    args![folder.join("recommender.onnx"), "--samples", folder.join("samples")].to_vec()
}

fn trials(document: &Value) -> &[Value] {
    document["trials"].as_array().map_or(&[], Vec::as_slice)
}

/// The trials that were measured on the clock alone.
fn timed(document: &Value) -> Vec<&Value> {
    let clocked = |trial: &&Value| trial["what"].as_str().unwrap().contains(" -> ");
    trials(document).iter().filter(clocked).collect()
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn whatever_is_slow_default_rules_end_with_a_model() {
    for runtime in ["onnxruntime", "tract", "rten"] {
        let folder = tempdir();
        let model = recommender(folder.path());
        // No slower at all: what cannot be made so stays as it is.
        let limit = args!["--runtime", runtime, "--max-slowdown", "1"];
        let output = quantize(folder.path(), &[&model[..], &limit].concat()).expect(0);
        assert!(folder.path().join("out.onnx").exists(), "{runtime}");
        let document = output.json();
        for trial in timed(&document) {
            assert!(trial["slowdown"].is_number() || trial["failure"].is_string(), "{trial}");
        }
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn forms_are_measured_one_by_one_and_in_order() {
    let folder = tempdir();
    let model = recommender(folder.path());
    // A hundred times as fast is more than there is.
    let limit = args!["--runtime", "onnxruntime", "--max-slowdown", "0.01"];
    let document = quantize(folder.path(), &[&model[..], &limit].concat()).expect(3).json();
    let tried: Vec<&str> = timed(&document).iter().map(|t| t["what"].as_str().unwrap()).collect();
    assert_eq!(tried[0], "all 2 MatMul and Gemm: int8-dynamic -> int8-weights", "{tried:?}");
    assert_eq!(tried[1], "all 3 Gather: int8-weights -> int8-weights, float at load", "{tried:?}");
    assert!(tried[2..].iter().all(|what| what.ends_with("-> keep")), "{tried:?}");
    assert!(timed(&document).iter().all(|trial| trial["pass"] == false), "{document}");
    assert!(!folder.path().join("out.onnx").exists());
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_scheme_that_was_asked_for_is_not_changed_and_a_gentler_one_is_tried() {
    let folder = tempdir();
    let model = args![fixture("digits/mlp.onnx"), "--samples", fixture("digits/heldout.npz")];
    let limit = args!["--runtime", "onnxruntime", "--max-slowdown", "0.01"];
    let scheme = args!["--scheme", "int8-dynamic"];
    let all = [&model[..], &limit, &scheme].concat();
    let document = quantize(folder.path(), &all).expect(3).json();
    let [trial] = trials(&document) else { panic!("{}", document["trials"]) };
    assert_eq!(trial["what"], "int8-weights instead");
    assert!(trial["slowdown"].is_number() && trial["pass"] == false, "{trial}");
    let plan = document["plan"].as_array().unwrap();
    assert!(plan.iter().any(|line| line["scheme"] == "int8-dynamic"));
}

#[test]
fn what_gains_nothing_is_left_as_it_is() {
    let folder = tempdir();
    let convert = |more: &[OsString]| {
        let mut command = Command::new(PROGRAM);
        let (model, samples) =
            (fixture("graphs/scalar_weights.onnx"), fixture("graphs/scalar_weights.npz"));
        command.args(args!["convert", model, "--samples", samples, "-o", "out.onnx"]);
        command.args(["--to", "fp16", "--json", "--no-latency"]).args(more);
        finish(command.current_dir(folder.path())).expect(0).json()
    };
    let document = convert(&[]);
    let sizes = &document["size"];
    assert_eq!(sizes["original_bytes"], sizes["candidate_bytes"]);
    let warning = document["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("nothing to gain: it would be "), "{warning}");
    // Without the gate it is written all the same, and growth by casts is not judged.
    let document = convert(&args!["--no-gate"]);
    assert!(document["size"]["candidate_bytes"].as_u64() > sizes["original_bytes"].as_u64());
    assert_eq!(document["verdict"]["pass"], true);
    let unjudged = document["verdict"]["unjudged"].as_array().unwrap();
    assert!(unjudged.iter().any(|left| left["name"] == "shrink"), "{unjudged:?}");
}
