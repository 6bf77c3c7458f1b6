//! Settings of a run: what `modelopt.toml` can hold and the command line can override.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_rewrite::{
    Interface, Numerics, Pattern, Plan, PlanError, PlanOptions, Precision, PrecisionOptions,
    QuantFormat, Scheme, steps,
};
use modelopt_runtime::worker::WorkerPool;
use modelopt_runtime::{
    LibrarySearch, Optimization, Sample, SessionOptions, SynthesisOptions, parse_value,
};
use modelopt_validate::{LatencyOptions, Limits};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::metric::MetricOptions;
use crate::runtime_choice::RuntimeChoice;

/// Settings of a run. Every field has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // Each is a key of its own in the file.
pub struct Config {
    /// Scheme to use wherever it is possible; by default what pays on the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// A plan to carry out instead of the default rules.
    #[serde(skip)]
    pub plan: Option<Plan>,
    /// How weights are turned into integers.
    pub numerics: Numerics,
    /// How computing on integers is written, where layers take ranges.
    pub quant_format: QuantFormat,
    /// What becomes of float32 inputs and outputs of a model that is to compute in 16 bits.
    pub io: Interface,
    /// Keep normalizations and Softmax in float32 when the rest computes in 16 bits.
    pub float32_statistics: bool,
    /// Weights and activations of which rounding to 16 bits leaves less than this stay float32, in
    /// dB.
    pub min_rounding_sqnr_db: f64,
    /// Weights smaller than this are left alone, in bytes.
    pub min_weight_bytes: usize,
    /// If not empty, only layers that match one of these are changed.
    pub include: Vec<String>,
    /// Layers that match one of these are not changed.
    pub exclude: Vec<String>,
    /// Preparation steps to leave out.
    pub skip_rewrite: Vec<String>,
    /// Use no form that needs a newer operator set than the model has.
    pub keep_opset: bool,
    /// Make inputs that have a default constants, so that callers can no longer override them.
    pub freeze_inputs: bool,
    /// Write large weights to an external file even where one file would do.
    pub external_data: bool,
    /// Limits that the candidate must meet.
    pub gate: Limits,
    /// What the verdict is for.
    pub enforcement: Enforcement,
    /// Whether models with random operators are run with the same noise, so that they can be
    /// compared; by default where there are such operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_noise: Option<bool>,
    /// Where to run the models: the target first, then others to report on.
    pub runtime: RuntimeChoice,
    /// Library of ONNX Runtime, or a folder that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<PathBuf>,
    /// Where else to look for that library: what is in the environment of the process.
    #[serde(skip)]
    pub environment: LibrarySearch,
    /// How far graphs are optimised, where the runtime has a choice.
    pub optimization: Optimization,
    /// Where the runtime computes: `cpu`, and whatever else it has.
    pub provider: String,
    /// Threads that a runtime may use; 0 for all.
    pub threads: usize,
    /// Processes in which models are loaded and run, so that one which takes its process down does
    /// not take this one; they also measure load time and memory. Without them, and in a runtime of
    /// the caller's own, models are run in this process.
    #[serde(skip)]
    pub worker: Option<WorkerPool>,
    /// Whether to measure latency, load time and memory. Without them reports are the same from
    /// run to run.
    pub measure_latency: bool,
    /// How long to measure it.
    pub latency: LatencyOptions,
    /// Judge latency even where no target was named and an embedded runtime stands in.
    pub judge_latency_anywhere: bool,
    /// How to search for a plan where nobody asked for a scheme or gave a plan.
    pub search: SearchOptions,
    /// The user's own metric.
    pub metric: MetricOptions,
    /// Whether somebody set [`Limits::min_sqnr_db`]: a metric decides instead of the default.
    #[serde(skip)]
    pub sqnr_limit_given: bool,
    /// Choose schemes by measuring the model's layers on the target, instead of by the table.
    pub measure: bool,
    /// Where measurements are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measure_cache: Option<PathBuf>,
    /// Real inputs; invented ones are used where there are none.
    pub samples: Option<PathBuf>,
    /// Ranges of tensors that were observed before, in a file of [`calibrate`](crate::calibrate): all samples
    /// judge then.
    pub calibration: Option<PathBuf>,
    /// Real inputs that are at hand; they count instead of those in files.
    #[serde(skip)]
    pub given_samples: Option<GivenSamples>,
    /// Sizes of symbolic dimensions of invented inputs.
    pub dims: IndexMap<String, usize>,
    /// Values of invented inputs, written as on the command line: `"1"`, `"0.5,0.25"`.
    pub inputs: IndexMap<String, String>,
    /// Seed of invented inputs.
    pub seed: u64,
    /// How many samples to invent.
    pub sample_count: usize,
}

