//! How long sessions are timed.

use serde::{Deserialize, Serialize};

/// How long sessions are run in turn: until there are enough rounds and enough time is over, or too
/// much is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rounds {
    /// Rounds that are enough.
    pub count: usize,
    /// Time that is enough, in seconds.
    pub seconds: f64,
    /// Rounds that are made however long they take; never fewer than one.
    pub fewest: usize,
    /// Rounds at most.
    pub most: usize,
    /// Time after which no round begins but the fewest, in seconds.
    pub most_seconds: f64,
}

impl Rounds {
    /// So many, however long they take.
    pub fn exactly(count: usize) -> Self {
        Rounds { count, seconds: 0.0, fewest: count, most: count, most_seconds: 0.0 }
    }

    /// Whether they are over after so many, which took so long.
    pub(crate) fn are_over(&self, done: usize, seconds: f64) -> bool {
        let enough = done >= self.count && seconds >= self.seconds;
        let too_long = done >= self.fewest && seconds >= self.most_seconds;
        done >= self.most || enough || too_long
    }
}
