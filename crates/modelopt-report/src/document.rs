//! The versioned document.

use std::path::Path;

use modelopt_validate::{
    Culprit, Footprint, LatencyComparison, MetricChange, Parity, SizeChange, SlowLayer, Verdict,
    number::Float,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{QuantizedTensor, Region};

/// Name and version of the document's schema. Within a version, fields are only added.
pub const SCHEMA: &str = "modelopt.report/1";

/// Everything a report says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Document {
    /// Always [`SCHEMA`]; documents with another are refused when they are read.
    pub schema: Schema,
    /// Version of modelopt.
    pub tool_version: String,
    /// What was asked for: the subcommand, such as `quantize`, without paths.
    pub command: String,
    /// The original model.
    pub original: ModelFile,
    /// The candidate, if one was emitted or given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<ModelFile>,
    /// Sizes of both, if there is a candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeChange>,
    /// What they were run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
    /// What each runtime said of the two models; the target, which the verdict is about, first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Run>,
    /// The user's own metric of both models, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricChange>,
    /// Pass or fail, if it was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// After a failed verdict: the layers by the damage that each does alone, worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub culprits: Vec<Culprit>,
    /// After a verdict that failed on latency: the changed layers that became slower, the most
    /// time lost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slow_layers: Vec<SlowLayer>,
    /// What was done to each weight layer, in the order of the graph.
    #[serde(default)]
    pub plan: Vec<PlanLine>,
    /// What computes on integers by ranges, in the order of the graph.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<Region>,
    /// The tensors that are quantized by ranges: those that lose most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<QuantizedTensor>,
    /// The plans that a search ran and judged, in the order it did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<Trial>,
    /// Why the search ended, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search_end: Option<SearchEnd>,
    /// What each layer costs, if that was measured: the one that is best left out first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensitivity: Vec<Sensitivity>,
    /// BLAKE3 of the plan file, in hexadecimal, if there is a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    /// The machine, if models were run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// What the reader should know besides.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A model file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelFile {
    /// Name.
    pub name: FileName,
    /// BLAKE3 of the file, in hexadecimal; external data is not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
}

/// Both models in one runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// What ran them.
    pub runtime: RuntimeUsed,
    /// Why there are no figures, if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How close the outputs are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parity: Option<Parity>,
    /// How fast the candidate is, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyComparison>,
    /// What the original costs a process of its own, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Footprint>,
    /// What the candidate costs a process of its own, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Footprint>,
}

/// A runtime and its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeUsed {
    /// Such as `tract`.
    pub name: String,
    /// Such as `0.23.9`; empty if it could not be loaded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The file of a runtime that was loaded from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<FileName>,
    /// Where its operators run, such as `cpu`, if it has a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// How far it optimises graphs, such as `all`, if it has a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimization: Option<String>,
    /// Threads that one operator may use; 0 for all of the machine.
    #[serde(default)]
    pub threads: usize,
    /// Why this one: asked for, the default, or the only one that runs the model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How it ran the candidate, where that is not as it would be run there: such as with its
    /// 16-bit operators computed in float32 between roundings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

/// Where it was measured; never a name of the host or its user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// Processor, as it calls itself.
    pub cpu: String,
    /// Logical processors that the process may use.
    pub threads: usize,
    /// Such as `x86_64-linux`.
    pub platform: String,
}

/// The samples of both models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Samples {
    /// Where they came from.
    pub kind: SampleKind,
    /// How many.
    pub count: usize,
    /// On how many others ranges of tensors were observed, where samples were set apart for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrating: Option<usize>,
}

/// Where samples came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SampleKind {
    /// All were given by the user.
    Real,
    /// All were made up.
    Synthetic,
    /// Some of each.
    Mixed,
}

/// What was done to one weight layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanLine {
    /// Name of the layer.
    pub layer: String,
    /// Operator that uses the weight, such as `Conv`.
    pub op: String,
    /// Scheme, such as `int8-weights` or `keep`.
    pub scheme: String,
    /// The number of its region, from 1 on, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<usize>,
    /// Why this scheme.
    pub reason: String,
    /// Bytes of the weight before.
    pub bytes_before: u64,
    /// Bytes of all that stands for the weight after, scales included.
    pub bytes_after: u64,
    /// Signal-to-quantization-noise ratio of the weights alone, in dB, the worst of the layer's;
    /// none for a layer that is kept.
    #[serde(default, with = "modelopt_validate::number::optional")]
    #[schemars(with = "Option<Float>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<f64>,
}