/// Inputs that are at hand.
#[derive(Clone, Debug)]
pub struct GivenSamples(Arc<Vec<Sample>>);

impl GivenSamples {
    pub(crate) fn to_vec(&self) -> Vec<Sample> {
        self.0.to_vec()
    }
}

impl From<Vec<Sample>> for GivenSamples {
    fn from(samples: Vec<Sample>) -> Self {
        GivenSamples(Arc::new(samples))
    }
}

impl PartialEq for GivenSamples {
    /// Whether they are the same ones.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// How to search for a plan that meets the limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SearchOptions {
    /// What to keep most of.
    pub objective: Objective,
    /// How long all may take, the verdict included, in seconds. Plans then depend on how fast the
    /// machine is; without it they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_budget: Option<f64>,
    /// How many plans are run on all samples at most, the verdict included; with 1 there is no
    /// search.
    pub max_trials: usize,
    /// When to move ranges of activations into weights.
    pub smoothing: Smoothing,
    /// Correct biases for the mean error of rounded weights, where parity fails without.
    pub bias_correction: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        SearchOptions {
            objective: Objective::default(),
            time_budget: None,
            max_trials: 25,
            smoothing: Smoothing::default(),
            bias_correction: true,
        }
    }
}

/// What a search keeps most of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Speed and size alike.
    #[default]
    Balanced,
    /// Speed.
    Latency,
    /// Size.
    Size,
}

/// When to move ranges of activations into weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Smoothing {
    /// In a search, where parity fails without.
    #[default]
    Auto,
    /// Wherever it lowers the error, also without a search.
    On,
    /// Never.
    Off,
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

impl Default for Config {
    fn default() -> Self {
        let plan = PlanOptions::default();
        let synthesis = SynthesisOptions::default();
        let session = SessionOptions::default();
        Config {
            scheme: plan.scheme,
            plan: None,
            numerics: plan.numerics,
            quant_format: plan.format,
            io: plan.precision.io,
            float32_statistics: plan.precision.float32_statistics,
            min_rounding_sqnr_db: plan.precision.min_rounding_sqnr_db,
            min_weight_bytes: plan.min_weight_bytes,
            include: Vec::new(),
            exclude: Vec::new(),
            skip_rewrite: Vec::new(),
            keep_opset: false,
            freeze_inputs: false,
            external_data: false,
            gate: Limits::default(),
            enforcement: Enforcement::default(),
            same_noise: None,
            runtime: RuntimeChoice::default(),
            onnxruntime: None,
            environment: LibrarySearch::default(),
            optimization: session.optimization,
            provider: session.provider,
            threads: session.threads,
            worker: None,
            measure_latency: true,
            latency: LatencyOptions::default(),
            judge_latency_anywhere: false,
            search: SearchOptions::default(),
            metric: MetricOptions::default(),
            sqnr_limit_given: false,
            measure: false,
            measure_cache: None,
            samples: None,
            calibration: None,
            given_samples: None,
            dims: IndexMap::new(),
            inputs: IndexMap::new(),
            seed: synthesis.seed,
            sample_count: synthesis.count,
        }
    }
}

