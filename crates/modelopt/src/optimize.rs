//! From one file to another: the whole way, with the gate at its end.

mod course;
mod document;
mod given;
mod rounds;
mod searching;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use modelopt_onnx::{self as onnx, Staged};
use modelopt_report as report;
use modelopt_rewrite::{ExplainedPlan, QuantizedWeight, Scheme};
use modelopt_validate::{Culprit, MetricChange, SizeChange, SlowLayer, Verdict};

use crate::budget::{Budget, Stop};
use crate::calibrating;
use crate::config::{Config, Enforcement};
use crate::error::Error;
use crate::found_inputs::FoundInputs;
use crate::ground::Told;
use crate::measure::Cache;
use crate::planning;
use crate::provenance;
use crate::ranges::SeenTensors;
use crate::subject::Subject;
use crate::transform;
use crate::warning::Warning;
use crate::{Progress, Step};
use course::{Course, Searched};
use given::Given;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether the output was written.
    pub emitted: bool,
    /// Whether nothing was there to change, and the output is the input.
    pub unchanged: bool,
    /// The plan that was carried out.
    pub plan: ExplainedPlan,
    /// What became of each weight.
    pub weights: Vec<QuantizedWeight>,
    /// Sizes, external data included.
    pub size: SizeChange,
    /// How many samples the models ran on, and whether those were real.
    pub samples: Option<report::Samples>,
    /// What invented inputs had to be for the original to run, where the first guess was refused.
    pub found_inputs: Option<FoundInputs>,
    /// What each runtime said; the target first. Empty if nothing was run.
    pub runs: Vec<report::Run>,
    /// The user's own metric of both models, if there is one and the models were run.
    pub metric: Option<MetricChange>,
    /// The figures against the limits.
    pub verdict: Option<Verdict>,
    /// After a verdict that failed on parity: the layers by the damage that each does alone,
    /// worst first.
    pub culprits: Vec<Culprit>,
    /// After a verdict that failed on latency: the layers that became slower, the most time lost
    /// first.
    pub slow_layers: Vec<SlowLayer>,
    /// After a verdict that failed on latency alone, where a scheme was asked for: a gentler one
    /// that was tried and passes.
    pub alternative: Option<Scheme>,
    /// The plans that a search ran and judged; the verdict is the last.
    pub trials: Vec<report::Trial>,
    /// Why the search ended, if there was one.
    pub search_end: Option<report::SearchEnd>,
    /// What each layer costs, where a search measured it.
    pub sensitivity: Vec<report::Sensitivity>,
    /// What computes on integers by ranges.
    pub regions: Vec<report::Region>,
    /// The tensors that are quantized by ranges: those that lose most first.
    pub ranges: Vec<report::QuantizedTensor>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    original: report::ModelFile,
    candidate: report::ModelFile,
}

/// A run from one file to another that can be ended early.
///
/// ```no_run
/// # fn main() -> Result<(), modelopt::Error> {
/// let config = modelopt::Config::default();
/// let search = modelopt::Search::new(&config);
/// let stop = search.stop();
/// std::thread::spawn(move || {
///     std::thread::sleep(std::time::Duration::from_mins(1));
///     stop.stop();
/// });
/// let outcome = search.run("model.onnx".as_ref(), "model.int8.onnx".as_ref(), &mut |event| {
///     if let modelopt::Progress::Trial(trial) = event {
///         println!("{}: {:?} dB", trial.what, trial.sqnr_db);
///     }
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Search<'a> {
    config: &'a Config,
    stop: Stop,
}

impl<'a> Search<'a> {
    /// A run with these settings.
    pub fn new(config: &'a Config) -> Self {
        Search { config, stop: Stop::default() }
    }

    /// The same, ended by a handle that exists already.
    pub(crate) fn stopped_by(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// A handle that ends the run from elsewhere: nothing is emitted then, and the outcome holds the
    /// best plan found.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Makes a candidate of the model at `input`, runs both, and writes it to `output` if the
    /// verdict is good or the settings say so. `output` is untouched otherwise, and replaced
    /// atomically. Where nobody asked for a scheme or gave a plan, the plan is searched for.
    pub fn run(
        self,
        input: &Path,
        output: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Outcome, Error> {
        let config = self.config;
        let budget = Budget::new(Instant::now(), config.search.time_budget, self.stop);
        progress(Progress::Step(Step::Loading));
        let original = onnx::load(input)?;
        let file = input.to_owned();
        let original_file = std::thread::spawn(move || provenance::model_file(&file, &file));
        progress(Progress::Step(Step::Planning));
        let prepared = transform::prepared(&original, config)?;
        let calibration = calibrating::given(config, input, &prepared)?;
        let runs = config.enforcement != Enforcement::None;
        let subject = Arc::new(if runs {
            Subject::new(input, &original, &[], config)?
        } else {
            Subject::as_it_is(input)
        });
        let is_idle =
            runs && planning::runs_the_model(config) && transform::leaves_alone(&prepared, config)?;
        let given = Given {
            subject: &subject,
            limits: &config.limits(),
            output,
            config,
            original_bytes: onnx::stored_size(input, &original)?,
            original: &original,
            prepared: &prepared,
            calibration: calibration.as_ref(),
            budget: &budget,
        };
        let mut course = Course {
            given: &given,
            runs: runs && !is_idle,
            ground: None,
            told: Told::default(),
            meter: None,
            cache: Cache::open(config.measure_cache.as_deref()),
            tensors: SeenTensors::default(),
            warnings: Vec::new(),
            searched: Searched::default(),
        };
        let start = course.start(progress)?;
        let plan = course.search(&start, progress)?;
        let mut of_plan = Vec::new();
        let made = given.made(plan, &mut of_plan)?;
        course.prepare_for(&made.0, progress)?;
        // Reading a file again cannot panic; if it did, the report would lack its digest.
        let original_file = original_file.join().unwrap_or_default();
        let (mut outcome, staged) = course.rounds(made, of_plan, &original_file, progress)?;
        outcome.warnings.extend(course.cache.close());
        outcome.found_inputs = course.told.found;
        outcome.emit(staged, &given, progress)
    }
}

impl Outcome {
    /// Puts the candidate at its target, if the verdict is good or the settings say so.
    fn emit(
        mut self,
        staged: Staged,
        given: &Given<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, Error> {
        let pass = self.verdict.as_ref().is_none_or(|verdict| verdict.pass);
        let stopped = given.budget.is_stopped();
        self.emitted = !stopped && (pass || given.config.enforcement != Enforcement::Gate);
        if stopped {
            self.search_end = Some(report::SearchEnd::Stopped);
        }
        if self.emitted {
            progress(Progress::Step(Step::Emitting));
            staged.commit()?;
        }
        Ok(self)
    }
}

/// [`Search::run`] without a handle to end it early.
pub fn optimize(
    input: &Path,
    output: &Path,
    config: &Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, Error> {
    Search::new(config).run(input, output, progress)
}

#[cfg(test)]
mod planted;
