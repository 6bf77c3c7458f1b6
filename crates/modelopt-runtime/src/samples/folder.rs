//! What is in a folder of samples.

use std::path::{Path, PathBuf};

use crate::SampleError;

/// What is in a folder, numbers within names in their numeric order, so that `set_10` is after
/// `set_2`.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, SampleError> {
    let mut entries = fs_err::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, std::io::Error>>()?;
    entries.sort_by_cached_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = trailing_number(path);
        let prefix = name.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_owned();
        (prefix, number, name)
    });
    Ok(entries)
}

/// The number at the end of a file's stem, such as 3 in `input_3.pb`.
pub(super) fn trailing_number(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    let digits = stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    stem.get(digits..)?.parse().ok()
}

pub(super) fn is_data_set(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with("test_data_set_") && path.is_dir()
}

pub(super) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|actual| actual.eq_ignore_ascii_case(extension))
}
