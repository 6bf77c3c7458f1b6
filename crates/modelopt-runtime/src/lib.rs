//! Runs ONNX models: the runtimes behind one trait, and the samples to run them on.
//!
//! - [`runtime`] gives the [`Runtime`] of a [`RuntimeKind`]; [`Runtime::prepare`] loads a file into
//!   a [`Session`]; [`Session::run`] maps named inputs to named outputs.
//! - [`CustomRuntime`] is one that is not in the registry.
//! - [`load_samples`] reads inputs from files; [`synthesize`] invents them from a model's declared
//!   inputs, the same for the same seed on every platform.
//!
//! **No panic of a runtime leaves this crate**: whatever a runtime does on a hostile model comes
//! back as a [`RuntimeError`]. What takes a whole process down (an abort, a fault in a shared
//! library, memory without end) is met by [`worker`]: models are loaded and run in other processes.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]
// Without a runtime there is nothing to guard or bind, but samples and traits remain.
#![cfg_attr(
    not(any(feature = "tract", feature = "rten", feature = "onnxruntime")),
    allow(dead_code)
)]

mod adapters;
mod binding;
mod custom;
mod descriptor;
mod error;
mod guard;
mod interface;
#[cfg(feature = "onnxruntime")]
mod optionals;
mod outputs;
mod registry;
mod rounds;
mod runtime;
mod sample_error;
mod samples;
mod session_options;
mod synthesis;
mod timing;
pub mod worker;

pub use adapters::LibrarySearch;
pub use custom::CustomRuntime;
pub use error::{End, FailureKind, ProviderProblem, RuntimeError, Stage};
pub use guard::panic_message;
pub use interface::{InputSpec, LeftOut, OutputSpec, graph_inputs, graph_outputs};
pub use outputs::Outputs;
pub use registry::{RuntimeKind, anywhere, runtime, silence_runtime_panics};
pub use rounds::Rounds;
pub use runtime::{Attempt, Runtime, Session};
pub use sample_error::{OptionProblem, SampleError, Uninvented};
pub use samples::{
    Cure, FittingSamples, Meant, Misfit, Oddity, Sample, SampleFiles, SampleKind, fit_samples,
    fitting_samples, load_samples,
};
pub use session_options::{Optimization, SessionOptions};
pub use synthesis::{
    InputValue, Proposal, Proposals, SynthesisOptions, parse_dim, parse_value, synthesize,
};
pub use timing::{Timed, time_in_turn};