impl Config {
    /// Settings for a conversion to 16 bits: the default limit of parity is 40 dB, because so
    /// little is lost.
    pub fn converting(scheme: Scheme) -> Self {
        let mut config = Config { scheme: Some(scheme), ..Config::default() };
        config.gate.min_sqnr_db = Some(40.0);
        config
    }

    /// Settings for an upgrade: the default limit of parity is 100 dB, because the computation is the same
    /// but for rounding. Size and time are what newer operators make of them.
    pub fn upgrading() -> Self {
        let mut config = Config { measure_latency: false, ..Config::default() };
        config.gate.min_sqnr_db = Some(100.0);
        config.gate.min_shrink = Some(0.0);
        config
    }

    /// Reads the text of a `modelopt.toml`.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        Config::default().with_toml(text)
    }

    /// These settings, but for those that the text of a `modelopt.toml` sets.
    pub fn with_toml(&self, text: &str) -> Result<Self, Error> {
        let wrong = |error: String| Error::from(ErrorKind::Config(error));
        // First alone, so that errors tell the line.
        toml::from_str::<Config>(text).map_err(|error| wrong(error.to_string()))?;
        let given: toml::Table = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let gate = given.get("gate").and_then(toml::Value::as_table);
        let sets_sqnr_limit = gate.is_some_and(|gate| gate.contains_key("min-sqnr-db"));
        let sets_runtime = given.contains_key("runtime");
        let mut plain = self.clone();
        // Its name would not be read back.
        if let RuntimeChoice::Custom(_) = plain.runtime {
            plain.runtime = RuntimeChoice::Auto;
        }
        let mut all = toml::Table::try_from(plain).map_err(|error| wrong(error.to_string()))?;
        overlay(&mut all, given);
        let mut config: Config = all.try_into().map_err(|error| wrong(error.to_string()))?;
        // What no file can set.
        if let (RuntimeChoice::Custom(_), false) = (&self.runtime, sets_runtime) {
            config.runtime.clone_from(&self.runtime);
        }
        config.plan.clone_from(&self.plan);
        config.environment.clone_from(&self.environment);
        config.worker.clone_from(&self.worker);
        config.metric.custom.clone_from(&self.metric.custom);
        config.given_samples.clone_from(&self.given_samples);
        config.sqnr_limit_given = self.sqnr_limit_given || sets_sqnr_limit;
        Ok(config)
    }

    /// The limits of the verdict: where there is a metric, it decides instead of the default limit
    /// of parity.
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = self.gate.clone();
        if self.metric.is_given() && !self.sqnr_limit_given {
            (limits.min_sqnr_db, limits.min_agreement) = (None, None);
        }
        limits
    }

    /// Whether the plan is to be searched for: nobody asked for a scheme or a plan, and there are
    /// limits to meet.
    pub fn searches(&self) -> bool {
        self.scheme.is_none()
            && self.plan.is_none()
            && self.enforcement == Enforcement::Gate
            && self.search.max_trials > 1
    }

    /// The 16-bit type that the model is to compute in, if it is.
    pub(crate) fn computes_in(&self) -> Option<Precision> {
        match &self.plan {
            Some(plan) => plan.layers.iter().find_map(|layer| layer.scheme.computes_in()),
            None => self.scheme.and_then(Scheme::computes_in),
        }
    }

    pub(crate) fn plan_options(&self) -> Result<PlanOptions, PlanError> {
        let patterns = |texts: &[String]| {
            texts.iter().map(|text| Pattern::new(text)).collect::<Result<Vec<_>, _>>()
        };
        Ok(PlanOptions {
            scheme: self.scheme,
            target: self.runtime.target(),
            measured: HashMap::new(),
            observed: HashMap::new(),
            keep_opset: self.keep_opset,
            numerics: self.numerics,
            format: self.quant_format,
            precision: PrecisionOptions {
                // Of no concern to a model that computes in another type.
                io: Some(self.io)
                    .filter(|io| io.precision() == self.computes_in())
                    .unwrap_or_default(),
                float32_statistics: self.float32_statistics,
                min_rounding_sqnr_db: self.min_rounding_sqnr_db,
                ..PrecisionOptions::default()
            },
            min_weight_bytes: self.min_weight_bytes,
            include: patterns(&self.include)?,
            exclude: patterns(&self.exclude)?,
        })
    }

    pub(crate) fn session(&self) -> SessionOptions {
        SessionOptions {
            threads: self.threads,
            optimization: self.optimization,
            provider: self.provider.clone(),
        }
    }

    pub(crate) fn library_search(&self) -> LibrarySearch {
        let explicit = self.onnxruntime.clone();
        LibrarySearch { explicit, ..self.environment.clone() }
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
        Ok(self.metric.check(self.samples.as_deref())?)
    }
}

