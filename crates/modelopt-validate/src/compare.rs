//! Runs both models on the same samples.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use modelopt_graph::Tensor;
use modelopt_runtime::{Outputs, RuntimeError, Sample, SampleKind, Session};

use crate::origin::Origins;
use crate::profile::Profile;
use crate::{Accumulator, Parity, Tolerance};

/// The most that outputs of the original may take to be kept, in bytes.
const MOST_KEPT: usize = 1 << 30;

/// Why two models could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// There is nothing to run the models on.
    #[error("there are no samples to compare the models on; give or synthesise at least one")]
    NoSamples,
    /// There is not one number on a sample that another could be held against.
    #[error(
        "no finite value to compare: on sample '{sample}' the original's output '{output}' is NaN throughout"
    )]
    NothingComparable {
        /// Name of the sample.
        sample: String,
        /// Name of the output, the first of several.
        output: String,
    },
    /// A sample is no sample.
    #[error(
        "no finite value to compare: on sample '{sample}' the input '{input}' is NaN throughout, so that no output, such as '{output}', means anything"
    )]
    NoInput {
        /// Name of the sample.
        sample: String,
        /// Name of the input.
        input: String,
        /// Name of the original's first output.
        output: String,
    },
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

/// Outputs of the original on its samples, as far as there is room.
#[derive(Debug, Default)]
pub struct Kept {
    /// By place of the sample.
    known: HashMap<usize, Outputs>,
    bytes: usize,
}

/// What the original makes of samples.
pub struct References<'a> {
    session: &'a mut dyn Session,
    samples: &'a [Sample],
    kept: &'a mut Kept,
}

impl fmt::Debug for References<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("References").field("kept", &self.kept.bytes).finish_non_exhaustive()
    }
}

impl<'a> References<'a> {
    /// Those of a session; `kept` belongs to it and to these samples, and is empty at first.
    pub fn new(session: &'a mut dyn Session, samples: &'a [Sample], kept: &'a mut Kept) -> Self {
        References { session, samples, kept }
    }

    /// The samples.
    pub fn samples(&self) -> &'a [Sample] {
        self.samples
    }

    /// The original's outputs on the sample at a place.
    ///
    /// # Errors
    /// If the original does not run on it, or there is no such sample.
    pub fn get(&mut self, place: usize) -> Result<Cow<'_, Outputs>, CompareError> {
        if !self.kept.known.contains_key(&place) {
            let sample = self.samples.get(place).ok_or(CompareError::NoSamples)?;
            let outputs = self.session.run(&sample.inputs).map_err(|source| CompareError::Run {
                side: Side::Original,
                sample: sample.name.clone(),
                source,
            })?;
            let size: usize = outputs.values().map(Tensor::byte_len).sum();
            if self.kept.bytes + size > MOST_KEPT {
                return Ok(Cow::Owned(outputs));
            }
            self.kept.bytes += size;
            self.kept.known.insert(place, outputs);
        }
        self.kept.known.get(&place).map(Cow::Borrowed).ok_or(CompareError::NoSamples)
    }

    /// What the outputs are like on all samples.
    ///
    /// # Errors
    /// If the original does not run on one, or makes nothing of it that could be compared.
    pub fn profile(&mut self, origins: Origins) -> Result<Profile, CompareError> {
        let samples = self.samples;
        if samples.is_empty() {
            return Err(CompareError::NoSamples);
        }
        for (place, sample) in samples.iter().enumerate() {
            let outputs = self.get(place)?;
            if let Some(input) = sample.inputs.iter().find(|(_, tensor)| is_nan(tensor)) {
                return Err(CompareError::NoInput {
                    sample: sample.name.clone(),
                    input: input.0.clone(),
                    output: outputs.keys().next().cloned().unwrap_or_default(),
                });
            }
            if let Some(output) = not_a_number(&outputs) {
                return Err(CompareError::NothingComparable {
                    sample: sample.name.clone(),
                    output,
                });
            }
        }
        Profile::of(origins, samples.len(), |place, see| {
            see(&*self.get(place)?);
            Ok(())
        })
    }
}

/// The first output, if all of them are NaN throughout, or empty.
fn not_a_number(outputs: &Outputs) -> Option<String> {
    let mut first = None;
    for (name, tensor) in outputs {
        if is_nan(tensor) {
            first.get_or_insert_with(|| name.clone());
        } else if !tensor.is_empty() {
            return None;
        }
    }
    first
}

