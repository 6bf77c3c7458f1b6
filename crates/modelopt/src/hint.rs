//! What to try next after an error, as data: only the command line knows its flags.

use modelopt_runtime::RuntimeError;

/// Something that may help.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// Another runtime, or inputs that are like the real ones.
    AnotherRuntime {
        /// Runtimes that were tried, and did not do.
        tried: Vec<String>,
        /// Whether all of them loaded the model and only failed on the inputs.
        inputs: bool,
    },
    /// The library of a runtime: one that is there, or another than was given.
    Library {
        /// Whether one was found that does not do.
        given: bool,
    },
    /// Another folder for temporary files, where there is room.
    TemporaryFolder,
    /// Real inputs.
    RealInputs,
    /// Sizes for dimensions that the model leaves open, so that as many values as were given fit.
    OpenSizes,
    /// The output can be had without proof.
    WithoutProof,
    /// A defect of this library: a step or a layer can be left out.
    Defect,
    /// What to do about a file, in a sentence.
    File(&'static str),
}

impl Hint {
    /// After runtimes that were tried one after the other.
    pub(crate) fn after(failures: &[RuntimeError]) -> Self {
        let tried = failures.iter().filter_map(RuntimeError::runtime).map(str::to_owned).collect();
        let inputs = failures.iter().all(|error| matches!(error, RuntimeError::Run { .. }));
        Hint::AnotherRuntime { tried, inputs }
    }
}
