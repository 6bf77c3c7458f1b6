//! Why there is no figure for a plan: what is wrong with the plan is told apart from what is wrong
//! here, so that a full disk is not taken for a bad plan.

use modelopt_runtime::{FailureKind, RuntimeError};

use crate::error::Error;
use crate::scratch::Unwritten;

/// Why a plan was not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TrialError {
    /// It is not the plan: a full disk, no memory for this program, a missing library. No other plan
    /// would fare better, so it ends whatever is going on.
    #[error(transparent)]
    Environment(#[from] Error),
    /// What ran the candidate did not survive it.
    #[error("{0}")]
    Crashed(String),
    /// The plan cannot be carried out, or the runtime refused the candidate.
    #[error("{0}")]
    Refused(String),
}

impl TrialError {
    /// The error if it is one of the environment, and what it says of the plan otherwise.
    pub(crate) fn of_plan(self) -> Result<String, Error> {
        match self {
            TrialError::Environment(error) => Err(error),
            TrialError::Crashed(why) | TrialError::Refused(why) => Ok(why),
        }
    }
}

/// A runtime's refusal of a candidate, without the place where that was written.
impl From<RuntimeError> for TrialError {
    fn from(error: RuntimeError) -> Self {
        match error.kind() {
            FailureKind::Environment => TrialError::Environment(error.into()),
            FailureKind::Crashed => TrialError::Crashed(error.without_path()),
            FailureKind::Refused => TrialError::Refused(error.without_path()),
        }
    }
}

/// A message about a plan that cannot be carried out.
impl From<String> for TrialError {
    fn from(why: String) -> Self {
        TrialError::Refused(why)
    }
}

impl From<modelopt_rewrite::PlanError> for TrialError {
    fn from(error: modelopt_rewrite::PlanError) -> Self {
        TrialError::Refused(error.to_string())
    }
}

impl From<modelopt_rewrite::engine::BrokenRewrite> for TrialError {
    fn from(error: modelopt_rewrite::engine::BrokenRewrite) -> Self {
        TrialError::Refused(error.to_string())
    }
}

/// What cannot be written for want of room is not the plan's fault.
impl From<Unwritten> for TrialError {
    fn from(error: Unwritten) -> Self {
        if error.is_of_machine() {
            TrialError::Environment(error.into())
        } else {
            TrialError::Refused(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use modelopt_runtime::{End, Stage};

    use super::*;

    #[test]
    fn what_is_wrong_here_is_told_from_what_is_wrong_with_the_plan() {
        let path = std::path::PathBuf::from("/somewhere/trial.onnx");
        let (runtime, message) = ("rten", "it is too large".to_owned());
        let died = RuntimeError::Died { runtime, path: path.clone(), end: End::Gone };
        let stage = Stage::Running;
        let panicked =
            RuntimeError::Panicked { runtime, stage, path: path.clone(), message: message.clone() };
        let refused = RuntimeError::Load { runtime, path, message };
        assert!(matches!(TrialError::from(died), TrialError::Crashed(_)));
        assert!(matches!(TrialError::from(panicked), TrialError::Refused(_)));
        let refused = TrialError::from(refused);
        assert!(!refused.to_string().contains("/somewhere"), "{refused}");
        assert!(refused.of_plan().unwrap().contains("it is too large"));
        assert!(TrialError::from(RuntimeError::NoLibrary).of_plan().is_err());
    }
}
