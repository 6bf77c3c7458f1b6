//! Atomic saving: a temporary file beside the target, then a rename.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use modelopt_graph::{Constant, Model, Tensor};
use tempfile::NamedTempFile;

use crate::error::{Error, ErrorKind};
use crate::external::folder_of;
use crate::map::map_file;
use crate::piece::Piece;
use crate::write::{self, ExternalRange, Inline, Placement};

/// What one file can hold: protobuf's limit.
const ONE_FILE: u64 = i32::MAX as u64;

/// External tensors start at multiples of this, so that runtimes can map them.
const ALIGNMENT: usize = 4096;

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
/// target holds either the old file or the new one. What a killed process left is removed when
/// the same target is written next. Where the target is a link, the file it leads to is replaced.
#[derive(Debug)]
pub struct Staged {
    target: PathBuf,
    file: NamedTempFile,
    size: u64,
    /// The external file, locked as long as no model in place says that it is needed.
    data: Option<File>,
    /// Brings the file to the disk while it is read already.
    syncing: Option<JoinHandle<io::Result<()>>>,
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
        if let Some(syncing) = self.syncing.take() {
            // Syncing does not panic; if it did, nothing would say that the file is on the disk.
            let lost = || io::Error::other("the file could not be brought to the disk");
            let synced = syncing.join().unwrap_or_else(|_| Err(lost()));
            synced.map_err(|error| ErrorKind::Io(error).at(&self.target))?;
        }
        // The error names the target; where the file lies until then is nobody's concern.
        let renamed = std::fs::rename(self.file.path(), &self.target);
        renamed.map_err(|error| ErrorKind::Io(error).at(&self.target))?;
        sync_folder(&self.target);
        Ok(())
    }

    fn try_write(model: &Model, target: &Path, options: SaveOptions) -> Result<Self, ErrorKind> {
        let target = writable(target)?;
        let folder = folder_of(&target);
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        remove_stale(folder, &name);
        let mut rope = write::model(model, &Inline)?;
        let mut size = rope.len();
        let mut data = None;
        if options.external_data || size > ONE_FILE {
            let mut layout = Layout::of(model);
            if layout.size > 0 {
                data = Some(layout.write(folder, &name)?);
                rope = write::model(model, &layout)?;
                size = rope.len() + layout.size as u64;
            }
        }
        // From here on dropping the staging cleans up.
        let file = temporary(folder, &name)?;
        let mut staged = Staged { target, file, size, data, syncing: None };
        if rope.len() > ONE_FILE {
            return Err(ErrorKind::TooLarge(rope.len()));
        }
        write_all(staged.file.as_file(), |out| rope.visit(out))?;
        if let Ok(existing) = std::fs::metadata(&staged.target) {
            staged.file.as_file().set_permissions(existing.permissions())?;
        }
        let file = staged.file.as_file().try_clone()?;
        staged.syncing = Some(std::thread::spawn(move || file.sync_all()));
        if cfg!(windows) {
            // There a lock like this keeps others from reading, too.
            staged.file.as_file().unlock()?;
            staged.file.as_file().lock_shared()?;
        }
        Ok(staged)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // The model in place now says whether the data is needed. Unlocked rather than only closed:
        // a process that is just being started may have inherited the file.
        if let Some(data) = self.data.take() {
            let _ = data.unlock();
        }
        remove_unused_data(&self.target);
    }
}

/// The file to replace, behind any links.
fn writable(target: &Path) -> io::Result<PathBuf> {
    let refuse = |kind, why: &str| Err(io::Error::new(kind, why));
    if target.file_name().is_none() {
        return refuse(io::ErrorKind::InvalidInput, "the path has no file name");
    }
    match std::fs::metadata(target) {
        Ok(metadata) if metadata.is_dir() => {
            refuse(io::ErrorKind::IsADirectory, "it is a folder, not a file")
        }
        Ok(metadata) if !metadata.is_file() => {
            refuse(io::ErrorKind::InvalidInput, "it is not a regular file")
        }
        Ok(_) if target.is_symlink() => fs_err::canonicalize(target),
        Err(_) if target.is_symlink() => {
            refuse(io::ErrorKind::NotFound, "it is a link to a file that does not exist")
        }
        _ => Ok(target.to_owned()),
    }
}

