//! The user's own metric: it decides, and what goes wrong with it is told.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{PROGRAM, files, run, run_in, tempdir};
use serde_json::Value;
use xtask::testdata::{fixture, python};

/// Prints the mean probability of the right class, and accuracy, on the held-out pictures.
const EVAL: &str = r#"
import json, sys
import numpy as np
import onnxruntime
onnxruntime.disable_telemetry_events()
data = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
scores = session.run(None, {"image": data["image"]})[0].astype(np.float64)
exp = np.exp(scores - scores.max(1, keepdims=True))
right = (exp / exp.sum(1, keepdims=True))[np.arange(len(scores)), data["label"]]
print("evaluated", len(scores))
print(json.dumps({"confidence": right.mean(), "loss": -np.log(right).mean()}))
"#;

fn digits(arguments: &[OsString]) -> Vec<OsString> {
    quantize("digits/cnn.onnx", arguments)
}

fn quantize(model: &str, arguments: &[OsString]) -> Vec<OsString> {
    let samples = fixture("digits/heldout.npz");
    let base = args!["quantize", fixture(model), "-o", "out.onnx", "--samples", samples];
    [&base[..], &args!["--min-weight-bytes", "256", "--no-latency"], arguments].concat()
}

/// A command that evaluates the digits in a folder.
fn eval(folder: &Path) -> String {
    fs_err::write(folder.join("eval.py"), EVAL).unwrap();
    let data = fixture("digits/heldout.npz");
    format!("'{}' eval.py {{model}} '{}'", python().display(), data.display())
}

