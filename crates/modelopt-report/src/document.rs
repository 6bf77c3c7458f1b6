//! The versioned document.

use std::path::Path;

use modelopt_validate::{Culprit, LatencyComparison, Parity, SizeChange, Verdict};
use serde::{Deserialize, Serialize};

/// Name and version of the document's schema. Within a version, fields are only added.
pub const SCHEMA: &str = "modelopt.report/1";

/// Everything a report says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Always [`SCHEMA`]; documents with another are refused when they are read.
    pub schema: Schema,
    /// Version of modelopt.
    pub tool_version: String,
    /// What was asked for: the subcommand, such as `quantize`, without paths.
    pub command: String,
    /// File of the original model.
    pub original: FileName,
    /// File of the candidate, if one was made or given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<FileName>,
    /// Sizes of both, if there is a candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeChange>,
    /// What ran the models, if they were run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeUsed>,
    /// What they were run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
    /// What was done to each weight layer, in the order of the graph.
    #[serde(default)]
    pub plan: Vec<PlanLine>,
    /// How close the outputs are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parity: Option<Parity>,
    /// How fast the candidate is, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyComparison>,
    /// Pass or fail, if it was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// After a failed verdict: the layers by the damage that each does alone, worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub culprits: Vec<Culprit>,
    /// What the reader should know besides.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The runtime of both models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeUsed {
    /// Such as `tract`.
    pub name: String,
    /// Why this one: asked for, the default, or the only one that runs the model.
    pub reason: String,
}

/// The samples of both models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// Where they came from.
    pub kind: SampleKind,
    /// How many.
    pub count: usize,
}

/// Where samples came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLine {
    /// Name of the layer.
    pub layer: String,
    /// Operator that uses the weight, such as `Conv`.
    pub op: String,
    /// Scheme, such as `int8-weights` or `keep`.
    pub scheme: String,
    /// Why this scheme.
    pub reason: String,
    /// Bytes of the weight before.
    pub bytes_before: u64,
    /// Bytes of all that stands for the weight after, scales included.
    pub bytes_after: u64,
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

impl Document {
    /// The document as indented JSON with a newline at the end.
    pub fn to_json(&self) -> String {
        // Maps with other keys than strings are all that serde_json refuses, and there are none.
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        json + "\n"
    }

    /// The document for people, in GitHub's Markdown.
    pub fn to_markdown(&self) -> String {
        crate::markdown::render(self)
    }
}
