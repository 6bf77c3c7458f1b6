//! `modelopt upgrade`: from file to file, what is told, and what is refused.

use std::path::Path;

use crate::support::{finish, run_in, tempdir, with_onnxruntime};
use xtask::oracle;
use xtask::testdata::{self, fixture};

fn copy(folder: &Path, graph: &str) {
    fs_err::copy(fixture(format!("graphs/{graph}.onnx")), folder.join("model.onnx")).unwrap();
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn an_old_model_is_raised_proven_and_written() {
    let folder = tempdir();
    copy(folder.path(), "opset10");
    let output =
        run_in(folder.path(), ["upgrade", "model.onnx", "-o", "new.onnx", "--opset", "17"]);
    let output = output.expect(0);
    assert!(output.stdout.starts_with("operator set 10 to 17"), "{}", output.stdout);
    assert!(output.stdout.contains("passed") && output.stdout.ends_with("wrote new.onnx\n"));
    let checked = oracle::check_models(&[folder.path().join("new.onnx")]).unwrap();
    assert!(checked[0].is_ok(), "{checked:?}");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_program_is_told_what_was_rewritten() {
    let model = testdata::model("cls");
    let folder = tempdir();
    let arguments = args!["upgrade", model, "-o", "new.onnx", "--no-validate", "--json"];
    let document = run_in(folder.path(), arguments).expect(0).json();
    assert_eq!(document["schema"], "modelopt.upgrade/1");
    assert_eq!(document["opset"]["before"], 11);
    assert_eq!(document["adapted"][0]["operator"], "Softmax");
    assert_eq!(document["emitted"], true);
    assert!(document["comparison"].is_null());
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn without_a_wish_it_is_what_onnxruntime_runs() {
    let folder = tempdir();
    copy(folder.path(), "opset10");
    let arguments = args!["upgrade", "model.onnx", "--in-place", "--runtime", "onnxruntime"];
    let output = finish(with_onnxruntime(folder.path()).args(&arguments)).expect(0);
    assert!(output.stdout.contains("operator set 10 to 27"), "{}", output.stdout);
    let before = fs_err::read(folder.path().join("model.onnx")).unwrap();
    let output = finish(with_onnxruntime(folder.path()).args(&arguments)).expect(0);
    assert_eq!(output.stdout, "operator set 27 already\n\nnothing to write\n");
    assert!(before == fs_err::read(folder.path().join("model.onnx")).unwrap());
}

#[test]
fn a_result_that_fails_is_not_written() {
    let folder = tempdir();
    copy(folder.path(), "opset10");
    let arguments =
        args!["upgrade", "model.onnx", "-o", "new.onnx", "--opset", "17", "--min-shrink", "100"];
    let output = run_in(folder.path(), arguments).expect(3);
    assert!(output.stdout.contains("nothing was written to new.onnx"), "{}", output.stdout);
    assert!(!folder.path().join("new.onnx").exists());
}

#[test]
fn what_cannot_be_is_an_error_with_the_reason() {
    let folder = tempdir();
    copy(folder.path(), "opset10");
    let refused = |opset: &str| {
        let arguments = args!["upgrade", "model.onnx", "-o", "new.onnx", "--opset", opset];
        run_in(folder.path(), arguments).expect(1).stderr
    };
    assert!(refused("9").contains("its operator set is 10, and cannot be lowered to 9"));
    assert!(refused("99").contains("operator set 99 is not known here"));
    assert!(!folder.path().join("new.onnx").exists());
    run_in(folder.path(), ["upgrade", "model.onnx", "-o", "model.onnx"]).expect(2);
}
