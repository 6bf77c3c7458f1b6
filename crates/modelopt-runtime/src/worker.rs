//! Tries a model in a process of its own.
//!
//! Runtimes can abort, fault or eat all memory on a hostile model, and take the process with them.
//! So a child tries first: it loads the model, runs it once and answers how long that took and how
//! much memory it held. Only a model that the child survives is loaded here.
//!
//! The child is any program that calls [`serve`] with the arguments that [`Worker`] gives it;
//! the job comes as one line of JSON and raw tensors on stdin, the answer is JSON on stdout.

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use indexmap::IndexMap;
use modelopt_graph::{DataType, Payload, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::said_of;
use crate::{RuntimeError, RuntimeKind, SessionOptions, Stage, runtime};

/// Stands for no model among the arguments.
const NO_MODEL: &str = "-";

/// A program that calls [`serve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; the paths of the model and the library follow.
    pub arguments: Vec<String>,
    /// How long it may take.
    pub patience: Duration,
}

/// What a child is to try.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// Which runtime.
    pub runtime: RuntimeKind,
    /// The file of ONNX Runtime, for that runtime.
    pub library: Option<&'a Path>,
    /// The model; without one, only the runtime itself is loaded.
    pub model: Option<&'a Path>,
    /// How to run it.
    pub options: &'a SessionOptions,
    /// What to run it on; nothing runs if there is none.
    pub inputs: Option<&'a IndexMap<String, Tensor>>,
}

/// What a child found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// From opening the file to a session that is ready, in milliseconds.
    pub load_ms: f64,
    /// Most memory that was resident, less what the process held before, in bytes; none where the
    /// system does not tell.
    pub peak_bytes: Option<u64>,
    /// One run, the first, in milliseconds; none if nothing was run.
    pub run_ms: Option<f64>,
}

/// The line before the tensors.
#[derive(Serialize, Deserialize)]
struct Job {
    runtime: RuntimeKind,
    options: SessionOptions,
    inputs: Option<Vec<Input>>,
}

#[derive(Serialize, Deserialize)]
struct Input {
    name: String,
    dtype: i32,
    shape: Vec<usize>,
    /// Elements that are not of fixed size.
    strings: Option<Vec<Vec<u8>>>,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Ran(Cost),
    Load(String),
    Run(String),
    /// Something that trying again in the parent tells better.
    Other,
}

impl Worker {
    /// Loads and runs a model in a child. None where the child says that it failed for a reason
    /// that is safe to see for oneself.
    pub fn attempt(&self, trial: &Trial<'_>) -> Result<Option<Cost>, RuntimeError> {
        let name = trial.runtime.name();
        let died = |message: String| RuntimeError::Died {
            runtime: name,
            path: trial.subject().to_owned(),
            message: said_of(trial.subject(), &message),
        };
        let mut child = self.start(trial).map_err(|error| died(error.to_string()))?;
        // Both are read while the child runs: a runtime may say more than a pipe holds.
        let errors = child.stderr.take().map(listen);
        let answers = child.stdout.take().map(listen);
        let job = child.stdin.take().map_or(Ok(()), |mut to| trial.send(&mut to));
        let status = self.wait(&mut child).map_err(|error| died(error.to_string()))?;
        let heard = |listener: Option<JoinHandle<Vec<u8>>>| {
            listener.and_then(|listener| listener.join().ok()).unwrap_or_default()
        };
        let (said, answer) = (heard(errors), heard(answers));
        let Some(status) = status else {
            let seconds = self.patience.as_secs();
            return Err(died(format!("it was not done after {seconds} s")));
        };
        let answer = String::from_utf8_lossy(&answer);
        let answer = answer.lines().last().unwrap_or_default();
        match serde_json::from_str(answer) {
            Ok(Answer::Ran(cost)) => Ok(Some(cost)),
            Ok(Answer::Load(message)) => Err(RuntimeError::load(name, trial.subject(), message)),
            Ok(Answer::Run(message)) => Err(RuntimeError::run(name, trial.subject(), message)),
            Ok(Answer::Other) => Ok(None),
            Err(_) => {
                let said = String::from_utf8_lossy(&said);
                let last = said.lines().rev().find(|line| !line.trim().is_empty());
                let said = last.map(|line| format!(", after '{}'", line.trim()));
                let sent = job.err().map(|error| format!(" ({error})"));
                let (said, sent) = (said.unwrap_or_default(), sent.unwrap_or_default());
                Err(died(format!("the process that tried it ended by {status}{said}{sent}")))
            }
        }
    }

