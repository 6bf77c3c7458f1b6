//! Ranges from what was seen: from where to where a tensor is represented by integers.

mod ends;
mod entropy;
mod mean_squared;

use std::fmt;
use std::str::FromStr;

use crate::observers::Distribution;

/// Levels that 8 bits have.
pub const EIGHT_BITS: u32 = 1 << 8;

/// Levels that 16 bits have.
pub const SIXTEEN_BITS: u32 = 1 << 16;

/// The share of numbers that is kept where nobody says, in percent.
const USUAL_PERCENTILE: f64 = 99.99;

/// How a range is chosen. What is outside of it is clipped, what is inside is rounded: a narrower range
/// clips more and rounds less.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// From the least to the largest number: nothing is clipped.
    MinMax,
    /// The middle numbers, by their share in percent: as many are clipped on either side.
    Percentile(f64),
    /// The range whose rounded numbers are distributed most like the original ones: the least
    /// Kullback-Leibler divergence of the histogram from its quantized version (Migacz, 8-bit Inference
    /// with `TensorRT`, 2017), with either end found by itself.
    Entropy,
    /// The range with the least mean squared error of clipping and rounding together.
    MeanSquaredError,
    /// The mean, over samples, of the least and of the largest number of each.
    Moving,
}

/// What was seen of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// How often which numbers occur, over all samples.
    pub distribution: Distribution,
    /// The mean of where samples begin and of where they end.
    pub mean_range: Option<(f64, f64)>,
}

/// A name of no method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no way to choose ranges; there are min-max, percentile:99.99 (or another share in \
     percent), entropy, mse and moving"
)]
pub struct UnknownMethod(pub String);

impl Method {
    /// One of each, as it is used where nobody says more.
    pub const ALL: [Method; 5] = [
        Method::MinMax,
        Method::Percentile(USUAL_PERCENTILE),
        Method::Entropy,
        Method::MeanSquaredError,
        Method::Moving,
    ];

    /// The range for a tensor that is represented by so many levels.
    ///
    /// 0 is always inside, because integers that represent it exactly are what padding, `Relu` and
    /// zeros of the tensor itself need. A tensor that is 0 throughout has the range from 0 to 0. None
    /// where no finite number was seen. Levels below 2 count as 2.
    pub fn range(self, spread: &Spread, levels: u32) -> Option<(f32, f32)> {
        let Spread { distribution, mean_range } = spread;
        let (least, most) = distribution.extremes.range?;
        let whole = (f64::from(least), f64::from(most));
        let levels = levels.max(2);
        let chosen = match self {
            Method::MinMax => Some(whole),
            Method::Percentile(percent) => distribution.central_range(percent / 100.0),
            Method::Entropy => Some(entropy::range(distribution, levels)),
            Method::MeanSquaredError => return Some(mean_squared::range(distribution, levels)),
            Method::Moving => *mean_range,
        };
        let (low, high) = chosen?;
        // Where a bin ends nothing need have been seen.
        Some((low.max(whole.0).min(0.0) as f32, high.min(whole.1).max(0.0) as f32))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::MinMax => f.write_str("min-max"),
            Method::Percentile(percent) => write!(f, "percentile:{percent}"),
            Method::Entropy => f.write_str("entropy"),
            Method::MeanSquaredError => f.write_str("mse"),
            Method::Moving => f.write_str("moving"),
        }
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        let unknown = || UnknownMethod(name.to_owned());
        match name {
            "min-max" => Ok(Method::MinMax),
            "entropy" => Ok(Method::Entropy),
            "mse" => Ok(Method::MeanSquaredError),
            "moving" => Ok(Method::Moving),
            "percentile" => Ok(Method::Percentile(USUAL_PERCENTILE)),
            other => {
                let percent = other.strip_prefix("percentile:").ok_or_else(unknown)?;
                let percent: f64 = percent.parse().map_err(|_| unknown())?;
                if percent > 0.0 && percent <= 100.0 {
                    Ok(Method::Percentile(percent))
                } else {
                    Err(unknown())
                }
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "numbers are exact here")]
mod tests;
