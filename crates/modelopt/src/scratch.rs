//! Models that are written to be run and then forgotten. Where they lie is nobody's concern: no
//! message says it.

use std::path::{Path, PathBuf};

use modelopt_graph::Model;
use modelopt_onnx::{Error as OnnxError, SaveOptions, Staged};
use tempfile::TempDir;

/// A temporary folder; it goes with this value.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("modelopt-").tempdir();
        folder.map(|folder| Scratch { folder }).map_err(|error| {
            let place = std::env::temp_dir();
            // The error of `tempfile` ends with the name that it made up.
            format!("cannot make a temporary folder in {}: {}", place.display(), error.kind())
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a model, whose file goes with what this gives.
    pub(crate) fn write(&self, model: &Model, name: &str) -> Result<Staged, String> {
        let path = self.folder.path().join(name);
        Staged::write(model, &path, SaveOptions::default()).map_err(|error| self.refusal(&error))
    }

    /// Writes a model, whose file goes with the folder.
    pub(crate) fn keep(&self, model: &Model, name: &str) -> Result<PathBuf, String> {
        self.write(model, name)?.commit().map_err(|error| self.refusal(&error))?;
        Ok(self.folder.path().join(name))
    }

    fn refusal(&self, error: &OnnxError) -> String {
        let place = self.folder.path().display().to_string();
        let cause = error.to_string().replace(&place, "the temporary folder");
        format!("cannot write a model to try: {cause}")
    }
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
        assert!(error.starts_with("cannot write a model to try: "), "{error}");
        assert!(!error.contains(&scratch.folder.path().display().to_string()), "{error}");
    }
}
