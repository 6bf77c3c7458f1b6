//! Plans as files. Version 2 is written; version 1, which had reasons and sizes among its decisions, is
//! read.
//!
//! ```toml
//! version = 2
//!
//! [numerics]
//! granularity = "per-channel"
//! reduce-range = false
//!
//! [[layer]]
//! # op = "Conv"
//! # bytes = 4096
//! # reason = "int8-dynamic does not pay for Conv on onnxruntime"
//! id = "/backbone/conv1/Conv"
//! scheme = "int8-weights"
//!
//! [[tensor]]
//! name = "/backbone/conv1/Conv_output_0"
//! min = -3.5
//! max = 4.0
//! ```

use serde::{Deserialize, Serialize};

use super::{ExplainedPlan, Explanation, Plan, PlanError, PlannedLayer, TensorRange};
use crate::choices::{Interface, Numerics};
use crate::forms::Scheme;

/// What is looked at first.
#[derive(Deserialize)]
struct Head {
    version: Option<u32>,
}

/// Version 1.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct First {
    #[serde(rename = "version")]
    _version: u32,
    #[serde(default)]
    numerics: Numerics,
    #[serde(default)]
    io: Interface,
    #[serde(default, rename = "layer")]
    layers: Vec<FirstLayer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FirstLayer {
    name: String,
    scheme: Scheme,
    #[serde(default)]
    smoothing: Vec<f32>,
    #[serde(default)]
    bias_correction: Vec<f32>,
    #[serde(default)]
    at_load: bool,
    // Told, not decided: the program finds it out again.
    #[serde(default, rename = "op")]
    _op: String,
    #[serde(default, rename = "reason")]
    _reason: String,
    #[serde(default, rename = "weights")]
    _weights: Vec<String>,
    #[serde(default, rename = "bytes")]
    _bytes: u64,
}

impl From<First> for Plan {
    fn from(first: First) -> Self {
        let layer = |layer: FirstLayer| PlannedLayer {
            smoothing: layer.smoothing,
            bias_correction: layer.bias_correction,
            at_load: layer.at_load,
            ..PlannedLayer::new(layer.name, layer.scheme)
        };
        let layers = first.layers.into_iter().map(layer).collect();
        Plan { io: first.io, layers, ..Plan::new(first.numerics) }
    }
}

/// Layers and tensors as they stand in a file, with or without those before them.
#[derive(Serialize)]
struct Tables<'a> {
    #[serde(rename = "layer", skip_serializing_if = "<[_]>::is_empty")]
    layers: &'a [PlannedLayer],
    #[serde(rename = "tensor", skip_serializing_if = "<[_]>::is_empty")]
    tensors: &'a [TensorRange],
}

impl Tables<'_> {
    // Strings, numbers and lists of them always serialize.
    fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

impl Plan {
    /// Reads a plan file of any version there was.
    ///
    /// # Errors
    /// Where it is not TOML of the right form, or of a later version.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        match toml::from_str::<Head>(text)?.version {
            Some(1) => Ok(toml::from_str::<First>(text)?.into()),
            Some(version) if version != Plan::VERSION => Err(PlanError::Version(version)),
            // Without a version the error says what is missing.
            _ => Ok(toml::from_str(text)?),
        }
    }

    /// The plan as a file that [`Plan::from_toml`] reads.
    pub fn to_toml(&self) -> String {
        // Strings, numbers and lists of them always serialize.
        toml::to_string(self).unwrap_or_default()
    }
}

impl ExplainedPlan {
    /// The plan as a file that [`Plan::from_toml`] reads, with explanations as comments.
    pub fn to_toml(&self) -> String {
        let head = Plan { layers: Vec::new(), tensors: Vec::new(), ..Plan::clone(self) };
        let mut text = head.to_toml();
        for (layer, why) in self.lines() {
            let table = Tables { layers: std::slice::from_ref(layer), tensors: &[] }.to_toml();
            let (head, decisions) = table.split_once('\n').unwrap_or((&table, ""));
            text.extend(["\n", head, "\n", &why.to_comments(), decisions]);
        }
        if !self.tensors.is_empty() {
            let tensors = Tables { layers: &[], tensors: &self.tensors }.to_toml();
            text.extend(["\n", &tensors]);
        }
        text
    }
}

