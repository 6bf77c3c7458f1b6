//! What is asked of a model and what it answers, in no protocol's words.

use std::time::Duration;

use indexmap::IndexMap;
use modelopt_graph::Tensor;

/// What a client asks of a model.
#[derive(Clone, Debug, Default)]
pub struct Inference {
    /// What the client calls it; goes back with the answer.
    pub id: Option<String>,
    /// Inputs by name, as they came: they are held to the model's signature later.
    pub inputs: IndexMap<String, Tensor>,
    /// Outputs that are wanted, in the order in which they are wanted; all of the model's where there are
    /// none.
    pub outputs: Vec<String>,
    /// 1 is answered before 2; 0 for the model's default.
    pub priority: u32,
    /// How long the client waits; the model's default where it says nothing.
    pub timeout: Option<Duration>,
}

/// What a model answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Outputs by name, in the order in which they were wanted.
    pub outputs: IndexMap<String, Tensor>,
    /// How it came about.
    pub timing: Timing,
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From being taken in to being taken out of the queue.
    pub queue: Duration,
    /// In the runtime, with putting a batch together and taking it apart.
    pub compute: Duration,
    /// Rows that were computed at once, those of other requests among them.
    pub batch_rows: usize,
}
