//! The library as it is meant to be called: what to optimize, on what, for where, and how far; then
//! one run.

mod artifact;
mod source;

use std::path::{Path, PathBuf};

use modelopt_calibrate::{Observations, Unobservable};
use modelopt_graph::Model;
use modelopt_rewrite::{Plan, Scheme};
use modelopt_runtime::{CustomRuntime, Optimization, RuntimeKind, Sample, SampleKind};
use modelopt_validate::Limits;

use crate::Progress;
use crate::budget::Stop;
use crate::config::{Config, Enforcement, Objective};
use crate::error::{Error, ErrorKind};
use crate::metric::{CustomMetric, Metric};
use crate::observe::{Observed, observe};
use crate::optimize::{Outcome, Search};
use crate::runtime_choice::RuntimeChoice;

pub use artifact::{Artifact, Optimized};
pub use source::{Sink, Source};

/// Makes a smaller, faster model of one, and proves that it is still the same.
///
/// ```no_run
/// use modelopt::prelude::*;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bytes = std::fs::read("model.onnx")?;
/// let optimized = Optimizer::builder()
///     .model(Source::bytes(bytes))
///     .samples(SampleSource::folder("inputs/"))
///     .target(Target::embedded().threads(4))
///     .strategy(Strategy::Search(Objective::Balanced))
///     .limits(Limits { min_sqnr_db: Some(30.0), ..Limits::default() })
///     .build()?
///     .run(&mut |event| eprintln!("{event:?}"))?;
/// optimized.artifact()?.write_to("model.int8.onnx")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Optimizer {
    source: Source,
    sink: Sink,
    config: Config,
    stop: Stop,
}

/// What an [`Optimizer`] is made from.
#[derive(Debug)]
pub struct OptimizerBuilder {
    source: Option<Source>,
    sink: Sink,
    config: Config,
}

/// Where inputs come from that the models are run on.
#[derive(Clone, Debug)]
pub enum SampleSource {
    /// They are invented.
    Invented {
        /// How many.
        count: usize,
        /// Seed of the numbers.
        seed: u64,
    },
    /// They are read: see [`modelopt_runtime::load_samples`].
    Path(PathBuf),
    /// They are at hand.
    Arrays(Vec<Sample>),
}

impl SampleSource {
    /// Samples of a folder, or one file.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        SampleSource::Path(path.into())
    }

    /// Samples at hand: named inputs, a set for each sample.
    ///
    /// ```
    /// use modelopt::prelude::*;
    ///
    /// let input = |value: f32| Tensor::of(vec![1, 2], &[value, -value]).unwrap();
    /// let samples = (0..3u8).map(|n| [("x".to_owned(), input(f32::from(n)))]);
    /// let SampleSource::Arrays(samples) = SampleSource::arrays(samples) else { unreachable!() };
    /// assert_eq!((samples.len(), samples[1].name.as_str()), (3, "sample-1"));
    /// ```
    pub fn arrays<I>(samples: impl IntoIterator<Item = I>) -> Self
    where
        I: IntoIterator<Item = (String, modelopt_graph::Tensor)>,
    {
        let sample = |(index, inputs): (usize, I)| Sample {
            name: format!("sample-{index}"),
            inputs: inputs.into_iter().collect(),
            kind: SampleKind::Real,
        };
        SampleSource::Arrays(samples.into_iter().enumerate().map(sample).collect())
    }
}

/// Where the model is going to run.
#[derive(Clone, Debug, Default)]
pub struct Target {
    runtime: RuntimeChoice,
    library: Option<PathBuf>,
    threads: Option<usize>,
    optimization: Option<Optimization>,
    provider: Option<String>,
}

impl Target {
    /// Nobody knows: an embedded runtime proves that the model is the same, and latency is not judged.
    pub fn embedded() -> Self {
        Target::default()
    }

    /// A runtime.
    pub fn runtime(kind: RuntimeKind) -> Self {
        Target { runtime: RuntimeChoice::Named(vec![kind]), ..Target::default() }
    }

    /// A runtime of the caller's own, which is used in this process.
    pub fn custom(runtime: impl Into<CustomRuntime>) -> Self {
        Target { runtime: RuntimeChoice::Custom(runtime.into()), ..Target::default() }
    }

