//! Models that are written to be run and then forgotten. Where they lie is nobody's concern: no
//! message says more of it than where temporary files go.

use std::io;
use std::path::{Path, PathBuf};

use modelopt_graph::Model;
use modelopt_onnx::{Error as OnnxError, ErrorKind as OnnxErrorKind, SaveOptions, Staged};
use modelopt_runtime::RuntimeError;
use tempfile::TempDir;

/// Why a model that is to be run cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unwritten {
    /// There is no room for it, or no right to write there: whatever else is tried would fail, too.
    #[error("cannot write a model to try in {}: {cause}", folder.display())]
    Folder {
        /// Where temporary files go.
        folder: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The model has no form as a file.
    #[error("cannot write a model to try: {0}")]
    Model(String),
}

impl Unwritten {
    fn folder(cause: io::Error) -> Self {
        Unwritten::Folder { folder: std::env::temp_dir(), cause }
    }

    /// Whether it is for want of room rather than due to the model.
    pub(crate) fn is_of_machine(&self) -> bool {
        matches!(self, Unwritten::Folder { .. })
    }
}

impl From<Unwritten> for RuntimeError {
    fn from(error: Unwritten) -> Self {
        RuntimeError::Unwritten(Box::new(error))
    }
}

/// A temporary folder; it goes with this value.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Result<Self, Unwritten> {
        let folder = tempfile::Builder::new().prefix("modelopt-").tempdir();
        // The error of `tempfile` ends with the name that it made up.
        folder
            .map(|folder| Scratch { folder })
            .map_err(|error| Unwritten::folder(error.kind().into()))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a model, whose file goes with what this gives.
    pub(crate) fn write(&self, model: &Model, name: &str) -> Result<Staged, Unwritten> {
        let path = self.folder.path().join(name);
        Staged::write(model, &path, SaveOptions::default()).map_err(|error| self.refusal(error))
    }

    /// Writes the bytes of a model, whose file goes with the folder.
    pub(crate) fn put(&self, bytes: &[u8], name: &str) -> Result<PathBuf, Unwritten> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).map_err(Unwritten::folder)?;
        Ok(path)
    }

    /// Writes a model, whose file goes with the folder.
    pub(crate) fn keep(&self, model: &Model, name: &str) -> Result<PathBuf, Unwritten> {
        self.write(model, name)?.commit().map_err(|error| self.refusal(error))?;
        Ok(self.folder.path().join(name))
    }

    fn refusal(&self, error: OnnxError) -> Unwritten {
        let place = self.folder.path().display().to_string();
        match error.kind {
            OnnxErrorKind::Io(cause) => Unwritten::folder(plain(cause, &place)),
            kind => Unwritten::Model(kind.to_string().replace(&place, "the temporary folder")),
        }
    }
}

/// The same error without a place in its words.
fn plain(cause: io::Error, place: &str) -> io::Error {
    if cause.to_string().contains(place) { cause.kind().into() } else { cause }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::ModelInfo;

    use super::*;

    #[test]
    fn a_message_does_not_say_where() {
        let scratch = Scratch::new().unwrap();
        let model = Model::new(ModelInfo::default());
        assert!(scratch.write(&model, "trial.onnx").unwrap().path().exists());
        assert!(scratch.keep(&model, "kept.onnx").unwrap().exists());
        std::fs::create_dir(scratch.folder.path().join("taken.onnx")).unwrap();
        let error = scratch.write(&model, "taken.onnx").unwrap_err();
        assert!(error.is_of_machine());
        let error = error.to_string();
        assert!(error.starts_with("cannot write a model to try in "), "{error}");
        assert!(!error.contains(&scratch.folder.path().display().to_string()), "{error}");
    }
}

#[cfg(test)]
mod edges;
