//! Runs the program as a user does, and looks at what it leaves behind.

#![allow(dead_code)] // Each test binary uses its own part.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_modelopt");

/// What a run of the program came to.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Output {
    /// The output, if the program ended with this code.
    ///
    /// # Panics
    /// If it ended otherwise.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Output {
        let Output { stdout, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "stdout:\n{stdout}\nstderr:\n{stderr}");
        self
    }

    /// What stands on stdout, as JSON.
    ///
    /// # Panics
    /// If it is something else.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in:\n{}\n{}", self.stdout, self.stderr))
    }

    /// Whether the program ended by itself and with a message, not by a panic or a signal. That a
    /// runtime panicked is such a message.
    pub(crate) fn is_orderly(&self) -> bool {
        matches!(self.code, Some(0..=3)) && !self.stderr.contains("panicked at")
    }
}

/// Runs the program with these arguments, in an empty folder, without stdin.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    let folder = tempdir();
    run_in(folder.path(), arguments)
}

/// Runs the program in a folder.
pub(crate) fn run_in<S: AsRef<OsStr>>(
    folder: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(folder);
    finish(&mut command)
}

/// Takes away what the terminal and the user's habits would change in what the program says.
pub(crate) fn quiet(command: &mut Command) {
    for name in ["COLUMNS", "LINES", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
}

/// Runs a command to its end, without stdin.
///
/// # Panics
/// If it cannot be started.
pub(crate) fn finish(command: &mut Command) -> Output {
    quiet(command);
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("cannot start {}: {error}", command.get_program().display())
    });
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: start.elapsed(),
    }
}

/// The arguments of a run, of whatever mixture of texts and paths.
#[macro_export]
macro_rules! args {
    ($($argument:expr),* $(,)?) => {
        [$(std::ffi::OsString::from(&$argument)),*]
    };
}

/// The program in a folder, where it finds the ONNX Runtime of the Python environment.
///
/// # Panics
/// If set-up was not run.
pub(crate) fn with_onnxruntime(folder: &Path) -> Command {
    let python = xtask::testdata::python();
    let mut path = vec![python.parent().expect("it lies in a folder").to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = std::env::join_paths(path).expect("folders have ordinary names");
    let mut command = Command::new(PROGRAM);
    command.current_dir(folder).env("PATH", path).env_remove("ORT_DYLIB_PATH");
    command
}

/// A folder that is removed when dropped.
///
/// # Panics
/// If none can be made.
pub(crate) fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir().expect("cannot make a temporary folder")
}

/// All files and links under a folder, relative to it and sorted.
///
/// # Panics
/// If it cannot be read.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    fn visit(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{error}"));
        for entry in entries {
            let entry = entry.unwrap_or_else(|error| panic!("{error}"));
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                visit(root, &entry.path(), found);
            } else {
                found.extend(entry.path().strip_prefix(root).map(Path::to_owned));
            }
        }
    }
    let mut found = Vec::new();
    visit(folder, folder, &mut found);
    found.sort();
    found
}
