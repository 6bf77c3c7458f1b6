//! Ranges of tensors: what was seen of each, and the ways to choose a range from that.

use std::collections::HashMap;
use std::ops::ControlFlow;

use indexmap::IndexMap;
use modelopt_calibrate::{
    Activations, Calibration, Distribution, EIGHT_BITS, Method, Observations, Pass, Spread, shaped,
};
use modelopt_graph::{Model, Type, ValueId};
use modelopt_rewrite::{self as rewrite, ExplainedPlan, ObservedTensor, Prepared};
use modelopt_runtime::{RuntimeError, Sample};

use crate::target::Host;
use crate::{Progress, Step};

/// A way to choose the range of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// All that was seen, and as much beyond as samples differ in.
    Beyond,
    By(Method),
}

/// The ways that are tried, the one to begin with first.
const WAYS: [Way; 4] = [
    Way::Beyond,
    Way::By(Method::MinMax),
    Way::By(Method::MeanSquaredError),
    Way::By(Method::Percentile(99.9)),
];

/// What was seen of one tensor.
#[derive(Clone, Debug)]
struct SeenTensor {
    elements: u64,
    /// Its range in each way.
    ranges: [(f32, f32); WAYS.len()],
    distribution: Distribution,
}

/// What was seen of tensors, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenTensors {
    tensors: IndexMap<String, SeenTensor>,
}

impl SeenTensors {
    /// Looks at tensors of the main graph on all samples.
    pub(crate) fn of(
        prepared: &Model,
        tensors: &[ValueId],
        samples: &[Sample],
        host: &Host<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, String> {
        let mut observations = Observations::default();
        let activations = Activations::among(prepared, tensors.iter().copied());
        activations.watch(prepared, &mut observations);
        progress(Progress::Step(Step::MeasuringActivations));
        let seen =
            Pass::new(prepared, &samples).strict().run(&mut observations, host, &mut |step| {
                progress(Progress::Part { done: step.done, total: step.total });
                ControlFlow::Continue(())
            });
        seen.map_err(|error| error.told(RuntimeError::without_path))?;
        let seen = (&observations, samples.len());
        Ok(SeenTensors::from(prepared, &activations, seen, samples))
    }

    /// Takes what was observed of tensors before; their sizes are those that they have on samples.
    pub(crate) fn calibrated(
        prepared: &Model,
        tensors: &[ValueId],
        calibration: &Calibration,
        samples: &[Sample],
    ) -> Self {
        let activations = Activations::among(prepared, tensors.iter().copied());
        let seen = (calibration.observations(), calibration.samples().len());
        SeenTensors::from(prepared, &activations, seen, samples)
    }

    fn from(
        prepared: &Model,
        activations: &Activations,
        (observations, count): (&Observations, usize),
        samples: &[Sample],
    ) -> Self {
        let shaped = shaped(prepared, samples);
        let mut tensors = IndexMap::new();
        for &value in activations.values() {
            let name = prepared.value(value).name();
            let Some(spread) = Activations::spread(observations, name) else { continue };
            let bounds = bounds(prepared, value);
            let all = WAYS.map(|way| way.range(&spread, count, bounds));
            let [Some(a), Some(b), Some(c), Some(d)] = all else { continue };
            let shape = shaped.value(value).ty().and_then(Type::shape);
            let sizes = shape.into_iter().flatten().map(|dim| dim.fixed().unwrap_or(1) as u64);
            let elements = sizes.product();
            let (ranges, distribution) = ([a, b, c, d], spread.distribution);
            tensors.insert(name.to_owned(), SeenTensor { elements, ranges, distribution });
        }
        SeenTensors { tensors }
    }

    /// What plans are made from.
    pub(crate) fn observed(&self) -> HashMap<String, ObservedTensor> {
        let of = |(name, seen): (&String, &SeenTensor)| {
            let (min, max) = seen.ranges[0];
            (name.clone(), ObservedTensor { min, max, elements: seen.elements })
        };
        self.tensors.iter().map(of).collect()
    }

    /// How often which numbers occur in a tensor.
    pub(crate) fn distribution(&self, name: &str) -> Option<&Distribution> {
        self.tensors.get(name).map(|seen| &seen.distribution)
    }

    /// The plan with ranges that end where what was seen ends.
    pub(crate) fn narrow(&self, prepared: &Prepared, plan: &ExplainedPlan) -> ExplainedPlan {
        let min_max = Way::By(Method::MinMax);
        let way = WAYS.iter().position(|way| *way == min_max).unwrap_or_default();
        self.chosen(prepared, plan, |_| way)
    }

    pub(crate) fn ways() -> usize {
        WAYS.len()
    }

    /// The plan with the range of each tensor chosen in some way, by name of the tensor.
    pub(crate) fn chosen(
        &self,
        prepared: &Prepared,
        plan: &ExplainedPlan,
        way: impl Fn(&str) -> usize,
    ) -> ExplainedPlan {
        let mut plan = plan.clone();
        rewrite::set_ranges(prepared, &mut plan, &|name| {
            self.tensors.get(name).map(|seen| seen.ranges[way(name).min(WAYS.len() - 1)])
        });
        plan
    }

    /// Whether a tensor's range is another in another way.
    pub(crate) fn has_choice(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|seen| {
            let [first, others @ ..] = &seen.ranges;
            others.iter().any(|other| differs(*first, *other))
        })
    }
}

