//! From bytes to bytes, on inputs that are arrays: no file of the caller's is read or written.

mod small_model;

use modelopt::prelude::*;

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bytes = modelopt::onnx::to_bytes(&small_model::perceptron(1))?;
    let before = bytes.len();

    let optimized = Optimizer::builder()
        .model(Source::bytes(bytes))
        .samples(SampleSource::arrays(small_model::inputs(5)))
        .limits(Limits { min_sqnr_db: Some(25.0), ..Limits::default() })
        .build()?
        .run(&mut |_| {})?;

    let smaller = optimized.artifact()?.to_bytes()?;
    println!("{before} bytes became {}", smaller.len());
    for layer in &optimized.outcome.plan.layers {
        println!("{}: {}", layer.id, layer.scheme);
    }
    Ok(())
}
