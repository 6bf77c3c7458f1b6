//! What makes a quantized layer more precise and leaves the model's function as it is: smoothing,
//! equalization and bias correction. All are chosen from what was seen of the activations, stand in the plan as
//! numbers, and are carried out before anything is quantized.

mod bias;
mod channel_scales;
mod choice;
mod equalization;
mod smoothing;

use std::collections::HashMap;

use indexmap::IndexMap;
use modelopt_graph::{GraphId, Model, NodeId, ValueId};
use rayon::prelude::*;

use choice::{Choice, FEWEST, WORTHWHILE, short};
pub(crate) use equalization::Divisors;

use crate::engine::BrokenRewrite;
use crate::layer_matrix::{Matrix, Moments};
use crate::layers::{self, Layer, WeightUse};
use crate::memo::Memo;
use crate::plan::{Plan, PlanError};
use crate::policy::OnIntegers;
use crate::statistics::{Seen, Statistics};
use crate::weight_errors::errors;

/// What to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Improvements {
    /// Move ranges of activations into weights, for `int8-dynamic` layers.
    pub smoothing: bool,
    /// Correct biases for the mean error of rounded weights.
    pub bias_correction: bool,
}

/// In so many parts samples are left out.
const FOLDS: usize = 8;

/// The least share that the mean must have in what rounding does to the output: where activations
/// are centred, what is left of their mean says more of the samples than of the model.
const STEADY: f64 = 0.1;

/// Carries out what a plan has of them. The model must be as it was when the plan was made.
pub(crate) fn apply(model: &mut Model, plan: &Plan) -> Result<(), BrokenRewrite> {
    // First: it changes no node, and finds all of them as they were when the plan was made.
    equalization::apply(model, plan)?;
    smoothing::apply(model, plan)?;
    channel_scales::apply(model, plan)?;
    // Last: corrections are of the layers as the others leave them.
    bias::apply(model, plan)
}

/// The numbers of one refinement, by name of the layers that have it.
fn refinements(plan: &Plan, of: impl Fn(&crate::PlannedLayer) -> &[f32]) -> HashMap<&str, &[f32]> {
    let numbers = plan.layers.iter().map(|line| (line.id.as_str(), of(line)));
    numbers.filter(|(_, numbers)| !numbers.is_empty()).collect()
}

/// Gives a plan smoothing and bias corrections for its int8 layers, where they help; those that it
/// had are replaced. `seen` is what was seen of the activation of each layer, by id.
pub fn improve(model: &Model, plan: &mut Plan, seen: &Seen, wanted: Improvements) {
    improve_with(model, plan, seen, wanted, &Memo::none());
}

/// The same with weights that may be quantized already.
pub(crate) fn improve_with(
    model: &Model,
    plan: &mut Plan,
    seen: &Seen,
    wanted: Improvements,
    memo: &Memo,
) {
    for layer in &mut plan.layers {
        // Ranges go with the scales by channel that there are.
        if !layer.scheme.needs_ranges() {
            layer.smoothing = Vec::new();
        }
        layer.bias_correction = Vec::new();
    }
    if wanted.smoothing {
        choose_smoothing(model, plan, seen);
        // Before scales by channel, which take a node.
        equalization::choose(model, plan, seen);
        channel_scales::choose(model, plan, seen);
    }
    if wanted.bias_correction {
        choose_corrections(model, plan, seen, memo);
    }
}

