//! Scales by channel for what convolutions on integers read: a large channel no longer sets the step for
//! all others, nor a large row of the filters.
//!
//! ```text
//! y = Conv(DQ(Q(x)), DQ(W_int8))
//!   =>
//! y = Conv(DQ(Q(Mul(x, 1 / f))), DQ((W * f)_int8))     f: one number for each input channel
//! ```
//!
//! That is smoothing (Xiao et al., 2022) for convolutions, done where `x` is made as float: one product by a
//! constant beside what is computed there. `QuantizeLinear` could divide as well, by a scale for each
//! channel, but onnxruntime does that number by number once channels are the last dimension, at ten times
//! the cost of the product.

use std::collections::HashSet;
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::{DataType, Model, NodeId, Patch, Place, Producer, Tensor, ValueId};

use super::choice::{Choice, WORTHWHILE};
use crate::engine::{self, BrokenRewrite};
use crate::integer;
use crate::layers::{self, Layer, Role, WeightUse};
use crate::plan::Plan;
use crate::policy::OnIntegers;
use crate::statistics::{Seen, Statistics};

/// A layer whose filters are multiplied by factors.
type Scaled<'a> = (NodeId, WeightUse, &'a [f32]);

/// Layers that read one tensor, with their places in the plan.
struct Readers {
    tensor: ValueId,
    layers: Vec<(usize, Layer)>,
}

/// The filters of a layer that can be scaled: of one group, an initializer that nobody else reads.
pub(super) fn filters<'a>(model: &Model, layer: &'a Layer) -> Option<&'a WeightUse> {
    let dense = model.node(layer.node).int("group", 1) == 1;
    layer.weights.iter().find(|weight| {
        dense
            && weight.role == Role::ConvFilters
            && weight.tensor.dtype() == DataType::FLOAT
            && matches!(model.value(weight.value).producer(), Producer::Initializer(_))
            && model.value(weight.value).uses().len() == 1
    })
}

/// How many input channels a layer has that can be scaled.
pub(super) fn depth(model: &Model, layer: &Layer) -> Option<usize> {
    filters(model, layer)?.tensor.shape().get(1).copied()
}

/// Carries out the scales of a plan.
pub(super) fn apply(model: &mut Model, plan: &Plan) -> Result<(), BrokenRewrite> {
    let places = plan.places();
    let mut scaled: IndexMap<ValueId, Vec<Scaled<'_>>> = IndexMap::new();
    if plan.layers.iter().all(|line| line.smoothing.is_empty() || !line.scheme.needs_ranges()) {
        return Ok(());
    }
    for layer in layers::find(model, 0) {
        let Some(&place) = places.get(layer.id.as_str()) else { continue };
        let line = &plan.layers[place];
        if line.smoothing.is_empty() || !line.scheme.needs_ranges() {
            continue;
        }
        let fits = depth(model, &layer) == Some(line.smoothing.len());
        let weight = filters(model, &layer).filter(|_| fits).cloned();
        if let (Some(weight), Some(x)) = (weight, model.node(layer.node).input(0)) {
            scaled.entry(x).or_default().push((layer.node, weight, &line.smoothing));
        }
    }
    engine::checked(model, "channel-scales", |model| {
        for (x, readers) in &scaled {
            divide(model, *x, readers);
        }
        scaled.len()
    })?;
    Ok(())
}

