//! External data: found inside the model's folder only, mapped once per file.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use crate::error::ErrorKind;
use crate::map;

/// Where a tensor says its data lies.
#[derive(Default)]
pub(crate) struct Location {
    file: String,
    offset: Option<String>,
    length: Option<String>,
}

impl Location {
    /// Takes one key and value of `external_data`; unknown keys (`checksum`, …) say nothing
    /// that is needed to find the bytes.
    pub(crate) fn set(&mut self, key: &str, value: String) {
        match key {
            "location" => self.file = value,
            "offset" => self.offset = Some(value),
            "length" => self.length = Some(value),
            _ => {}
        }
    }
}

/// The files with external data of one model.
pub(crate) struct ExternalFiles {
    /// The folder of the model's path and, where that is a link, the one of the file itself:
    /// download caches keep files elsewhere and link to them. None for a model that did not come
    /// from a file.
    folders: Vec<PathBuf>,
    mapped: HashMap<String, Bytes>,
}

impl ExternalFiles {
    pub(crate) fn beside(model: &Path) -> Self {
        let mut folders = vec![folder_of(model).to_owned()];
        if model.is_symlink() {
            folders
                .extend(fs_err::canonicalize(model).ok().map(|file| folder_of(&file).to_owned()));
        }
        ExternalFiles { folders, mapped: HashMap::new() }
    }

    pub(crate) fn none() -> Self {
        ExternalFiles { folders: Vec::new(), mapped: HashMap::new() }
    }

    /// Size of all files that were used.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.mapped.values().map(|file| file.len() as u64).sum()
    }

    /// The bytes at a location; `needed` is what shape and type ask for, where that is known.
    pub(crate) fn resolve(
        &mut self,
        location: &Location,
        tensor: &str,
        needed: Option<usize>,
    ) -> Result<Bytes, ErrorKind> {
        let wrong = |why: String| ErrorKind::External {
            tensor: tensor.to_owned(),
            location: location.file.clone(),
            why,
        };
        let number = |text: &Option<String>, name: &str| match text {
            None => Ok(None),
            Some(text) => text
                .trim()
                .parse::<usize>()
                .map(Some)
                .map_err(|_| wrong(format!("its {name} '{text}' is not a size in bytes"))),
        };
        let offset = number(&location.offset, "offset")?.unwrap_or(0);
        let length = number(&location.length, "length")?.or(needed);
        let file = self.map(&location.file).map_err(wrong)?;
        let length = length.unwrap_or_else(|| file.len().saturating_sub(offset));
        match offset.checked_add(length) {
            Some(end) if end <= file.len() => Ok(file.slice(offset..end)),
            _ => Err(wrong(format!(
                "bytes {offset} to {} are asked for, but the file has {}",
                offset.saturating_add(length),
                file.len()
            ))),
        }
    }

    fn map(&mut self, location: &str) -> Result<Bytes, String> {
        if let Some(file) = self.mapped.get(location) {
            return Ok(file.clone());
        }
        let path = self.contained(location)?;
        let file = map::map_file(&path).map_err(|error| error.to_string())?;
        self.mapped.insert(location.to_owned(), file.clone());
        Ok(file)
    }

    /// The path of a file inside the folders, or why it may not be read.
    fn contained(&self, location: &str) -> Result<PathBuf, String> {
        let relative = Path::new(location);
        if location.is_empty() {
            return Err("it names no file".to_owned());
        }
        for component in relative.components() {
            match component {
                Component::Normal(_) | Component::CurDir => {}
                Component::ParentDir => return Err("'..' is not allowed".to_owned()),
                _ => return Err("an absolute path is not allowed".to_owned()),
            }
        }
        if self.folders.is_empty() {
            return Err("the model was not read from a file".to_owned());
        }
        let folders = self.folders.iter().map(fs_err::canonicalize);
        let folders: Vec<PathBuf> =
            folders.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        for folder in &folders {
            match fs_err::canonicalize(folder.join(relative)) {
                Ok(path) if folders.iter().any(|folder| path.starts_with(folder)) => {
                    return Ok(path);
                }
                Ok(_) => return Err("it is a link that leaves the model's folder".to_owned()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("the file does not exist".to_owned())
    }
}

/// The folder that a path is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(file: &str, offset: &str, needed: Option<usize>) -> Result<Bytes, String> {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("inner/model.onnx");
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        std::fs::write(folder.path().join("inner/weights"), "0123456789").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../secret", folder.path().join("inner/link")).unwrap();
        let mut location = Location::default();
        location.set("location", file.to_owned());
        location.set("offset", offset.to_owned());
        ExternalFiles::beside(&model)
            .resolve(&location, "w", needed)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn bytes_inside_the_folder_are_found() {
        assert_eq!(resolve("weights", "2", Some(3)).unwrap(), "234");
        assert_eq!(resolve("./weights", "8", None).unwrap(), "89");
    }

    #[test]
    fn nothing_outside_the_folder_is_read() {
        assert!(resolve("../secret", "0", None).unwrap_err().contains("'..'"));
        assert!(resolve("/etc/hostname", "0", None).unwrap_err().contains("absolute"));
        #[cfg(unix)]
        assert!(resolve("link", "0", None).unwrap_err().contains("leaves"));
        assert!(resolve("absent", "0", None).unwrap_err().contains("does not exist"));
    }

    #[cfg(unix)]
    #[test]
    fn a_linked_model_finds_its_data_here_and_there() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for folder in ["cache", "snapshot"] {
            std::fs::create_dir(path(folder)).unwrap();
        }
        for (name, content) in [("cache/1", ""), ("cache/2", "linked"), ("cache/weights", "beside")]
        {
            std::fs::write(path(name), content).unwrap();
        }
        for (file, link) in [("../cache/1", "model.onnx"), ("../cache/2", "data")] {
            std::os::unix::fs::symlink(file, path("snapshot").join(link)).unwrap();
        }
        let find = |name: &str, model: &str| {
            let mut location = Location::default();
            location.set("location", name.to_owned());
            ExternalFiles::beside(&path(model)).resolve(&location, "w", None)
        };
        assert_eq!(find("data", "snapshot/model.onnx").unwrap(), "linked");
        assert_eq!(find("weights", "snapshot/model.onnx").unwrap(), "beside");
        // A model that is no link itself gains nothing by the links beside it.
        std::fs::write(path("snapshot/own.onnx"), "").unwrap();
        assert!(find("data", "snapshot/own.onnx").is_err());
        assert!(find("weights", "snapshot/own.onnx").is_err());
    }

    #[test]
    fn ranges_beyond_the_file_are_refused() {
        assert!(resolve("weights", "8", Some(3)).unwrap_err().contains("the file has 10"));
        assert!(resolve("weights", "18446744073709551615", Some(2)).is_err());
        assert!(resolve("weights", "-1", Some(2)).unwrap_err().contains("'-1'"));
        assert!(resolve("", "0", None).unwrap_err().contains("names no file"));
    }
}
