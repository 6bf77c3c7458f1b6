//! modelopt takes a trained ONNX model and hands back a smaller, faster one that is proven to
//! still be the same model.
//!
//! - [`Optimizer`]: a model in, a proven smaller one out; from and to files, bytes or models, on samples
//!   in files or arrays.
//! - [`optimize`]: the whole way from one file to another: load, prepare, plan, rewrite, run
//!   original and candidate side by side, judge, and emit only what passes.
//! - [`Search`]: the same, with a handle to end the search for a plan early.
//! - [`rank`]: what each layer of a plan costs at the outputs.
//! - [`transform`]: the same without files and without running anything: model in, model out.
//! - [`compare`]: parity, latency and size of any two models.
//! - [`upgrade()`]: the same model with newer operators.
//! - [`observe()`]: what flows through a model, shown to observers of the caller's.
//! - [`calibrate()`](calibrate()): the ranges of what flows through a model, as a file that is made by shards.
//! - [`bench()`]: latency of models on several runtimes, thread counts and sizes.
//! - [`inspect`]: what is in a model, and what could be done with it.
//!
//! The library prints nothing, reads no environment, and keeps no state; progress comes through
//! a callback, details through `tracing` events.

mod bench;
mod budget;
mod calibrate;
mod calibrating;
mod clock;
mod compare;
mod config;
mod culprits;
mod emulation;
mod error;
mod evaluator;
mod event;
mod excess;
mod found_inputs;
mod ground;
mod hint;
mod inspect;
mod io_cast;
mod measure;
mod meter;
mod metric;
mod observe;
mod optimize;
mod optimizer;
mod overhead;
mod patience;
mod planning;
mod provenance;
mod quicken;
mod ranges;
mod regions;
mod resource_limits;
mod runtime_choice;
mod scratch;
mod search;
mod sensitivity;
mod session_pool;
mod subject;
mod target;
#[cfg(test)]
mod testing;
mod transform;
mod trial_error;
mod upgrade;
mod validation;
mod warning;
mod witness;

pub use bench::{BenchOptions, BenchRow, bench};
pub use budget::Stop;
pub use calibrating::{
    CalibrateOptions, Calibrated, CalibrationError, Shard, UnknownShard, calibrate,
    merge_calibrations, read_calibration, read_calibration_of, write_calibration,
};
pub use compare::{Compared, compare, compare_until};
pub use config::{Config, Enforcement, Objective, SearchOptions, Smoothing};
pub use error::{Error, ErrorKind};
pub use event::{Progress, Step};
pub use found_inputs::FoundInputs;
pub use hint::Hint;
pub use inspect::{Inspection, OperatorCount, Port, WeightBytes, inspect};
pub use metric::{
    CommandMetric, CustomMetric, Labels, Metric, MetricError, MetricMistake, MetricOptions,
};
pub use observe::{Observed, observe};
pub use optimize::{Outcome, Search, optimize};
pub use optimizer::{
    Artifact, Optimized, Optimizer, OptimizerBuilder, SampleSource, Sink, Source, Strategy, Target,
    optimize_file,
};
pub use planning::{Ranked, rank};
pub use runtime_choice::RuntimeChoice;
pub use scratch::Unwritten;
pub use transform::{Transformed, transform};
pub use upgrade::{UpgradeOutcome, default_opset, upgrade};
pub use warning::Warning;

/// What most programs need: `use modelopt::prelude::*`.
pub mod prelude {
    pub use modelopt_graph::{DataType, Model, Tensor};
    pub use modelopt_rewrite::{ExplainedPlan, Plan, Scheme};
    pub use modelopt_runtime::{
        CustomRuntime, Outputs, Runtime, RuntimeKind, Sample, SampleKind, Session,
    };
    pub use modelopt_validate::{Limits, Parity, Verdict};

    pub use crate::{
        Artifact, Config, Enforcement, Error, ErrorKind, Metric, MetricError, Objective, Optimized,
        Optimizer, Outcome, Progress, SampleSource, Sink, Source, Step, Stop, Strategy, Target,
        Warning,
    };
}

pub use modelopt_calibrate as calibration;
pub use modelopt_graph as graph;
pub use modelopt_onnx as onnx;
pub use modelopt_report as report;
pub use modelopt_rewrite as rewrite;
pub use modelopt_runtime as runtime;
pub use modelopt_validate as validate;

/// Version of this library.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The example of the README is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
