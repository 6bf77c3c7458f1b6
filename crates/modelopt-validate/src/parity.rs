//! Parity as data: how close the outputs of a candidate are to the original's.

mod decisions;
mod float;

use std::fmt;

use modelopt_graph::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use decisions::Decisions;
pub use float::{FloatParity, Tolerance};

use crate::number::Float;

/// An output that is less close to itself than this, less 3 dB, cannot be judged.
const LEAST_ATTAINABLE_DB: f64 = 10.0;

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
#[allow(clippy::struct_excessive_bools)] // Each is a key of its own in reports.
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
    /// The figures of float outputs; `None` for other types, where in no sample both are floats of
    /// the same shape, and where the original is NaN throughout. Different float types are compared all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub float: Option<FloatParity>,
    /// Elements that differ, summed over the samples, for outputs that are no floats: integers,
    /// booleans, strings. `None` for floats, and where in no sample type and shape are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatches: Option<u64>,
    /// Share of elements, from 0 to 1 and over all samples together, that are equal, for integers
    /// and booleans that depend on floats; others must all be equal.
    #[serde(with = "crate::number::optional", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Float>")]
    pub agreement: Option<f64>,
    /// The parts of an output that differ by orders of magnitude, each judged for itself; empty if
    /// it is judged as one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartParity>,
    /// Numbers that stand for something else than a quantity, such as those of masks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sentinels: Vec<SentinelParity>,
    /// How choices among the elements came out, where the output may be one of scores, or is one
    /// of places that are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisions: Option<Decisions>,
    /// How close the original is to itself when it runs again, in dB, where that is not close to
    /// equal: nothing can be judged more closely.
    #[serde(with = "crate::number::optional", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Float>")]
    pub itself_db: Option<f64>,
    /// Whether this is no output, but a value that outputs are chosen by.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
    /// Where rows are chosen: the operator, and the values that are judged in this output's place
    /// where another choice changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected: Option<Selected>,
}

/// How close one part of an output is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PartParity {
    /// Like `output0[:, 4:24]`, or with the numbers that set it apart.
    pub name: String,
    /// Elements compared, over all samples.
    pub elements: u64,
    /// Whether they are probabilities, whose errors are held against 0.1 where that is more than
    /// there is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probability: bool,
    /// Like [`FloatParity::sqnr_db`].
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub sqnr_db: f64,
    /// The sample that it comes from.
    pub worst_sample: String,
    /// `max |ref − cand|`, in the unit of the output.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub max_abs_error: f64,
}

/// What became of elements that stand for something else than a quantity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SentinelParity {
    /// The number that they are, but for a little that is added.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub value: f64,
    /// How many there are, over all samples.
    pub elements: u64,
    /// How many are something else in the candidate.
    pub changed: u64,
}

/// How the rows of an output are chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Selected {
    /// The operator that chooses.
    pub by: String,
    /// The values that are judged instead.
    pub reads: Vec<String>,
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

impl OutputParity {
    /// A limit on the SQNR, in dB, as far as this output can be held to it: 3 dB below how close the
    /// original is to itself, which is what two runs of it differ by each. Below 10 dB nothing is
    /// proven, and the limit stays.
    pub fn attainable_db(&self, limit: f64) -> f64 {
        let attainable = self.itself_db.map(|itself| itself - 3.0);
        attainable.filter(|db| *db >= LEAST_ATTAINABLE_DB).map_or(limit, |db| limit.min(db))
    }

    /// The part that is furthest from the original, if the output has several.
    pub fn worst_part(&self) -> Option<&PartParity> {
        let parts = self.parts.iter();
        parts.reduce(|a, b| if a.sqnr_db.is_nan() || a.sqnr_db <= b.sqnr_db { a } else { b })
    }
}
