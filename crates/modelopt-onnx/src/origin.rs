//! What this loader remembers of a part of the file: the records it does not model, verbatim.

use std::sync::OnceLock;

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
    /// For a model: size of the files with its external data, in bytes.
    pub(crate) external: u64,
    /// For a tensor: its payload records (`float_data`, …), when not stored as `raw_data`.
    pub(crate) payload: Vec<Bytes>,
}

impl Extra {
    pub(crate) fn of(origin: &Origin) -> Option<&Extra> {
        origin.get::<Extra>()
    }

    /// Most parts have nothing to remember; they share one note.
    pub(crate) fn into_origin(self) -> Origin {
        static PLAIN: [OnceLock<Origin>; 2] = [OnceLock::new(), OnceLock::new()];
        let [untyped, typed] = &PLAIN;
        match self {
            Extra { records, typed: has_type, external: 0, payload }
                if records.is_empty() && payload.is_empty() =>
            {
                let shared = if has_type { typed } else { untyped };
                let plain = || Origin::new(Extra { typed: has_type, ..Extra::default() });
                shared.get_or_init(plain).clone()
            }
            extra => Origin::new(extra),
        }
    }
}

/// The verbatim bytes of a `TypeProto`.
#[derive(Clone, Debug)]
pub(crate) struct TypeBytes(pub(crate) Bytes);
