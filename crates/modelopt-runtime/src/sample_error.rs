//! What can go wrong when getting samples.

use std::fmt;
use std::path::{Path, PathBuf};

use modelopt_graph::{DataType, element_count};

use crate::error::{list, one_line};
use crate::samples::{Meant, Misfit};

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
        "{}: no array for input {}; there are {}{meant}",
        path.display(), list(missing), list(found)
    )]
    Missing {
        /// File or folder.
        path: PathBuf,
        /// Inputs without an array.
        missing: Vec<String>,
        /// Arrays there are.
        found: Vec<String>,
        /// What was probably meant.
        meant: Meant,
    },
    /// An array is not what the model takes.
    #[error("{}: '{input}' {misfit}", path.display())]
    Unfit {
        /// File or folder.
        path: PathBuf,
        /// Input of the model.
        input: String,
        /// What it is, what the model wants, and how to make it that.
        misfit: Misfit,
    },
    /// An input that no sample can hold.
    #[error("input '{input}' is {ty}, and samples hold tensors only")]
    NoTensor {
        /// Input of the model.
        input: String,
        /// Its type.
        ty: String,
    },
    /// Nothing sensible can be invented for an input.
    #[error("cannot invent values for input '{input}' ({reason})")]
    NeedsSample {
        /// Input of the model.
        input: String,
        /// Why not.
        reason: Uninvented,
    },
    /// A `name=value` option is malformed or does not fit the model.
    #[error("'{option}': {problem}")]
    Option {
        /// The option as given, or the name in it.
        option: String,
        /// What is wrong with it, and what would be right.
        problem: OptionProblem,
    },
}

/// Why no values can be invented for an input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Uninvented {
    /// Nobody knows what values of this type are like.
    #[error("it is {0}")]
    OfType(String),
    /// The model does not say how many dimensions it has.
    #[error("its rank is not declared")]
    NoRank,
    /// It would have more elements than any real one.
    #[error("its shape {0:?} is too large")]
    TooLarge(Vec<usize>),
}

/// What is wrong with an option that fixes something of invented inputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionProblem {
    /// It is no size of a dimension.
    #[error("give it as NAME=SIZE, such as batch=1")]
    NoSize,
    /// It is no value of an input.
    #[error("give it as INPUT=VALUE or INPUT=VALUE,VALUE,… of numbers")]
    NoValue,
    /// There are neither one value nor as many as the input has elements.
    #[error(
        "{given} values for shape {shape:?}; give 1 or {}",
        element_count(shape).unwrap_or(usize::MAX)
    )]
    Count {
        /// How many there are.
        given: usize,
        /// The shape that the input gets.
        shape: Vec<usize>,
    },
    /// The element type does not hold the values.
    #[error("the values do not fit {0}")]
    Type(DataType),
    /// The model has no such input.
    #[error("the model has no such input; it has {}", list(inputs))]
    NoInput {
        /// Those that it has.
        inputs: Vec<String>,
    },
    /// The model has no such dimension, or its size is fixed.
    #[error("the model has no such open dimension; it has {}", list(dims))]
    NoDim {
        /// Those that are open.
        dims: Vec<String>,
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

    pub(crate) fn needs_sample(input: &str, reason: Uninvented) -> Self {
        SampleError::NeedsSample { input: input.to_owned(), reason }
    }

    pub(crate) fn option(option: impl Into<String>, problem: OptionProblem) -> Self {
        SampleError::Option { option: option.into(), problem }
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
