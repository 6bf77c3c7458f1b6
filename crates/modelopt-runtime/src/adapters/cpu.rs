//! What runtimes have in common that compute on the processor and nowhere else.

use crate::{ProviderProblem, RuntimeError, SessionOptions};

/// Refuses to compute anywhere else.
pub(super) fn only_cpu(
    runtime: &'static str,
    options: &SessionOptions,
) -> Result<(), RuntimeError> {
    if options.provider == "cpu" {
        return Ok(());
    }
    Err(RuntimeError::Provider {
        runtime,
        provider: options.provider.clone(),
        problem: ProviderProblem::OnlyCpu,
    })
}