/// Refuses improvements that cannot be carried out.
pub(crate) fn check(model: &Model, plan: &Plan) -> Result<(), PlanError> {
    equalization::check(model, plan)?;
    let refined = |line: &&crate::PlannedLayer| {
        !line.smoothing.is_empty() || !line.bias_correction.is_empty()
    };
    if !plan.layers.iter().any(|line| refined(&line)) {
        return Ok(());
    }
    let layers = layers::find(model, 0);
    let by_name: HashMap<&str, &Layer> =
        layers.iter().map(|layer| (layer.id.as_str(), layer)).collect();
    let by_node: HashMap<NodeId, &str> =
        layers.iter().map(|layer| (layer.node, layer.id.as_str())).collect();
    let lines: HashMap<&str, &[f32]> =
        plan.layers.iter().map(|line| (line.id.as_str(), line.smoothing.as_slice())).collect();
    let OnIntegers { regions: on_integers, .. } = OnIntegers::of(model, plan);
    for line in plan.layers.iter().filter(refined) {
        let refuse = |why: &str| {
            let (layer, why) = (line.id.clone(), why.to_owned());
            Err(PlanError::Impossible { layer, scheme: line.scheme, why })
        };
        let Some(layer) = by_name.get(line.id.as_str()) else {
            return refuse("smoothing and bias corrections need a weight");
        };
        let agree = |(reader, _): (NodeId, usize)| {
            let name = by_node.get(&reader).copied().unwrap_or_default();
            lines.get(name).copied() == Some(line.smoothing.as_slice())
        };
        let numbers = line.smoothing.iter().chain(&line.bias_correction);
        if numbers.clone().any(|x| !x.is_finite()) || line.smoothing.iter().any(|&x| x <= 0.0) {
            return refuse("its smoothing must be positive, and all its numbers finite");
        }
        if !line.smoothing.is_empty() && line.scheme.needs_ranges() {
            if channel_scales::depth(model, layer) != Some(line.smoothing.len()) {
                return refuse("its smoothing does not fit its filters");
            }
            let x = model.node(layer.node).input(0);
            let readers = x.map(|x| on_integers.readers(model, x)).unwrap_or_default();
            if x.is_none() || !readers.into_iter().all(agree) {
                return refuse("all that compute with what it reads must have the same smoothing");
            }
        } else if !line.smoothing.is_empty() {
            let weight = smoothing::smoothable(model, layer);
            let weight = weight.filter(|w| smoothing::depth(w) == Some(line.smoothing.len()));
            let Some(weight) = weight else {
                return refuse("its smoothing does not fit the weight");
            };
            if !readers_of(model, weight.value).into_iter().all(agree) {
                return refuse("all that read its weight must have the same smoothing");
            }
        }
        let channels = line.bias_correction.len();
        if channels > 0 && !bias::fits(model, layer.node, channels) {
            return refuse("there is no constant bias that its correction fits");
        }
    }
    Ok(())
}

/// All that read a weight, through aliases.
fn readers_of(model: &Model, weight: ValueId) -> Vec<(NodeId, usize)> {
    let mut readers = Vec::new();
    let mut values = vec![weight];
    while let Some(value) = values.pop() {
        for (node, input) in model.consumers(value) {
            if model.node(node).op.is("Identity") {
                values.extend(model.node(node).output(0));
            } else {
                readers.push((node, input));
            }
        }
    }
    readers
}

/// Layers that must be smoothed alike: they share activations or weights.
struct Group {
    /// Places in the plan, with the weight of each.
    layers: Vec<(usize, WeightUse)>,
    seen: Vec<Statistics>,
}

fn choose_smoothing(model: &Model, plan: &mut Plan, seen: &Seen) {
    let groups = groups(model, plan, seen);
    let chosen: Vec<Option<Vec<f32>>> = groups.par_iter().map(best).collect();
    for (group, factors) in groups.iter().zip(chosen) {
        let Some(factors) = factors else { continue };
        for (place, _) in &group.layers {
            plan.layers[*place].smoothing.clone_from(&factors);
        }
    }
}

fn groups(model: &Model, plan: &Plan, seen: &Seen) -> Vec<Group> {
    let places = plan.places();
    let mut by_activation: HashMap<(ValueId, GraphId), usize> = HashMap::new();
    let mut by_weight: HashMap<ValueId, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    let mut members: HashMap<NodeId, usize> = HashMap::new();
    for layer in layers::find(model, 0) {
        let Some(&place) = places.get(layer.id.as_str()) else { continue };
        let dynamic = plan.layers[place].scheme.is_dynamic();
        let Some(weight) = smoothing::smoothable(model, &layer).filter(|_| dynamic).cloned() else {
            continue;
        };
        let known = seen
            .get(&layer.id)
            .filter(|seen| seen.is_finite() && Some(seen.channels()) == smoothing::depth(&weight));
        let (Some(known), Some(x)) = (known, model.node(layer.node).input(0)) else { continue };
        let activation = (x, model.node(layer.node).graph());
        let own = [by_activation.get(&activation), by_weight.get(&weight.value)];
        let mut homes: Vec<usize> = own.into_iter().flatten().copied().collect();
        homes.sort_unstable();
        homes.dedup();
        let home = homes.first().copied().unwrap_or_else(|| {
            groups.push(Group { layers: Vec::new(), seen: Vec::new() });
            groups.len() - 1
        });
        for &other in homes.iter().skip(1) {
            let moved = std::mem::take(&mut groups[other].layers);
            groups[home].layers.extend(moved);
            let moved = std::mem::take(&mut groups[other].seen);
            groups[home].seen.extend(moved);
            let places = by_activation.values_mut().chain(by_weight.values_mut());
            let places = places.chain(members.values_mut());
            places.filter(|place| **place == other).for_each(|place| *place = home);
        }
        if !by_activation.contains_key(&activation) {
            groups[home].seen.push(known.clone());
        }
        by_activation.insert(activation, home);
        by_weight.insert(weight.value, home);
        members.insert(layer.node, home);
        groups[home].layers.push((place, weight));
    }
    // Somebody else reads the weight as it is.
    for (weight, home) in by_weight {
        let inside = |(node, _): (NodeId, usize)| members.get(&node) == Some(&home);
        if !readers_of(model, weight).into_iter().all(inside) {
            groups[home].layers.clear();
        }
    }
    groups.retain(|group| !group.layers.is_empty());
    groups
}

