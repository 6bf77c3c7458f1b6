//! Models that are random: both are run with the same noise, and what is written stays random.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use crate::support::{Output, finish, run_in, tempdir, with_onnxruntime};
use modelopt::graph::{Constant, Model, Tensor};
use modelopt::onnx::{self, SaveOptions, Staged};
use serde_json::Value;
use xtask::testdata::fixture;

/// Runs the program where the Python on `PATH` is the one that has onnxruntime.
fn run_with_python<S: AsRef<OsStr>>(
    folder: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Output {
    finish(with_onnxruntime(folder).args(arguments))
}

fn with(mut first: Vec<OsString>, more: &[&str]) -> Vec<OsString> {
    first.extend(more.iter().map(OsString::from));
    first
}

fn made(command: &str, name: &str, more: &[&str]) -> Vec<OsString> {
    let (model, samples) = (fixture(format!("random/{name}.onnx")), fixture("random/samples.npz"));
    with(args![command, model, "-o", "out.onnx", "--samples", samples, "--json"].into(), more)
}

fn operators(model: &Path) -> Vec<String> {
    let folder = tempdir();
    let said = run_in(folder.path(), args!["inspect", model, "--json"]).expect(0).json();
    let listed = said["operators"].as_array().unwrap();
    listed.iter().map(|entry| entry["operator"].as_str().unwrap().to_owned()).collect()
}

fn warnings(report: &Value) -> String {
    report["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect()
}

/// The model with the signs of a weight turned.
fn damaged(name: &str, weight: &str, to: &Path) {
    let mut model: Model = onnx::load(&fixture(format!("random/{name}.onnx"))).unwrap();
    let value = model.values().find(|&value| model.value(value).name() == weight).unwrap();
    let Some(Constant::Dense(tensor)) = model.value(value).constant().cloned() else { panic!() };
    let mut numbers = tensor.to_f32().unwrap().into_owned();
    numbers.iter_mut().step_by(3).for_each(|number| *number = -*number);
    let tensor = Tensor::of(tensor.shape().to_vec(), &numbers).unwrap();
    model.replace_constant(value, Arc::new(tensor));
    Staged::write(&model, to, SaveOptions::default()).unwrap().commit().unwrap();
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_random_model_is_quantized_and_stays_random() {
    for runtime in [&["--runtime", "onnxruntime"][..], &[]] {
        let folder = tempdir();
        let more = [&["--no-latency"][..], runtime].concat();
        let report =
            run_with_python(folder.path(), made("quantize", "vits", &more)).expect(0).json();
        let said = warnings(&report);
        assert!(said.contains("RandomNormalLike 'noise' draws random numbers"), "{said}");
        assert!(said.contains("same noise"), "{said}");
        let parity = &report["runs"][0]["parity"]["outputs"][0];
        assert!(parity["float"]["sqnr_db"].as_f64().unwrap() > 20.0, "{parity}");
        let operators = operators(&folder.path().join("out.onnx"));
        assert!(operators.iter().any(|op| op == "RandomNormalLike"), "{operators:?}");
        assert!(!operators.iter().any(|op| op == "Floor"), "{operators:?}");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_random_model_is_converted() {
    for to in ["fp16-weights", "fp16"] {
        let folder = tempdir();
        let more = ["--to", to, "--runtime", "onnxruntime", "--no-latency"];
        let output = run_with_python(folder.path(), made("convert", "vits", &more)).expect(0);
        let report = output.json();
        assert!(!warnings(&report).contains("nothing to do"), "{}", warnings(&report));
        let parity = &report["runs"][0]["parity"]["outputs"][0];
        assert!(parity["float"]["sqnr_db"].as_f64().unwrap() > 40.0, "{parity}");
        let operators = operators(&folder.path().join("out.onnx"));
        assert!(operators.iter().any(|op| op == "RandomNormalLike"), "{operators:?}");
    }
}

#[test]
fn without_the_same_noise_the_original_is_said_to_differ_from_itself() {
    let folder = tempdir();
    let more = ["--runtime", "rten", "--no-latency", "--same-noise", "off"];
    let arguments = made("quantize", "vits", &[&more[..], &["--scheme", "int8-weights"]].concat());
    let output = run_in(folder.path(), arguments).expect(3);
    let said = warnings(&output.json());
    assert!(said.contains("RandomNormalLike 'noise' draws random numbers"), "{said}");
    assert!(said.contains("differs from itself"), "{said}");
    assert!(!folder.path().join("out.onnx").exists());
    let arguments = made("convert", "vits", &[&more[..], &["--to", "fp16"]].concat());
    let said = warnings(&run_in(folder.path(), arguments).json());
    assert!(said.contains("differs from itself") && !said.contains("nothing to do"), "{said}");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn two_random_models_are_compared_with_the_same_noise() {
    for name in ["vits", "dropout", "in_if", "in_loop", "in_function", "multinomial", "bernoulli"] {
        let folder = tempdir();
        let model = fixture(format!("random/{name}.onnx"));
        let samples = fixture("random/samples.npz");
        let more = ["--runtime", "onnxruntime,rten", "--no-latency", "--json"];
        let base: Vec<OsString> = args!["compare", model, model, "--samples", samples].into();
        let output = run_with_python(folder.path(), with(base.clone(), &more)).expect(0);
        let report = output.json();
        for run in report["runs"].as_array().unwrap() {
            assert!(run["failure"].is_null(), "{name}: {run}");
            for parity in run["parity"]["outputs"].as_array().unwrap() {
                let error = parity["float"]["max_abs_error"].as_f64().unwrap_or(0.0);
                assert!(error.abs() < f64::EPSILON, "{name}: {parity}");
            }
        }
        assert!(output.stderr.contains("same noise"), "{}", output.stderr);
        if name == "vits" {
            let more = ["--runtime", "rten", "--no-latency", "--same-noise", "off"];
            run_in(folder.path(), with(base, &more)).expect(3);
        }
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_damaged_random_model_is_refused() {
    for (name, weight) in [("vits", "U"), ("vits", "W"), ("dropout", "W"), ("normal_like", "W")] {
        let folder = tempdir();
        damaged(name, weight, &folder.path().join("damaged.onnx"));
        let (model, samples) =
            (fixture(format!("random/{name}.onnx")), fixture("random/samples.npz"));
        let arguments = args![
            "compare",
            model,
            "damaged.onnx",
            "--samples",
            samples,
            "--runtime",
            "onnxruntime",
            "--no-latency",
        ];
        run_with_python(folder.path(), arguments).expect(3);
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_is_in_training_mode_is_called_so() {
    let folder = tempdir();
    let more = ["--no-latency", "--runtime", "rten"];
    let report = run_in(folder.path(), made("quantize", "dropout", &more)).expect(0).json();
    let said = warnings(&report);
    assert!(said.contains("Dropout 'drop' is in training mode: it drops elements"), "{said}");
    let operators = operators(&folder.path().join("out.onnx"));
    assert!(operators.iter().any(|op| op == "Dropout"), "{operators:?}");
    let more = ["--no-latency", "--runtime", "onnxruntime", "--scheme", "int8-weights"];
    let output = run_with_python(folder.path(), made("quantize", "batchnorm", &more));
    assert!(output.stderr.contains("BatchNormalization 'norm' is in training mode"), "{output:?}");
}
