//! What stands on the wire: pure functions on bytes, without sockets and without waiting.
//!
//! | file | reads or writes |
//! |---|---|
//! | `request.rs`, `reply.rs` | infer of the Open Inference Protocol, JSON and binary |
//! | `predict.rs` | `POST /predict`, for people with `curl` |
//! | `vertex.rs`, `sagemaker.rs` | what those platforms send |
//! | `metadata.rs`, `repository.rs`, `config.rs`, `statistics.rs` | everything that is not an inference |
//!
//! `json.rs` is the reader under all of them. It stands beside `serde_json` because elements of tensors go
//! straight into their bytes, `data` may come before the type that it is of, a number is rounded once, and
//! an error has to say which element it is about.
//!
//! **What JSON cannot say.** It has no NaN and no infinity. Requests with such tokens are refused, and say
//! so; answers have `null` in their place, as those of other servers that write valid JSON. Whoever needs
//! such values, or every bit, sends and asks for binary tensors. FP16 and BF16 are numbers in JSON as
//! others: written so that they come back as they were, rounded to the nearest when read.

mod binary;
mod config;
mod datatype;
mod elements;
mod json;
mod limits;
mod metadata;
mod numbers;
mod predict;
mod reply;
mod repository;
mod request;
mod sagemaker;
mod statistics;
mod validate;
mod vertex;

pub use config::{BatchingConfig, ModelConfig, TensorConfig};
pub use datatype::{config_name, datatype, datatype_name};
pub(crate) use elements::write_flat;
pub use limits::Limits;
pub use metadata::{
    EXTENSIONS, ErrorBody, Live, ModelList, ModelMetadata, ModelReady, PLATFORM, Ready,
    ServerMetadata, TensorMetadata,
};
pub use predict::{ClassNames, Prediction, parse_predict, write_predict};
pub(crate) use reply::write_text;
pub use reply::{Reply, ReplyBody};
pub use repository::{IndexEntry, IndexRequest, ModelState, parse_load, parse_unload};
pub use request::{InferRequest, Wanted, parse_header_length, parse_infer};
pub use sagemaker::{AnswerForm, Invocation, parse_invocation};
pub use statistics::{BatchStatistics, Duration, ModelStatistics, Phases, Statistics};
pub use validate::{InputRange, NonFinite, Policy, validate};
pub use vertex::{parse_instances, write_predictions};
