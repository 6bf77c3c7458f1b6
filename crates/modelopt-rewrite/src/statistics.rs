//! What flows through a model, channel by channel: enough to tell what rounding costs a layer, in
//! memory that does not grow with the activations.

use std::collections::HashMap;

use indexmap::IndexMap;
use modelopt_graph::{Model, NodeId, Producer, Tensor, ValueId};

use crate::layers;
use crate::plan::Plan;

/// The most samples whose ranges are kept apart.
const MOST_RANGES: usize = 32;

/// What was seen of one activation over all samples, by channel of the layer that reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// How many numbers of each channel were seen.
    pub count: u64,
    /// Sum of each channel.
    sums: Vec<f64>,
    /// Sum of squares of each channel.
    squares: Vec<f64>,
    /// The least and the largest number of each channel, for each sample: `DynamicQuantizeLinear`
    /// takes its scale from one sample at a time.
    ranges: Vec<Vec<(f32, f32)>>,
    /// How many samples there were.
    samples: usize,
}

/// Along which axis an activation has the channels that a layer sums over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ChannelAxis {
    /// `[.., K]`: matrix products.
    Last,
    /// `[N, C, ..]`: convolutions.
    Second,
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
    axis: ChannelAxis,
}

impl Watched {
    /// Adds what it was in one sample.
    pub fn add(&self, seen: &mut Statistics, tensor: &Tensor) {
        seen.add(tensor, self.axis);
    }
}

/// The activations of a plan's int8 layers that the main graph has, in its order.
pub fn watched(model: &Model, plan: &Plan) -> Vec<Watched> {
    let places = plan.places();
    let mut watched: IndexMap<(ValueId, ChannelAxis), Vec<String>> = IndexMap::new();
    for layer in layers::all(model) {
        let int8 =
            places.get(layer.name.as_str()).is_some_and(|&p| plan.layers[p].scheme.is_int8());
        let axis = channel_axis(model, layer.node).filter(|_| int8);
        let (Some(axis), Some(x)) = (axis, model.node(layer.node).input(0)) else { continue };
        let home = match model.value(x).producer() {
            Producer::Node(node, _) => model.node(node).graph(),
            Producer::Input(graph) => graph,
            _ => continue,
        };
        if home == model.main() && model.constant(x).is_none() {
            watched.entry((x, axis)).or_default().push(layer.name);
        }
    }
    watched.into_iter().map(|((value, axis), layers)| Watched { value, layers, axis }).collect()
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
    /// Adds an activation of one sample. One of another number of channels than before, or without
    /// channels, is not added.
    pub(crate) fn add(&mut self, tensor: &Tensor, axis: ChannelAxis) {
        let Some(numbers) = tensor.to_f32() else { return };
        let shape = tensor.shape();
        let place = match axis {
            ChannelAxis::Last => shape.len().checked_sub(1),
            ChannelAxis::Second => (shape.len() >= 2).then_some(1),
        };
        let Some(place) = place else { return };
        let channels = shape[place];
        let inner: usize = shape[place + 1..].iter().product();
        if numbers.is_empty() || (!self.sums.is_empty() && self.sums.len() != channels) {
            return;
        }
        self.sums.resize(channels, 0.0);
        self.squares.resize(channels, 0.0);
        let slot = self.samples % MOST_RANGES;
        self.samples += 1;
        if slot == self.ranges.len() {
            // DynamicQuantizeLinear's range always has 0 in it.
            self.ranges.push(vec![(0.0, 0.0); channels]);
        }
        let ranges = &mut self.ranges[slot];
        self.count += (numbers.len() / channels) as u64;
        if inner == 1 {
            for row in numbers.chunks_exact(channels) {
                for (channel, &x) in row.iter().enumerate() {
                    self.sums[channel] += f64::from(x);
                    self.squares[channel] += f64::from(x) * f64::from(x);
                    let (low, high) = ranges[channel];
                    ranges[channel] = (low.min(x), high.max(x));
                }
            }
            return;
        }
        for (index, plane) in numbers.chunks_exact(inner).enumerate() {
            let channel = index % channels;
            let (mut sum, mut square) = (0f64, 0f64);
            let (mut low, mut high) = ranges[channel];
            for &x in plane {
                sum += f64::from(x);
                square += f64::from(x) * f64::from(x);
                (low, high) = (low.min(x), high.max(x));
            }
            self.sums[channel] += sum;
            self.squares[channel] += square;
            ranges[channel] = (low, high);
        }
    }

    /// Number of channels; 0 if nothing was seen.
    pub fn channels(&self) -> usize {
        self.sums.len()
    }

    /// Mean of each channel.
    pub fn means(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum / self.count.max(1) as f64).collect()
    }

    /// Mean square of each channel.
    pub fn mean_squares(&self) -> Vec<f64> {
        self.squares.iter().map(|square| square / self.count.max(1) as f64).collect()
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

    /// Whether all that was seen is finite.
    pub(crate) fn is_finite(&self) -> bool {
        self.squares.iter().all(|square| square.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_where_the_layer_sums() {
        let x = Tensor::of(vec![2, 3], &[1f32, -2.0, 3.0, 3.0, 2.0, 5.0]).unwrap();
        let mut last = Statistics::default();
        last.add(&x, ChannelAxis::Last);
        assert_eq!(last.means(), [2.0, 0.0, 4.0]);
        assert_eq!(last.mean_squares(), [5.0, 4.0, 17.0]);
        assert_eq!(last.peaks_but(None), [3.0, 2.0, 5.0]);
        let x = x.reshaped(vec![1, 2, 3]).unwrap();
        let mut second = Statistics::default();
        second.add(&x, ChannelAxis::Second);
        assert_eq!((second.channels(), second.count), (2, 3));
        assert_eq!(second.peaks_but(None), [3.0, 5.0]);
    }

    #[test]
    fn each_sample_has_its_own_step() {
        let sample = |numbers: &[f32]| Tensor::of(vec![1, numbers.len()], numbers).unwrap();
        let mut seen = Statistics::default();
        seen.add(&sample(&[51.0, 1.0]), ChannelAxis::Last);
        seen.add(&sample(&[-1.0, 101.0]), ChannelAxis::Last);
        // Another number of channels is another activation.
        seen.add(&sample(&[1.0, 2.0, 3.0]), ChannelAxis::Last);
        assert_eq!(seen.steps(None), [0.2, 0.4]);
        assert_eq!(
            seen.steps(Some(&[51.0, 1.0])),
            [1.0 / 255.0, f64::from(101f32 + 1.0 / 51.0) / 255.0]
        );
    }
}
