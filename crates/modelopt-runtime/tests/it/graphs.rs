//! Every hand-made graph on every runtime: what each cannot run is known, and what both can run
//! comes out the same.

use std::path::{Path, PathBuf};

use crate::common::{run, runtimes, samples, testdata};
use modelopt_graph::{Tensor, Type};
use modelopt_runtime::{Outputs, SessionOptions, SynthesisOptions, synthesize};

/// Graphs that tract 0.23.9 refuses, or the adapter for it, because tract would be wrong.
const NOT_ON_TRACT: &[&str] = &[
    "all_attribute_kinds",
    "bf16_weights",
    "constant_variants",
    "double_model",
    "duplicate_node_names",
    "dynamic_quantize_lstm",
    "empty_inputs",
    "functions",
    "gemm_variants",
    "if_returns_weight",
    "if_shapes_differ",
    "loop_body",
    "opset7",
    "opset9",
    "optional_ops",
    "sequence_ops",
    "shadowed_names",
    "sklearn_forest",
    "sparse_initializer",
    "unknown_domain",
    "unknown_fields",
];

/// Graphs that rten 0.27.0 refuses, most of them because it wants `strides` and `dilations` of a
/// convolution spelt out.
const NOT_ON_RTEN: &[&str] = &[
    "all_attribute_kinds",
    "all_zero_weights",
    "already_int8_weights",
    "already_quantized_qdq",
    "already_quantized_qlinear",
    "batchnorm_chain",
    "batchnorm_conv",
    "bf16_weights",
    "constant_variants",
    "constant_weights",
    "conv1d",
    "conv3d",
    "conv_attributes",
    "conv_transpose",
    "depthwise_conv",
    "empty_inputs",
    "fp16_model",
    "functions",
    "gru",
    "opset10",
    "opset12",
    "opset7",
    "opset8",
    "opset9",
    "optional_ops",
    "reshaped_weight",
    "rnn",
    "scan_body",
    "sklearn_forest",
    "sparse_initializer",
    "string_tensors",
    "tree_ensemble",
    "unknown_domain",
    "unknown_fields",
    "weight_two_roles",
];

fn graphs() -> Vec<(String, PathBuf)> {
    let mut graphs: Vec<_> = std::fs::read_dir(testdata("graphs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    graphs.sort();
    graphs
}

fn close(a: &Tensor, b: &Tensor) -> bool {
    if (a.dtype(), a.shape()) != (b.dtype(), b.shape()) {
        return false;
    }
    let (Some(a), Some(b)) = (a.to_f32(), b.to_f32()) else { return a == b };
    a.iter().zip(b.iter()).all(|(a, b)| {
        let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        same || (a - b).abs() <= 1e-3 * (1.0 + a.abs())
    })
}

fn assert_declared(path: &Path, outputs: &Outputs) {
    let model = modelopt_onnx::load(path).unwrap();
    let declared = &model.graph(model.main()).outputs;
    assert_eq!(outputs.len(), declared.len(), "{}", path.display());
    for (info, (name, tensor)) in declared.iter().zip(outputs) {
        assert_eq!(model.value(info.value).name(), name);
        if let Some(Type::Tensor { elem, .. }) = info.ty.as_ref().map(|declared| &declared.ty) {
            assert_eq!(tensor.dtype(), *elem, "{name} of {}", path.display());
        }
    }
}

#[test]
fn graphs_run_alike_or_are_refused() {
    modelopt_runtime::silence_runtime_panics();
    let mut refused = vec![Vec::new(); 2];
    for (name, path) in graphs() {
        let samples = samples(&path, &path.with_extension("npz"));
        let mut results = Vec::new();
        for (runtime, refused) in runtimes().iter().zip(&mut refused) {
            match run(runtime.as_ref(), &path, &samples[0]) {
                Ok(outputs) => {
                    assert_declared(&path, &outputs);
                    results.push(outputs);
                }
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains(runtime.name()), "{message}");
                    assert!(message.contains(&format!("{name}.onnx")), "{message}");
                    assert_eq!(message.lines().count(), 1);
                    refused.push(name.clone());
                }
            }
        }
        if let [tract, rten] = results.as_slice() {
            assert!(tract.iter().all(|(output, tensor)| close(tensor, &rten[output])), "{name}");
        }
    }
    assert_eq!(refused[0], NOT_ON_TRACT);
    assert_eq!(refused[1], NOT_ON_RTEN);
}

#[test]
fn invented_samples_run_too() {
    modelopt_runtime::silence_runtime_panics();
    // A graph that indexes a table, one with a default, one with a scalar, ones in other types.
    for name in ["embedding_gather", "ir7_overridable", "if_branches", "attention_small", "lstm"] {
        let path = testdata(&format!("graphs/{name}.onnx"));
        let model = modelopt_onnx::load(&path).unwrap();
        let samples = synthesize(&model, &SynthesisOptions::default()).unwrap();
        assert_eq!(samples.len(), 4);
        for runtime in runtimes() {
            let mut session = runtime.prepare(&path, &SessionOptions::default()).unwrap();
            for sample in &samples {
                assert_declared(&path, &session.run(&sample.inputs).unwrap());
            }
        }
    }
}