/// One weight of a group as far as choosing needs it: some of its output channels.
struct Side {
    /// `[K, n]`.
    rows: Vec<f32>,
    outputs: usize,
    /// Sum of squares of each row.
    powers: Vec<f64>,
}

/// As many output channels are looked at to choose factors.
const MOST_OUTPUTS: usize = 96;

impl Side {
    fn of(weight: &WeightUse) -> Option<Self> {
        let numbers = weight.tensor.to_f32()?;
        let &[rows, columns] = weight.tensor.shape() else { return None };
        let transposed = smoothing::is_transposed(weight);
        let (inputs, all) = if transposed { (columns, rows) } else { (rows, columns) };
        let outputs = all.min(MOST_OUTPUTS);
        let mut own = Vec::with_capacity(inputs * outputs);
        for input in 0..inputs {
            for output in (0..outputs).map(|index| index * all / outputs) {
                let at =
                    if transposed { output * columns + input } else { input * columns + output };
                own.push(*numbers.get(at)?);
            }
        }
        let square = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum();
        let powers = own.chunks(outputs.max(1)).map(square).collect();
        Some(Side { rows: own, outputs, powers })
    }

    /// The largest number of each row.
    fn largest(&self) -> impl Iterator<Item = f32> {
        let rows = self.rows.chunks(self.outputs.max(1));
        rows.map(|row| row.iter().fold(0f32, |most, x| most.max(x.abs())))
    }

    /// Power of the output.
    fn signal(&self, moments: &Moments) -> f64 {
        let mut means = vec![0f64; self.outputs];
        for (row, mean) in self.rows.chunks(self.outputs.max(1)).zip(&moments.means) {
            means.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * mean);
        }
        let varying = self.powers.iter().zip(&moments.variances).map(|(p, v)| p * v);
        means.iter().map(|mean| mean * mean).sum::<f64>() + varying.sum::<f64>()
    }

    /// Power of the noise, when activations are divided and weights multiplied by factors, and
    /// both rounded: errors of rounding are taken for uniform.
    fn noise(&self, squares: &[f64], step: f64, factors: Option<&[f32]>) -> f64 {
        let factor = |input: usize| factors.map_or(1.0, |factors| factors[input]);
        let mut largest = vec![0f32; self.outputs];
        let (mut divided, mut rounded) = (0f64, 0f64);
        for (input, row) in self.rows.chunks(self.outputs.max(1)).enumerate() {
            let factor = factor(input);
            for (most, x) in largest.iter_mut().zip(row) {
                *most = most.max(x.abs() * factor);
            }
            let square = squares[input] / f64::from(factor).powi(2);
            divided += square;
            let error = (step * step / 12.0).min(square);
            rounded += self.powers[input] * f64::from(factor).powi(2) * error;
        }
        let steps = largest.iter().map(|&most| (f64::from(most) / 127.0).powi(2) / 12.0);
        steps.sum::<f64>() * divided + rounded
    }
}

