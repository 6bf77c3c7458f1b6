//! What can go wrong when running models.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::LeftOut;

/// Longest message of a runtime that is passed on, in bytes; some print the whole model.
const LONGEST: usize = 600;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No runtime has this name.
    #[error("no runtime is called '{name}'; there are {}", and(known))]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<&'static str>,
    },
    /// The runtime is behind a feature that this build leaves out.
    #[error("{runtime} is not part of this build; build modelopt with the feature `{runtime}`")]
    NotBuilt {
        /// Runtime.
        runtime: &'static str,
    },
    /// No library of ONNX Runtime was found.
    #[error("no library of ONNX Runtime was found")]
    NoLibrary,
    /// A library is no usable ONNX Runtime.
    #[error("cannot load ONNX Runtime from {}: {message}", path.display())]
    Library {
        /// Library.
        path: PathBuf,
        /// What is wrong with it, on one line.
        message: String,
    },
    /// The runtime cannot compute where it is asked to.
    #[error("{runtime} has no execution provider '{provider}': {problem}")]
    Provider {
        /// Runtime.
        runtime: &'static str,
        /// What was asked for.
        provider: String,
        /// Why not.
        problem: ProviderProblem,
    },
    /// The program that runs models in processes of its own cannot be started.
    #[error("cannot start {} to run models in: {cause}", program.display())]
    NoWorker {
        /// The program.
        program: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// There is not enough memory to take what a model gives.
    #[error("there is not enough memory for the outputs of the model")]
    NoMemory,
    /// A model that is to be run in place of another cannot be written.
    #[error(transparent)]
    Unwritten(Box<dyn std::error::Error + Send + Sync>),
    /// A worker did not survive the model.
    #[error("{runtime} does not survive {}: {end}", path.display())]
    Died {
        /// Runtime.
        runtime: &'static str,
        /// Model file, or the library.
        path: PathBuf,
        /// How it ended.
        end: End,
    },
    /// The model's inputs and outputs could not be read.
    #[error(transparent)]
    Model(#[from] modelopt_onnx::Error),
    /// The runtime refused the file.
    #[error("{runtime} cannot load {}: {message}", path.display())]
    Load {
        /// Runtime.
        runtime: &'static str,
        /// Model file.
        path: PathBuf,
        /// What it said, on one line.
        message: String,
    },
    /// The model did not run on these inputs.
    #[error("{runtime} cannot run {}: {message}", path.display())]
    Run {
        /// Runtime.
        runtime: &'static str,
        /// Model file.
        path: PathBuf,
        /// What it said, on one line.
        message: String,
    },
    /// The runtime panicked.
    #[error("{runtime} panicked while {stage} {}: {message}", path.display())]
    Panicked {
        /// Runtime.
        runtime: &'static str,
        /// What it was doing.
        stage: Stage,
        /// Model file.
        path: PathBuf,
        /// What it said, on one line.
        message: String,
    },
    /// The sample has no value for an input of the model.
    #[error("no value for input '{input}'; the sample has {}", list(given))]
    MissingInput {
        /// Input of the model.
        input: String,
        /// Names the sample has.
        given: Vec<String>,
    },
    /// The value for an input has another element type or shape than the model declares.
    #[error("input '{input}' must be {expected}, but the sample has {actual}")]
    Mismatch {
        /// Input of the model.
        input: String,
        /// Type as declared.
        expected: String,
        /// Type of the value.
        actual: String,
    },
    /// An integer does not fit the type in which the runtime computes.
    #[error(
        "{runtime} computes integers in 32 bits, and {value} in '{name}' does not fit; \
         try another runtime"
    )]
    Range {
        /// Runtime.
        runtime: &'static str,
        /// Input or output.
        name: String,
        /// The number.
        value: String,
    },
    /// The runtime can return none of the model's outputs.
    #[error("{runtime} can return none of the outputs: {}", commas(outputs))]
    NothingReturned {
        /// Runtime.
        runtime: &'static str,
        /// The outputs with their types.
        outputs: Vec<LeftOut>,
    },
    /// The runtime has no notion of something the model needs.
    #[error("{runtime} does not support {what}; try another runtime")]
    Unsupported {
        /// Runtime.
        runtime: &'static str,
        /// What it lacks.
        what: String,
    },
}

/// Why a runtime cannot compute where it is asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ProviderProblem {
    /// It computes on the processor and nowhere else.
    #[error("it computes on the cpu only")]
    OnlyCpu,
    /// The library has no such part.
    #[error("this library was built without it")]
    NotInLibrary,
    /// The library could not tell.
    #[error("{0}")]
    Failed(String),
    /// Nothing is called so.
    #[error("there are {}", .known.join(", "))]
    Unknown {
        /// What there is.
        known: Vec<String>,
    },
}

