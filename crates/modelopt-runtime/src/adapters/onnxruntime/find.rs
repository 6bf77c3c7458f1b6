//! Finds the shared library.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::RuntimeError;

/// Where to look for the library. Libraries do not read the environment: whoever runs the process
/// says what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibrarySearch {
    /// A file, or a folder that holds it, that the user names; nothing else is tried then.
    pub explicit: Option<PathBuf>,
    /// `ORT_DYLIB_PATH`: likewise.
    pub variable: Option<OsString>,
    /// The variable that holds the system's library path: `LD_LIBRARY_PATH` on Linux.
    pub library_path: Option<OsString>,
    /// `PATH`, for a Python that has the `onnxruntime` package.
    pub path: Option<OsString>,
}

/// The library, from the first of these that has one: the path that the user names,
/// `ORT_DYLIB_PATH`, the system's library path, the `onnxruntime` package of the Python on `PATH`.
pub(super) fn find(search: &LibrarySearch) -> Result<PathBuf, RuntimeError> {
    let variable = search.variable.as_ref().filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(named) = search.explicit.clone().or(variable) {
        return in_named(&named);
    }
    let folders = search.library_path.iter().flat_map(std::env::split_paths);
    let folders = folders.chain(SYSTEM_FOLDERS.iter().map(PathBuf::from));
    folders
        .filter(|folder| folder.is_absolute())
        .find_map(|folder| in_folder(&folder))
        .or_else(|| in_python(search.path.as_ref()?))
        .ok_or(RuntimeError::NoLibrary)
}

/// Where systems keep shared libraries.
const SYSTEM_FOLDERS: &[&str] = if cfg!(target_os = "linux") {
    &[
        "/usr/local/lib",
        "/usr/lib",
        "/usr/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
    ]
} else if cfg!(target_os = "macos") {
    &["/usr/local/lib", "/opt/homebrew/lib"]
} else {
    &[]
};

fn in_named(named: &Path) -> Result<PathBuf, RuntimeError> {
    if named.is_dir() {
        return in_folder(named)
            .or_else(|| in_folder(&named.join("capi")))
            .ok_or_else(|| RuntimeError::library(named, "the folder holds no such library"));
    }
    if named.is_file() {
        return std::path::absolute(named).map_err(|error| RuntimeError::library(named, error));
    }
    Err(RuntimeError::library(named, "there is no such file"))
}

/// The library in a folder: the plain name, or else the highest version.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let is_library = |name: &str| {
        if cfg!(windows) {
            name == "onnxruntime.dll"
        } else if cfg!(target_os = "macos") {
            let extension = Path::new(name).extension();
            name.starts_with("libonnxruntime.") && extension.is_some_and(|it| it == "dylib")
        } else {
            name.starts_with("libonnxruntime.so")
        }
    };
    let numbers =
        |name: &str| -> Vec<u64> { name.split('.').filter_map(|part| part.parse().ok()).collect() };
    let entries = fs_err::read_dir(folder).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let best = names.filter(|name| is_library(name)).max_by_key(|name| numbers(name))?;
    std::path::absolute(folder.join(best)).ok()
}

/// Prints the folder of the package without importing it. The current folder is left out: what
/// lies there is not installed.
const ASK_PYTHON: &str = "import sys, importlib.util; sys.path = [p for p in sys.path if p]; \
     s = importlib.util.find_spec('onnxruntime'); \
     print(s.submodule_search_locations[0] if s else '')";

fn in_python(path: &OsString) -> Option<PathBuf> {
    ["python3", "python"].into_iter().find_map(|python| {
        let python = std::env::split_paths(path)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(python).with_extension(std::env::consts::EXE_EXTENSION))
            .find(|python| python.is_file())?;
        let mut command = Command::new(python);
        command.args(["-c", ASK_PYTHON]).stdin(Stdio::null()).stderr(Stdio::null());
        let answer = command.output().ok().filter(|answer| answer.status.success())?;
        let folder = String::from_utf8(answer.stdout).ok()?;
        let folder = folder.trim();
        if folder.is_empty() { None } else { in_folder(&Path::new(folder).join("capi")) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_names_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let name = |name: &str| {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, "").unwrap();
            path
        };
        let file = if cfg!(windows) { "onnxruntime.dll" } else { "libonnxruntime.so" };
        if !cfg!(target_os = "linux") {
            return;
        }
        let explicit = name(&format!("a/{file}"));
        let (old, new) = (name("b/libonnxruntime.so.1.9.0"), name("b/libonnxruntime.so.1.32.0"));
        let system = name(&format!("c/{file}"));
        let search = LibrarySearch {
            explicit: Some(explicit.clone()),
            variable: old.parent().map(Into::into),
            library_path: system.parent().map(Into::into),
            path: None,
        };
        assert_eq!(find(&search).unwrap(), explicit);
        let search = LibrarySearch { explicit: None, ..search };
        assert_eq!(find(&search).unwrap(), new);
        let search = LibrarySearch { variable: None, ..search };
        assert_eq!(find(&search).unwrap(), system);
        let gone = folder.path().join("gone.so");
        let search = LibrarySearch { explicit: Some(gone), ..search };
        assert!(find(&search).unwrap_err().to_string().contains("no such file"));
    }
}