/// Ranges that differ by less are one and the same.
const NOTICEABLE: f32 = 0.02;

fn differs((low, high): (f32, f32), (other_low, other_high): (f32, f32)) -> bool {
    let span = (high - low).max(other_high - other_low);
    (low - other_low).abs().max((high - other_high).abs()) > NOTICEABLE * span
}

impl Way {
    fn range(self, spread: &Spread, samples: usize, bounds: (f32, f32)) -> Option<(f32, f32)> {
        let method = match self {
            Way::Beyond => Method::MinMax,
            Way::By(method) => method,
        };
        let (low, high) = method.range(spread, EIGHT_BITS)?;
        let (Way::Beyond, Some((mean_low, mean_high))) = (self, spread.mean_range) else {
            return Some((low, high));
        };
        let share = rewrite::share_beyond(samples);
        let beyond =
            |end: f32, mean: f64| (f64::from(end) + share * (f64::from(end) - mean)) as f32;
        let (seen_low, seen_high) = spread.distribution.extremes.range?;
        // A range that ends at 0 because 0 is always in it does not end there for what was seen.
        let wide_low = beyond(seen_low, mean_low).min(low).max(bounds.0);
        let wide_high = beyond(seen_high, mean_high).max(high).min(bounds.1);
        Some((wide_low, wide_high))
    }
}

/// Between which numbers a tensor is whatever the input.
fn bounds(model: &Model, value: ValueId) -> (f32, f32) {
    let open = (f32::NEG_INFINITY, f32::INFINITY);
    let Some(node) = model.producer_node(value).map(|node| model.node(node)) else { return open };
    match node.op.name.as_str() {
        "Sigmoid" | "HardSigmoid" | "Softmax" => (0.0, 1.0),
        "Tanh" => (-1.0, 1.0),
        "Relu" => (0.0, f32::INFINITY),
        "Clip" => {
            let constant = |value| model.constant(value)?.to_f32()?.first().copied();
            let end = |place: usize, name: &str, open: f32| match node.input(place) {
                Some(value) => constant(value).unwrap_or(open),
                None => node.float(name, open),
            };
            (end(1, "min", open.0), end(2, "max", open.1))
        }
        _ => open,
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Tensor;
    use xtask::testdata::fixture;

    use super::*;

    fn spread(numbers: &[&[f32]]) -> Spread {
        use modelopt_calibrate::{Histogram, Moving, Observer, View};
        let (mut histogram, mut moving) = (Histogram::new(), Moving::new());
        for (place, sample) in numbers.iter().enumerate() {
            let tensor = Tensor::of(vec![sample.len()], sample).unwrap();
            let view = View::new(&tensor, place as u64);
            Observer::see(&mut histogram, &view);
            Observer::see(&mut moving, &view);
        }
        let (distribution, mean_range) = (histogram.statistic(), moving.statistic());
        Spread { distribution, mean_range }
    }

    const OPEN: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

    #[test]
    fn few_samples_are_taken_to_be_gone_beyond() {
        let seen = spread(&[&[-1.0, 4.0], &[-3.0, 8.0]]);
        // As far beyond as the last is beyond the mean of both.
        assert_eq!(Way::Beyond.range(&seen, 2, OPEN), Some((-4.0, 10.0)));
        assert_eq!(Way::Beyond.range(&seen, 8, OPEN), Some((-3.375, 8.75)), "less so with many");
        assert_eq!(
            Way::Beyond.range(&seen, 2, (-3.5, 9.5)),
            Some((-3.5, 9.5)),
            "but not past bounds"
        );
        assert_eq!(Way::By(Method::MinMax).range(&seen, 2, OPEN), Some((-3.0, 8.0)));
    }

    #[test]
    fn what_is_of_one_sign_may_be_of_the_other_in_the_next_sample() {
        let seen = spread(&[&[-9.0, -1.0], &[-9.0, -5.0]]);
        assert_eq!(Way::Beyond.range(&seen, 2, OPEN), Some((-9.0, 1.0)));
        let same = spread(&[&[0.0, 5.0], &[0.0, 5.0]]);
        assert_eq!(Way::Beyond.range(&same, 2, OPEN), Some((0.0, 5.0)));
    }

    #[test]
    fn ranges_end_where_numbers_are_cut_off() {
        // Bounds that are inputs, and bounds that are attributes.
        for name in ["cut_off", "cut_off_opset10"] {
            let model = modelopt_onnx::load(&fixture(format!("ranges/{name}.onnx"))).unwrap();
            let made = |op: &str| {
                let mut nodes = model.nodes_of(model.main()).map(|node| model.node(node));
                nodes.find(|node| node.op.is(op)).unwrap().output(0).unwrap()
            };
            assert_eq!(bounds(&model, made("Clip")), (0.0, 6.0), "{name}");
            assert_eq!(bounds(&model, made("Relu")), (0.0, f32::INFINITY), "{name}");
            assert_eq!(bounds(&model, made("Conv")), (f32::NEG_INFINITY, f32::INFINITY), "{name}");
        }
    }
}