fn trials(document: &Value) -> &[Value] {
    document["trials"].as_array().map_or(&[], Vec::as_slice)
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_search_ends_at_the_smallest_plan_within_the_drop() {
    let folder = tempdir();
    let command = eval(folder.path());
    let found = |more: &[OsString]| {
        let metric = args!["--metric", command, "--granularity", "per-tensor", "--json"];
        run_in(folder.path(), quantize("digits/mlp.onnx", &[&metric[..], more].concat()))
            .expect(0)
            .json()
    };
    let loss = args!["--metric-name", "loss", "--metric-direction", "lower"];
    let loose = found(&[&loss[..], &args!["--max-metric-drop", "50%"]].concat());
    assert_eq!(loose["metric"]["name"], "loss");
    assert_eq!(loose["metric"]["further"][0]["name"], "confidence");
    assert_eq!(trials(&loose).len(), 2);

    let strict = found(&[&loss[..], &args!["--max-metric-drop", "0.2%"]].concat());
    let figure = |name: &str| strict["metric"][name].as_f64().unwrap();
    assert!(figure("candidate") <= figure("original") * 1.002 + 1e-12, "{}", strict["metric"]);
    assert!(trials(&strict).len() > 2, "{}", strict["trials"]);
    let last = trials(&strict).last().unwrap();
    // Every plan that was smaller lost too much.
    let bytes = |trial: &Value| trial["bytes"].as_u64().unwrap();
    for trial in &trials(&strict)[..trials(&strict).len() - 1] {
        let lost = trial["metric"].as_f64().unwrap() > figure("original") * 1.002;
        assert_eq!(lost, trial["pass"] == false, "{trial}");
        // The verdict's file says where it comes from.
        assert!(lost || bytes(trial) + 1000 >= bytes(last), "{trial} {last}");
    }
    assert!(loose["size"]["candidate_bytes"].as_u64() < strict["size"]["candidate_bytes"].as_u64());
    // No limit of parity was held against it.
    let checks = strict["verdict"]["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["name"] != "sqnr"));
    assert!(checks.iter().any(|check| check["name"] == "metric" && check["subject"] == "loss"));
    // One that is asked for holds beside it.
    let both = args!["--metric", command, "--min-sqnr", "200", "--scheme", "int8-weights"];
    let refused = run_in(folder.path(), digits(&both)).expect(3);
    assert!(refused.stdout.contains("FAIL sqnr of scores"), "{}", refused.stdout);
}

#[test]
fn labels_in_the_samples_give_accuracy() {
    let folder = tempdir();
    let labels = args!["--labels", "scores:label", "--max-metric-drop", "0.3%"];
    let output = run_in(folder.path(), digits(&labels)).expect(0);
    assert!(output.stdout.contains("\n  accuracy  0.9"), "{}", output.stdout);
    assert!(output.stdout.contains("\n  top-5 accuracy  "), "{}", output.stdout);

    // Another model with the same answers: nothing alike but right.
    let (cnn, mlp) = (fixture("digits/cnn.onnx"), fixture("digits/mlp.onnx"));
    let samples = fixture("digits/heldout.npz");
    let compare = |more: &[OsString]| {
        let base = args!["compare", cnn, mlp, "--samples", samples, "--no-latency", "--min-shrink"];
        run([&base[..], &args!["0.1", "--json"], more].concat())
    };
    compare(&[]).expect(3);
    let same = compare(&args!["--labels", "scores:label", "--max-metric-drop", "2%"]).expect(0);
    let metric = &same.json()["metric"];
    assert!(metric["original"].as_f64().unwrap() > 0.97, "{metric}");
    compare(&args!["--labels", "scores:label", "--max-metric-drop", "0.0001"]).expect(3);
    let wrong = compare(&args!["--labels", "scores:digit"]).expect(1);
    assert!(wrong.stderr.contains("sample 'heldout' has no array 'digit'"), "{}", wrong.stderr);
    let wrong = compare(&args!["--labels", "logits:label"]).expect(1);
    assert!(
        wrong.stderr.contains("the model has no output 'logits'; there are scores"),
        "{}",
        wrong.stderr
    );
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_metric_stands_in_every_report() {
    let folder = tempdir();
    let command = format!("{} | tail -1", eval(folder.path()));
    fs_err::write(
        folder.path().join("modelopt.toml"),
        format!("[metric]\ncommand = \"\"\"{command}\"\"\"\nmax-drop = \"5%\"\n"),
    )
    .unwrap();
    run_in(folder.path(), digits(&args!["--report", "report"])).expect(0);
    let text = |name| fs_err::read_to_string(folder.path().join("report").join(name)).unwrap();
    assert!(text("report.md").contains("### Metric"), "{}", text("report.md"));
    assert!(text("report.html").contains("<h2>Metric</h2>"));
    assert!(text("junit.xml").contains("metric"), "{}", text("junit.xml"));
    let document: Value = serde_json::from_str(&text("report.json")).unwrap();
    assert_eq!(document["metric"]["name"], "confidence");
    assert_eq!(document["metric"]["max_drop"], "5%");
}

/// What is said of a command that has no figure.
#[cfg(unix)]
fn complaint(command: &str, more: &[OsString]) -> String {
    let folder = tempdir();
    let arguments = [&args!["--metric", command, "--quiet"][..], more].concat();
    let output = run_in(folder.path(), digits(&arguments)).expect(1);
    assert_eq!(files(folder.path()), Vec::<std::path::PathBuf>::new());
    output.stderr
}

#[cfg(unix)]
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_has_no_figure_is_told() {
    // What the shell says of it is the shell's.
    let missing = complaint("python_of_mine eval.py {model}", &[]);
    insta::assert_snapshot!(missing.lines().next().unwrap(), @"error: the metric 'python_of_mine eval.py {model}' failed on the original (exit code 127)");
    assert!(missing.contains("not found"), "{missing}");
    insta::assert_snapshot!(complaint("echo loading >&2; echo 'no such class: 11' >&2; exit 4 # {model}", &[]), @r#"
    error: the metric 'echo loading >&2; echo 'no such class: 11' >&2; exit 4 # {model}' failed on the original (exit code 4)
      | loading
      | no such class: 11
    "#);
    insta::assert_snapshot!(complaint("true {model}", &[]), @"error: the metric 'true {model}' printed nothing for the original; its last line must be a number, or a JSON object of numbers");
    insta::assert_snapshot!(complaint("echo done {model}", &[]), @"error: the metric 'echo done {model}' printed 'done {model}' for the original; its last line must be a number, or a JSON object of numbers");
    insta::assert_snapshot!(complaint("echo nan # {model}", &[]), @"error: the metric 'echo nan # {model}' printed NaN for the original; its last line must be a number, or a JSON object of numbers");
    insta::assert_snapshot!(complaint("echo '{\"f1\": 0.5, \"acc\": 0.25}' # {model}", &args!["--metric-name", "accuracy"]), @r#"
    error: the metric 'echo '{"f1": 0.5, "acc": 0.25}' # {model}' printed no 'accuracy'; there are f1, acc
    "#);
    insta::assert_snapshot!(complaint("sleep 60 # {model}", &args!["--metric-timeout", "0.2s"]), @"error: the metric 'sleep 60 # {model}' was not done with the original after 0.2 s");
    insta::assert_snapshot!(complaint("case {model} in *candidate*) exit 1;; esac; echo 1", &[]), @"error: the metric 'case {model} in *candidate*) exit 1;; esac; echo 1' failed on the candidate (exit code 1)");
}

#[test]
fn flags_of_the_metric_need_one() {
    let usage = |more: &[OsString]| {
        let folder = tempdir();
        run_in(folder.path(), digits(more)).expect(2).stderr
    };
    insta::assert_snapshot!(usage(&args!["--metric", "python eval.py"]), @"error: --metric needs {model}, where the path of the model goes");
    insta::assert_snapshot!(usage(&args!["--max-metric-drop", "1%"]), @"error: there is no metric: give one with --metric or --labels");
    usage(&args!["--metric", "x {model}", "--labels", "scores:label"]);
    usage(&args!["--metric-name", "accuracy"]);
    usage(&args!["--labels", "scores"]);
    usage(&args!["--labels", "scores:label", "--max-metric-drop", "much"]);
    let base = args!["quantize", fixture("digits/cnn.onnx"), "-o", "out.onnx"];
    let output = run([&base[..], &args!["--labels", "scores:label"]].concat()).expect(2);
    insta::assert_snapshot!(output.stderr, @"error: --labels needs --samples: labels stand beside the inputs");
    // Settings that come from a file are checked by the library.
    let folder = tempdir();
    fs_err::write(folder.path().join("modelopt.toml"), "[metric]\nlabels = \"scores:label\"\n")
        .unwrap();
    let output = run_in(folder.path(), args!["inspect", fixture("digits/cnn.onnx")]).expect(1);
    insta::assert_snapshot!(output.stderr, @"error: labels stand in samples: give some with --samples");
    let output = run([&base[..], &args!["--metric", "x {model}", "--no-validate"]].concat());
    insta::assert_snapshot!(output.expect(2).stderr, @"error: --no-validate runs nothing: it has no use for a metric");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_command_and_all_that_it_started() {
    let folder = tempdir();
    let (began, lived) = (folder.path().join("began"), folder.path().join("lived"));
    let script = format!(
        "touch '{}'; (sleep 3; touch '{}') & sleep 60 # {{model}}",
        began.display(),
        lived.display()
    );
    let quantize = digits(&args!["--metric", script]);
    let (cnn, samples) = (fixture("digits/cnn.onnx"), fixture("digits/heldout.npz"));
    let compare =
        args!["compare", cnn, cnn, "--samples", samples, "--no-latency", "--metric", script];
    for arguments in [quantize, compare.to_vec()] {
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !began.exists() {
            assert!(started.elapsed() < Duration::from_mins(1), "the command never began");
            std::thread::sleep(Duration::from_millis(20));
        }
        crate::support::finish(Command::new("kill").args(["-INT", &child.id().to_string()]))
            .expect(0);
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(started.elapsed() < Duration::from_secs(40));
        std::thread::sleep(Duration::from_millis(3500));
        assert!(!lived.exists(), "something lived on");
        fs_err::remove_file(&began).unwrap();
    }
}