    /// ONNX Runtime, by its shared library or a folder that holds it.
    #[cfg(feature = "onnxruntime")]
    pub fn onnxruntime(library: impl Into<PathBuf>) -> Self {
        let kinds = RuntimeKind::by_library().collect();
        let (runtime, library) = (RuntimeChoice::Named(kinds), Some(library.into()));
        Target { runtime, library, ..Target::default() }
    }

    /// Threads that the runtime may use; 0 for all.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// How far the runtime optimises graphs, where it has a choice.
    #[must_use]
    pub fn optimization(mut self, optimization: Optimization) -> Self {
        self.optimization = Some(optimization);
        self
    }

    /// Where the runtime computes, where it has a choice: `cpu`, `cuda` and so on.
    #[must_use]
    pub fn provider(mut self, provider: impl Into<String>) -> Self {
        self.provider = Some(provider.into());
        self
    }
}

/// How the plan comes about.
#[derive(Clone, Debug)]
pub enum Strategy {
    /// It is searched for: the one that meets the limits and gives up the least.
    Search(Objective),
    /// One scheme wherever it is possible.
    Scheme(Scheme),
    /// It is given.
    Plan(Plan),
}

impl Default for Strategy {
    fn default() -> Self {
        Strategy::Search(Objective::default())
    }
}

impl Optimizer {
    /// An optimizer with default settings, to be told what to optimize.
    pub fn builder() -> OptimizerBuilder {
        OptimizerBuilder { source: None, sink: Sink::Memory, config: Config::default() }
    }

    /// A handle that ends the run from elsewhere: nothing is emitted then.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Makes the candidate, runs both models, and emits what passes. `events` is told what is going
    /// on.
    ///
    /// # Errors
    ///
    /// Where nothing could be proven at all. A candidate that fails the limits is no error here: see
    /// [`Optimized::artifact`].
    pub fn run(self, events: &mut dyn FnMut(Progress)) -> Result<Optimized, Error> {
        let input = self.source.materialize()?;
        let output = self.sink.place(input.path())?;
        let search = Search::new(&self.config).stopped_by(self.stop);
        let outcome = search.run(input.path(), output.path(), events);
        let outcome = outcome.map_err(|error| input.named(error))?;
        Ok(Optimized::new(outcome, output))
    }

    /// Runs the model over the samples and shows what flows through it to observers, instead of
    /// optimizing it: see [`observe()`](crate::observe()).
    ///
    /// # Errors
    ///
    /// As [`observe()`](crate::observe()).
    pub fn observe(
        self,
        watch: impl FnOnce(&Model) -> Result<Observations, Unobservable>,
        events: &mut dyn FnMut(Progress),
    ) -> Result<Observed, Error> {
        let input = self.source.materialize()?;
        let observed = observe(input.path(), &self.config, &self.stop, watch, events);
        observed.map_err(|error| input.named(error))
    }
}

impl OptimizerBuilder {
    /// The model.
    #[must_use]
    pub fn model(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Where the result goes; it is kept in memory's reach if nobody says.
    #[must_use]
    pub fn sink(mut self, sink: Sink) -> Self {
        self.sink = sink;
        self
    }

    /// What to run the models on; invented inputs if nobody says.
    #[must_use]
    pub fn samples(mut self, samples: SampleSource) -> Self {
        match samples {
            SampleSource::Invented { count, seed } => {
                (self.config.sample_count, self.config.seed) = (count, seed);
            }
            SampleSource::Path(path) => self.config.samples = Some(path),
            SampleSource::Arrays(samples) => self.config.given_samples = Some(samples.into()),
        }
        self
    }

    /// Where the model is going to run.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        let Target { runtime, library, threads, optimization, provider } = target;
        let config = &mut self.config;
        (config.runtime, config.onnxruntime) = (runtime, library);
        config.threads = threads.unwrap_or(config.threads);
        config.optimization = optimization.unwrap_or(config.optimization);
        config.provider = provider.unwrap_or(std::mem::take(&mut config.provider));
        self
    }

