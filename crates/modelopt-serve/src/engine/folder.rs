//! Where models lie: one file, or a folder `NAME/VERSION/model.onnx`.
//!
//! Names come from clients, so a name is one folder of the folder of models and nothing else, and what
//! it leads to has to lie inside, whatever links there are.

use std::io;
use std::path::{Path, PathBuf};

use super::error::LoadError;

/// The file of a version.
const FILE: &str = "model.onnx";

/// The version of a model that is but one file.
pub(crate) const ONLY_VERSION: u64 = 1;

/// Where models lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One model.
    File {
        /// What it is called.
        name: String,
        /// Its file.
        path: PathBuf,
    },
    /// Models and versions: `NAME/VERSION/model.onnx`, with versions that are numbers.
    Folder(PathBuf),
}

impl Source {
    /// A folder of models, or a file that is called by its name without its ending.
    pub fn at(path: &Path) -> Self {
        if path.is_dir() {
            return Source::Folder(path.to_owned());
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Source::File { name, path: path.to_owned() }
    }

    /// The names of all models.
    pub(crate) fn names(&self) -> Result<Vec<String>, LoadError> {
        match self {
            Source::File { name, .. } => Ok(vec![name.clone()]),
            Source::Folder(root) => {
                let mut names: Vec<String> =
                    folders(root)?.into_iter().filter(|name| is_plain(name)).collect();
                names.sort();
                Ok(names)
            }
        }
    }

    /// The versions of a model, ascending.
    pub(crate) fn versions(&self, name: &str) -> Result<Vec<u64>, LoadError> {
        match self {
            Source::File { name: own, .. } if own == name => Ok(vec![ONLY_VERSION]),
            Source::File { .. } => Err(LoadError::NoModel(name.to_owned())),
            Source::Folder(root) => {
                let folder = model_folder(root, name)?;
                let mut versions: Vec<u64> =
                    folders(&folder)?.iter().filter_map(|version| number(version)).collect();
                versions.sort_unstable();
                Ok(versions)
            }
        }
    }

    /// The file of a version, without links.
    pub(crate) fn locate(&self, name: &str, version: u64) -> Result<PathBuf, LoadError> {
        match self {
            Source::File { name: own, path } if own == name && version == ONLY_VERSION => {
                resolved(path)
            }
            Source::File { .. } => Err(LoadError::NoModel(name.to_owned())),
            Source::Folder(root) => {
                let folder = model_folder(root, name)?;
                let within = format!("{name}/{version}/{FILE}");
                inside(root, &folder.join(version.to_string()).join(FILE), &within).map_err(
                    |error| match error {
                        LoadError::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
                            LoadError::NoVersion {
                                name: name.to_owned(),
                                version: version.to_string(),
                            }
                        }
                        other => other,
                    },
                )
            }
        }
    }
}

/// A version as it is written in one way only: `1`, not `01` or `+1`.
pub(crate) fn number(version: &str) -> Option<u64> {
    let parsed: u64 = version.parse().ok()?;
    (parsed.to_string() == version).then_some(parsed)
}

/// Whether a name is that of one file, and of no hidden one.
fn is_plain(name: &str) -> bool {
    let separates = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(separates)
}

fn model_folder(root: &Path, name: &str) -> Result<PathBuf, LoadError> {
    let missing = || LoadError::NoModel(name.to_owned());
    if !is_plain(name) {
        return Err(missing());
    }
    inside(root, &root.join(name), name).map_err(|error| match error {
        LoadError::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound => missing(),
        other => other,
    })
}

/// Where a path leads, if that is inside the root.
fn inside(root: &Path, path: &Path, said: &str) -> Result<PathBuf, LoadError> {
    let (root, path) = (resolved(root)?, resolved(path)?);
    if path.starts_with(&root) { Ok(path) } else { Err(LoadError::Outside(said.to_owned())) }
}

fn resolved(path: &Path) -> Result<PathBuf, LoadError> {
    fs_err::canonicalize(path).map_err(|cause| failed(path, cause))
}

/// The names of all folders in a folder.
fn folders(folder: &Path) -> Result<Vec<String>, LoadError> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(folder).map_err(|cause| failed(folder, cause))? {
        let entry = entry.map_err(|cause| failed(folder, cause))?;
        // A link to a folder is one, too: where it leads is looked at later.
        if entry.path().is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

fn failed(path: &Path, cause: io::Error) -> LoadError {
    LoadError::Io { path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        root
    }

    #[test]
    fn models_and_versions_are_found() {
        let root = planted(&[
            "b/2/model.onnx",
            "b/10/model.onnx",
            "b/01/model.onnx",
            "b/next/model.onnx",
            "a/1/model.onnx",
            ".git/1/model.onnx",
            "README.md",
        ]);
        let source = Source::at(root.path());
        assert_eq!(source.names().unwrap(), ["a", "b"]);
        assert_eq!(source.versions("b").unwrap(), [2, 10]);
        assert!(source.locate("b", 10).unwrap().ends_with("b/10/model.onnx"));
        assert!(matches!(source.locate("b", 3), Err(LoadError::NoVersion { .. })));
        assert!(matches!(source.locate("c", 1), Err(LoadError::NoModel(_))));
    }

    #[test]
    fn names_do_not_lead_out() {
        let root = planted(&["models/a/1/model.onnx", "secret/1/model.onnx"]);
        let source = Source::at(&root.path().join("models"));
        let absolute = root.path().join("secret");
        for name in
            ["../secret", "..", ".", "", "a/../../secret", "a\\1", absolute.to_str().unwrap()]
        {
            assert!(matches!(source.versions(name), Err(LoadError::NoModel(_))), "{name}");
            assert!(matches!(source.locate(name, 1), Err(LoadError::NoModel(_))), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_inside_and_refused_outside() {
        use std::os::unix::fs::symlink;

        let root = planted(&["models/a/1/model.onnx", "secret/1/model.onnx", "models/b/1/other"]);
        let models = root.path().join("models");
        symlink(models.join("a"), models.join("inside")).unwrap();
        symlink(root.path().join("secret"), models.join("outside")).unwrap();
        symlink(root.path().join("secret/1/model.onnx"), models.join("b/1/model.onnx")).unwrap();
        let source = Source::at(&models);
        assert!(source.locate("inside", 1).unwrap().ends_with("a/1/model.onnx"));
        let outside = source.locate("outside", 1).unwrap_err().to_string();
        assert_eq!(outside, "'outside' leads out of the folder of models");
        let file = source.locate("b", 1).unwrap_err().to_string();
        assert_eq!(file, "'b/1/model.onnx' leads out of the folder of models");
        assert!(matches!(source.versions("outside"), Err(LoadError::Outside(_))));
    }

    #[test]
    fn one_file_is_one_model_of_one_version() {
        let root = planted(&["digits.int8.onnx"]);
        let source = Source::at(&root.path().join("digits.int8.onnx"));
        assert_eq!(source.names().unwrap(), ["digits.int8"]);
        assert_eq!(source.versions("digits.int8").unwrap(), [1]);
        assert!(source.locate("digits.int8", 1).is_ok());
        assert!(source.locate("digits.int8", 2).is_err());
        assert!(source.versions("other").is_err());
    }
}
