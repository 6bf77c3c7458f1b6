//! Where the test material lies. `cargo xtask setup` makes it; the functions here panic
//! where it is missing, so that a test fails rather than passes without having looked.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use fs_err as fs;

/// The test models by name, from small to large.
pub const MODELS: [&str; 8] =
    ["cls", "silero_vad_16k_op15", "silero_vad", "magika", "det", "rec", "nudenet", "rxnmap"];

const MISSING: &str = "run `cargo xtask setup` first";

/// The folder of the workspace's `Cargo.toml`.
///
/// # Panics
/// Never: this crate lies in the workspace.
pub fn workspace_root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask is a folder of the workspace").to_owned()
}

/// The build folder: `CARGO_TARGET_DIR`, from the workspace root where it is relative, or
/// `target`.
pub fn target_dir() -> PathBuf {
    let chosen = env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
    workspace_root().join(chosen.map_or_else(|| PathBuf::from("target"), PathBuf::from))
}

/// The folder of everything that set-up makes for tests.
pub(crate) fn generated() -> PathBuf {
    target_dir().join("testdata")
}

/// The folder of what other quantizers need and make.
pub(crate) fn peers() -> PathBuf {
    target_dir().join("peers")
}

/// The interpreter of a Python environment.
pub(crate) fn interpreter(environment: &Path) -> PathBuf {
    environment.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

pub(crate) fn python_unchecked() -> PathBuf {
    interpreter(&target_dir().join("python"))
}

/// The Python interpreter of the environment with onnx and onnxruntime.
///
/// # Panics
/// If set-up was not run.
pub fn python() -> PathBuf {
    existing(python_unchecked())
}

/// A test model's file; `name` is one of [`MODELS`].
///
/// # Panics
/// If there is no such model or set-up was not run.
pub fn model(name: &str) -> PathBuf {
    existing(generated().join("models").join(format!("{}.onnx", stem(name))))
}

/// All test models with their names, from small to large.
///
/// # Panics
/// If set-up was not run.
pub fn models() -> Vec<(&'static str, PathBuf)> {
    MODELS.iter().map(|&name| (name, model(name))).collect()
}

/// The folders of the ONNX node tests, sorted by name. Each holds `model.onnx` and
/// `test_data_set_0` with `input_J.pb` and `output_J.pb`.
///
/// # Panics
/// If set-up was not run.
pub fn node_tests() -> Vec<PathBuf> {
    let folder = existing(generated().join("nodes"));
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{MISSING}: {error}"));
    let mut cases: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    cases.sort();
    cases
}

/// The folder of the test models that the installed onnx package ships.
///
/// # Errors
/// If the interpreter cannot be asked.
///
/// # Panics
/// If set-up was not run.
pub fn backend_data() -> Result<PathBuf> {
    let script = "import onnx, os; print(os.path.dirname(onnx.__file__))";
    let output = Command::new(python()).args(["-c", script]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let package = String::from_utf8(output.stdout)?;
    Ok(existing(Path::new(package.trim()).join("backend/test/data")))
}

/// The folder that holds the library of the installed onnxruntime package.
///
/// # Errors
/// If the interpreter cannot be asked.
///
/// # Panics
/// If set-up was not run.
pub fn onnxruntime() -> Result<PathBuf> {
    let script = "import importlib.util as u; print(u.find_spec('onnxruntime').origin)";
    let output = Command::new(python()).args(["-c", script]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let package = String::from_utf8(output.stdout)?;
    Ok(existing(Path::new(package.trim()).with_file_name("capi")))
}

/// What is in a folder, sorted by name.
///
/// # Panics
/// If it cannot be read.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{error}"));
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The folder of a model's realistic samples, `NNN.npz`; for tuning and measuring.
///
/// # Panics
/// If there are none for this model or set-up was not run.
pub fn samples(name: &str) -> PathBuf {
    existing(generated().join("samples").join(stem(name)).join("real"))
}

/// The folder of a model's held-out samples, `NNN.npz`; nothing may be tuned on them.
///
/// # Panics
/// If there are none for this model or set-up was not run.
pub fn heldout(name: &str) -> PathBuf {
    existing(generated().join("samples").join(stem(name)).join("heldout"))
}

/// The folder of a small model that tools are known to go wrong on: `model.onnx`, its `samples`,
/// and other folders of samples where the case has some. `testdata/cases` says what is in each.
///
/// # Panics
/// If there is no such case or set-up was not run.
pub fn case(name: &str) -> PathBuf {
    existing(generated().join("cases").join(name))
}

/// The `.npz` files of a folder of samples, sorted by name.
///
/// # Panics
/// If the folder cannot be read.
pub fn npz_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{error}"));
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<_> = paths.filter(|p| p.extension().is_some_and(|e| e == "npz")).collect();
    files.sort();
    files
}

/// A file or folder checked in under `testdata/`.
///
/// # Panics
/// If it does not exist.
pub fn fixture(relative: impl AsRef<Path>) -> PathBuf {
    let path = workspace_root().join("testdata").join(relative);
    assert!(path.exists(), "no fixture {}", path.display());
    path
}

fn stem(name: &str) -> &str {
    name.strip_suffix(".onnx").unwrap_or(name)
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{MISSING} ({} is missing)", path.display());
    path
}

#[cfg(test)]
mod tests {
    use super::existing;

    #[test]
    #[should_panic(expected = "run `cargo xtask setup` first")]
    fn missing_material_says_what_to_do() {
        existing("no/such/file".into());
    }
}
