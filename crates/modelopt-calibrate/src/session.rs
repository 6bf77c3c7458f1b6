//! Where a pass runs models.

use modelopt_graph::Model;
use modelopt_runtime::{RuntimeError, Session};

/// Something that makes sessions of models that were made from the original.
///
/// A session may come from a worker process; what it needs to live stays with it.
pub trait OpenSession {
    /// A model ready to run, or why it cannot be.
    fn open(&self, model: &Model) -> Result<Box<dyn Session + '_>, RuntimeError>;
}

impl<F: Fn(&Model) -> Result<Box<dyn Session>, RuntimeError>> OpenSession for F {
    fn open(&self, model: &Model) -> Result<Box<dyn Session + '_>, RuntimeError> {
        self(model)
    }
}
