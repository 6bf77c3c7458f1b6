//! What comes of a run.

use std::path::Path;

use modelopt_graph::Model;
use modelopt_onnx::{self as onnx, SaveOptions, Staged};

use super::source::Output;
use crate::error::{Error, ErrorKind};
use crate::optimize::Outcome;

/// What came of a run: the evidence, and the model if it was emitted.
#[derive(Debug)]
pub struct Optimized {
    /// Plan, figures and verdict.
    pub outcome: Outcome,
    artifact: Option<Artifact>,
}

impl Optimized {
    pub(super) fn new(outcome: Outcome, output: Output) -> Self {
        let artifact = outcome.emitted.then_some(Artifact { output });
        Optimized { outcome, artifact }
    }

    /// The model.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] where the candidate failed the limits, with those that it failed, or
    /// where the run was stopped.
    pub fn artifact(&self) -> Result<&Artifact, Error> {
        self.artifact.as_ref().ok_or_else(|| {
            let verdict = self.outcome.verdict.iter();
            let failed = verdict.flat_map(modelopt_validate::Verdict::failures);
            let failed: Vec<String> = failed.map(|check| check.name.clone()).collect();
            ErrorKind::Refused { failed }.into()
        })
    }

    /// The model, by itself.
    ///
    /// # Errors
    ///
    /// As [`Optimized::artifact`].
    pub fn into_artifact(self) -> Result<Artifact, Error> {
        self.artifact()?;
        // It is there, or this would have returned.
        self.artifact.ok_or_else(|| ErrorKind::Refused { failed: Vec::new() }.into())
    }
}

/// An optimized model. One that went to no file of the caller's is in a temporary folder, which goes
/// with this value.
#[derive(Debug)]
pub struct Artifact {
    output: Output,
}

impl Artifact {
    /// The file that it is in.
    pub fn path(&self) -> &Path {
        self.output.path()
    }

    /// The model as the bytes of one file.
    ///
    /// # Errors
    ///
    /// For models beyond 2 GB, which need a file for their weights: see [`Artifact::write_to`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let model = self.model()?;
        if self.has_external_data(&model)? {
            return onnx::to_bytes(&model).map_err(|kind| kind.at(self.path()).into());
        }
        Ok(fs_err::read(self.path())?)
    }

    /// The model, loaded.
    ///
    /// # Errors
    ///
    /// Where its file is gone.
    pub fn model(&self) -> Result<Model, Error> {
        Ok(onnx::load(self.path())?)
    }

    /// Writes it to a file, which is replaced at once or not at all.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn write_to(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        if !self.output.is_own() && self.path() == path.as_ref() {
            return Ok(());
        }
        let model = self.model()?;
        let save = SaveOptions { external_data: self.has_external_data(&model)? };
        Ok(Staged::write(&model, path.as_ref(), save)?.commit()?)
    }

    fn has_external_data(&self, model: &Model) -> Result<bool, Error> {
        let whole = onnx::stored_size(self.path(), model)?;
        Ok(whole > fs_err::metadata(self.path())?.len())
    }
}
