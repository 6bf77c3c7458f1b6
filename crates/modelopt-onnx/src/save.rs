//! Atomic saving: a temporary file beside the target, then a rename.

use std::collections::HashMap;
use std::fs::TryLockError;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use modelopt_graph::{Constant, Model, Tensor};
use tempfile::NamedTempFile;

use crate::error::{Error, ErrorKind};
use crate::write::{self, ExternalRange, Inline, Placement, Rope};

/// What one file can hold: protobuf's limit.
const ONE_FILE: u64 = i32::MAX as u64;

/// External tensors start at multiples of this, so that runtimes can map them.
const ALIGNMENT: u64 = 4096;

/// Initializers from this size on go to the external file, when there is one.
const EXTERNAL_FROM: usize = 1024;

/// What temporary files end in.
const TEMPORARY: &str = ".modelopt-tmp";

/// How to save.
#[derive(Clone, Copy, Debug, Default)]
pub struct SaveOptions {
    /// Put large initializers into an external file even where one file would do.
    pub external_data: bool,
}

/// A model written beside its target but not yet in its place.
///
/// [`Staged::commit`] renames it into place; dropping it removes it. Killed at any moment, the
/// target holds either the old file or the new one. A temporary file that a killed process left
/// is removed by the next [`Staged::write`] for the same target.
#[derive(Debug)]
pub struct Staged {
    target: PathBuf,
    file: NamedTempFile,
    size: u64,
    /// The external file, if this staging made it.
    data: Option<PathBuf>,
    committed: bool,
}

impl Staged {
    /// Writes `model` to a temporary file in the folder of `target`.
    pub fn write(model: &Model, target: &Path, options: SaveOptions) -> Result<Self, Error> {
        Self::try_write(model, target, options).map_err(|kind| kind.at(target))
    }

    /// Where the staged file is, for running it.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Size of the model in bytes, external data included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Puts the model in its place.
    pub fn commit(mut self) -> Result<(), Error> {
        let target = self.target.clone();
        let at = |error: std::io::Error| ErrorKind::Io(error).at(&target);
        // The lock that marks the file as in use must not outlive the rename.
        self.file.as_file().unlock().map_err(at)?;
        fs_err::rename(self.file.path(), &target).map_err(at)?;
        self.committed = true;
        sync_folder(&target).map_err(at)?;
        remove_old_data(&target, self.data.as_deref());
        Ok(())
    }

    fn try_write(model: &Model, target: &Path, options: SaveOptions) -> Result<Self, ErrorKind> {
        let folder = folder_of(target);
        let name = target.file_name().ok_or(ErrorKind::Missing("file name to write to"))?;
        let name = name.to_string_lossy().into_owned();
        remove_stale(folder, &name);
        let mut rope = write::model(model, &Inline)?;
        let mut size = rope.len();
        let mut data = None;
        if options.external_data || size > ONE_FILE {
            let layout = Layout::of(model);
            if layout.size > 0 {
                let (layout, made) = layout.write(folder, &name)?;
                data = made;
                rope = write::model(model, &layout)?;
                size = rope.len() + layout.size;
            }
            if rope.len() > ONE_FILE {
                return Err(ErrorKind::TooLarge(rope.len()));
            }
        }
        let file = temporary(folder, &name)?;
        // From here on dropping the staging cleans up.
        let staged = Staged { target: target.to_owned(), file, size, data, committed: false };
        staged.file.as_file().lock()?;
        write_rope(&rope, staged.file.as_file())?;
        if let Ok(existing) = fs_err::metadata(target) {
            staged.file.as_file().set_permissions(existing.permissions())?;
        }
        staged.file.as_file().sync_all()?;
        Ok(staged)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed
            && let Some(data) = &self.data
        {
            // Best effort: what is left is found and removed by the next run.
            let _ = fs_err::remove_file(data);
        }
    }
}

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn temporary(folder: &Path, name: &str) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    let prefix = format!(".{name}.");
    builder.prefix(&prefix).suffix(TEMPORARY);
    #[cfg(unix)]
    {
        // What the umask leaves of the usual rights of a new file, rather than private.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

fn write_rope(rope: &Rope, file: &std::fs::File) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 18, file);
    for part in rope.parts() {
        out.write_all(part)?;
    }
    out.flush()
}

/// Makes a rename durable.
fn sync_folder(target: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        std::fs::File::open(folder_of(target))?.sync_all()?;
    }
    Ok(())
}