    fn start(&self, trial: &Trial<'_>) -> io::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .arg(trial.model.unwrap_or(Path::new(NO_MODEL)))
            .args(trial.library)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }

    /// The child's end; none if it took too long and was killed.
    fn wait(&self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if started.elapsed() > self.patience {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Reads to the end in a thread of its own.
fn listen(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut heard = Vec::new();
        let _ = from.read_to_end(&mut heard);
        heard
    })
}

impl Trial<'_> {
    /// What the child may not survive.
    fn subject(&self) -> &Path {
        self.model.or(self.library).unwrap_or(Path::new(NO_MODEL))
    }

    fn send(&self, to: &mut impl Write) -> io::Result<()> {
        let describe = |(name, tensor): (&String, &Tensor)| Input {
            name: name.clone(),
            dtype: tensor.dtype().number(),
            shape: tensor.shape().to_vec(),
            strings: match tensor.payload() {
                Payload::Strings(strings) => Some(strings.iter().map(|s| s.to_vec()).collect()),
                Payload::Dense(_) | Payload::Rounded(_) => None,
            },
        };
        let job = Job {
            runtime: self.runtime,
            options: self.options.clone(),
            inputs: self.inputs.map(|inputs| inputs.iter().map(describe).collect()),
        };
        serde_json::to_writer(&mut *to, &job)?;
        to.write_all(b"\n")?;
        for tensor in self.inputs.iter().flat_map(|inputs| inputs.values()) {
            if let Some(bytes) = tensor.bytes() {
                to.write_all(bytes)?;
            }
        }
        to.flush()
    }
}

/// Does one job: what the child's program calls, with the paths it was given.
pub fn serve(
    model: &Path,
    library: Option<&Path>,
    from: &mut impl BufRead,
    to: &mut impl Write,
) -> io::Result<()> {
    limit_memory();
    let mut line = String::new();
    from.read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line)?;
    let inputs = job.inputs.map(|inputs| receive(inputs, from)).transpose()?;
    let trial = Trial {
        runtime: job.runtime,
        library,
        model: (model != Path::new(NO_MODEL)).then_some(model),
        options: &job.options,
        inputs: inputs.as_ref(),
    };
    let answer = match attempt_here(&trial) {
        Ok(cost) => Answer::Ran(cost),
        Err(
            RuntimeError::Load { message, .. }
            | RuntimeError::Panicked { stage: Stage::Loading, message, .. },
        ) => Answer::Load(message),
        Err(
            RuntimeError::Run { message, .. }
            | RuntimeError::Panicked { stage: Stage::Running, message, .. },
        ) => Answer::Run(message),
        Err(_) => Answer::Other,
    };
    // On a line of its own: runtimes may have written to the same place.
    to.write_all(b"\n")?;
    serde_json::to_writer(&mut *to, &answer)?;
    to.flush()
}

fn receive(described: Vec<Input>, from: &mut impl BufRead) -> io::Result<IndexMap<String, Tensor>> {
    let mut inputs = IndexMap::new();
    for input in described {
        let dtype = DataType::from_number(input.dtype);
        let count = modelopt_graph::element_count(&input.shape).unwrap_or(0);
        let payload = if let Some(strings) = input.strings {
            Payload::Strings(strings.into_iter().map(Bytes::from).collect())
        } else {
            let mut bytes = vec![0; dtype.byte_len(count).unwrap_or(0)];
            from.read_exact(&mut bytes)?;
            Payload::Dense(Bytes::from(bytes))
        };
        let tensor = Tensor::new(dtype, input.shape, payload).map_err(io::Error::other)?;
        inputs.insert(input.name, tensor);
    }
    Ok(inputs)
}