/// Lets layers read a tensor divided by factors, and multiplies their filters by them.
fn divide(model: &mut Model, x: ValueId, readers: &[Scaled<'_>]) {
    let Some((first, weight, factors)) = readers.first() else { return };
    let inverse: Vec<f32> = factors.iter().map(|factor| 1.0 / factor).collect();
    let mut shape = vec![1; weight.tensor.shape().len() - 1];
    shape[0] = inverse.len();
    let Ok(tensor) = Tensor::of(shape, &inverse) else { return };
    let name = model.value(x).name().to_owned();
    let mut patch = Patch::new();
    let constant = patch.constant(model.main(), format!("{name}_smoothing"), Arc::new(tensor));
    let inputs = [x.into(), constant];
    patch.node(Place::Before(*first), "Mul", format!("{name}_smoothed"), &inputs, &[]);
    let Some(&smoothed) = model.apply(patch).last() else { return };
    model.set_type(smoothed, model.value(x).ty().cloned());
    for (node, weight, factors) in readers {
        model.set_input(*node, 0, Some(smoothed));
        if let Some(scaled) = multiplied(&weight.tensor, factors) {
            model.replace_constant(weight.value, Arc::new(scaled));
        }
    }
}

/// Filters `[O, I, ..]` with each input channel multiplied by a factor of its own.
fn multiplied(filters: &Tensor, factors: &[f32]) -> Option<Tensor> {
    let numbers = filters.to_f32()?;
    let taps: usize = filters.shape().iter().skip(2).product();
    let factor = |index: usize| factors[index / taps.max(1) % factors.len()];
    let scaled: Vec<f32> =
        numbers.iter().enumerate().map(|(index, &x)| x * factor(index)).collect();
    Tensor::of(filters.shape().to_vec(), &scaled).ok()
}

/// Gives a plan scales by channel where they make less noise, with the ranges that go with them.
pub(super) fn choose(model: &Model, plan: &mut Plan, seen: &Seen) {
    for Readers { tensor, layers } in scalable(model, plan) {
        let Some(known) = layers.first().and_then(|(_, layer)| seen.get(&layer.id)) else {
            continue;
        };
        let sides: Option<Vec<Side>> = layers.iter().map(|(_, l)| Side::of(model, l)).collect();
        let Some(sides) = sides.filter(|_| known.is_finite() && known.kept() > 0) else { continue };
        if sides.iter().any(|side| side.powers.len() != known.channels()) {
            continue;
        }
        let Some(factors) = best(&sides, known) else { continue };
        let name = model.value(tensor).name();
        let Some(range) = plan.tensors.iter_mut().find(|range| range.name == name) else {
            continue;
        };
        (range.min, range.max) = hull(&known.reach(), &factors);
        for (place, _) in &layers {
            plan.layers[*place].smoothing.clone_from(&factors);
        }
    }
}

/// Tensors that are made as float, and that nothing but convolutions of one group reads on integers.
fn scalable(model: &Model, plan: &Plan) -> Vec<Readers> {
    let OnIntegers { regions, table, .. } = OnIntegers::of(model, plan);
    let mut made: HashSet<ValueId> = integer::made_inside(model, &regions);
    // What is divided where it is made need not be divided again.
    made.extend(table.iter().filter(|(_, range)| !range.divided_by.is_empty()).map(|(x, _)| *x));
    let places = plan.places();
    let by_node: IndexMap<NodeId, Layer> =
        layers::find(model, 0).into_iter().map(|layer| (layer.node, layer)).collect();
    let layer = |&(node, _): &(NodeId, usize)| {
        let layer = by_node.get(&node)?;
        let place = *places.get(layer.id.as_str())?;
        let free = plan.layers[place].smoothing.is_empty() && filters(model, layer).is_some();
        free.then(|| (place, layer.clone()))
    };
    let mut found = Vec::new();
    for &tensor in regions.tensors.iter().filter(|tensor| !made.contains(*tensor)) {
        let readers = regions.readers(model, tensor);
        let layers: Option<Vec<_>> = readers.iter().map(layer).collect();
        if let Some(layers) = layers.filter(|layers| !layers.is_empty()) {
            found.push(Readers { tensor, layers });
        }
    }
    found
}

/// The filters of one layer as far as choosing needs them.
struct Side {
    /// The largest magnitude of each output and input channel: `[O, I]`.
    largest: Vec<f32>,
    /// Sum of squares of each input channel.
    powers: Vec<f64>,
    taps: f64,
}

impl Side {
    fn of(model: &Model, layer: &Layer) -> Option<Self> {
        let filters = filters(model, layer)?;
        let numbers = filters.tensor.to_f32()?;
        let inputs = *filters.tensor.shape().get(1)?;
        let taps = filters.tensor.shape().iter().skip(2).product::<usize>().max(1);
        let most = |taps: &[f32]| taps.iter().fold(0f32, |most, x| most.max(x.abs()));
        let mut powers = vec![0f64; inputs];
        for (index, taps) in numbers.chunks(taps).enumerate() {
            powers[index % inputs] += taps.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        }
        let largest = numbers.chunks(taps).map(most).collect();
        Some(Side { largest, powers, taps: taps as f64 })
    }

    /// The largest magnitude of each input channel.
    fn peaks(&self) -> Vec<f32> {
        let mut peaks = vec![0f32; self.powers.len()];
        for row in self.largest.chunks(peaks.len().max(1)) {
            peaks.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(*x));
        }
        peaks
    }

    /// Power of the noise at the output where filters are multiplied and what they read is divided by
    /// factors, and both are rounded; relative to the power of the output.
    fn noise(&self, squares: &[f64], step: f64, factors: &[f32]) -> f64 {
        let power = |i: usize| squares[i] / f64::from(factors[i]).powi(2);
        let divided: f64 = (0..squares.len()).map(power).sum();
        let rows = self.largest.chunks(factors.len().max(1)).map(|row| {
            let most = row.iter().zip(factors).fold(0f32, |most, (x, f)| most.max(x * f));
            (f64::from(most) / 127.0).powi(2) / 12.0
        });
        let weights = rows.sum::<f64>() * divided * self.taps;
        let activation = (0..squares.len()).map(|i| {
            let factor = f64::from(factors[i]).powi(2);
            self.powers[i] * factor * (step * step / 12.0).min(power(i))
        });
        let signal: f64 = self.powers.iter().zip(squares).map(|(p, s)| p * s).sum();
        (weights + activation.sum::<f64>()) / signal.max(f64::MIN_POSITIVE)
    }
}

