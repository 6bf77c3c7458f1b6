//! What the integration tests share.

use std::path::{Path, PathBuf};

use modelopt_runtime::{
    Outputs, Runtime, RuntimeError, RuntimeKind, Sample, SessionOptions, graph_inputs,
    load_samples, runtime,
};

pub(crate) fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)
}

pub(crate) fn runtimes() -> Vec<Box<dyn Runtime>> {
    RuntimeKind::all().filter_map(|kind| runtime(kind, None).ok()).collect()
}

/// The samples at `data` for the model at `model`.
pub(crate) fn samples(model: &Path, data: &Path) -> Vec<Sample> {
    let model = modelopt_onnx::load(model).unwrap();
    let inputs: Vec<_> = graph_inputs(&model).into_iter().map(|input| input.name).collect();
    load_samples(data, &inputs).unwrap()
}

pub(crate) fn run(
    runtime: &dyn Runtime,
    model: &Path,
    sample: &Sample,
) -> Result<Outputs, RuntimeError> {
    runtime.prepare(model, &SessionOptions::default())?.run(&sample.inputs)
}
