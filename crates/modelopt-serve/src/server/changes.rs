//! Whether files of models changed, without reading them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::engine::Source;

/// How deep a folder of models is: `NAME/VERSION/FILE`.
const DEPTH: usize = 3;

/// By what changed files are known: when they were written, and how long they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(PathBuf, Option<SystemTime>, u64)>);

impl Stamp {
    /// Of all files of a source. What cannot be read is not there.
    pub(super) fn of(source: &Source) -> Self {
        let mut files = Vec::new();
        match source {
            Source::File { path, .. } => add(&mut files, path),
            Source::Folder(root) => visit(&mut files, root, DEPTH),
        }
        files.sort();
        Stamp(files)
    }
}

fn visit(files: &mut Vec<(PathBuf, Option<SystemTime>, u64)>, folder: &Path, depth: usize) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        // Links are followed: deployments are often switched by one.
        if path.is_dir() && depth > 1 {
            visit(files, &path, depth - 1);
        } else {
            add(files, &path);
        }
    }
}

fn add(files: &mut Vec<(PathBuf, Option<SystemTime>, u64)>, path: &Path) {
    if let Ok(metadata) = std::fs::metadata(path) {
        files.push((path.to_owned(), metadata.modified().ok(), metadata.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_added_or_taken_away_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let source = Source::Folder(root.path().to_owned());
        let place = root.path().join("m/1");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("model.onnx"), "a").unwrap();
        let first = Stamp::of(&source);
        assert_eq!(Stamp::of(&source), first);
        std::fs::write(place.join("model.onnx"), "ab").unwrap();
        let longer = Stamp::of(&source);
        assert_ne!(longer, first);
        std::fs::write(place.join("weights.bin"), "").unwrap();
        assert_ne!(Stamp::of(&source), longer);
        std::fs::remove_file(place.join("weights.bin")).unwrap();
        assert_eq!(Stamp::of(&source), longer);
        let file = Source::File { name: "m".to_owned(), path: place.join("model.onnx") };
        let before = Stamp::of(&file);
        std::fs::remove_dir_all(&place).unwrap();
        assert_ne!(Stamp::of(&file), before);
    }
}
