//! What modelopt does to a model: preparation, the plan, and the schemes that carry it out.
//!
//! Rewrites see neither files nor runtimes. Each is one file with its before/after picture on
//! top and its tests below; [`engine`] applies what they propose and checks the model after each.

mod apply;
mod choices;
mod described;
mod eligibility;
pub mod engine;
mod error_injection;
mod error_switch;
pub mod evaluate;
mod forms;
mod integer;
mod layer_matrix;
mod layer_models;
mod layers;
mod memo;
mod noise;
mod pass;
mod passes;
pub mod pattern;
mod pipeline;
mod plan;
mod policy;
mod precision;
mod prepare;
mod prepared;
mod quantize;
mod refine;
mod select;
mod sensitivity;
mod shared;
mod site;
mod statistics;
#[cfg(test)]
mod testing;
pub mod upgrade;
mod weight_errors;

pub use apply::{QuantizedWeight, apply};
pub use described::{
    Edge, EndReason, Predicted, Region, RegionEnd, RegionTensor, described_regions,
};
pub use error_injection::{Switch, Switchboard, quantized_tensors, switchboard};
pub use forms::{Activations, Ladder, Scheme, Sides, Storage};
pub use integer::IntegerCosts;
pub use layer_models::{Isolated, isolate};
pub use layers::{Layer, Role, WeightUse, find as weight_layers, narrow_weight_bytes};
pub use memo::Quantizations;
pub use noise::{Noise, RandomOperator, Randomness, SameNoise, random_operators};
pub use pass::{Changed, EveryNode, Pass, PassContext, PassError};
pub use pipeline::{Culprit, Entry, Pipeline, UnknownPass};
pub use plan::{
    ExplainedPlan, Explanation, Interface, Numerics, Plan, PlanError, PlannedLayer, Precision,
    QuantFormat, TensorRange,
};
pub use policy::{
    Capabilities, MeasuredLayer, ObservedTensor, PlanOptions, agreed, plan, plan_from, possible,
    set_ranges, settle, to_observe,
};
pub use precision::{
    Emulated, Known, PrecisionOptions, Rounding, emulate, measurable, rounding,
    rounding_switchboard,
};
pub use prepare::{Preparation, prepare, steps};
pub use prepared::Prepared;
pub use quantize::{Channels, Granularity, Quantized, Unquantizable, quantize};
pub use refine::{Improvements, improve};
pub use select::Pattern;
pub use sensitivity::{LayerNoise, sensitivity, work};
pub use statistics::{ChannelAxis, Seen, Statistics, Watched, share_beyond, watched};
