//! `modelopt convert`, from file to file: hand-made graphs and public models in 16 bits, held
//! against their originals by the checker and by onnxruntime.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::support::{Output, files, finish, run, run_in, tempdir, with_onnxruntime};
use insta::assert_snapshot;
use xtask::oracle::{self, RunJob};
use xtask::parallel::parallel;
use xtask::testdata::{self, fixture};

/// Ways to convert, with whether onnxruntime must load the result and agree with the original.
const WAYS: [(&str, &[&str], bool); 5] = [
    ("fp16", &["--to", "fp16"], true),
    ("io", &["--to", "fp16", "--io", "fp16"], true),
    ("bf16", &["--to", "bf16"], false),
    ("fp16-weights", &["--to", "fp16-weights", "--min-weight-bytes", "256"], true),
    ("bf16-weights", &["--to", "bf16-weights", "--min-weight-bytes", "256"], true),
];

/// The least SQNR of the worst output of a hand-made graph, in dB: 11 and 8 significant bits.
const FLOORS: [(&str, f64); 3] = [("fp16", 50.0), ("fp16-weights", 50.0), ("bf16-weights", 35.0)];

struct Case {
    name: String,
    way: &'static str,
    original: PathBuf,
    candidate: PathBuf,
    output: Output,
}

impl Case {
    fn label(&self) -> String {
        format!("{}, {}", self.name, self.way)
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("convert").join(name);
    fs_err::create_dir_all(&folder).unwrap();
    folder
}

fn convert(original: &Path, candidate: &Path, arguments: &[&str]) -> Output {
    let mut all = args!["convert", original, "-o", candidate, "--no-validate", "--json"].to_vec();
    all.extend(arguments.iter().map(OsString::from));
    run(all)
}

fn graphs() -> Vec<PathBuf> {
    let listed = files(&fixture("graphs"));
    let models = listed.iter().filter(|path| path.extension().is_some_and(|e| e == "onnx"));
    models.map(|path| fixture(Path::new("graphs").join(path))).collect()
}

/// All graphs in all ways, nothing run.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let graphs = graphs();
    let jobs: Vec<(&PathBuf, &'static str, &[&str])> = graphs
        .iter()
        .flat_map(|graph| WAYS.map(|(way, arguments, _)| (graph, way, arguments)))
        .collect();
    parallel(&jobs, |(original, way, arguments)| {
        let name = original.file_stem().unwrap().to_str().unwrap().to_owned();
        let candidate = folder(way).join(format!("{name}.onnx"));
        let output = convert(original, &candidate, arguments);
        Case { name, way, original: (*original).clone(), candidate, output }
    })
});

