//! Calibration as a file: what flows through a model on many samples, in bounded memory, by shards, and
//! gone on with after an interruption.

mod error;
mod merging;
mod shard;
mod unfinished;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use modelopt_calibrate::{
    Activations, Calibration, LayerDigests, Observations, Part, Pass, PassError, Position,
    SampleList, Samples,
};
use modelopt_graph::{Model, Tensor};
use modelopt_onnx as onnx;
use modelopt_report as report;
use modelopt_runtime::{Sample, SampleFiles, fit_samples, graph_inputs};

use crate::budget::Stop;
use crate::config::Config;
use crate::error::Error;
use crate::resource_limits;
use crate::subject::Subject;
use crate::target::{self, Host};
use crate::transform;
use crate::warning::Warning;
use crate::{Progress, Step};

pub use error::CalibrationError;
pub(crate) use merging::given;
pub use merging::{merge_calibrations, read_calibration, read_calibration_of, write_calibration};
pub use shard::{Shard, UnknownShard};
use unfinished::Keeper;

/// The most that the values of one run take together, in bytes: they are in memory several times, on
/// their way from one process to another.
const GROUP_BYTES: u64 = 48 << 20;

/// How a model is calibrated, but for where it runs.
#[derive(Clone, Debug)]
pub struct CalibrateOptions {
    /// Only these samples of all.
    pub shard: Shard,
    /// Where progress is kept, to go on from after an interruption. It stays there when the run is done,
    /// so that nothing is lost before the caller has what came of it.
    pub progress_file: Option<PathBuf>,
    /// Go on from there, if there is something.
    pub resume: bool,
    /// How often progress is kept.
    pub save_every: Duration,
}

impl Default for CalibrateOptions {
    fn default() -> Self {
        CalibrateOptions {
            shard: Shard::ALL,
            progress_file: None,
            resume: false,
            save_every: Duration::from_secs(30),
        }
    }
}

/// What a model was calibrated with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Calibrated {
    /// What was observed.
    pub calibration: Calibration,
    /// Where the model ran.
    pub runtime: report::RuntimeUsed,
    /// Whether this went on from where another run was.
    pub resumed: bool,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// The samples and the list that they are places in.
struct Listed {
    samples: Box<dyn Samples>,
    list: SampleList,
}

/// A model that is about to be calibrated.
struct Task<'a> {
    /// Where the user has it.
    file: &'a Path,
    model: &'a Model,
    samples: Part<'a>,
    /// What is to be known of model and samples, with nothing seen yet.
    blank: Calibration,
}

/// Runs a model over real samples and observes all float32 values of its main graph, as they are after
/// preparation, for their ranges: see [`Activations`]. Samples are read one at a time.
///
/// # Errors
///
/// Where the model does not run; where a sample does not fit, or makes the model compute NaN; where what
/// is to be gone on from is of something else; and
/// [`PassError::Stopped`](modelopt_calibrate::PassError::Stopped) where somebody stopped it, which keeps
/// the progress.
pub fn calibrate(
    input: &Path,
    config: &Config,
    options: &CalibrateOptions,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<Calibrated, Error> {
    progress(Progress::Step(Step::Loading));
    let loaded = onnx::load(input)?;
    resource_limits::check_loaded(&loaded)?;
    let prepared = transform::prepared(&loaded, config)?;
    let Listed { samples, list } = listed(&loaded, config)?;
    let places = options.shard.places(samples.count());
    let mut observations = Observations::default();
    Activations::of(&prepared).watch(&prepared, &mut observations);
    progress(Progress::Step(Step::PreparingOriginal));
    let first = samples.get(0)?;
    let subject = Arc::new(Subject::new(input, &loaded, &[], config)?);
    let rig = target::target(&subject, std::slice::from_ref(&first), config, &[])?;
    let (runtime, host) = (rig.used.clone(), rig.another_host()?);
    // The original itself is not needed any more: it would be in memory once more.
    drop(rig);
    let all = places.clone().map(|place| place as u64);
    let blank = Calibration::new(onnx::digest(input)?, all, observations)
        .of_layers(LayerDigests::of(&prepared))
        .of_list(list)
        .in_runtime(format!("{} {}", runtime.name, runtime.version));
    let mut keeper = Keeper::new(options);
    let begun = keeper.begun(&blank)?;
    let resumed = begun.is_some();
    let task =
        Task { file: input, model: &prepared, samples: Part { of: &*samples, places }, blank };
    let calibration = task.run(begun, (&host, stop), &mut keeper, progress)?;
    Ok(Calibrated { calibration, runtime, resumed, warnings: subject.warnings.clone() })
}

/// The samples to run, which are the user's.
fn listed(model: &Model, config: &Config) -> Result<Listed, Error> {
    let inputs = graph_inputs(model);
    if let Some(given) = &config.given_samples {
        let samples: Vec<Sample> = fit_samples(given.to_vec(), &inputs)?.samples;
        let size = |sample: &Sample| sample.inputs.values().map(Tensor::byte_len).sum::<usize>();
        let list = SampleList::of(samples.iter().map(|s| (s.name.clone(), size(s) as u64)));
        return Ok(Listed { samples: Box::new(samples), list });
    }
    let Some(path) = &config.samples else { return Err(CalibrationError::NoSamples.into()) };
    let files = SampleFiles::list(path, &inputs)?;
    let list = SampleList::of(files.listing());
    Ok(Listed { samples: Box::new(files), list })
}

impl Task<'_> {
    /// Shows all samples to the observers, and keeps progress meanwhile.
    fn run(
        &self,
        begun: Option<(Observations, Position)>,
        (host, stop): (&Host<'_>, &Stop),
        keeper: &mut Keeper,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Calibration, Error> {
        progress(Progress::Step(Step::MeasuringActivations));
        let pass = Pass::new(self.model, &self.samples).strict().within(GROUP_BYTES);
        let pass = pass.from(self.samples.places.start as u64);
        let (mut observations, position) = if let Some(begun) = begun {
            begun
        } else {
            let observations = self.blank.observations().clone();
            let start = pass.start(&observations, host)?;
            (observations, start)
        };
        let mut unkept = None;
        let seen = pass.go_on(position, &mut observations, host, &mut |moment| {
            progress(Progress::Part { done: moment.step.done, total: moment.step.total });
            let stopped = stop.is_stopped();
            if let Err(error) = keeper.keep(&self.blank, moment, stopped) {
                unkept = Some(error);
                return ControlFlow::Break(());
            }
            if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match (unkept, seen) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(self.blank.having(observations)),
            (None, Err(PassError::Sample(error))) => Err((*error).into()),
            (None, Err(error)) => Err(error.about(self.file).into()),
        }
    }
}

#[cfg(test)]
mod tests;
