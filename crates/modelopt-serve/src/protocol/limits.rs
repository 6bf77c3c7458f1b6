//! How much a request may have of what costs memory.

use crate::ServeError;

/// How much a request may have of what costs memory. What a request takes is in proportion to its body,
/// whatever it says about itself; these hold where that is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Inputs, and outputs that are asked for.
    pub tensors: usize,
    /// Dimensions of a tensor.
    pub rank: usize,
    /// Elements of a tensor.
    pub elements: usize,
    /// Bytes of a tensor.
    pub tensor_bytes: usize,
    /// Objects and arrays of JSON in each other.
    pub depth: usize,
}

impl Default for Limits {
    /// Pictures and documents in batches fit; what is larger than a body may be does not.
    fn default() -> Self {
        Limits { tensors: 256, rank: 32, elements: 1 << 27, tensor_bytes: 1 << 29, depth: 64 }
    }
}

/// Refuses a count above its limit; what is counted is put into words only then.
pub(crate) fn hold(
    count: usize,
    limit: usize,
    what: impl FnOnce() -> String,
) -> Result<(), ServeError> {
    if count <= limit {
        return Ok(());
    }
    Err(ServeError::TooMany { what: what(), count: count as u64, limit: limit as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_at_its_limit_is_taken_and_one_above_it_is_not() {
        let what = || "elements of input 'x'".to_owned();
        assert_eq!(hold(8, 8, what), Ok(()));
        let error = hold(9, 8, what).unwrap_err();
        assert_eq!(error.to_string(), "elements of input 'x': 9, but at most 8 are taken");
        assert_eq!(error.status(), 413);
    }
}
