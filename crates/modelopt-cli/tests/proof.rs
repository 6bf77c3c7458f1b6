//! How `modelopt convert` proves float16 where nobody names a runtime: in an embedded one, with its
//! 16-bit operators computed in float32 between roundings.

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
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("proof");
    fs_err::create_dir_all(&folder).unwrap();
    finish(Command::new(python()).args([script, folder.clone()])).expect(0);
    folder
});

const HOW: &str = "16-bit operators computed in float32 between roundings";

fn convert(model: &str, output: &Path, more: &[&str]) -> Output {
    let model = MODELS.join(format!("{model}.onnx"));
    let mut all = args!["convert", model, "-o", output, "--json"].to_vec();
    all.extend(more.iter().map(OsString::from));
    run(all)
}

fn target(report: &Value) -> (&str, Option<&str>) {
    let runtime = &report["runs"][0]["runtime"];
    (runtime["name"].as_str().unwrap(), runtime["how"].as_str())
}

fn worst_sqnr(report: &Value) -> f64 {
    let outputs = report["runs"][0]["parity"]["outputs"].as_array().unwrap();
    let ratios = outputs.iter().filter_map(|output| output["float"]["sqnr_db"].as_f64());
    ratios.fold(f64::INFINITY, f64::min)
}

/// tract has no float16 product with a bias, takes seconds for float16 convolutions, and has no
/// loops.
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn float16_is_proven_without_kernels_for_it() {
    let folder = tempdir();
    for (model, runtime) in [("gemm", "tract"), ("conv", "tract"), ("loop", "rten")] {
        let output = folder.path().join(format!("{model}.onnx"));
        let report = convert(model, &output, &["--to", "fp16"]).expect(0).json();
        assert_eq!(target(&report), (runtime, Some(HOW)), "{model}");
        // Rounding leaves 60 to 80 dB; float32 alone would leave far more.
        assert!((55.0..90.0).contains(&worst_sqnr(&report)), "{model}: {}", worst_sqnr(&report));
        // What is not run as it will be has no time.
        assert_eq!(report["runs"][0]["latency"], Value::Null, "{model}");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn bfloat16_is_proven_where_no_runtime_has_it() {
    let folder = tempdir();
    let output = folder.path().join("gemm.onnx");
    let limit = ["--to", "bf16", "--min-sqnr", "35"];
    let report = convert("gemm", &output, &limit).expect(0).json();
    assert_eq!(target(&report).1, Some(HOW));
    assert!((38.0..60.0).contains(&worst_sqnr(&report)), "{}", worst_sqnr(&report));
}

/// A named runtime's own kernels are what is asked about, where it has any.
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_named_runtime_is_taken_at_its_word() {
    let folder = tempdir();
    let output = folder.path().join("m.onnx");
    let named = |model: &str| {
        let report = convert(model, &output, &["--to", "fp16", "--runtime", "tract"]);
        report.expect(0).json()
    };
    let native = named("gemm");
    assert_eq!(target(&native), ("tract", Some(HOW)));
    let weights = convert("gemm", &output, &["--to", "fp16-weights", "--min-weight-bytes", "0"]);
    assert_eq!(target(&weights.expect(0).json()), ("tract", None));
}

/// What is emitted is the model in float16, not what was run for it.
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn an_interface_in_float16_is_proven_too() {
    let folder = tempdir();
    let output = folder.path().join("m.onnx");
    let report = convert("gemm", &output, &["--to", "fp16", "--io", "fp16"]).expect(0).json();
    assert_eq!(target(&report).1, Some(HOW));
    let inspected = run(args!["inspect", output, "--json"]).expect(0).json();
    assert_eq!(inspected["inputs"][0]["type"], "float16[n, 64]");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn compare_says_what_it_ran() {
    let folder = tempdir();
    let output = folder.path().join("m.onnx");
    convert("gemm", &output, &["--to", "fp16"]).expect(0);
    let compared = run(args!["compare", MODELS.join("gemm.onnx"), output]).expect(0);
    assert!(compared.stdout.contains(&format!("ran in tract 0.23.9, {HOW} with")), "{compared:?}");
}

/// The digests of two runs are equal: what is proven elsewhere does not change what is emitted.
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_same_model_gives_the_same_bytes() {
    let folder = tempdir();
    let [one, other] = ["one.onnx", "other.onnx"].map(|name| folder.path().join(name));
    convert("loop", &one, &["--to", "fp16"]).expect(0);
    convert("loop", &other, &["--to", "fp16", "--threads", "2"]).expect(0);
    assert_eq!(fs_err::read(one).unwrap(), fs_err::read(other).unwrap());
}