/// Removes temporary files that killed processes left for this target. A file that a living
/// process writes is locked.
fn remove_stale(folder: &Path, name: &str) {
    let prefix = format!(".{name}.");
    for path in files_like(folder, |file| file.starts_with(&prefix) && file.ends_with(TEMPORARY)) {
        let abandoned = match std::fs::File::open(&path).map(|file| file.try_lock()) {
            Ok(Ok(())) => true,
            Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) | Err(_) => false,
        };
        if abandoned {
            let _ = fs_err::remove_file(path);
        }
    }
}

/// Removes external files of earlier models at this target.
fn remove_old_data(target: &Path, current: Option<&Path>) {
    let Some(name) = target.file_name() else { return };
    let name = name.to_string_lossy();
    for path in files_like(folder_of(target), |file| is_data_name(file, &name)) {
        if current.is_none_or(|current| current.file_name() != path.file_name()) {
            let _ = fs_err::remove_file(path);
        }
    }
}

fn files_like(folder: &Path, matches: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(&matches))
        .map(|entry| entry.path())
        .collect()
}

/// The name of an external file says what is in it, so that the old model keeps its own data
/// until the rename and a crash in between leaves both whole.
fn data_name(model: &str, digest: &blake3::Hash) -> String {
    let digest = digest.to_hex();
    format!("{model}.{}.data", digest.get(..16).unwrap_or_default())
}

fn is_data_name(file: &str, model: &str) -> bool {
    file.strip_prefix(model)
        .and_then(|rest| rest.strip_prefix('.'))
        .and_then(|rest| rest.strip_suffix(".data"))
        .is_some_and(|digest| {
            digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}

/// Which initializers go where in the external file.
#[derive(Default)]
struct Layout {
    file: String,
    /// Offset by the address of the payload: a shared tensor is written once.
    offsets: HashMap<(usize, usize), u64>,
    order: Vec<(u64, Bytes)>,
    size: u64,
}

impl Layout {
    fn of(model: &Model) -> Self {
        let mut layout = Layout::default();
        for graph in model.live_graphs() {
            for &value in model.initializers_of(graph) {
                if let Some(Constant::Dense(tensor)) = model.value(value).constant() {
                    layout.add(tensor);
                }
            }
        }
        layout
    }

    fn add(&mut self, tensor: &Arc<Tensor>) {
        if let Some(bytes) = tensor.bytes().filter(|bytes| bytes.len() >= EXTERNAL_FROM)
            && let std::collections::hash_map::Entry::Vacant(entry) = self.offsets.entry(key(bytes))
        {
            let offset = self.size.next_multiple_of(ALIGNMENT);
            entry.insert(offset);
            self.order.push((offset, bytes.clone()));
            self.size = offset + bytes.len() as u64;
        }
    }

    /// Writes the external file under its final name, which is new unless the very same data
    /// is there already; returns its path in the former case.
    fn write(mut self, folder: &Path, name: &str) -> Result<(Self, Option<PathBuf>), ErrorKind> {
        let file = temporary(folder, name)?;
        file.as_file().lock()?;
        let mut digest = blake3::Hasher::new();
        let mut out = BufWriter::with_capacity(1 << 18, file.as_file());
        let mut at = 0;
        for (offset, bytes) in &self.order {
            let padding = vec![0; usize::try_from(offset - at).unwrap_or(0)];
            for piece in [padding.as_slice(), bytes] {
                digest.update_rayon(piece);
                out.write_all(piece)?;
            }
            at = offset + bytes.len() as u64;
        }
        out.flush()?;
        drop(out);
        file.as_file().sync_all()?;
        self.file = data_name(name, &digest.finalize());
        let path = folder.join(&self.file);
        if path.exists() {
            return Ok((self, None));
        }
        file.as_file().unlock()?;
        fs_err::rename(file.path(), &path)?;
        Ok((self, Some(path)))
    }
}

fn key(bytes: &Bytes) -> (usize, usize) {
    (bytes.as_ptr() as usize, bytes.len())
}

impl Placement for Layout {
    fn external(&self, tensor: &Tensor) -> Option<ExternalRange<'_>> {
        let bytes = tensor.bytes()?;
        let offset = *self.offsets.get(&key(bytes))?;
        Some(ExternalRange { file: &self.file, offset, length: bytes.len() as u64 })
    }
}
