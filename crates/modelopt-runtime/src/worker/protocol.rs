//! What is said between a program and its workers: frames of a length, JSON, and raw tensors.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use indexmap::IndexMap;
use modelopt_graph::{DataType, Payload, Tensor};
use serde::{Deserialize, Serialize};

use super::Cost;
use crate::error::said_of;
use crate::{End, LeftOut, ProviderProblem, Rounds, RuntimeError, SessionOptions, Stage};

/// No head is longer than this, in bytes: one that seems to be is no head.
const LONGEST_HEAD: usize = 1 << 30;

/// Messages up to this size are sent in one piece, in bytes.
const ONE_PIECE: usize = 1 << 16;

/// Names and tensors.
type Tensors = IndexMap<String, Tensor>;

/// What a worker is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Load a runtime.
    Open(Place),
    /// Load a model, and run it once if there are tensors.
    Load { place: Place, model: OsPath, options: SessionOptions, runs: bool },
    /// Run a session on the tensors.
    Run { session: u64 },
    /// Time sessions in turn: each on as many of the tensors as it says.
    Time { turns: Vec<Turn>, rounds: Rounds },
    /// Let go of a session.
    Unload { session: u64 },
}

/// A runtime, and where its library is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Its name.
    pub(super) runtime: String,
    pub(super) library: Option<OsPath>,
}

impl Place {
    pub(super) fn new(runtime: &str, library: Option<&Path>) -> Self {
        Place { runtime: runtime.to_owned(), library: library.map(OsPath::new) }
    }
}

/// One of several sessions that are timed in turn.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Turn {
    pub(super) session: u64,
    pub(super) tensors: usize,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Opened {
        version: String,
    },
    Loaded {
        session: u64,
        left_out: Vec<LeftOut>,
        cost: Cost,
    },
    /// With the outputs as tensors.
    Ran,
    /// Times of each session, in milliseconds.
    Timed {
        times: Vec<Vec<f64>>,
    },
    Unloaded,
    Failed(Failure),
}

/// A path of whatever bytes the system allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OsPath(Vec<u8>);

impl OsPath {
    #[cfg(unix)]
    pub(super) fn new(path: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        OsPath(path.as_os_str().as_bytes().to_vec())
    }

    #[cfg(unix)]
    pub(super) fn to_path(&self) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        PathBuf::from(std::ffi::OsStr::from_bytes(&self.0))
    }

    #[cfg(not(unix))]
    pub(super) fn new(path: &Path) -> Self {
        OsPath(path.to_string_lossy().into_owned().into_bytes())
    }

    #[cfg(not(unix))]
    pub(super) fn to_path(&self) -> PathBuf {
        PathBuf::from(String::from_utf8_lossy(&self.0).into_owned())
    }
}

/// A [`RuntimeError`] on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    /// The model itself cannot be read, which whoever asked sees for itself.
    Model(String),
    Load(String),
    Run(String),
    Library {
        path: OsPath,
        message: String,
    },
    NoLibrary,
    /// The worker has no such session.
    NoSession,
    NotBuilt,
    Provider {
        provider: String,
        problem: ProviderProblem,
    },
    MissingInput {
        input: String,
        given: Vec<String>,
    },
    Mismatch {
        input: String,
        expected: String,
        actual: String,
    },
    Range {
        name: String,
        value: String,
    },
    NothingReturned {
        outputs: Vec<LeftOut>,
    },
    Unsupported {
        what: String,
    },
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Model(error) => Failure::Model(error.kind.to_string()),
            RuntimeError::Load { message, .. }
            | RuntimeError::Panicked { stage: Stage::Loading, message, .. } => {
                Failure::Load(message)
            }
            RuntimeError::Library { path, message } => {
                Failure::Library { path: OsPath::new(&path), message }
            }
            RuntimeError::NoLibrary => Failure::NoLibrary,
            RuntimeError::NotBuilt { .. } => Failure::NotBuilt,
            RuntimeError::Provider { provider, problem, .. } => {
                Failure::Provider { provider, problem }
            }
            RuntimeError::MissingInput { input, given } => Failure::MissingInput { input, given },
            RuntimeError::Mismatch { input, expected, actual } => {
                Failure::Mismatch { input, expected, actual }
            }
            RuntimeError::Range { name, value, .. } => Failure::Range { name, value },
            RuntimeError::NothingReturned { outputs, .. } => Failure::NothingReturned { outputs },
            RuntimeError::Unsupported { what, .. } => Failure::Unsupported { what },
            RuntimeError::Run { message, .. } | RuntimeError::Panicked { message, .. } => {
                Failure::Run(message)
            }
            other => Failure::Run(other.to_string()),
        }
    }
}

