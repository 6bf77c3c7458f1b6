//! What flows through a model: observers, the pass over the original that feeds them, and
//! calibration files.
//!
//! An [`Observer`] looks at the tensors of one value, sample by sample, and ends in a statistic. A
//! [`Pass`] runs the original once and feeds any number of them. A [`Calibration`] is what they saw, as
//! a file: shards of the samples, seen on different machines, add up to exactly what one pass over all
//! samples gives.
//!
//! Values inside branches and loops are not observed: they cannot be made outputs without changing
//! what the model does.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod activations;
mod calibration;
mod exact_sum;
mod extent;
mod groups;
mod layer_digests;
mod needs;
mod observations;
mod observer;
mod observers;
mod packed;
mod pass;
mod pass_error;
mod range;
mod registry;
mod samples;
mod session;
mod shown;
mod summary;
#[cfg(test)]
mod testing;
mod unfinished;

pub use activations::Activations;
pub use calibration::{Calibration, MergeError, ReadError, SampleList};
pub use exact_sum::ExactSum;
pub use extent::Extent;
pub use groups::shaped;
pub use layer_digests::{LayerDigests, Mismatch};
pub use needs::{LayerInputs, Rounded};
pub use observations::{Observations, Unlike, Unobservable, around, observable};
pub use observer::{AnyObserver, Observer, View};
pub use observers::{
    ChannelMoments, Distribution, Extremes, Histogram, MOST_RANGES, MinMax, Moments, Moving,
    Ranges, SixteenBit,
};
pub use pass::{Moment, Pass, Position, Step};
pub use pass_error::PassError;
pub use range::{EIGHT_BITS, Method, SIXTEEN_BITS, Spread, UnknownMethod};
pub use registry::{Kind, OBSERVERS, Unreadable};
pub use samples::{Part, Samples};
pub use session::OpenSession;
pub use shown::expose;
pub use summary::TensorRanges;
pub use unfinished::{Unfinished, UnfinishedError};
