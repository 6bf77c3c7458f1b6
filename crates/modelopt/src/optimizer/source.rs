//! Where a model comes from, and where the result goes.

use std::path::{Path, PathBuf};

use modelopt_graph::Model;

use crate::error::Error;
use crate::scratch::{Scratch, Unwritten};

/// What a model from memory is called in reports.
const UNNAMED: &str = "model.onnx";

/// A model to optimize.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, with external data beside it.
    Path(PathBuf),
    /// A serialized model, without external data.
    Bytes(Vec<u8>),
    /// A model that is loaded already.
    Model(Box<Model>),
}

impl Source {
    /// A serialized model, without external data.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Source::Bytes(bytes.into())
    }

    /// A file, with external data beside it.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Source::Path(path.into())
    }

    /// The model as a file: runtimes load files.
    pub(super) fn materialize(self) -> Result<Input, Error> {
        match self {
            Source::Path(path) => Ok(Input { path, scratch: None }),
            Source::Bytes(bytes) => Input::own(|scratch| scratch.put(&bytes, UNNAMED)),
            Source::Model(model) => Input::own(|scratch| scratch.keep(&model, UNNAMED)),
        }
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Source::Path(path.to_owned())
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Source::Path(path)
    }
}

impl From<Model> for Source {
    fn from(model: Model) -> Self {
        Source::Model(model.into())
    }
}

/// A model as a file, which may be one of our own.
pub(super) struct Input {
    path: PathBuf,
    scratch: Option<Scratch>,
}

impl Input {
    fn own(write: impl FnOnce(&Scratch) -> Result<PathBuf, Unwritten>) -> Result<Self, Error> {
        let scratch = Scratch::new()?;
        Ok(Input { path: write(&scratch)?, scratch: Some(scratch) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An error that does not say where a file of our own is.
    pub(super) fn named(&self, error: Error) -> Error {
        if self.scratch.is_some() { error.about(UNNAMED.as_ref()) } else { error }
    }
}

/// Where the result goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// It is kept until somebody asks for it.
    #[default]
    Memory,
    /// A file, which is replaced at once or not at all.
    Path(PathBuf),
}

impl Sink {
    /// A file, which is replaced at once or not at all.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Sink::Path(path.into())
    }

    /// The file to write; `input` lends its name to one of our own.
    pub(super) fn place(self, input: &Path) -> Result<Output, Error> {
        match self {
            Sink::Path(path) => Ok(Output { path, scratch: None }),
            Sink::Memory => {
                let scratch = Scratch::new()?;
                let name = input.file_name().unwrap_or(UNNAMED.as_ref());
                Ok(Output { path: scratch.path().join(name), scratch: Some(scratch) })
            }
        }
    }
}

/// Where the result is.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    /// It goes with this, if it is our own.
    scratch: Option<Scratch>,
}

impl Output {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_own(&self) -> bool {
        self.scratch.is_some()
    }
}
