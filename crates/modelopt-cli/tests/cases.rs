//! Small models that went wrong, and what is right: one test for each kind, from file to file.
//! `testdata/cases` says what is hard about each.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Output, PROGRAM, finish, quiet, tempdir, with_onnxruntime};
use serde_json::Value;
use tempfile::TempDir;
use xtask::oracle::{self, RunJob};
use xtask::parallel::parallel;
use xtask::testdata::{self, case, npz_files, python};

/// How long a run that is to take seconds may take, whatever else the machine does.
const PATIENCE: Duration = Duration::from_mins(4);

/// A case, and a folder to work in.
struct Case {
    from: PathBuf,
    folder: TempDir,
}

impl Case {
    fn new(name: &str) -> Self {
        Case { from: case(name), folder: tempdir() }
    }

    fn model(&self) -> PathBuf {
        self.from.join("model.onnx")
    }

    fn samples(&self) -> PathBuf {
        self.from.join("samples")
    }

    fn made(&self) -> PathBuf {
        self.folder.path().join("out.onnx")
    }

    /// `modelopt COMMAND model -o out.onnx --samples samples MORE`, with onnxruntime to be found.
    fn make(&self, command: &str, more: &[&str]) -> Output {
        let samples = self.samples();
        self.make_on(command, &samples, more)
    }

    fn make_on(&self, command: &str, samples: &Path, more: &[&str]) -> Output {
        let mut arguments =
            args![command, self.model(), "-o", "out.onnx", "--samples", samples].to_vec();
        arguments.extend(more.iter().map(OsString::from));
        self.run(&arguments)
    }

    fn run(&self, arguments: &[OsString]) -> Output {
        within(PATIENCE, with_onnxruntime(self.folder.path()).args(arguments))
    }

    /// A candidate that nothing judged.
    fn unproven(&self, more: &[&str]) {
        let mut arguments =
            args!["quantize", self.model(), "-o", "out.onnx", "--no-validate"].to_vec();
        arguments.extend(more.iter().map(OsString::from));
        self.run(&arguments).expect(0);
    }

    fn compare(&self, more: &[&str]) -> Output {
        let mut arguments =
            args!["compare", self.model(), self.made(), "--samples", self.samples()].to_vec();
        arguments.extend(args!["--runtime", "onnxruntime", "--no-latency"]);
        arguments.extend(more.iter().map(OsString::from));
        self.run(&arguments)
    }

    /// A number that a Python expression gives of `a` and `b`, an output of the original and of what
    /// was made, on the worst of all samples. `feed` is what both got.
    fn worst(&self, output: &str, expression: &str) -> f64 {
        let script = format!(
            "import glob, sys, numpy as np, onnxruntime as ort\n\
             ort.set_default_logger_severity(4)\n\
             def db(s, n): return 999.0 if n == 0 else 10 * np.log10(s / n)\n\
             models = [ort.InferenceSession(p) for p in sys.argv[1:3]]\n\
             found = []\n\
             for path in sorted(glob.glob(sys.argv[3] + '/*.npz')):\n\
             \x20   feed = dict(np.load(path))\n\
             \x20   a, b = (m.run(['{output}'], feed)[0].astype(np.float64) for m in models)\n\
             \x20   found.append(float({expression}))\n\
             print(min(found))\n"
        );
        let mut command = Command::new(python());
        command.args(["-c", &script]).args([self.model(), self.made(), self.samples()]);
        finish(&mut command).expect(0).stdout.trim().parse().unwrap()
    }
}

/// The program where no library of ONNX Runtime is found.
fn without_onnxruntime(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(folder).env("PATH", folder);
    command.env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so");
    command
}

