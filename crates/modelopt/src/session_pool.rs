//! Runs of one model side by side, on the cores that one run leaves idle.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use modelopt_graph::Tensor;
use modelopt_runtime::{Outputs, RuntimeError, Session};

use crate::io_cast::IoCast;
use crate::target::Place;

/// More copies of a model than this are not loaded.
const MOST: usize = 4;

/// Copies of a model of more bytes than this are not loaded.
const MOST_BYTES: u64 = 512 << 20;

/// One model, loaded as often as that lets its runs end sooner.
pub(crate) struct SessionPool {
    sessions: Vec<Box<dyn Session>>,
    path: PathBuf,
    casting: Option<IoCast>,
    /// How long it takes to load.
    load: Duration,
    most: usize,
}

impl SessionPool {
    /// Loads a model that was made from one that runs. The file must stay where it is.
    pub(crate) fn new(
        place: &Place<'_>,
        path: PathBuf,
        casting: Option<IoCast>,
    ) -> Result<Self, String> {
        let bytes = fs_err::metadata(&path).map_or(u64::MAX, |metadata| metadata.len());
        let most = if bytes > MOST_BYTES { 1 } else { place.idle_cores().clamp(1, MOST) };
        let mut pool =
            SessionPool { sessions: Vec::new(), path, casting, load: Duration::ZERO, most };
        let started = Instant::now();
        pool.add(place)?;
        pool.load = started.elapsed();
        Ok(pool)
    }

    fn add(&mut self, place: &Place<'_>) -> Result<(), String> {
        let session = place.prepare(&self.path).map_err(|error| error.without_path())?;
        self.sessions.push(match &self.casting {
            Some(casting) => Box::new(casting.clone().around(session)),
            None => session,
        });
        Ok(())
    }

    /// Runs the model `count` times and shows what comes out, in order.
    pub(crate) fn run(
        &mut self,
        place: &Place<'_>,
        count: usize,
        inputs: impl Fn(usize) -> IndexMap<String, Tensor> + Sync,
        see: &mut dyn FnMut(usize, &Outputs) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut done = 0;
        while done < count {
            let started = Instant::now();
            let lanes = self.sessions.len().min(count - done);
            for outputs in self.abreast(lanes, |lane| inputs(done + lane))? {
                see(done, &outputs.map_err(|error| error.without_path())?)?;
                done += 1;
            }
            // What another lane would gain, against what it costs.
            let rest = started.elapsed() * (count - done) as u32 / lanes as u32;
            if lanes < self.most && rest / (lanes as u32 + 1) > self.load {
                self.add(place)?;
            }
        }
        Ok(())
    }

    /// One run in each of the first lanes.
    fn abreast(
        &mut self,
        lanes: usize,
        inputs: impl Fn(usize) -> IndexMap<String, Tensor> + Sync,
    ) -> Result<Vec<Result<Outputs, RuntimeError>>, String> {
        let inputs = &inputs;
        std::thread::scope(|scope| {
            let runs: Vec<_> = self
                .sessions
                .iter_mut()
                .take(lanes)
                .enumerate()
                .map(|(lane, session)| scope.spawn(move || session.run(&inputs(lane))))
                .collect();
            let outputs = runs.into_iter().map(std::thread::ScopedJoinHandle::join);
            outputs.collect::<Result<_, _>>().map_err(|_| "the runtime panicked".to_owned())
        })
    }
}
