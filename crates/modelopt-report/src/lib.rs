//! Reports: what was done to a model and how it was judged, as JSON and Markdown.
//!
//! **This crate computes nothing.** A [`Document`] is plain data that the caller fills; the
//! figures come from `modelopt-validate`.
//!
//! - [`Document::to_json`]: for machines, versioned as [`SCHEMA`]; serde reads it back.
//! - [`Document::to_markdown`]: for people, and for the step summary of a GitHub workflow.
//!
//! Reports travel, so they name files without their folders: see [`FileName`].

mod document;
mod markdown;

pub use document::{
    Document, FileName, PlanLine, RuntimeUsed, SCHEMA, SampleKind, Samples, Schema,
};