#[test]
#[ignore = "takes long: cargo xtask test"]
fn every_graph_converts_and_every_line_has_a_reason() {
    assert!(CASES.len() > 400);
    for case in CASES.iter() {
        let document = case.output.clone().expect(0).json();
        for line in document["plan"].as_array().unwrap() {
            let reason = line["reason"].as_str().unwrap_or_default();
            assert!(!reason.is_empty(), "{}: {line}", case.label());
        }
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_the_checker_and_onnxruntime_accepted_they_accept() {
    let originals: Vec<PathBuf> = CASES.iter().map(|case| case.original.clone()).collect();
    let candidates: Vec<PathBuf> = CASES.iter().map(|case| case.candidate.clone()).collect();
    let ask = |models: &[PathBuf]| {
        (oracle::check_models(models).unwrap(), oracle::load_models(models).unwrap())
    };
    let ((checked, loaded), (checked_now, loaded_now)) = (ask(&originals), ask(&candidates));
    for (index, case) in CASES.iter().enumerate() {
        let (_, _, must_load) = WAYS.into_iter().find(|(way, ..)| *way == case.way).unwrap();
        let now = &checked_now[index];
        assert!(now.is_ok() || !checked[index].is_ok(), "{}: {now:?}", case.label());
        let now = &loaded_now[index];
        let excused = !loaded[index].is_ok() || !must_load;
        assert!(now.is_ok() || excused, "{}: {now:?}", case.label());
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_interface_and_the_numbers_stay() {
    let judged: Vec<(&Case, f64)> = CASES
        .iter()
        .filter_map(|case| {
            let (_, floor) = FLOORS.into_iter().find(|(way, _)| *way == case.way)?;
            case.original.with_extension("npz").exists().then_some((case, floor))
        })
        .collect();
    let jobs: Vec<RunJob> = judged
        .iter()
        .map(|(case, _)| RunJob {
            original: case.original.clone(),
            candidate: case.candidate.clone(),
            samples: vec![case.original.with_extension("npz")],
            time: false,
        })
        .collect();
    let mut compared = 0;
    for ((case, floor), result) in judged.iter().zip(oracle::run_models(&jobs).unwrap()) {
        // Some originals are not for onnxruntime; that candidates load is another test's business.
        if result.error.is_some() {
            continue;
        }
        compared += 1;
        for output in &result.outputs {
            assert!(output.same_type && output.same_shape, "{}: {output:?}", case.label());
        }
        let sqnr_db = result.worst_sqnr_db();
        assert!(sqnr_db >= *floor, "{}: {sqnr_db:.1} dB", case.label());
    }
    assert!(compared > 200, "only {compared} compared");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn converting_again_changes_nothing() {
    let pairs: Vec<(PathBuf, PathBuf)> = parallel(&CASES, |case| {
        let (_, arguments, _) = WAYS.into_iter().find(|(way, ..)| *way == case.way).unwrap();
        let again = case.candidate.with_extension("again.onnx");
        convert(&case.candidate, &again, arguments).expect(0);
        (case.candidate.clone(), again)
    });
    for (case, same) in CASES.iter().zip(oracle::same_models(&pairs).unwrap()) {
        assert!(same.equal, "{}: {:?}", case.label(), same.reason);
    }
}

#[test]
#[ignore = "takes long: cargo xtask test"]
fn attacks_end_with_a_message() {
    let attacks: Vec<PathBuf> = files(&fixture("attacks"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
        .map(|path| fixture(Path::new("attacks").join(path)))
        .collect();
    assert!(attacks.len() > 100);
    let outputs = parallel(&attacks, |attack| {
        let folder = tempdir();
        ["fp16", "bf16-weights"]
            .map(|to| convert(attack, &folder.path().join("out.onnx"), &["--to", to]))
    });
    for (attack, outputs) in attacks.iter().zip(outputs) {
        for output in outputs {
            assert!(output.is_orderly(), "{}: {output:?}", attack.display());
        }
    }
}

/// What a public model came to in float16 on its real samples.
struct Real {
    name: &'static str,
    original: PathBuf,
    candidate: PathBuf,
    output: Output,
}

fn in_onnxruntime(arguments: &[OsString]) -> Output {
    let folder = tempdir();
    finish(with_onnxruntime(folder.path()).args(arguments))
}

fn real(way: &'static str) -> Vec<Real> {
    let models: Vec<_> = testdata::models().into_iter().rev().collect();
    parallel(&models, |(name, original)| {
        let candidate = folder("real").join(format!("{name}.{way}.onnx"));
        let _ = fs_err::remove_file(&candidate);
        let samples = testdata::samples(name);
        let arguments = args![
            "convert",
            original,
            "-o",
            &candidate,
            "--to",
            way,
            "--samples",
            samples,
            "--runtime",
            "onnxruntime",
            "--no-latency",
            "--json",
        ];
        let output = in_onnxruntime(&arguments);
        Real { name, original: original.clone(), candidate, output }
    })
}

/// Whether weights are so much of a model that storing them in half the space shows.
fn is_mostly_weights(original: &Path) -> bool {
    let inspection = run(args!["inspect", original, "--json"]).expect(0).json();
    let weights: f64 = inspection["weights"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["type"] == "float")
        .filter_map(|entry| entry["bytes"].as_f64())
        .sum();
    weights > 0.8 * inspection["bytes"].as_f64().unwrap()
}

/// Where the gate wants more precision than float16 weights have, some of them stay float32.
const LEAST_SHRINK: [(&str, f64); 2] = [("det", 1.8), ("rec", 1.75)];
const WEIGHTS_SHRINK: [(&str, f64); 2] = [("rec", 1.7), ("magika", 1.4)];

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn every_public_model_computes_in_float16_and_passes() {
    let all = real("fp16");
    let candidates: Vec<PathBuf> = all.iter().map(|real| real.candidate.clone()).collect();
    for real in &all {
        let document = real.output.clone().expect(0).json();
        assert_eq!(document["verdict"]["pass"], true, "{}: {document}", real.name);
        let plan = document["plan"].as_array().unwrap();
        let narrow = plan.iter().filter(|line| line["scheme"] == "fp16").count();
        assert!(narrow * 4 > plan.len(), "{}: {narrow} of {}", real.name, plan.len());
        if is_mostly_weights(&real.original) {
            let size = |path: &Path| fs_err::metadata(path).unwrap().len() as f64;
            let shrink = size(&real.original) / size(&real.candidate);
            let least = LEAST_SHRINK.into_iter().find(|(name, _)| *name == real.name);
            let least = least.map_or(1.9, |(_, least)| least);
            assert!(shrink >= least, "{}: {shrink:.2}x", real.name);
        }
    }
    for (real, checked) in all.iter().zip(oracle::check_models(&candidates).unwrap()) {
        assert!(checked.is_ok(), "{}: {checked:?}", real.name);
    }
    for (real, loaded) in all.iter().zip(oracle::load_models(&candidates).unwrap()) {
        assert!(loaded.is_ok(), "{}: {loaded:?}", real.name);
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn weights_in_float16_halve_public_models() {
    for real in real("fp16-weights") {
        let document = real.output.clone().expect(0).json();
        let size = &document["size"];
        let shrink =
            size["original_bytes"].as_f64().unwrap() / size["candidate_bytes"].as_f64().unwrap();
        let least = WEIGHTS_SHRINK.into_iter().find(|(name, _)| *name == real.name);
        let least = least.map_or(1.88, |(_, least)| least);
        assert!(shrink >= least, "{}: {shrink:.2}x", real.name);
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_same_bytes_whatever_the_number_of_threads() {
    let model = testdata::model("cls");
    let convert = |threads: &str, way: &str| {
        let folder = tempdir();
        let mut command = Command::new(crate::support::PROGRAM);
        command.args(args!["convert", &model, "-o", "out.onnx", "--to", way, "--no-validate"]);
        command.current_dir(folder.path()).env("RAYON_NUM_THREADS", threads);
        finish(&mut command).expect(0);
        fs_err::read(folder.path().join("out.onnx")).unwrap()
    };
    for way in ["fp16", "bf16", "fp16-weights"] {
        let first = convert("1", way);
        assert!(["1", "2", "4"].iter().all(|threads| convert(threads, way) == first), "{way}");
    }
}

#[test]
fn a_saved_plan_gives_the_same_model() {
    let folder = tempdir();
    let model = fixture("graphs/if_nested.onnx");
    let making = ["--to", "fp16", "--io", "fp16", "--no-validate", "--save-plan", "plan.toml"];
    let first = [&args!["convert", &model, "-o", "a.onnx"][..], &making.map(OsString::from)];
    run_in(folder.path(), first.concat()).expect(0);
    let again = args!["convert", &model, "-o", "b.onnx", "--plan", "plan.toml", "--no-validate"];
    run_in(folder.path(), again).expect(0);
    let read = |name: &str| fs_err::read(folder.path().join(name)).unwrap();
    assert!(read("a.onnx") == read("b.onnx"));
}

/// The input is too large for float16, and so is all that is made of it.
#[test]
fn activations_that_overflow_stay_float32() {
    let folder = tempdir();
    let model = fixture("digits/mlp.onnx");
    let output = run_in(
        folder.path(),
        args![
            "convert",
            &model,
            "-o",
            "out.onnx",
            "--to",
            "fp16",
            "--input",
            "image=1e5",
            "--json",
            "--no-latency",
            "--no-gate",
        ],
    );
    let document = output.expect(0).json();
    let plan = document["plan"].as_array().unwrap();
    let reasons: Vec<&str> = plan.iter().filter_map(|line| line["reason"].as_str()).collect();
    assert!(reasons.iter().any(|r| r.contains("reaches 1.000e5, beyond")), "{reasons:?}");
    assert!(plan.iter().all(|line| line["scheme"] != "fp16"), "{document}");
}

#[test]
fn what_is_refused_is_not_written() {
    let folder = tempdir();
    let model = fixture("digits/cnn.onnx");
    let samples = fixture("digits/heldout.npz");
    let output = run_in(
        folder.path(),
        args![
            "convert",
            &model,
            "-o",
            "out.onnx",
            "--to",
            "fp16",
            "--samples",
            samples,
            "--min-shrink",
            "3",
            "--no-latency",
        ],
    )
    .expect(3);
    assert!(output.stdout.contains("refused: nothing was written"), "{}", output.stdout);
    assert!(files(folder.path()).is_empty());
}

#[test]
fn functions_are_opened_so_that_what_is_in_them_converts() {
    let folder = tempdir();
    let model = fixture("graphs/functions.onnx");
    let making =
        args!["convert", &model, "-o", "out.onnx", "--to", "fp16", "--no-validate", "--json"];
    let document = run_in(folder.path(), making).expect(0).json();
    let plan = document["plan"].as_array().unwrap();
    assert!(plan.iter().any(|line| line["scheme"] == "fp16"), "{document}");
}

#[test]
fn each_layer_says_what_became_of_it() {
    let folder = tempdir();
    let model = fixture("graphs/attention_small.onnx");
    let making =
        args!["convert", &model, "-o", "out.onnx", "--to", "fp16", "--no-validate", "--explain"];
    let output = run_in(folder.path(), making).expect(0);
    assert!(output.stderr.contains("float16 is not computed faster on CPUs"), "{}", output.stderr);
    let plan = output.stdout.split("\n\n").next().unwrap();
    assert_snapshot!("explained", plan);
}

#[test]
fn wrong_usage_says_what_would_be_right() {
    let model = fixture("graphs/gemm_variants.onnx");
    let convert = |arguments: &[&str]| {
        let mut all = args!["convert", &model, "-o", "out.onnx"].to_vec();
        all.extend(arguments.iter().map(OsString::from));
        run(all).expect(2).stderr
    };
    assert!(convert(&["--to", "fp16", "--io", "bf16"]).contains("computes in bf16"));
    assert!(convert(&["--to", "fp16-weights", "--io", "fp16"]).contains("computes in fp16"));
    let schemes = convert(&["--to", "int8-weights"]);
    assert!(schemes.contains("there are fp16, bf16, fp16-weights, bf16-weights"), "{schemes}");
    assert!(convert(&[]).contains("--to <TYPE>"));
    assert!(convert(&["--to", "fp16", "--plan", "plan.toml"]).contains("--plan"));
}
