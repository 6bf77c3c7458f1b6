//! What can go wrong with calibration files.

use std::io;
use std::path::PathBuf;

use modelopt_calibrate::{MergeError, Mismatch, ReadError, UnfinishedError};

/// Why there is no calibration, or why it cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// There are no samples to calibrate with: what is invented says nothing of real ranges.
    #[error("a model is calibrated with real samples, and there are none")]
    NoSamples,
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ReadError,
    },
    /// A file is of another model.
    #[error("{} is a calibration of another model: {mismatch}", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// Which layers differ.
        mismatch: Box<Mismatch>,
    },
    /// A file cannot be added to others.
    #[error("{} cannot be merged with {}: {source}", path.display(), with.display())]
    Merge {
        /// The file.
        path: PathBuf,
        /// The file that it does not go with, or the first of those before it.
        with: PathBuf,
        /// Why not.
        source: Box<MergeError>,
    },
    /// The progress of an earlier run cannot be read.
    #[error("{}: {source}", path.display())]
    Progress {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: UnfinishedError,
    },
    /// The progress of an earlier run is of another model.
    #[error("{} was begun with another model: {mismatch}", path.display())]
    BegunWithOtherModel {
        /// The file.
        path: PathBuf,
        /// Which layers differ.
        mismatch: Box<Mismatch>,
    },
    /// The progress of an earlier run was made in another runtime.
    #[error("{} was begun in {own}, and this would go on in {other}", path.display())]
    BegunInOtherRuntime {
        /// The file.
        path: PathBuf,
        /// Where it was begun.
        own: String,
        /// Where this runs.
        other: String,
    },
    /// The progress of an earlier run is of other samples.
    #[error("{} was begun with other samples, or another shard of them", path.display())]
    BegunWithOtherSamples {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}
