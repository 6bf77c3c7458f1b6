//! The library as programs call it: without files, from several threads, stopped from another one.

// Each example is a program of its own, with its own copy.
#![allow(clippy::duplicate_mod)]

#[path = "../examples/small_model/mod.rs"]
mod small_model;

#[path = "../examples/custom_observer.rs"]
mod custom_observer;
#[path = "../examples/custom_pass.rs"]
mod custom_pass;
#[path = "../examples/custom_runtime.rs"]
mod custom_runtime;
#[path = "../examples/quantize_in_memory.rs"]
mod quantize_in_memory;
#[path = "../examples/samples_from_an_iterator.rs"]
mod samples_from_an_iterator;
#[path = "../examples/stop_from_another_thread.rs"]
mod stop_from_another_thread;

use std::sync::Arc;

use modelopt::calibration::{MinMax, Observations, Observer, PassError};
use modelopt::prelude::*;
use modelopt::{Observed, onnx};

/// What trials were called, and what they gave.
type Trials = Vec<(String, Option<f64>)>;

/// From bytes to bytes; the plan and the trials with it.
fn quantized(seed: u32, min_sqnr_db: f64) -> (Vec<u8>, Plan, Trials) {
    let bytes = onnx::to_bytes(&small_model::perceptron(seed)).unwrap();
    let optimized = Optimizer::builder()
        .model(Source::bytes(bytes))
        .samples(SampleSource::arrays(small_model::inputs(4)))
        .limits(Limits { min_sqnr_db: Some(min_sqnr_db), ..Limits::default() })
        // Times decide nothing here, so that runs can be compared.
        .configure(|config| config.measure_latency = false)
        .build()
        .unwrap()
        .run(&mut |_| {})
        .unwrap();
    let trials = optimized.outcome.trials.iter();
    let trials = trials.map(|trial| (trial.what.clone(), trial.sqnr_db));
    let trials: Trials = trials.collect();
    let artifact = optimized.artifact().unwrap_or_else(|error| panic!("{error}: {trials:?}"));
    let artifact = artifact.to_bytes().unwrap();
    (artifact, optimized.outcome.plan.into_plan(), trials)
}

#[test]
fn examples_run() {
    custom_observer::main().unwrap();
    custom_pass::main().unwrap();
    custom_runtime::main().unwrap();
    quantize_in_memory::main().unwrap();
    samples_from_an_iterator::main().unwrap();
    stop_from_another_thread::main().unwrap();
}

#[test]
fn a_runtime_of_ones_own_measures_and_compares() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    std::fs::write(&model, onnx::to_bytes(&small_model::perceptron(9)).unwrap()).unwrap();
    let embedded = RuntimeKind::embedded().next().unwrap();
    let own: Arc<dyn Runtime> = modelopt::runtime::runtime(embedded, None).unwrap().into();
    let config = Config {
        runtime: modelopt::RuntimeChoice::Custom(own.into()),
        measure_latency: false,
        ..Config::default()
    };
    let compared = modelopt::compare(&model, &model, &config, &mut |_| {}).unwrap();
    assert!(compared.verdict.pass);
    let used: Vec<_> = compared.runs.iter().map(|run| run.runtime.name.as_str()).collect();
    assert_eq!(used, [embedded.name()]);
    let rows = modelopt::bench(&model, &config, &modelopt::BenchOptions::default(), &mut |_| {});
    let rows = rows.unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert!(row.failure.is_none() && row.latency.is_some(), "{row:?}");
}

/// An example that is not run here proves nothing.
#[test]
fn every_example_is_run() {
    let here = std::fs::read_to_string(file("tests/library.rs")).unwrap();
    let mut examples = 0;
    for entry in std::fs::read_dir(file("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert!(here.contains(&format!("\n    {name}::main().unwrap();\n")), "{name}");
            examples += 1;
        }
    }
    assert!(examples >= 5, "{examples}");
}

