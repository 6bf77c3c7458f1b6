//! What flows through a model, channel by channel: enough to tell what rounding costs a layer, in
//! memory that does not grow with the activations.

use std::collections::HashMap;

use indexmap::IndexMap;
use modelopt_graph::{Model, NodeId, Producer, ValueId};
use serde::{Deserialize, Serialize};

use crate::layers;
use crate::plan::Plan;

/// What was seen of one activation over all samples, by channel of the layer that reads it; without
/// channels where nothing can be said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// How many numbers of each channel were seen.
    pub count: u64,
    /// Mean of each channel.
    pub means: Vec<f64>,
    /// Mean square of each channel.
    pub mean_squares: Vec<f64>,
    /// The least and the largest number of each channel, and 0, for each sample:
    /// `DynamicQuantizeLinear` takes its scale from one sample at a time.
    pub ranges: Vec<Vec<(f32, f32)>>,
}

/// Along which axis an activation has the channels that a layer sums over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelAxis {
    /// `[.., K]`: matrix products.
    Last,
    /// `[N, C, ..]`: convolutions.
    Second,
}

impl ChannelAxis {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            ChannelAxis::Last => "last",
            ChannelAxis::Second => "second",
        }
    }
}

/// The axis for a layer, if its operator has one.
pub(crate) fn channel_axis(model: &Model, id: NodeId) -> Option<ChannelAxis> {
    let node = model.node(id);
    match node.op.name.as_str() {
        _ if !node.op.is_onnx() => None,
        "MatMul" => Some(ChannelAxis::Last),
        "Gemm" if node.int("transA", 0) == 0 => Some(ChannelAxis::Last),
        "Conv" | "ConvTranspose" => Some(ChannelAxis::Second),
        _ => None,
    }
}

/// An activation that int8 layers read.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The activation: a value of the main graph.
    pub value: ValueId,
    /// Names of the layers that read it.
    pub layers: Vec<String>,
    /// Where they have their channels.
    pub axis: ChannelAxis,
}

/// The activations of a plan's int8 layers that the main graph has, in its order.
pub fn watched(model: &Model, plan: &Plan) -> Vec<Watched> {
    let places = plan.places();
    let mut watched: IndexMap<(ValueId, ChannelAxis), Vec<String>> = IndexMap::new();
    for layer in layers::all(model) {
        let int8 = places.get(layer.id.as_str()).is_some_and(|&p| plan.layers[p].scheme.is_int8());
        let axis = channel_axis(model, layer.node).filter(|_| int8);
        let (Some(axis), Some(x)) = (axis, model.node(layer.node).input(0)) else { continue };
        let home = match model.value(x).producer() {
            Producer::Node(node, _) => model.node(node).graph(),
            Producer::Input(graph) => graph,
            _ => continue,
        };
        if home == model.main() && model.constant(x).is_none() {
            watched.entry((x, axis)).or_default().push(layer.id);
        }
    }
    watched.into_iter().map(|((value, axis), layers)| Watched { value, layers, axis }).collect()
}

/// With so many samples the next one is expected to go as far beyond them as they differ from one another.
const FEW_SAMPLES: f64 = 3.0;

/// How far beyond so many samples the next one is expected to go, as a share of how far the last of them is
/// beyond their mean.
pub fn share_beyond(samples: usize) -> f64 {
    (FEW_SAMPLES / samples.max(1) as f64).min(1.0)
}

/// What int8 layers read, over all samples.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    all: Vec<Statistics>,
    /// Places in `all` by name of the layer.
    layers: HashMap<String, usize>,
}

impl Seen {
    /// What was seen of the activations that a plan's layers read.
    pub fn new(watched: impl IntoIterator<Item = (Watched, Statistics)>) -> Self {
        let mut seen = Seen::default();
        for (watched, statistics) in watched {
            seen.layers.extend(watched.layers.into_iter().map(|name| (name, seen.all.len())));
            seen.all.push(statistics);
        }
        seen
    }

    /// What was seen of the activation of a layer.
    pub(crate) fn get(&self, layer: &str) -> Option<&Statistics> {
        self.all.get(*self.layers.get(layer)?)
    }
}

impl Statistics {
    /// Number of channels; 0 if nothing was seen.
    pub fn channels(&self) -> usize {
        self.means.len()
    }