/// Runs a command that has to end by itself within this time; what does not is killed, and has no exit
/// code.
fn within(patience: Duration, command: &mut Command) -> Output {
    quiet(command);
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |from: &mut dyn Read| {
        let mut text = Vec::new();
        from.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    };
    std::thread::scope(|scope| {
        let stdout = scope.spawn(move || read(&mut out));
        let stderr = scope.spawn(move || read(&mut err));
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if started.elapsed() > patience {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Output {
            code: status.and_then(|status| status.code()),
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
            took: started.elapsed(),
        }
    })
}

/// All that was said.
fn said(output: &Output) -> String {
    format!("{}\n{}", output.stderr, output.stdout)
}

fn count(document: &Value, pointer: &str) -> f64 {
    document.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn masked_elements_are_not_signal() {
    let case = Case::new("masked_logits");
    // What int8 leaves of the logits that are not masked is nothing: that is what is judged.
    case.unproven(&["--scheme", "int8-weights"]);
    let unmasked = "db((a[feed['legal']] ** 2).sum(), ((a - b)[feed['legal']] ** 2).sum())";
    assert!(case.worst("logits", unmasked) < 10.0);
    let compared = case.compare(&[]).expect(3);
    assert!(!compared.stdout.contains("182"), "{}", compared.stdout);
    // The search finds what leaves them as they were.
    case.make("quantize", &["--runtime", "onnxruntime", "--no-latency"]).expect(0);
    assert!(case.worst("logits", unmasked) >= 19.9);
    // A mask that changes is a failure, however little else does.
    case.compare(&[]).expect(0);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn parts_of_different_magnitude_are_judged_each_for_itself() {
    let case = Case::new("detector_head");
    case.unproven(&["--scheme", "int8-weights"]);
    let compared = case.compare(&[]).expect(3);
    assert!(compared.stdout.contains("output0["), "{}", compared.stdout);
    let scores = "db(max((a[:, 4:] ** 2).mean(), 0.01), ((a - b)[:, 4:] ** 2).mean())";
    assert!(case.worst("output0", scores) < 20.0);
    let whole = "db((a ** 2).sum(), ((a - b) ** 2).sum())";
    assert!(case.worst("output0", whole) > 30.0);
    case.make("quantize", &["--runtime", "onnxruntime", "--no-latency"]).expect(0);
    assert!(case.worst("output0", scores) >= 19.9);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn samples_without_a_number_prove_nothing() {
    let case = Case::new("bad_samples");
    let nan = case.from.join("nan");
    for command in [&["quantize"][..], &["convert", "--to", "fp16"]] {
        for runtime in ["tract", "onnxruntime"] {
            let more = [&command[1..], &["--runtime", runtime]].concat();
            let output = case.make_on(command[0], &nan, &more).expect(1);
            let message = output.stderr.lines().find(|line| line.starts_with("error: "));
            let message = message.unwrap_or_else(|| panic!("{}", output.stderr));
            assert!(message.contains("finite") || message.contains("NaN"), "{message}");
            assert!(message.contains("'y'") && message.contains("000"), "{message}");
        }
    }
    let arguments = args!["compare", case.model(), case.model(), "--samples", nan];
    case.run(&arguments).expect(1);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn samples_of_another_type_are_the_first_thing_said() {
    let case = Case::new("bad_samples");
    let double = case.from.join("double");
    for more in [&[][..], &["--runtime", "onnxruntime"]] {
        let output = case.make_on("quantize", &double, more).expect(1);
        let first = output.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(first.contains("'x'"), "{}", output.stderr);
        assert!(first.contains("double") || first.contains("float64"), "{}", output.stderr);
        assert!(first.contains("000.npz"), "{}", output.stderr);
        assert!(!output.stderr.contains("tract"), "{}", output.stderr);
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_random_model_is_seen_to_be_and_judged_all_the_same() {
    let case = Case::new("random_noise");
    for command in [&["quantize"][..], &["convert", "--to", "fp16"]] {
        let more = [&command[1..], &["--runtime", "onnxruntime", "--no-latency"]].concat();
        let output = case.make(command[0], &more).expect(0);
        assert!(said(&output).contains("RandomNormalLike"), "{}", said(&output));
        let inspected = case.run(&args!["inspect", case.made()]).expect(0).stdout;
        assert!(inspected.contains("1 RandomNormalLike"), "{inspected}");
    }
    let same = args!["compare", case.model(), case.model(), "--samples", case.samples()];
    case.run(&same).expect(0);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn dropout_in_training_mode_is_called_what_it_is() {
    let case = Case::new("training_dropout");
    for runtime in ["rten", "onnxruntime"] {
        let output = case.make("quantize", &["--runtime", runtime, "--no-latency"]);
        let said = said(&output).to_lowercase();
        assert!(said.contains("dropout") && said.contains("training"), "{said}");
        assert!(matches!(output.code, Some(0 | 1)), "{said}");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_number_of_rows_that_depends_on_values_can_be_judged() {
    let case = Case::new("nms_inside");
    let output = case.make("quantize", &["--runtime", "onnxruntime", "--no-latency"]);
    // Where nothing can be compared there is no figure that could rank a plan.
    let output = output.expect(0);
    assert!(output.stdout.contains("passed"), "{}", output.stdout);
    // What suppression reads is close.
    let made = oracle::load_models(&[case.made()]).unwrap();
    assert!(made[0].is_ok(), "{made:?}");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn integer_outputs_are_judged_by_agreement() {
    let case = Case::new("integer_heads");
    let output = case.make("quantize", &["--runtime", "onnxruntime", "--no-latency"]).expect(0);
    let table: Vec<&str> = output.stdout.lines().filter(|line| line.contains("int64[")).collect();
    assert_eq!(table.len(), 2, "{}", output.stdout);
    assert!(table.iter().all(|line| !line.contains("dB")), "{table:?}");
    assert!(case.worst("token", "(a == b).mean()") > 0.9);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn weights_of_any_rank_pass_or_are_left_alone() {
    let case = Case::new("odd_ranks");
    for runtime in ["rten", "tract", "onnxruntime"] {
        let output = case.make("quantize", &["--runtime", runtime, "--no-latency"]).expect(0);
        assert!(!output.stdout.contains("--min-sqnr -"), "{}", output.stdout);
        let whole = "db((a ** 2).sum(), ((a - b) ** 2).sum())";
        for name in ["by_row", "by_column"] {
            assert!(case.worst(name, whole) >= 19.0, "{name} for {runtime}");
        }
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn microseconds_are_no_reason_to_refuse() {
    for name in ["embedding_tables", "sparse_weight", "text_classifier"] {
        let case = Case::new(name);
        let output = case.make("quantize", &["--runtime", "onnxruntime"]).expect(0);
        assert!(!output.stdout.contains("0.00 ms"), "{}", output.stdout);
        let smaller = fs_err::metadata(case.model()).unwrap().len() as f64
            / fs_err::metadata(case.made()).unwrap().len() as f64;
        assert!(smaller > 1.3, "{name}: {smaller}");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_refusal_is_one_story() {
    let case = Case::new("embedding_tables");
    let output = case.make("quantize", &["--runtime", "onnxruntime", "--max-slowdown", "0.001"]);
    let said = output.expect(3).stdout;
    assert!(said.contains("refused"), "{said}");
    assert!(!said.contains("A plan passes"), "{said}");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn float16_is_proven_where_it_runs_in_reasonable_time() {
    for name in ["gemm_with_bias", "convolutions"] {
        let case = Case::new(name);
        let output = case.make("convert", &["--to", "fp16"]).expect(0);
        assert!(output.stdout.contains("passed"), "{}", output.stdout);
        println!("{name}: {:?}", output.took);
        // The same where onnxruntime is not to be found: in seconds, or with a clear word.
        let mut command = without_onnxruntime(case.folder.path());
        command.args(args!["convert", case.model(), "-o", "alone.onnx", "--to", "fp16"]);
        let output = within(PATIENCE, command.arg("--samples").arg(case.samples())).expect(0);
        println!("{name} alone: {:?}", output.took);
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_computes_in_float32_has_its_weights_in_16_bits() {
    let case = Case::new("contrib_encoder");
    let more = ["--to", "fp16", "--runtime", "onnxruntime", "--no-latency", "--json"];
    let document = case.make("convert", &more).expect(0).json();
    let ratio =
        count(&document, "/size/original_bytes") / count(&document, "/size/candidate_bytes");
    assert!(ratio > 1.85, "{ratio}");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_is_of_16_bits_already_has_nothing_to_gain() {
    let case = Case::new("half_weights_cast");
    let more = ["--to", "fp16-weights", "--runtime", "onnxruntime", "--no-latency"];
    let output = case.make("convert", &more).expect(0);
    assert!(said(&output).contains("nothing"), "{}", said(&output));
    // Computed in 16 bits it needs the casts no more, and is no larger.
    let more = ["--to", "fp16", "--runtime", "onnxruntime", "--no-latency", "--json"];
    let document = case.make("convert", &more).expect(0).json();
    let [before, after] =
        ["/size/original_bytes", "/size/candidate_bytes"].map(|at| count(&document, at));
    assert!(after <= before, "{before} -> {after}");
    // In int8 the weights behind the casts are weights, too.
    let more = ["--runtime", "onnxruntime", "--no-latency", "--json"];
    let document = case.make("quantize", &more).expect(0).json();
    assert!(count(&document, "/size/candidate_bytes") < 0.7 * before, "{}", document["size"]);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn outputs_of_every_type_are_compared() {
    for name in ["sequence_output", "text_classifier", "text_classifier_maps"] {
        let case = Case::new(name);
        for command in [&["quantize"][..], &["convert", "--to", "fp16-weights"]] {
            let more = [&command[1..], &["--runtime", "onnxruntime", "--no-latency"]].concat();
            let output = case.make(command[0], &more).expect(0);
            assert!(output.stdout.contains("passed"), "{name}: {}", output.stdout);
        }
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn nothing_to_do_is_found_before_anything_runs() {
    let case = Case::new("tree_ensemble");
    for command in [&["quantize"][..], &["convert", "--to", "fp16"]] {
        let mut program = without_onnxruntime(case.folder.path());
        program.args(args![command[0], case.model(), "-o", "out.onnx"]).args(&command[1..]);
        let output = within(PATIENCE, &mut program).expect(0);
        assert!(output.stderr.contains("nothing to do"), "{}", output.stderr);
        assert!(output.stdout.contains("wrote out.onnx unchanged"), "{}", output.stdout);
        let same = oracle::same_models(&[(case.model(), case.made())]).unwrap();
        assert!(same[0].equal, "{same:?}");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_hint_that_works_comes_first() {
    let case = Case::new("text_classifier");
    let mut program = without_onnxruntime(case.folder.path());
    program.args(args!["quantize", case.model(), "-o", "out.onnx", "--samples", case.samples()]);
    let output = within(PATIENCE, &mut program).expect(1);
    let hint = output.stderr.split("hint: ").nth(1).unwrap();
    let place = |text: &str| hint.find(text).unwrap_or_else(|| panic!("no {text} in {hint}"));
    assert!(place("--runtime onnxruntime") < place("--no-validate"), "{hint}");
    // Where there is one it takes over.
    let output = case.make("quantize", &[]).expect(0);
    assert!(output.stdout.contains("ran in onnxruntime"), "{}", output.stdout);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn an_operator_without_a_kernel_is_not_emitted() {
    let case = Case::new("old_operators");
    case.make("quantize", &["--runtime", "onnxruntime"]).expect(0);
    assert!(oracle::load_models(&[case.made()]).unwrap()[0].is_ok());
    let output = case.make("convert", &["--to", "fp16-weights", "--runtime", "onnxruntime"]);
    let output = output.expect(0);
    assert!(said(&output).contains("IR version"), "{}", said(&output));
    assert!(said(&output).lines().all(|line| line.chars().count() <= 160), "{}", said(&output));
}

/// All public models with no flag at all, and what onnxruntime says of the results.
fn with_no_flag(command: &'static [&'static str], floor: f64) {
    let models: Vec<_> = testdata::models().into_iter().rev().collect();
    let folder = tempdir();
    let outputs = parallel(&models, |(name, model)| {
        let mut program = with_onnxruntime(folder.path());
        program.arg(command[0]).arg(model).args(["-o", &format!("{name}.onnx")]);
        let output = within(PATIENCE, program.args(&command[1..]));
        println!("{name}: exit {:?} in {:?}", output.code, output.took);
        output
    });
    for ((name, model), output) in models.iter().zip(outputs) {
        let output = output.expect(0);
        assert!(output.stdout.contains("ran in"), "{name}: {}", output.stdout);
        let job = RunJob {
            original: model.clone(),
            candidate: folder.path().join(format!("{name}.onnx")),
            samples: npz_files(&testdata::samples(name)),
            time: false,
        };
        let result = oracle::run_models(&[job]).unwrap().remove(0);
        println!("{name}: {:.1} dB on real inputs", result.worst_sqnr_db());
        assert_eq!(result.error, None, "{name}");
        // A detector's pictures without text have no signal to speak of.
        assert!(*name == "det" || result.worst_sqnr_db() > floor, "{name}");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn public_models_quantize_with_no_flag() {
    with_no_flag(&["quantize"], 8.0);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn public_models_convert_with_no_flag() {
    with_no_flag(&["convert", "--to", "fp16"], 20.0);
}
