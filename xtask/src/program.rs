//! The program that the suites run, and where it finds onnxruntime.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::testdata;

/// The program as it was built last.
pub(crate) fn program() -> Result<PathBuf> {
    let name = format!("modelopt{}", env::consts::EXE_SUFFIX);
    let program = testdata::target_dir().join("release").join(name);
    ensure!(program.exists(), "{} is not built", program.display());
    Ok(program)
}

/// The search path with the Python environment first, in which the program finds onnxruntime.
pub(crate) fn path_with_python() -> Result<OsString> {
    let own = testdata::python().parent().map(Path::to_owned);
    let rest = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(own.into_iter().chain(env::split_paths(&rest)))?)
}
