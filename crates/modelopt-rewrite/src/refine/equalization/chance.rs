//! What a link has to gain: factors by what was seen of its channels.

use std::collections::HashMap;

use indexmap::IndexMap;
use modelopt_graph::{Model, NodeId, ValueId};

use super::link::{Layout, Link};
use crate::plan::Plan;
use crate::refine::choice::{Choice, FEWEST, WORTHWHILE};
use crate::statistics::{Seen, Statistics};

/// Factors are at most two to this power, and at least one divided by as much: a channel that was quiet on
/// the samples may be loud on others.
const WIDEST: f32 = 8.0;

/// From where to where each channel goes.
type Reach = Vec<(f32, f32)>;

/// A link with what is known of its channels.
pub(super) struct Chance<'a> {
    readers: Vec<Reader<'a>>,
    /// What is known of each tensor.
    reaches: IndexMap<ValueId, Reach>,
    channels: usize,
}

/// A layer that reads a divided tensor.
struct Reader<'a> {
    reads: ValueId,
    seen: &'a Statistics,
    /// Whether what it reads is rounded, and whether its weights are.
    rounded: (bool, bool),
    blocks: Vec<Block>,
    outputs: usize,
    taps: f64,
}

/// The numbers of a weight between one input and one output channel.
struct Block {
    input: usize,
    output: usize,
    largest: f32,
    /// Sum of squares.
    power: f64,
}

impl<'a> Chance<'a> {
    /// None where something that is needed was not seen.
    pub(super) fn of(
        model: &Model,
        (plan, seen): (&Plan, &'a Seen),
        link: &Link,
        ids: &HashMap<NodeId, String>,
        quantized: &dyn Fn(ValueId) -> bool,
    ) -> Option<Self> {
        let decided = plan.decided();
        let mut readers = Vec::new();
        for &(node, reads) in &link.readers {
            let id = ids.get(&node)?;
            // Ranges of few numbers say more of the samples than of the model.
            let known = seen.get(id).filter(|seen| {
                seen.is_finite() && seen.count >= FEWEST && seen.channels() == link.channels
            })?;
            let rounded = (quantized(reads), decided(id).0.is_int8());
            readers.push(Reader::of(model, node, reads, known, rounded)?);
        }
        let reaches = reaches(model, link, &readers);
        let channels = link.channels;
        let all = link.values().filter(|&value| quantized(value));
        let known = all.into_iter().all(|value| reaches.contains_key(&value));
        known.then_some(Chance { readers, reaches, channels })
    }

    /// The factors with the least noise, if they are worthwhile.
    pub(super) fn best(&self) -> Option<Vec<f32>> {
        let mut largest = vec![0f32; self.channels];
        for block in self.readers.iter().flat_map(|reader| &reader.blocks) {
            largest[block.input] = largest[block.input].max(block.largest);
        }
        let mut peaks = vec![0f32; self.channels];
        for reach in self.reaches.values() {
            let ends = reach.iter().map(|(low, high)| high.max(-low));
            peaks.iter_mut().zip(ends).for_each(|(peak, end)| *peak = peak.max(end));
        }
        let plain = self.noise(&vec![1.0; self.channels]) * WORTHWHILE;
        let tried = Choice::all().map(|choice| {
            let factors = choice.factors(&peaks, &largest);
            let exact: Vec<f32> = factors.into_iter().map(power_of_two).collect();
            (self.noise(&exact), exact)
        });
        let (noise, factors) = tried.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (noise < plain).then_some(factors)
    }

    /// The range of a tensor that is divided by factors.
    pub(super) fn range(&self, value: ValueId, factors: &[f32]) -> Option<(f32, f32)> {
        let divided = self.reaches.get(&value)?.iter().zip(factors);
        Some(divided.fold((0f32, 0f32), |(low, high), (&(least, most), factor)| {
            (low.min(least / factor), high.max(most / factor))
        }))
    }

    /// Power of the noise of all readers, each relative to its output.
    fn noise(&self, factors: &[f32]) -> f64 {
        let of = |reader: &Reader<'_>| {
            let (low, high) = self.range(reader.reads, factors).unwrap_or_default();
            reader.noise(f64::from(high - low) / 255.0, factors)
        };
        self.readers.iter().map(of).sum()
    }
}

