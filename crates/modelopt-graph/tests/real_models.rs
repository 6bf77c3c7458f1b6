//! Inference on real models: every value gets a type, quickly.

use std::time::{Duration, Instant};

use modelopt_graph::{Model, Producer, infer, verify};

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn every_value_of_a_real_model_gets_a_type() {
    for (name, path) in xtask::testdata::models() {
        let mut model = modelopt_onnx::load(&path).unwrap();
        verify::check(&model).unwrap();
        let start = Instant::now();
        infer::infer(&mut model);
        let took = start.elapsed();
        let (mut values, mut ranks, mut shapes) = (0, 0, 0);
        for (value, label) in made(&model) {
            let ty = model.value(value).ty();
            assert!(
                ty.is_some(),
                "{name}: nothing known of '{}' by {label}",
                model.value(value).name()
            );
            values += 1;
            let shape = ty.and_then(|ty| ty.shape());
            ranks += usize::from(shape.is_some());
            let known = |shape: &modelopt_graph::Shape| {
                shape.iter().all(|size| *size != modelopt_graph::Dim::Unknown)
            };
            shapes += usize::from(shape.is_some_and(known));
        }
        println!("{name}: {values} values, {ranks} ranks, {shapes} full shapes, {took:?}");
        // It takes a few milliseconds where nothing else runs.
        assert!(took < Duration::from_secs(10), "{name} took {took:?}");
    }
}

/// The values that nodes make, in all graphs.
fn made(model: &Model) -> Vec<(modelopt_graph::ValueId, String)> {
    let mut values = Vec::new();
    for node in model.walk() {
        for value in model.node(node).outputs().iter().flatten() {
            assert!(matches!(model.value(*value).producer(), Producer::Node(..)));
            values.push((*value, model.label(node)));
        }
    }
    values
}
