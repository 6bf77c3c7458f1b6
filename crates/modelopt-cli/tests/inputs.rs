//! What models are run on: invented inputs of sizes that suit them, samples that do not fit, and
//! files that are no models or cannot be written. Mistakes of the user are found before anything
//! runs, and said alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::support::{Output, files, finish, run_in, tempdir};
use insta::assert_snapshot;
use xtask::parallel::parallel;
use xtask::testdata::{fixture, python};

/// The models of `testdata/sizes`, and what is said of their inputs where that does not depend on
/// the runtime. Others run as they are guessed first, or are found by trying.
const SIZES: [(&str, &str); 16] = [
    ("agreeing_inputs", "--dim p=32"),
    ("concat_constant", "--dim k=10"),
    ("kv_cache", ""),
    ("kv_cache_unnamed", "--dim m0.1=32"),
    ("patches", "--dim height=96 --dim width=96"),
    ("pixel_unshuffle", "--dim height=240 --dim width=240"),
    ("position_slice", "--dim sequence=12"),
    ("position_table", "--dim sequence=20"),
    ("rate_in_branches", "--dim samples=48"),
    ("reshape_all", "--dim frames=12"),
    ("reshape_factor", "--dim time=24"),
    ("skip_connections", "--dim height=256 --dim width=256"),
    ("squeeze_dim", "--dim k=1"),
    ("strided_audio", "--dim samples=512"),
    ("take", "--input take=2"),
    ("wide_convolution", "--dim h=256 --dim w=256"),
];

const FOUND: &str = "inputs as they are guessed first do not suit the model; found for it: ";

/// Quantizes without measuring times.
fn quantize(folder: &Path, model: &Path, more: &[&str]) -> Output {
    let arguments = args!["quantize", model, "-o", "out.onnx", "--no-latency", "-q"].to_vec();
    run_in(folder, arguments.into_iter().chain(more.iter().map(OsString::from)))
}

/// What warnings say was found for a model.
fn found(output: &Output) -> &str {
    let mut lines = output.stderr.lines();
    lines.find_map(|line| line.strip_prefix("warning: ")?.strip_prefix(FOUND)).unwrap_or_default()
}

#[test]
fn sizes_are_found() {
    parallel(&SIZES, |(name, wanted)| {
        let model = fixture(format!("sizes/{name}.onnx"));
        for runtime in ["auto", "rten"] {
            let folder = tempdir();
            // All are small enough to be left alone.
            let more = ["--runtime", runtime, "--min-weight-bytes", "0"];
            let output = quantize(folder.path(), &model, &more).expect(0);
            assert_eq!(found(&output), *wanted, "{name} in {runtime}");
            assert!(folder.path().join("out.onnx").exists());
        }
    });
}

#[test]
fn what_was_found_can_be_said() {
    let folder = tempdir();
    let model = fixture("sizes/concat_constant.onnx");
    let output = quantize(folder.path(), &model, &["--dim", "k=10"]).expect(0);
    assert_eq!(found(&output), "");
    // What the user says is not changed.
    let output = quantize(folder.path(), &model, &["--dim", "k=11"]).expect(1);
    assert!(
        output.stderr.starts_with("error: no runtime at hand runs the model"),
        "{}",
        output.stderr
    );
}

#[test]
fn other_commands_find_sizes_too() {
    let folder = tempdir();
    let model = fixture("sizes/position_table.onnx");
    let compare = run_in(folder.path(), args!["compare", model, model, "--no-latency", "-q"]);
    assert_eq!(found(&compare.expect(0)), "--dim sequence=20");
    let bench = args!["bench", model, "--runtime", "tract", "--latency-seconds", "0", "--json"];
    let rows = run_in(folder.path(), bench).expect(0).json();
    assert_eq!(rows["rows"][0]["inputs"]["ids"], serde_json::json!([1, 20]));
}

/// Writes arrays with `NumPy`; `arrays` are the arguments of `numpy.savez`.
fn save(folder: &Path, arrays: &str) {
    let program = format!("import numpy as np; f = np.float32; np.savez('sample.npz', {arrays})");
    let mut command = std::process::Command::new(python());
    finish(command.args(["-c", &program]).current_dir(folder)).expect(0);
}

