//! What flows through a model, shown to observers of the caller's.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use modelopt_calibrate::{Calibration, Observations, Pass, Unobservable};
use modelopt_graph::Model;
use modelopt_onnx as onnx;
use modelopt_report as report;

use crate::budget::Stop;
use crate::config::Config;
use crate::error::Error;
use crate::ground::ground;
use crate::resource_limits;
use crate::subject::Subject;
use crate::target::{self, Ground};
use crate::warning::Warning;
use crate::{Progress, Step};

/// What was observed of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Observed {
    /// The observers, with what they saw on all samples.
    pub calibration: Calibration,
    /// How many samples there were, and whether those were real.
    pub samples: report::Samples,
    /// Where the model ran.
    pub runtime: report::RuntimeUsed,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// Runs a model over the samples and shows values of its main graph to observers: one pass for all of
/// them, in groups of values that fit into memory. `watch` is given the model, with its types inferred,
/// and says what is to be observed.
///
/// # Errors
///
/// Where the model does not run, where a value cannot be observed, and
/// [`PassError::Stopped`](modelopt_calibrate::PassError::Stopped) where somebody stopped it.
pub fn observe(
    input: &Path,
    config: &Config,
    stop: &Stop,
    watch: impl FnOnce(&Model) -> Result<Observations, Unobservable>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Observed, Error> {
    config.check()?;
    progress(Progress::Step(Step::Loading));
    let loaded = onnx::load(input)?;
    let model = resource_limits::check_loaded(&loaded)?;
    let mut observations = watch(&model)?;
    progress(Progress::Step(Step::PreparingOriginal));
    let subject = Arc::new(Subject::new(input, &loaded, &[], config)?);
    let (Ground { mut rig, samples, .. }, told) = ground(&subject, &loaded, config)?;
    progress(Progress::Step(Step::MeasuringActivations));
    let pass = Pass::new(&model, &samples);
    let seen = pass.run(&mut observations, rig.parts().1, &mut |step| {
        progress(Progress::Part { done: step.done, total: step.total });
        if stop.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    seen.map_err(|error| error.about(input))?;
    let mut warnings = told.warnings;
    warnings.extend(subject.warnings.iter().cloned());
    Ok(Observed {
        calibration: Calibration::new(onnx::digest(input)?, pass.places(), observations),
        samples: target::summary(&samples),
        runtime: rig.used.clone(),
        warnings,
    })
}
