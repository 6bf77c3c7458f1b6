//! The same model, settings and samples give the same bytes, whoever asks, however often, and
//! however many threads do the work.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{files, finish, run_in, tempdir};
use xtask::testdata::{fixture, model, python, samples};

/// What a run leaves behind: the files by name, and what it said.
#[derive(Debug, PartialEq)]
struct Left {
    files: Vec<(PathBuf, Vec<u8>)>,
    stdout: String,
}

impl Left {
    fn file(&self, name: &str) -> &[u8] {
        let found = self.files.iter().find(|(path, _)| path == Path::new(name));
        &found.unwrap_or_else(|| panic!("no {name}")).1
    }
}

/// A model and how to quantize it.
struct Case {
    name: String,
    model: PathBuf,
    arguments: Vec<OsString>,
}

fn case<const N: usize>(name: &str, model: PathBuf, arguments: [OsString; N]) -> Case {
    Case { name: name.to_owned(), model, arguments: arguments.into() }
}

/// Quantizes in a folder of its own, with so many threads in the pool that does the arithmetic.
fn quantize(case: &Case, threads: Option<usize>) -> Left {
    let folder = tempdir();
    let mut command = Command::new(crate::support::PROGRAM);
    command.arg("quantize").arg(&case.model).args(args![
        "-o",
        "out.onnx",
        "--save-plan",
        "plan.toml",
        "--report",
        "report",
    ]);
    // Times differ from run to run.
    if !case.arguments.contains(&OsString::from("--no-validate")) {
        command.arg("--no-latency");
    }
    command.args(&case.arguments).current_dir(folder.path()).env_remove("RAYON_NUM_THREADS");
    if let Some(threads) = threads {
        command.env("RAYON_NUM_THREADS", threads.to_string());
    }
    let output = finish(&mut command).expect(0);
    let read = |path: PathBuf| (path.clone(), fs_err::read(folder.path().join(path)).unwrap());
    Left { files: files(folder.path()).into_iter().map(read).collect(), stdout: output.stdout }
}