/// The factors with the least noise, if it is worthwhile.
///
/// Each sample is judged with factors from the others: a channel that is quiet on all of them may be
/// loud on the next, and a factor that divides it by little then costs all others their precision.
fn best(group: &Group) -> Option<Vec<f32>> {
    let known: IndexMap<ValueId, &WeightUse> =
        group.layers.iter().map(|(_, weight)| (weight.value, weight)).collect();
    let sides: Vec<Side> = known.values().map(|weight| Side::of(weight)).collect::<Option<_>>()?;
    let channels = group.seen.first()?.channels();
    let mut largest = vec![0f32; channels];
    for side in &sides {
        largest.iter_mut().zip(side.largest()).for_each(|(most, own)| *most = most.max(own));
    }
    let peaks = |left_out: Option<(usize, usize)>| {
        let mut peaks = vec![0f32; channels];
        for seen in &group.seen {
            peaks.iter_mut().zip(seen.peaks_but(left_out)).for_each(|(p, own)| *p = p.max(own));
        }
        peaks
    };
    let samples = group.seen.iter().map(Statistics::kept).max()?;
    let count = samples.min(FOLDS);
    let folds: Vec<Vec<f32>> =
        (0..count).map(|fold| peaks(Some((fold, count)).filter(|_| count > 1))).collect();
    let signals: Vec<(&[f64], Vec<f64>)> = group
        .seen
        .iter()
        .map(|seen| {
            let moments = Moments::of(seen, None);
            (seen.mean_squares.as_slice(), sides.iter().map(|side| side.signal(&moments)).collect())
        })
        .collect();
    let noise = |choice: Option<Choice>| -> f64 {
        let mut total = 0.0;
        for (fold, peaks) in folds.iter().enumerate() {
            let factors = choice.map(|choice| choice.factors(peaks, &largest));
            for (seen, (squares, signals)) in group.seen.iter().zip(&signals) {
                let own = (fold..seen.kept()).step_by(count);
                let steps = own.map(|sample| seen.step(sample, factors.as_deref()));
                let step = steps.fold(0f64, f64::max);
                for (side, signal) in sides.iter().zip(signals) {
                    if *signal > 0.0 {
                        total += side.noise(squares, step, factors.as_deref()) / signal;
                    }
                }
            }
        }
        total
    };
    let mut found = (noise(None) * WORTHWHILE, None);
    for choice in Choice::all() {
        let noise = noise(Some(choice));
        if noise < found.0 {
            found = (noise, Some(choice));
        }
    }
    Some(found.1?.factors(&peaks(None), &largest))
}

fn choose_corrections(model: &Model, plan: &mut Plan, seen: &Seen, memo: &Memo) {
    let mut smoothed = model.clone();
    let applied = equalization::apply(&mut smoothed, plan)
        .and_then(|()| smoothing::apply(&mut smoothed, plan))
        .and_then(|()| channel_scales::apply(&mut smoothed, plan));
    if applied.is_err() {
        return;
    }
    let divided = Divisors::of(model, plan);
    let errors = errors(&smoothed, plan, memo);
    let layers = layers::find(&smoothed, 0);
    let places = plan.places();
    let by_place: HashMap<usize, &Layer> =
        layers.iter().filter_map(|layer| Some((*places.get(layer.id.as_str())?, layer))).collect();
    let mut corrections: Vec<(usize, Vec<f32>)> = Vec::new();
    for error in &errors {
        for &place in &error.layers {
            let correction = by_place.get(&place).and_then(|layer| {
                let line = &plan.layers[place];
                let seen = seen.get(&line.id)?;
                correction(&smoothed, layer, error, seen, divided.by(layer.node, line))
            });
            corrections.extend(correction.map(|correction| (place, correction)));
        }
    }
    for (place, correction) in corrections {
        plan.layers[place].bias_correction = correction;
    }
}

/// What rounding the weight takes from the mean of each output.
fn correction(
    model: &Model,
    layer: &Layer,
    error: &crate::weight_errors::WeightError,
    seen: &Statistics,
    divisors: Option<&[f32]>,
) -> Option<Vec<f32>> {
    let weight = layer.weights.iter().find(|weight| weight.value == error.value)?;
    let matrix = Matrix::of(model, layer.node, weight)?;
    let fits = seen.channels() == matrix.inputs()
        && seen.is_finite()
        && seen.count >= FEWEST
        && bias::fits(model, layer.node, matrix.outputs());
    let moments = Moments::of(seen, divisors);
    let off = fits.then(|| matrix.mean_output(&error.error, &moments.means))?;
    let steady: f64 = off.iter().map(|off| off * off).sum();
    let all = matrix.power(&error.error, &moments);
    (steady >= STEADY * all).then_some(())?;
    Some(off.into_iter().map(|off| short(-off as f32)).collect())
}

#[cfg(test)]
mod tests {
    use crate::Scheme;
    use approx::assert_relative_eq;

    use super::*;
    use crate::testing::{Build, float, noise as numbers, options};

    const BOTH: Improvements = Improvements { smoothing: true, bias_correction: true };

