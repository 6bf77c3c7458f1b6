//! What a worker does.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use indexmap::IndexMap;
use modelopt_graph::Tensor;

use super::Cost;
use super::protocol::{self, Answer, Failure, Place, Request, Turn};
use crate::timing::{self, Timed};
use crate::{Outputs, Rounds, Runtime, RuntimeKind, Session, SessionOptions, runtime};

/// A request with its tensors.
type Asked = (Request, Vec<(String, Tensor)>);

/// Answers requests until whoever started this process is gone: what a worker program calls. It
/// ends the process then, whatever a runtime is doing.
///
/// # Errors
/// If standard input is no socket of a [`WorkerPool`](super::WorkerPool).
#[cfg(unix)]
pub fn serve() -> io::Result<()> {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    limit_memory();
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Tells a socket from anything else.
    socket.local_addr()?;
    serve_on(&socket, end)
}

/// Workers need Unix sockets.
///
/// # Errors
/// Always.
#[cfg(not(unix))]
pub fn serve() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Ends this process at once: runtimes have threads and exit handlers that may hang.
#[cfg(unix)]
fn end() {
    use nix::sys::signal::{Signal, kill};
    let _ = kill(nix::unistd::Pid::this(), Signal::SIGKILL);
    std::process::abort();
}

#[cfg(unix)]
fn serve_on(socket: &std::os::unix::net::UnixStream, at_end: fn()) -> io::Result<()> {
    let (requests, asked) = mpsc::channel();
    let mut from = socket.try_clone()?;
    // Requests are read by a thread of their own, so that the end is seen in the middle of a run.
    std::thread::spawn(move || {
        while let Ok(request) = protocol::receive::<Request>(&mut from) {
            if requests.send(request).is_err() {
                break;
            }
        }
        at_end();
    });
    let mut to = socket;
    answer_all(&asked, |answer, outputs| {
        let tensors = outputs.as_ref();
        protocol::send(&mut to, answer, &tensors.into_iter().collect::<Vec<_>>())
    })
}

fn answer_all(
    asked: &Receiver<Asked>,
    mut send: impl FnMut(&Answer, Option<Outputs>) -> io::Result<()>,
) -> io::Result<()> {
    let mut worker = Worker::default();
    while let Ok((request, tensors)) = asked.recv() {
        let (answer, outputs) = worker.answer(request, tensors);
        send(&answer, outputs)?;
    }
    Ok(())
}

/// What a worker holds.
#[derive(Default)]
struct Worker {
    runtimes: Vec<(Place, Box<dyn Runtime>)>,
    sessions: HashMap<u64, Box<dyn Session>>,
    /// The number of the next session.
    next: u64,
}

impl Worker {
    fn answer(
        &mut self,
        request: Request,
        tensors: Vec<(String, Tensor)>,
    ) -> (Answer, Option<Outputs>) {
        let answer = match request {
            Request::Open(place) => {
                self.runtime(&place).map(|runtime| Answer::Opened { version: runtime.version() })
            }
            Request::Load { place, model, options, runs } => {
                let inputs = runs.then(|| tensors.into_iter().collect());
                self.load(&place, &model.to_path(), &options, inputs.as_ref())
            }
            Request::Run { session } => match self.run(session, &tensors.into_iter().collect()) {
                Ok(outputs) => return (Answer::Ran, Some(outputs)),
                Err(error) => Err(error),
            },
            Request::Time { turns, rounds } => {
                self.time(&turns, tensors, &rounds).map(|times| Answer::Timed { times })
            }
            Request::Unload { session } => {
                self.sessions.remove(&session);
                Ok(Answer::Unloaded)
            }
        };
        (answer.unwrap_or_else(Answer::Failed), None)
    }

    fn runtime(&mut self, place: &Place) -> Result<&dyn Runtime, Failure> {
        let known = self.runtimes.iter().position(|(known, _)| known == place);
        let at = known.unwrap_or(self.runtimes.len());
        if known.is_none() {
            let library = place.library.as_ref().map(protocol::OsPath::to_path);
            let kind: RuntimeKind = place.runtime.parse()?;
            let opened = runtime(kind, library.as_deref())?;
            self.runtimes.push((place.clone(), opened));
        }
        let opened = self.runtimes.get(at).map(|(_, runtime)| runtime.as_ref());
        opened.ok_or(Failure::NotBuilt)
    }