fn attempt_here(trial: &Trial<'_>) -> Result<Cost, RuntimeError> {
    let runtime = runtime(trial.runtime, trial.library)?;
    let Some(model) = trial.model else {
        return Ok(Cost { load_ms: 0.0, peak_bytes: None, run_ms: None });
    };
    let before = memory("VmRSS:");
    let started = Instant::now();
    let mut session = runtime.prepare(model, trial.options)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let started = Instant::now();
    if let Some(inputs) = trial.inputs {
        session.run(inputs)?;
    }
    let run_ms = trial.inputs.map(|_| started.elapsed().as_secs_f64() * 1e3);
    let peak = memory("VmHWM:");
    let peak_bytes = before.zip(peak).map(|(before, peak)| peak.saturating_sub(before));
    // What a runtime does when it lets go of a model is not the model's cost.
    std::mem::forget(session);
    Ok(Cost { load_ms, peak_bytes, run_ms })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> IndexMap<String, Tensor> {
        let strings = Payload::Strings(vec![Bytes::from("a"), Bytes::from("\u{e9}")]);
        [
            ("x".to_owned(), Tensor::of(vec![2, 1], &[1.5f32, -2.0]).unwrap()),
            ("s".to_owned(), Tensor::new(DataType::STRING, vec![2], strings).unwrap()),
            ("empty".to_owned(), Tensor::of(vec![0], &[] as &[i64]).unwrap()),
            ("n".to_owned(), Tensor::scalar(7i64)),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn a_job_arrives_as_it_was_sent() {
        let inputs = inputs();
        let options = SessionOptions { threads: 3, ..SessionOptions::default() };
        let trial = Trial {
            runtime: RuntimeKind::Rten,
            library: None,
            model: Some(Path::new("m.onnx")),
            options: &options,
            inputs: Some(&inputs),
        };
        let mut sent = Vec::new();
        trial.send(&mut sent).unwrap();
        let mut from = sent.as_slice();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        let job: Job = serde_json::from_str(&line).unwrap();
        assert_eq!((job.runtime, &job.options), (RuntimeKind::Rten, &options));
        assert_eq!(receive(job.inputs.unwrap(), &mut from).unwrap(), inputs);
        assert!(from.is_empty());
    }

    #[cfg(unix)]
    fn attempt(script: &str, patience: Duration) -> String {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        let worker = Worker { program: "/bin/sh".into(), arguments, patience };
        let options = SessionOptions::default();
        let trial = Trial {
            runtime: RuntimeKind::Tract,
            library: None,
            model: Some(Path::new("m.onnx")),
            options: &options,
            inputs: None,
        };
        worker.attempt(&trial).unwrap_err().to_string()
    }

    #[test]
    #[cfg(unix)]
    fn how_a_child_ended_is_told() {
        let patient = Duration::from_secs(20);
        let error = attempt("echo stack overflow >&2; kill -ABRT $$", patient);
        assert!(error.starts_with("tract does not survive m.onnx: "), "{error}");
        assert!(error.contains("SIGABRT") && error.contains("'stack overflow'"), "{error}");
        let error = attempt("exec sleep 60", Duration::from_millis(50));
        assert!(error.contains("not done after 0 s"), "{error}");
        let chatty = r#"cat >/dev/null; yes chatter | head -c 300000; echo '{"Run":"no"}'"#;
        assert_eq!(attempt(chatty, patient), "tract cannot run m.onnx: no");
        let error = attempt(r#"cat >/dev/null; echo '{"Load":"no such operator"}'"#, patient);
        assert_eq!(error, "tract cannot load m.onnx: no such operator");
    }
}
