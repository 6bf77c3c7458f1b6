//! Accuracy of planted models.

use modelopt_runtime::{Outputs, SampleKind};

use super::*;
use crate::config::Config;
use crate::target::planted::{self, Planted, Run};

/// Scores of three classes for each number of the input: the class that it is, but for one.
fn scores(run: &Run<'_>, wrong: Option<usize>) -> Outputs {
    let numbers = run.numbers();
    let mut scores = vec![0f32; numbers.len() * 3];
    for (row, class) in numbers.iter().enumerate() {
        let class = if wrong == Some(row) { (*class as usize + 1) % 3 } else { *class as usize };
        scores[row * 3 + class] = 1.0;
    }
    [("scores".to_owned(), Tensor::of(vec![numbers.len(), 3], &scores).unwrap())].into()
}

fn labelled(classes: &[i64]) -> Labelled {
    let numbers: Vec<f32> = classes.iter().map(|class| class.max(&0).to_owned() as f32).collect();
    let inputs = [("x".to_owned(), Tensor::of(vec![numbers.len()], &numbers).unwrap())].into();
    let sample = Sample { name: "s".to_owned(), inputs, kind: SampleKind::Real };
    Labelled { sample, labels: classes.to_vec(), shape: vec![classes.len()] }
}

fn accuracy(runtime: &Planted, output: &str, samples: Vec<Labelled>) -> Result<f64, String> {
    let config = Config::default();
    let mut metric = LabelMetric::new(runtime.host(&config), output, samples, None);
    metric.evaluate(Path::new("model.onnx")).map_err(|error| error.to_string())
}

#[test]
fn rows_are_counted_over_all_samples() {
    let samples = || vec![labelled(&[0, 1, 2, 1]), labelled(&[2, 2, 0, 1])];
    let right = Planted::new(|run| Ok(scores(run, None)));
    assert!((accuracy(&right, "scores", samples()).unwrap() - 1.0).abs() < 1e-12);
    let wrong = Planted::new(|run| Ok(scores(run, (run.before == 1).then_some(2))));
    assert!((accuracy(&wrong, "scores", samples()).unwrap() - 7.0 / 8.0).abs() < 1e-12);
    assert_eq!(wrong.loaded("model.onnx"), 1, "it is loaded once for all of them");
    // What has no label does not count, and is not right either.
    let some = vec![labelled(&[0, -1, -1, 2])];
    let wrong = Planted::new(|run| Ok(scores(run, Some(0))));
    assert!((accuracy(&wrong, "scores", some).unwrap() - 0.5).abs() < 1e-12);
}

#[test]
fn what_cannot_be_counted_says_why() {
    let right = || Planted::new(|run| Ok(scores(run, None)));
    let error = accuracy(&right(), "logits", vec![labelled(&[0])]).unwrap_err();
    assert!(error.contains("'logits'") && error.contains("scores"), "{error}");
    assert!(accuracy(&right(), "scores", Vec::new()).is_err(), "none of none is no share");
    assert!(accuracy(&right(), "scores", vec![labelled(&[-1, -1])]).is_err());
    let beyond = Labelled { labels: vec![7], ..labelled(&[0]) };
    let error = accuracy(&right(), "scores", vec![beyond]).unwrap_err();
    assert!(error.contains('7') && error.contains("'s'"), "{error}");
    for failing in [
        right().refusing(|_, _| Some(planted::refusal())),
        Planted::new(|_| Err(planted::refusal())),
    ] {
        let error = accuracy(&failing, "scores", vec![labelled(&[0])]).unwrap_err();
        assert!(error.contains("no kernel") && !error.contains("/somewhere"), "{error}");
    }
}

#[test]
fn labels_are_whole_numbers_of_whatever_type() {
    let of = |tensor: Tensor| integers(&tensor);
    assert_eq!(of(Tensor::of(vec![2], &[1i64, -1]).unwrap()), Some(vec![1, -1]));
    assert_eq!(of(Tensor::of(vec![2], &[3u8, 0]).unwrap()), Some(vec![3, 0]));
    assert_eq!(of(Tensor::of(vec![2], &[2.0f32, -1.0]).unwrap()), Some(vec![2, -1]));
    assert_eq!(of(Tensor::of(vec![1], &[0.5f32]).unwrap()), None);
    assert_eq!(of(Tensor::of(vec![1], &[f32::NAN]).unwrap()), None);
}
