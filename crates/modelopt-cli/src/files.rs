//! Files that may be pipes: `-` is stdin or stdout.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::sniff;

/// A model to read.
pub(crate) struct Input {
    path: PathBuf,
    /// Holds what came through the pipe, because runtimes want a file.
    _folder: Option<TempDir>,
}

impl Input {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        if path != Path::new("-") {
            sniff::check_model(path)?;
            return Ok(Input { path: path.to_owned(), _folder: None });
        }
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let path = folder.path().join("stdin.onnx");
        call(&path, "stdin");
        let mut file = std::fs::File::create(&path)?;
        io::copy(&mut io::stdin().lock(), &mut file).context("cannot read stdin")?;
        sniff::check(&path, "stdin")?;
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
        call(&path, "stdout");
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

/// What temporary files stand for.
static CALLED: Mutex<Vec<(String, &str)>> = Mutex::new(Vec::new());

/// Lets messages call a temporary file what it stands for.
fn call(path: &Path, name: &'static str) {
    if let Ok(mut called) = CALLED.lock() {
        called.push((path.display().to_string(), name));
    }
}

/// A text without the paths of temporary files, which mean nothing to those who read it.
pub(crate) fn without_temporary(text: &str) -> String {
    let Ok(called) = CALLED.lock() else { return text.to_owned() };
    called.iter().fold(text.to_owned(), |text, (path, name)| text.replace(path, name))
}

/// A text file, whole.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
