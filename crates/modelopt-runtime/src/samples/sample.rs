//! A sample as data.

use indexmap::IndexMap;
use modelopt_graph::Tensor;
use serde::{Deserialize, Serialize};

/// One set of named inputs.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What reports call it: file or folder name, or `synthetic-N`.
    pub name: String,
    /// Inputs by name, in the order of the model's inputs.
    pub inputs: IndexMap<String, Tensor>,
    /// Where it comes from.
    pub kind: SampleKind,
}

/// Where a sample comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleKind {
    /// The user gave it.
    Real,
    /// It was invented by [`crate::synthesize`].
    Synthetic,
}

/// Arrays by name.
pub(super) type Arrays = IndexMap<String, Tensor>;
