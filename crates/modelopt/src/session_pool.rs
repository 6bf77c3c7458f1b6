//! Runs of one model side by side, on the cores that one run leaves idle.
//!
//! ```text
//! lane 0   run 0 | run 2 | run 4 | ..       each lane has a copy of the model, and takes what is next
//! lane 1   load  | run 1 | run 3 | ..       as soon as it is done
//! here             see 0 | see 1 | see 2    in order, while lanes run
//! ```

mod queue;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use modelopt_graph::Tensor;
use modelopt_runtime::{Outputs, Session};

use crate::io_cast::IoCast;
use crate::target::Host;
use crate::trial_error::TrialError;
use queue::Queue;

/// More copies of a model than this are not loaded.
const MOST: usize = 4;

/// Copies of a model of more bytes than this are not loaded.
const MOST_BYTES: u64 = 512 << 20;

/// One model, loaded as often as that lets its runs end sooner.
pub(crate) struct SessionPool {
    sessions: Vec<Box<dyn Session>>,
    source: Source,
    /// How long it takes to load.
    load: Duration,
    most: usize,
}

/// What copies are loaded from.
struct Source {
    path: PathBuf,
    casting: Option<IoCast>,
}

impl Source {
    fn load(&self, host: &Host<'_>) -> Result<Box<dyn Session>, TrialError> {
        let session = host.prepare(&self.path)?;
        Ok(match &self.casting {
            Some(casting) => Box::new(casting.clone().around(session)),
            None => session,
        })
    }
}

/// The inputs of a run, by its number.
type Inputs<'a> = &'a (dyn Fn(usize) -> IndexMap<String, Tensor> + Sync);

/// What a lane tells.
enum Told {
    /// What came of a run, by its number, and how long it took.
    Ran(usize, Result<Outputs, TrialError>, Duration),
    /// Why it has no copy to run.
    NotLoaded(TrialError),
}

impl SessionPool {
    /// Loads a model that was made from one that runs. The file must stay where it is.
    pub(crate) fn new(
        host: &Host<'_>,
        path: PathBuf,
        casting: Option<IoCast>,
    ) -> Result<Self, TrialError> {
        let bytes = fs_err::metadata(&path).map_or(u64::MAX, |metadata| metadata.len());
        let most = if bytes > MOST_BYTES { 1 } else { host.idle_cores().clamp(1, MOST) };
        let source = Source { path, casting };
        let started = Instant::now();
        let sessions = vec![source.load(host)?];
        Ok(SessionPool { sessions, source, load: started.elapsed(), most })
    }

    /// Runs the model `count` times and shows what comes out, in order.
    pub(crate) fn run(
        &mut self,
        host: &Host<'_>,
        count: usize,
        inputs: impl Fn(usize) -> IndexMap<String, Tensor> + Sync,
        see: &mut dyn FnMut(usize, &Outputs) -> Result<(), TrialError>,
    ) -> Result<(), TrialError> {
        let sessions = std::mem::take(&mut self.sessions);
        let lanes = Lanes { source: &self.source, host, inputs: &inputs, queue: Queue::new(count) };
        let (told, sessions) = thread::scope(|scope| {
            let ending = lanes.queue.ending();
            let (tell, told) = channel();
            let mut heard = Heard { told, early: BTreeMap::new(), is_full: false };
            let mut running = Vec::new();
            let mut begin = |copy: Option<Box<dyn Session>>| {
                let (tell, lanes) = (tell.clone(), &lanes);
                lanes.queue.add_lane();
                running.push(scope.spawn(move || lanes.work(copy, &tell)));
            };
            for session in sessions {
                begin(Some(session));
            }
            // None is left of those that a panic went through. What is run here is alike, so others
            // need not wait for the first run to tell how long it takes.
            let queue = &lanes.queue;
            while queue.lanes() == 0 || self.gains(queue, host.took(), count) {
                begin(None);
            }
            let told = (0..count).try_for_each(|next| {
                let (outputs, took) = heard.in_turn(next, queue)?;
                see(next, &outputs)?;
                queue.saw();
                host.note_run(took);
                if !heard.is_full && self.gains(queue, took, count - next - 1) {
                    begin(None);
                }
                Ok(())
            });
            drop(ending);
            let sessions = running.into_iter().filter_map(|lane| lane.join().ok().flatten());
            (told, sessions.collect())
        });
        self.sessions = sessions;
        told
    }

    /// Whether another lane gains more than it costs to load its copy, where runs take so long and so
    /// many are not seen yet.
    fn gains(&self, queue: &Queue, took: Duration, unseen: usize) -> bool {
        let lanes = queue.lanes();
        let rest = took * unseen as u32 / lanes as u32;
        // Nor is one loaded for a run that somebody else has begun.
        lanes < self.most.min(queue.left()) && rest / (lanes as u32 + 1) > self.load
    }
}

