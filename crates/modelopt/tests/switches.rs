//! A model under switches computes what it did with all of them off, and what the quantized model
//! does with all of them on; smoothing changes nothing but what quantizing costs. In the embedded
//! runtimes, on models of every kind.

use std::path::Path;
use std::sync::Arc;

use modelopt::graph::{Model, Tensor, infer};
use modelopt::onnx::{self, SaveOptions, Staged};
use modelopt::rewrite::{self, Plan, PlanOptions, Preparation, Scheme, Seen, Statistics};
use modelopt::runtime::{
    Outputs, RuntimeKind, Sample, SessionOptions, SynthesisOptions, runtime, synthesize,
};
use modelopt::validate::{Accumulator, Origins, Profile, Tolerance};
use xtask::testdata::fixture;

const MODELS: [&str; 14] = [
    "attention_small",
    "batchnorm_conv",
    "constant_weights",
    "conv1d",
    "conv_attributes",
    "conv_transpose",
    "depthwise_conv",
    "embedding_gather",
    "gemm_variants",
    "if_branches",
    "if_nested",
    "lstm",
    "matmul_batched",
    "matmul_left",
];

fn prepared(name: &str) -> Model {
    let mut model = onnx::load(&fixture(format!("graphs/{name}.onnx"))).unwrap();
    rewrite::prepare(&mut model, Preparation { skip: &[], inline_functions: false }).unwrap();
    infer::infer(&mut model);
    model
}

fn plan(model: &Model, scheme: Scheme) -> Plan {
    let options = PlanOptions { scheme: Some(scheme), min_weight_bytes: 0, ..Default::default() };
    rewrite::plan(model, &options).unwrap().into_plan()
}

/// The runtime of a name.
fn named(name: &str) -> RuntimeKind {
    name.parse().unwrap()
}

/// Runs a model in one of the embedded runtimes; none where that cannot.
fn outputs(kind: RuntimeKind, folder: &Path, model: &Model, sample: &Sample) -> Option<Outputs> {
    let staged = Staged::write(model, &folder.join("model.onnx"), SaveOptions::default()).unwrap();
    let runtime = runtime(kind, None).unwrap();
    runtime.prepare(staged.path(), &SessionOptions::default()).ok()?.run(&sample.inputs).ok()
}

fn sqnr_db(a: &Outputs, b: &Outputs) -> f64 {
    let profile = Profile::of(Origins::default(), 1, |_, see| {
        see(a);
        Ok::<_, std::convert::Infallible>(())
    });
    let mut parity = Accumulator::new(Arc::new(profile.unwrap()), Tolerance::default());
    parity.add("sample", false, a, b);
    let parity = parity.finish();
    let floats = parity.outputs.iter().filter_map(|output| output.float.as_ref());
    floats.map(|float| float.sqnr_db).fold(f64::INFINITY, f64::min)
}

fn with(sample: &Sample, name: &str, tensor: Tensor) -> Sample {
    let mut sample = sample.clone();
    sample.inputs.insert(name.to_owned(), tensor);
    sample
}

#[test]
fn off_is_the_original_and_on_the_quantized_model() {
    let folder = tempfile::tempdir().unwrap();
    let mut ran = 0;
    for name in MODELS {
        let model = prepared(name);
        let sample = synthesize(&model, &SynthesisOptions::default()).unwrap().remove(0);
        for scheme in [Scheme::INT8_DYNAMIC, Scheme::INT8_WEIGHTS] {
            let plan = plan(&model, scheme);
            let board = rewrite::switchboard(&model, &plan).unwrap();
            let all: Vec<usize> = (0..board.switches.len()).collect();
            let mut quantized = model.clone();
            rewrite::apply(&mut quantized, &plan).unwrap();
            for kind in [named("rten"), named("tract")] {
                let run =
                    |model: &Model, sample: &Sample| outputs(kind, folder.path(), model, sample);
                let Some(original) = run(&model, &sample) else { continue };
                let set = |on: &[usize]| with(&sample, &board.input, board.settings(on, 1.0));
                let Some(off) = run(&board.model, &set(&[])) else {
                    // tract wants the filters of convolutions to be constants.
                    assert_eq!(kind, named("tract"), "{name} {scheme}");
                    continue;
                };
                assert!(sqnr_db(&original, &off) > 100.0, "{name} {scheme} {kind:?}");
                let (on, rounded) =
                    (run(&board.model, &set(&all)).unwrap(), run(&quantized, &sample).unwrap());
                let (close, lost) = (sqnr_db(&rounded, &on), sqnr_db(&original, &rounded));
                assert!(close > lost + 15.0, "{name} {scheme} {kind:?}: {close} {lost}");
                ran += 1;
            }
        }
    }
    assert!(ran >= 30, "{ran}");
}

