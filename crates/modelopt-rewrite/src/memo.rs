//! Quantized weights that are kept, so that no weight is quantized twice in the same way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use modelopt_graph::{DataType, Tensor};

use crate::quantize::{Recipe, StoredWeight};

/// The most bytes that are kept, however large a model is.
const MOST_BYTES: usize = 1 << 30;

/// How often weights were quantized, and how often that was known already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantizations {
    /// Weights that were quantized.
    pub made: usize,
    /// Weights that had been quantized in the same way before.
    pub answered: usize,
}

/// What weights became when they were quantized.
///
/// A weight is known by its bytes, not by its name: smoothing changes the one, and models that differ in
/// their plan have the other in common. What is kept is what would be made again, so that results do
/// not depend on what is kept, nor on who was first among threads.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    most_bytes: usize,
    kept: Mutex<Kept>,
    made: AtomicUsize,
    answered: AtomicUsize,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    weights: HashMap<Key, Option<StoredWeight>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    digest: [u8; 32],
    elem: DataType,
    shape: Vec<usize>,
    recipe: Recipe,
}

impl Memo {
    /// Keeps so many bytes of weights at most; what comes later is made each time.
    pub(crate) fn keeping(most_bytes: usize) -> Self {
        Memo { most_bytes: most_bytes.min(MOST_BYTES), ..Memo::default() }
    }

    /// Keeps nothing: for whoever quantizes a model once.
    pub(crate) fn none() -> Self {
        Memo::default()
    }

    /// What becomes of a weight.
    pub(crate) fn stored(&self, weight: &Tensor, recipe: Recipe) -> Option<StoredWeight> {
        let Some(bytes) = weight.bytes().filter(|_| self.most_bytes > 0 && recipe.is_work()) else {
            return self.make(weight, &recipe);
        };
        let digest = blake3::hash(bytes).into();
        let key = Key { digest, elem: weight.dtype(), shape: weight.shape().to_vec(), recipe };
        if let Some(known) = self.kept().weights.get(&key) {
            self.answered.fetch_add(1, Ordering::Relaxed);
            return known.clone();
        }
        // Not under the lock: quantizing is parallel itself, and would wait for itself.
        let quantized = self.make(weight, &key.recipe);
        let mut kept = self.kept();
        let more = quantized.as_ref().map_or(0, StoredWeight::byte_len);
        if kept.bytes + more <= self.most_bytes {
            let known = kept.weights.insert(key, quantized.clone());
            kept.bytes += if known.is_none() { more } else { 0 };
        }
        quantized
    }

    fn make(&self, weight: &Tensor, recipe: &Recipe) -> Option<StoredWeight> {
        self.made.fetch_add(1, Ordering::Relaxed);
        recipe.carry_out(weight)
    }

    /// What is kept is sound whatever became of a thread that held the lock.
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often weights were quantized so far.
    pub(crate) fn quantizations(&self) -> Quantizations {
        Quantizations {
            made: self.made.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Channels;
    use crate::testing::noise;

    const SHAPE: [usize; 2] = [16, 32];

    fn weight(seed: u32) -> Tensor {
        Tensor::of(SHAPE.to_vec(), &noise(512, seed)).unwrap()
    }

    fn whole(limit: f32) -> Recipe {
        Recipe::best_of(&SHAPE, vec![Channels::whole(&SHAPE)], limit)
    }

    fn counts(memo: &Memo) -> (usize, usize) {
        let Quantizations { made, answered } = memo.quantizations();
        (made, answered)
    }

    #[test]
    fn the_same_numbers_are_quantized_once() {
        let memo = Memo::keeping(4096);
        let first = memo.stored(&weight(1), whole(127.0)).unwrap();
        let again = memo.stored(&weight(1), whole(127.0)).unwrap();
        assert_eq!(counts(&memo), (1, 1));
        assert_eq!((first.values, first.sqnr_db), (again.values, again.sqnr_db));
    }

    #[test]
    fn another_weight_or_another_way_is_not_the_same() {
        let memo = Memo::keeping(1 << 20);
        memo.stored(&weight(1), whole(127.0));
        memo.stored(&weight(2), whole(127.0));
        memo.stored(&weight(1), whole(63.0));
        memo.stored(
            &weight(1),
            Recipe::best_of(&SHAPE, vec![Channels::along(&SHAPE, 1, 0)], 127.0),
        );
        memo.stored(&weight(1), Recipe::filters(&SHAPE, Channels::along(&SHAPE, 0, 0), 127.0));
        let wide = weight(1).reshaped(vec![512, 1]).unwrap();
        memo.stored(&wide, Recipe::best_of(&[512, 1], vec![Channels::whole(&[512, 1])], 127.0));
        assert_eq!(counts(&memo), (6, 0));
    }

    #[test]
    fn what_cannot_be_quantized_is_known_too() {
        let memo = Memo::keeping(4096);
        let infinite = Tensor::of(vec![2], &[f32::INFINITY, 1.0]).unwrap();
        let recipe = || Recipe::best_of(&[2], vec![Channels::whole(&[2])], 127.0);
        assert!(memo.stored(&infinite, recipe()).is_none());
        assert!(memo.stored(&infinite, recipe()).is_none());
        assert_eq!(counts(&memo), (1, 1));
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        // 512 bytes of values, and a scale.
        let memo = Memo::keeping(600);
        for _ in 0..2 {
            for seed in [1, 2] {
                memo.stored(&weight(seed), whole(127.0));
            }
        }
        assert_eq!(counts(&memo), (3, 1));
        let none = Memo::none();
        none.stored(&weight(1), whole(127.0));
        none.stored(&weight(1), whole(127.0));
        assert_eq!(counts(&none), (2, 0));
    }
}
