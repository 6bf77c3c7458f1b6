//! What this loader remembers of a part of the file: the records it does not model, verbatim.

use bytes::Bytes;

use modelopt_graph::Origin;

/// Records that the model does not represent: unknown fields, doc strings, and fields that are
/// present with their default value (which the model cannot tell from absent ones). Ranges of
/// the mapped file, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    pub(crate) records: Vec<Bytes>,
    /// For an attribute: whether its `type` field was present.
    pub(crate) typed: bool,
    /// For a tensor: its payload records (`float_data`, …), when not stored as `raw_data`.
    pub(crate) payload: Vec<Bytes>,
}

impl Extra {
    pub(crate) fn of(origin: &Origin) -> Option<&Extra> {
        origin.get::<Extra>()
    }

    pub(crate) fn into_origin(self) -> Origin {
        Origin::new(self)
    }
}

/// The verbatim bytes of a `TypeProto`.
#[derive(Clone, Debug)]
pub(crate) struct TypeBytes(pub(crate) Bytes);
