//! Two trained classifiers on held-out pictures: the same answers on every runtime.

use crate::common::{run, runtimes, samples, testdata};
use indexmap::IndexMap;
use modelopt_graph::Tensor;
use modelopt_runtime::{Outputs, SessionOptions, load_samples};

fn scores(outputs: &Outputs) -> Vec<f32> {
    assert_eq!(outputs.keys().collect::<Vec<_>>(), ["scores"]);
    assert_eq!(outputs["scores"].shape(), [599, 10]);
    outputs["scores"].to_f32().unwrap().into_owned()
}

fn accuracy(scores: &[f32], labels: &Tensor) -> f64 {
    let labels = labels.to_i64().unwrap();
    let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    let right = scores.chunks(10).zip(&labels).filter(|(row, label)| best(row) as i64 == **label);
    right.count() as f64 / labels.len() as f64
}

#[test]
fn classifiers_stay_accurate_and_agree() {
    let data = testdata("digits/heldout.npz");
    let labels = load_samples(&data, &["label".to_owned()]).unwrap();
    for name in ["digits/cnn.onnx", "digits/mlp.onnx"] {
        let model = testdata(name);
        let samples = samples(&model, &data);
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].inputs.keys().collect::<Vec<_>>(), ["image"]);
        let all: Vec<_> = runtimes()
            .iter()
            .map(|runtime| scores(&run(runtime.as_ref(), &model, &samples[0]).unwrap()))
            .collect();
        for scores in &all {
            let accuracy = accuracy(scores, &labels[0].inputs["label"]);
            assert!(accuracy > 0.97, "{name}: {accuracy}");
            let worst = scores.iter().zip(&all[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-3, "{name}: {worst}");
        }
    }
}

#[test]
fn batches_of_any_size_run_in_one_session() {
    let model = testdata("digits/cnn.onnx");
    let sample = &samples(&model, &testdata("digits/heldout.npz"))[0];
    let pixels = sample.inputs["image"].to_f32().unwrap();
    for runtime in runtimes() {
        for threads in [1, 2] {
            let options = SessionOptions { threads, ..SessionOptions::default() };
            let mut session = runtime.prepare(&model, &options).unwrap();
            let whole = session.run(&sample.inputs).unwrap();
            let whole = scores(&whole);
            for batch in (1..12).rev() {
                let image = Tensor::of(vec![batch, 1, 8, 8], &pixels[..batch * 64]).unwrap();
                let inputs = [("image".to_owned(), image)].into_iter().collect();
                let part = session.run(&inputs).unwrap();
                assert_eq!(part["scores"].shape(), [batch, 10]);
                for (a, b) in part["scores"].to_f32().unwrap().iter().zip(&whole) {
                    assert!((a - b).abs() < 1e-4, "{}: {a} {b}", runtime.name());
                }
            }
        }
    }
}

#[test]
fn wrong_inputs_are_named_before_anything_runs() {
    let model = testdata("digits/cnn.onnx");
    for runtime in runtimes() {
        let mut session = runtime.prepare(&model, &SessionOptions::default()).unwrap();
        let error = session.run(&IndexMap::default()).unwrap_err().to_string();
        assert_eq!(error, "no value for input 'image'; the sample has none");
        let image = Tensor::of(vec![1, 1, 8, 8], &[0f64; 64]).unwrap();
        let inputs = [("image".to_owned(), image)].into_iter().collect();
        let error = session.run(&inputs).unwrap_err().to_string();
        assert!(error.ends_with("but the sample has double[1, 1, 8, 8]"), "{error}");
    }
}

#[test]
fn the_name_of_the_file_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("candidate.tmp");
    std::fs::copy(testdata("digits/mlp.onnx"), &model).unwrap();
    let sample = &samples(&model, &testdata("digits/heldout.npz"))[0];
    for runtime in runtimes() {
        scores(&run(runtime.as_ref(), &model, sample).unwrap());
    }
}
