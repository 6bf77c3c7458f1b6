//! What is wrong with the settings of who may ask.

use std::io;
use std::path::PathBuf;

/// Why there is no guard by these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// A file with keys cannot be read.
    #[error("cannot read the keys in {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file with keys does not hold what it should.
    #[error("the keys in {} cannot be used: {reason}", .path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong, without any of the keys.
        reason: String,
    },
    /// A rate that lets nobody in, or that cannot be counted.
    #[error("{0} requests a second is no rate")]
    Rate(f64),
}
