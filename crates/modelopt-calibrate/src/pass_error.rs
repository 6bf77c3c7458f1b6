//! What can go wrong in a pass.

use std::path::Path;

use modelopt_runtime::{RuntimeError, SampleError};

/// Values that could not be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// The model could not be loaded with these values as outputs.
    #[error("{} cannot be shown: {source}", list(.values))]
    Open {
        /// Names of the values.
        values: Vec<String>,
        /// What the runtime said.
        source: Box<RuntimeError>,
    },
    /// The model did not run with these values as outputs.
    #[error("{} cannot be shown on sample {sample}: {source}", list(.values))]
    Run {
        /// Names of the values.
        values: Vec<String>,
        /// Name of the sample.
        sample: String,
        /// What the runtime said.
        source: Box<RuntimeError>,
    },
    /// A sample could not be read, or is not what the model takes.
    #[error(transparent)]
    Sample(Box<SampleError>),
    /// An input has elements that are NaN, in a pass that refuses them.
    #[error("sample '{sample}': input '{value}' has elements that are NaN")]
    NanInput {
        /// Name of the input.
        value: String,
        /// Name of the sample.
        sample: String,
    },
    /// The model makes NaN of inputs that have none, in a pass that refuses them.
    #[error(
        "sample '{sample}': '{value}' has elements that are NaN, the first in the model; the inputs \
         have none"
    )]
    NanMade {
        /// Name of the first value that has, in the order of the model.
        value: String,
        /// Name of the sample.
        sample: String,
    },
    /// The caller ended the pass.
    #[error("the samples were not all looked at")]
    Stopped,
}

fn list(values: &[String]) -> String {
    match values {
        [] => "nothing".to_owned(),
        [only] => format!("'{only}'"),
        [first, rest @ ..] => format!("'{first}' and {} more", rest.len()),
    }
}

impl PassError {
    /// What the runtime said, where it did not do its part.
    pub fn runtime_error(&self) -> Option<&RuntimeError> {
        match self {
            PassError::Open { source, .. } | PassError::Run { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The same about a file that the caller knows: see [`RuntimeError::about`].
    #[must_use]
    pub fn about(self, file: &Path) -> Self {
        match self {
            PassError::Open { values, source } => {
                PassError::Open { values, source: Box::new(source.about(file)) }
            }
            PassError::Run { values, sample, source } => {
                PassError::Run { values, sample, source: Box::new(source.about(file)) }
            }
            other => other,
        }
    }

    /// The same in words, with what a runtime said told by `say`.
    pub fn told(&self, say: impl Fn(&RuntimeError) -> String) -> String {
        match self {
            PassError::Open { values, source } => {
                format!("{} cannot be shown: {}", list(values), say(source))
            }
            PassError::Run { values, sample, source } => {
                format!("{} cannot be shown on sample {sample}: {}", list(values), say(source))
            }
            _ => self.to_string(),
        }
    }
}

impl From<SampleError> for PassError {
    fn from(error: SampleError) -> Self {
        PassError::Sample(Box::new(error))
    }
}
