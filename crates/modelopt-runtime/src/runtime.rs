//! What every runtime can do.

use std::path::Path;

use indexmap::IndexMap;
use modelopt_graph::Tensor;

use crate::worker::{Cost, Remote, Seat};
use crate::{LeftOut, Outputs, RuntimeError, SessionOptions};

/// Something that runs ONNX models.
pub trait Runtime: Send + Sync {
    /// Its name; for one of the registry, that of its [`RuntimeKind`](crate::RuntimeKind).
    fn name(&self) -> &'static str;

    /// Its version.
    fn version(&self) -> String;

    /// The file it was loaded from, if it is not part of this program.
    fn library(&self) -> Option<&Path> {
        None
    }

    /// Loads the model at a path; external data is found beside it.
    fn prepare(
        &self,
        model: &Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, RuntimeError>;

    /// The same where another session is, so that both run under the same conditions.
    fn prepare_beside(
        &self,
        _other: &dyn Session,
        model: &Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        self.prepare(model, options)
    }

    /// Loads a model of which nobody knows whether it runs, and runs it once if there are inputs.
    fn attempt(
        &self,
        model: &Path,
        options: &SessionOptions,
        inputs: Option<&IndexMap<String, Tensor>>,
    ) -> Result<Attempt, RuntimeError> {
        let mut session = self.prepare(model, options)?;
        if let Some(inputs) = inputs {
            session.run(inputs)?;
        }
        Ok(Attempt { session, cost: None })
    }
}

/// A model that ran, or was loaded at least.
pub struct Attempt {
    /// It, ready to run.
    pub session: Box<dyn Session>,
    /// What it costs a process of its own, if it was loaded by one.
    pub cost: Option<Cost>,
}

/// A model ready to run.
pub trait Session: Send {
    /// Runs the model on one set of inputs, by name.
    ///
    /// Names that are not inputs of the model are ignored, and so are values for inputs that have
    /// a default: the default counts. Element types must be those the model declares; shapes must
    /// fit its fixed dimensions. Outputs have the element types the model declares.
    /// Outputs of [`Session::left_out`] are missing.
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError>;

    /// The outputs that [`Session::run`] leaves out, because the runtime cannot return values of
    /// their types.
    fn left_out(&self) -> &[LeftOut] {
        &[]
    }

    /// The worker that it is in, if it is in one.
    fn seat(&self) -> Option<Seat> {
        None
    }

    /// Itself and its inputs, to be timed in the worker that it is in, if it is in one. A session
    /// around another one passes that on.
    fn remote<'s>(&'s mut self, _inputs: &'s IndexMap<String, Tensor>) -> Option<Remote<'s>> {
        None
    }
}

impl<S: Session + ?Sized> Session for Box<S> {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        (**self).run(inputs)
    }

    fn left_out(&self) -> &[LeftOut] {
        (**self).left_out()
    }

    fn seat(&self) -> Option<Seat> {
        (**self).seat()
    }

    fn remote<'s>(&'s mut self, inputs: &'s IndexMap<String, Tensor>) -> Option<Remote<'s>> {
        (**self).remote(inputs)
    }
}

impl<S: Session + ?Sized> Session for &mut S {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        (**self).run(inputs)
    }

    fn left_out(&self) -> &[LeftOut] {
        (**self).left_out()
    }

    fn seat(&self) -> Option<Seat> {
        (**self).seat()
    }

    fn remote<'s>(&'s mut self, inputs: &'s IndexMap<String, Tensor>) -> Option<Remote<'s>> {
        (**self).remote(inputs)
    }
}