/// How a process that tried a model, or a library, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// It ended, by itself or by a signal.
    #[error("the process that tried it ended by {status}{}", after(said.as_deref()))]
    Exited {
        /// How.
        status: ExitStatus,
        /// The last that it said.
        said: Option<String>,
    },
    /// It is gone, and nobody knows how.
    #[error("the process that tried it is gone ({cause}){}", after(said.as_deref()))]
    Lost {
        /// Why nobody knows.
        cause: String,
        /// The last that it said.
        said: Option<String>,
    },
    /// It was ended, because it did not answer for so long.
    #[error("it was not done after {} s", .0.as_secs())]
    Late(Duration),
    /// It was ended, because what it answered is no answer.
    #[error("the process that tried it answered nonsense: {0}")]
    Nonsense(String),
    /// It answered another question.
    #[error("the process that tried it answered something else")]
    Confused,
    /// It had ended before.
    #[error("its process is gone")]
    Gone,
}

impl End {
    /// The same without a path in what was said.
    pub(crate) fn without(mut self, path: &Path) -> Self {
        if let End::Exited { said: Some(said), .. }
        | End::Lost { said: Some(said), .. }
        | End::Nonsense(said) = &mut self
        {
            *said = said_of(path, said);
        }
        self
    }
}

/// Names as a sentence lists them.
pub(crate) fn and(names: &[&str]) -> String {
    match names {
        [names @ .., last] if !names.is_empty() => format!("{} and {last}", names.join(", ")),
        names => names.concat(),
    }
}

fn commas(outputs: &[LeftOut]) -> String {
    outputs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn after(said: Option<&str>) -> String {
    said.map(|said| format!(", after '{said}'")).unwrap_or_default()
}

/// What a failure says of: where models are run, or one model there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Nothing can be run here: a library is missing, a worker cannot be started, the disk is full.
    Environment,
    /// The model took its process down, or had to be ended.
    Crashed,
    /// The runtime says no to the model or to its inputs.
    Refused,
}

/// What a runtime was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading and optimising the model.
    Loading,
    /// Running it.
    Running,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Loading => "loading",
            Stage::Running => "running",
        })
    }
}

impl RuntimeError {
    /// The same error about another file: one that was run in place of it.
    #[must_use]
    pub fn about(mut self, file: &Path) -> Self {
        if let RuntimeError::Died { path, .. }
        | RuntimeError::Load { path, .. }
        | RuntimeError::Run { path, .. }
        | RuntimeError::Panicked { path, .. } = &mut self
        {
            file.clone_into(path);
        }
        if let RuntimeError::Model(error) = &mut self {
            file.clone_into(&mut error.path);
        }
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            RuntimeError::Unknown { .. }
            | RuntimeError::NotBuilt { .. }
            | RuntimeError::NoLibrary
            | RuntimeError::Library { .. }
            | RuntimeError::Provider { .. } => FailureKind::Environment,
            _ if self.is_of_machine() => FailureKind::Environment,
            RuntimeError::Died { .. } => FailureKind::Crashed,
            _ => FailureKind::Refused,
        }
    }

    /// Whether nothing can be run here at all, in whatever runtime: there is no room on the disk or in
    /// memory, or no process can be started.
    pub fn is_of_machine(&self) -> bool {
        match self {
            RuntimeError::NoWorker { .. } | RuntimeError::NoMemory | RuntimeError::Unwritten(_) => {
                true
            }
            RuntimeError::Model(error) => matches!(error.kind, modelopt_onnx::ErrorKind::Io(_)),
            _ => false,
        }
    }

    /// What a runtime said of a model, for reports: they travel, so they do not say where it lies.
    pub fn without_path(&self) -> String {
        match self {
            RuntimeError::Load { runtime, message, .. } => {
                format!("{runtime} cannot load it: {message}")
            }
            RuntimeError::Run { runtime, message, .. } => {
                format!("{runtime} cannot run it: {message}")
            }
            RuntimeError::Panicked { runtime, stage, message, .. } => {
                format!("{runtime} panicked while {stage} it: {message}")
            }
            RuntimeError::Died { runtime, end, .. } => {
                format!("{runtime} does not survive it: {end}")
            }
            RuntimeError::Library { path, message } => {
                let name = path.file_name().unwrap_or(path.as_os_str());
                format!("cannot load {}: {message}", name.to_string_lossy())
            }
            RuntimeError::Model(error) => format!("it cannot be read: {}", error.kind),
            other => other.to_string(),
        }
    }

    pub(crate) fn library(path: &Path, cause: impl fmt::Display) -> Self {
        RuntimeError::Library { path: path.to_owned(), message: one_line(&cause.to_string()) }
    }

    /// The runtime that failed, where it is one.
    pub fn runtime(&self) -> Option<&'static str> {
        match self {
            RuntimeError::NotBuilt { runtime }
            | RuntimeError::Provider { runtime, .. }
            | RuntimeError::Died { runtime, .. }
            | RuntimeError::Load { runtime, .. }
            | RuntimeError::Run { runtime, .. }
            | RuntimeError::Panicked { runtime, .. }
            | RuntimeError::NothingReturned { runtime, .. }
            | RuntimeError::Range { runtime, .. }
            | RuntimeError::Unsupported { runtime, .. } => Some(runtime),
            _ => None,
        }
    }

    /// The runtime refused a file.
    pub fn load(runtime: &'static str, path: &Path, cause: impl fmt::Display) -> Self {
        let message = said_of(path, &cause.to_string());
        RuntimeError::Load { runtime, path: path.to_owned(), message }
    }

    /// The model did not run.
    pub fn run(runtime: &'static str, path: &Path, cause: impl fmt::Display) -> Self {
        let message = said_of(path, &cause.to_string());
        RuntimeError::Run { runtime, path: path.to_owned(), message }
    }
}

