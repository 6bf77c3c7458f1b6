//! `.npz`: a zip of `.npy`.

use std::io::BufReader;
use std::path::Path;

use zip::ZipArchive;

use super::npy;
use super::sample::Arrays;
use crate::SampleError;

/// The arrays of an `.npz` that are named like inputs, and the names of the others.
pub(super) fn read(path: &Path, inputs: &[String]) -> Result<(Arrays, Vec<String>), SampleError> {
    let reader = BufReader::new(fs_err::File::open(path)?);
    let mut archive =
        ZipArchive::new(reader).map_err(|error| SampleError::invalid(path, None, error))?;
    let mut arrays = Arrays::new();
    let mut others = Vec::new();
    for index in 0..archive.len() {
        let entry =
            archive.by_index(index).map_err(|error| SampleError::invalid(path, None, error))?;
        let name = entry.name().strip_suffix(".npy").unwrap_or(entry.name()).to_owned();
        if inputs.contains(&name) {
            let available = entry.size();
            let tensor = npy::read(entry, available)
                .map_err(|error| SampleError::invalid(path, Some(&name), error))?;
            arrays.insert(name, tensor);
        } else {
            others.push(name);
        }
    }
    Ok((arrays, others))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::SimpleFileOptions;

    use super::*;

    fn npz(payload: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut zip = zip::ZipWriter::new(file.reopen().unwrap());
        zip.start_file("x.npy", SimpleFileOptions::default()).unwrap();
        zip.write_all(payload).unwrap();
        zip.finish().unwrap();
        file
    }

    #[test]
    fn damaged_archives_are_errors() {
        let inputs = ["x".to_owned()];
        let huge = npz(b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, \
            'shape': (99999999999,), }     \n");
        let error = read(huge.path(), &inputs).unwrap_err().to_string();
        assert!(error.contains("'x' in"), "{error}");
        let whole = std::fs::read(npz(b"short").path()).unwrap();
        let cut = tempfile::NamedTempFile::new().unwrap();
        for length in 0..whole.len() {
            std::fs::write(cut.path(), &whole[..length]).unwrap();
            assert!(read(cut.path(), &inputs).is_err());
        }
    }
}
