//! Accuracy, counted from labels that stand in the samples.

use std::path::Path;

use indexmap::IndexMap;
use modelopt_graph::Tensor;
use modelopt_runtime::{RuntimeError, Sample, load_samples};

use crate::error::{Error, ErrorKind};
use crate::io_cast::IoCast;
use crate::metric::{Labels, Metric, MetricError};
use crate::target::Host;

/// Runs a model on the samples and counts the rows whose best class is the right one.
pub(crate) struct LabelMetric<'a> {
    host: Host<'a>,
    output: String,
    samples: Vec<Labelled>,
    /// How candidates take what the original takes.
    casting: Option<IoCast>,
    casts: bool,
    top5: Option<f64>,
}

/// A sample with the right answers.
#[derive(Debug)]
pub(crate) struct Labelled {
    sample: Sample,
    labels: Vec<i64>,
    shape: Vec<usize>,
}

/// The samples at a path with their labels.
pub(crate) fn labelled(
    path: &Path,
    inputs: &[String],
    labels: &Labels,
) -> Result<Vec<Labelled>, Error> {
    let wrong = |message: String| Error::from(ErrorKind::Config(message));
    if inputs.contains(&labels.key) {
        return Err(wrong(format!("'{}' is an input of the model, not labels", labels.key)));
    }
    let names: Vec<String> = inputs.iter().chain([&labels.key]).cloned().collect();
    let with_labels = |mut sample: Sample| {
        let Some(tensor) = sample.inputs.shift_remove(&labels.key) else {
            return Err(wrong(format!("sample '{}' has no array '{}'", sample.name, labels.key)));
        };
        let Some(numbers) = integers(&tensor) else {
            return Err(wrong(format!(
                "'{}' of sample '{}' is of type {}: labels must be integers",
                labels.key,
                sample.name,
                tensor.dtype()
            )));
        };
        Ok(Labelled { shape: tensor.shape().to_vec(), labels: numbers, sample })
    };
    load_samples(path, &names)?.into_iter().map(with_labels).collect()
}

/// Whole numbers, of whatever type.
fn integers(tensor: &Tensor) -> Option<Vec<i64>> {
    if let Some(numbers) = tensor.to_i64() {
        return Some(numbers);
    }
    let numbers = tensor.to_f32()?;
    numbers.iter().map(|x| (x.fract() == 0.0).then_some(*x as i64)).collect()
}

impl<'a> LabelMetric<'a> {
    /// The metric for an output, in a runtime.
    pub(crate) fn new(
        host: Host<'a>,
        output: &str,
        samples: Vec<Labelled>,
        casting: Option<IoCast>,
    ) -> Self {
        let output = output.to_owned();
        LabelMetric { host, output, samples, casting, casts: false, top5: None }
    }

    /// Whether the next model takes and gives other types than the samples have.
    pub(super) fn casts(&mut self, casts: bool) {
        self.casts = casts;
    }

    fn count(&self, model: &Path) -> Result<Tally, String> {
        let told = |error: RuntimeError| error.without_path();
        let mut session = self.host.prepare(model).map_err(told)?;
        if let (Some(casting), true) = (&self.casting, self.casts) {
            session = Box::new(casting.clone().around(session));
        }
        let mut tally = Tally::default();
        for Labelled { sample, labels, shape } in &self.samples {
            let outputs = session.run(&sample.inputs).map_err(told)?;
            let output = outputs.get(&self.output).ok_or_else(|| {
                let names = outputs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                format!("the model has no output '{}'; there are {names}", self.output)
            })?;
            tally
                .add(output, labels, shape)
                .map_err(|why| format!("sample '{}': {why}", sample.name))?;
        }
        if tally.rows == 0 {
            return Err("no sample has a label to count".to_owned());
        }
        Ok(tally)
    }
}

impl Metric for LabelMetric<'_> {
    fn name(&self) -> &'static str {
        "accuracy"
    }

    fn evaluate(&mut self, model: &Path) -> Result<f64, MetricError> {
        let tally = self
            .count(model)
            .map_err(|why| MetricError::Other(format!("accuracy cannot be counted: {why}")))?;
        let share = |right: usize| right as f64 / tally.rows as f64;
        self.top5 = tally.right5.map(share);
        Ok(share(tally.right))
    }

    fn further(&self) -> IndexMap<String, f64> {
        self.top5.map(|top5| ("top-5 accuracy".to_owned(), top5)).into_iter().collect()
    }
}

/// How many rows were right.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    rows: usize,
    right: usize,
    /// Rows whose class is among the best five, where there are more classes than that.
    right5: Option<usize>,
}

