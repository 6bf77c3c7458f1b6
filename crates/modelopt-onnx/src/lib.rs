//! Bytes to model and back.
//!
//! [`load`] maps a file and walks its wire format once; payloads stay ranges of the map, so that
//! loading costs what the model's skeleton costs. [`Staged`] writes a model beside its target and
//! renames it into place, so that the target is always either the old file or the new one.
//!
//! **Loading and saving an untouched model loses nothing**: names, order, doc strings, metadata,
//! functions, training information, unknown fields, and the way payloads are stored.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod error;
mod external;
mod field;
mod map;
mod origin;
mod piece;
mod read;
mod save;
mod wire;
mod write;

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use modelopt_graph::{Model, Tensor};

pub use error::{Error, ErrorKind};
pub use save::{SaveOptions, Staged};

/// Loads the model at `path`, with external data from its folder.
pub fn load(path: &Path) -> Result<Model, Error> {
    let bytes = map::map_file(path).map_err(|error| ErrorKind::Io(error).at(path))?;
    let external = external::ExternalFiles::beside(path);
    read::read_model(bytes, external).map_err(|kind| kind.at(path))
}

/// Size of a model that was loaded from `path`, external data included, in bytes.
pub fn stored_size(path: &Path, model: &Model) -> Result<u64, Error> {
    let file = std::fs::metadata(path).map_err(|error| ErrorKind::Io(error).at(path))?;
    let external = origin::Extra::of(&model.info.origin).map_or(0, |extra| extra.external);
    Ok(file.len() + external)
}

/// BLAKE3 of a file, in hexadecimal. It is read, not mapped, so that it does not stay in memory
/// beside the map of a model that is loaded.
pub fn digest(path: &Path) -> std::io::Result<String> {
    /// Large enough for all cores to have a part of it.
    const WINDOW: usize = 4 << 20;
    let mut file = fs_err::File::open(path)?;
    let mut window = vec![0; WINDOW.min(usize::try_from(file.metadata()?.len()).unwrap_or(WINDOW))];
    let mut hasher = blake3::Hasher::new();
    loop {
        match file.read(&mut window)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            count => hasher.update_rayon(window.get(..count).unwrap_or_default()),
        };
    }
}

/// BLAKE3 of some bytes, in hexadecimal.
pub fn digest_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Reads a model from memory, such as one that came through a pipe; `name` stands for the path
/// in errors. Such a model cannot have external data.
pub fn parse(bytes: Bytes, name: &Path) -> Result<Model, Error> {
    read::read_model(bytes, external::ExternalFiles::none()).map_err(|kind| kind.at(name))
}

/// Reads one serialized `TensorProto`, as in the `.pb` files of ONNX test data: name and tensor.
pub fn read_tensor(bytes: Bytes) -> Result<(String, Tensor), ErrorKind> {
    read::read_tensor(bytes, external::ExternalFiles::none())
}

/// The model as the bytes of one file.
pub fn to_bytes(model: &Model) -> Result<Vec<u8>, ErrorKind> {
    let rope = write::model(model, &write::Inline)?;
    let mut bytes = Vec::with_capacity(usize::try_from(rope.len()).unwrap_or(0));
    rope.visit(|part| {
        bytes.extend_from_slice(part);
        Ok(())
    })?;
    Ok(bytes)
}
