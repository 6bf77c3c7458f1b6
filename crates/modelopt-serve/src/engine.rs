//! Runs models: sessions on threads of their own, a queue before them, batches that are proven to be
//! safe, and the models and versions that there are.

mod batcher;
mod error;
mod held;
mod model;
#[cfg(test)]
mod planted;
mod proof;
mod queue;
mod quota;
mod rows;
mod sessions;
mod settings;
mod statistics;
mod warm_up;

pub use error::LoadError;
pub use model::{Batching, Identity, Placement, ServedModel};
pub use proof::{Evidence, Objection, ProofOptions, prove_batching};
pub use quota::usable_processors;
pub use settings::{ModelSettings, SettingsError};
pub use statistics::{BatchTally, Failures, Statistics, Tally};
pub use warm_up::Samples;
