//! Why a model cannot be loaded.

use std::path::PathBuf;

use super::settings::SettingsError;
use crate::ServeError;

/// Why a model, or a folder of models, cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A name leads nowhere, or is none that a model may have.
    #[error("there is no model '{0}'")]
    NoModel(String),
    /// A version is not there.
    #[error("model '{name}' has no version '{version}'")]
    NoVersion {
        /// Name of the model.
        name: String,
        /// The version.
        version: String,
    },
    /// A link leads out of the folder of models.
    #[error("'{0}' leads out of the folder of models")]
    Outside(String),
    /// A file or folder cannot be read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is no model.
    #[error("it cannot be read: {}", .0.kind)]
    Model(#[from] modelopt_onnx::Error),
    /// Its inputs or outputs are none that a client could send or take.
    #[error("{0}")]
    Signature(String),
    /// Its files are others than when loading began.
    #[error("it was changed while it was loaded")]
    Changed,
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The samples cannot be read, or the model does not run on them.
    #[error("it does not run on its samples: {0}")]
    Samples(String),
    /// The runtime cannot load it.
    #[error("{0}")]
    Runtime(String),
    /// It is to run in a worker process, and there is no program for that.
    #[error("there is no program to run it in a process of its own")]
    NoWorker,
    /// The system gives no more threads.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// Loading did not end by itself.
    #[error("loading was broken off")]
    BrokenOff,
}

impl LoadError {
    /// What a client is told who asked for it to be loaded.
    pub fn into_serve_error(self) -> ServeError {
        let said = self.to_string();
        match self {
            LoadError::NoModel(_) | LoadError::NoVersion { .. } => ServeError::NotFound(said),
            LoadError::Outside(_) | LoadError::Settings(_) => ServeError::Invalid(said),
            // Where files lie is nobody's business.
            LoadError::Io { cause, .. } => ServeError::Runtime(format!("cannot read it: {cause}")),
            _ => ServeError::Runtime(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_not_told_where_files_lie() {
        let cause = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = LoadError::Io { path: "/srv/models/secret".into(), cause };
        assert!(error.to_string().contains("/srv/models"));
        let told = error.into_serve_error();
        assert_eq!((told.status(), told.to_string().contains("/srv")), (500, false));
        assert_eq!(LoadError::NoModel("x".to_owned()).into_serve_error().status(), 404);
    }
}