impl Failure {
    /// The error as it was, about a model.
    pub(super) fn into_error(self, runtime: &'static str, model: &Path) -> RuntimeError {
        match self {
            Failure::Model(message) => match modelopt_onnx::load(model) {
                Err(error) => RuntimeError::Model(error),
                Ok(_) => RuntimeError::load(runtime, model, message),
            },
            Failure::Load(message) => RuntimeError::load(runtime, model, message),
            Failure::Run(message) => RuntimeError::run(runtime, model, message),
            Failure::Library { path, message } => {
                RuntimeError::Library { path: path.to_path(), message: said_of(model, &message) }
            }
            Failure::NoLibrary => RuntimeError::NoLibrary,
            Failure::NoSession => {
                RuntimeError::Died { runtime, path: model.to_owned(), end: End::Gone }
            }
            Failure::NotBuilt => RuntimeError::NotBuilt { runtime },
            Failure::Provider { provider, problem } => {
                RuntimeError::Provider { runtime, provider, problem }
            }
            Failure::MissingInput { input, given } => RuntimeError::MissingInput { input, given },
            Failure::Mismatch { input, expected, actual } => {
                RuntimeError::Mismatch { input, expected, actual }
            }
            Failure::Range { name, value } => RuntimeError::Range { runtime, name, value },
            Failure::NothingReturned { outputs } => {
                RuntimeError::NothingReturned { runtime, outputs }
            }
            Failure::Unsupported { what } => RuntimeError::Unsupported { runtime, what },
        }
    }
}

/// A message with its tensors.
#[derive(Serialize, Deserialize)]
struct Head<M> {
    message: M,
    tensors: Vec<Described>,
}

/// What is to be known of a tensor before its bytes come.
#[derive(Serialize, Deserialize)]
struct Described {
    name: String,
    dtype: i32,
    shape: Vec<usize>,
    /// Elements that are not of fixed size.
    strings: Option<Vec<Vec<u8>>>,
}

/// Sends a message; tensors may come from several lists.
pub(super) fn send(
    to: &mut impl Write,
    message: &impl Serialize,
    tensors: &[&Tensors],
) -> io::Result<()> {
    let all = || tensors.iter().flat_map(|tensors| tensors.iter());
    let head = Head { message, tensors: all().map(describe).collect() };
    let head = serde_json::to_vec(&head)?;
    let length = u32::try_from(head.len()).map_err(io::Error::other)?;
    let mut piece = length.to_le_bytes().to_vec();
    piece.extend_from_slice(&head);
    for bytes in all().filter_map(|(_, tensor)| raw(tensor)) {
        if piece.len() + bytes.len() > ONE_PIECE {
            to.write_all(&piece)?;
            piece.clear();
            to.write_all(bytes)?;
        } else {
            piece.extend_from_slice(bytes);
        }
    }
    to.write_all(&piece)?;
    to.flush()
}

fn describe((name, tensor): (&String, &Tensor)) -> Described {
    Described {
        name: name.clone(),
        dtype: tensor.dtype().number(),
        shape: tensor.shape().to_vec(),
        strings: match tensor.payload() {
            Payload::Strings(strings) => Some(strings.iter().map(|s| s.to_vec()).collect()),
            Payload::Dense(_) | Payload::Rounded(_) => None,
        },
    }
}

fn raw(tensor: &Tensor) -> Option<&Bytes> {
    match tensor.payload() {
        Payload::Strings(_) => None,
        Payload::Dense(_) | Payload::Rounded(_) => tensor.bytes(),
    }
}

/// Receives a message with its tensors in order.
pub(super) fn receive<M: for<'de> Deserialize<'de>>(
    from: &mut impl Read,
) -> io::Result<(M, Vec<(String, Tensor)>)> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST_HEAD {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "that is no message"));
    }
    let head: Head<M> = serde_json::from_slice(&read(from, length)?)?;
    let tensors = head.tensors.into_iter().map(|described| tensor(described, from));
    Ok((head.message, tensors.collect::<io::Result<_>>()?))
}

