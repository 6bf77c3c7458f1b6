//! ONNX Runtime as the target, latency, several runtimes at once, and reports.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Output, PROGRAM, finish, run_in, tempdir, with_onnxruntime};
use serde_json::Value;
use xtask::testdata::{fixture, model, python, samples, workspace_root};

/// Runs the program where the Python on `PATH` is the one that has onnxruntime.
fn run_with_python<S: AsRef<OsStr>>(
    folder: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Output {
    finish(with_onnxruntime(folder).args(arguments))
}

/// Runs the program where nothing can be found.
fn run_without_python<S: AsRef<OsStr>>(
    folder: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(folder);
    command.env("PATH", folder).env_remove("ORT_DYLIB_PATH").env_remove("LD_LIBRARY_PATH");
    finish(&mut command)
}

/// The library of ONNX Runtime that the Python package has.
fn library() -> PathBuf {
    let script = "import onnxruntime, os; print(os.path.dirname(onnxruntime.__file__))";
    let output = Command::new(python()).args(["-c", script]).output().unwrap();
    let folder = String::from_utf8(output.stdout).unwrap();
    let mut entries = fs_err::read_dir(Path::new(folder.trim()).join("capi")).unwrap();
    entries
        .find_map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            name.starts_with("libonnxruntime.so").then(|| entry.path())
        })
        .unwrap()
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["verdict"]["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_full_gate_on_onnxruntime() {
    let folder = tempdir();
    let (model, samples) = (model("magika"), samples("magika"));
    let arguments = args![
        "quantize",
        model,
        "-o",
        "out.onnx",
        "--samples",
        samples,
        "--runtime",
        "onnxruntime,tract",
        // On processors without VNNI int8 need not be faster.
        "--max-slowdown",
        "4",
        "--json",
    ];
    let report = run_with_python(folder.path(), arguments).expect(0).json();
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0]["runtime"]["name"], "onnxruntime");
    let library = runs[0]["runtime"]["library"].as_str().unwrap();
    assert!(library.starts_with("libonnxruntime.so"), "{library}");
    assert!(runs[0]["runtime"]["version"].as_str().unwrap().starts_with("1."));
    assert_eq!(runs[1]["runtime"]["name"], "tract");
    for run in runs {
        assert!(run["latency"]["pairs"].as_u64().unwrap() >= 5, "{run}");
        assert!(run["original"]["peak_bytes"].as_u64().unwrap() > 100_000, "{run}");
    }
    for name in ["sqnr", "slowdown", "shrink"] {
        let check = check(&report, name);
        assert_eq!(check["pass"], true, "{check}");
        assert!(check["value"].is_number() && check["limit"].is_number(), "{check}");
    }
    let blake3 = report["candidate"]["blake3"].as_str().unwrap();
    assert_eq!(blake3.len(), 64);
    let inspected = run_in(folder.path(), args!["inspect", "out.onnx", "--json"]).expect(0).json();
    let stamp = &inspected["metadata"];
    assert_eq!(stamp["modelopt.input_blake3"], report["original"]["blake3"]);
    assert_eq!(stamp["modelopt.plan_blake3"], report["plan_digest"]);
    // What is true of the place stands in the report.
    assert!(stamp.get("modelopt.runtime").is_none() && stamp.get("modelopt.cpu").is_none());
    assert!(report["machine"]["cpu"].is_string(), "{report}");
}