/// Sets what `given` sets, table by table.
fn overlay(all: &mut toml::Table, given: toml::Table) {
    for (key, value) in given {
        match (all.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => overlay(inner, value),
            (_, value) => {
                all.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use modelopt_runtime::Runtime;

    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(Config::from_toml("").unwrap(), Config::default());
    }

    #[test]
    fn every_setting_survives_a_round_trip() {
        let mut config =
            Config { scheme: Some(Scheme::INT8_WEIGHTS), threads: 2, ..Config::default() };
        // The text sets all that can be set.
        (config.gate.min_sqnr_db, config.sqnr_limit_given) = (None, true);
        config.dims.insert("batch".into(), 3);
        config.inputs.insert("sr".into(), "16000".into());
        config.runtime = "onnxruntime,rten".parse().unwrap();
        config.latency.min_pairs = 7;
        let text = toml::to_string(&config).unwrap();
        assert_eq!(Config::from_toml(&text).unwrap(), config, "{text}");
    }

    #[test]
    fn a_file_overrides_the_defaults_of_a_conversion_key_by_key() {
        let defaults = Config::converting(Scheme::FP16);
        let config = defaults.with_toml("threads = 2\n[gate]\nmin-top1 = 0.9\n").unwrap();
        assert_eq!((config.threads, config.gate.min_top1), (2, Some(0.9)));
        assert_eq!((config.scheme, config.gate.min_sqnr_db), (Some(Scheme::FP16), Some(40.0)));
        let config = defaults.with_toml("[gate]\nmin-sqnr-db = 30.0\n").unwrap();
        assert_eq!(config.gate.min_sqnr_db, Some(30.0));
    }

    #[test]
    fn a_file_leaves_the_callers_own_runtime_alone_unless_it_names_one() {
        let embedded = modelopt_runtime::RuntimeKind::embedded().next().unwrap();
        let own = modelopt_runtime::runtime(embedded, None).unwrap();
        let own = RuntimeChoice::Custom(std::sync::Arc::<dyn Runtime>::from(own).into());
        let defaults = Config { runtime: own.clone(), ..Config::default() };
        assert_eq!(defaults.with_toml("threads = 2").unwrap().runtime, own);
        let text = format!("runtime = \"{embedded}\"");
        let named = RuntimeChoice::Named(vec![embedded]);
        assert_eq!(defaults.with_toml(&text).unwrap().runtime, named);
    }

    #[test]
    fn a_metric_decides_instead_of_the_default_limit_and_beside_one_that_is_set() {
        let metric = "[metric]\ncommand = \"eval {model}\"\n";
        let limits = |text: &str| Config::from_toml(text).unwrap().limits().min_sqnr_db;
        assert_eq!(limits(""), Some(20.0));
        assert_eq!(limits(metric), None);
        assert_eq!(limits(&format!("{metric}[gate]\nmin-sqnr-db = 20\n")), Some(20.0));
    }

    #[test]
    fn a_misspelt_setting_is_an_error() {
        let error = Config::from_toml("sheme = \"keep\"").unwrap_err().to_string();
        assert!(error.contains("sheme"), "{error}");
        let config = Config { skip_rewrite: vec!["fuse".into()], ..Config::default() };
        assert!(config.check().unwrap_err().to_string().contains("batchnorm"));
    }
}

#[cfg(test)]
mod edges;
