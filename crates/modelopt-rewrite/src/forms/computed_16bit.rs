//! `fp16` and `bf16`: computed in 16 bits, with casts where regions that do so end:
//!
//! ```text
//! y = Op(x, W)
//!   =>
//! y = Cast<to = float>(Op(Cast<to = float16>(x), W_fp16))
//! ```
//!
//! These forms are chosen for nodes, not for weights: see [`crate::precision`], which plans them for
//! a whole model and carries them out region by region.

use super::form::{Activations, Form, Ladder, Sides, Storage};
use crate::choices::Precision;
use crate::site::Site;

/// Computed in a 16-bit type.
#[derive(Debug)]
pub(super) struct ComputedIn(pub(super) Precision);

impl Form for ComputedIn {
    fn about(&self) -> &'static str {
        match self.0 {
            Precision::Fp16 => "computed in float16",
            Precision::Bf16 => "computed in bfloat16",
        }
    }

    fn sides(&self) -> Sides {
        Sides {
            weights: Storage::of(self.0),
            activations: Activations::Unchanged,
            computes: Some(self.0),
        }
    }

    fn ladders(&self) -> &'static [Ladder] {
        match self.0 {
            Precision::Fp16 => &[Ladder::Sixteen(Precision::Fp16)],
            Precision::Bf16 => &[Ladder::Sixteen(Precision::Bf16)],
        }
    }

    fn eligible(&self, _site: &Site<'_>) -> Result<Vec<usize>, String> {
        Ok(Vec::new())
    }
}