/// Convolutions of int8 weights are several times slower in ONNX Runtime.
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn an_artifact_that_became_slower_is_refused_and_its_layers_are_named() {
    let folder = tempdir();
    let cnn = fixture("digits/cnn.onnx");
    let plan = run_in(folder.path(), args!["plan", cnn, "--save", "plan.toml"]).expect(0);
    assert!(plan.stdout.contains("conv3"));
    let text = fs_err::read_to_string(folder.path().join("plan.toml")).unwrap();
    let slow: String = text
        .split_inclusive("[[layer]]")
        .map(|layer| {
            if layer.contains("op = \"Conv\"") {
                layer.replace("scheme = \"int8-weights\"", "scheme = \"int8-dynamic\"")
            } else {
                layer.to_owned()
            }
        })
        .collect();
    assert_ne!(slow, text);
    fs_err::write(folder.path().join("slow.toml"), slow).unwrap();
    let samples = fixture("digits/heldout.npz");
    let arguments = args![
        "quantize",
        cnn,
        "-o",
        "out.onnx",
        "--plan",
        "slow.toml",
        "--samples",
        samples,
        "--runtime",
        "onnxruntime",
        // Without VNNI parity suffers as well, which is not what is looked at.
        "--min-sqnr",
        "1",
        "--report",
        "report",
    ];
    let output = run_with_python(folder.path(), arguments).expect(3);
    assert!(!folder.path().join("out.onnx").exists());
    assert!(output.stdout.contains("FAIL slowdown of model"), "{}", output.stdout);
    let named = output.stdout.split("layers that became slower").nth(1).unwrap();
    assert!(named.contains("int8-dynamic  conv3"), "{}", output.stdout);
    let junit = fs_err::read_to_string(folder.path().join("report/junit.xml")).unwrap();
    assert!(junit.contains("failures=\"1\""), "{junit}");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn measured_layers_decide_and_are_kept() {
    let folder = tempdir();
    let (cnn, samples) = (fixture("digits/cnn.onnx"), fixture("digits/heldout.npz"));
    let run = |output: &str| {
        let arguments = args![
            "quantize",
            cnn,
            "-o",
            output,
            "--samples",
            samples,
            "--runtime",
            "onnxruntime",
            "--measure",
            "--measure-cache",
            "cache/layers.json",
            "--max-slowdown",
            "off",
            "--json",
        ];
        let report = run_with_python(folder.path(), arguments).expect(0).json();
        report["plan"].as_array().unwrap().clone()
    };
    let plan = run("a.onnx");
    let conv = plan.iter().find(|line| line["layer"] == "conv3_1").unwrap();
    let reason = conv["reason"].as_str().unwrap();
    assert!(reason.starts_with("measured on onnxruntime 1."), "{reason}");
    assert!(reason.contains("int8-dynamic") && reason.contains("x of float32's time"), "{reason}");
    let cache = folder.path().join("cache/layers.json");
    let before = fs_err::metadata(&cache).unwrap().modified().unwrap();
    // Nothing is measured again, so the figures are the same to the last digit.
    assert_eq!(run("b.onnx"), plan);
    assert_eq!(fs_err::metadata(&cache).unwrap().modified().unwrap(), before);
    let same = ["a.onnx", "b.onnx"].map(|name| fs_err::read(folder.path().join(name)).unwrap());
    assert!(same[0] == same[1]);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn without_a_library_the_error_says_how_to_give_one() {
    let folder = tempdir();
    let quantize = |more: &[OsString]| {
        let cnn = fixture("digits/cnn.onnx");
        let mut arguments =
            args!["quantize", cnn, "-o", "out.onnx", "--runtime", "onnxruntime"].to_vec();
        arguments.extend_from_slice(more);
        run_without_python(folder.path(), arguments)
    };
    let missing = quantize(&[]);
    // A machine that has it among the system's libraries is right to find it there.
    if missing.code != Some(0) {
        let error = missing.expect(1).stderr;
        for way in ["--onnxruntime PATH", "ORT_DYLIB_PATH", "pip install onnxruntime"] {
            assert!(error.contains(way), "{error}");
        }
    }
    // What does not need it works.
    let cnn = fixture("digits/cnn.onnx");
    run_without_python(folder.path(), args!["quantize", cnn, "-o", "fine.onnx"]).expect(0);

    let given = |path: &Path| quantize(&args!["--onnxruntime", path]).expect(1).stderr;
    let text = folder.path().join("text.so");
    fs_err::write(&text, "not a library").unwrap();
    let whole = fs_err::read(library()).unwrap();
    let cut = folder.path().join("cut.so");
    fs_err::write(&cut, &whole[..whole.len() / 3]).unwrap();
    let other = folder.path().join("other.so");
    let source = folder.path().join("other.c");
    let compile = |code: &str| {
        fs_err::write(&source, code).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&other).arg(&source);
        assert_eq!(finish(&mut cc).code, Some(0));
    };
    for (path, says) in [
        (&text, "cannot load ONNX Runtime from"),
        (&cut, "cut.so"),
        (&folder.path().join("gone.so"), "there is no such file"),
    ] {
        let error = given(path);
        assert!(error.contains(says), "{error}");
    }
    compile("int nothing(void) { return 0; }");
    assert!(given(&other).contains("it is no ONNX Runtime"));
    compile(
        "struct Base { const void *(*api)(unsigned); const char *(*version)(void); };\n\
         static const void *api(unsigned v) { return 0; }\n\
         static const char *version(void) { return \"1.9.0\"; }\n\
         static const struct Base base = { api, version };\n\
         const struct Base *OrtGetApiBase(void) { return &base; }",
    );
    let error = given(&other);
    assert!(error.contains("it is of version 1.9.0; modelopt needs 1."), "{error}");
    // A library that takes its process down.
    compile("#include <stdlib.h>\n__attribute__((constructor)) static void go(void) { abort(); }");
    let error = given(&other);
    assert!(error.contains("does not survive") && error.contains("SIGABRT"), "{error}");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_provider_that_the_library_lacks_is_an_error() {
    let folder = tempdir();
    let cnn = fixture("digits/cnn.onnx");
    for (runtime, provider, says) in [
        ("onnxruntime", "cuda", "no execution provider 'cuda': this library was built without it"),
        ("onnxruntime", "npu", "no execution provider 'npu': there are cpu, cuda"),
        ("tract", "cuda", "it computes on the cpu only"),
    ] {
        let arguments =
            args!["quantize", cnn, "-o", "out.onnx", "--runtime", runtime, "--provider", provider];
        let output = run_with_python(folder.path(), arguments).expect(1);
        assert!(output.stderr.contains(says), "{}", output.stderr);
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn an_identical_pair_is_not_slower() {
    let folder = tempdir();
    let cnn = fixture("digits/cnn.onnx");
    let samples = fixture("digits/heldout.npz");
    let arguments = args![
        "compare",
        cnn,
        cnn,
        "--samples",
        samples,
        "--runtime",
        "onnxruntime",
        "--max-slowdown",
        "1.2",
        "--report",
        "report",
    ];
    run_with_python(folder.path(), arguments).expect(0);
    let report = folder.path().join("report/report.json");
    let report: Value = serde_json::from_str(&fs_err::read_to_string(report).unwrap()).unwrap();
    let latency = &report["runs"][0]["latency"];
    let number = |key: &str| latency[key].as_f64().unwrap();
    assert!(number("ratio_low") <= number("ratio_median"), "{latency}");
    assert!(number("ratio_median") <= number("ratio_high"), "{latency}");
}

#[test]
fn without_a_target_latency_is_told_but_not_judged() {
    let folder = tempdir();
    let cnn = fixture("digits/cnn.onnx");
    let arguments = args!["quantize", cnn, "-o", "out.onnx", "--json"];
    let report = run_in(folder.path(), arguments).expect(0).json();
    assert!(report["runs"][0]["latency"]["ratio_median"].is_number());
    assert!(report["verdict"]["unjudged"][0]["reason"].as_str().unwrap().contains("--runtime"));
    let arguments = args!["quantize", cnn, "-o", "out.onnx", "--json", "--max-slowdown", "0.001"];
    let report = run_in(folder.path(), arguments).expect(3).json();
    assert_eq!(check(&report, "slowdown")["pass"], false);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn bench_varies_runtimes_threads_and_sizes() {
    let folder = tempdir();
    let cnn = fixture("digits/cnn.onnx");
    let arguments = args![
        "bench",
        cnn,
        "--runtime",
        "onnxruntime,tract,rten",
        "--threads",
        "1,2",
        "--dim",
        "batch=1,8",
        "--latency-seconds",
        "0.05",
        "--json",
    ];
    let rows = run_with_python(folder.path(), arguments).expect(0).json();
    let rows = rows["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3 * 2 * 2);
    for row in rows {
        assert!(row["latency"]["p50_ms"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["load_ms"].as_f64().unwrap() > 0.0, "{row}");
    }
    let arguments = args!["bench", cnn, "--runtime", "tract", "--latency-seconds", "0.05"];
    let text = run_in(folder.path(), arguments).expect(0).stdout;
    assert!(text.contains("p99") && text.contains("tract 0."), "{text}");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn reports_are_rendered_and_held_against_earlier_ones() {
    let folder = tempdir();
    let cnn = fixture("digits/cnn.onnx");
    let arguments = args!["quantize", cnn, "-o", "out.onnx", "--report", "report"];
    run_in(folder.path(), arguments).expect(0);
    let schema = workspace_root().join("docs/report.schema.json");
    let mut linter = Command::new(python());
    linter.args(["-m", "check_jsonschema", "--schemafile"]).arg(schema);
    let checked = finish(linter.arg(folder.path().join("report/report.json")));
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    for (format, starts) in
        [("markdown", "## modelopt quantize"), ("html", "<!doctype html>"), ("junit", "<?xml")]
    {
        let arguments = args!["report", "report/report.json", "--format", format];
        let text = run_in(folder.path(), arguments).expect(0).stdout;
        assert!(text.to_lowercase().starts_with(&starts.to_lowercase()), "{text}");
    }
    let against = |limits: &[&str], code: i32| {
        let mut arguments =
            args!["report", "report/report.json", "--baseline", "old.json"].to_vec();
        arguments.extend(limits.iter().map(OsString::from));
        run_in(folder.path(), arguments).expect(code).stdout
    };
    let text = fs_err::read_to_string(folder.path().join("report/report.json")).unwrap();
    fs_err::write(folder.path().join("old.json"), &text).unwrap();
    against(&["--max-slowdown", "off"], 0);
    let mut old: Value = serde_json::from_str(&text).unwrap();
    old["size"]["candidate_bytes"] = 1000.into();
    fs_err::write(folder.path().join("old.json"), old.to_string()).unwrap();
    let regression = against(&["--max-slowdown", "off"], 3);
    assert!(regression.contains("size"), "{regression}");
    against(&["--max-slowdown", "off", "--max-size-growth", "off"], 0);
    let arguments = args!["report", "out.onnx"];
    let error = run_in(folder.path(), arguments).expect(1).stderr;
    assert!(error.contains("out.onnx"), "{error}");
}

/// Exit code 2, and a message that names a flag; those of planning and samples are in `bad_input`.
#[test]
fn contradictions_of_runtimes_and_reports_are_wrong_usage() {
    let folder = tempdir();
    let quantize = ["quantize", "in.onnx", "-o", "out.onnx"];
    let plan = ["plan", "in.onnx"];
    let compare = ["compare", "a.onnx", "b.onnx"];
    let bench = ["bench", "a.onnx"];
    let report = ["report", "a.json"];
    let cases: &[(&[&str], &[&str])] = &[
        (&quantize, &["--no-validate", "--max-slowdown", "2"]),
        (&quantize, &["--no-validate", "--no-latency"]),
        (&quantize, &["--no-validate", "--latency-seconds", "1"]),
        (&quantize, &["--no-validate", "--onnxruntime", "x"]),
        (&quantize, &["--no-validate", "--provider", "cpu"]),
        (&quantize, &["--no-validate", "--optimization", "all"]),
        (&quantize, &["--no-validate", "--measure"]),
        (&quantize, &["--measure"]),
        (&quantize, &["--measure-cache", "x"]),
        (&quantize, &["--measure", "--plan", "x", "--runtime", "rten"]),
        (&quantize, &["--measure", "--scheme", "keep", "--runtime", "rten"]),
        (&quantize, &["--no-latency", "--max-slowdown", "2"]),
        (&quantize, &["--no-latency", "--latency-seconds", "2"]),
        (&quantize, &["--runtime", "auto,tract"]),
        (&quantize, &["--runtime", "tract,tract"]),
        (&quantize, &["--max-slowdown", "0"]),
        (&quantize, &["--latency-seconds", "-1"]),
        (&plan, &["--plan", "x", "--runtime", "rten"]),
        (&compare, &["--no-latency", "--max-slowdown", "2"]),
        (&bench, &["--samples", "x", "--dim", "n=1"]),
        (&bench, &["--dim", "n=x"]),
        (&bench, &["--threads", "many"]),
        (&report, &["--baseline", "x", "--format", "html"]),
        (&report, &["--json", "--format", "html"]),
        (&report, &["--max-slowdown", "2"]),
        (&report, &["--max-sqnr-loss", "2"]),
    ];
    for (command, flags) in cases {
        let output = run_in(folder.path(), command.iter().chain(*flags)).expect(2);
        let named = flags.iter().any(|flag| output.stderr.contains(flag.trim_start_matches('-')));
        assert!(named, "{flags:?}: {}", output.stderr);
        assert!(output.stderr.starts_with("error: "), "{flags:?}: {}", output.stderr);
    }
}
