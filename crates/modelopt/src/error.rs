//! Errors of the library: what failed, on which file, and what to try.

use std::path::Path;

use modelopt_calibrate::{PassError as ObservingError, Unobservable};
use modelopt_onnx::Error as OnnxError;
use modelopt_rewrite::engine::BrokenRewrite;
use modelopt_rewrite::upgrade::UpgradeError;
use modelopt_rewrite::{PassError, PlanError};
use modelopt_runtime::{OptionProblem, RuntimeError, SampleError};
use modelopt_validate::CompareError;

use crate::calibrating::CalibrationError;
use crate::hint::Hint;
use crate::metric::{MetricError, MetricMistake};
use crate::scratch::Unwritten;

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<ErrorKind>);

/// What failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A model could not be read or written.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The plan or a pattern is not usable.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A rewrite broke the model.
    #[error(transparent)]
    Rewrite(#[from] BrokenRewrite),
    /// A pass of the preparation failed or broke the model.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The operator set cannot be raised.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// Samples could not be read or made.
    #[error(transparent)]
    Samples(#[from] SampleError),
    /// No runtime can run the original.
    #[error("no runtime at hand runs the model, so nothing can be proven:{}", list(.0))]
    NoRuntime(Vec<RuntimeError>),
    /// The runtime that was asked for cannot be used.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The original did not run on a sample.
    #[error(transparent)]
    Run(#[from] CompareError),
    /// The model that is to be judged does not run.
    #[error("{0}")]
    Candidate(String),
    /// A value cannot be observed.
    #[error(transparent)]
    Unobservable(#[from] Unobservable),
    /// The model did not run with what is to be observed as outputs, or somebody stopped it.
    #[error(transparent)]
    Observing(#[from] ObservingError),
    /// There is no calibration, or it cannot be used.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// The model asks for more than any machine has.
    #[error("the model cannot be run here: {0}")]
    Unreasonable(String),
    /// The user's own metric has no figure.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// The settings of the user's metric do not make sense together.
    #[error(transparent)]
    MetricSettings(#[from] MetricMistake),
    /// There is no artifact, because the candidate failed the limits or the run was stopped.
    #[error("no artifact was emitted{}", failed_checks(failed))]
    Refused {
        /// Names of the checks that failed; none if the run was stopped.
        failed: Vec<String>,
    },
    /// A configuration file or option is wrong.
    #[error("{0}")]
    Config(String),
    /// A model that is to be run cannot be written.
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
    /// A file other than a model could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Whether the user's inputs do not fit the model.
fn is_of_inputs(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::MissingInput { .. } | RuntimeError::Mismatch { .. })
}

fn failed_checks(failed: &[String]) -> String {
    match failed {
        [] => String::new(),
        failed => format!(": the candidate failed on {}", failed.join(", ")),
    }
}

/// What each said, a line each; the model is the one that is spoken of.
fn list(errors: &[RuntimeError]) -> String {
    let lines = errors.iter().map(|error| format!("\n  {}", error.without_path()));
    lines.collect()
}

impl Error {
    /// What failed.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// What failed, for reports: they travel, so they do not say where models lie.
    pub(crate) fn without_path(&self) -> String {
        match self.kind() {
            ErrorKind::Runtime(error) => error.without_path(),
            ErrorKind::NoRuntime(errors) => {
                errors.iter().map(RuntimeError::without_path).collect::<Vec<_>>().join("; ")
            }
            kind => kind.to_string(),
        }
    }

    /// The same about a file that the caller knows, where it is about a copy of ours.
    pub(crate) fn about(mut self, file: &Path) -> Self {
        if let ErrorKind::Onnx(error) = &mut *self.0 {
            file.clone_into(&mut error.path);
        }
        self
    }

    /// Whether nothing can be run here at all, whatever the model.
    pub(crate) fn is_of_machine(&self) -> bool {
        match self.kind() {
            ErrorKind::Unwritten(error) => error.is_of_machine(),
            ErrorKind::Runtime(error) | ErrorKind::Run(CompareError::Run { source: error, .. }) => {
                error.is_of_machine()
            }
            ErrorKind::Observing(error) => {
                error.runtime_error().is_some_and(RuntimeError::is_of_machine)
            }
            _ => false,
        }
    }

    /// Whether the user gave something that does not fit the model.
    pub(crate) fn is_mistake(&self) -> bool {
        match self.kind() {
            ErrorKind::Samples(error) => {
                !matches!(error, SampleError::NeedsSample { .. } | SampleError::NoTensor { .. })
            }
            _ => false,
        }
    }

    /// What to try next, where there is something to try.
    pub fn hint(&self) -> Option<Hint> {
        match self.kind() {
            ErrorKind::Onnx(error) => error.hint().map(Hint::File),
            // What is wrong with the inputs is wrong in any runtime.
            ErrorKind::NoRuntime(failures) if failures.iter().any(is_of_inputs) => None,
            ErrorKind::NoRuntime(failures) => Some(Hint::after(failures)),
            ErrorKind::Runtime(error) => after(error),
            ErrorKind::Observing(error) => error.runtime_error().and_then(after),
            ErrorKind::Unwritten(Unwritten::Folder { .. }) => Some(Hint::TemporaryFolder),
            ErrorKind::Run(_)
            | ErrorKind::Candidate(_)
            | ErrorKind::Samples(SampleError::NeedsSample { .. }) => Some(Hint::RealInputs),
            ErrorKind::Samples(SampleError::Option {
                problem: OptionProblem::Count { .. },
                ..
            }) => Some(Hint::OpenSizes),
            ErrorKind::Unreasonable(_) | ErrorKind::Samples(SampleError::NoTensor { .. }) => {
                Some(Hint::WithoutProof)
            }
            ErrorKind::Rewrite(_)
            | ErrorKind::Pass(_)
            | ErrorKind::Upgrade(UpgradeError::Broken(_)) => Some(Hint::Defect),
            _ => None,
        }
    }
}

/// What to try after what a runtime said.
fn after(error: &RuntimeError) -> Option<Hint> {
    match error {
        RuntimeError::NoLibrary => Some(Hint::Library { given: false }),
        RuntimeError::Library { .. } => Some(Hint::Library { given: true }),
        RuntimeError::Unwritten(_) => Some(Hint::TemporaryFolder),
        // It says what there is, or there is nothing that would help.
        RuntimeError::Provider { .. } => None,
        error if error.is_of_machine() || is_of_inputs(error) => None,
        failure => Some(Hint::after(std::slice::from_ref(failure))),
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Error(Box::new(kind))
    }
}

macro_rules! through_kind {
    ($($from:ty),* $(,)?) => {$(
        impl From<$from> for Error {
            fn from(error: $from) -> Self {
                Error(Box::new(error.into()))
            }
        }
    )*};
}

through_kind!(
    OnnxError,
    PlanError,
    BrokenRewrite,
    PassError,
    UpgradeError,
    SampleError,
    RuntimeError,
    CompareError,
    Unobservable,
    ObservingError,
    CalibrationError,
    MetricError,
    MetricMistake,
    Unwritten,
    std::io::Error,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_against_unusable_inputs_is_data() {
        let hint = |error: SampleError| Error::from(error).hint();
        let reason = modelopt_runtime::Uninvented::NoRank;
        let unranked = SampleError::NeedsSample { input: "x".into(), reason };
        assert_eq!(hint(unranked), Some(Hint::RealInputs));
        let map = SampleError::NoTensor { input: "x".into(), ty: "map".into() };
        assert_eq!(hint(map), Some(Hint::WithoutProof));
        let problem = OptionProblem::Count { given: 2, shape: vec![3] };
        let count = SampleError::Option { option: "x".into(), problem };
        assert_eq!(hint(count), Some(Hint::OpenSizes));
        let option = SampleError::Option { option: "x".into(), problem: OptionProblem::NoSize };
        assert_eq!(hint(option), None);
    }
}

#[cfg(test)]
mod edges;
