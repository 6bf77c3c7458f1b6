//! The plan: what becomes of each layer, and nothing else. Why, stands beside it: [`ExplainedPlan`].

mod error;
mod explained;
mod file;

use serde::{Deserialize, Serialize};

use crate::forms::Scheme;

pub use crate::choices::{Interface, Numerics, Precision, QuantFormat};
pub use error::PlanError;
pub use explained::{ExplainedPlan, Explanation};

/// What is done to one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PlannedLayer {
    /// Which layer: see [`crate::Layer::id`].
    pub id: String,
    /// Its form, by the name of its scheme.
    pub scheme: Scheme,
    /// How its weights are turned into integers, where that is not as in the rest of the plan. Layers
    /// that share a weight have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerics: Option<Numerics>,
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
    /// A layer without refinements.
    pub fn new(id: impl Into<String>, scheme: Scheme) -> Self {
        PlannedLayer {
            id: id.into(),
            scheme,
            numerics: None,
            smoothing: Vec::new(),
            bias_correction: Vec::new(),
            at_load: false,
        }
    }
}

/// The numbers that a tensor takes, for forms that quantize it by a range found beforehand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TensorRange {
    /// Name of the tensor in the model.
    pub name: String,
    /// Its smallest number.
    pub min: f32,
    /// Its largest number.
    pub max: f32,
}

impl TensorRange {
    /// Whether numbers can lie in it.
    pub fn is_sound(&self) -> bool {
        self.min.is_finite() && self.max.is_finite() && self.min <= self.max
    }
}

/// What is done to each weight layer of a model, in the model's order.
///
/// The same plan on the same model gives the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Plan {
    /// Version of the format: 2.
    pub version: u32,
    /// How weights are turned into integers.
    #[serde(default)]
    pub numerics: Numerics,
    /// How computing on integers is written, where layers take ranges.
    #[serde(default, skip_serializing_if = "QuantFormat::is_default")]
    pub format: QuantFormat,
    /// What becomes of the model's inputs and outputs, if it computes in 16 bits.
    #[serde(default, skip_serializing_if = "Interface::is_default")]
    pub io: Interface,
    /// Layers.
    #[serde(default, rename = "layer", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<PlannedLayer>,
    /// Ranges of tensors.
    #[serde(default, rename = "tensor", skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorRange>,
}

impl Plan {
    /// The version of the format that is written; version 1 is read, too.
    pub const VERSION: u32 = 2;

    /// A plan without layers.
    pub fn new(numerics: Numerics) -> Self {
        Plan {
            version: Plan::VERSION,
            numerics,
            format: QuantFormat::default(),
            io: Interface::default(),
            layers: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// The places of layers, by id.
    pub fn places(&self) -> std::collections::HashMap<&str, usize> {
        self.layers.iter().enumerate().map(|(place, layer)| (layer.id.as_str(), place)).collect()
    }

    /// How the weights of a layer are turned into integers.
    pub fn numerics_of(&self, layer: &PlannedLayer) -> Numerics {
        layer.numerics.unwrap_or(self.numerics)
    }

    /// The form and the numerics of a layer, by id; layers that the plan does not have are kept.
    pub(crate) fn decided(&self) -> impl Fn(&str) -> (Scheme, Numerics) + '_ {
        let places = self.places();
        move |id| {
            let layer = places.get(id).map(|&place| &self.layers[place]);
            layer.map_or((Scheme::default(), self.numerics), |layer| {
                (layer.scheme, self.numerics_of(layer))
            })
        }
    }

    /// How many layers are changed.
    pub fn changed(&self) -> usize {
        self.layers.iter().filter(|layer| !layer.scheme.is_keep()).count()
    }
}
