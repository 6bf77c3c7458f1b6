//! Files that may be pipes: `-` is stdin or stdout.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A model to read.
pub(crate) struct Input {
    path: PathBuf,
    /// Holds what came through the pipe, because runtimes want a file.
    _folder: Option<TempDir>,
}

impl Input {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        if path != Path::new("-") {
            return Ok(Input { path: path.to_owned(), _folder: None });
        }
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let path = folder.path().join("stdin.onnx");
        let mut file = std::fs::File::create(&path)?;
        io::copy(&mut io::stdin().lock(), &mut file).context("cannot read stdin")?;
        Ok(Input { path, _folder: Some(folder) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Where a model is written.
pub(crate) struct Output {
    path: PathBuf,
    /// Holds the model until it is passed on through the pipe.
    folder: Option<TempDir>,
}

impl Output {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        if path != Path::new("-") {
            return Ok(Output { path: path.to_owned(), folder: None });
        }
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        Ok(Output { path: folder.path().join("stdout.onnx"), folder: Some(folder) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Passes the model on, if the output is a pipe.
    pub(crate) fn finish(self) -> Result<()> {
        if self.folder.is_some() {
            let mut file = std::fs::File::open(&self.path)?;
            let mut out = io::stdout().lock();
            io::copy(&mut file, &mut out)?;
            out.flush()?;
        }
        Ok(())
    }
}

/// A text file, whole.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
