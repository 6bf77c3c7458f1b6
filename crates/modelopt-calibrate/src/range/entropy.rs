//! The range whose rounded numbers are distributed most like the original ones.

use std::iter::zip;

use super::ends::{Ends, search};
use crate::observers::Distribution;

/// What a bin has in the quantized distribution where the original has something and it has nothing.
const HARDLY: f64 = 1e-9;

/// The range with the least Kullback-Leibler divergence. It has no fewer bins than levels, because fewer
/// bins cannot tell levels apart.
pub(super) fn range(seen: &Distribution, levels: u32) -> (f64, f64) {
    let bins = Bins::of(seen);
    let whole = Ends { below: bins.zero, above: bins.counts.len() - bins.zero };
    let ends = search(whole, levels as usize, |ends| bins.divergence(ends, levels as usize));
    (-(ends.below as f64) * seen.width, ends.above as f64 * seen.width)
}

/// Counts of bins that lie side by side, 0 among their edges.
struct Bins {
    counts: Vec<f64>,
    /// How many bins are below 0.
    zero: usize,
}

impl Bins {
    fn of(seen: &Distribution) -> Self {
        let first = (seen.start / seen.width) as i64;
        let zero = usize::try_from(-first).unwrap_or_default();
        let ahead = usize::try_from(first).unwrap_or_default();
        let behind = zero.saturating_sub(seen.counts.len());
        let counts = seen.counts.iter().map(|&count| count as f64);
        let nothing = |count| std::iter::repeat_n(0.0, count);
        let mut counts: Vec<f64> = nothing(ahead).chain(counts).chain(nothing(behind)).collect();
        // Exact zeros stay what they are, whatever the range: they say nothing about it.
        if let Some(count) = counts.get_mut(zero) {
            *count -= seen.zeros as f64;
        }
        Bins { counts, zero }
    }

    /// How far the distribution, clipped to these ends, is from itself on so many levels.
    fn divergence(&self, ends: Ends, levels: usize) -> f64 {
        let (start, end) = (self.zero - ends.below, self.zero + ends.above);
        let kept = self.counts.get(start..end).unwrap_or_default();
        let outside = |part: Option<&[f64]>| part.unwrap_or_default().iter().sum::<f64>();
        let [left, right] = [outside(self.counts.get(..start)), outside(self.counts.get(end..))];
        let inside: f64 = kept.iter().sum();
        let all = inside + left + right;
        if all <= 0.0 {
            return 0.0;
        }
        if inside <= 0.0 {
            return f64::INFINITY;
        }
        let last = kept.len() - 1;
        let clipped = zip(0.., kept).map(|(place, &count)| {
            // What is clipped is found at the ends.
            let left = if place == 0 { left } else { 0.0 };
            let right = if place == last { right } else { 0.0 };
            (count + left + right) / all
        });
        let part = |(p, q): (f64, f64)| {
            if p > 0.0 { p * (p / (q / inside).max(HARDLY)).ln() } else { 0.0 }
        };
        zip(clipped, quantized(kept, levels)).map(part).sum()
    }
}

/// Counts on so many levels, spread over the bins of each that had any.
fn quantized(kept: &[f64], levels: usize) -> impl Iterator<Item = f64> {
    let edge = move |level: usize| level * kept.len() / levels;
    (0..levels).flat_map(move |level| {
        let bins = kept.get(edge(level)..edge(level + 1)).unwrap_or_default();
        let sum: f64 = bins.iter().sum();
        let filled = bins.iter().filter(|&&count| count > 0.0).count().max(1);
        bins.iter().map(move |&count| if count > 0.0 { sum / filled as f64 } else { 0.0 })
    })
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "numbers are exact here")]
mod tests {
    use super::*;

    #[test]
    fn levels_share_what_their_bins_have() {
        let kept = [4.0, 0.0, 2.0, 1.0, 1.0, 0.0];
        assert_eq!(quantized(&kept, 2).collect::<Vec<_>>(), [3.0, 0.0, 3.0, 1.0, 1.0, 0.0]);
        // As many levels as bins lose nothing.
        assert_eq!(quantized(&kept, 6).collect::<Vec<_>>(), kept);
    }

    #[test]
    fn the_divergence_is_that_of_the_textbook() {
        let bins = Bins { counts: vec![1.0, 3.0, 2.0, 2.0], zero: 0 };
        let whole = bins.divergence(Ends { below: 0, above: 4 }, 2);
        let expected: f64 = 0.125 * 0.5f64.ln() + 0.375 * 1.5f64.ln();
        assert!((whole - expected).abs() < 1e-12, "{whole}");
        assert_eq!(bins.divergence(Ends { below: 0, above: 4 }, 4), 0.0);
        // Two are clipped to the third: 3 of 6 in the quantized version, 4 of 8 in the other.
        let clipped = bins.divergence(Ends { below: 0, above: 3 }, 3);
        let expected: f64 = 0.125 * (0.125 * 6.0f64).ln()
            + 0.375 * (0.375 / 3.0 * 6.0f64).ln()
            + 0.5 * (0.5 / 2.0 * 6.0f64).ln();
        assert!((clipped - expected).abs() < 1e-12, "{clipped}");
    }
}