impl Tally {
    /// Counts the rows of one output.
    fn add(&mut self, output: &Tensor, labels: &[i64], shape: &[usize]) -> Result<(), String> {
        let counted = labels.iter().filter(|label| **label >= 0).count();
        if let Some(classes) = output.to_i64() {
            if classes.len() != labels.len() {
                return Err(mismatch(output.shape(), shape));
            }
            self.rows += counted;
            let right =
                classes.iter().zip(labels).filter(|(class, label)| **label >= 0 && class == label);
            self.right += right.count();
            return Ok(());
        }
        let scores = output.to_f32().ok_or("the output holds no numbers")?;
        let axis =
            class_axis(output.shape(), shape).ok_or_else(|| mismatch(output.shape(), shape))?;
        let classes = output.shape()[axis];
        let inner: usize = output.shape()[axis + 1..].iter().product();
        self.rows += counted;
        let mut right5 = 0;
        for (row, &label) in labels.iter().enumerate() {
            let Some(label) = usize::try_from(label).ok() else { continue };
            if label >= classes {
                return Err(format!("label {label} is none of {classes} classes"));
            }
            let first = (row / inner.max(1)) * classes * inner + row % inner.max(1);
            let score = |class: usize| scores[first + class * inner];
            let place = rank(classes, label, score);
            self.right += usize::from(place == 0);
            right5 += usize::from(place < 5);
        }
        if classes > 5 {
            *self.right5.get_or_insert(0) += right5;
        }
        Ok(())
    }
}

/// How many classes have a better score than one; of equal ones the first is the best. NaN is worse
/// than all.
fn rank(classes: usize, label: usize, score: impl Fn(usize) -> f32) -> usize {
    let own = score(label);
    if own.is_nan() {
        return classes;
    }
    (0..classes)
        .filter(|&class| score(class) > own || (class < label && score(class) >= own))
        .count()
}

/// The axis along which the output has classes, if what is left has the shape of the labels.
fn class_axis(output: &[usize], labels: &[usize]) -> Option<usize> {
    // A row of its own is often no dimension of the labels.
    let plain =
        |shape: &[usize]| shape.iter().copied().filter(|&size| size != 1).collect::<Vec<_>>();
    let last = output.len().checked_sub(1)?;
    [last, 1].into_iter().filter(|&axis| axis <= last).find(|&axis| {
        let mut left = output.to_vec();
        left.remove(axis);
        plain(&left) == plain(labels)
    })
}

fn mismatch(output: &[usize], labels: &[usize]) -> String {
    format!("labels of shape {labels:?} do not fit an output of shape {output:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(
        shape: &[usize],
        scores: &[f32],
        labels: &[i64],
        of: &[usize],
    ) -> Result<Tally, String> {
        let mut tally = Tally::default();
        tally.add(&Tensor::of(shape.to_vec(), scores).unwrap(), labels, of)?;
        Ok(tally)
    }

    #[test]
    fn the_best_class_of_each_row_counts() {
        let scores = [0.1, 0.9, 0.0, 0.5, 0.2, 0.3];
        let found = tally(&[2, 3], &scores, &[1, 2], &[2]).unwrap();
        assert_eq!(found, Tally { rows: 2, right: 1, right5: None });
        // Labels below 0 do not count; of equal scores the first is the best.
        let found = tally(&[2, 3], &[1.0; 6], &[-100, 0], &[2, 1]).unwrap();
        assert_eq!(found, Tally { rows: 1, right: 1, right5: None });
        let found = tally(&[1, 3], &[f32::NAN; 3], &[0], &[]).unwrap();
        assert_eq!(found.right, 0);
    }

    #[test]
    fn one_of_five_is_enough_where_there_are_more() {
        let scores: Vec<f32> = (0..16).map(|class| class as f32).collect();
        let found = tally(&[2, 8], &scores, &[3, 2], &[2]).unwrap();
        assert_eq!(found, Tally { rows: 2, right: 0, right5: Some(1) });
    }

    #[test]
    fn classes_may_be_along_the_second_axis() {
        // [1, 2 classes, 2, 2]: class 1 wins in the first and the last place.
        let scores = [0.0, 9.0, 9.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        let found = tally(&[1, 2, 2, 2], &scores, &[1, 0, 0, 0], &[1, 2, 2]);
        // Last and second axis both fit a shape of twos: the last one is taken.
        assert!(found.is_ok());
        let scores = [0.0, 9.0, 9.0, 1.0, 1.0, 1.0];
        let found = tally(&[1, 2, 3], &scores, &[1, 0, 0], &[1, 3]).unwrap();
        assert_eq!(found, Tally { rows: 3, right: 3, right5: None });
    }

    #[test]
    fn an_output_of_classes_is_compared_as_it_is() {
        let mut found = Tally::default();
        let output = Tensor::of(vec![3], &[1i64, 2, 3]).unwrap();
        found.add(&output, &[1, 2, 4], &[3]).unwrap();
        assert_eq!(found, Tally { rows: 3, right: 2, right5: None });
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let error = tally(&[2, 3], &[0.0; 6], &[0; 3], &[3]).unwrap_err();
        assert_eq!(error, "labels of shape [3] do not fit an output of shape [2, 3]");
        let error = tally(&[1, 3], &[0.0; 3], &[7], &[1]).unwrap_err();
        assert_eq!(error, "label 7 is none of 3 classes");
    }
}

#[cfg(test)]
mod planted;
