//! Serves ONNX models over the Open Inference Protocol.
//!
//! A request comes in over [`protocol`] as an [`Inference`], is answered by a model in its own threads,
//! alone or in a batch, and goes out as an [`Answer`]. Whatever goes wrong is a [`ServeError`], which says
//! its HTTP status and its message.
//!
//! Nothing here knows how models are optimised.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod cache;
pub mod engine;
mod error;
pub mod http;
mod inference;
pub mod observe;
pub mod protocol;
pub mod security;
pub mod server;
pub mod service;
mod signature;

pub use error::ServeError;
pub use inference::{Answer, Inference, Timing};
pub use signature::{Dimension, Signature, SignatureError, TensorSpec};
