//! Elements that are judged together, and when numbers say something.

use std::ops::Range;

/// The lowest scale that errors of probabilities are held against: 0.001 that becomes 0.002
/// changes nothing.
pub(crate) const PROBABILITY_SCALE: f64 = 0.1;

/// An output between 0 and 1 is one of probabilities, if it is not known to be, where its largest
/// element says at least something for or against.
pub(crate) const TELLING: f64 = 0.5;

/// By how much rounding may leave the range from 0 to 1.
pub(crate) const SLACK: f64 = 1e-6;

/// With fewer elements than this a part's own power on one sample says little of its size.
pub(crate) const FEW: u64 = 16;

/// The share of its size on all samples that a part with few elements has at least.
pub(crate) const LEAST_OF_FEW: f64 = 0.1;

/// Elements that are judged together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    /// Like `output0[:, 4:24]`; the output's name if it is all of it.
    pub(crate) name: String,
    /// Places along the axis.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Whether the elements are probabilities.
    pub(crate) probability: bool,
    /// The largest magnitude on all samples.
    pub(crate) peak: f64,
    /// Root of the mean square on all samples.
    pub(crate) rms: f64,
    /// Errors below this are not resolved by the output's type.
    pub(crate) floor: f64,
}

/// Whether numbers up to `small` are what float32 leaves of differences of numbers like `large`,
/// unless those are so large that they stand for something else.
pub(crate) fn is_noise_beside(small: f64, large: f64) -> bool {
    small < large * 1e-5 && large < 1e4
}
