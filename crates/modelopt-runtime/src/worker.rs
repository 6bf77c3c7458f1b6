//! Loads and runs models in processes of their own.
//!
//! Runtimes can abort, fault, hang or eat all memory on a hostile model, and a damaged library can do
//! so when it is loaded; none of that can be caught. So whatever is foreign is loaded by *workers*:
//! processes of a [`WorkerPool`] that hold sessions, run them and time them. What a worker does not
//! survive is an error here, [`RuntimeError::Died`](crate::RuntimeError::Died); the next model gets
//! another worker.
//!
//! A worker is any program that calls [`serve`]. Its standard input is a socket on which requests
//! come and answers go (`worker/protocol.rs`); it ends when that is closed, so it never outlives its parent.
//! Workers need Unix sockets: elsewhere models are run in the process itself.

mod pool;
mod process;
mod protocol;
mod runtime;
mod seat;
mod serve;
mod session;

use serde::{Deserialize, Serialize};

pub use pool::WorkerPool;
pub use seat::Seat;
pub use serve::serve;
pub use session::Remote;
pub(crate) use session::time_together;

/// What a model costs a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// From opening the file to a session that is ready, in milliseconds.
    pub load_ms: f64,
    /// Most memory that was resident, less what the process held before, in bytes; none where the
    /// system does not tell, or the process has run other models before.
    pub peak_bytes: Option<u64>,
    /// One run, the first, in milliseconds; none if nothing was run.
    pub run_ms: Option<f64>,
}
