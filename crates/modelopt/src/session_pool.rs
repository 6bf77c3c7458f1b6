//! Runs of one model side by side, on the cores that one run leaves idle.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use modelopt_graph::Tensor;
use modelopt_runtime::{Outputs, RuntimeError, Session};

use crate::io_cast::IoCast;
use crate::target::Host;
use crate::trial_error::TrialError;

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
        host: &Host<'_>,
        path: PathBuf,
        casting: Option<IoCast>,
    ) -> Result<Self, TrialError> {
        let bytes = fs_err::metadata(&path).map_or(u64::MAX, |metadata| metadata.len());
        let most = if bytes > MOST_BYTES { 1 } else { host.idle_cores().clamp(1, MOST) };
        let mut pool =
            SessionPool { sessions: Vec::new(), path, casting, load: Duration::ZERO, most };
        let started = Instant::now();
        pool.add(host)?;
        pool.load = started.elapsed();
        Ok(pool)
    }

    fn add(&mut self, host: &Host<'_>) -> Result<(), TrialError> {
        let session = host.prepare(&self.path)?;
        self.sessions.push(match &self.casting {
            Some(casting) => Box::new(casting.clone().around(session)),
            None => session,
        });
        Ok(())
    }

    /// Runs the model `count` times and shows what comes out, in order.
    pub(crate) fn run(
        &mut self,
        host: &Host<'_>,
        count: usize,
        inputs: impl Fn(usize) -> IndexMap<String, Tensor> + Sync,
        see: &mut dyn FnMut(usize, &Outputs) -> Result<(), TrialError>,
    ) -> Result<(), TrialError> {
        let mut done = 0;
        while done < count {
            let started = Instant::now();
            let lanes = self.sessions.len().min(count - done);
            for outputs in self.abreast(lanes, |lane| inputs(done + lane))? {
                see(done, &outputs?)?;
                done += 1;
            }
            // What another lane would gain, against what it costs.
            let rest = started.elapsed() * (count - done) as u32 / lanes as u32;
            if lanes < self.most && rest / (lanes as u32 + 1) > self.load {
                self.add(host)?;
            }
        }
        Ok(())
    }

    /// One run in each of the first lanes.
    fn abreast(
        &mut self,
        lanes: usize,
        inputs: impl Fn(usize) -> IndexMap<String, Tensor> + Sync,
    ) -> Result<Vec<Result<Outputs, RuntimeError>>, TrialError> {
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
            let panicked = || TrialError::Crashed("the runtime panicked".to_owned());
            outputs.collect::<Result<_, _>>().map_err(|_| panicked())
        })
    }
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
