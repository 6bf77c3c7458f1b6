//! What to plan.

use std::collections::HashMap;

use super::capabilities::Capabilities;
use crate::choices::{Numerics, QuantFormat};
use crate::forms::Scheme;
use crate::precision::PrecisionOptions;
use crate::select::Pattern;

/// What to plan.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// The scheme to use wherever it is possible; where it is not, the next one down. By default
    /// what pays on the target.
    pub scheme: Option<Scheme>,
    /// What the runtime is good at that the model is going to run in.
    pub target: Capabilities,
    /// How long layers took, by name: what was measured counts more than what the table says.
    pub measured: HashMap<String, MeasuredLayer>,
    /// What was seen of tensors, by name: what takes activations by ranges is possible only with these.
    pub observed: HashMap<String, ObservedTensor>,
    /// Whether the version of the operators stays, whatever forms would need.
    pub keep_opset: bool,
    /// How weights are turned into integers.
    pub numerics: Numerics,
    /// How computing on integers is written, where layers take ranges.
    pub format: QuantFormat,
    /// How to decide what computes in 16 bits, for schemes that do.
    pub precision: PrecisionOptions,
    /// Weights smaller than this are left alone, in bytes.
    pub min_weight_bytes: usize,
    /// If not empty, only these layers are changed.
    pub include: Vec<Pattern>,
    /// These layers are not changed.
    pub exclude: Vec<Pattern>,
}

/// What was seen of a tensor before the plan was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ObservedTensor {
    /// The smallest number to express.
    pub min: f32,
    /// The largest one.
    pub max: f32,
    /// How many numbers it has, on the largest sample.
    pub elements: u64,
}

/// How long one layer took, on the target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeasuredLayer {
    /// Time of each scheme that is possible, divided by that of the layer as it is.
    pub ratios: Vec<(Scheme, f64)>,
    /// Where it was measured, such as `onnxruntime 1.32.0`.
    pub place: String,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions {
            scheme: None,
            target: Capabilities::default(),
            measured: HashMap::new(),
            observed: HashMap::new(),
            keep_opset: false,
            numerics: Numerics::default(),
            format: QuantFormat::default(),
            precision: PrecisionOptions::default(),
            min_weight_bytes: 4096,
            include: Vec::new(),
            exclude: Vec::new(),
        }
    }
}
