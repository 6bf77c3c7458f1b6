//! The search: what it finds, when it ends, and what is left when it finds nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Output, files, finish, tempdir, with_onnxruntime};
use serde_json::Value;
use xtask::testdata::{model, python, samples, workspace_root};

/// A folder with what the run of `arguments` in it needs: onnxruntime on the path.
fn command<S: AsRef<std::ffi::OsStr>>(
    folder: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = with_onnxruntime(folder);
    command.args(arguments);
    command
}

/// Quantizes a model for onnxruntime, without measuring latency: what is found is the same on any
/// machine then.
fn quantize(folder: &Path, input: &Path, samples: &Path, more: &[&str]) -> Output {
    let mut arguments =
        args!["quantize", input, "-o", "out.onnx", "--samples", samples, "--json"].to_vec();
    arguments.extend(args!["--runtime", "onnxruntime", "--no-latency"]);
    arguments.extend(more.iter().map(Into::into));
    finish(&mut command(folder, arguments))
}

/// Quantizes the encoder. Its products of 8 bits would saturate on some processors.
fn quantize_encoder(folder: &Path, input: &Path, samples: &Path, more: &[&str]) -> Output {
    quantize(folder, input, samples, &[more, &["--reduce-range"]].concat())
}

/// The encoder with planted outliers, and its samples.
fn encoder(folder: &Path) -> (PathBuf, PathBuf) {
    let script = workspace_root().join("testdata/outliers/make.py");
    finish(Command::new(python()).arg(script).arg(folder)).expect(0);
    (folder.join("encoder.onnx"), folder.join("samples"))
}

fn trials(document: &Value) -> &[Value] {
    document["trials"].as_array().map_or(&[], Vec::as_slice)
}

fn worst(document: &Value) -> f64 {
    let outputs = document["runs"][0]["parity"]["outputs"].as_array().unwrap();
    let ratios = outputs.iter().filter_map(|output| output["float"]["sqnr_db"].as_f64());
    ratios.fold(f64::INFINITY, f64::min)
}

