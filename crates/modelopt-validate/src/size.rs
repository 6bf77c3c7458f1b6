//! How much smaller a model became.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sizes of the two models on disk, external data included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SizeChange {
    /// Bytes of the original.
    pub original_bytes: u64,
    /// Bytes of the candidate.
    pub candidate_bytes: u64,
}

impl SizeChange {
    /// Growth below this is none, in bytes: what casts around a model, their names, and metadata
    /// that says where it comes from take, however small the model is.
    pub const SLACK: u64 = 4096;

    /// Whether the candidate exceeds what a limit of the ratio allows by no more than
    /// [`SizeChange::SLACK`].
    pub fn is_slight(&self, min_ratio: f64) -> bool {
        let allowed = self.original_bytes as f64 / min_ratio;
        self.candidate_bytes as f64 <= allowed + Self::SLACK as f64
    }

    /// `original / candidate`: 4 means a quarter of the size, below 1 means grown.
    ///
    /// Two empty models give 1; an empty candidate of a non-empty original gives +∞.
    pub fn ratio(&self) -> f64 {
        if self.original_bytes == self.candidate_bytes {
            1.0
        } else {
            self.original_bytes as f64 / self.candidate_bytes as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(original_bytes: u64, candidate_bytes: u64) -> f64 {
        SizeChange { original_bytes, candidate_bytes }.ratio()
    }

    #[test]
    fn ratios_are_above_one_when_the_model_shrank() {
        assert_eq!(ratio(400, 100), 4.0);
        assert_eq!(ratio(100, 400), 0.25);
    }

    #[test]
    fn empty_models_divide_safely() {
        assert_eq!(ratio(0, 0), 1.0);
        assert_eq!(ratio(1, 0), f64::INFINITY);
        assert_eq!(ratio(0, 1), 0.0);
    }
}
