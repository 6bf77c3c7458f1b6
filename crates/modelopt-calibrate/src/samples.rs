//! Where a pass takes its samples from.

use std::fmt::Debug;
use std::ops::Range;

use modelopt_graph::Tensor;
use modelopt_runtime::{Sample, SampleError, SampleFiles};

/// Samples that are had one at a time, so that not all of them need be in memory.
pub trait Samples: Debug {
    /// How many there are.
    fn count(&self) -> usize;

    /// The sample at a place below [`Samples::count`].
    fn get(&self, place: usize) -> Result<Sample, SampleError>;

    /// One that takes as much memory as any, as far as that is known; none where there is none.
    fn largest(&self) -> Result<Option<Sample>, SampleError>;
}

impl Samples for &[Sample] {
    fn count(&self) -> usize {
        self.len()
    }

    fn get(&self, place: usize) -> Result<Sample, SampleError> {
        let nothing = || SampleError::NoSamples { path: std::path::PathBuf::new() };
        <[Sample]>::get(self, place).cloned().ok_or_else(nothing)
    }

    fn largest(&self) -> Result<Option<Sample>, SampleError> {
        Ok(largest(self).cloned())
    }
}

impl Samples for Vec<Sample> {
    fn count(&self) -> usize {
        self.len()
    }

    fn get(&self, place: usize) -> Result<Sample, SampleError> {
        Samples::get(&self.as_slice(), place)
    }

    fn largest(&self) -> Result<Option<Sample>, SampleError> {
        Ok(largest(self).cloned())
    }
}

impl Samples for SampleFiles {
    fn count(&self) -> usize {
        self.len()
    }

    fn get(&self, place: usize) -> Result<Sample, SampleError> {
        self.read(place)
    }

    fn largest(&self) -> Result<Option<Sample>, SampleError> {
        self.largest().map(|place| self.read(place)).transpose()
    }
}

/// Some samples of all, in their order: a shard.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// All of them.
    pub of: &'a dyn Samples,
    /// Which of them.
    pub places: Range<usize>,
}

impl Samples for Part<'_> {
    fn count(&self) -> usize {
        self.places.len()
    }

    fn get(&self, place: usize) -> Result<Sample, SampleError> {
        self.of.get(self.places.start + place)
    }

    /// That of all: shards group values alike.
    fn largest(&self) -> Result<Option<Sample>, SampleError> {
        self.of.largest()
    }
}

/// The sample with the largest inputs.
pub(crate) fn largest(samples: &[Sample]) -> Option<&Sample> {
    let size = |sample: &&Sample| -> usize { sample.inputs.values().map(Tensor::byte_len).sum() };
    samples.iter().max_by_key(size)
}
