//! Outputs that are sequences, maps, optionals and strings, and inputs that are strings.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::support::{Output, finish, run_in, tempdir, with_onnxruntime};
use serde_json::Value;
use xtask::testdata::fixture;

/// Runs the program where the Python on `PATH` is the one that has onnxruntime.
fn run_with_python<S: AsRef<OsStr>>(
    folder: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Output {
    finish(with_onnxruntime(folder).args(arguments))
}

fn quantize(name: &str, more: &[&str]) -> Vec<OsString> {
    let (model, samples) =
        (fixture(format!("outputs/{name}.onnx")), fixture("outputs/samples.npz"));
    let mut all: Vec<OsString> =
        args!["quantize", model, "-o", "out.onnx", "--samples", samples, "--json", "--no-latency"]
            .into();
    all.extend(more.iter().map(OsString::from));
    all
}

fn compared(report: &Value) -> Vec<String> {
    let outputs = report["runs"][0]["parity"]["outputs"].as_array().unwrap();
    outputs.iter().map(|output| output["name"].as_str().unwrap().to_owned()).collect()
}

fn warnings(report: &Value) -> String {
    report["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect()
}

const ORT: [&str; 2] = ["--runtime", "onnxruntime"];

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn onnxruntime_returns_values_of_every_type() {
    let wanted: [(&str, &[&str]); 5] = [
        ("sequence", &["y", "ys.length", "ys[0]", "ys[3]"]),
        ("only_sequence", &["ys.length", "ys[0]"]),
        ("maps", &["label", "chances.keys", "chances.values"]),
        ("optional", &["y", "there.present", "there"]),
        ("optional_missing", &["there", "missing.present"]),
    ];
    for (name, outputs) in wanted {
        let folder = tempdir();
        let report = run_with_python(folder.path(), quantize(name, &ORT)).expect(0).json();
        let compared = compared(&report);
        for output in outputs {
            assert!(compared.iter().any(|name| name == output), "{name}: {compared:?}");
        }
        assert!(!compared.iter().any(|name| name == "missing"), "{compared:?}");
        assert!(report["verdict"]["pass"].as_bool().unwrap());
        assert!(!warnings(&report).contains("not compared"), "{}", warnings(&report));
    }
}

#[test]
fn what_a_runtime_cannot_return_is_left_out_and_said() {
    let folder = tempdir();
    let report =
        run_in(folder.path(), quantize("sequence", &["--runtime", "tract"])).expect(0).json();
    assert_eq!(compared(&report), ["y"]);
    let said = warnings(&report);
    assert!(said.contains("tract cannot return it: 'ys' (seq(float"), "{said}");
    assert!(said.contains("onnxruntime may return more"), "{said}");
    let report =
        run_in(folder.path(), quantize("sequence", &["--runtime", "rten"])).expect(0).json();
    assert_eq!(compared(&report).len(), 6);
    // Without a name, the runtime that returns all of it is taken.
    let report = run_in(folder.path(), quantize("only_sequence", &[])).expect(0).json();
    assert_eq!(report["runs"][0]["runtime"]["name"], "rten");
}

#[test]
fn where_nothing_is_left_to_compare_the_way_out_is_named() {
    let folder = tempdir();
    let tract = ["--runtime", "tract"];
    let output = run_in(folder.path(), quantize("only_sequence", &tract)).expect(1);
    let said = &output.stderr;
    assert!(said.contains("tract can return none of the outputs: 'ys' (seq(float"), "{said}");
    assert!(said.contains("--runtime onnxruntime"), "{said}");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn texts_are_read_from_samples_and_invented() {
    let folder = tempdir();
    let report = run_with_python(folder.path(), quantize("text", &ORT)).expect(0).json();
    assert_eq!(report["samples"]["kind"], "real");
    let model = fixture("outputs/text.onnx");
    let arguments = args![
        "quantize",
        model,
        "-o",
        "out.onnx",
        "--runtime",
        "onnxruntime",
        "--json",
        "--no-latency"
    ];
    let report = run_with_python(folder.path(), arguments).expect(0).json();
    assert_eq!(report["samples"]["kind"], "synthetic");
}