fn file(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn four_threads_quantize_from_bytes_to_bytes_and_do_not_disturb_each_other() {
    // Searches that take several trials, each with another end.
    let jobs = [(1, 20.0), (2, 41.0), (3, 43.0), (1, 44.0)];
    let alone: Vec<_> = jobs.iter().map(|&(seed, limit)| quantized(seed, limit)).collect();
    assert!(alone.iter().any(|(_, _, trials)| trials.len() > 2), "nothing was searched");
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads = jobs.map(|(seed, limit)| scope.spawn(move || quantized(seed, limit)));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    for (alone, together) in alone.iter().zip(&together) {
        assert_eq!(alone.1, together.1);
        assert_eq!(alone.2, together.2);
        assert!(alone.0 == together.0, "the bytes differ");
    }
}

#[test]
fn what_is_emitted_is_smaller_and_loads() {
    let model = small_model::perceptron(5);
    let before = onnx::to_bytes(&model).unwrap();
    let (after, plan, _) = quantized(5, 20.0);
    assert!(after.len() * 3 < before.len(), "{} of {}", after.len(), before.len());
    assert!(plan.layers.iter().all(|layer| layer.scheme.is_int8()));
    let loaded = onnx::parse(after.into(), "memory".as_ref()).unwrap();
    assert_eq!(loaded.graph(loaded.main()).inputs.len(), 1);
}

#[test]
fn a_refusal_is_no_error_until_the_artifact_is_asked_for() {
    let optimizer = Optimizer::builder()
        .model(small_model::perceptron(6))
        .samples(SampleSource::arrays(small_model::inputs(2)))
        .strategy(Strategy::Scheme(Scheme::INT8_WEIGHTS))
        .limits(Limits { min_sqnr_db: Some(90.0), ..Limits::default() })
        .build()
        .unwrap();
    let optimized = optimizer.run(&mut |_| {}).unwrap();
    assert!(!optimized.outcome.emitted);
    let error = optimized.artifact().unwrap_err();
    assert_eq!(error.to_string(), "no artifact was emitted: the candidate failed on sqnr");
}

#[test]
fn arrays_that_do_not_fit_are_refused_before_anything_runs() {
    let run = |inputs: Vec<(String, Tensor)>| {
        let builder = Optimizer::builder().model(small_model::perceptron(7));
        let samples = SampleSource::arrays([inputs]);
        builder.samples(samples).build().unwrap().run(&mut |_| {}).unwrap_err().to_string()
    };
    let wrong = run(vec![("x".into(), Tensor::of(vec![64, 4], &[0f32; 256]).unwrap())]);
    assert!(wrong.contains("has shape [64, 4]"), "{wrong}");
    let missing = run(vec![("z".into(), Tensor::of(vec![4, 64], &[0f32; 256]).unwrap())]);
    assert!(missing.contains('x') && missing.contains('z'), "{missing}");
}

#[test]
fn an_artifact_can_be_written_where_the_caller_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("small.onnx");
    let optimizer = Optimizer::builder()
        .model(small_model::perceptron(8))
        .samples(SampleSource::arrays(small_model::inputs(2)))
        .build()
        .unwrap();
    let artifact = optimizer.run(&mut |_| {}).unwrap().into_artifact().unwrap();
    let bytes = artifact.to_bytes().unwrap();
    let own = artifact.path().to_owned();
    artifact.write_to(&target).unwrap();
    assert!(std::fs::read(&target).unwrap() == bytes);
    assert!(own.exists());
    drop(artifact);
    assert!(!own.exists(), "a temporary folder is left");
    let direct = folder.path().join("direct.onnx");
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, onnx::to_bytes(&small_model::perceptron(8)).unwrap()).unwrap();
    let outcome = modelopt::optimize_file(&path, &direct).unwrap();
    assert!(outcome.emitted && direct.exists());
}

/// Observes a value of a small model by its name.
fn observed(value: &str, stopped: bool) -> Result<Observed, Error> {
    let builder = Optimizer::builder().model(small_model::perceptron(9));
    let samples = SampleSource::arrays(small_model::inputs(3));
    let optimizer = builder.samples(samples).build().unwrap();
    if stopped {
        optimizer.stop().stop();
    }
    let watch = |model: &Model| {
        let mut observations = Observations::default();
        let value = model.values().find(|&id| model.value(id).name() == value).unwrap();
        observations.watch(model, value, MinMax::new())?;
        Ok(observations)
    };
    optimizer.observe(watch, &mut |_| {})
}

#[test]
fn what_flows_through_a_model_is_observed() {
    let Observed { calibration, samples, warnings, .. } = observed("h0", false).unwrap();
    assert_eq!((calibration.samples().len(), samples.count), (3, 3));
    assert!(warnings.is_empty(), "{warnings:?}");
    let seen = calibration.observations().of("h0", &MinMax::new()).unwrap().statistic();
    assert_eq!(seen.finite, 3 * 4 * small_model::WIDTH as u64);
    assert!(matches!(seen.range, Some((least, most)) if least == 0.0 && most > 0.0), "{seen:?}");
    let bytes = onnx::to_bytes(&small_model::perceptron(9)).unwrap();
    assert_eq!(calibration.model(), onnx::digest_of(&bytes));
}

#[test]
fn what_cannot_be_observed_and_what_is_stopped_are_errors() {
    let weight = observed("W0", false).unwrap_err();
    assert_eq!(weight.to_string(), "'W0' is a constant");
    let stopped = observed("h0", true).unwrap_err();
    assert!(matches!(stopped.kind(), ErrorKind::Observing(PassError::Stopped)), "{stopped:?}");
}
