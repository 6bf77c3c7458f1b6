//! Inputs that are made while they are asked for, such as by a data loader.

mod small_model;

use modelopt::prelude::*;
use small_model::{WIDTH, noise};

/// Stands for a data loader: batches of different sizes.
fn batches() -> impl Iterator<Item = Vec<(String, Tensor)>> {
    (1..6u32).map(|size| {
        let rows = size as usize;
        let batch = Tensor::of(vec![rows, WIDTH], &noise(rows * WIDTH, size));
        vec![("x".to_owned(), batch.expect("as many as the shape says"))]
    })
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let optimized = Optimizer::builder()
        .model(small_model::perceptron(3))
        .samples(SampleSource::arrays(batches()))
        .strategy(Strategy::Scheme("int8-weights".parse()?))
        .build()?
        .run(&mut |_| {})?;
    let samples = optimized.outcome.samples.ok_or("the models were not run")?;
    println!("judged on {} batches", samples.count);
    optimized.artifact()?;
    Ok(())
}
