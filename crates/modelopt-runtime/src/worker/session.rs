//! Sessions that live in workers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use modelopt_graph::Tensor;

use super::Cost;
use super::pool::WorkerPool;
use super::process::{Broken, Process};
use super::protocol::{Answer, OsPath, Place, Request, Turn};
use crate::error::said_of;
use crate::runtime::Attempt;
use crate::timing::Rounds;
use crate::{
    LeftOut, Outputs, Runtime, RuntimeError, RuntimeKind, Session, SessionOptions, runtime,
};

/// How long letting go of a model may take before its worker is given up.
const LETTING_GO: Duration = Duration::from_secs(10);

/// Names and tensors.
type Inputs = IndexMap<String, Tensor>;

/// A runtime in workers.
pub(super) struct WorkerRuntime {
    pool: WorkerPool,
    kind: RuntimeKind,
    library: Option<PathBuf>,
    version: String,
}

impl WorkerRuntime {
    pub(super) fn open(
        pool: WorkerPool,
        kind: RuntimeKind,
        library: Option<&Path>,
    ) -> Result<Self, RuntimeError> {
        let Some(library) = library else {
            // What is part of this program says its version without being run.
            let version = runtime(kind, None)?.version();
            return Ok(WorkerRuntime { pool, kind, library: None, version });
        };
        let place = Place { runtime: kind, library: Some(OsPath::new(library)) };
        let seat = Seat::new(&pool, Some(library), false)?;
        let asked = seat.lock().ask(&Request::Open(place), &[], pool.patience());
        match answered(asked, kind, library)?.0 {
            Answer::Opened { version } => {
                Ok(WorkerRuntime { pool, kind, library: Some(library.to_owned()), version })
            }
            _ => Err(confused(kind, library)),
        }
    }

    fn session(&self, seat: Seat, model: &Path, options: &SessionOptions) -> WorkerSession {
        let (kind, library) = (self.kind, self.library.as_deref());
        WorkerSession {
            seat,
            place: Place { runtime: kind, library: library.map(OsPath::new) },
            model: model.to_owned(),
            options: options.clone(),
            loaded: None,
            left_out: Vec::new(),
        }
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
        let seat = Seat::new(&self.pool, self.library.as_deref(), false)?;
        let mut session = self.session(seat, model, options);
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
        let seat = Seat::new(&self.pool, self.library.as_deref(), true)?;
        let mut session = self.session(seat, model, options);
        let cost = session.load(inputs)?;
        Ok(Attempt { session: Box::new(session), cost: Some(cost) })
    }
}

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
struct Held {
    /// None where it died, until somebody needs it again.
    process: Option<Process>,
    /// How many have died: sessions in them are gone.
    deaths: u64,
}

impl Seat {
    fn new(pool: &WorkerPool, library: Option<&Path>, fresh: bool) -> Result<Self, RuntimeError> {
        let held = Held { process: Some(pool.take(library, fresh)?), deaths: 0 };
        let library = library.map(Path::to_owned);
        Ok(Seat(Arc::new(Seated { pool: pool.clone(), library, held: Mutex::new(held) })))
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn ask(
        &mut self,
        request: &Request,
        tensors: &[&Inputs],
        patience: Duration,
    ) -> Result<(Answer, Vec<(String, Tensor)>), Broken> {
        let Some(process) = &mut self.process else {
            return Err(Broken::Died("its process is gone".to_owned()));
        };
        let answer = process.ask(request, tensors, patience);
        if answer.is_err() {
            self.process = None;
            self.deaths += 1;
        }
        answer
    }
}

/// The answer, if it is not that something failed.
fn answered(
    answer: Result<(Answer, Vec<(String, Tensor)>), Broken>,
    kind: RuntimeKind,
    subject: &Path,
) -> Result<(Answer, Vec<(String, Tensor)>), RuntimeError> {
    match answer {
        Ok((Answer::Failed(failure), _)) => Err(failure.into_error(kind, subject)),
        Ok(answer) => Ok(answer),
        Err(Broken::NoMemory) => Err(RuntimeError::NoMemory),
        Err(Broken::Died(message)) => Err(RuntimeError::Died {
            runtime: kind.name(),
            path: subject.to_owned(),
            message: said_of(subject, &message),
        }),
    }
}

fn confused(kind: RuntimeKind, subject: &Path) -> RuntimeError {
    RuntimeError::Died {
        runtime: kind.name(),
        path: subject.to_owned(),
        message: "the process that tried it answered something else".to_owned(),
    }
}

/// A model that is loaded in a worker. Where another model took that down, it is loaded again.
struct WorkerSession {
    seat: Seat,
    place: Place,
    model: PathBuf,
    options: SessionOptions,
    loaded: Option<Loaded>,
    left_out: Vec<LeftOut>,
}

/// Which session it is, in which of the workers that its seat has had.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    session: u64,
    deaths: u64,
}

