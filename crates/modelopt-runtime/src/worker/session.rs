//! Models in workers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use modelopt_graph::Tensor;

use super::Cost;
use super::protocol::{Answer, OsPath, Place, Request, Turn};
use super::seat::{About, Held, Inputs, Seat};
use crate::{End, LeftOut, Rounds, RuntimeError, SessionOptions};

/// How long letting go of a model may take before its worker is given up.
const LETTING_GO: Duration = Duration::from_secs(10);

/// A model that is loaded in a worker. Where another model took that down, it is loaded again.
pub(crate) struct WorkerSession {
    seat: Seat,
    runtime: &'static str,
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
    /// A model that is not loaded yet.
    pub(super) fn new(
        seat: Seat,
        runtime: &'static str,
        library: Option<&Path>,
        model: &Path,
        options: &SessionOptions,
    ) -> Self {
        WorkerSession {
            seat,
            runtime,
            place: Place::new(runtime, library),
            model: model.to_owned(),
            options: options.clone(),
            loaded: None,
            left_out: Vec::new(),
        }
    }

    pub(super) fn seat(&self) -> &Seat {
        &self.seat
    }

    pub(super) fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn about(&self) -> About<'_> {
        About { runtime: self.runtime, file: &self.model }
    }

    /// Loads it, and runs it once if there are inputs.
    pub(super) fn load(&mut self, inputs: Option<&Inputs>) -> Result<Cost, RuntimeError> {
        let seat = self.seat.clone();
        self.load_in(&mut seat.lock(), inputs)
    }

    fn load_in(&mut self, held: &mut Held, inputs: Option<&Inputs>) -> Result<Cost, RuntimeError> {
        held.make_ready(&self.seat)?;
        // A worker stays where it was started.
        let model = std::path::absolute(&self.model).unwrap_or_else(|_| self.model.clone());
        let request = Request::Load {
            place: self.place.clone(),
            model: OsPath::new(&model),
            options: self.options.clone(),
            runs: inputs.is_some(),
        };
        let tensors: Vec<&Inputs> = inputs.into_iter().collect();
        let answer = held.ask(self.about(), &request, &tensors, self.seat.patience())?.0;
        let Answer::Loaded { session, left_out, cost } = answer else {
            return Err(self.about().died(End::Confused));
        };
        self.loaded = Some(Loaded { session, deaths: held.deaths() });
        self.left_out = left_out;
        Ok(cost)
    }

    /// The number of the session, which is loaded again if need be.
    fn number(&mut self, held: &mut Held) -> Result<u64, RuntimeError> {
        if self.alive(held).is_none() {
            self.load_in(held, None)?;
        }
        self.alive(held).ok_or_else(|| self.about().died(End::Gone))
    }

    /// The number of the session, if the worker that it was loaded in is still there.
    fn alive(&self, held: &Held) -> Option<u64> {
        let loaded = self.loaded.filter(|loaded| loaded.deaths == held.deaths());
        loaded.map(|loaded| loaded.session)
    }

    /// Its outputs.
    pub(super) fn run(&mut self, inputs: &Inputs) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let seat = self.seat.clone();
        let mut held = seat.lock();
        let request = Request::Run { session: self.number(&mut held)? };
        Ok(held.ask(self.about(), &request, &[inputs], seat.patience())?.1)
    }
}

impl Drop for WorkerSession {
    fn drop(&mut self) {
        let mut held = self.seat.lock();
        if let Some(session) = self.alive(&held) {
            // A worker that does not survive this is of no use to others, and that is all.
            let _ = held.ask(self.about(), &Request::Unload { session }, &[], LETTING_GO);
        }
    }
}

/// A session in a worker, and what it is to be timed on.
pub struct Remote<'a> {
    pub(super) session: &'a mut WorkerSession,
    pub(super) inputs: &'a Inputs,
}

/// Times sessions of one worker in turn, in that worker; none where they are in several.
pub(crate) fn time_together(
    sessions: &mut [Remote<'_>],
    rounds: &Rounds,
) -> Option<Result<Vec<Vec<f64>>, RuntimeError>> {
    let seat = sessions.first()?.session.seat.clone();
    let together = sessions.iter().all(|remote| remote.session.seat.is(&seat));
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
    // The last one is the one that is new: the original is known to run.
    let Some(about) = sessions.last().map(|remote| remote.session.about()) else {
        return Ok(Vec::new());
    };
    let inputs: Vec<&Inputs> = sessions.iter().map(|remote| remote.inputs).collect();
    let runs = rounds.fewest.max(1) * turns.len();
    let patience = seat.patience().saturating_mul(u32::try_from(runs).unwrap_or(u32::MAX));
    match held.ask(about, &Request::Time { turns, rounds: *rounds }, &inputs, patience)?.0 {
        Answer::Timed { times } => Ok(times),
        _ => Err(about.died(End::Confused)),
    }
}
