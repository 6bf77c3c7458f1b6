//! Settings of a run: what `modelopt.toml` can hold and the command line can override.

use std::path::PathBuf;

use indexmap::IndexMap;
use modelopt_rewrite::{Numerics, Pattern, Plan, PlanError, PlanOptions, Scheme, steps};
use modelopt_runtime::{RuntimeKind, SynthesisOptions, parse_value};
use modelopt_validate::Limits;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// Settings of a run. Every field has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Scheme to use wherever it is possible.
    pub scheme: Scheme,
    /// A plan to carry out instead of the default rules.
    #[serde(skip)]
    pub plan: Option<Plan>,
    /// How weights are turned into integers.
    pub numerics: Numerics,
    /// Weights smaller than this are left alone, in bytes.
    pub min_weight_bytes: usize,
    /// If not empty, only layers that match one of these are changed.
    pub include: Vec<String>,
    /// Layers that match one of these are not changed.
    pub exclude: Vec<String>,
    /// Preparation steps to leave out.
    pub skip_rewrite: Vec<String>,
    /// Make inputs that have a default constants, so that callers can no longer override them.
    pub freeze_inputs: bool,
    /// Write large weights to an external file even where one file would do.
    pub external_data: bool,
    /// Limits that the candidate must meet.
    pub gate: Limits,
    /// What the verdict is for.
    pub enforcement: Enforcement,
    /// Where to run the models.
    pub runtime: RuntimeChoice,
    /// Threads that a runtime may use; 0 for all.
    pub threads: usize,
    /// Real inputs; invented ones are used where there are none.
    pub samples: Option<PathBuf>,
    /// Sizes of symbolic dimensions of invented inputs.
    pub dims: IndexMap<String, usize>,
    /// Values of invented inputs, written as on the command line: `"1"`, `"0.5,0.25"`.
    pub inputs: IndexMap<String, String>,
    /// Seed of invented inputs.
    pub seed: u64,
    /// How many samples to invent.
    pub sample_count: usize,
}

/// What the verdict is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// Emit only what passes.
    #[default]
    Gate,
    /// Judge, and emit whatever the verdict.
    Judge,
    /// Run nothing and emit.
    None,
}

/// Which runtime runs the models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeChoice {
    /// tract, or rten where tract cannot run the original.
    #[default]
    Auto,
    /// tract.
    Tract,
    /// rten.
    Rten,
}

impl RuntimeChoice {
    /// The runtimes to try, in order.
    pub(crate) fn candidates(self) -> &'static [RuntimeKind] {
        match self {
            RuntimeChoice::Auto => &[RuntimeKind::Tract, RuntimeKind::Rten],
            RuntimeChoice::Tract => &[RuntimeKind::Tract],
            RuntimeChoice::Rten => &[RuntimeKind::Rten],
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let plan = PlanOptions::default();
        let synthesis = SynthesisOptions::default();
        Config {
            scheme: plan.scheme,
            plan: None,
            numerics: plan.numerics,
            min_weight_bytes: plan.min_weight_bytes,
            include: Vec::new(),
            exclude: Vec::new(),
            skip_rewrite: Vec::new(),
            freeze_inputs: false,
            external_data: false,
            gate: Limits::default(),
            enforcement: Enforcement::default(),
            runtime: RuntimeChoice::default(),
            threads: 1,
            samples: None,
            dims: IndexMap::new(),
            inputs: IndexMap::new(),
            seed: synthesis.seed,
            sample_count: synthesis.count,
        }
    }
}

impl Config {
    /// Reads the text of a `modelopt.toml`.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| ErrorKind::Config(error.to_string()).into())
    }

    pub(crate) fn plan_options(&self) -> Result<PlanOptions, PlanError> {
        let patterns = |texts: &[String]| {
            texts.iter().map(|text| Pattern::new(text)).collect::<Result<Vec<_>, _>>()
        };
        Ok(PlanOptions {
            scheme: self.scheme,
            numerics: self.numerics,
            min_weight_bytes: self.min_weight_bytes,
            include: patterns(&self.include)?,
            exclude: patterns(&self.exclude)?,
        })
    }

    pub(crate) fn synthesis(&self) -> Result<SynthesisOptions, Error> {
        let mut values = IndexMap::new();
        for (name, value) in &self.inputs {
            let (name, value) = parse_value(&format!("{name}={value}"))?;
            values.insert(name, value);
        }
        Ok(SynthesisOptions {
            seed: self.seed,
            count: self.sample_count,
            dims: self.dims.clone(),
            values,
        })
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        for name in &self.skip_rewrite {
            if !steps().any(|step| step == name) {
                let known = steps().collect::<Vec<_>>().join(", ");
                let message = format!("there is no rewrite '{name}'; there are {known}");
                return Err(ErrorKind::Config(message).into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(Config::from_toml("").unwrap(), Config::default());
    }

    #[test]
    fn every_setting_survives_a_round_trip() {
        let mut config = Config { scheme: Scheme::Int8Weights, threads: 2, ..Config::default() };
        config.gate.min_sqnr_db = None;
        config.dims.insert("batch".into(), 3);
        config.inputs.insert("sr".into(), "16000".into());
        let text = toml::to_string(&config).unwrap();
        assert_eq!(Config::from_toml(&text).unwrap(), config, "{text}");
    }

    #[test]
    fn a_misspelt_setting_is_an_error() {
        let error = Config::from_toml("sheme = \"keep\"").unwrap_err().to_string();
        assert!(error.contains("sheme"), "{error}");
        let config = Config { skip_rewrite: vec!["fuse".into()], ..Config::default() };
        assert!(config.check().unwrap_err().to_string().contains("batchnorm"));
    }
}
