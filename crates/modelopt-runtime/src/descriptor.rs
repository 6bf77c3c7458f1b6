//! What is to be known of a runtime before it is opened.

use std::path::{Path, PathBuf};

use modelopt_rewrite::{Capabilities, Known};

use crate::adapters::LibrarySearch;
use crate::{Runtime, RuntimeError};

/// Opens a runtime; `library` is the file of its library, if it has one.
pub(crate) type Open = fn(library: Option<&Path>) -> Result<Box<dyn Runtime>, RuntimeError>;

/// A runtime as data.
#[derive(Debug)]
pub(crate) struct RuntimeDescriptor {
    /// Name, as on the command line.
    pub(crate) name: &'static str,
    /// What it does with quantized operators.
    pub(crate) capabilities: Capabilities,
    /// The 16-bit types that it knows.
    pub(crate) sixteen_bits: Known<'static>,
    /// Which operator sets of `ai.onnx` it runs.
    pub(crate) opsets: Opsets,
    /// Where it comes from.
    pub(crate) source: Source,
    /// Whether there are execution providers and levels of optimisation to choose from.
    pub(crate) has_choices: bool,
    /// Whether it runs more models than the others, and returns values of every type.
    pub(crate) is_broadest: bool,
    /// How to open it; none where this build leaves it out.
    pub(crate) open: Option<Open>,
}

/// Which operator sets of `ai.onnx` a runtime runs.
#[derive(Debug)]
pub(crate) struct Opsets {
    /// The newest in which it runs what it runs in older ones, but for what follows.
    pub(crate) newest: i64,
    /// Operators of which it has no kernel from a version on that is not above the newest.
    pub(crate) without: &'static [(&'static str, i64)],
}

/// Where a runtime comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// It is part of the program.
    Embedded {
        /// Models of at least so many bytes are tried in it before others. By size and not by time,
        /// so that a model is proven in the same place on any machine.
        first_from_bytes: u64,
    },
    /// A shared library that the user has.
    Library {
        /// How to find it.
        find: fn(&LibrarySearch) -> Result<PathBuf, RuntimeError>,
        /// A command that installs it.
        install: &'static str,
    },
}
