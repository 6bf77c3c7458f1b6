//! Models from and to files, bytes and memory.

use modelopt_onnx as onnx;
use modelopt_rewrite::Numerics;

use super::*;
use crate::testing::{Bed, Layer, network};

/// What comes of a model whose scheme is given, judged by parity alone.
fn optimized(source: impl Into<Source>, sink: Sink, min_sqnr_db: f64) -> Result<Optimized, Error> {
    Optimizer::builder()
        .model(source)
        .sink(sink)
        .strategy(Strategy::Scheme(Scheme::INT8_WEIGHTS))
        .limits(Limits { min_sqnr_db: Some(min_sqnr_db), min_shrink: None, ..Limits::default() })
        .configure(|config| (config.measure_latency, config.min_weight_bytes) = (false, 0))
        .build()?
        .run(&mut |_| {})
}

fn bytes() -> Vec<u8> {
    onnx::to_bytes(&network(&[Layer::Even; 2])).unwrap()
}

#[test]
fn the_same_model_gives_the_same_artifact_wherever_it_comes_from() {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let artifact = |source: Source| {
        let optimized = optimized(source, Sink::Memory, 20.0).unwrap();
        optimized.into_artifact().unwrap().to_bytes().unwrap()
    };
    let first = artifact(bed.path().into());
    assert!(first == artifact(bed.path().as_path().into()));
    assert!(first == artifact(Source::path(bed.path())));
    assert!(first == artifact(Source::bytes(std::fs::read(bed.path()).unwrap())));
    assert!(first == artifact(bed.original.clone().into()));
}

#[test]
fn what_was_kept_in_memory_goes_with_its_artifact() {
    let artifact = optimized(Source::bytes(bytes()), Sink::Memory, 20.0).unwrap();
    let artifact = artifact.into_artifact().unwrap();
    let path = artifact.path().to_owned();
    assert!(path.exists() && artifact.model().is_ok());
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.onnx");
    artifact.write_to(&copy).unwrap();
    assert!(std::fs::read(&copy).unwrap() == artifact.to_bytes().unwrap());
    drop(artifact);
    assert!(!path.exists() && copy.exists());
}

#[test]
fn a_file_of_the_callers_is_written_once_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.onnx");
    let artifact = optimized(Source::bytes(bytes()), Sink::path(&path), 20.0).unwrap();
    let artifact = artifact.into_artifact().unwrap();
    assert_eq!(artifact.path(), path);
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    artifact.write_to(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
    drop(artifact);
    assert!(path.exists());
}

#[test]
fn a_refusal_leaves_no_file_and_names_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.onnx");
    let refused = optimized(Source::bytes(bytes()), Sink::path(&path), 150.0).unwrap();
    let error = refused.artifact().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Refused { failed } if failed == &["sqnr"]),
        "{error}"
    );
    assert!(refused.into_artifact().is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_run_that_was_stopped_before_it_began_has_no_artifact_and_nothing_that_failed() {
    let optimizer = Optimizer::builder().model(Source::bytes(bytes())).build().unwrap();
    optimizer.stop().stop();
    let stopped = optimizer.run(&mut |_| {}).unwrap();
    let error = stopped.artifact().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Refused { failed } if failed.is_empty()), "{error}");
}

#[test]
fn bytes_that_are_no_model_are_an_error_that_does_not_say_where_they_lay() {
    let error = optimized(Source::bytes(*b"not a model"), Sink::Memory, 20.0).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Onnx(_)), "{error}");
    assert!(error.to_string().starts_with("model.onnx: "), "{error}");
}

#[test]
fn a_result_in_memory_is_called_like_its_model() {
    let place = |input: &str| {
        let output = Sink::Memory.place(Path::new(input)).unwrap();
        assert!(output.is_own());
        output.path().file_name().unwrap().to_owned()
    };
    assert_eq!(
        (place("/somewhere/net.onnx"), place("..")),
        ("net.onnx".into(), "model.onnx".into())
    );
    let own = Sink::path("x.onnx").place(Path::new("net.onnx")).unwrap();
    assert!(!own.is_own() && own.path() == Path::new("x.onnx"));
}

#[test]
fn a_target_says_all_or_leaves_it_to_the_settings() {
    let build = |target: Target| {
        let builder = Optimizer::builder().model(Path::new("m.onnx"));
        builder.configure(|config| config.threads = 5).target(target).build().unwrap().config
    };
    let left = build(Target::embedded());
    assert_eq!(
        (left.threads, left.provider.as_str(), left.runtime),
        (5, "cpu", RuntimeChoice::Auto)
    );
    let said =
        build(Target::embedded().threads(2).optimization(Optimization::Off).provider("cuda"));
    assert_eq!((said.threads, said.provider.as_str()), (2, "cuda"));
    assert_eq!(said.optimization, Optimization::Off);
}

#[cfg(feature = "onnxruntime")]
#[test]
fn a_library_names_the_runtime_that_it_is_of() {
    let builder = Optimizer::builder().model(Path::new("m.onnx"));
    let config = builder.target(Target::onnxruntime("/somewhere")).build().unwrap().config;
    assert_eq!(config.onnxruntime, Some(PathBuf::from("/somewhere")));
    assert!(matches!(config.runtime, RuntimeChoice::Named(kinds) if !kinds[0].is_embedded()));
}

#[test]
fn a_plan_and_samples_are_taken_as_they_are_given() {
    let plan = Plan::new(Numerics::default());
    let builder = Optimizer::builder().model(Path::new("m.onnx"));
    let config = builder
        .strategy(Strategy::Plan(plan.clone()))
        .samples(SampleSource::folder("inputs"))
        .samples(SampleSource::Arrays(Vec::new()))
        .build()
        .unwrap()
        .config;
    assert_eq!((config.plan, config.samples), (Some(plan), Some(PathBuf::from("inputs"))));
    assert!(config.given_samples.is_some());
}

#[test]
fn a_file_in_which_nothing_can_be_done_becomes_the_same_one() {
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.onnx", "out.onnx"].map(|name| folder.path().join(name));
    std::fs::write(&input, onnx::to_bytes(&network(&[])).unwrap()).unwrap();
    let outcome = optimize_file(&input, &output).unwrap();
    assert!(outcome.emitted && outcome.unchanged && outcome.verdict.is_none());
    assert!(std::fs::read(&input).unwrap() == std::fs::read(&output).unwrap());
}
