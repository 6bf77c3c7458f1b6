//! Reports: what was done to a model and how it was judged, as JSON, Markdown and HTML.
//!
//! **This crate computes nothing.** A [`Document`] is plain data that the caller fills; the
//! figures come from `modelopt-validate`.
//!
//! - [`Document::to_json`]: for machines, versioned as [`SCHEMA`]; serde reads it back.
//! - [`Document::to_markdown`]: for people, and for the step summary of a GitHub workflow.
//! - [`Document::to_html`]: for people, with plots, as one page that loads nothing.
//! - [`Document::to_junit`]: for the test view of a CI.
//! - [`compare_with_baseline`]: a report held against an earlier one.
//! - [`Document::json_schema`]: what the JSON looks like; published as `docs/report.schema.json`.
//!
//! Reports travel, so they name files without their folders: see [`FileName`].

mod baseline;
mod document;
mod html;
mod junit;
mod markdown;
mod plot;
mod regions;
mod render;
mod schema;
mod table;
mod wording;

pub use baseline::{
    Change, ChangeUnit, Outcome, REGRESSION_SCHEMA, Regression, RegressionLimits,
    compare_with_baseline,
};
pub use document::{
    Document, FileName, Machine, ModelFile, PlanLine, Run, RuntimeUsed, SCHEMA, SampleKind,
    Samples, Schema, SearchEnd, Sensitivity, Trial,
};
pub use regions::{
    NumberHistogram, ObservedNumbers, PredictedTime, QuantizedTensor, Region, RegionEdge,
    RegionEnd, regions_by_layer,
};
