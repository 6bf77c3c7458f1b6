//! The one place where files are mapped.

use std::io;
use std::path::Path;

use bytes::Bytes;
use memmap2::Mmap;

/// The content of a regular file, mapped. The mapping lives as long as any range of it.
///
/// As with every mapped file, a program that truncates the file meanwhile takes the pages away;
/// modelopt itself only ever replaces files by renaming.
pub(crate) fn map_file(path: &Path) -> io::Result<Bytes> {
    // Whoever calls says which file it is. Before it is opened: opening a pipe waits for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = std::fs::File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    #[allow(unsafe_code)]
    // SAFETY: the map is read-only, and no code of ours writes to a mapped file in place.
    let map = unsafe { Mmap::map(&file) }?;
    Ok(Bytes::from_owner(map))
}