    fn load(
        &mut self,
        place: &Place,
        model: &Path,
        options: &SessionOptions,
        inputs: Option<&IndexMap<String, Tensor>>,
    ) -> Result<Answer, Failure> {
        let is_fresh = self.next == 0;
        let runtime = self.runtime(place)?;
        let before = memory("VmRSS:");
        let started = Instant::now();
        let mut session = runtime.prepare(model, options)?;
        let load_ms = started.elapsed().as_secs_f64() * 1e3;
        let started = Instant::now();
        if let Some(inputs) = inputs {
            session.run(inputs)?;
        }
        let run_ms = inputs.map(|_| started.elapsed().as_secs_f64() * 1e3);
        // What other models left behind would be counted in, or out.
        let peak = memory("VmHWM:").filter(|_| is_fresh);
        let peak_bytes = before.zip(peak).map(|(before, peak)| peak.saturating_sub(before));
        let left_out = session.left_out().to_vec();
        let number = self.next;
        self.next += 1;
        self.sessions.insert(number, session);
        Ok(Answer::Loaded { session: number, left_out, cost: Cost { load_ms, peak_bytes, run_ms } })
    }

    fn run(&mut self, session: u64, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, Failure> {
        Ok(self.sessions.get_mut(&session).ok_or(Failure::NoSession)?.run(inputs)?)
    }

    fn time(
        &mut self,
        turns: &[Turn],
        tensors: Vec<(String, Tensor)>,
        rounds: &Rounds,
    ) -> Result<Vec<Vec<f64>>, Failure> {
        let mut tensors = tensors.into_iter();
        let inputs: Vec<IndexMap<String, Tensor>> =
            turns.iter().map(|turn| tensors.by_ref().take(turn.tensors).collect()).collect();
        // Taken out, because several are held at a time.
        let mut held = Vec::new();
        for turn in turns {
            held.push((
                turn.session,
                self.sessions.remove(&turn.session).ok_or(Failure::NoSession)?,
            ));
        }
        let mut timed: Vec<Timed<'_>> = held
            .iter_mut()
            .zip(&inputs)
            .map(|((_, session), inputs)| Timed { session: session.as_mut(), inputs })
            .collect();
        let times = timing::time_in_turn(&mut timed, rounds);
        self.sessions.extend(held);
        Ok(times?)
    }
}

/// A figure of `/proc/self/status`, in bytes.
fn memory(key: &str) -> Option<u64> {
    kilobytes(Path::new("/proc/self/status"), key)
}

fn kilobytes(file: &Path, key: &str) -> Option<u64> {
    let text = fs_err::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

/// A model may not make the whole machine swap.
fn limit_memory() {
    #[cfg(target_os = "linux")]
    if let Some(total) = kilobytes(Path::new("/proc/meminfo"), "MemTotal:") {
        let most = total / 10 * 9;
        if let Ok((_, hard)) = rlimit::getrlimit(rlimit::Resource::DATA)
            && rlimit::setrlimit(rlimit::Resource::DATA, most.min(hard), hard).is_err()
        {
            tracing::warn!("memory could not be limited");
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A worker in a thread, and what it is asked through.
    fn worker() -> (UnixStream, std::thread::JoinHandle<io::Result<()>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, std::thread::spawn(move || serve_on(&theirs, || ())))
    }

    fn ask(socket: &mut UnixStream, request: &Request) -> Answer {
        protocol::send(socket, request, &[]).unwrap();
        protocol::receive(socket).unwrap().0
    }

    #[test]
    fn what_is_not_there_is_a_failure_and_not_the_end() {
        let (mut socket, worker) = worker();
        let answer = ask(&mut socket, &Request::Run { session: 7 });
        assert!(matches!(answer, Answer::Failed(Failure::NoSession)), "{answer:?}");
        for runtime in crate::RuntimeKind::embedded() {
            let place = Place::new(runtime.name(), None);
            let answer = ask(&mut socket, &Request::Open(place.clone()));
            assert!(matches!(answer, Answer::Opened { version } if version.starts_with("0.")));
            let model = protocol::OsPath::new(Path::new("nowhere.onnx"));
            let options = SessionOptions::default();
            let answer = ask(&mut socket, &Request::Load { place, model, options, runs: false });
            assert!(matches!(answer, Answer::Failed(Failure::Model(_))), "{answer:?}");
        }
        let turns = vec![Turn { session: 3, tensors: 0 }];
        let answer = ask(&mut socket, &Request::Time { turns, rounds: Rounds::exactly(1) });
        assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
        assert!(matches!(ask(&mut socket, &Request::Unload { session: 3 }), Answer::Unloaded));
        drop(socket);
        worker.join().unwrap().unwrap();
    }

    #[test]
    fn figures_of_the_system_are_read_in_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("status");
        fs_err::write(&file, "VmPeak:\t  100 kB\nVmHWM:\t   12 kB\n").unwrap();
        assert_eq!(kilobytes(&file, "VmHWM:"), Some(12 * 1024));
        assert_eq!(kilobytes(&file, "VmRSS:"), None);
    }
}
