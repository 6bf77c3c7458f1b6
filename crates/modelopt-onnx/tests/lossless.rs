//! Loading and saving an untouched model loses nothing, as Python's `onnx` package sees it.

use std::path::{Path, PathBuf};

use modelopt_onnx::{SaveOptions, Staged, load};
use xtask::{oracle, testdata};

/// Saves each model anew and lets the oracle compare.
fn round_trip(models: &[PathBuf], options: SaveOptions) {
    let folder = tempfile::tempdir().unwrap();
    let mut pairs = Vec::new();
    for (index, model) in models.iter().enumerate() {
        let loaded = load(model).unwrap_or_else(|error| panic!("{error}"));
        let copy = folder.path().join(format!("{index}.onnx"));
        let staged = Staged::write(&loaded, &copy, options).unwrap();
        staged.commit().unwrap();
        pairs.push((model.clone(), copy));
    }
    let different: Vec<_> =
        oracle::same_models(&pairs).unwrap().into_iter().filter(|answer| !answer.equal).collect();
    assert!(different.is_empty(), "{different:#?}");
}

fn fixtures() -> Vec<PathBuf> {
    let mut models: Vec<PathBuf> = std::fs::read_dir(testdata::fixture("graphs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .collect();
    models.sort();
    assert!(models.len() > 50);
    models
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn node_tests() {
    let models: Vec<PathBuf> =
        testdata::node_tests().into_iter().map(|folder| folder.join("model.onnx")).collect();
    assert_eq!(models.len(), 1884);
    round_trip(&models, SaveOptions::default());
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn real_models() {
    let models: Vec<PathBuf> = testdata::models().into_iter().map(|(_, path)| path).collect();
    assert_eq!(models.len(), testdata::MODELS.len());
    round_trip(&models, SaveOptions::default());
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn hand_made_graphs() {
    round_trip(&fixtures(), SaveOptions::default());
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn real_models_with_external_data() {
    let models: Vec<PathBuf> = ["det", "magika", "silero_vad"].map(testdata::model).to_vec();
    round_trip(&models, SaveOptions { external_data: true });
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn untouched_bytes_are_the_same_however_often_they_are_saved() {
    let model = testdata::model("silero_vad");
    let bytes = |path: &Path| modelopt_onnx::to_bytes(&load(path).unwrap()).unwrap();
    let first = bytes(&model);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.onnx");
    std::fs::write(&copy, &first).unwrap();
    assert!(first == bytes(&copy));
}