/// A model of 16 bits as it is run where there are no kernels for that.
fn emulated(model: &Model) -> Model {
    let known = rewrite::Known { stored: &[], castable: &[] };
    rewrite::emulate(model, known).unwrap().map_or_else(|| model.clone(), |found| found.model)
}

#[test]
fn roundings_are_off_or_those_of_the_model_of_sixteen_bits() {
    let folder = tempfile::tempdir().unwrap();
    let mut ran = 0;
    for name in MODELS {
        let model = prepared(name);
        let sample = synthesize(&model, &SynthesisOptions::default()).unwrap().remove(0);
        for scheme in [Scheme::FP16, Scheme::BF16, Scheme::FP16_WEIGHTS] {
            let plan = plan(&model, scheme);
            let Some(board) = rewrite::rounding_switchboard(&model, &plan).unwrap() else {
                assert!(model.opset(model.main(), "").unwrap() < 9, "{name}");
                continue;
            };
            if board.switches.is_empty() {
                continue;
            }
            let all: Vec<usize> = (0..board.switches.len()).collect();
            let mut narrow = model.clone();
            rewrite::apply(&mut narrow, &plan).unwrap();
            let (narrow, switched) = (emulated(&narrow), emulated(&board.model));
            let run = |model: &Model, sample: &Sample| {
                outputs("rten".parse().unwrap(), folder.path(), model, sample)
            };
            let set = |on: &[usize]| with(&sample, &board.input, board.settings(on, 1.0));
            let (Some(original), Some(off)) = (run(&model, &sample), run(&switched, &set(&[])))
            else {
                continue;
            };
            assert!(sqnr_db(&original, &off) > 100.0, "{name} {scheme}");
            let on = run(&switched, &set(&all)).unwrap();
            let rounded = run(&narrow, &sample).unwrap();
            let (close, lost) = (sqnr_db(&rounded, &on), sqnr_db(&original, &rounded));
            // What is rounded twice on the way through control flow is rounded once here.
            assert!(close > lost + 3.0, "{name} {scheme}: {close} {lost}");
            ran += 1;
        }
    }
    assert!(ran >= 20, "{ran}");
}

#[test]
fn smoothing_alone_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut smoothed = 0;
    for name in ["attention_small", "gemm_variants", "constant_weights", "if_branches"] {
        let model = prepared(name);
        let sample = synthesize(&model, &SynthesisOptions::default()).unwrap().remove(0);
        let mut plan = plan(&model, Scheme::INT8_DYNAMIC);
        // As if every activation had been seen with one channel that is a hundred times larger.
        let seen = rewrite::watched(&model, &plan).into_iter().filter_map(|watched| {
            let shape = model.value(watched.value).ty()?.shape()?;
            let channels = shape.last()?.fixed()?;
            let row: Vec<f32> =
                (0..channels).map(|channel| if channel == 1 { 100.0 } else { 1.0 }).collect();
            let seen = Statistics {
                count: 8,
                means: row.iter().map(|&x| f64::from(x)).collect(),
                mean_squares: row.iter().map(|&x| f64::from(x * x)).collect(),
                ranges: vec![row.iter().map(|&x| (0.0, x)).collect()],
            };
            Some((watched, seen))
        });
        let seen = Seen::new(seen.collect::<Vec<_>>());
        let wanted = rewrite::Improvements { smoothing: true, bias_correction: false };
        rewrite::improve(&model, &mut plan, &seen, wanted);
        smoothed += plan.layers.iter().filter(|layer| !layer.smoothing.is_empty()).count();
        for layer in &mut plan.layers {
            layer.scheme = Scheme::KEEP;
        }
        let mut changed = model.clone();
        rewrite::apply(&mut changed, &plan).unwrap();
        let run = |model: &Model| {
            outputs(named("rten"), folder.path(), model, &sample)
                .or_else(|| outputs(named("tract"), folder.path(), model, &sample))
                .unwrap_or_else(|| panic!("{name} runs nowhere"))
        };
        let close = sqnr_db(&run(&model), &run(&changed));
        assert!(close > 90.0, "{name}: {close}");
    }
    assert!(smoothed >= 4, "{smoothed}");
}
