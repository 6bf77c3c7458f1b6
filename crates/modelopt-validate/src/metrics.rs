//! Parity: how close the outputs of a candidate are to the original's.

use std::collections::HashMap;
use std::fmt;

use indexmap::IndexMap;
use modelopt_graph::{DataType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exact;
use crate::float::{FloatParity, Floats, Tolerance};
use crate::resolution::Resolution;
use crate::scores::Agreement;

/// How close a candidate is to its original on the samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Parity {
    /// The outputs of the original, in its order.
    pub outputs: Vec<OutputParity>,
    /// Names of outputs that only the candidate has, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_outputs: Vec<String>,
    /// Number of samples compared.
    pub samples: usize,
    /// Whether any sample was made up rather than given.
    pub synthetic: bool,
}

/// How close one output is, over all samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutputParity {
    /// Name of the output.
    pub name: String,
    /// Elements of the original, summed over the samples.
    pub elements: u64,
    /// Whether the candidate gave this output for every sample.
    pub present: bool,
    /// Whether the element type was the same for every sample.
    pub type_equal: bool,
    /// Whether the shape was the same for every sample.
    pub shape_equal: bool,
    /// Type and shape of the original in the first sample where the two differ, or else in the
    /// first sample.
    pub original: TensorForm,
    /// Type and shape of the candidate in that sample; `None` if it has no such output.
    pub candidate: Option<TensorForm>,
    /// The figures of float outputs; `None` for other types, and where in no sample both are
    /// floats of the same shape. Different float types are compared all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub float: Option<FloatParity>,
    /// Elements that differ, summed over the samples, for outputs that must be equal: integers,
    /// booleans, strings. `None` for floats, and where in no sample type and shape are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatches: Option<u64>,
}

/// Type and shape of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TensorForm {
    /// ONNX's name of the element type, such as `float16`.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl From<&Tensor> for TensorForm {
    fn from(tensor: &Tensor) -> Self {
        TensorForm { dtype: tensor.dtype().to_string(), shape: tensor.shape().to_vec() }
    }
}

/// Like `float[1, 3]`.
impl fmt::Display for TensorForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// Compares outputs sample by sample; holds figures, not tensors.
#[derive(Debug, Default)]
pub struct Accumulator {
    close: Tolerance,
    parity: Parity,
    agreements: Vec<Agreement>,
    resolutions: Vec<Resolution>,
    peaks: HashMap<String, f64>,
}

impl Accumulator {
    /// No samples yet.
    pub fn new(close: Tolerance) -> Self {
        Accumulator { close, ..Accumulator::default() }
    }

    /// The same for some of many samples, of which the largest magnitudes of the original's outputs
    /// are known, by name: errors that those do not resolve are none.
    #[must_use]
    pub fn beside(mut self, peaks: HashMap<String, f64>) -> Self {
        self.peaks = peaks;
        self
    }

    /// Takes in the outputs of both models for one sample.
    pub fn add(
        &mut self,
        sample: &str,
        synthetic: bool,
        original: &IndexMap<String, Tensor>,
        candidate: &IndexMap<String, Tensor>,
    ) {
        self.parity.samples += 1;
        self.parity.synthetic |= synthetic;
        for (name, tensor) in original {
            self.add_output(sample, name, tensor, candidate.get(name));
        }
        for name in candidate.keys() {
            if !original.contains_key(name) && !self.parity.extra_outputs.contains(name) {
                self.parity.extra_outputs.push(name.clone());
            }
        }
    }

    /// The figures over all samples taken in.
    pub fn finish(self) -> Parity {
        let mut parity = self.parity;
        let gathered = self.agreements.into_iter().zip(&self.resolutions);
        for (output, (agreement, resolution)) in parity.outputs.iter_mut().zip(gathered) {
            if let Some(float) = &mut output.float {
                let dtype = DataType::from_name(&output.original.dtype);
                if let Some((sqnr_db, sample)) =
                    resolution.worst(dtype.unwrap_or(DataType::UNDEFINED))
                {
                    float.sqnr_db = sqnr_db;
                    sample.clone_into(&mut float.worst_sample);
                }
                float.top1 = agreement.top1();
                float.top5 = agreement.top5();
            }
        }
        parity
    }

    fn add_output(
        &mut self,
        sample: &str,
        name: &str,
        original: &Tensor,
        candidate: Option<&Tensor>,
    ) {
        let at = self.parity.outputs.iter().position(|output| output.name == name);
        let at = at.unwrap_or_else(|| {
            self.parity.outputs.push(OutputParity::new(name, original, candidate));
            self.agreements.push(Agreement::default());
            self.resolutions.push(Resolution::beside(self.peaks.get(name).copied()));
            self.parity.outputs.len() - 1
        });
        let output = &mut self.parity.outputs[at];
        output.elements += original.len() as u64;
        output.compare_forms(original, candidate);
        let Some(candidate) = candidate.filter(|tensor| tensor.shape() == original.shape()) else {
            return;
        };
        if let (Some(a), Some(b)) = (Floats::of(original), Floats::of(candidate)) {
            let (figures, errors) = FloatParity::of(sample, &a, &b, self.close);
            self.resolutions[at].add(sample, figures.sqnr_db, errors);
            match &mut output.float {
                Some(float) => float.worsen(figures),
                none => *none = Some(figures),
            }
            self.agreements[at].add(original.shape(), &a, &b);
        } else if original.dtype() == candidate.dtype() {
            *output.mismatches.get_or_insert(0) += exact::mismatches(original, candidate);
        }
    }
}

