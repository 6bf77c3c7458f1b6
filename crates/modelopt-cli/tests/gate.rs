//! What the gate promises: what does not pass is not written, and at every moment the output is
//! the old file or the whole new one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Output, files, run, run_in, tempdir};
use serde_json::Value;
use xtask::testdata::{fixture, model, samples};

const OLD: &[u8] = b"what was here before";

/// Quantizes the digits classifier in this folder with a limit that nothing can meet.
fn refused<const N: usize>(folder: &Path, more: [OsString; N]) -> Output {
    let (model, samples) = (fixture("digits/cnn.onnx"), fixture("digits/heldout.npz"));
    let mut arguments = args![
        "quantize",
        model,
        "-o",
        "out.onnx",
        "--min-weight-bytes",
        "1024",
        "--samples",
        samples,
        "--min-sqnr",
        "200",
        // A search would save its best plan.
        "--scheme",
        "int8-dynamic",
    ]
    .to_vec();
    arguments.extend(more);
    run_in(folder, arguments).expect(3)
}

#[test]
fn a_refusal_leaves_nothing_and_names_the_worst_layers() {
    let folder = tempdir();
    let output = refused(folder.path(), []);
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
    for text in ["refused: nothing was written", "FAIL sqnr of scores", "200.0 dB", "worst layers"]
    {
        assert!(output.stdout.contains(text), "no '{text}' in {}", output.stdout);
    }
    // All four changed layers: one of them is the worst.
    for layer in ["conv2", "conv3_1", "dense1", "dense2"] {
        assert!(output.stdout.contains(layer), "no '{layer}' in {}", output.stdout);
    }
    assert!(output.stdout.contains("try: --exclude '"), "{}", output.stdout);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_refusal_of_a_real_model_names_its_worst_layers() {
    for name in ["silero_vad", "magika"] {
        let folder = tempdir();
        let (model, samples) = (model(name), samples(name));
        let arguments =
            args!["quantize", model, "-o", "out.onnx", "--samples", samples, "--min-sqnr", "200"];
        let arguments = [arguments.to_vec(), args!["--scheme", "int8-dynamic"].to_vec()].concat();
        let output = run_in(folder.path(), arguments).expect(3);
        assert_eq!(files(folder.path()), Vec::<PathBuf>::new(), "{name}");
        let plan = run(args!["plan", model, "--json"]).expect(0).json();
        let layers = plan["plan"]["layer"].as_array().unwrap().clone();
        let worst = output.stdout.split("worst layers").nth(1).unwrap();
        let named = layers
            .iter()
            .filter(|layer| layer["scheme"] != "keep")
            .filter(|layer| worst.contains(layer["name"].as_str().unwrap()));
        assert!(named.count() > 0, "{name}: {}", output.stdout);
    }
}

#[test]
fn a_refusal_is_reported() {
    let folder = tempdir();
    refused(folder.path(), args!["--report", "report"]);
    let expected = ["junit.xml", "report.html", "report.json", "report.md"];
    let expected = expected.map(|name| Path::new("report").join(name));
    assert_eq!(files(folder.path()), expected);
    let json = fs_err::read_to_string(folder.path().join("report/report.json")).unwrap();
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["verdict"]["pass"], Value::Bool(false));
    assert_eq!(report.get("candidate"), None, "a candidate that was not written is named");
    let checks = report["verdict"]["checks"].as_array().unwrap();
    let sqnr = checks.iter().find(|check| check["name"] == "sqnr").unwrap();
    assert_eq!((&sqnr["pass"], &sqnr["limit"]), (&Value::Bool(false), &Value::from(200.0)));
    let markdown = fs_err::read_to_string(folder.path().join("report/report.md")).unwrap();
    assert!(markdown.to_lowercase().contains("fail"), "{markdown}");
}

#[test]
fn a_refusal_leaves_an_earlier_output_untouched() {
    let folder = tempdir();
    let output = folder.path().join("out.onnx");
    fs_err::write(&output, OLD).unwrap();
    let before = fs_err::metadata(&output).unwrap();
    refused(folder.path(), []);
    let after = fs_err::metadata(&output).unwrap();
    assert_eq!(fs_err::read(&output).unwrap(), OLD);
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    assert_eq!(after.permissions(), before.permissions());
    assert_eq!(files(folder.path()), [PathBuf::from("out.onnx")]);
}

#[test]
fn a_refusal_leaves_the_input_untouched_where_that_is_the_output() {
    let folder = tempdir();
    let model = folder.path().join("model.onnx");
    let bytes = fs_err::read(fixture("digits/cnn.onnx")).unwrap();
    fs_err::write(&model, &bytes).unwrap();
    run_in(
        folder.path(),
        args!["quantize", model, "--in-place", "--min-sqnr", "200", "--scheme", "int8-dynamic"],
    )
    .expect(3);
    assert_eq!(fs_err::read(&model).unwrap(), bytes);
    // What passes replaces it.
    run_in(folder.path(), args!["quantize", model, "--in-place"]).expect(0);
    assert!(fs_err::read(&model).unwrap().len() < bytes.len() / 2);
    assert_eq!(files(folder.path()), [PathBuf::from("model.onnx")]);
}

#[test]
fn a_refusal_writes_no_model_into_a_pipe() {
    let output = run(args!["quantize", fixture("digits/cnn.onnx"), "-o", "-", "--min-sqnr", "200"]);
    let output = output.expect(3);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("refused: nothing was written"), "{}", output.stderr);
}

