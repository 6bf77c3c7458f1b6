//! What is served: a model, a folder that holds one, or a folder of models and versions.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use modelopt::runtime::RuntimeKind;
use modelopt_serve::engine::Source;

use super::Platform;
use crate::ending::Usage;
use crate::sniff;

/// The file of a version, and of a folder that holds one model.
const FILE: &str = "model.onnx";
/// How much of a folder is told.
const TOLD: usize = 5;

/// Where models are.
pub(super) fn source(
    said: Option<&Path>,
    name: Option<&str>,
    platform: &Platform,
) -> Result<Source> {
    let Some(path) = said.or(platform.models.as_deref()) else {
        let message = "name a model, or a folder of models NAME/VERSION/model.onnx";
        return Err(Usage(message.to_owned()).into());
    };
    let source = found(path)?;
    match (name, source) {
        (None, source) => Ok(source),
        (Some(name), Source::File { path, .. }) => Ok(Source::File { name: name.to_owned(), path }),
        (Some(_), Source::Folder(_)) => {
            let message = "--name is for a single model; in a folder of models, folders name them";
            Err(Usage(message.to_owned()).into())
        }
    }
}

/// The embedded runtime for the model, or for the largest of several.
pub(super) fn embedded(source: &Source) -> Result<RuntimeKind> {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let largest = match source {
        Source::File { path, .. } => bytes(path),
        Source::Folder(root) => {
            files(root).iter().map(|file| bytes(file)).max().unwrap_or_default()
        }
    };
    let kinds = RuntimeKind::embedded_for(largest);
    kinds.first().copied().ok_or_else(|| anyhow!("no runtime is built into this program"))
}

fn found(path: &Path) -> Result<Source> {
    if !path.exists() {
        return Err(anyhow!("{}: there is no such file or folder", path.display()));
    }
    if !path.is_dir() {
        sniff::check_model(path)?;
        return Ok(Source::at(path));
    }
    if !files(path).is_empty() {
        return Ok(Source::at(path));
    }
    let single = path.join(FILE);
    if single.is_file() {
        return Ok(Source::at(&single));
    }
    let onnx: Vec<PathBuf> =
        entries(path).into_iter().filter(|file| is_model(file) && file.is_file()).collect();
    match onnx.as_slice() {
        [only] => Ok(Source::at(only)),
        _ => Err(anyhow!("{}", nothing(path))),
    }
}

/// The models of a folder `NAME/VERSION/model.onnx`.
fn files(root: &Path) -> Vec<PathBuf> {
    let versions = entries(root).into_iter().flat_map(|name| versions(&name));
    versions.collect()
}

/// The models of a folder `VERSION/model.onnx`.
fn versions(folder: &Path) -> Vec<PathBuf> {
    let is_number = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.parse::<u64>().is_ok())
    };
    let versions = entries(folder).into_iter().filter(is_number);
    versions.map(|version| version.join(FILE)).filter(|file| file.is_file()).collect()
}

/// Says what is there instead.
fn nothing(path: &Path) -> String {
    let shown = path.display();
    if !versions(path).is_empty() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let parent = path.parent().unwrap_or(path);
        return format!(
            "{shown} has the versions of one model: name the folder above it, {}, and the model is \
             called {name}",
            parent.display()
        );
    }
    let mut names: Vec<String> = entries(path)
        .iter()
        .map(|entry| {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if entry.is_dir() { format!("{name}/") } else { name }
        })
        .collect();
    let more = names.len().saturating_sub(TOLD);
    names.truncate(TOLD);
    let instead = match (names.len(), more) {
        (0, _) => "it is empty".to_owned(),
        (_, 0) => format!("it has {}", names.join(", ")),
        _ => format!("it has {} and {more} more", names.join(", ")),
    };
    format!(
        "{shown} has no model: {instead}; models are NAME/VERSION/{FILE} in it, with numbers as \
         versions, or one .onnx file"
    )
}

fn is_model(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, [8, 7]).unwrap();
        }
        root
    }

    fn told(files: &[&str]) -> String {
        let root = folder(files);
        let error = found(root.path()).unwrap_err().to_string();
        error.replace(&root.path().display().to_string(), "ROOT")
    }

    #[test]
    fn a_folder_is_a_repository_or_holds_one_model() {
        let root = folder(&["a/1/model.onnx", "b/x.txt"]);
        assert_eq!(found(root.path()).unwrap(), Source::Folder(root.path().to_owned()));
        for files in [["model.onnx", "other.onnx"], ["net.onnx", "notes.txt"]] {
            let root = folder(&files);
            let path = root.path().join(files[0]);
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert_eq!(found(root.path()).unwrap(), Source::File { name, path });
        }
    }

    #[test]
    fn where_there_is_no_model_what_there_is_is_told() {
        assert!(told(&[]).starts_with("ROOT has no model: it is empty; models are NAME/VERSION/"));
        let several = told(&["a.onnx", "b.onnx", "c/d.txt"]);
        assert!(several.contains("it has a.onnx, b.onnx, c/;"), "{several}");
        let many = told(&["1.a", "2.a", "3.a", "4.a", "5.a", "6.a", "7.a"]);
        assert!(many.contains("5.a and 2 more;"), "{many}");
        let versions = told(&["1/model.onnx"]);
        assert!(versions.contains("ROOT has the versions of one model"), "{versions}");
    }

    #[test]
    fn a_single_model_can_be_called_otherwise() {
        let root = folder(&["net.onnx"]);
        let platform = Platform { models: Some(root.path().to_owned()), ..Platform::default() };
        let named = source(None, Some("digits"), &platform).unwrap();
        let path = root.path().join("net.onnx");
        assert_eq!(named, Source::File { name: "digits".to_owned(), path });
        assert!(source(None, None, &Platform::default()).unwrap_err().is::<Usage>());
        let root = folder(&["a/1/model.onnx"]);
        assert!(source(Some(root.path()), Some("x"), &platform).unwrap_err().is::<Usage>());
    }
}
