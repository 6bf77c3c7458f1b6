//! Runs models: sessions on threads of their own, a queue before them, batches that are proven to be
//! safe, and the models and versions that there are.

mod batcher;
mod digest;
mod entry;
mod error;
mod folder;
mod held;
mod line;
mod loader;
mod model;
#[cfg(test)]
pub(crate) mod planted;
mod proof;
mod queue;
mod quota;
mod repository;
mod rows;
mod runtimes;
mod sessions;
mod settings;
mod statistics;
mod table;
mod warm_up;

pub use error::LoadError;
pub use folder::Source;
pub use loader::Describe;
pub use model::{Batching, Identity, Placement, ServedModel};
pub use proof::{Evidence, Objection, ProofOptions, prove_batching};
pub use quota::usable_processors;
pub use repository::{Failed, Repository};
pub use runtimes::Runtimes;
pub use settings::{EngineSettings, ModelSettings, SettingsError};
pub use statistics::{BatchTally, Failures, Statistics, Tally};
pub use table::IndexEntry;
pub use warm_up::Samples;
