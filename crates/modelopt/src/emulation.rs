//! What embedded runtimes run for a model that computes in 16 bits: they have no kernels for that,
//! or ones that take seconds, so its operators are computed in float32 between roundings.

use std::path::Path;

use modelopt_onnx::{self as onnx, SaveOptions, Staged};
use modelopt_rewrite::{self as rewrite, Precision};
use modelopt_runtime::RuntimeKind;
use tempfile::TempDir;

/// What reports say of it.
pub(crate) const HOW: &str = "16-bit operators computed in float32 between roundings";

/// A model that is run in place of another, on disk until it is dropped.
pub(crate) struct StandIn {
    // Dropped before its folder.
    file: Staged,
    _folder: TempDir,
}

impl StandIn {
    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What is to be run for a model; nothing else than itself where nothing is computed in 16
    /// bits.
    pub(crate) fn of(model: &Path, runtime: RuntimeKind) -> Result<Option<Self>, String> {
        let model = onnx::load(model).map_err(|error| error.to_string())?;
        let emulated = rewrite::emulate(&model, castable(runtime));
        let Some(emulated) = emulated.map_err(|error| error.to_string())? else { return Ok(None) };
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = folder.path().join("emulated.onnx");
        let file = Staged::write(&emulated, &path, SaveOptions::default());
        Ok(Some(StandIn { file: file.map_err(|error| error.to_string())?, _folder: folder }))
    }
}

/// The 16-bit types that a runtime rounds to when it casts.
fn castable(runtime: RuntimeKind) -> &'static [Precision] {
    match runtime {
        RuntimeKind::Tract => &[Precision::Fp16],
        // It has float32 instead.
        RuntimeKind::Rten => &[],
        RuntimeKind::Onnxruntime => &Precision::ALL,
    }
}
