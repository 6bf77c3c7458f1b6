//! What is decided of an input before its values are invented.

use modelopt_graph::DataType;

/// What to invent for one input.
pub(super) struct InputPlan<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: DataType,
    pub(super) shape: Vec<usize>,
    /// Integers must be below this.
    pub(super) bound: Option<u64>,
    /// The value of an input that says how to compute.
    pub(super) control: Option<Vec<i64>>,
}
