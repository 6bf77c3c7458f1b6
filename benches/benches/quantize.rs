//! What quantizing costs, step by step: load, transform, save, and all of it; and what converting
//! to float16 costs.
//!
//! `cargo bench -p modelopt-benches` measures a made-up model, and the largest test model if
//! `cargo xtask setup` was run.

use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use modelopt::onnx::{self, SaveOptions, Staged};
use modelopt::rewrite::Scheme;
use modelopt::{Config, Enforcement, optimize, transform};
use xtask::testdata;

fn models(folder: &Path) -> Vec<(&'static str, PathBuf)> {
    let synthetic = folder.join("synthetic.onnx");
    let model = modelopt_benches::synthetic(12, 1024);
    Staged::write(&model, &synthetic, SaveOptions::default()).and_then(Staged::commit).unwrap();
    let mut models = vec![("synthetic", synthetic)];
    let set_up = testdata::target_dir().join("testdata").join("models");
    if set_up.exists() {
        models.push(("rxnmap", testdata::model("rxnmap")));
    } else {
        eprintln!("rxnmap is left out: `cargo xtask setup` was not run");
    }
    models
}

fn steps(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { enforcement: Enforcement::None, ..Config::default() };
    for (name, path) in models(folder.path()) {
        let output = folder.path().join("output.onnx");
        let model = onnx::load(&path).unwrap();
        let transformed = transform(&model, &config).unwrap();

        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        group.throughput(Throughput::Bytes(fs_err::metadata(&path).unwrap().len()));
        // Dropping a model is not part of loading or making one.
        group.bench_function("load", |bencher| {
            bencher.iter_with_large_drop(|| onnx::load(&path).unwrap());
        });
        group.bench_function("transform", |bencher| {
            bencher.iter_with_large_drop(|| transform(&model, &config).unwrap());
        });
        group.bench_function("save", |bencher| {
            let write = || Staged::write(&transformed.model, &output, SaveOptions::default());
            bencher.iter(|| write().and_then(Staged::commit).unwrap());
        });
        group.bench_function("quantize", |bencher| {
            bencher.iter(|| optimize(&path, &output, &config, &mut |_| {}).unwrap());
        });
        let half = Config { enforcement: Enforcement::None, ..Config::converting(Scheme::FP16) };
        group.bench_function("convert to fp16", |bencher| {
            bencher.iter(|| optimize(&path, &output, &half, &mut |_| {}).unwrap());
        });
        group.finish();
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