/// Whether a tensor is of floats and has nothing but NaN.
fn is_nan(tensor: &Tensor) -> bool {
    let Some(floats) = crate::elements::Floats::of(tensor).filter(|_| !tensor.is_empty()) else {
        return false;
    };
    let mut nan = true;
    floats.each_block(|block| nan &= block.iter().all(|x| x.is_nan()));
    nan
}

/// Parity on all samples, with the default [`Tolerance`].
///
/// `profile` says what the original's outputs are like, see [`References::profile`]. `progress` is
/// told how many samples are done, and of how many, after each.
///
/// # Errors
/// If one of the models does not run on a sample.
pub fn compare(
    references: &mut References<'_>,
    candidate: &mut dyn Session,
    profile: &Arc<Profile>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Parity, CompareError> {
    let samples = references.samples();
    let mut accumulator = Accumulator::new(Arc::clone(profile), Tolerance::default());
    for (place, sample) in samples.iter().enumerate() {
        let theirs = candidate.run(&sample.inputs).map_err(|source| CompareError::Run {
            side: Side::Candidate,
            sample: sample.name.clone(),
            source,
        })?;
        let synthetic = sample.kind == SampleKind::Synthetic;
        accumulator.add(&sample.name, synthetic, &*references.get(place)?, &theirs);
        progress(place + 1, samples.len());
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
                let model = std::path::Path::new("m.onnx");
                return Err(RuntimeError::run("planted", model, x));
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

    fn compared(
        original: &mut Times,
        candidate: &mut Times,
        samples: &[Sample],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Parity, CompareError> {
        let mut kept = Kept::default();
        let mut references = References::new(original, samples, &mut kept);
        let profile = Arc::new(references.profile(Origins::default())?);
        compare(&mut references, candidate, &profile, progress)
    }

    #[test]
    fn samples_are_combined_and_progress_is_told() {
        let mut told = Vec::new();
        let (mut original, mut candidate) = (Times(1.0, 10.0), Times(1.5, 10.0));
        let mut tell = |done, of| told.push((done, of));
        let parity =
            compared(&mut original, &mut candidate, &real(&[1.0, 4.0]), &mut tell).unwrap();
        assert_eq!(told, [(1, 2), (2, 2)]);
        assert_eq!((parity.samples, parity.synthetic), (2, false));
        assert_eq!(parity.outputs[0].float.as_ref().unwrap().max_abs_error, 2.0);
    }

    #[test]
    fn synthetic_samples_are_told() {
        let samples = [sample(1.0, SampleKind::Real), sample(2.0, SampleKind::Synthetic)];
        let model = || Times(1.0, 10.0);
        let parity = compared(&mut model(), &mut model(), &samples, &mut |_, _| {}).unwrap();
        assert!(parity.synthetic);
    }

    #[test]
    fn failures_name_the_side_the_sample_and_the_cause() {
        let samples = real(&[1.0, 4.0]);
        let error = compared(&mut Times(1.0, 9.0), &mut Times(1.0, 2.0), &samples, &mut |_, _| {})
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("the candidate model failed on sample 's4': "), "{error}");
        assert!(error.contains("m.onnx: 4"), "{error}");
        let error = compared(&mut Times(1.0, 0.0), &mut Times(1.0, 0.0), &samples, &mut |_, _| {})
            .unwrap_err();
        assert!(matches!(error, CompareError::Run { side: Side::Original, .. }));
    }

    #[test]
    fn no_samples_is_an_error() {
        let error = compared(&mut Times(1.0, 0.0), &mut Times(1.0, 0.0), &[], &mut |_, _| {});
        assert!(matches!(error, Err(CompareError::NoSamples)));
    }

    #[test]
    fn nothing_to_compare_is_an_error_that_names_sample_and_output() {
        let samples = real(&[1.0, 2.0]);
        let mut broken = Times(f32::NAN, 9.0);
        let error = compared(&mut broken, &mut Times(1.0, 9.0), &samples, &mut |_, _| {});
        let told = error.unwrap_err().to_string();
        assert!(told.contains("'s1'") && told.contains("'y'"), "{told}");
        let error = compared(
            &mut Times(1.0, 9.0),
            &mut Times(1.0, 9.0),
            &real(&[1.0, f32::NAN]),
            &mut |_, _| {},
        );
        let told = error.unwrap_err().to_string();
        assert!(told.contains("'sNaN'") && told.contains("'x'"), "{told}");
        let (nan, one) = (Tensor::scalar(f32::NAN), Tensor::scalar(1i64));
        let outputs: Outputs = [("y".to_owned(), nan), ("n".to_owned(), one)].into();
        assert_eq!(not_a_number(&outputs), None);
    }
}
