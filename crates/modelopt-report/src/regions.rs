//! What computes on integers by ranges: the regions of a plan, and its tensors.

use std::collections::{BTreeMap, HashMap};

use modelopt_validate::number::Float;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Layers that compute on integers by ranges, with what stands between them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Region {
    /// Its layers, in the order of the graph.
    pub layers: Vec<String>,
    /// How many other nodes compute on integers in it, by operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub operators: BTreeMap<String, usize>,
    /// Names of the tensors that are quantized.
    pub tensors: Vec<String>,
    /// Where numbers go in and out, and why there.
    pub ends: Vec<RegionEnd>,
    /// What it takes, as far as that can be told without running it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<PredictedTime>,
}

/// The number of the region that each layer is in, from 1 on.
pub fn regions_by_layer(regions: &[Region]) -> HashMap<&str, usize> {
    let numbered = (1..).zip(regions);
    let layers = numbered.flat_map(|(at, region)| region.layers.iter().map(move |l| (l, at)));
    layers.map(|(layer, at)| (layer.as_str(), at)).collect()
}

impl Region {
    /// Where it begins and ends, the tensors at which it does for the same reason together.
    pub fn ends_by_reason(&self) -> Vec<(RegionEdge, &str, Vec<&str>)> {
        let mut together: Vec<(RegionEdge, &str, Vec<&str>)> = Vec::new();
        for end in &self.ends {
            let same = |(edge, reason, _): &&mut (RegionEdge, &str, Vec<&str>)| {
                *edge == end.edge && *reason == end.reason
            };
            match together.iter_mut().find(same) {
                Some((.., tensors)) => tensors.push(&end.tensor),
                None => together.push((end.edge, &end.reason, vec![&end.tensor])),
            }
        }
        together
    }
}

/// A tensor at which numbers go into a region or out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegionEnd {
    /// Name of the tensor.
    pub tensor: String,
    /// In which direction.
    pub edge: RegionEdge,
    /// The kind of reason, such as `no_kernel`, for programs. Later versions may know more kinds.
    pub kind: String,
    /// Why the region does not go on there, in a sentence.
    pub reason: String,
}

/// On which side of a region a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegionEdge {
    /// It is made as float, and quantized for the region.
    Begin,
    /// It is made in the region, and read as float.
    End,
}

/// What a region takes, from sizes and what kernels of the target take, on one thread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PredictedTime {
    /// Its nodes in float32, in milliseconds.
    #[serde(with = "modelopt_validate::number")]
    #[schemars(with = "Float")]
    pub float_ms: f64,
    /// Its nodes on integers, in milliseconds.
    #[serde(with = "modelopt_validate::number")]
    #[schemars(with = "Float")]
    pub integer_ms: f64,
    /// Quantizing what goes in and dequantizing what goes out, in milliseconds.
    #[serde(with = "modelopt_validate::number")]
    #[schemars(with = "Float")]
    pub border_ms: f64,
    /// The share of its nodes in what the whole model takes in float32, from 0 to 1.
    #[serde(with = "modelopt_validate::number")]
    #[schemars(with = "Float")]
    pub share: f64,
}

/// A tensor that is quantized by a range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QuantizedTensor {
    /// Its name.
    pub tensor: String,
    /// The number of its region, from 1 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<usize>,
    /// The smallest number that is represented: what is below becomes it.
    pub min: f32,
    /// The largest number that is represented: what is above becomes it.
    pub max: f32,
    /// What it was seen to be; none where nobody looked, or where its channels are divided by factors
    /// before they are quantized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<ObservedNumbers>,
}

/// What a tensor was on the samples that ranges come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ObservedNumbers {
    /// The smallest number.
    pub min: f32,
    /// The largest number.
    pub max: f32,
    /// The share of numbers outside of the range, from 0 to 1.
    #[serde(with = "modelopt_validate::number")]
    #[schemars(with = "Float")]
    pub clipped: f64,
    /// Signal-to-noise ratio of rounding and clipping them, in dB.
    #[serde(with = "modelopt_validate::number")]
    #[schemars(with = "Float")]
    pub sqnr_db: f64,
    /// How often which numbers occur.
    pub histogram: NumberHistogram,
}

/// Counts of numbers in bins of the same width.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NumberHistogram {
    /// Where the first bin begins.
    #[serde(with = "modelopt_validate::number")]
    #[schemars(with = "Float")]
    pub start: f64,
    /// Width of a bin.
    #[serde(with = "modelopt_validate::number")]
    #[schemars(with = "Float")]
    pub width: f64,
    /// How many numbers there are in each bin; at most 64 bins.
    pub counts: Vec<u64>,
}
