//! What can go wrong when getting samples.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{list, one_line};

/// Why samples could not be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A file could not be read.
    #[error("cannot read samples: {0}")]
    Io(#[from] std::io::Error),
    /// A file is not what it should be.
    #[error("cannot read {}: {message}", place(path, entry.as_deref()))]
    Invalid {
        /// File.
        path: PathBuf,
        /// Array inside of it, if it holds several.
        entry: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// The path holds nothing that is a sample.
    #[error(
        "{} holds no samples; give an .npz, a folder of them, a folder of NAME.npy, \
         or a folder with test_data_set_*", path.display()
    )]
    NoSamples {
        /// File or folder.
        path: PathBuf,
    },
    /// No array is named like an input of the model.
    #[error(
        "no array in {} is named like an input of the model: it has {}, the model wants {}",
        path.display(), list(found), list(inputs)
    )]
    NoMatch {
        /// File or folder.
        path: PathBuf,
        /// Arrays there are.
        found: Vec<String>,
        /// Inputs of the model.
        inputs: Vec<String>,
    },
    /// A file holds nothing.
    #[error("{} holds no arrays", path.display())]
    NoArrays {
        /// File or folder.
        path: PathBuf,
    },
    /// An input of the model has no array.
    #[error(
        "{}: no array for input {}; there are {}{advice}",
        path.display(), list(missing), list(found)
    )]
    Missing {
        /// File or folder.
        path: PathBuf,
        /// Inputs without an array.
        missing: Vec<String>,
        /// Arrays there are.
        found: Vec<String>,
        /// What was probably meant, behind a semicolon, or nothing.
        advice: String,
    },
    /// An array is not what the model takes.
    #[error("{}: '{input}' {message}", path.display())]
    Unfit {
        /// File or folder.
        path: PathBuf,
        /// Input of the model.
        input: String,
        /// What it is, what the model wants, and how to make it that.
        message: String,
    },
    /// An input that no sample can hold.
    #[error(
        "input '{input}' is {ty}, and samples hold tensors only; --no-validate emits without proof"
    )]
    NoTensor {
        /// Input of the model.
        input: String,
        /// Its type.
        ty: String,
    },
    /// Nothing sensible can be invented for an input.
    #[error("cannot invent values for input '{input}' ({reason}); give real ones with --samples")]
    NeedsSample {
        /// Input of the model.
        input: String,
        /// Why not.
        reason: String,
    },
    /// A `name=value` option is malformed or does not fit the model.
    #[error("'{option}': {message}")]
    Option {
        /// The option as given.
        option: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
}

impl SampleError {
    pub(crate) fn invalid(path: &Path, entry: Option<&str>, cause: impl fmt::Display) -> Self {
        SampleError::Invalid {
            path: path.to_owned(),
            entry: entry.map(str::to_owned),
            message: one_line(&cause.to_string()),
        }
    }

    pub(crate) fn needs_sample(input: &str, reason: impl Into<String>) -> Self {
        SampleError::NeedsSample { input: input.to_owned(), reason: reason.into() }
    }

    pub(crate) fn option(option: impl Into<String>, message: impl Into<String>) -> Self {
        SampleError::Option { option: option.into(), message: message.into() }
    }
}

fn place(path: &Path, entry: Option<&str>) -> String {
    match entry {
        Some(entry) => format!("'{entry}' in {}", path.display()),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_and_where() {
        let error = SampleError::invalid(Path::new("a.npz"), Some("x"), "cut\nshort");
        assert_eq!(error.to_string(), "cannot read 'x' in a.npz: cut short");
    }
}
