//! Runtimes in workers.

use std::path::{Path, PathBuf};

use super::pool::WorkerPool;
use super::protocol::{Answer, Place, Request};
use super::seat::{About, Inputs, Seat};
use super::session::{Remote, WorkerSession};
use crate::{
    Attempt, End, LeftOut, Outputs, Runtime, RuntimeError, RuntimeKind, Session, SessionOptions,
    runtime,
};

impl WorkerPool {
    /// A runtime that loads and runs its models in workers. `library` is its library, if it needs
    /// one; nothing of it is loaded in this process.
    ///
    /// # Errors
    /// If no worker can be started, or the library cannot be loaded, or takes its process down.
    pub fn runtime(
        &self,
        kind: RuntimeKind,
        library: Option<&Path>,
    ) -> Result<Box<dyn Runtime>, RuntimeError> {
        Ok(Box::new(WorkerRuntime::open(self.clone(), kind, library)?))
    }
}

/// A runtime in workers.
struct WorkerRuntime {
    pool: WorkerPool,
    kind: RuntimeKind,
    library: Option<PathBuf>,
    version: String,
}

impl WorkerRuntime {
    fn open(
        pool: WorkerPool,
        kind: RuntimeKind,
        library: Option<&Path>,
    ) -> Result<Self, RuntimeError> {
        let Some(library) = library else {
            // What is part of this program says its version without being run.
            let version = runtime(kind, None)?.version();
            return Ok(WorkerRuntime { pool, kind, library: None, version });
        };
        let about = About { runtime: kind.name(), file: library };
        let open = Request::Open(Place::new(kind.name(), Some(library)));
        let seat = Seat::new(&pool, Some(library), false)?;
        let answer = seat.lock().ask(about, &open, &[], seat.patience())?.0;
        match answer {
            Answer::Opened { version } => {
                Ok(WorkerRuntime { pool, kind, library: Some(library.to_owned()), version })
            }
            _ => Err(about.died(End::Confused)),
        }
    }

    fn seat(&self, fresh: bool) -> Result<Seat, RuntimeError> {
        Seat::new(&self.pool, self.library.as_deref(), fresh)
    }

    fn session(&self, seat: Seat, model: &Path, options: &SessionOptions) -> WorkerSession {
        WorkerSession::new(seat, self.kind.name(), self.library.as_deref(), model, options)
    }
}

impl Runtime for WorkerRuntime {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn library(&self) -> Option<&Path> {
        self.library.as_deref()
    }

    fn prepare(
        &self,
        model: &Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        let mut session = self.session(self.seat(false)?, model, options);
        session.load(None)?;
        Ok(Box::new(session))
    }

    fn prepare_beside(
        &self,
        other: &dyn Session,
        model: &Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        let Some(seat) = other.seat() else { return self.prepare(model, options) };
        let mut session = self.session(seat, model, options);
        session.load(None)?;
        Ok(Box::new(session))
    }

    fn attempt(
        &self,
        model: &Path,
        options: &SessionOptions,
        inputs: Option<&Inputs>,
    ) -> Result<Attempt, RuntimeError> {
        let mut session = self.session(self.seat(true)?, model, options);
        let cost = session.load(inputs)?;
        Ok(Attempt { session: Box::new(session), cost: Some(cost) })
    }
}

impl Session for WorkerSession {
    fn run(&mut self, inputs: &Inputs) -> Result<Outputs, RuntimeError> {
        Ok(WorkerSession::run(self, inputs)?.into_iter().collect())
    }

    fn left_out(&self) -> &[LeftOut] {
        WorkerSession::left_out(self)
    }

    fn seat(&self) -> Option<Seat> {
        Some(WorkerSession::seat(self).clone())
    }

    fn remote<'s>(&'s mut self, inputs: &'s Inputs) -> Option<Remote<'s>> {
        Some(Remote { session: self, inputs })
    }
}
