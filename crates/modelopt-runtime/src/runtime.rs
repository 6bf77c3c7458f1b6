//! What every runtime can do.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use indexmap::IndexMap;
use modelopt_graph::Tensor;
use serde::{Deserialize, Serialize};

use crate::RuntimeError;

/// Named outputs, in the order of the graph's outputs.
pub type Outputs = IndexMap<String, Tensor>;

/// Something that runs ONNX models.
pub trait Runtime: Send + Sync {
    /// Its name, as in [`RuntimeKind`].
    fn name(&self) -> &'static str;

    /// Its version.
    fn version(&self) -> String;

    /// Loads the model at a path; external data is found beside it.
    fn prepare(
        &self,
        model: &Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, RuntimeError>;
}

/// A model ready to run.
pub trait Session {
    /// Runs the model on one set of inputs, by name.
    ///
    /// Names that are not inputs of the model are ignored, and so are values for inputs that have
    /// a default: the default counts. Element types must be those the model declares; shapes must
    /// fit its fixed dimensions. Outputs have the element types the model declares.
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError>;
}

/// How a session runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionOptions {
    /// Threads that one operator may use; 0 for as many as the machine has.
    pub threads: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions { threads: 1 }
    }
}

/// Which runtime.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// The `tract` crate, embedded.
    #[default]
    Tract,
    /// The `rten` crate, embedded.
    Rten,
}

impl RuntimeKind {
    /// All of them, whether part of this build or not.
    pub const ALL: [RuntimeKind; 2] = [RuntimeKind::Tract, RuntimeKind::Rten];

    /// Name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            RuntimeKind::Tract => "tract",
            RuntimeKind::Rten => "rten",
        }
    }

    /// Whether it is part of this build.
    pub fn is_built(self) -> bool {
        match self {
            RuntimeKind::Tract => cfg!(feature = "tract"),
            RuntimeKind::Rten => cfg!(feature = "rten"),
        }
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RuntimeKind {
    type Err = RuntimeError;

    fn from_str(name: &str) -> Result<Self, RuntimeError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| RuntimeError::Unknown(name.to_owned()))
    }
}

/// The runtime of a kind, if it is part of this build.
pub fn runtime(kind: RuntimeKind) -> Result<Box<dyn Runtime>, RuntimeError> {
    match kind {
        #[cfg(feature = "tract")]
        RuntimeKind::Tract => Ok(Box::new(crate::Tract)),
        #[cfg(feature = "rten")]
        RuntimeKind::Rten => Ok(Box::new(crate::Rten)),
        #[allow(unreachable_patterns)] // Reached when a feature is off.
        _ => Err(RuntimeError::NotBuilt { runtime: kind.name() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in RuntimeKind::ALL {
            assert_eq!(kind.name().parse::<RuntimeKind>().unwrap(), kind);
            assert_eq!(runtime(kind).is_ok(), kind.is_built());
        }
        let error = "torch".parse::<RuntimeKind>().unwrap_err().to_string();
        assert_eq!(error, "no runtime is called 'torch'; there are tract and rten");
    }

    /// The crates do not tell their versions, so the constants here are held against the lock file.
    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));
        let lock = lock.unwrap();
        for (kind, package) in [(RuntimeKind::Tract, "tract-onnx"), (RuntimeKind::Rten, "rten")] {
            let Ok(runtime) = runtime(kind) else { continue };
            let entry = format!("name = \"{package}\"\nversion = \"{}\"", runtime.version());
            assert!(lock.contains(&entry), "{package} in Cargo.lock is not {}", runtime.version());
        }
    }
}
