//! What invented inputs had to be for a model to run.

use indexmap::IndexMap;
use modelopt_runtime::{InputValue, Proposal};
use serde::Serialize;

use crate::config::Config;

/// What invented inputs had to be for the original to run, beyond the first guess and what the
/// settings say.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FoundInputs {
    /// Sizes of open dimensions, as in [`Config::dims`].
    pub dims: IndexMap<String, usize>,
    /// Values of inputs, as in [`Config::inputs`].
    pub inputs: IndexMap<String, String>,
    /// How many others were tried before.
    pub tries: usize,
}

impl FoundInputs {
    /// What a proposal that suits the model says beyond the first guess, if it says more.
    pub(crate) fn of(proposal: Proposal, tries: usize) -> Option<Self> {
        if proposal.is_first_guess() {
            return None;
        }
        let inputs = proposal.values.into_iter().map(|(name, value)| (name, text(&value)));
        Some(FoundInputs { dims: proposal.dims, inputs: inputs.collect(), tries })
    }

    /// The settings with what was found.
    pub fn settings(&self, config: &Config) -> Config {
        let mut config = config.clone();
        config.dims.extend(self.dims.clone());
        config.inputs.extend(self.inputs.clone());
        config
    }
}

fn text(value: &InputValue) -> String {
    match value {
        InputValue::Integers(values) => {
            values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
        InputValue::Floats(values) => {
            values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
    }
}