/// Five runs, then one, two and four threads; then the saved plan, carried out.
#[track_caller]
fn is_deterministic(case: &Case) {
    let name = &case.name;
    let first = quantize(case, None);
    for file in ["out.onnx", "plan.toml", "report/report.json", "report/report.html"] {
        assert!(!first.file(file).is_empty(), "{name}: {file} is empty");
    }
    for repeat in 1..5 {
        assert!(quantize(case, None) == first, "{name}: run {repeat} left something else");
    }
    for threads in [1, 2, 4] {
        let left = quantize(case, Some(threads));
        assert!(left == first, "{name}: {threads} threads left something else");
    }

    let folder = tempdir();
    fs_err::write(folder.path().join("plan.toml"), first.file("plan.toml")).unwrap();
    let mut arguments =
        args!["quantize", case.model, "-o", "out.onnx", "--plan", "plan.toml"].to_vec();
    // What the plan says already cannot be said again.
    let planning = ["--scheme", "--min-weight-bytes"].map(OsString::from);
    let mut rest = case.arguments.iter();
    while let Some(argument) = rest.next() {
        if planning.contains(argument) {
            rest.next();
        } else {
            arguments.push(argument.clone());
        }
    }
    run_in(folder.path(), arguments).expect(0);
    let again = fs_err::read(folder.path().join("out.onnx")).unwrap();
    assert!(again == first.file("out.onnx"), "{name}: the saved plan gave other bytes");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn real_models_and_their_reports() {
    for name in ["silero_vad", "magika"] {
        is_deterministic(&case(name, model(name), args!["--samples", samples(name)]));
    }
    is_deterministic(&case("cls", model("cls"), args!["--scheme", "int8-weights"]));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_largest_model() {
    is_deterministic(&case("rxnmap", model("rxnmap"), args!["--no-validate"]));
}

#[test]
#[ignore = "takes long: cargo xtask test"]
fn fixtures_and_their_reports() {
    for name in ["cnn", "mlp"] {
        let path = fixture(format!("digits/{name}.onnx"));
        let samples = fixture("digits/heldout.npz");
        let arguments = args!["--min-weight-bytes", "1024", "--samples", samples];
        is_deterministic(&case(name, path, arguments));
    }
    let graphs = [
        "attention_small",
        "embedding_tied",
        "external_data",
        "gemm_variants",
        "if_nested",
        "lstm",
        "odd_names",
        "shadowed_names",
        "shared_identity",
        "weight_two_roles",
    ];
    for name in graphs {
        let path = fixture(format!("graphs/{name}.onnx"));
        let samples = fixture(format!("graphs/{name}.npz"));
        let arguments = args!["--min-weight-bytes", "256", "--no-gate", "--samples", samples];
        is_deterministic(&case(name, path, arguments));
    }
}

#[test]
#[ignore = "takes long: cargo xtask test"]
fn invented_samples() {
    let path = fixture("digits/cnn.onnx");
    is_deterministic(&case("cnn", path.clone(), args!["--seed", "7", "--sample-count", "3"]));
    let report = |seed: &str| {
        let case = case("cnn", path.clone(), args!["--seed", seed]);
        quantize(&case, None).file("report/report.json").to_vec()
    };
    assert_ne!(report("1"), report("2"), "the seed makes no difference");
}

#[test]
#[ignore = "takes long: cargo xtask test"]
fn external_data() {
    let path = fixture("graphs/attention_small.onnx");
    let case = case("attention_small", path, args!["--external-data", "--no-gate"]);
    let first = quantize(&case, None);
    assert_eq!(
        first.files.len(),
        7,
        "{:?}",
        first.files.iter().map(|(p, _)| p).collect::<Vec<_>>()
    );
    for threads in [1, 2, 4] {
        assert!(quantize(&case, Some(threads)) == first, "{threads} threads left something else");
    }
}

/// `modelopt plan --save` and `modelopt quantize --save-plan` save the same plan.
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_plan_is_the_same_before_and_after() {
    for name in ["silero_vad", "cls", "rxnmap"] {
        let folder = tempdir();
        let model = model(name);
        run_in(folder.path(), args!["plan", model, "--save", "before.toml"]).expect(0);
        let arguments = args![
            "quantize",
            model,
            "-o",
            "out.onnx",
            "--save-plan",
            "after.toml",
            "--no-validate",
        ];
        run_in(folder.path(), arguments).expect(0);
        let read = |file: &str| fs_err::read_to_string(folder.path().join(file)).unwrap();
        assert_eq!(read("before.toml"), read("after.toml"), "{name}");
    }
}

/// What is true of the place stands in the report: a plan gives the same bytes wherever it is proven,
/// and where it is not.
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_plan_gives_the_same_bytes_in_any_runtime() {
    let folder = tempdir();
    let (cnn, samples) = (fixture("digits/cnn.onnx"), fixture("digits/heldout.npz"));
    run_in(folder.path(), args!["plan", cnn, "--save", "plan.toml"]).expect(0);
    let made = |how: &[OsString]| {
        let mut command = Command::new(crate::support::PROGRAM);
        command.args(args!["quantize", cnn, "-o", "out.onnx", "--plan", "plan.toml"]).args(how);
        let path = python().parent().unwrap().to_owned();
        finish(command.current_dir(folder.path()).env("PATH", path)).expect(0);
        fs_err::read(folder.path().join("out.onnx")).unwrap()
    };
    let unproven = made(&args!["--no-validate"]);
    for runtime in ["tract", "rten", "onnxruntime"] {
        let how =
            args!["--runtime", runtime, "--samples", samples, "--no-latency", "--min-sqnr", "1"];
        assert!(made(&how) == unproven, "{runtime}");
    }
}

/// Reports travel: they do not tell where the model lay, even where they quote a runtime's refusal.
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn reports_do_not_depend_on_the_folder() {
    let reports = ["here", "somewhere/else"].map(|place| {
        let folder = tempdir();
        let folder = folder.path().join(place);
        fs_err::create_dir_all(&folder).unwrap();
        let copy = folder.join("model.onnx");
        fs_err::copy(model("silero_vad"), &copy).unwrap();
        let samples = samples("silero_vad");
        let arguments = args![
            "quantize",
            copy,
            "-o",
            folder.join("out.onnx"),
            "--json",
            "--samples",
            samples,
            "--no-latency"
        ];
        let output = run_in(&folder, arguments).expect(0);
        assert!(!output.stdout.contains(&folder.display().to_string()), "{}", output.stdout);
        output.stdout
    });
    assert_eq!(reports[0], reports[1]);
}