/// What a runtime says of a model, on one line and without the model's path, which may be that of a
/// temporary file.
pub(crate) fn said_of(path: &Path, message: &str) -> String {
    one_line(&message.replace(&path.display().to_string(), "the model"))
}

/// Any message on one line of bearable length.
pub(crate) fn one_line(message: &str) -> String {
    let mut line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}

/// Names as people list them.
pub(crate) fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_bearable_line() {
        assert_eq!(one_line("a\n  b\tc "), "a b c");
        let long = one_line(&"ä".repeat(1000));
        assert!(long.len() <= LONGEST + 4);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn failures_are_told_apart() {
        let died = RuntimeError::Died {
            runtime: "rten",
            path: "m.onnx".into(),
            end: End::Nonsense("m.onnx is so large".into()).without(Path::new("m.onnx")),
        };
        assert_eq!(died.kind(), FailureKind::Crashed);
        assert_eq!(
            died.without_path(),
            "rten does not survive it: the process that tried it answered nonsense: the model is so large"
        );
        let refused = RuntimeError::load("rten", Path::new("/a/m.onnx"), "no such operator");
        assert_eq!(refused.kind(), FailureKind::Refused);
        assert_eq!(refused.without_path(), "rten cannot load it: no such operator");
        let cause = std::io::Error::from(std::io::ErrorKind::NotFound);
        let missing = RuntimeError::NoWorker { program: "worker".into(), cause };
        let library = RuntimeError::Library { path: "/a/l.so".into(), message: "no".into() };
        assert_eq!(library.without_path(), "cannot load l.so: no");
        let full = modelopt_onnx::Error {
            path: "m.onnx".into(),
            kind: std::io::Error::from(std::io::ErrorKind::StorageFull).into(),
        };
        assert_eq!(library.kind(), FailureKind::Environment);
        assert!(!library.is_of_machine());
        let unwritten = RuntimeError::Unwritten("the disk is full".into());
        for error in [missing, unwritten, RuntimeError::NoMemory, RuntimeError::Model(full)] {
            assert_eq!(error.kind(), FailureKind::Environment, "{error}");
            assert!(error.is_of_machine(), "{error}");
        }
    }

    #[test]
    fn where_a_model_lies_that_cannot_be_read_is_not_said_in_reports() {
        let kind = modelopt_onnx::ErrorKind::Empty;
        let error = RuntimeError::Model(kind.at(Path::new("/somewhere/trial.onnx")));
        assert_eq!(error.without_path(), "it cannot be read: the file is empty");
        let error = error.about(Path::new("m.onnx")).to_string();
        assert_eq!(error, "m.onnx: the file is empty");
    }

    #[test]
    fn paths_are_not_said_again() {
        let path = Path::new("/tmp/.x.modelopt-tmp");
        assert_eq!(
            said_of(path, "Load model from /tmp/.x.modelopt-tmp failed"),
            "Load model from the model failed"
        );
    }

    #[test]
    fn errors_say_what_where_and_what_next() {
        let error = RuntimeError::Unknown { name: "x".into(), known: vec!["a", "b", "c"] };
        assert_eq!(error.to_string(), "no runtime is called 'x'; there are a, b and c");
        let error = RuntimeError::MissingInput { input: "x".into(), given: vec!["y".into()] };
        assert_eq!(error.to_string(), "no value for input 'x'; the sample has 'y'");
    }
}
