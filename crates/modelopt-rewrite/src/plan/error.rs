//! Why a plan cannot be used.

use super::Plan;
use crate::forms::Scheme;

/// A plan that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It is not TOML of the right form.
    #[error("the plan cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// It is of a version this program does not know.
    #[error("the plan is of version {0}; this program reads versions 1 to {latest}", latest = Plan::VERSION)]
    Version(u32),
    /// It names a layer that the model does not have.
    #[error(
        "the plan names a layer '{0}' that the model does not have; `modelopt plan` lists those it has"
    )]
    UnknownLayer(String),
    /// It names a layer twice.
    #[error("the plan names the layer '{0}' twice")]
    Twice(String),
    /// It asks for what cannot be done.
    #[error("the plan asks for {scheme} at '{layer}', which is not possible: {why}")]
    Impossible {
        /// Layer.
        layer: String,
        /// Scheme.
        scheme: Scheme,
        /// Why not.
        why: String,
    },
    /// It has a range that cannot be used.
    #[error("the plan has a range for the tensor '{tensor}', {why}")]
    Range {
        /// Tensor.
        tensor: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It says how computing on integers is written, and nothing does by ranges.
    #[error("the plan has a format of quantized operators, and no layer takes ranges")]
    Format,
    /// A pattern of `include` or `exclude` is malformed or fits no layer.
    #[error("the pattern '{pattern}' {why}")]
    Pattern {
        /// Pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
}