impl WorkerSession {
    fn load(&mut self, inputs: Option<&Inputs>) -> Result<Cost, RuntimeError> {
        let seat = self.seat.clone();
        self.load_in(&mut seat.lock(), inputs)
    }

    fn load_in(&mut self, held: &mut Held, inputs: Option<&Inputs>) -> Result<Cost, RuntimeError> {
        let Seated { pool, library, .. } = &*self.seat.0;
        if held.process.is_none() {
            held.process = Some(pool.take(library.as_deref(), false)?);
        }
        if let Some(process) = &mut held.process {
            process.forget();
            process.models += 1;
        }
        // A worker stays where it was started.
        let model = std::path::absolute(&self.model).unwrap_or_else(|_| self.model.clone());
        let request = Request::Load {
            place: self.place.clone(),
            model: OsPath::new(&model),
            options: self.options.clone(),
            runs: inputs.is_some(),
        };
        let tensors: Vec<&Inputs> = inputs.into_iter().collect();
        let answer = held.ask(&request, &tensors, pool.patience());
        let kind = self.place.runtime;
        let Answer::Loaded { session, left_out, cost } = answered(answer, kind, &self.model)?.0
        else {
            return Err(confused(kind, &self.model));
        };
        self.loaded = Some(Loaded { session, deaths: held.deaths });
        self.left_out = left_out;
        Ok(cost)
    }

    /// The number of the session, which is loaded again if need be.
    fn number(&mut self, held: &mut Held) -> Result<u64, RuntimeError> {
        let known = self.loaded.filter(|loaded| loaded.deaths == held.deaths);
        if known.is_none() {
            self.load_in(held, None)?;
        }
        let gone = || confused(self.place.runtime, &self.model);
        self.loaded.map(|loaded| loaded.session).ok_or_else(gone)
    }
}

impl Session for WorkerSession {
    fn run(&mut self, inputs: &Inputs) -> Result<Outputs, RuntimeError> {
        let seat = self.seat.clone();
        let mut held = seat.lock();
        let session = self.number(&mut held)?;
        let answer = held.ask(&Request::Run { session }, &[inputs], seat.0.pool.patience());
        Ok(answered(answer, self.place.runtime, &self.model)?.1.into_iter().collect())
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn seat(&self) -> Option<Seat> {
        Some(self.seat.clone())
    }

    fn remote<'s>(&'s mut self, inputs: &'s Inputs) -> Option<Remote<'s>> {
        Some(Remote { session: self, inputs })
    }
}

impl Drop for WorkerSession {
    fn drop(&mut self) {
        let mut held = self.seat.lock();
        if let Some(loaded) = self.loaded.filter(|loaded| loaded.deaths == held.deaths) {
            // A worker that does not survive this is of no use to others, and that is all.
            let _ = held.ask(&Request::Unload { session: loaded.session }, &[], LETTING_GO);
        }
    }
}

/// A session in a worker, and what it is to be timed on.
pub struct Remote<'a> {
    session: &'a mut WorkerSession,
    inputs: &'a Inputs,
}

/// Times sessions of one worker in turn, in that worker; none where they are in several.
pub(crate) fn time_together(
    sessions: &mut [Remote<'_>],
    rounds: &Rounds,
) -> Option<Result<Vec<Vec<f64>>, RuntimeError>> {
    let seat = sessions.first()?.session.seat.clone();
    let together = sessions.iter().all(|remote| Arc::ptr_eq(&remote.session.seat.0, &seat.0));
    together.then(|| time_in(&seat, sessions, rounds))
}

fn time_in(
    seat: &Seat,
    sessions: &mut [Remote<'_>],
    rounds: &Rounds,
) -> Result<Vec<Vec<f64>>, RuntimeError> {
    let mut held = seat.lock();
    let mut turns = Vec::new();
    for remote in &mut *sessions {
        let session = remote.session.number(&mut held)?;
        turns.push(Turn { session, tensors: remote.inputs.len() });
    }
    let inputs: Vec<&Inputs> = sessions.iter().map(|remote| remote.inputs).collect();
    let runs = rounds.fewest.max(1) * turns.len();
    let patience = seat.0.pool.patience().saturating_mul(u32::try_from(runs).unwrap_or(u32::MAX));
    let answer = held.ask(&Request::Time { turns, rounds: *rounds }, &inputs, patience);
    // The last one is the one that is new: the original is known to run.
    let Some(Remote { session, .. }) = sessions.last() else { return Ok(Vec::new()) };
    let kind = session.place.runtime;
    match answered(answer, kind, &session.model)?.0 {
        Answer::Timed { times } => Ok(times),
        _ => Err(confused(kind, &session.model)),
    }
}