fn power_of_two(x: f32) -> f32 {
    x.log2().round().clamp(-WIDEST, WIDEST).exp2()
}

/// What is known of each tensor of a link: of what is read, what was seen; of what that is made of, what can be
/// told from it.
fn reaches(model: &Model, link: &Link, readers: &[Reader<'_>]) -> IndexMap<ValueId, Reach> {
    let mut known: IndexMap<ValueId, Reach> = IndexMap::new();
    for reader in readers {
        known.entry(reader.reads).or_insert_with(|| reader.seen.reach());
    }
    let mut lost: Vec<ValueId> = Vec::new();
    for step in link.steps.iter().rev() {
        if readers.iter().any(|reader| reader.reads == step.from) {
            continue;
        }
        let node = model.node(step.by);
        // Where numbers below zero shrink to this, they were larger.
        let below = match node.op.name.as_str() {
            "Relu" | "Identity" | "Dropout" | "MaxPool" => 1.0,
            "LeakyRelu" => node.float("alpha", 0.01),
            _ => 0.0,
        };
        let made = known.get(&step.to).filter(|_| below > 0.0 && !lost.contains(&step.to));
        let Some(made) = made.cloned() else {
            lost.push(step.from);
            continue;
        };
        let own = known.entry(step.from).or_insert_with(|| vec![(0.0, 0.0); made.len()]);
        for ((low, high), (least, most)) in own.iter_mut().zip(made) {
            (*low, *high) = (low.min(least / below), high.max(most));
        }
    }
    known.retain(|value, _| !lost.contains(value));
    known
}

impl<'a> Reader<'a> {
    fn of(
        model: &Model,
        node: NodeId,
        reads: ValueId,
        seen: &'a Statistics,
        rounded: (bool, bool),
    ) -> Option<Self> {
        let (layout, tensor) = Layout::of(model, node)?;
        let numbers = tensor.to_f32()?;
        let block = |(place, taps): (usize, &[f32])| {
            let (input, output) = layout.channels(place);
            let largest = taps.iter().fold(0f32, |most, x| most.max(x.abs()));
            let power = taps.iter().map(|&x| f64::from(x).powi(2)).sum();
            Block { input, output, largest, power }
        };
        let blocks = numbers.chunks(layout.taps.max(1)).enumerate().map(block).collect();
        let (outputs, taps) = (layout.outputs(), layout.taps as f64);
        Some(Reader { reads, seen, rounded, blocks, outputs, taps })
    }

    /// Power of the noise at the output, relative to that of the output, where what it reads is divided by
    /// factors and rounded in steps: errors of rounding are taken for uniform.
    fn noise(&self, step: f64, factors: &[f32]) -> f64 {
        let mut largest = vec![0f32; self.outputs];
        let mut summed = vec![0f64; self.outputs];
        let (mut activation, mut signal) = (0f64, 0f64);
        let squares = &self.seen.mean_squares;
        for block in &self.blocks {
            let (factor, square) = (factors[block.input], squares[block.input]);
            let divided = square / f64::from(factor).powi(2);
            largest[block.output] = largest[block.output].max(block.largest * factor);
            summed[block.output] += divided * self.taps;
            let error = (step * step / 12.0).min(divided);
            activation += block.power * f64::from(factor).powi(2) * error;
            signal += block.power * square;
        }
        let rows = largest.iter().zip(&summed);
        let weights: f64 =
            rows.map(|(&most, summed)| (f64::from(most) / 127.0).powi(2) / 12.0 * summed).sum();
        let count = |counts: bool, noise: f64| if counts { noise } else { 0.0 };
        let noise = count(self.rounded.0, activation) + count(self.rounded.1, weights);
        noise / signal.max(f64::MIN_POSITIVE)
    }
}