    /// How the plan comes about.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        match strategy {
            Strategy::Search(objective) => self.config.search.objective = objective,
            Strategy::Scheme(scheme) => {
                if scheme.is_sixteen() && !self.config.sqnr_limit_given {
                    self.config.gate.min_sqnr_db = Config::converting(scheme).gate.min_sqnr_db;
                }
                self.config.scheme = Some(scheme);
            }
            Strategy::Plan(plan) => self.config.plan = Some(plan),
        }
        self
    }

    /// What the result must meet.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.gate = limits;
        self.config.sqnr_limit_given = true;
        self
    }

    /// What the verdict is for.
    #[must_use]
    pub fn enforcement(mut self, enforcement: Enforcement) -> Self {
        self.config.enforcement = enforcement;
        self
    }

    /// The user's own metric, which decides instead of the default limit of parity.
    #[must_use]
    pub fn metric(mut self, metric: impl Metric + Send + 'static) -> Self {
        self.config.metric.custom = Some(CustomMetric::new(metric));
        self
    }

    /// Any other setting.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// The optimizer.
    ///
    /// # Errors
    ///
    /// Without a model, and with settings that cannot be.
    pub fn build(self) -> Result<Optimizer, Error> {
        let source = self.source.ok_or_else(|| {
            Error::from(ErrorKind::Config("there is no model to optimize".to_owned()))
        })?;
        self.config.check()?;
        Ok(Optimizer { source, sink: self.sink, config: self.config, stop: Stop::default() })
    }
}

/// Optimizes one file into another with default settings.
///
/// # Errors
///
/// As [`Optimizer::run`].
pub fn optimize_file(
    input: impl AsRef<Path>,
    output: impl Into<PathBuf>,
) -> Result<Outcome, Error> {
    let optimizer = Optimizer::builder().model(input.as_ref()).sink(Sink::path(output)).build()?;
    Ok(optimizer.run(&mut |_| {})?.outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rten() -> RuntimeKind {
        "rten".parse().unwrap()
    }

    #[test]
    fn settings_are_those_of_the_builder() {
        let builder = Optimizer::builder()
            .model(Path::new("m.onnx"))
            .target(Target::runtime(rten()).threads(3))
            .samples(SampleSource::Invented { count: 7, seed: 9 })
            .strategy(Strategy::Search(Objective::Size))
            .limits(Limits { min_sqnr_db: Some(33.0), ..Limits::default() })
            .enforcement(Enforcement::Judge);
        let config = builder.build().unwrap().config;
        assert_eq!(config.runtime, RuntimeChoice::Named(vec![rten()]));
        assert_eq!((config.threads, config.sample_count, config.seed), (3, 7, 9));
        assert_eq!(config.search.objective, Objective::Size);
        assert_eq!(config.gate.min_sqnr_db, Some(33.0));
        assert!(config.sqnr_limit_given && config.scheme.is_none());
        assert_eq!(config.enforcement, Enforcement::Judge);
    }

    #[test]
    fn sixteen_bits_are_held_to_more() {
        let builder = Optimizer::builder().model(Path::new("m.onnx"));
        let config = builder.strategy(Strategy::Scheme(Scheme::FP16)).build().unwrap().config;
        assert_eq!((config.scheme, config.gate.min_sqnr_db), (Some(Scheme::FP16), Some(40.0)));
    }

    #[test]
    fn the_order_in_which_limits_and_strategy_are_told_makes_no_difference() {
        let limits = Limits { min_sqnr_db: Some(60.0), ..Limits::default() };
        let strategy = || Strategy::Scheme(Scheme::FP16);
        let builder = || Optimizer::builder().model(Path::new("m.onnx"));
        let first = builder().limits(limits.clone()).strategy(strategy());
        let last = builder().strategy(strategy()).limits(limits);
        for builder in [first, last] {
            assert_eq!(builder.build().unwrap().config.gate.min_sqnr_db, Some(60.0));
        }
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let error = Optimizer::builder().build().unwrap_err().to_string();
        assert_eq!(error, "there is no model to optimize");
        let builder = Optimizer::builder().model(Path::new("m.onnx"));
        let error = builder.configure(|c| c.skip_rewrite = vec!["x".into()]).build().unwrap_err();
        assert!(error.to_string().starts_with("there is no rewrite 'x'"), "{error}");
    }
}

#[cfg(test)]
mod sources;