/// A new temporary file, locked, so that no other process takes it for abandoned.
fn temporary(folder: &Path, name: &str) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    let prefix = format!(".{name}.");
    builder.prefix(&prefix).suffix(TEMPORARY);
    #[cfg(unix)]
    {
        // What the umask leaves of the usual rights of a new file, rather than private.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    loop {
        let file = builder.tempfile_in(folder).map_err(|error| without_path(&error))?;
        // Where files cannot be locked, others cannot either, and leave it alone.
        let _ = file.as_file().lock();
        // Another process may have removed it before it was locked.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// What the system said, without the name of the temporary file.
fn without_path(error: &io::Error) -> io::Error {
    let said = error.to_string();
    // As `tempfile` puts it.
    let cause = said.split(" at path ").next().unwrap_or_default();
    io::Error::new(error.kind(), cause.to_owned())
}

/// Writes what `visit` hands out.
fn write_all(
    file: &File,
    visit: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 18, file);
    visit(&mut |part| out.write_all(part))?;
    out.flush()
}

/// Makes a rename durable, where the system can; the rename is done in any case.
fn sync_folder(target: &Path) {
    if cfg!(unix)
        && let Ok(folder) = File::open(folder_of(target))
    {
        let _ = folder.sync_all();
    }
}

/// Removes temporary files that killed processes left for this target. A file that a living
/// process writes is locked.
fn remove_stale(folder: &Path, name: &str) {
    let prefix = format!(".{name}.");
    for path in files_like(folder, |file| file.starts_with(&prefix) && file.ends_with(TEMPORARY)) {
        remove_unless(&path, || false);
    }
}

/// Removes external files of earlier models at this target, and of models that never got there.
/// One that a staging is going to need is locked.
fn remove_unused_data(target: &Path) {
    let Some(name) = target.file_name() else { return };
    let name = name.to_string_lossy();
    for path in files_like(folder_of(target), |file| is_data_name(file, &name)) {
        // Asked while the file is locked: a commit unlocks its data after the rename.
        remove_unless(&path, || path.file_name().is_none_or(|data| mentions(target, data)));
    }
}

/// Removes a file that nobody has locked, unless it is `needed`. Best effort: what is left is
/// found again by the next run.
fn remove_unless(path: &Path, needed: impl Fn() -> bool) {
    if let Ok(file) = File::open(path)
        && file.try_lock().is_ok()
        && is_at(&file, path)
        && !needed()
    {
        let _ = fs_err::remove_file(path);
    }
}

