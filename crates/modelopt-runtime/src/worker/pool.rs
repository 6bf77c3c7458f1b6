//! Workers that are there to be used again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::process::Process;
use crate::RuntimeError;

/// More workers than this are not kept when nobody uses them.
const MOST_IDLE: usize = 4;

/// A program that calls [`serve`](super::serve), and the processes of it that are there. Clones share
/// them; they end with the last clone and the last session.
#[derive(Clone)]
pub struct WorkerPool(Arc<Shared>);

struct Shared {
    program: PathBuf,
    arguments: Vec<String>,
    patience: Duration,
    idle: Mutex<Vec<Process>>,
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool").field("program", &self.0.program).finish_non_exhaustive()
    }
}

impl PartialEq for WorkerPool {
    /// Whether they start the same program in the same way.
    fn eq(&self, other: &Self) -> bool {
        let settings =
            |pool: &Self| (pool.0.program.clone(), pool.0.arguments.clone(), pool.0.patience);
        settings(self) == settings(other)
    }
}

impl WorkerPool {
    /// Workers that are started by a program with these arguments. One that does not answer a
    /// request for as long as `patience` is ended.
    pub fn new(program: PathBuf, arguments: Vec<String>, patience: Duration) -> Self {
        WorkerPool(Arc::new(Shared { program, arguments, patience, idle: Mutex::default() }))
    }

    pub(super) fn patience(&self) -> Duration {
        self.0.patience
    }

    /// A worker that can load this library, and has loaded no model where it has to be fresh.
    pub(super) fn take(
        &self,
        library: Option<&Path>,
        fresh: bool,
    ) -> Result<Process, RuntimeError> {
        while let Some(mut process) = self.take_idle(library, fresh) {
            if process.is_alive() {
                return Ok(process);
            }
        }
        Process::start(&self.0.program, &self.0.arguments)
            .map_err(|cause| RuntimeError::NoWorker { program: self.0.program.clone(), cause })
    }

    fn take_idle(&self, library: Option<&Path>, fresh: bool) -> Option<Process> {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |process: &Process| {
            library.is_none() || process.library.is_none() || process.library.as_deref() == library
        };
        let at = if fresh {
            idle.iter().rposition(|process| process.models == 0 && fits(process))
        } else {
            // Fresh ones are left to those that need them.
            let used = idle.iter().rposition(|process| process.models > 0 && fits(process));
            used.or_else(|| idle.iter().rposition(fits))
        };
        at.map(|at| idle.remove(at))
    }

    pub(super) fn give_back(&self, process: Process) {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(process);
        }
    }
}