/// One plan that a search ran and judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// What was tried.
    pub what: String,
    /// How many layers have each scheme.
    pub schemes: std::collections::BTreeMap<String, usize>,
    /// Size of the candidate, in bytes.
    pub bytes: u64,
    /// Lowest SQNR of any float output, in dB; none if the candidate did not run or has no such
    /// output.
    #[serde(default, with = "modelopt_validate::number::optional")]
    #[schemars(with = "Option<Float>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<f64>,
    /// The candidate's time divided by the original's, if it was measured.
    #[serde(default, with = "modelopt_validate::number::optional")]
    #[schemars(with = "Option<Float>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowdown: Option<f64>,
    /// The user's own metric of the candidate, if it was evaluated.
    #[serde(default, with = "modelopt_validate::number::optional")]
    #[schemars(with = "Option<Float>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
    /// Whether it met all limits that were judged.
    pub pass: bool,
    /// Why it could not be judged, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// BLAKE3 of the candidate, in hexadecimal, of the last trial: what `--plan` with the plan
    /// that was saved gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SearchEnd {
    /// A plan passes, and nothing it gave up can be had back.
    Found,
    /// Nothing that is worthwhile passes.
    Impossible,
    /// The trials were used up.
    OutOfTrials,
    /// The time was used up.
    OutOfTime,
    /// Somebody stopped it.
    Stopped,
}

impl SearchEnd {
    /// In a sentence; `passed` says whether the verdict on what was found is good, which holds it
    /// against more than a search does.
    pub fn sentence(self, passed: bool) -> &'static str {
        match self {
            SearchEnd::Found if !passed => {
                "What the search found is as close as demanded, but fails the verdict all the same."
            }
            SearchEnd::Found => "A plan passes, and nothing that was tried gives up less.",
            SearchEnd::Impossible => {
                "No plan passes that keeps enough in int8 to be worth it: looser limits or `modelopt convert` may help."
            }
            SearchEnd::OutOfTrials => "The trials were used up: more may find more.",
            SearchEnd::OutOfTime => "The time was used up: more may find more.",
            SearchEnd::Stopped => "The search was stopped.",
        }
    }
}

/// What one layer, or several that share a weight, cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sensitivity {
    /// The layers.
    pub layers: Vec<String>,
    /// Operator of the first.
    pub op: String,
    /// What was done to the first of them.
    pub scheme: String,
    /// Bytes of the weights before.
    pub bytes: u64,
    /// Signal-to-noise ratio at the output of the first layer with rounded weights, from its
    /// weights and the statistics of what it reads, in dB.
    #[serde(default, with = "modelopt_validate::number::optional")]
    #[schemars(with = "Option<Float>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_weights_db: Option<f64>,
    /// The same with a rounded activation, if it is rounded.
    #[serde(default, with = "modelopt_validate::number::optional")]
    #[schemars(with = "Option<Float>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_activation_db: Option<f64>,
    /// Lowest SQNR of any output on the worst sample when these layers alone are quantized, in dB.
    #[serde(default, with = "modelopt_validate::number::optional")]
    #[schemars(with = "Option<Float>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alone_db: Option<f64>,
    /// By how much that of the whole plan rises when these layers are left out, in dB.
    #[serde(default, with = "modelopt_validate::number::optional")]
    #[schemars(with = "Option<Float>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gained_db: Option<f64>,
}

/// The last part of a path: however it is made, nothing up to the last `/` or `\` is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for FileName {
    fn from(path: String) -> Self {
        FileName::from(path.as_str())
    }
}

impl From<&str> for FileName {
    fn from(path: &str) -> Self {
        let path = path.trim_end_matches(['/', '\\']);
        FileName(path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned())
    }
}

impl From<&Path> for FileName {
    fn from(path: &Path) -> Self {
        FileName::from(path.to_string_lossy().as_ref())
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

/// Stands for [`SCHEMA`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schema;

impl From<Schema> for String {
    fn from(Schema: Schema) -> Self {
        SCHEMA.to_owned()
    }
}

impl TryFrom<String> for Schema {
    type Error = String;

    fn try_from(found: String) -> Result<Self, String> {
        if found == SCHEMA {
            Ok(Schema)
        } else {
            Err(format!("this version of modelopt reads {SCHEMA}, not {found}"))
        }
    }
}
