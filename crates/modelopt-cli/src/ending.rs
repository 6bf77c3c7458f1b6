//! How a command ends.

/// What a command that did not fail ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Done.
    Ok,
    /// The gate said no.
    Refused,
    /// Ctrl-C ended it.
    Stopped,
}

/// A combination of arguments that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// What shells give a program that Ctrl-C ends.
pub(crate) const STOPPED: u8 = 130;