/// What was heard from lanes.
struct Heard {
    told: Receiver<Told>,
    /// What came of runs before it is their turn.
    early: BTreeMap<usize, (Result<Outputs, TrialError>, Duration)>,
    /// Whether another copy could not be loaded.
    is_full: bool,
}

impl Heard {
    /// What came of a run, whatever runs end before it. A copy that could not be loaded is gone without,
    /// as long as there is another one.
    fn in_turn(&mut self, next: usize, queue: &Queue) -> Result<(Outputs, Duration), TrialError> {
        loop {
            if let Some((outputs, took)) = self.early.remove(&next) {
                return Ok((outputs?, took));
            }
            match self.told.recv() {
                Ok(Told::Ran(index, outputs, took)) => {
                    self.early.insert(index, (outputs, took));
                }
                Ok(Told::NotLoaded(error)) if queue.lanes() == 1 => return Err(error),
                Ok(Told::NotLoaded(error)) => {
                    tracing::debug!(%error, "no other copy of the model could be loaded");
                    queue.drop_lane();
                    self.is_full = true;
                }
                Err(_) => return Err(TrialError::Crashed("no copy of the model runs".to_owned())),
            }
        }
    }
}

/// What all lanes have in common.
struct Lanes<'a> {
    source: &'a Source,
    host: &'a Host<'a>,
    inputs: Inputs<'a>,
    queue: Queue,
}

impl Lanes<'_> {
    /// Runs what is next until nothing is left, with a copy of the model that is there or has to be
    /// loaded. Gives it back, unless it panicked.
    fn work(
        &self,
        copy: Option<Box<dyn Session>>,
        tell: &Sender<Told>,
    ) -> Option<Box<dyn Session>> {
        let load = || copy.map_or_else(|| self.source.load(self.host), Ok);
        // Who does not listen any more has heard of something else that went wrong.
        let mut session = guarded(load).map_err(|error| tell.send(Told::NotLoaded(error))).ok()?;
        while let Some(index) = self.queue.take() {
            let started = Instant::now();
            let mut run = || session.run(&(self.inputs)(index));
            let outputs = guarded(|| Ok(run()));
            let panicked = outputs.is_err();
            let outputs = outputs.and_then(|outputs| Ok(outputs?));
            if outputs.is_err() {
                self.queue.end();
            }
            if tell.send(Told::Ran(index, outputs, started.elapsed())).is_err() || panicked {
                return (!panicked).then_some(session);
            }
        }
        Some(session)
    }
}

/// A panic as an error: whoever waits for a lane has to hear of it.
fn guarded<T>(run: impl FnOnce() -> Result<T, TrialError>) -> Result<T, TrialError> {
    let panicked = |_| Err(TrialError::Crashed("the runtime panicked".to_owned()));
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(panicked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bed, Layer};

    #[test]
    fn runs_come_in_order_whatever_the_number_of_copies() {
        let bed = Bed::of(&[Layer::Even], 20.0);
        bed.prove(|prover| {
            let pool = SessionPool::new(prover.host, bed.path(), None);
            let mut seen = Vec::new();
            let inputs = |_: usize| prover.samples[0].inputs.clone();
            let mut see = |index: usize, outputs: &Outputs| {
                seen.push((index, outputs.len()));
                Ok(())
            };
            pool.unwrap().run(prover.host, 9, inputs, &mut see).unwrap();
            assert_eq!(seen, (0..9).map(|index| (index, 1)).collect::<Vec<_>>());
        });
    }

    #[test]
    fn a_file_that_is_no_model_is_refused() {
        let bed = Bed::of(&[Layer::Even], 20.0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.onnx");
        std::fs::write(&path, b"not a model").unwrap();
        bed.prove(|prover| {
            let refused = SessionPool::new(prover.host, path.clone(), None).err().unwrap();
            let why = refused.of_plan().unwrap();
            assert!(why.contains("not a valid ONNX file"), "{why}");
        });
    }

    #[test]
    fn a_run_that_fails_ends_the_others() {
        let bed = Bed::of(&[Layer::Even], 20.0);
        bed.prove(|prover| {
            let mut pool = SessionPool::new(prover.host, bed.path(), None).unwrap();
            let none = |_: usize| IndexMap::new();
            let failed = pool.run(prover.host, 3, none, &mut |_, _| Ok(()));
            assert!(matches!(failed, Err(TrialError::Refused(_))), "{failed:?}");
            let inputs = |_: usize| prover.samples[0].inputs.clone();
            let mut see = |_: usize, _: &Outputs| Err("seen enough".to_owned().into());
            let ended = pool.run(prover.host, 3, inputs, &mut see).unwrap_err();
            assert_eq!(ended.to_string(), "seen enough");
        });
    }
}

#[cfg(test)]
mod planted;