/// The error that a sample meets, for a model that takes `x` of `float[n, 4, 64]`.
fn refusal(arrays: &str) -> String {
    let folder = tempdir();
    save(folder.path(), arrays);
    let model = fixture("graphs/conv1d.onnx");
    let output = quantize(folder.path(), &model, &["--samples", "sample.npz"]).expect(1);
    assert_eq!(files(folder.path()), [PathBuf::from("sample.npz")]);
    output.stderr
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn samples_that_do_not_fit_are_said_so_before_anything_runs() {
    assert_snapshot!(refusal("x=np.zeros((1, 4, 64))"), @"error: sample.npz: 'x' is float64, the model wants float32; convert it with .astype('float32')");
    assert_snapshot!(refusal("x=np.zeros((4, 64), f)"), @"error: sample.npz: 'x' has shape [4, 64], of rank 2, the model wants [n, 4, 64], of rank 3; put a batch of 1 in front with [None]");
    assert_snapshot!(refusal("x=np.zeros((1, 9, 64), f)"), @"error: sample.npz: 'x' has shape [1, 9, 64], the model wants [n, 4, 64]");
    assert_snapshot!(refusal("y=np.zeros((1, 4, 64), f)"), @"error: no array in sample.npz is named like an input of the model: it has 'y', the model wants 'x'");
    assert_snapshot!(refusal(""), @"error: sample.npz holds no arrays");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn missing_inputs_come_with_what_was_meant() {
    let folder = tempdir();
    save(
        folder.path(),
        "query=np.zeros((1, 4, 64), f), label=np.zeros(1), Bias=np.zeros((1, 4, 64), f)",
    );
    let model = fixture("sizes/agreeing_inputs.onnx");
    let output = quantize(folder.path(), &model, &["--samples", "sample.npz"]).expect(1);
    assert_snapshot!(output.stderr, @"error: sample.npz: no array for input 'bias'; there are 'query', 'label', 'Bias'; note that 'bias' is not 'Bias'");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_mistake_is_one_without_a_gate_too() {
    let folder = tempdir();
    save(folder.path(), "x=np.zeros((1, 4, 64))");
    let model = fixture("graphs/conv1d.onnx");
    quantize(folder.path(), &model, &["--samples", "sample.npz", "--no-gate"]).expect(1);
    assert!(!folder.path().join("out.onnx").exists());
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn more_arrays_than_inputs_are_fine() {
    let folder = tempdir();
    save(
        folder.path(),
        "x=np.random.RandomState(0).normal(size=(1, 4, 64)).astype(f), label=np.zeros(1)",
    );
    let model = fixture("graphs/conv1d.onnx");
    quantize(folder.path(), &model, &["--samples", "sample.npz"]).expect(0);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn elements_that_are_not_finite_are_told() {
    let folder = tempdir();
    save(
        folder.path(),
        "x=np.pad(np.ones((1, 4, 63), f), ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)",
    );
    let model = fixture("graphs/conv1d.onnx");
    let output = quantize(folder.path(), &model, &["--samples", "sample.npz", "--no-gate"]);
    let warning = "warning: sample 'sample': input 'x' has 4 of 256 elements that are NaN\n";
    assert!(output.stderr.contains(warning), "{}", output.stderr);
}

#[test]
fn folders_without_samples() {
    let folder = tempdir();
    fs_err::create_dir(folder.path().join("empty")).unwrap();
    let model = fixture("graphs/conv1d.onnx");
    let output = quantize(folder.path(), &model, &["--samples", "empty"]).expect(1);
    assert_snapshot!(output.stderr, @"error: empty holds no samples; give an .npz, a folder of them, a folder of NAME.npy, or a folder with test_data_set_*");
}

/// The error that a file meets that is given as a model.
fn no_model(content: &[u8]) -> String {
    let folder = tempdir();
    fs_err::write(folder.path().join("model.onnx"), content).unwrap();
    for command in ["inspect", "plan", "bench"] {
        let output = run_in(folder.path(), args![command, "model.onnx"]).expect(1);
        assert!(output.stderr.starts_with("error: model.onnx: "), "{}", output.stderr);
    }
    quantize(folder.path(), Path::new("model.onnx"), &[]).expect(1).stderr
}

#[test]
fn files_that_are_no_models_are_called_what_they_are() {
    assert_snapshot!(no_model(b""), @"error: model.onnx: no ONNX model; the file is empty");
    assert_snapshot!(no_model(b"hello\n"), @"error: model.onnx: no ONNX model; it is a text file");
    assert_snapshot!(no_model(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), @"error: model.onnx: no ONNX model; it is a pointer of Git LFS; fetch the model itself with `git lfs pull`");
    assert_snapshot!(no_model(b"<!DOCTYPE html>\n<html></html>\n"), @"error: model.onnx: no ONNX model; it is a web page; the download of the model failed");
    assert_snapshot!(no_model(b"PK\x03\x04\0\0\0\0archive/data.pkl"), @"error: model.onnx: no ONNX model; it seems to be a PyTorch checkpoint; export the model with torch.onnx.export");
    assert_snapshot!(no_model(b"PK\x03\x04\0\0\0\0something"), @"error: model.onnx: no ONNX model; it seems to be a zip archive; unpack it first");
}

#[test]
fn outputs_that_cannot_be_are_refused_before_work_begins() {
    let folder = tempdir();
    let model = fixture("graphs/conv1d.onnx");
    fs_err::create_dir(folder.path().join("models")).unwrap();
    fs_err::write(folder.path().join("file"), "").unwrap();
    let refused = |output: &str| {
        let output = run_in(folder.path(), args!["quantize", model, "-o", output]).expect(1);
        assert_eq!(files(folder.path()), [PathBuf::from("file")]);
        output.stderr
    };
    assert_snapshot!(refused("models"), @"error: the output models is a folder; name a file, such as models/model.onnx");
    assert_snapshot!(refused("missing/out.onnx"), @"error: cannot write missing/out.onnx: missing does not exist; make the folder first, or name another one");
    assert_snapshot!(refused("file/out.onnx"), @"error: cannot write file/out.onnx: file is no folder");
}

#[test]
fn the_input_is_replaced_on_demand() {
    let folder = tempdir();
    let model = folder.path().join("model.onnx");
    fs_err::copy(fixture("graphs/conv1d.onnx"), &model).unwrap();
    let before = fs_err::read(&model).unwrap();
    let spelt = "./model.onnx";
    let output = run_in(folder.path(), args!["quantize", "model.onnx", "-o", spelt]).expect(2);
    assert_snapshot!(output.stderr, @"error: the output ./model.onnx is the input; --in-place replaces it, if the result passes");
    // A result that does not pass leaves it alone.
    let strict = args![
        "quantize",
        "model.onnx",
        "--in-place",
        "--min-sqnr",
        "300",
        "--scheme",
        "int8-weights"
    ];
    run_in(folder.path(), strict).expect(3);
    assert_eq!(fs_err::read(&model).unwrap(), before);
    let other = args!["quantize", "model.onnx", "--in-place", "-o", "other.onnx"];
    run_in(folder.path(), other).expect(2);
    run_in(folder.path(), args!["quantize", "model.onnx", "--in-place"]).expect(0);
    assert_ne!(fs_err::read(&model).unwrap(), before);
    assert_eq!(files(folder.path()), [PathBuf::from("model.onnx")]);
}

#[cfg(unix)]
#[test]
fn links_to_the_input_are_the_input() {
    let folder = tempdir();
    let model = folder.path().join("model.onnx");
    fs_err::copy(fixture("graphs/conv1d.onnx"), &model).unwrap();
    std::os::unix::fs::symlink("model.onnx", folder.path().join("link.onnx")).unwrap();
    for (input, output) in [("model.onnx", "link.onnx"), ("link.onnx", "model.onnx")] {
        run_in(folder.path(), args!["quantize", input, "-o", output]).expect(2);
    }
    run_in(folder.path(), args!["convert", "link.onnx", "--in-place", "--to", "fp16-weights"])
        .expect(0);
    assert!(fs_err::symlink_metadata(folder.path().join("link.onnx")).unwrap().is_symlink());
    assert!(fs_err::metadata(&model).unwrap().len() < 11_000);
}

#[test]
fn no_temporary_path_is_said() {
    let folder = tempdir();
    let temporary = folder.path().join("tmp");
    fs_err::create_dir(&temporary).unwrap();
    let mut command = std::process::Command::new(crate::support::PROGRAM);
    command.args(["inspect", "-"]).env("TMPDIR", &temporary).current_dir(folder.path());
    let output = finish(&mut command).expect(1);
    assert_snapshot!(output.stderr, @"error: stdin: no ONNX model; the file is empty");
    let model = fixture("sizes/concat_constant.onnx");
    let mut command = std::process::Command::new(crate::support::PROGRAM);
    command.args(["quantize", "-", "-o", "out.onnx", "--dim", "k=11"]);
    command.env("TMPDIR", &temporary).current_dir(folder.path());
    let input = std::fs::File::open(model).unwrap();
    let output = command.stdin(input).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("rten cannot run it: ") && !stderr.contains("tmp"), "{stderr}");
}
