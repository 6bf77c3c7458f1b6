//! How far two float outputs are apart.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::figures::{higher, lower};
use crate::number::Float;

/// When two elements count as close: `|candidate − original| ≤ atol + rtol · |original|`, the
/// definition of `numpy.isclose`.
///
/// The default relative tolerance is that of the ONNX backend tests; the absolute one is looser
/// than theirs (1e-7), because sums of cancelling float32 terms are not exact to 1e-7.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tolerance {
    /// Relative part, ≥ 0; 1e-3 by default.
    #[serde(with = "crate::number")]
    pub rtol: f64,
    /// Absolute part, ≥ 0, in the unit of the output; 1e-5 by default.
    #[serde(with = "crate::number")]
    pub atol: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Tolerance { rtol: 1e-3, atol: 1e-5 }
    }
}

/// How far a float output of the candidate is from the original's; over several samples, the
/// worst of each figure unless it says otherwise.
///
/// `ref` and `cand` stand for the elements of original and candidate. Positions where either is
/// not finite are left out of all sums and counted instead. Figures that cannot be known are NaN,
/// which no limit accepts: when the candidate leaves not one finite element of the original
/// finite, and when sums, which are float64, overflow. Only float64 outputs beyond 1e±150 can
/// overflow or underflow them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FloatParity {
    /// `max |ref − cand|`, in the unit of the output; 0 if there are no elements.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub max_abs_error: f64,
    /// `mean |ref − cand|`, in the unit of the output; 0 if there are no elements.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub mean_abs_error: f64,
    /// `√(mean (ref − cand)²)`, in the unit of the output; 0 if there are no elements.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub rmse: f64,
    /// Signal to quantization noise ratio, `10 · log10(Σ ref² / Σ (ref − cand)²)` in dB, of the
    /// worst part on its worst sample.
    ///
    /// Errors below what the type resolves beside the part's largest element on any sample (four
    /// units in its last place) do not count, unless no sample has others. Errors of probabilities
    /// are held against 0.1 where that is more. Elements that stand for something else than a
    /// quantity are left out; they must stay what they are.
    /// +∞ when equal (all zero and no elements included), −∞ when the original is all zero and
    /// the candidate is not.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub sqnr_db: f64,
    /// The sample that `sqnr_db` comes from; the first of them if several tie.
    pub worst_sample: String,
    /// `Σ ref·cand / √(Σ ref² · Σ cand²)`, from −1 to 1: 1 when equal (two zero vectors
    /// included), 0 when just one of them is all zero.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub cosine: f64,
    /// Share of elements, from 0 to 1, that are not close by [`Tolerance`]; `new_non_finite` and
    /// `changed_non_finite` ones are among them.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub outside_tolerance: f64,
    /// Positions, over all samples, where the original is finite and the candidate is not.
    pub new_non_finite: u64,
    /// Positions, over all samples, where the original is NaN or infinite and the candidate is
    /// not the same: NaN for NaN, an infinity for the same infinity.
    pub changed_non_finite: u64,
    /// Share of rows, from 0 to 1 and over all samples together, where the candidate's highest
    /// score is (one of) the original's highest.
    ///
    /// Only for outputs that look like scores: rank ≥ 2 and 2 to 200 000 classes in the last
    /// dimension. Rows with a NaN in the original are left out; a NaN in the candidate's row
    /// alone is a disagreement.
    #[serde(with = "crate::number::optional", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Float>")]
    pub top1: Option<f64>,
    /// Share of rows, like `top1`, where the original's highest score is among the candidate's
    /// five highest; equal scores rank by class number. Needs 6 classes or more.
    #[serde(with = "crate::number::optional", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Float>")]
    pub top5: Option<f64>,
}

impl FloatParity {
    /// Takes the worse of each figure.
    pub(crate) fn worsen(&mut self, other: Self) {
        let sqnr_db = lower(self.sqnr_db, other.sqnr_db);
        if sqnr_db.to_bits() != self.sqnr_db.to_bits() {
            self.worst_sample = other.worst_sample;
        }
        self.sqnr_db = sqnr_db;
        self.max_abs_error = higher(self.max_abs_error, other.max_abs_error);
        self.mean_abs_error = higher(self.mean_abs_error, other.mean_abs_error);
        self.rmse = higher(self.rmse, other.rmse);
        self.cosine = lower(self.cosine, other.cosine);
        self.outside_tolerance = higher(self.outside_tolerance, other.outside_tolerance);
        self.new_non_finite += other.new_non_finite;
        self.changed_non_finite += other.changed_non_finite;
    }
}
