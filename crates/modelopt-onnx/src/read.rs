//! Bytes to model: one walk over the wire format that leaves every payload where it is.
//!
//! The composite messages are walked here rather than parsed by onnx-protobuf, for three reasons
//! that `docs/architecture.md` tells at length: payloads stay ranges of the map, the presence of
//! default values is kept (onnx-protobuf is proto3, ONNX is proto2), and unknown fields keep
//! their order. Types, the leaves, are parsed by onnx-protobuf, after a scan.

mod attribute;
mod graph;
mod model;
mod reader;
mod tensor;
mod types;

use bytes::Bytes;
use modelopt_graph::{Model, Tensor, verify};

use crate::error::ErrorKind;
use crate::external::ExternalFiles;
use reader::{Reader, Result};
pub(crate) use types::from_type;

/// Reads a model from the bytes of a file.
pub(crate) fn read_model(bytes: Bytes, external: ExternalFiles) -> Result<Model> {
    if bytes.is_empty() {
        return Err(ErrorKind::Empty);
    }
    let end = bytes.len();
    let mut reader = Reader::of(bytes, external);
    reader.model_message(0..end)?;
    verify::check_acyclic(&reader.model)?;
    Ok(reader.model)
}

/// Reads one serialized `TensorProto`.
pub(crate) fn read_tensor(bytes: Bytes, external: ExternalFiles) -> Result<(String, Tensor)> {
    let end = bytes.len();
    Reader::of(bytes, external).tensor(0..end, "")
}
