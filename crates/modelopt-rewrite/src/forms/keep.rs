//! `keep`: the layer as it is; the end of every ladder.

use super::form::{Activations, Form, Ladder, Sides, Storage};
use crate::choices::Precision;
use crate::site::Site;

/// As it is.
#[derive(Debug)]
pub(super) struct Keep;

impl Form for Keep {
    fn about(&self) -> &'static str {
        "left as it is"
    }

    fn sides(&self) -> Sides {
        Sides { weights: Storage::UNCHANGED, activations: Activations::Unchanged, computes: None }
    }

    fn ladders(&self) -> &'static [Ladder] {
        &[Ladder::Int8, Ladder::Sixteen(Precision::Fp16), Ladder::Sixteen(Precision::Bf16)]
    }

    fn eligible(&self, _site: &Site<'_>) -> Result<Vec<usize>, String> {
        Ok(Vec::new())
    }
}
