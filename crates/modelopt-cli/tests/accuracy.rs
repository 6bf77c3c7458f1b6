//! What closeness is for: trained classifiers still give the right answers, in every runtime.

use std::path::{Path, PathBuf};

use crate::support::{run, tempdir};
use modelopt::runtime::{RuntimeKind, SessionOptions, load_samples, runtime};
use xtask::machine::sums_int8_exactly;
use xtask::oracle::{self, RunJob};
use xtask::testdata::fixture;

/// The share of right answers that may be lost: 0.3 points, and more where sums saturate.
fn loss() -> f64 {
    if sums_int8_exactly() { 0.003 } else { 0.02 }
}

const PICTURES: usize = 599;

/// Each classifier with each scheme: a label, the original and the artifact.
fn artifacts(folder: &Path) -> Vec<(String, PathBuf, PathBuf)> {
    let mut artifacts = Vec::new();
    for model in ["cnn", "mlp"] {
        for scheme in [None, Some("int8-weights")] {
            let label = format!("{model}, {}", scheme.unwrap_or("default scheme"));
            let original = fixture(format!("digits/{model}.onnx"));
            let artifact = folder.join(format!("{model}.{}.onnx", scheme.unwrap_or("default")));
            let mut arguments = args![
                "quantize",
                original,
                "-o",
                artifact,
                "--min-weight-bytes",
                "1024",
                "--samples",
                heldout(),
            ]
            .to_vec();
            arguments.extend(scheme.iter().flat_map(|scheme| args!["--scheme", scheme]));
            let quantized = run(arguments).expect(0);
            assert!(quantized.stdout.contains("passed"), "{label}: {}", quantized.stdout);
            artifacts.push((label, original, artifact));
        }
    }
    artifacts
}

fn heldout() -> PathBuf {
    fixture("digits/heldout.npz")
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn onnxruntime_gives_as_many_right_answers() {
    let folder = tempdir();
    let artifacts = artifacts(folder.path());
    let jobs: Vec<_> = artifacts
        .iter()
        .map(|(_, original, candidate)| RunJob {
            original: original.clone(),
            candidate: candidate.clone(),
            samples: vec![heldout()],
            time: false,
        })
        .collect();
    for ((label, ..), result) in artifacts.iter().zip(oracle::run_models(&jobs).unwrap()) {
        assert_eq!(result.error, None, "{label}");
        let top1 = result.outputs[0].top1.as_ref().unwrap();
        println!("onnxruntime, {label}: {:.4} -> {:.4}", top1.original, top1.candidate);
        assert_eq!(top1.count, PICTURES, "{label}");
        assert!(top1.original > 0.97, "{label}: {top1:?}");
        assert!(top1.original - top1.candidate <= loss(), "{label}: {top1:?}");
    }
}

#[test]
#[ignore = "takes long: cargo xtask test"]
fn embedded_runtimes_give_as_many_right_answers() {
    let folder = tempdir();
    for (label, original, candidate) in artifacts(folder.path()) {
        for kind in [named("tract"), named("rten")] {
            let before = accuracy(kind, &original);
            let after = accuracy(kind, &candidate);
            println!("{kind}, {label}: {before:.4} -> {after:.4}");
            assert!(before > 0.97, "{kind}, {label}: {before}");
            assert!(before - after <= loss(), "{kind}, {label}: {before} -> {after}");
        }
    }
}

/// The runtime of a name.
fn named(name: &str) -> RuntimeKind {
    name.parse().unwrap()
}

/// The share of held-out pictures that a model gets right.
fn accuracy(kind: RuntimeKind, model: &Path) -> f64 {
    let names = ["image".to_owned(), "label".to_owned()];
    let sample = load_samples(&heldout(), &names).unwrap().remove(0);
    let labels = sample.inputs["label"].to_i64().unwrap();
    let mut session =
        runtime(kind, None).unwrap().prepare(model, &SessionOptions::default()).unwrap();
    let outputs = session.run(&sample.inputs).unwrap();
    let scores = outputs["scores"].to_f32().unwrap();
    assert_eq!(outputs["scores"].shape(), [PICTURES, 10]);
    let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let right = scores
        .chunks(10)
        .zip(labels.iter())
        .filter(|(row, label)| best(row).is_some_and(|class| class as i64 == **label));
    right.count() as f64 / PICTURES as f64
}
