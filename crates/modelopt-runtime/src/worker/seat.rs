//! Workers that hold sessions.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use modelopt_graph::Tensor;

use super::pool::WorkerPool;
use super::process::{Broken, Process};
use super::protocol::{Answer, Request};
use crate::{End, RuntimeError};

/// Names and tensors.
pub(super) type Inputs = IndexMap<String, Tensor>;

/// A worker with sessions in it. It goes back to its pool with the last of them.
#[derive(Clone, Debug)]
pub struct Seat(Arc<Seated>);

#[derive(Debug)]
struct Seated {
    pool: WorkerPool,
    library: Option<PathBuf>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
pub(super) struct Held {
    /// None where it died, until somebody needs it again.
    process: Option<Process>,
    /// How many have died: sessions in them are gone.
    deaths: u64,
}

impl Seat {
    pub(super) fn new(
        pool: &WorkerPool,
        library: Option<&Path>,
        fresh: bool,
    ) -> Result<Self, RuntimeError> {
        let held = Held { process: Some(pool.take(library, fresh)?), deaths: 0 };
        let library = library.map(Path::to_owned);
        Ok(Seat(Arc::new(Seated { pool: pool.clone(), library, held: Mutex::new(held) })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long an answer may take.
    pub(super) fn patience(&self) -> Duration {
        self.0.pool.patience()
    }

    /// Whether it is this worker.
    pub(super) fn is(&self, other: &Seat) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut process) = held.process.take() {
            process.library = process.library.take().or_else(|| self.library.take());
            self.pool.give_back(process);
        }
    }
}

impl Held {
    /// Asks for something that is about a model or a library, and waits for the answer. Where that
    /// is none, the process is gone.
    pub(super) fn ask(
        &mut self,
        about: About<'_>,
        request: &Request,
        tensors: &[&Inputs],
        patience: Duration,
    ) -> Result<(Answer, Vec<(String, Tensor)>), RuntimeError> {
        let Some(process) = &mut self.process else { return Err(about.died(End::Gone)) };
        let answer = process.ask(request, tensors, patience);
        if answer.is_err() {
            self.process = None;
            self.deaths += 1;
        }
        match answer {
            Ok((Answer::Failed(failure), _)) => Err(failure.into_error(about.runtime, about.file)),
            Ok(answer) => Ok(answer),
            Err(Broken::NoMemory) => Err(RuntimeError::NoMemory),
            Err(Broken::Died(end)) => Err(about.died(end)),
        }
    }

    /// How many workers have died here.
    pub(super) fn deaths(&self) -> u64 {
        self.deaths
    }

    /// Has a worker ready for another model.
    pub(super) fn make_ready(&mut self, seat: &Seat) -> Result<(), RuntimeError> {
        let Seated { pool, library, .. } = &*seat.0;
        let process = match &mut self.process {
            Some(process) => process,
            gone @ None => gone.insert(pool.take(library.as_deref(), false)?),
        };
        process.forget();
        process.models += 1;
        Ok(())
    }
}

/// What a worker is asked about: for errors.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) runtime: &'static str,
    /// A model, or a library.
    pub(super) file: &'a Path,
}

impl About<'_> {
    /// It did not survive that.
    pub(super) fn died(self, end: End) -> RuntimeError {
        RuntimeError::Died {
            runtime: self.runtime,
            path: self.file.to_owned(),
            end: end.without(self.file),
        }
    }
}
