//! Temporary folders that are gone, full of something else, or two at a time.

use modelopt_graph::ModelInfo;

use super::*;

fn model() -> Model {
    Model::new(ModelInfo { ir_version: 8, ..ModelInfo::default() })
}

#[test]
fn all_that_was_written_goes_with_the_folder() {
    let scratch = Scratch::new().unwrap();
    let folder = scratch.path().to_owned();
    let kept = scratch.keep(&model(), "kept.onnx").unwrap();
    let put = scratch.put(b"bytes", "put.onnx").unwrap();
    assert_eq!(std::fs::read(&put).unwrap(), b"bytes");
    let staged = scratch.write(&model(), "staged.onnx").unwrap();
    let path = staged.path().to_owned();
    assert!(kept.exists() && path.exists());
    drop(staged);
    assert!(!path.exists() && kept.exists(), "what was only tried goes first");
    drop(scratch);
    assert!(!folder.exists());
}

#[test]
fn a_folder_that_is_gone_is_the_fault_of_the_machine() {
    let scratch = Scratch::new().unwrap();
    let folder = scratch.path().display().to_string();
    std::fs::remove_dir_all(scratch.path()).unwrap();
    let errors = [
        scratch.write(&model(), "x.onnx").map(|_| ()).unwrap_err(),
        scratch.keep(&model(), "x.onnx").map(|_| ()).unwrap_err(),
        scratch.put(b"bytes", "x.onnx").map(|_| ()).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_of_machine(), "{error}");
        assert!(!error.to_string().contains(&folder), "{error}");
        assert!(RuntimeError::from(error).is_of_machine());
    }
}

#[test]
fn two_at_once_are_apart() {
    let [a, b] = [Scratch::new().unwrap(), Scratch::new().unwrap()];
    a.put(b"a", "x.onnx").unwrap();
    b.put(b"b", "x.onnx").unwrap();
    assert_ne!(a.path(), b.path());
    assert_eq!(std::fs::read(a.path().join("x.onnx")).unwrap(), b"a");
}

#[test]
fn a_model_without_a_form_is_not_the_fault_of_the_machine() {
    let error = Unwritten::Model("it has none".to_owned());
    assert!(!error.is_of_machine());
    assert!(error.to_string().contains("it has none"));
}
