//! How to decide what computes in 16 bits.

use std::collections::HashMap;

use modelopt_graph::ValueId;

use crate::plan::Interface;

/// How to decide what computes in 16 bits.
#[derive(Clone, Debug)]
pub struct PrecisionOptions {
    /// What becomes of the model's inputs and outputs.
    pub io: Interface,
    /// Keep normalizations and Softmax in float32.
    pub float32_statistics: bool,
    /// Weights and measured activations that rounding leaves with less than this stay float32, in
    /// dB.
    pub min_rounding_sqnr_db: f64,
    /// Values of the prepared model that were seen to lose too much, with the reason.
    pub unfit: HashMap<ValueId, String>,
}

impl Default for PrecisionOptions {
    fn default() -> Self {
        PrecisionOptions {
            io: Interface::default(),
            float32_statistics: false,
            min_rounding_sqnr_db: 40.0,
            unfit: HashMap::new(),
        }
    }
}