/// From the least to the largest number of all channels, each divided by its factor.
fn hull(reach: &[(f32, f32)], factors: &[f32]) -> (f32, f32) {
    let divided = reach.iter().zip(factors);
    divided.fold((0f32, 0f32), |(low, high), (&(least, most), factor)| {
        (low.min(least / factor), high.max(most / factor))
    })
}

/// The factors with the least noise, if it is worthwhile.
fn best(sides: &[Side], seen: &Statistics) -> Option<Vec<f32>> {
    let channels = seen.channels();
    let mut largest = vec![0f32; channels];
    for side in sides {
        largest.iter_mut().zip(side.peaks()).for_each(|(most, own)| *most = most.max(own));
    }
    let reach = seen.reach();
    let peaks: Vec<f32> = reach.iter().map(|(low, high)| high.max(-low)).collect();
    let noise = |factors: &[f32]| -> f64 {
        let (low, high) = hull(&reach, factors);
        let step = f64::from(high - low) / 255.0;
        sides.iter().map(|side| side.noise(&seen.mean_squares, step, factors)).sum()
    };
    let plain = noise(&vec![1.0; channels]) * WORTHWHILE;
    let tried = Choice::all().map(|choice| choice.factors(&peaks, &largest));
    let tried = tried.map(|factors| (noise(&factors), factors));
    let (noise, factors) = tried.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (noise < plain).then_some(factors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExplainedPlan;
    use crate::refine::{Improvements, improve};
    use crate::testing::integers::{calibrated, feeds, sqnr};
    use crate::testing::interpreter::first_output;
    use crate::testing::{Build, float, noise, rows_seen};

    const SMOOTHED: Improvements = Improvements { smoothing: true, bias_correction: false };

    /// A convolution that reads what is made as float, one channel of it a hundred times larger.
    fn planted() -> (Build, ValueId) {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[1, 4, 6, 6]));
        let scale = b.weight("scale", &[4, 1, 1], &[1.0, 100.0, 1.0, 1.0]);
        let scaled = b.node("Mul", &[x, scale], &[]);
        let made = b.node("Neg", &[scaled], &[]);
        let loud = b.node("Mul", &[made, scale], &[]);
        let mut w = noise(4 * 4 * 9, 1);
        for (index, x) in w.iter_mut().enumerate() {
            // Filters make up for it.
            *x *= if index / 9 % 4 == 1 { 0.01 } else { 1.0 };
        }
        let w = b.weight("W", &[4, 4, 3, 3], &w);
        let y = b.node("Conv", &[loud, w], &[("pads", vec![1i64, 1, 1, 1].into())]);
        b.output(y, float(&[1, 4, 6, 6]));
        modelopt_graph::infer::infer(&mut b.model);
        (b, loud)
    }

    /// The convolution's place in a plan.
    fn place(plan: &ExplainedPlan) -> usize {
        plan.lines().position(|(_, why)| why.op == "Conv").unwrap()
    }

    fn seen(b: &Build, plan: &ExplainedPlan, loud: ValueId) -> Seen {
        let all = crate::testing::interpreter::run(&b.model, &feeds(&b.model));
        let numbers = all[&loud].to_f32().unwrap().into_owned();
        let rows: Vec<f32> =
            (0..36).flat_map(|at| (0..4).map(move |c| c * 36 + at)).map(|i| numbers[i]).collect();
        let watched = crate::watched(&b.model, plan);
        Seen::new(watched.into_iter().map(|watched| (watched, rows_seen(&rows, 4))))
    }

    #[test]
    fn a_large_channel_no_longer_sets_the_step_for_all() {
        let (b, loud) = planted();
        let plan = crate::plan(&b.model, &calibrated(&b.model)).unwrap();
        let mut smoothed = plan.clone();
        improve(&b.model, &mut smoothed, &seen(&b, &plan, loud), SMOOTHED);
        let factors = &smoothed.layers[place(&plan)].smoothing;
        assert!(factors[1] > 10.0 * factors[0], "{factors:?}");
        let before = first_output(&b.model, &feeds(&b.model));
        let of = |plan: &Plan| {
            let plan = crate::plan_from(&b.model, plan).unwrap();
            let mut model = b.model.clone();
            crate::apply(&mut model, &plan).unwrap();
            sqnr(&before, &first_output(&model, &feeds(&b.model)))
        };
        let (plain, better) = (of(&plan), of(&smoothed));
        assert!(better > plain + 6.0, "{plain} {better} dB");
        // As a file and back.
        assert_eq!(Plan::from_toml(&smoothed.to_toml()).unwrap(), *smoothed);
    }

    #[test]
    fn what_is_read_otherwise_is_left_as_it_is() {
        let (mut b, loud) = planted();
        // A sum computes on it as well.
        let sum = b.node("Add", &[loud, loud], &[]);
        let w = b.weight("V", &[4, 4, 1, 1], &noise(16, 3));
        let other = b.node("Conv", &[sum, w], &[]);
        b.output(other, float(&[1, 4, 6, 6]));
        modelopt_graph::infer::infer(&mut b.model);
        let plan = crate::plan(&b.model, &calibrated(&b.model)).unwrap();
        let mut smoothed = plan.clone();
        improve(&b.model, &mut smoothed, &seen(&b, &plan, loud), SMOOTHED);
        assert_eq!(smoothed.layers[place(&plan)].smoothing, []);
        // And refused where somebody asks for it.
        smoothed.layers[place(&plan)].smoothing = vec![1.0, 2.0, 1.0, 1.0];
        let error = crate::plan_from(&b.model, &smoothed).unwrap_err().to_string();
        assert!(error.contains("must have the same smoothing"), "{error}");
    }

    #[test]
    fn factors_that_do_not_fit_are_refused() {
        let (b, _) = planted();
        let mut plan = crate::plan(&b.model, &calibrated(&b.model)).unwrap();
        let conv = place(&plan);
        plan.layers[conv].smoothing = vec![1.0; 3];
        let error = crate::plan_from(&b.model, &plan).unwrap_err().to_string();
        assert!(error.contains("does not fit its filters"), "{error}");
    }
}