    /// How many samples are kept apart.
    pub(crate) fn kept(&self) -> usize {
        self.ranges.len()
    }

    /// The largest magnitude of each channel over all samples but every so many-th, from one on:
    /// `(first, step)`.
    pub(crate) fn peaks_but(&self, left_out: Option<(usize, usize)>) -> Vec<f32> {
        let mut peaks = vec![0f32; self.channels()];
        for (sample, ranges) in self.ranges.iter().enumerate() {
            if left_out.is_some_and(|(first, step)| sample % step == first) {
                continue;
            }
            for (peak, (low, high)) in peaks.iter_mut().zip(ranges) {
                *peak = peak.max(-low).max(*high);
            }
        }
        peaks
    }

    /// The step of `DynamicQuantizeLinear` for each sample, once each channel is divided by its
    /// divisor: `(max(0, x) - min(0, x)) / 255`.
    pub(crate) fn steps(&self, divisors: Option<&[f32]>) -> Vec<f64> {
        (0..self.kept()).map(|sample| self.step(sample, divisors)).collect()
    }

    /// The same for one sample.
    pub(crate) fn step(&self, sample: usize, divisors: Option<&[f32]>) -> f64 {
        let divisor = |channel: usize| {
            divisors.and_then(|divisors| divisors.get(channel)).copied().unwrap_or(1.0)
        };
        let (mut low, mut high) = (0f32, 0f32);
        for (channel, &(least, most)) in self.ranges.get(sample).into_iter().flatten().enumerate() {
            low = low.min(least / divisor(channel));
            high = high.max(most / divisor(channel));
        }
        f64::from(high - low) / 255.0
    }

    /// From where to where each channel is expected to go on other samples: with 0 between, and as far beyond
    /// what was seen as samples differ in it.
    pub(crate) fn reach(&self) -> Vec<(f32, f32)> {
        let count = self.kept().max(1) as f32;
        let share = share_beyond(self.kept()) as f32;
        let beyond = |end: f32, sum: f32| end + (end - sum / count) * share;
        let of = |channel: usize| {
            let own = self.ranges.iter().filter_map(|sample| sample.get(channel));
            let (mut ends, mut sums) = ((0f32, 0f32), (0f32, 0f32));
            for &(low, high) in own {
                ends = (ends.0.min(low), ends.1.max(high));
                sums = (sums.0 + low, sums.1 + high);
            }
            (beyond(ends.0, sums.0), beyond(ends.1, sums.1))
        };
        (0..self.channels()).map(of).collect()
    }

    /// Whether all that was seen is finite.
    pub(crate) fn is_finite(&self) -> bool {
        self.mean_squares.iter().all(|square| square.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_has_its_own_step() {
        let seen = Statistics {
            ranges: vec![vec![(0.0, 51.0), (0.0, 1.0)], vec![(-1.0, 0.0), (0.0, 101.0)]],
            ..Statistics::default()
        };
        assert_eq!(seen.steps(None), [0.2, 0.4]);
        assert_eq!(
            seen.steps(Some(&[51.0, 1.0])),
            [1.0 / 255.0, f64::from(101f32 + 1.0 / 51.0) / 255.0]
        );
    }

    #[test]
    fn channels_are_taken_to_go_beyond_what_was_seen() {
        let seen = Statistics {
            means: vec![0.0, 0.0],
            ranges: vec![vec![(-3.0, 1.0), (0.0, 4.0)], vec![(-1.0, 1.0), (0.0, 8.0)]],
            ..Statistics::default()
        };
        // By as much as the last is beyond the mean of both.
        assert_eq!(seen.reach(), [(-4.0, 1.0), (0.0, 10.0)]);
    }

    #[test]
    fn samples_are_left_out_of_peaks() {
        let seen = Statistics {
            means: vec![0.0, 0.0],
            ranges: vec![vec![(-3.0, 1.0), (0.0, 1.0)], vec![(-1.0, 2.0), (0.0, 5.0)]],
            ..Statistics::default()
        };
        assert_eq!(seen.peaks_but(None), [3.0, 5.0]);
        assert_eq!(seen.peaks_but(Some((1, 2))), [3.0, 1.0]);
    }
}