#[test]
fn every_limit_can_refuse() {
    let limits = [
        ("--min-sqnr", "60", "sqnr"),
        ("--max-abs-error", "1e-6", "max_abs_error"),
        ("--min-shrink", "4.5", "shrink"),
    ];
    for (flag, limit, check) in limits {
        let folder = tempdir();
        let arguments =
            args!["quantize", fixture("digits/cnn.onnx"), "-o", "out.onnx", "--json", flag, limit];
        let arguments = [arguments.to_vec(), args!["--scheme", "int8-dynamic"].to_vec()].concat();
        let report = run_in(folder.path(), arguments).expect(3).json();
        assert_eq!(files(folder.path()), Vec::<PathBuf>::new(), "{flag}");
        let checks = report["verdict"]["checks"].as_array().unwrap().clone();
        let failed: Vec<_> = checks.iter().filter(|check| check["pass"] == false).collect();
        assert!(!failed.is_empty(), "{flag}");
        assert!(failed.iter().all(|failed| failed["name"] == check), "{flag}: {failed:?}");
    }
}

#[test]
fn without_the_gate_the_verdict_is_told_and_the_output_written() {
    let folder = tempdir();
    let arguments = args![
        "quantize",
        fixture("digits/cnn.onnx"),
        "-o",
        "out.onnx",
        "--min-sqnr",
        "200",
        "--no-gate",
    ];
    let output = run_in(folder.path(), arguments).expect(0);
    assert!(output.stdout.contains("failed, but the gate is off"), "{}", output.stdout);
    assert_eq!(files(folder.path()), [PathBuf::from("out.onnx")]);
}

/// Runs the program many times in this folder and kills it, at moments spread over the time of a
/// whole run and a little beyond. `check` looks at the folder after each.
fn killed(folder: &Path, arguments: &[OsString], count: usize, mut check: impl FnMut()) {
    // The first run warms the caches; the second one tells the time.
    let took = [(); 2].map(|()| run_in(folder, arguments).expect(0).took)[1];
    check();
    let mut unfinished = 0;
    for index in 0..count {
        // Multiples of the golden ratio: as even as a grid, and in step with nothing.
        let part = (index as f64 * 0.618_034).fract() * 1.1;
        let started = Instant::now();
        let mut child = Command::new(crate::support::PROGRAM)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moment = took.mul_f64(part);
        std::thread::sleep(moment.saturating_sub(started.elapsed()).max(Duration::from_micros(1)));
        child.kill().unwrap();
        unfinished += usize::from(!child.wait().unwrap().success());
        check();
    }
    println!("{unfinished} of {count} runs were killed before their end");
    assert!(unfinished > count / 10, "only {unfinished} of {count} runs were killed in time");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn killed_at_any_moment_the_output_is_the_old_or_the_new_file() {
    let folder = tempdir();
    let output = folder.path().join("out.onnx");
    let arguments = args!["quantize", model("rxnmap"), "-o", "out.onnx", "--no-validate"];
    run_in(folder.path(), &arguments).expect(0);
    let new = fs_err::read(&output).unwrap();
    let (mut old, mut whole) = (0, 0);
    killed(folder.path(), &arguments, 60, || {
        let found = fs_err::read(&output).unwrap();
        if found == OLD {
            old += 1;
        } else {
            assert!(found == new, "{} bytes, neither the old nor the new file", found.len());
            whole += 1;
        }
        fs_err::write(&output, OLD).unwrap();
    });
    println!("{old} times the old file, {whole} times the new one");
    run_in(folder.path(), &arguments).expect(0);
    assert_eq!(files(folder.path()), [PathBuf::from("out.onnx")], "something is left behind");
    assert!(fs_err::read(&output).unwrap() == new);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn killed_at_any_moment_external_data_fits_the_model() {
    let folder = tempdir();
    let output = folder.path().join("out.onnx");
    let arguments =
        args!["quantize", model("rxnmap"), "-o", "out.onnx", "--no-validate", "--external-data"];
    run_in(folder.path(), &arguments).expect(0);
    let new = fs_err::read(&output).unwrap();
    let names = files(folder.path());
    let [data] =
        &names.iter().filter(|name| *name != Path::new("out.onnx")).collect::<Vec<_>>()[..]
    else {
        panic!("{names:?}")
    };
    let data = folder.path().join(data);
    let weights = fs_err::read(&data).unwrap();
    killed(folder.path(), &arguments, 30, || {
        match fs_err::read(&output) {
            Ok(found) => {
                assert!(found == new, "{} bytes, not the new file", found.len());
                assert!(fs_err::read(&data).unwrap() == weights, "the data does not fit the model");
                fs_err::remove_file(&output).unwrap();
            }
            // Killed before its end, there is no model.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    });
    run_in(folder.path(), &arguments).expect(0);
    assert_eq!(files(folder.path()), names, "something is left behind");
    assert!(fs_err::read(&data).unwrap() == weights);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn killed_while_it_judges_the_old_file_stays() {
    let folder = tempdir();
    let output = folder.path().join("out.onnx");
    let (model, samples) = (model("silero_vad"), samples("silero_vad"));
    let arguments = args!["quantize", model, "-o", "out.onnx", "--samples", samples];
    run_in(folder.path(), &arguments).expect(0);
    let new = fs_err::read(&output).unwrap();
    killed(folder.path(), &arguments, 60, || {
        let found = fs_err::read(&output).unwrap();
        assert!(found == OLD || found == new, "{} bytes, neither old nor new", found.len());
        fs_err::write(&output, OLD).unwrap();
    });
    run_in(folder.path(), &arguments).expect(0);
    assert_eq!(files(folder.path()), [PathBuf::from("out.onnx")], "something is left behind");
}