    /// A product with a bias, and what it reads: centred but for an offset, one channel a hundred
    /// times larger than the others.
    fn planted(b: &mut Build) -> (ValueId, Seen) {
        let x = b.input("x", float(&[256, 16]));
        let w = b.weight("W", &[16, 32], &numbers(512, 1));
        let bias = b.weight("b", &[32], &numbers(32, 2));
        let p = b.node("MatMul", &[x, w], &[]);
        let y = b.node("Add", &[p, bias], &[]);
        b.output(y, float(&[256, 32]));
        let mut rows = numbers(256 * 16, 3);
        for (index, x) in rows.iter_mut().enumerate() {
            *x += 0.5;
            if index % 16 == 5 {
                *x *= 100.0;
            }
        }
        modelopt_graph::infer::infer(&mut b.model);
        let plan = crate::plan(&b.model, &options(Scheme::INT8_DYNAMIC)).unwrap();
        let watched = crate::watched(&b.model, &plan).remove(0);
        let seen = crate::testing::rows_seen(&rows, 16);
        (y, Seen::new([(watched, seen)]))
    }

    fn improved(b: &Build, seen: &Seen, scheme: Scheme) -> Plan {
        let mut plan = crate::plan(&b.model, &options(scheme)).unwrap().into_plan();
        improve(&b.model, &mut plan, seen, BOTH);
        plan
    }

    #[test]
    fn a_large_channel_is_moved_into_the_weights() {
        let mut b = Build::new(17);
        let (_, seen) = planted(&mut b);
        modelopt_graph::infer::infer(&mut b.model);
        let plan = improved(&b, &seen, Scheme::INT8_DYNAMIC);
        let smoothing = &plan.layers[0].smoothing;
        let largest = (0..16).max_by(|&a, &b| smoothing[a].total_cmp(&smoothing[b]));
        assert_eq!(largest, Some(5));
        assert!(smoothing[5] > 5.0 * smoothing[0], "{smoothing:?}");
        // As a file and back.
        assert_eq!(Plan::from_toml(&plan.to_toml()).unwrap(), plan);
        // Stored weights need none.
        let stored = improved(&b, &seen, Scheme::INT8_WEIGHTS);
        assert!(stored.layers[0].smoothing.is_empty());
        assert_eq!(stored.layers[0].bias_correction.len(), 32);
    }

    #[test]
    fn the_mean_of_the_output_stays() {
        let mut b = Build::new(17);
        let (y, seen) = planted(&mut b);
        modelopt_graph::infer::infer(&mut b.model);
        let plan = improved(&b, &seen, Scheme::INT8_WEIGHTS);
        let error = &errors(&b.model, &plan, &Memo::none())[0];
        let means = seen.get("matmul_out_node").unwrap().means.clone();
        let off = (0..16).map(|k| f64::from(error.error[k * 32]) * means[k]).sum::<f64>();
        assert!(off.abs() > 1e-5);
        assert_relative_eq!(plan.layers[0].bias_correction[0], -off as f32, max_relative = 1e-3);
        crate::apply(&mut b.model, &plan).unwrap();
        let bias = b.model.constant(b.maker(y).input(1).unwrap()).unwrap();
        assert_relative_eq!(
            bias.to_f32().unwrap()[0],
            numbers(32, 2)[0] - off as f32,
            max_relative = 1e-4
        );
    }

    #[test]
    fn a_weight_that_somebody_else_reads_is_not_smoothed() {
        let mut b = Build::new(17);
        let (_, seen) = planted(&mut b);
        let w = b.model.values().find(|&v| b.model.value(v).name() == "W").unwrap();
        let other = b.input("z", float(&[2, 16]));
        let z = b.node("MatMul", &[other, w], &[]);
        b.output(z, float(&[2, 32]));
        modelopt_graph::infer::infer(&mut b.model);
        let plan = improved(&b, &seen, Scheme::INT8_DYNAMIC);
        assert!(plan.layers.iter().all(|layer| layer.smoothing.is_empty()));
        // And a plan that asks for it is refused.
        let mut wanted = plan.clone();
        wanted.layers[0].smoothing = vec![2.0; 16];
        let error = crate::plan_from(&b.model, &wanted).unwrap_err().to_string();
        assert!(error.contains("the same smoothing"), "{error}");
        wanted.layers[0].smoothing = vec![2.0; 3];
        let error = crate::plan_from(&b.model, &wanted).unwrap_err().to_string();
        assert!(error.contains("does not fit"), "{error}");
        wanted.layers[0].smoothing = Vec::new();
        wanted.layers[0].bias_correction = vec![1.0];
        let error = crate::plan_from(&b.model, &wanted).unwrap_err().to_string();
        assert!(error.contains("no constant bias"), "{error}");
    }
}
