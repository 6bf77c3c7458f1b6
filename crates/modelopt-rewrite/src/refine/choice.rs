//! Ways to choose how much of the range of an activation moves into the weights that read it.

/// Shares of channels that may be taken for equally loud.
const QUIET: [f32; 4] = [0.0, 0.5, 0.8, 0.95];

/// What smoothing must leave of the noise to be worth a node: 1 dB less.
pub(super) const WORTHWHILE: f64 = 0.8;

/// Means and ranges of fewer numbers than this say more of the samples than of the model.
pub(super) const FEWEST: u64 = 64;

/// Divisors stay within this factor of their mean, so that a channel that was quiet on the samples
/// does not take all precision when it is not.
const WIDEST: f32 = 1000.0;

/// How to choose factors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// How much of the range moves into the weights, from 0 to 1: alpha of the paper.
    strength: f32,
    /// The share of the channels that are taken to be as loud as the loudest of them.
    quiet: f32,
}

impl Choice {
    pub(super) fn all() -> impl Iterator<Item = Choice> {
        let strengths = (3..=9u8).map(|tenths| f32::from(tenths) / 10.0);
        strengths.flat_map(|strength| QUIET.map(|quiet| Choice { strength, quiet }))
    }

    /// `peak^a / largest^(1 - a)` of each channel (equation 4 of the paper), relative to their
    /// geometric mean, rounded to what a plan file shows.
    pub(super) fn factors(self, peaks: &[f32], largest: &[f32]) -> Vec<f32> {
        let mut sorted = peaks.to_vec();
        sorted.sort_by(f32::total_cmp);
        let floor = sorted.get((self.quiet * (sorted.len().max(1) - 1) as f32) as usize);
        let floor = floor.copied().unwrap_or(0.0);
        let raw: Vec<Option<f32>> = peaks
            .iter()
            .zip(largest)
            .map(|(&peak, &weight)| {
                let peak = peak.max(floor);
                let log = self.strength * peak.ln() - (1.0 - self.strength) * weight.ln();
                (peak > 0.0 && weight > 0.0 && log.is_finite()).then_some(log)
            })
            .collect();
        let count = raw.iter().flatten().count().max(1);
        let mean = raw.iter().flatten().sum::<f32>() / count as f32;
        let factor = |log: Option<f32>| log.map_or(1.0, |log| (log - mean).exp());
        raw.into_iter().map(|log| short(factor(log).clamp(1.0 / WIDEST, WIDEST))).collect()
    }
}

/// Rounded to four significant decimal digits.
pub(super) fn short(x: f32) -> f32 {
    format!("{x:.3e}").parse().unwrap_or(x)
}