fn tensor(described: Described, from: &mut impl Read) -> io::Result<(String, Tensor)> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let dtype = DataType::from_number(described.dtype);
    let payload = if let Some(strings) = described.strings {
        Payload::Strings(strings.into_iter().map(Bytes::from).collect())
    } else {
        let count = modelopt_graph::element_count(&described.shape);
        let length = count.and_then(|count| dtype.byte_len(count));
        let length = length.ok_or_else(|| invalid("a tensor of no size"))?;
        Payload::Dense(Bytes::from(read(from, length)?))
    };
    let tensor = Tensor::new(dtype, described.shape, payload).map_err(io::Error::other)?;
    Ok((described.name, tensor))
}

/// So many bytes. That there is no memory for them is an error, not the end.
fn read(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    from.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors() -> Tensors {
        let strings = Payload::Strings(vec![Bytes::from("a"), Bytes::from("\u{e9}")]);
        let large = vec![0.5f32; ONE_PIECE];
        [
            ("x".to_owned(), Tensor::of(vec![2, 1], &[1.5f32, -2.0]).unwrap()),
            ("s".to_owned(), Tensor::new(DataType::STRING, vec![2], strings).unwrap()),
            ("large".to_owned(), Tensor::of(vec![ONE_PIECE], &large).unwrap()),
            ("empty".to_owned(), Tensor::of(vec![0], &[] as &[i64]).unwrap()),
            ("n".to_owned(), Tensor::scalar(7i64)),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let (first, second) = (tensors(), Tensors::from([("y".into(), Tensor::scalar(1u8))]));
        let mut sent = Vec::new();
        send(&mut sent, &Request::Run { session: 7 }, &[&first, &second]).unwrap();
        send(&mut sent, &Request::Unload { session: 8 }, &[]).unwrap();
        let mut from = sent.as_slice();
        let (request, received) = receive::<Request>(&mut from).unwrap();
        assert!(matches!(request, Request::Run { session: 7 }), "{request:?}");
        let expected: Vec<_> = first.into_iter().chain(second).collect();
        assert_eq!(received, expected);
        let (request, received) = receive::<Request>(&mut from).unwrap();
        assert!(matches!(request, Request::Unload { session: 8 }), "{request:?}");
        assert!(received.is_empty() && from.is_empty());
    }

    #[test]
    fn what_is_cut_short_or_no_message_is_an_error() {
        let mut sent = Vec::new();
        send(&mut sent, &Answer::Ran, &[&tensors()]).unwrap();
        for end in [0, 3, 4, 20, sent.len() - 1] {
            assert!(receive::<Answer>(&mut &sent[..end]).is_err(), "{end}");
        }
        assert!(receive::<Answer>(&mut b"\xff\xff\xff\xffnothing".as_slice()).is_err());
        let described = r#"{"message":"Ran","tensors":[{"name":"x","dtype":1,"shape":[4611686018427387904],"strings":null}]}"#;
        let mut absurd = (described.len() as u32).to_le_bytes().to_vec();
        absurd.extend_from_slice(described.as_bytes());
        assert!(receive::<Answer>(&mut absurd.as_slice()).is_err());
    }

    #[test]
    fn errors_come_back_as_they_were() {
        let model = Path::new("m.onnx");
        let errors = [
            RuntimeError::load("rten", model, "no such operator"),
            RuntimeError::run("rten", model, "another shape"),
            RuntimeError::Library { path: "lib.so".into(), message: "it is empty".into() },
            RuntimeError::NoLibrary,
            RuntimeError::NotBuilt { runtime: "rten" },
            RuntimeError::Provider {
                runtime: "rten",
                provider: "npu".into(),
                problem: ProviderProblem::Failed("there is none".into()),
            },
            RuntimeError::MissingInput { input: "x".into(), given: vec!["y".into()] },
            RuntimeError::Mismatch {
                input: "x".into(),
                expected: "float".into(),
                actual: "int8".into(),
            },
            RuntimeError::Range { runtime: "rten", name: "x".into(), value: "9".into() },
            RuntimeError::NothingReturned {
                runtime: "rten",
                outputs: vec![LeftOut { output: "m".into(), ty: "map".into() }],
            },
            RuntimeError::Unsupported { runtime: "rten", what: "strings".into() },
        ];
        for error in errors {
            let said = error.to_string();
            let sent = serde_json::to_string(&Failure::from(error)).unwrap();
            let failure: Failure = serde_json::from_str(&sent).unwrap();
            assert_eq!(failure.into_error("rten", model).to_string(), said);
        }
        let panicked = RuntimeError::Panicked {
            runtime: "rten",
            stage: Stage::Loading,
            path: model.into(),
            message: "at 3".into(),
        };
        let error = Failure::from(panicked).into_error("rten", model).to_string();
        assert_eq!(error, "rten cannot load m.onnx: at 3");
    }
}
