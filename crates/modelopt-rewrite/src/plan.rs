//! The plan: one line per weight layer, with the scheme and the reason.

use serde::{Deserialize, Serialize};

use crate::forms::Scheme;

pub use crate::choices::{Interface, Numerics, Precision};

/// What is done to one layer, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PlannedLayer {
    /// Name of the layer: see [`crate::Layer::name`].
    pub name: String,
    /// Operator.
    #[serde(default)]
    pub op: String,
    /// What to do.
    pub scheme: Scheme,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Names of its weights.
    #[serde(default)]
    pub weights: Vec<String>,
    /// Size of its weights in the model as given, in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// What the weights are multiplied by along the dimension that is summed over, and the
    /// activation divided by, before either is quantized: one number for each input channel, or
    /// none. Layers that share an activation or a weight have the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub smoothing: Vec<f32>,
    /// What is added to the bias, so that the mean of the output stays: one number for each output
    /// channel, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bias_correction: Vec<f32>,
    /// For a table that is gathered from and stored as int8: turn all of it into float while the
    /// model loads, rather than the rows that are gathered in every run. That takes no time, and as
    /// much memory as float does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_load: bool,
}

impl PlannedLayer {
    /// A line without reason, weights or refinements.
    pub fn new(name: impl Into<String>, scheme: Scheme) -> Self {
        PlannedLayer {
            name: name.into(),
            op: String::new(),
            scheme,
            reason: String::new(),
            weights: Vec::new(),
            bytes: 0,
            smoothing: Vec::new(),
            bias_correction: Vec::new(),
            at_load: false,
        }
    }
}

/// What is done to each weight layer of a model, in the model's order.
///
/// The same plan on the same model gives the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Plan {
    /// Version of the format: 1.
    pub version: u32,
    /// How weights are turned into integers.
    #[serde(default)]
    pub numerics: Numerics,
    /// What becomes of the model's inputs and outputs, if it computes in 16 bits.
    #[serde(default, skip_serializing_if = "Interface::is_default")]
    pub io: Interface,
    /// Layers.
    #[serde(default, rename = "layer")]
    pub layers: Vec<PlannedLayer>,
}

/// A plan file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It is not TOML of the right form.
    #[error("the plan cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// It is of a version this program does not know.
    #[error("the plan is of version {0}; this program reads version 1")]
    Version(u32),
    /// It names a layer that the model does not have.
    #[error(
        "the plan names a layer '{0}' that the model does not have; `modelopt plan` lists those it has"
    )]
    UnknownLayer(String),
    /// It names a layer twice.
    #[error("the plan names the layer '{0}' twice")]
    Twice(String),
    /// It asks for what cannot be done.
    #[error("the plan asks for {scheme} at '{layer}', which is not possible: {why}")]
    Impossible {
        /// Layer.
        layer: String,
        /// Scheme.
        scheme: Scheme,
        /// Why not.
        why: String,
    },
    /// A pattern of `include` or `exclude` is malformed or fits no layer.
    #[error("the pattern '{pattern}' {why}")]
    Pattern {
        /// Pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Plan {
    /// A plan without layers.
    pub fn new(numerics: Numerics) -> Self {
        Plan { version: 1, numerics, io: Interface::default(), layers: Vec::new() }
    }

    /// Reads a plan file.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        let plan: Plan = toml::from_str(text)?;
        if plan.version == 1 { Ok(plan) } else { Err(PlanError::Version(plan.version)) }
    }

    /// The plan as a file that [`Plan::from_toml`] reads.
    pub fn to_toml(&self) -> String {
        // Strings, numbers and lists of them always serialize.
        toml::to_string(self).unwrap_or_default()
    }

    /// The places of layers, by name.
    pub fn places(&self) -> std::collections::HashMap<&str, usize> {
        self.layers.iter().enumerate().map(|(place, line)| (line.name.as_str(), place)).collect()
    }

    /// The scheme of a layer, by name; layers that the plan does not have are kept.
    pub(crate) fn schemes(&self) -> impl Fn(&str) -> Scheme + '_ {
        let known: std::collections::HashMap<&str, Scheme> =
            self.layers.iter().map(|layer| (layer.name.as_str(), layer.scheme)).collect();
        move |name| known.get(name).copied().unwrap_or_default()
    }

    /// How many layers are changed.
    pub fn changed(&self) -> usize {
        self.layers.iter().filter(|layer| !layer.scheme.is_keep()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::Granularity;

    #[test]
    fn a_plan_survives_a_round_trip() {
        let plan = Plan {
            layers: vec![PlannedLayer {
                name: "If_0/then_branch/conv \"1\"".into(),
                op: "Conv".into(),
                scheme: Scheme::INT8_WEIGHTS,
                reason: "because".into(),
                weights: vec!["W".into()],
                bytes: 4096,
                smoothing: vec![0.1, 1.0, 1e-3, 123.4],
                bias_correction: vec![-3.021e-5],
                at_load: true,
            }],
            ..Plan::new(Numerics { granularity: Granularity::PerTensor, reduce_range: true })
        };
        assert_eq!(Plan::from_toml(&plan.to_toml()).unwrap(), plan);
    }

    #[test]
    fn a_hand_written_plan_needs_only_names_and_schemes() {
        let plan = Plan::from_toml(
            "version = 1\n[[layer]]\nname = \"conv1\"\nscheme = \"int8-weights\"\n",
        )
        .unwrap();
        assert_eq!(plan.layers[0].scheme, Scheme::INT8_WEIGHTS);
        assert_eq!(plan.changed(), 1);
    }

    #[test]
    fn what_is_wrong_with_a_plan_is_said() {
        let error = |text: &str| Plan::from_toml(text).unwrap_err().to_string();
        assert!(error("version = 2").contains("version 2"));
        assert!(error("version = 1\nlayers = 3").contains("layers"));
        let scheme = "version = 1\n[[layer]]\nname = \"a\"\nscheme = \"int5\"\n";
        assert!(error(scheme).contains("int8-weights"));
    }
}
