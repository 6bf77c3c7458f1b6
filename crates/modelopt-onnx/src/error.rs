//! What can go wrong between bytes and model.

use std::io;
use std::path::{Path, PathBuf};

use modelopt_graph::TensorError;
use modelopt_graph::verify::Problem;

/// An error with the file it is about.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub kind: ErrorKind,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// The bytes are not a protobuf message of the expected kind.
    #[error("not a valid ONNX file: {what} at byte {offset} (in {message})")]
    Wire {
        /// What was found.
        what: &'static str,
        /// Where, counted from the start of the file.
        offset: usize,
        /// The kind of message it was found in.
        message: &'static str,
    },
    /// A part that a model cannot be without is missing.
    #[error("not an ONNX model: it has no {0}")]
    Missing(&'static str),
    /// The file has more parts than any real model of its size.
    #[error("the file has more than {0} parts, which no real model of its size has")]
    TooManyParts(usize),
    /// A tensor contradicts itself.
    #[error("tensor '{name}': {why}")]
    Tensor {
        /// Name of the initializer, attribute or value.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// External data that cannot be used.
    #[error("tensor '{tensor}' has its data in '{location}': {why}")]
    External {
        /// Name of the tensor.
        tensor: String,
        /// The file it names.
        location: String,
        /// Why that cannot be used.
        why: String,
    },
    /// The graph is not sound.
    #[error("{0}")]
    Graph(#[from] Problem),
    /// The model is too large for one file.
    #[error(
        "the model takes {0} bytes, more than the 2 GB that one ONNX file can hold, and its large weights are not initializers that could be moved to an external file"
    )]
    TooLarge(u64),
}

impl ErrorKind {
    /// The error with the file that it is about.
    pub fn at(self, path: &Path) -> Error {
        Error { path: path.to_owned(), kind: self }
    }

    pub(crate) fn tensor(name: &str, error: &TensorError) -> Self {
        ErrorKind::Tensor { name: name.to_owned(), why: error.to_string() }
    }
}

impl Error {
    /// What to try next, where there is something to try.
    pub fn hint(&self) -> Option<&'static str> {
        match &self.kind {
            ErrorKind::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("check the path")
            }
            ErrorKind::Empty | ErrorKind::Wire { .. } | ErrorKind::Missing(_) => Some(
                "was it downloaded or exported completely? A Git LFS pointer or a web page saved under the model's name looks like this",
            ),
            ErrorKind::External { .. } => Some(
                "external data must lie beside the model, in its folder or below it, as the exporter wrote it",
            ),
            ErrorKind::Graph(_) | ErrorKind::Tensor { .. } => Some(
                "the exporter wrote a model that contradicts itself; onnx.checker.check_model tells more",
            ),
            _ => None,
        }
    }
}
