//! What embedded runtimes run for a model that computes in 16 bits: they have no kernels for that,
//! or ones that take seconds, so its operators are computed in float32 between roundings.

use std::path::Path;

use modelopt_onnx::{self as onnx, Staged};
use modelopt_rewrite as rewrite;
use modelopt_runtime::{RuntimeError, RuntimeKind};

use crate::scratch::Scratch;

/// What reports say of it.
const COMPUTED: &str = "16-bit operators computed in float32 between roundings";
const STORED: &str = "16-bit weights read as float32";

/// A model that is run in place of another, on disk until it is dropped.
pub(crate) struct StandIn {
    // Dropped before its folder.
    file: Staged,
    _scratch: Scratch,
    /// What is different.
    pub(crate) how: &'static str,
}

impl StandIn {
    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What is to be run for a model; nothing else than itself where nothing is computed in 16
    /// bits, and the runtime reads what is stored in them.
    pub(crate) fn of(file: &Path, runtime: RuntimeKind) -> Result<Option<Self>, RuntimeError> {
        let model = onnx::load(file)?;
        let emulated = rewrite::emulate(&model, runtime.sixteen_bits());
        let emulated = emulated.map_err(|error| RuntimeError::Load {
            runtime: runtime.name(),
            path: file.to_owned(),
            message: error.to_string(),
        });
        let Some(emulated) = emulated? else { return Ok(None) };
        let scratch = Scratch::new()?;
        let file = scratch.write(&emulated.model, "emulated.onnx")?;
        let how = if emulated.computes { COMPUTED } else { STORED };
        Ok(Some(StandIn { file, _scratch: scratch, how }))
    }
}

#[cfg(test)]
mod tests;
