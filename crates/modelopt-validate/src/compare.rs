//! Runs both models on the same samples.

use std::fmt;

use modelopt_runtime::{RuntimeError, Sample, SampleKind, Session};

use crate::{Accumulator, Parity, Tolerance};

/// Why two models could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// There is nothing to run the models on.
    #[error("there are no samples to compare the models on; give or synthesise at least one")]
    NoSamples,
    /// One of the models did not run.
    #[error("the {side} model failed on sample '{sample}': {source}")]
    Run {
        /// Which of the two.
        side: Side,
        /// Name of the sample.
        sample: String,
        /// What the runtime said.
        source: RuntimeError,
    },
}

/// One of the two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The model as it came.
    Original,
    /// The model that is to replace it.
    Candidate,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Original => "original",
            Side::Candidate => "candidate",
        })
    }
}

/// Parity on all samples, with the default [`Tolerance`].
///
/// `progress` is told how many samples are done, and of how many, after each. Outputs are let go
/// as soon as they are compared.
pub fn compare(
    original: &mut dyn Session,
    candidate: &mut dyn Session,
    samples: &[Sample],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Parity, CompareError> {
    compare_within(Tolerance::default(), original, candidate, samples, progress)
}

/// [`compare`] with another tolerance.
pub fn compare_within(
    close: Tolerance,
    original: &mut dyn Session,
    candidate: &mut dyn Session,
    samples: &[Sample],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Parity, CompareError> {
    if samples.is_empty() {
        return Err(CompareError::NoSamples);
    }
    let mut accumulator = Accumulator::new(close);
    for (done, sample) in samples.iter().enumerate() {
        let failed =
            |side| move |source| CompareError::Run { side, sample: sample.name.clone(), source };
        let ours = original.run(&sample.inputs).map_err(failed(Side::Original))?;
        let theirs = candidate.run(&sample.inputs).map_err(failed(Side::Candidate))?;
        accumulator.add(&sample.name, sample.kind == SampleKind::Synthetic, &ours, &theirs);
        progress(done + 1, samples.len());
    }
    Ok(accumulator.finish())
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use modelopt_graph::Tensor;

    use super::*;

    type Tensors = IndexMap<String, Tensor>;

    /// Multiplies its input by a factor, and fails on inputs above a bound.
    struct Times(f32, f32);

    impl Session for Times {
        fn run(&mut self, inputs: &Tensors) -> Result<Tensors, RuntimeError> {
            let x = inputs["x"].to_f32().unwrap()[0];
            if x > self.1 {
                return Err(RuntimeError::Unknown(x.to_string()));
            }
            Ok([("y".to_owned(), Tensor::scalar(x * self.0))].into())
        }
    }

    fn sample(x: f32, kind: SampleKind) -> Sample {
        let inputs = [("x".to_owned(), Tensor::scalar(x))].into();
        Sample { name: format!("s{x}"), inputs, kind }
    }

    fn real(xs: &[f32]) -> Vec<Sample> {
        xs.iter().map(|&x| sample(x, SampleKind::Real)).collect()
    }

    #[test]
    fn samples_are_combined_and_progress_is_told() {
        let mut told = Vec::new();
        let parity = compare(
            &mut Times(1.0, 10.0),
            &mut Times(1.5, 10.0),
            &real(&[1.0, 4.0]),
            &mut |done, of| told.push((done, of)),
        )
        .unwrap();
        assert_eq!(told, [(1, 2), (2, 2)]);
        assert_eq!((parity.samples, parity.synthetic), (2, false));
        assert_eq!(parity.outputs[0].float.as_ref().unwrap().max_abs_error, 2.0);
    }

    #[test]
    fn synthetic_samples_are_told() {
        let samples = [sample(1.0, SampleKind::Real), sample(2.0, SampleKind::Synthetic)];
        let model = || Times(1.0, 10.0);
        let parity = compare(&mut model(), &mut model(), &samples, &mut |_, _| {}).unwrap();
        assert!(parity.synthetic);
    }

    #[test]
    fn a_tolerance_of_your_own_decides_what_is_close() {
        let close = Tolerance { rtol: 0.6, atol: 0.0 };
        let (mut original, mut candidate) = (Times(1.0, 10.0), Times(1.5, 10.0));
        let parity =
            compare_within(close, &mut original, &mut candidate, &real(&[1.0]), &mut |_, _| {});
        assert_eq!(parity.unwrap().outputs[0].float.as_ref().unwrap().outside_tolerance, 0.0);
    }

    #[test]
    fn failures_name_the_side_the_sample_and_the_cause() {
        let samples = real(&[1.0, 4.0]);
        let error = compare(&mut Times(1.0, 9.0), &mut Times(1.0, 2.0), &samples, &mut |_, _| {})
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("the candidate model failed on sample 's4': "), "{error}");
        assert!(error.contains("'4'"), "{error}");
        let error = compare(&mut Times(1.0, 0.0), &mut Times(1.0, 0.0), &samples, &mut |_, _| {})
            .unwrap_err();
        assert!(matches!(error, CompareError::Run { side: Side::Original, .. }));
    }

    #[test]
    fn no_samples_is_an_error() {
        let error = compare(&mut Times(1.0, 0.0), &mut Times(1.0, 0.0), &[], &mut |_, _| {});
        assert!(matches!(error, Err(CompareError::NoSamples)));
    }
}
