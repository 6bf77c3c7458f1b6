//! One module per runtime, with what is to be known of it and how its sessions run.

mod onnxruntime;
mod rten;
mod tract;

pub use self::onnxruntime::LibrarySearch;
use crate::descriptor::RuntimeDescriptor;
#[cfg(any(feature = "tract", feature = "rten"))]
use crate::{RuntimeError, SessionOptions};

/// All runtimes. Whoever adds one adds a module and a line.
pub(crate) static RUNTIMES: [&RuntimeDescriptor; 3] =
    [&tract::DESCRIPTOR, &rten::DESCRIPTOR, &onnxruntime::DESCRIPTOR];

/// For runtimes that compute on the processor and nowhere else.
#[cfg(any(feature = "tract", feature = "rten"))]
fn only_cpu(runtime: &'static str, options: &SessionOptions) -> Result<(), RuntimeError> {
    if options.provider == "cpu" {
        return Ok(());
    }
    Err(RuntimeError::Provider {
        runtime,
        provider: options.provider.clone(),
        message: "it computes on the cpu only".to_owned(),
    })
}