/// Whether a model file has this text in it.
fn mentions(model: &Path, text: &OsStr) -> bool {
    let text = text.as_encoded_bytes();
    match map_file(model) {
        Ok(bytes) => bytes.windows(text.len()).any(|window| window == text),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
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
    /// Offset by [`Piece::key`]: a shared tensor is written once.
    offsets: HashMap<(usize, usize, i32), usize>,
    order: Vec<(usize, Piece)>,
    size: usize,
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
        if let Some(piece) = Piece::of(tensor).filter(|piece| piece.len() >= EXTERNAL_FROM)
            && let Entry::Vacant(entry) = self.offsets.entry(piece.key(tensor))
        {
            let offset = self.size.next_multiple_of(ALIGNMENT);
            entry.insert(offset);
            self.size = offset + piece.len();
            self.order.push((offset, piece));
        }
    }

    /// Makes sure that the external file is there, under the name that says what is in it.
    /// Returns it locked.
    fn write(&mut self, folder: &Path, name: &str) -> io::Result<File> {
        let mut digest = blake3::Hasher::new();
        self.visit(&mut |part| {
            digest.update_rayon(part);
            Ok(())
        })?;
        let digest = digest.finalize();
        self.file = data_name(name, &digest);
        let path = folder.join(&self.file);
        let mut written = false;
        loop {
            if let Some(file) = hold(&path)? {
                if written || hash_of(&path)? == digest {
                    return Ok(file);
                }
                fs_err::remove_file(&path)?;
            }
            let file = temporary(folder, name)?;
            write_all(file.as_file(), |out| self.visit(out))?;
            file.as_file().sync_all()?;
            written = place(file, &path)?;
        }
    }

    /// Hands out the content of the file: tensors, and what is between them.
    fn visit(&self, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        static PADDING: [u8; ALIGNMENT] = [0; ALIGNMENT];
        let mut at = 0;
        for (offset, piece) in &self.order {
            visit(PADDING.get(..offset - at).unwrap_or_default())?;
            at = offset + piece.len();
            piece.visit(&mut *visit)?;
        }
        Ok(())
    }
}

/// Gives a temporary file its name, unless there is one of that name: others may have locked
/// that one in the meantime. Returns whether it did.
fn place(file: NamedTempFile, path: &Path) -> io::Result<bool> {
    match file.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // Not every file system can do that.
        Err(refused) => fs_err::rename(refused.file.path(), path).map(|()| true),
    }
}

/// Opens and locks a file together with others that need it. None where there is no such file.
fn hold(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => {
            let _ = file.lock_shared();
            // Another process may have removed or replaced it before it was locked.
            Ok(is_at(&file, path).then_some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an open file is still the one at this path.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        match (file.metadata(), std::fs::metadata(path)) {
            (Ok(open), Ok(found)) => identity(open) == identity(found),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

fn hash_of(path: &Path) -> io::Result<blake3::Hash> {
    Ok(blake3::Hasher::new().update_rayon(&map_file(path)?).finalize())
}

impl Placement for Layout {
    fn external(&self, tensor: &Tensor) -> Option<ExternalRange<'_>> {
        let piece = Piece::of(tensor)?;
        let offset = *self.offsets.get(&piece.key(tensor))?;
        Some(ExternalRange { file: &self.file, offset, length: piece.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_give_are_data() {
        let name = data_name("m.onnx", &blake3::hash(b"weights"));
        assert!(is_data_name(&name, "m.onnx"));
        assert!(!is_data_name(&name, "m"));
        for other in ["m.onnx.data", "m.onnx_data", "m.onnx.0123456789abcdeg.data", "m.onnx..data"]
        {
            assert!(!is_data_name(other, "m.onnx"), "{other}");
        }
    }

    #[test]
    fn locked_and_needed_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let held = hold(&path).unwrap().unwrap();
        let second = hold(&path).unwrap().unwrap();
        drop(held);
        remove_unless(&path, || false);
        assert!(path.exists());
        drop(second);
        remove_unless(&path, || true);
        assert!(path.exists());
        remove_unless(&path, || false);
        assert!(!path.exists());
        assert!(hold(&path).unwrap().is_none());
    }

    #[test]
    fn a_name_that_is_taken_stays_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(place(temporary(folder.path(), "m").unwrap(), &path).unwrap());
        let held = hold(&path).unwrap().unwrap();
        assert!(!place(temporary(folder.path(), "m").unwrap(), &path).unwrap());
        assert!(is_at(&held, &path));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_model_mentions_its_data() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        assert!(!mentions(&path, OsStr::new("name")));
        std::fs::write(&path, "a name in it").unwrap();
        assert!(mentions(&path, OsStr::new("name")));
        assert!(!mentions(&path, OsStr::new("another")));
        // What cannot be read may mention anything.
        assert!(mentions(folder.path(), OsStr::new("name")));
    }
}
