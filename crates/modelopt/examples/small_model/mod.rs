//! A small model, made here so that examples and tests need no files: three layers of a perceptron.

use std::sync::Arc;

use modelopt::graph::{
    Constant, DataType, Dim, Model, ModelInfo, NewNode, Operator, OpsetImport, Origin, Place,
    Tensor, Type, ValueId, ValueInfo,
};

/// Inputs and outputs of every layer.
pub(crate) const WIDTH: usize = 64;

/// Numbers in -1..1 that look like noise.
pub(crate) fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// `x: [n, 64]` to `y: [n, 64]`, by weights that depend on the seed.
#[allow(dead_code)] // Not every example takes this.
pub(crate) fn perceptron(seed: u32) -> Model {
    layers(seed, 1)
}

/// The same with every rectifier twice.
#[allow(dead_code)] // Not every example takes this.
pub(crate) fn twice_rectified(seed: u32) -> Model {
    layers(seed, 2)
}

fn layers(seed: u32, rectifiers: usize) -> Model {
    let import = OpsetImport { domain: String::new(), version: 17, origin: Origin::NONE };
    let info = ModelInfo { ir_version: 8, opsets: vec![import], ..ModelInfo::default() };
    let mut model = Model::new(info);
    let main = model.main();
    let x = model.add_value("x");
    model.add_input(main, declared(x));
    let mut current = x;
    for layer in 0..3 {
        let weight = model.add_value(format!("W{layer}"));
        let numbers: Vec<f32> = noise(WIDTH * WIDTH, seed * 3 + layer + 1);
        let tensor = Tensor::of(vec![WIDTH, WIDTH], &numbers).expect("as many as the shape says");
        model.set_constant(main, weight, Constant::Dense(Arc::new(tensor)));
        let product = model.add_value(if layer == 2 { "y".into() } else { format!("p{layer}") });
        insert(&mut model, "MatMul", &[current, weight], product);
        current = product;
        for time in (0..rectifiers).filter(|_| layer < 2) {
            let again = if time > 0 { "again" } else { "" };
            let rectified = model.add_value(format!("h{layer}{again}"));
            insert(&mut model, "Relu", &[current], rectified);
            current = rectified;
        }
    }
    model.add_output(main, declared(current));
    model
}

/// Inputs for it, one set for each sample.
#[allow(dead_code)] // Not every example takes this.
pub(crate) fn inputs(samples: usize) -> Vec<Vec<(String, Tensor)>> {
    let input = |seed| {
        let numbers = noise(4 * WIDTH, 1000 + seed as u32);
        Tensor::of(vec![4, WIDTH], &numbers).expect("as many as the shape says")
    };
    (0..samples).map(|seed| vec![("x".to_owned(), input(seed))]).collect()
}

fn declared(value: ValueId) -> ValueInfo {
    let shape = Some(vec![Dim::Symbol("n".into()), Dim::Fixed(WIDTH)]);
    let ty = Type::Tensor { elem: DataType::FLOAT, shape };
    ValueInfo { value, ty: Some(ty.into()), origin: Origin::NONE }
}

fn insert(model: &mut Model, op: &str, inputs: &[ValueId], output: ValueId) {
    let node = NewNode {
        name: String::new(),
        op: Operator::onnx(op),
        inputs: inputs.iter().copied().map(Some).collect(),
        outputs: vec![Some(output)],
        attributes: Vec::new(),
        origin: Origin::NONE,
    };
    let main = model.main();
    model.insert(node, Place::Back(main));
}
