//! What a loader wants to remember about a part of the model.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// An opaque note that the loader attaches to a part of the model and the saver reads back,
/// so that whatever this crate does not model (unknown fields, doc strings, the way a payload
/// was stored) survives a round trip. Parts that modelopt makes carry none.
#[derive(Clone, Default)]
pub struct Origin(Option<Arc<dyn Any + Send + Sync>>);

impl Origin {
    /// No note: the part was made, not loaded.
    pub const NONE: Origin = Origin(None);

    /// A note of the loader's own type.
    pub fn new<T: Any + Send + Sync>(note: T) -> Self {
        Origin(Some(Arc::new(note)))
    }

    /// The note, if there is one of this type.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.as_ref()?.downcast_ref()
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "loaded" } else { "made" })
    }
}