impl OutputParity {
    fn new(name: &str, original: &Tensor, candidate: Option<&Tensor>) -> Self {
        OutputParity {
            name: name.to_owned(),
            elements: 0,
            present: true,
            type_equal: true,
            shape_equal: true,
            original: original.into(),
            candidate: candidate.map(Into::into),
            float: None,
            mismatches: None,
        }
    }

    fn compare_forms(&mut self, original: &Tensor, candidate: Option<&Tensor>) {
        let present = candidate.is_some();
        let type_equal = candidate.is_none_or(|tensor| tensor.dtype() == original.dtype());
        let shape_equal = candidate.is_none_or(|tensor| tensor.shape() == original.shape());
        let equal_so_far = self.present && self.type_equal && self.shape_equal;
        if equal_so_far && !(present && type_equal && shape_equal) {
            self.original = original.into();
            self.candidate = candidate.map(Into::into);
        }
        self.present &= present;
        self.type_equal &= type_equal;
        self.shape_equal &= shape_equal;
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use modelopt_graph::Element;
    use proptest::prelude::*;

    use super::*;

    type Outputs = IndexMap<String, Tensor>;

    fn outputs<const N: usize>(outputs: [(&str, Tensor); N]) -> Outputs {
        outputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
    }

    fn row<T: Element>(elements: &[T]) -> Tensor {
        Tensor::of(vec![1, elements.len()], elements).unwrap()
    }

    fn parity_of(samples: &[(&str, Outputs, Outputs)]) -> Parity {
        let mut accumulator = Accumulator::new(Tolerance::default());
        for (name, original, candidate) in samples {
            accumulator.add(name, false, original, candidate);
        }
        accumulator.finish()
    }

    fn output_of(original: Tensor, candidate: Tensor) -> OutputParity {
        parity_of(&[("s", outputs([("y", original)]), outputs([("y", candidate)]))])
            .outputs
            .remove(0)
    }

    #[test]
    fn the_worst_sample_is_named() {
        let original = outputs([("y", row(&[1.0f32, 2.0]))]);
        let near = outputs([("y", row(&[1.0f32, 2.01]))]);
        let far = outputs([("y", row(&[1.5f32, 2.0]))]);
        let parity = parity_of(&[
            ("near", original.clone(), near.clone()),
            ("far", original.clone(), far),
            ("equal", original.clone(), original.clone()),
            ("near again", original, near),
        ]);
        let output = &parity.outputs[0];
        let float = output.float.as_ref().unwrap();
        assert_eq!((parity.samples, parity.synthetic), (4, false));
        assert_eq!((output.elements, output.mismatches), (8, None));
        assert_eq!((float.worst_sample.as_str(), float.max_abs_error), ("far", 0.5));
    }

    #[test]
    fn agreement_is_a_share_of_all_rows_not_the_worst_sample() {
        let ones = outputs([("y", row(&[0.0f32, 1.0]))]);
        let swapped = outputs([("y", row(&[1.0f32, 0.0]))]);
        let parity = parity_of(&[
            ("1", ones.clone(), ones.clone()),
            ("2", ones.clone(), swapped),
            ("3", ones.clone(), ones.clone()),
            ("4", ones.clone(), ones),
        ]);
        assert_eq!(parity.outputs[0].float.as_ref().unwrap().top1, Some(0.75));
    }

    #[test]
    fn scalars_and_empty_outputs_compare() {
        let empty = Tensor::of::<f32>(vec![0, 4], &[]).unwrap();
        let parity = parity_of(&[(
            "s",
            outputs([("scalar", Tensor::scalar(2.0f32)), ("empty", empty.clone())]),
            outputs([("scalar", Tensor::scalar(1.0f32)), ("empty", empty)]),
        )]);
        let floats: Vec<_> =
            parity.outputs.iter().map(|output| output.float.as_ref().unwrap()).collect();
        assert_eq!((floats[0].max_abs_error, floats[0].top1), (1.0, None));
        assert_eq!((floats[1].sqnr_db, floats[1].top1), (f64::INFINITY, None));
        assert_eq!(parity.outputs[1].elements, 0);
    }

    #[test]
    fn outputs_keep_the_order_of_the_original() {
        let original = outputs([("b", row(&[1i32])), ("a", row(&[1i32]))]);
        let candidate = outputs([("a", row(&[1i32])), ("b", row(&[1i32]))]);
        let parity = parity_of(&[("s", original, candidate)]);
        let names: Vec<_> = parity.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn an_output_that_comes_late_is_compared_too() {
        let early = outputs([("a", row(&[1i32]))]);
        let late = outputs([("a", row(&[1i32])), ("b", row(&[1i32]))]);
        let parity = parity_of(&[("1", early.clone(), early), ("2", late.clone(), late)]);
        assert_eq!(parity.outputs[1].mismatches, Some(0));
        assert_eq!(parity.extra_outputs, Vec::<String>::new());
    }

    #[test]
    fn one_synthetic_sample_marks_them_all() {
        let mut accumulator = Accumulator::default();
        for synthetic in [false, true, false] {
            accumulator.add("s", synthetic, &Outputs::new(), &Outputs::new());
        }
        assert!(accumulator.finish().synthetic);
    }

    #[test]
    fn missing_and_extra_outputs_are_told() {
        let original = outputs([("a", row(&[1.0f32])), ("b", row(&[1i64]))]);
        let candidate = outputs([("c", row(&[1.0f32])), ("a", row(&[1.0f32]))]);
        let parity = parity_of(&[
            ("1", original.clone(), original.clone()),
            ("2", original.clone(), candidate.clone()),
            ("3", original, candidate),
        ]);
        assert_eq!(parity.extra_outputs, ["c"]);
        assert!(parity.outputs[0].present && !parity.outputs[1].present);
        assert_eq!(parity.outputs[1].candidate, None);
    }

    #[test]
    fn another_shape_is_told_and_not_compared() {
        let output = output_of(row(&[1.0f32, 2.0]), row(&[1.0f32]));
        assert!(output.type_equal && !output.shape_equal);
        assert_eq!(output.original.to_string(), "float[1, 2]");
        assert_eq!(output.candidate.unwrap().to_string(), "float[1, 1]");
        assert_eq!(output.float, None);
    }

    #[test]
    fn the_first_sample_that_differs_is_shown() {
        let original = outputs([("y", row(&[1.0f32]))]);
        let wide = outputs([("y", row(&[1.0f32, 2.0]))]);
        let parity = parity_of(&[
            ("1", original.clone(), original.clone()),
            ("2", wide, original.clone()),
            ("3", original.clone(), outputs([("y", row(&[1i64]))])),
        ]);
        let output = &parity.outputs[0];
        assert_eq!(output.original.shape, [1, 2]);
        assert!(!output.type_equal && !output.shape_equal);
        assert!(output.float.is_some());
    }

    #[test]
    fn another_float_type_is_told_and_compared() {
        let output = output_of(row(&[0.1f32, 2.0]), row(&[f16::from_f32(0.1), f16::ONE]));
        assert!(!output.type_equal);
        assert_eq!(output.candidate.unwrap().dtype, "float16");
        assert_eq!(output.float.unwrap().max_abs_error, 1.0);
    }

    #[test]
    fn another_integer_type_is_told_and_not_compared() {
        let output = output_of(row(&[1i64]), row(&[1i32]));
        assert!(!output.type_equal && output.shape_equal);
        assert_eq!((output.float, output.mismatches), (None, None));
    }

    #[test]
    fn integer_mismatches_add_up() {
        let original = outputs([("y", row(&[1i64, 2, 3]))]);
        let candidate = outputs([("y", row(&[0i64, 2, 0]))]);
        let parity = parity_of(&[
            ("1", original.clone(), candidate.clone()),
            ("2", original.clone(), original.clone()),
            ("3", original, candidate),
        ]);
        assert_eq!(parity.outputs[0].mismatches, Some(4));
    }

    #[test]
    fn reads_back_what_it_writes() {
        let parity = parity_of(&[(
            "s",
            outputs([("y", row(&[0.0f32, 1.0])), ("n", row(&[1i64]))]),
            outputs([("y", row(&[0.0f32, 1.0])), ("x", row(&[1i64]))]),
        )]);
        let json = serde_json::to_string(&parity).unwrap();
        assert!(json.contains(r#""sqnr_db":"inf""#), "{json}");
        assert_eq!(serde_json::from_str::<Parity>(&json).unwrap(), parity);
    }

    proptest! {
        #[test]
        fn the_order_of_samples_does_not_matter(
            samples in prop::collection::vec(
                prop::collection::vec((-10.0f32..10.0, -10.0f32..10.0), 6),
                1..6,
            ),
        ) {
            let samples: Vec<_> = samples.into_iter().enumerate().map(|(i, pairs)| {
                let (original, candidate): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
                (i.to_string(), outputs([("y", row(&original))]), outputs([("y", row(&candidate))]))
            }).collect();
            let parity = |order: &mut dyn Iterator<Item = &(String, Outputs, Outputs)>| {
                let mut accumulator = Accumulator::default();
                for (name, original, candidate) in order {
                    accumulator.add(name, false, original, candidate);
                }
                accumulator.finish()
            };
            let forwards = parity(&mut samples.iter());
            prop_assert_eq!(forwards, parity(&mut samples.iter().rev()));
        }
    }
}