impl Explanation {
    /// A line for each thing that is known.
    fn to_comments(&self) -> String {
        // A line break would end the comment, and others are not allowed in one.
        let plain = |text: &str| text.replace(char::is_control, " ");
        let text = |key: &str, text: &str| match text {
            "" => String::new(),
            text => format!("# {key} = \"{}\"\n", plain(text)),
        };
        let bytes = match self.bytes {
            0 => String::new(),
            bytes => format!("# bytes = {bytes}\n"),
        };
        text("op", &self.op) + &bytes + &text("reason", &self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::Granularity;

    fn full() -> ExplainedPlan {
        let numerics = Numerics { granularity: Granularity::PerTensor, reduce_range: true };
        let mut plan = ExplainedPlan::new(numerics);
        plan.io = Interface::Fp16;
        plan.tensors.push(TensorRange::new("x\"1", -0.1, 3e5));
        let divided_by = vec![0.5, 1.0, 256.0];
        plan.tensors.push(TensorRange { divided_by, ..TensorRange::new("y", -0.1, 3e5) });
        let layer = PlannedLayer {
            numerics: Some(Numerics::default()),
            smoothing: vec![0.1, 1.0, 1e-3, 123.4],
            bias_correction: vec![-3.021e-5],
            at_load: true,
            ..PlannedLayer::new("If_0/then_branch/conv \"1\"", Scheme::INT8_WEIGHTS)
        };
        let why = Explanation {
            op: "Conv".into(),
            reason: "a name with\na break\u{7f}]".into(),
            weights: vec!["W".into()],
            bytes: 4096,
        };
        plan.push(layer, why);
        plan.push(PlannedLayer::new("b", Scheme::KEEP), Explanation::default());
        plan
    }

    #[test]
    fn a_plan_survives_a_round_trip() {
        let plan = full().into_plan();
        assert_eq!(Plan::from_toml(&plan.to_toml()).unwrap(), plan);
        assert_eq!(
            Plan::from_toml(&Plan::new(Numerics::default()).to_toml()).unwrap().changed(),
            0
        );
    }

    #[test]
    fn explanations_are_comments() {
        let plan = full();
        let text = plan.to_toml();
        let comments =
            "[[layer]]\n# op = \"Conv\"\n# bytes = 4096\n# reason = \"a name with a break ]\"\n";
        assert!(text.contains(comments), "{text}");
        assert_eq!(Plan::from_toml(&text).unwrap(), plan.into_plan());
    }

    #[test]
    fn decisions_alone_have_no_prose() {
        let text = Plan::clone(&full()).to_toml();
        assert!(!text.contains('#') && !text.contains("break"), "{text}");
    }

    #[test]
    fn a_hand_written_plan_needs_only_ids_and_schemes() {
        let text = "version = 2\n[[layer]]\nid = \"conv1\"\nscheme = \"int8-weights\"\n";
        let plan = Plan::from_toml(text).unwrap();
        assert_eq!(plan.layers[0].scheme, Scheme::INT8_WEIGHTS);
        assert_eq!(plan.changed(), 1);
    }

    #[test]
    fn version_1_is_read() {
        let text = r#"
            version = 1
            io = "fp16"
            [numerics]
            granularity = "per-tensor"
            reduce-range = true
            [[layer]]
            name = "conv1"
            op = "Conv"
            scheme = "int8-weights"
            reason = "because"
            weights = ["W"]
            bytes = 4096
            smoothing = [0.5]
            bias-correction = [1.5]
            at-load = true
        "#;
        let plan = Plan::from_toml(text).unwrap();
        let numerics = Numerics { granularity: Granularity::PerTensor, reduce_range: true };
        let layer = PlannedLayer {
            smoothing: vec![0.5],
            bias_correction: vec![1.5],
            at_load: true,
            ..PlannedLayer::new("conv1", Scheme::INT8_WEIGHTS)
        };
        let expected = Plan { io: Interface::Fp16, layers: vec![layer], ..Plan::new(numerics) };
        assert_eq!(plan, expected);
        assert!(plan.to_toml().starts_with("version = 2"));
    }

    #[test]
    fn what_is_wrong_with_a_plan_is_said() {
        let error = |text: &str| Plan::from_toml(text).unwrap_err().to_string();
        assert!(error("version = 3").contains("version 3; this program reads versions 1 to 2"));
        assert!(error("[[layer]]\nid = \"a\"\nscheme = \"keep\"").contains("version"));
        assert!(error("version = 1\nlayers = 3").contains("layers"));
        assert!(error("version = 2\nlayers = 3").contains("layers"));
        for line in [
            "version = 1\n[[layer]]\nname = \"a\"\nscheme",
            "version = 2\n[[layer]]\nid = \"a\"\nscheme",
        ] {
            assert!(error(&format!("{line} = \"int5\"\n")).contains("int8-weights"));
        }
        // What version 1 told is not decided, and what version 2 decides was not known.
        assert!(
            error("version = 2\n[[layer]]\nid = \"a\"\nscheme = \"keep\"\nreason = \"\"")
                .contains("reason")
        );
        assert!(error("version = 1\n[[layer]]\nid = \"a\"\nscheme = \"keep\"").contains("id"));
    }
}