fn schemes(document: &Value, scheme: &str) -> usize {
    let plan = document["plan"].as_array().unwrap();
    plan.iter().filter(|line| line["scheme"] == scheme).count()
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn smoothing_undoes_planted_outliers_and_all_products_stay_dynamic() {
    let folder = tempdir();
    let (input, samples) = encoder(folder.path());
    let run =
        |more: &[&str], code| quantize_encoder(folder.path(), &input, &samples, more).expect(code);
    let plain = run(&["--scheme", "int8-dynamic", "--smoothing", "off", "--no-gate"], 0).json();
    let smooth = run(&["--scheme", "int8-dynamic", "--smoothing", "on", "--no-gate"], 0).json();
    assert_eq!((schemes(&plain, "int8-dynamic"), schemes(&smooth, "int8-dynamic")), (36, 36));
    assert!(worst(&plain) < 15.0, "{}", worst(&plain));
    assert!(worst(&smooth) > worst(&plain) + 5.0, "{} {}", worst(&plain), worst(&smooth));
    // Taken into what makes the activations, but for the joined heads of each layer.
    let count = |document: &Value| document["size"]["candidate_bytes"].as_f64().unwrap();
    assert!(count(&smooth) < count(&plain) * 1.01);

    let found = run(&["--min-sqnr", "25"], 0).json();
    assert!(worst(&found) >= 25.0);
    assert!(schemes(&found, "int8-dynamic") >= 34, "{}", schemes(&found, "int8-dynamic"));
    let tried: Vec<&str> = trials(&found).iter().filter_map(|t| t["what"].as_str()).collect();
    assert!(tried[1].contains("smoothed") && tried.len() == 3, "{tried:?}");

    let unaided = run(&["--min-sqnr", "25", "--smoothing", "off"], 0).json();
    assert!(worst(&unaided) >= 25.0 && schemes(&unaided, "int8-dynamic") < 36);
    assert!(trials(&unaided).iter().all(|t| !t["what"].as_str().unwrap().contains("smoothed")));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_recogniser_passes_with_most_of_its_weights_in_int8() {
    let folder = tempdir();
    let (input, samples) = (model("rec"), samples("rec"));
    let found = quantize(folder.path(), &input, &samples, &["--report", "report"]).expect(0).json();
    assert!(worst(&found) >= 20.0);
    assert!(found["size"]["candidate_bytes"].as_f64().unwrap() <= 3.3e6);
    let (first, last) = (&trials(&found)[0], trials(&found).last().unwrap());
    assert!(trials(&found).len() <= 25);
    assert_eq!(found["search_end"], "found");
    assert_eq!((first["pass"].clone(), last["pass"].clone()), (false.into(), true.into()));
    assert_eq!(last["blake3"], found["candidate"]["blake3"]);
    assert!(found["sensitivity"][0]["alone_db"].is_number());
    // What it found is what its plan gives, on any number of threads.
    let again = quantize(folder.path(), &input, &samples, &["--threads", "2"]).expect(0).json();
    assert_eq!(again["plan"], found["plan"]);
    let text = |name| fs_err::read_to_string(folder.path().join("report").join(name)).unwrap();
    assert!(
        text("report.md").contains("### Search") && text("report.html").contains("Sensitivity")
    );
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_plan_that_passes_is_not_searched_any_further() {
    let folder = tempdir();
    let (input, samples) = (model("silero_vad"), samples("silero_vad"));
    let found = quantize(folder.path(), &input, &samples, &[]).expect(0).json();
    assert_eq!(trials(&found).len(), 2);
    assert!(found.get("sensitivity").is_none());
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_cannot_be_met_leaves_the_best_plan_and_no_model() {
    let folder = tempdir();
    let target = folder.path().join("out.onnx");
    fs_err::write(&target, "what was there").unwrap();
    let (input, samples) = (model("rec"), samples("rec"));
    let refused = quantize(folder.path(), &input, &samples, &["--min-sqnr", "90"]).expect(3).json();
    assert_eq!(fs_err::read_to_string(&target).unwrap(), "what was there");
    assert!(trials(&refused).len() <= 25);
    assert_eq!(refused["search_end"], "impossible");
    let plan = folder.path().join("out.onnx.best-plan.toml");
    assert_eq!(files(folder.path()), ["out.onnx", "out.onnx.best-plan.toml"].map(PathBuf::from));
    // The plan gives the bytes that were judged.
    let more = ["--plan", plan.to_str().unwrap(), "--no-gate"];
    let made = quantize(folder.path(), &input, &samples, &more).expect(0).json();
    assert_eq!(trials(&refused).last().unwrap()["blake3"], made["candidate"]["blake3"]);
    assert!((worst(&refused) - worst(&made)).abs() < 1e-9);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn trials_and_time_are_limits() {
    let folder = tempdir();
    let (input, samples) = (model("rec"), samples("rec"));
    let few = quantize(folder.path(), &input, &samples, &["--max-trials", "3"]).expect(3).json();
    assert_eq!((trials(&few).len(), few["search_end"].as_str()), (3, Some("out_of_trials")));
    let one = quantize(folder.path(), &input, &samples, &["--max-trials", "1"]).expect(3).json();
    assert!(trials(&one).is_empty() && one.get("search_end").is_none());
    let more = ["--time-budget", "0.1s"];
    let short = quantize(folder.path(), &input, &samples, &more).expect(3).json();
    assert_eq!(short["search_end"], "out_of_time");
    assert_eq!(trials(&short).len(), 2);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_objective_decides_what_is_given_up() {
    let folder = tempdir();
    let (input, samples) = encoder(folder.path());
    let found = |objective: &str| {
        let more = ["--min-sqnr", "25", "--smoothing", "off", "--objective", objective];
        quantize_encoder(folder.path(), &input, &samples, &more).expect(0).json()
    };
    let (size, latency) = (found("size"), found("latency"));
    let bytes = |document: &Value| document["size"]["candidate_bytes"].as_u64().unwrap();
    assert!(bytes(&size) <= bytes(&latency), "{} {}", bytes(&size), bytes(&latency));
    let dynamic = |document: &Value| schemes(document, "int8-dynamic");
    assert!(dynamic(&size) <= dynamic(&latency), "{} {}", dynamic(&size), dynamic(&latency));
}

/// Waits until a trial was written to this folder and is gone: the middle of a search, however fast
/// the machine is.
fn wait_for_a_trial(scratch: &Path) {
    let is_trial = |path: &PathBuf| path.to_string_lossy().contains("trial.onnx");
    let running = || {
        // Folders may go while they are looked at.
        let folders = std::fs::read_dir(scratch).into_iter().flatten().flatten();
        let inside = folders.filter_map(|folder| std::fs::read_dir(folder.path()).ok());
        inside.flatten().flatten().any(|entry| is_trial(&entry.path()))
    };
    for wanted in [true, false] {
        let started = Instant::now();
        while running() != wanted {
            assert!(started.elapsed() < Duration::from_mins(5), "no trial: {wanted}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn ctrl_c_leaves_the_files_and_tells_the_best() {
    let folder = tempdir();
    let target = folder.path().join("out.onnx");
    fs_err::write(&target, "what was there").unwrap();
    let mut arguments =
        args!["quantize", model("rxnmap"), "-o", "out.onnx", "--samples", samples("rxnmap")]
            .to_vec();
    arguments.extend(args!["--runtime", "onnxruntime", "--min-sqnr", "90"]);
    let mut command = command(folder.path(), arguments);
    let scratch = tempdir();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.env("TMPDIR", scratch.path()).spawn().unwrap();
    wait_for_a_trial(scratch.path());
    finish(Command::new("kill").args(["-INT", &child.id().to_string()])).expect(0);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("stopped: nothing was written"), "{said}");
    assert!(said.contains("best plan: out.onnx.best-plan.toml"), "{said}");
    assert_eq!(fs_err::read_to_string(&target).unwrap(), "what was there");
    assert_eq!(files(folder.path()), ["out.onnx", "out.onnx.best-plan.toml"].map(PathBuf::from));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_layer_at_the_top_gains_what_it_is_said_to() {
    let folder = tempdir();
    let (input, samples) = (model("cls"), samples("cls"));
    let mut arguments = args!["plan", &input, "--samples", &samples, "--sensitivity"].to_vec();
    arguments.extend(args!["--runtime", "onnxruntime", "--json"]);
    let ranked = finish(&mut command(folder.path(), arguments)).expect(0).json();
    let layers = ranked["layers"].as_array().unwrap();
    let top = &layers[0];
    let without = |entry: &Value| {
        let name = entry["layers"][0].as_str().unwrap();
        let more = ["--scheme", "int8-weights", "--no-gate", "--exclude", name];
        worst(&quantize(folder.path(), &input, &samples, &more).expect(0).json())
    };
    let more = ["--scheme", "int8-weights", "--no-gate"];
    let all = worst(&quantize(folder.path(), &input, &samples, &more).expect(0).json());
    let gained = without(top) - all;
    assert!((gained - top["gained_db"].as_f64().unwrap()).abs() < 0.5, "{gained} {top}");
    for other in layers.iter().skip(1).step_by(layers.len() / 5) {
        assert!(without(other) - all <= gained, "{other}");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn flags_of_the_search_need_a_search() {
    let folder = tempdir();
    let usage = |more: &[&str]| {
        let mut arguments = args!["quantize", model("cls"), "-o", "out.onnx"].to_vec();
        arguments.extend(more.iter().map(Into::into));
        finish(&mut command(folder.path(), arguments)).expect(2)
    };
    for flag in [["--objective", "size"], ["--time-budget", "60s"], ["--max-trials", "5"]] {
        usage(&[flag[0], flag[1], "--no-gate"]);
        usage(&[flag[0], flag[1], "--plan", "plan.toml"]);
    }
    usage(&["--smoothing", "on", "--no-validate"]);
    usage(&["--max-trials", "0"]);
    usage(&["--time-budget", "soon"]);
    let arguments = args!["plan", model("cls"), "--samples", samples("cls")];
    let output = finish(&mut command(folder.path(), arguments)).expect(2);
    assert!(output.stderr.contains("--sensitivity"), "{}", output.stderr);
}
