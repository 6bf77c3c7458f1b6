//! One module per runtime, with what is to be known of it and how its sessions run.

#[cfg(any(feature = "tract", feature = "rten"))]
mod cpu;
mod onnxruntime;
mod rten;
mod tract;

pub use self::onnxruntime::LibrarySearch;
use crate::descriptor::RuntimeDescriptor;

/// All runtimes. Whoever adds one adds a module and a line.
pub(crate) static RUNTIMES: [&RuntimeDescriptor; 3] =
    [&tract::DESCRIPTOR, &rten::DESCRIPTOR, &onnxruntime::DESCRIPTOR];
