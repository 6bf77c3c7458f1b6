//! Files that may be pipes: `-` is stdin or stdout.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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
        stands_for(&path, "stdin");
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
        let path = folder.path().join("stdout.onnx");
        stands_for(&path, "stdout");
        Ok(Output { path, folder: Some(folder) })
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

/// Files that stand for something, with its name.
static STAND_INS: Mutex<Vec<(String, &str)>> = Mutex::new(Vec::new());

fn stands_for(path: &Path, name: &'static str) {
    let mut known = STAND_INS.lock().unwrap_or_else(PoisonError::into_inner);
    known.push((path.display().to_string(), name));
}

/// The text with pipes by their names, not by those of the files that stand for them.
pub(crate) fn named(text: &str) -> String {
    let known = STAND_INS.lock().unwrap_or_else(PoisonError::into_inner);
    known.iter().fold(text.to_owned(), |text, (path, name)| text.replace(path, name))
}

/// A text file, whole.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
