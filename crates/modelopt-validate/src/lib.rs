//! Is the candidate still the same model? Plain data and the computation behind it.
//!
//! - [`References::profile`] looks at what the original makes of all samples: which elements of an
//!   output belong together, how large those are, and what is chosen among them ([`Profile`]).
//! - [`compare`] runs the candidate on the samples; [`Accumulator`] compares the outputs, sample by
//!   sample, part by part, into a [`Parity`]. [`SizeChange`] and [`LatencyComparison`] hold the other two
//!   measurements.
//! - [`judge`] holds them against [`Limits`] and gives a [`Verdict`].
//!
//! **What cannot be judged fails.** A figure that is NaN, a limit that is NaN, an output that
//! is not there and a limit asked for on an output that has no such figure are failed checks,
//! never silent passes.
//!
//! In JSON, infinities and NaN are written as the strings `"inf"`, `"-inf"` and `"nan"`, and
//! read back from them.
//!
//! Left out on purpose: complex and 8-bit float outputs are compared bit for bit, because no
//! runtime here returns them.
#![allow(clippy::float_cmp)] // Whether numbers are equal is the question here.

mod accumulator;
mod compare;
mod culprit;
mod decisions;
mod elements;
mod exact;
mod figures;
mod float;
mod gate;
mod highest;
mod latency;
mod metric;
pub mod number;
mod origin;
mod parity;
mod profile;
mod scores;
mod size;
mod sums;
mod timing;

pub use accumulator::Accumulator;
pub use compare::{CompareError, Kept, References, Side, compare};
pub use culprit::{Culprit, SlowLayer};
pub use gate::{
    Bound, Check, Limits, Measurements, OutputLimits, Reason, Unit, Unjudged, Verdict, judge,
};
pub use latency::{Distribution, Footprint, LatencyComparison};
pub use metric::{Direction, FurtherFigure, MaxDrop, MetricChange};
pub use origin::Origins;
pub use parity::{
    Decisions, FloatParity, OutputParity, Parity, PartParity, Selected, SentinelParity, TensorForm,
    Tolerance,
};
pub use profile::{Profile, margin};
pub use size::SizeChange;
pub use timing::{LatencyOptions, compare_latency, measure_latency};
