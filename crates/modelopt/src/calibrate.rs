//! Looks at what flows through the original in the target: what calibration needs to know of how models
//! are run here.

use std::collections::HashMap;
use std::ops::ControlFlow;

use indexmap::IndexMap;
use modelopt_calibrate::{LayerInputs, Observations, OpenSession, Pass, Rounded};
use modelopt_graph::{Model, Tensor, ValueId};
use modelopt_onnx::Staged;
use modelopt_rewrite::{Plan, Precision, Seen};
use modelopt_runtime::{LeftOut, Outputs, RuntimeError, Sample, Session};

use crate::scratch::Scratch;
use crate::target::Host;
use crate::warning::Warning;
use crate::{Progress, Step};

/// What rounding to 16 bits was seen to do.
#[derive(Debug, Default)]
pub(crate) struct Rounding {
    /// Activations that rounding to 16 bits takes too much of, with the reason.
    pub(crate) unfit: HashMap<ValueId, String>,
    /// What could not be looked at.
    pub(crate) warning: Option<Warning>,
}

/// Measures what rounding to `to` would take from each activation of a prepared model.
pub(crate) fn activations(
    prepared: &Model,
    limit: (Precision, f64),
    samples: &[Sample],
    host: &Host<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Rounding {
    let (to, min_sqnr_db) = limit;
    let rounded = Rounded::of(prepared, to);
    let mut observations = Observations::default();
    rounded.watch(prepared, &mut observations);
    let seen = observe(prepared, &mut observations, samples, host, progress);
    let warning = seen.err().map(|reason| Warning::UnknownRanges { reason });
    Rounding { unfit: rounded.unfit(prepared, &observations, min_sqnr_db), warning }
}

/// What the layers of a plan read on the samples, by name of the layer.
pub(crate) fn statistics(
    prepared: &Model,
    plan: &Plan,
    samples: &[Sample],
    host: &Host<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Seen, String> {
    let inputs = LayerInputs::of(prepared, plan);
    let mut observations = Observations::default();
    inputs.watch(prepared, &mut observations);
    observe(prepared, &mut observations, samples, host, progress)?;
    Ok(inputs.seen(prepared, &observations))
}

/// One pass over the samples for all that is to be observed.
fn observe(
    prepared: &Model,
    observations: &mut Observations,
    samples: &[Sample],
    host: &Host<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), String> {
    progress(Progress::Step(Step::MeasuringActivations));
    let seen = Pass::new(prepared, &samples).run(observations, host, &mut |step| {
        progress(Progress::Part { done: step.done, total: step.total });
        ControlFlow::Continue(())
    });
    seen.map_err(|error| error.told(RuntimeError::without_path))
}

/// A session, and the file that it may still read.
struct Kept {
    session: Box<dyn Session>,
    _staged: Staged,
    _scratch: Scratch,
}

impl Session for Kept {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        self.session.run(inputs)
    }

    fn left_out(&self) -> &[LeftOut] {
        self.session.left_out()
    }
}

impl OpenSession for Host<'_> {
    fn open(&self, model: &Model) -> Result<Box<dyn Session + '_>, RuntimeError> {
        let scratch = Scratch::new()?;
        let staged = scratch.write(&self.copies.of(model), "activations.onnx")?;
        let session = self.prepare(staged.path())?;
        Ok(Box::new(Kept { session, _staged: staged, _scratch: scratch }))
    }
}

#[cfg(test)]
mod planted;
