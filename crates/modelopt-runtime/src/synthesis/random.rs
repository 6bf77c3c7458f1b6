//! Random numbers that are the same everywhere.

use rand::SeedableRng;
use rand::rand_core::Rng;
use rand::rngs::Xoshiro256PlusPlus;

/// One stream of random numbers.
pub(super) struct Random(Xoshiro256PlusPlus);

impl Random {
    /// The stream of one input of one sample.
    pub(super) fn new(seed: u64, input: &str, sample: usize) -> Self {
        // FNV-1a.
        let bytes = input.bytes().chain((sample as u64).to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Random(Xoshiro256PlusPlus::seed_from_u64(seed ^ hash))
    }

    /// An integer below `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.0.next_u64()) * u128::from(bound);
        (product >> 64) as u64
    }

    /// Close to a standard normal distribution, within ±6: the sum of twelve uniform numbers, which
    /// needs no function that platforms round differently.
    pub(super) fn normal(&mut self) -> f32 {
        let sum: u64 = (0..3)
            .map(|_| {
                let bits = self.0.next_u64();
                (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum::<u64>()
            })
            .sum();
        // Half a step for each of the twelve, since each counts from 0 to 2^16 - 1.
        (sum as f32 + 6.0) / 65536.0 - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distributed_as_promised() {
        let mut random = Random::new(1, "x", 0);
        let numbers: Vec<f32> = (0..20_000).map(|_| random.normal()).collect();
        let mean = numbers.iter().sum::<f32>() / 20_000.0;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
        assert!((0..100).any(|_| random.below(u64::MAX) > 1 << 63));
    }

    #[test]
    fn streams_differ() {
        let mut firsts: Vec<u64> = [("x", 0), ("x", 1), ("y", 0)]
            .map(|(name, sample)| Random::new(0, name, sample).below(u64::MAX))
            .to_vec();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), 3);
    }
}
