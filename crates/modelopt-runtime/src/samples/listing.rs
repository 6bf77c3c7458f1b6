//! Where samples are, without reading them.

use std::path::{Path, PathBuf};

use super::folder::{entries, has_extension, is_data_set};
use super::sample::{Arrays, Sample, SampleKind};
use super::{npy, npz, pb};
use crate::SampleError;

/// Where one sample is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A file of arrays.
    Npz(PathBuf),
    /// A folder of serialized tensors.
    Set(PathBuf),
    /// A folder of arrays in a file each.
    Npys { folder: PathBuf, files: Vec<PathBuf> },
}

/// A sample and where it was found.
pub(super) struct Found {
    /// File or folder.
    pub(super) path: PathBuf,
    pub(super) sample: Sample,
    /// Arrays there that are no inputs.
    pub(super) others: Vec<String>,
}

/// The samples at a path, in order.
pub(super) fn list(path: &Path) -> Result<Vec<Place>, SampleError> {
    if !fs_err::metadata(path)?.is_dir() {
        if !has_extension(path, "npz") {
            return Err(SampleError::NoSamples { path: path.to_owned() });
        }
        return Ok(vec![Place::Npz(path.to_owned())]);
    }
    let entries = entries(path)?;
    let sets: Vec<_> = entries.iter().filter(|entry| is_data_set(entry)).cloned().collect();
    if !sets.is_empty() {
        return Ok(sets.into_iter().map(Place::Set).collect());
    }
    if entries.iter().any(|entry| pb::input_number(entry).is_some()) {
        return Ok(vec![Place::Set(path.to_owned())]);
    }
    let with =
        |extension| entries.iter().filter(move |entry| has_extension(entry, extension)).cloned();
    if with("npz").next().is_some() {
        return Ok(with("npz").map(Place::Npz).collect());
    }
    if with("npy").next().is_some() {
        return Ok(vec![Place::Npys { folder: path.to_owned(), files: with("npy").collect() }]);
    }
    Err(SampleError::NoSamples { path: path.to_owned() })
}

impl Place {
    /// File or folder.
    pub(super) fn path(&self) -> &Path {
        match self {
            Place::Npz(path) | Place::Set(path) | Place::Npys { folder: path, .. } => path,
        }
    }

    /// What reports call the sample.
    pub(super) fn name(&self) -> String {
        let path = self.path();
        let name = if matches!(self, Place::Npz(_)) { path.file_stem() } else { path.file_name() };
        name.map_or_else(|| "sample".into(), |name| name.to_string_lossy().into_owned())
    }

    /// How large its files are, in bytes.
    pub(super) fn bytes(&self) -> Result<u64, SampleError> {
        let size = |path: &PathBuf| Ok(fs_err::metadata(path)?.len());
        match self {
            Place::Npz(path) => size(path),
            Place::Set(path) => entries(path)?.iter().map(size).sum(),
            Place::Npys { files, .. } => files.iter().map(size).sum(),
        }
    }

    /// Reads it, for a model with these inputs, in this order.
    pub(super) fn read(&self, inputs: &[String]) -> Result<Found, SampleError> {
        let (mut arrays, others) = match self {
            Place::Npz(path) => npz::read(path, inputs)?,
            Place::Set(path) => pb::read(path, inputs)?,
            Place::Npys { files, .. } => read_npys(files, inputs)?,
        };
        let path = self.path().to_owned();
        if arrays.is_empty() && !inputs.is_empty() {
            if others.is_empty() {
                return Err(SampleError::NoArrays { path });
            }
            return Err(SampleError::NoMatch { path, found: others, inputs: inputs.to_vec() });
        }
        let ordered = inputs.iter().filter_map(|input| arrays.swap_remove_entry(input)).collect();
        let sample = Sample { name: self.name(), inputs: ordered, kind: SampleKind::Real };
        Ok(Found { path, sample, others })
    }
}

fn read_npys(files: &[PathBuf], inputs: &[String]) -> Result<(Arrays, Vec<String>), SampleError> {
    let mut arrays = Arrays::new();
    let mut others = Vec::new();
    for file in files {
        let Some(name) = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()) else {
            continue;
        };
        if !inputs.contains(&name) {
            others.push(name);
            continue;
        }
        let available = fs_err::metadata(file)?.len();
        let reader = std::io::BufReader::new(fs_err::File::open(file)?);
        let tensor = npy::read(reader, available)
            .map_err(|error| SampleError::invalid(file, None, error))?;
        arrays.insert(name, tensor);
    }
    Ok((arrays, others))
}
