//! Answers kept in this process.

use std::sync::Arc;

use bytes::Bytes;
use modelopt_graph::{Payload, Tensor};
use moka::future::Cache;

use super::{CacheKey, CacheLimits};
use crate::{Answer, Timing};

/// What an entry takes beside its elements: key, tables, shapes.
const OVERHEAD: usize = 512;
/// The same for each string, which is a reference-counted range of its own.
const STRING_OVERHEAD: usize = size_of::<Bytes>() + 32;

/// Answers in memory, those that are asked for most.
pub(super) struct Embedded {
    answers: Cache<CacheKey, Arc<Answer>>,
    largest: usize,
}

impl Embedded {
    pub(super) fn new(limits: CacheLimits) -> Self {
        let answers = Cache::builder()
            .max_capacity(limits.bytes)
            .weigher(|_, answer: &Arc<Answer>| u32::try_from(weight(answer)).unwrap_or(u32::MAX))
            .time_to_live(limits.time_to_live)
            .build();
        let largest = limits.largest.min(usize::try_from(limits.bytes).unwrap_or(usize::MAX));
        Embedded { answers, largest }
    }

    pub(super) async fn get(&self, key: &CacheKey) -> Option<Arc<Answer>> {
        self.answers.get(key).await
    }

    pub(super) async fn put(&self, key: CacheKey, answer: &Answer) {
        if weight(answer) <= self.largest {
            self.answers.insert(key, Arc::new(compact(answer))).await;
        }
    }
}

fn weight(answer: &Answer) -> usize {
    let outputs = answer.outputs.iter().map(|(name, tensor)| {
        let strings = match tensor.payload() {
            Payload::Strings(strings) => strings.len().saturating_mul(STRING_OVERHEAD),
            Payload::Dense(_) | Payload::Rounded(_) => 0,
        };
        name.len().saturating_add(tensor.byte_len()).saturating_add(strings)
    });
    outputs.fold(OVERHEAD, usize::saturating_add)
}

/// The answer with elements of its own: a row of a batch would keep the whole batch in memory.
fn compact(answer: &Answer) -> Answer {
    let outputs = answer.outputs.iter().map(|(name, tensor)| (name.clone(), own(tensor)));
    Answer { outputs: outputs.collect(), timing: Timing::default() }
}

fn own(tensor: &Tensor) -> Tensor {
    let payload = match tensor.payload() {
        Payload::Dense(bytes) => Payload::Dense(Bytes::copy_from_slice(bytes)),
        Payload::Rounded(rounded) => Payload::Dense(Bytes::copy_from_slice(rounded.bytes())),
        Payload::Strings(strings) => {
            Payload::Strings(strings.iter().map(|string| Bytes::copy_from_slice(string)).collect())
        }
    };
    // The same type and shape over as many bytes.
    Tensor::new(tensor.dtype(), tensor.shape().to_vec(), payload).unwrap_or_else(|_| tensor.clone())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{answer, key};
    use super::*;

    fn limits(bytes: u64, largest: usize) -> CacheLimits {
        CacheLimits { bytes, largest, time_to_live: Duration::from_secs(60) }
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_what_is_too_large_is_not_kept() {
        let embedded = Embedded::new(limits(100_000, 50_000));
        let large = answer(&[0.0; 1_000]);
        for seed in 0..100 {
            embedded.put(key(seed), &large).await;
        }
        embedded.answers.run_pending_tasks().await;
        assert!(embedded.answers.weighted_size() <= 100_000);
        assert!(embedded.answers.entry_count() >= 15);
        embedded.put(key(1_000), &answer(&vec![0.0; 20_000])).await;
        assert!(embedded.get(&key(1_000)).await.is_none());
    }

    #[tokio::test]
    async fn an_answer_is_forgotten_after_its_time() {
        let time_to_live = Duration::from_millis(50);
        let embedded = Embedded::new(CacheLimits { time_to_live, ..limits(100_000, 50_000) });
        embedded.put(key(1), &answer(&[1.0])).await;
        assert!(embedded.get(&key(1)).await.is_some());
        tokio::time::sleep(time_to_live * 2).await;
        assert!(embedded.get(&key(1)).await.is_none());
    }

    #[tokio::test]
    async fn a_row_that_is_kept_lets_its_batch_go() {
        let batch = Bytes::from(vec![0u8; 4_096]);
        let mut row = answer(&[1.0]);
        let tensor = Tensor::dense(modelopt_graph::DataType::FLOAT, vec![1], batch.slice(8..12));
        row.outputs.insert("y".to_owned(), tensor.unwrap());
        let embedded = Embedded::new(limits(100_000, 50_000));
        embedded.put(key(1), &row).await;
        drop(row);
        assert!(batch.is_unique());
        assert!(embedded.get(&key(1)).await.is_some());
    }
}
