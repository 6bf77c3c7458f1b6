//! What computes on integers by ranges, as reports show it.

use std::collections::HashMap;

use modelopt_calibrate::{Distribution, EIGHT_BITS, shaped};
use modelopt_graph::Model;
use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, Edge, ExplainedPlan, TensorRange};
use modelopt_runtime::Sample;

use crate::config::Config;
use crate::ranges::SeenTensors;

/// As many bins of a histogram are shown.
const MOST_BINS: usize = 64;

/// The regions of a plan, and its tensors: those first that lose most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Described {
    pub(crate) regions: Vec<report::Region>,
    pub(crate) ranges: Vec<report::QuantizedTensor>,
}

/// What is known of a plan's regions where nothing ran.
pub(crate) fn regions(
    prepared: &Model,
    plan: &ExplainedPlan,
    config: &Config,
) -> Vec<report::Region> {
    described(prepared, plan, config, (&[], &SeenTensors::default())).regions
}

/// What a plan computes on integers. Samples tell sizes.
pub(crate) fn described(
    prepared: &Model,
    plan: &ExplainedPlan,
    config: &Config,
    (samples, seen): (&[Sample], &SeenTensors),
) -> Described {
    if plan.tensors.is_empty() {
        return Described::default();
    }
    let target = config.runtime.target();
    let found = rewrite::described_regions(&shaped(prepared, samples), plan, &target);
    let numbered = found.iter().enumerate();
    let places: HashMap<&str, (usize, bool)> = numbered
        .flat_map(|(at, region)| region.tensors.iter().map(move |tensor| (at, tensor)))
        .map(|(at, tensor)| (tensor.name.as_str(), (at + 1, tensor.is_divided)))
        .collect();
    let tensor = |range: &TensorRange| {
        let place = places.get(range.name.as_str());
        // What is quantized of a tensor that is divided by channel was not seen.
        let is_divided = place.is_some_and(|&(_, is_divided)| is_divided);
        let seen = seen.distribution(&range.name).filter(|_| !is_divided);
        report::QuantizedTensor {
            tensor: range.name.clone(),
            region: place.map(|&(at, _)| at),
            min: range.min,
            max: range.max,
            observed: seen.and_then(|seen| observed(seen, range)),
        }
    };
    let mut ranges: Vec<report::QuantizedTensor> = plan.tensors.iter().map(tensor).collect();
    let lost = |tensor: &report::QuantizedTensor| {
        tensor.observed.as_ref().map_or(f64::INFINITY, |seen| seen.sqnr_db)
    };
    ranges.sort_by(|a, b| lost(a).total_cmp(&lost(b)));
    Described { regions: found.iter().map(region).collect(), ranges }
}

fn region(found: &rewrite::Region) -> report::Region {
    let end = |end: &rewrite::RegionEnd| report::RegionEnd {
        tensor: end.tensor.clone(),
        edge: match end.edge {
            Edge::Begin => report::RegionEdge::Begin,
            Edge::End => report::RegionEdge::End,
        },
        kind: end.why.kind().to_owned(),
        reason: end.why.to_string(),
    };
    report::Region {
        layers: found.layers.clone(),
        operators: found.operators.clone(),
        tensors: found.tensors.iter().map(|tensor| tensor.name.clone()).collect(),
        ends: found.ends.iter().map(end).collect(),
        predicted: found.predicted.map(|told| report::PredictedTime {
            float_ms: told.float_ms,
            integer_ms: told.integer_ms,
            border_ms: told.border_ms,
            share: told.share,
        }),
    }
}

/// What was seen of a tensor, against its range; none where no finite number was.
fn observed(seen: &Distribution, range: &TensorRange) -> Option<report::ObservedNumbers> {
    let (min, max) = seen.extremes.range?;
    let told = Loss::of(seen, range, (f64::from(min), f64::from(max)));
    Some(report::ObservedNumbers {
        min,
        max,
        clipped: told.clipped / told.numbers.max(1.0),
        sqnr_db: told.sqnr_db(),
        histogram: histogram(seen),
    })
}

/// The distribution in few bins.
fn histogram(seen: &Distribution) -> report::NumberHistogram {
    let together = seen.counts.len().div_ceil(MOST_BINS).max(1);
    report::NumberHistogram {
        start: seen.start,
        width: seen.width * together as f64,
        counts: seen.counts.chunks(together).map(|bins| bins.iter().sum()).collect(),
    }
}

/// What a range does to the numbers of a tensor.
#[derive(Debug, Default)]
struct Loss {
    numbers: f64,
    clipped: f64,
    /// Sum of squares of the numbers, and of their errors.
    power: f64,
    noise: f64,
}

impl Loss {
    /// Numbers of a bin are taken to be evenly spread over what was seen of it.
    fn of(seen: &Distribution, range: &TensorRange, ends: (f64, f64)) -> Self {
        let (low, high) = (f64::from(range.min), f64::from(range.max));
        let step = (high - low) / f64::from(EIGHT_BITS - 1);
        let rounding = step * step / 12.0;
        let mut loss = Loss::default();
        for (place, &count) in seen.counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
            let start = seen.start + seen.width * place as f64;
            let (from, to) = (start.max(ends.0), (start + seen.width).min(ends.1));
            let (middle, length) = (f64::midpoint(from, to), to - from);
            let outside = (low.min(to) - from).max(0.0) + (to - high.max(from)).max(0.0);
            let share = if length > 0.0 {
                (outside / length).min(1.0)
            } else {
                f64::from(u8::from(middle < low || middle > high))
            };
            // Zero is represented exactly.
            let exact = if start <= 0.0 && start + seen.width > 0.0 { seen.zeros } else { 0 };
            let (count, inexact) = (count as f64, count.saturating_sub(exact) as f64);
            let beyond = (low - middle).max(middle - high).max(0.0);
            loss.numbers += count;
            loss.clipped += count * share;
            loss.power += inexact * middle * middle;
            loss.noise += inexact * if beyond > 0.0 { beyond * beyond } else { rounding };
        }
        loss
    }

    fn sqnr_db(&self) -> f64 {
        if self.noise > 0.0 { 10.0 * (self.power / self.noise).log10() } else { f64::INFINITY }
    }
}

#[cfg(test)]
mod tests;
