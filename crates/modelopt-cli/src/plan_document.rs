//! A plan for machines: decisions and explanations of a layer in one place, in the layout that plan
//! files of version 1 have.

use modelopt::report::Region;
use modelopt::rewrite::{
    ExplainedPlan, Explanation, Interface, Numerics, PlannedLayer, QuantFormat, Scheme,
};
use serde::Serialize;

/// The plan of `modelopt plan --json`.
#[derive(Debug, Serialize)]
pub(crate) struct PlanDocument<'a> {
    version: u32,
    numerics: Numerics,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<QuantFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io: Option<Interface>,
    #[serde(rename = "layer")]
    layers: Vec<Line<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    regions: &'a [Region],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Line<'a> {
    name: &'a str,
    op: &'a str,
    scheme: Scheme,
    reason: &'a str,
    weights: &'a [String],
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    numerics: Option<Numerics>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    smoothing: &'a [f32],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    bias_correction: &'a [f32],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    at_load: bool,
}

impl<'a> PlanDocument<'a> {
    pub(crate) fn of(plan: &'a ExplainedPlan, regions: &'a [Region]) -> Self {
        PlanDocument {
            version: 1,
            numerics: plan.numerics,
            format: Some(plan.format).filter(|format| *format != QuantFormat::default()),
            io: Some(plan.io).filter(|io| *io != Interface::default()),
            layers: plan.lines().map(Line::of).collect(),
            regions,
        }
    }
}

impl<'a> Line<'a> {
    fn of((layer, why): (&'a PlannedLayer, &'a Explanation)) -> Self {
        Line {
            name: &layer.id,
            op: &why.op,
            scheme: layer.scheme,
            reason: &why.reason,
            weights: &why.weights,
            bytes: why.bytes,
            numerics: layer.numerics,
            smoothing: &layer.smoothing,
            bias_correction: &layer.bias_correction,
            at_load: layer.at_load,
        }
    }
}
