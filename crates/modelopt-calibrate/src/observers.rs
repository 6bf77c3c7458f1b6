//! The observers, one a file.

mod channels;
mod histogram;
mod min_max;
mod moments;
mod moving;
mod percentile;
mod ranges;
mod sixteen_bit;

pub use histogram::{Distribution, Histogram};
pub use min_max::{Extremes, MinMax};
pub use moments::{ChannelMoments, Moments};
pub use moving::Moving;
pub use ranges::{MOST_RANGES, Ranges};
pub use sixteen_bit::SixteenBit;
