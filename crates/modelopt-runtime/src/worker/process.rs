//! One worker process, as its parent sees it.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use modelopt_graph::Tensor;

use super::protocol::{self, Answer, Request};
use crate::End;
use crate::error::one_line;

#[cfg(unix)]
type Socket = std::os::unix::net::UnixStream;

/// Nobody makes one where there are no such sockets.
#[cfg(not(unix))]
type Socket = std::net::TcpStream;

/// How long a process whose socket is closed may still take to end.
const LINGER: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// The process ended, or had to be ended.
    Died(End),
    /// The answer is there, but not enough memory for it.
    NoMemory,
}

/// A process that answers requests, one at a time. It is ended when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    socket: Socket,
    /// The last line that it wrote to stderr.
    said: Arc<Mutex<String>>,
    /// Tells when all was heard that it wrote there.
    heard: Option<Receiver<()>>,
    /// The library that it has loaded; there can be but one.
    pub(super) library: Option<PathBuf>,
    /// How many models it has loaded.
    pub(super) models: usize,
}

impl Process {
    /// Starts a worker.
    #[cfg(unix)]
    pub(super) fn start(program: &Path, arguments: &[String]) -> io::Result<Self> {
        use std::os::fd::OwnedFd;
        use std::os::unix::process::CommandExt;

        let (socket, theirs) = Socket::pair()?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
        // Runtimes print what they like there.
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C is for the parent, which may want to end in order.
        command.process_group(0);
        Ok(Process::new(command.spawn()?, socket))
    }

    #[cfg(not(unix))]
    pub(super) fn start(_: &Path, _: &[String]) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn new(mut child: Child, socket: Socket) -> Self {
        let said = Arc::new(Mutex::new(String::new()));
        let heard = child.stderr.take().map(|stderr| listen(stderr, Arc::clone(&said)));
        Process { child, socket, said, heard, library: None, models: 0 }
    }

    /// Whether it is there, as far as can be seen without asking.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Forgets what it said, which was of another model.
    pub(super) fn forget(&self) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Asks for something and waits for the answer. After an error it is of no more use.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        tensors: &[&IndexMap<String, Tensor>],
        patience: Duration,
    ) -> Result<(Answer, Vec<(String, Tensor)>), Broken> {
        // A time of zero would be none, and one that is out of range is longer than anybody waits.
        let _ = self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1))));
        let _ = self.socket.set_write_timeout(Some(patience.max(Duration::from_millis(1))));
        let answer = protocol::send(&mut self.socket, request, tensors)
            .and_then(|()| protocol::receive(&mut self.socket));
        answer.map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory => Broken::NoMemory,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                self.kill();
                Broken::Died(End::Late(patience))
            }
            io::ErrorKind::InvalidData => {
                self.kill();
                Broken::Died(End::Nonsense(error.to_string()))
            }
            _ => Broken::Died(self.last_words()),
        })
    }

    /// How it ended, after its socket was closed.
    fn last_words(&mut self) -> End {
        let status = self.end();
        let heard = self.heard.take().map(|heard| heard.recv_timeout(LINGER));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let said = (!said.is_empty() && heard.is_some()).then(|| one_line(&said));
        match status {
            Ok(status) => End::Exited { status, said },
            Err(cause) => End::Lost { cause: cause.to_string(), said },
        }
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < LINGER {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.child.kill()?;
        self.child.wait()
    }

    fn kill(&mut self) {
        // Both fail only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keeps the last line that is written, in a thread of its own: a runtime may say more than a pipe
/// holds.
fn listen(from: impl Read + Send + 'static, last: Arc<Mutex<String>>) -> Receiver<()> {
    let (all, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while matches!(from.read_until(b'\n', &mut line), Ok(length) if length > 0) {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim();
            // How to see more is not what happened.
            if !text.is_empty() && !text.starts_with("note: ") {
                text.clone_into(&mut last.lock().unwrap_or_else(PoisonError::into_inner));
            }
            line.clear();
        }
        // Nobody may be there any more to be told.
        let _ = all.send(());
    });
    heard
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn told(script: &str, patience: Duration) -> String {
        let arguments = ["-c".to_owned(), script.to_owned()];
        let mut process = Process::start(Path::new("/bin/sh"), &arguments).unwrap();
        match process.ask(&Request::Run { session: 0 }, &[], patience) {
            Err(Broken::Died(end)) => end.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn how_a_process_ended_is_told() {
        let patient = Duration::from_secs(20);
        let said = told(
            "head -c 4 >/dev/null; echo stack overflow >&2; echo note: see more >&2; kill -ABRT $$",
            patient,
        );
        assert!(said.starts_with("the process that tried it ended by signal: 6"), "{said}");
        assert!(said.ends_with("after 'stack overflow'"), "{said}");
        let said = told("yes chatter | head -c 300000 >&2; exit 7", patient);
        assert!(said.contains("exit status: 7, after 'chatter'"), "{said}");
        assert!(told("echo garbage >&0; exec sleep 60", patient).contains("nonsense"));
    }

    #[test]
    fn one_that_hangs_is_ended() {
        let started = Instant::now();
        let said = told("exec sleep 60", Duration::from_millis(50));
        assert_eq!(said, "it was not done after 0 s");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_program_that_is_missing_cannot_be_started() {
        let error = Process::start(Path::new("/nowhere/worker"), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
