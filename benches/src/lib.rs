//! Models to measure on that are made rather than downloaded.

use std::sync::Arc;

use modelopt::graph::{
    Attribute, Constant, DataType, Dim, Model, ModelInfo, NewNode, OpsetImport, Origin, Place,
    Tensor, Type, ValueId, ValueInfo,
};

/// A perceptron of so many square layers beside a chain of so many 3x3 convolutions, with weights
/// that are always the same.
///
/// A layer has `width * width` weights, a convolution of `width / 8` channels a little more than a
/// seventh of that.
///
/// # Panics
/// Never: shapes fit their data.
pub fn synthetic(layers: usize, width: usize) -> Model {
    let mut chains = Chains::new();
    let features = chains.input("features", &[1, width]);
    let last = (0..layers).fold(features, |x, layer| {
        let weight = chains.weight(&format!("dense{layer}"), &[width, width]);
        let x = chains.node("MatMul", &[x, weight]);
        chains.node("Relu", &[x])
    });
    chains.output(last, &[1, width]);

    let channels = (width / 8).max(1);
    let image = chains.input("image", &[1, channels, 16, 16]);
    let last = (0..layers).fold(image, |x, layer| {
        let weight = chains.weight(&format!("conv{layer}"), &[channels, channels, 3, 3]);
        let x = chains.node("Conv", &[x, weight]);
        chains.node("Relu", &[x])
    });
    chains.output(last, &[1, channels, 16, 16]);
    chains.model
}

struct Chains {
    model: Model,
    /// State of the generator of weights.
    state: u32,
}

impl Chains {
    fn new() -> Self {
        let import = OpsetImport { domain: String::new(), version: 17, origin: Origin::NONE };
        let info = ModelInfo { ir_version: 8, opsets: vec![import], ..ModelInfo::default() };
        Chains { model: Model::new(info), state: 0x9e37_79b9 }
    }

    fn input(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let value = self.model.add_value(name);
        self.model.add_input(self.model.main(), port(value, shape));
        value
    }

    fn output(&mut self, value: ValueId, shape: &[usize]) {
        self.model.add_output(self.model.main(), port(value, shape));
    }

    /// Uniform weights of a size that keeps activations in range.
    fn weight(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let count: usize = shape.iter().product();
        let reach = (6.0 / (count / shape[0]).max(1) as f32).sqrt();
        let weights: Vec<f32> = (0..count).map(|_| reach * self.noise()).collect();
        let tensor =
            Tensor::of(shape.to_vec(), &weights).expect("as many weights as the shape has");
        let value = self.model.add_value(name);
        self.model.set_constant(self.model.main(), value, Constant::Dense(Arc::new(tensor)));
        value
    }

    /// The next number of a fixed sequence in -1..1.
    fn noise(&mut self) -> f32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        self.state as f32 / u32::MAX as f32 * 2.0 - 1.0
    }

    fn node(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        let name = self.model.fresh_name(op);
        let output = self.model.add_value(name.as_str());
        let attributes = match op {
            "Conv" => vec![Attribute::new("pads", vec![1_i64; 4])],
            _ => Vec::new(),
        };
        let node = NewNode::onnx(name, op, inputs, output, attributes);
        self.model.insert(node, Place::Back(self.model.main()));
        output
    }
}

fn port(value: ValueId, shape: &[usize]) -> ValueInfo {
    let shape = shape.iter().map(|&size| Dim::Fixed(size)).collect();
    let ty = Type::Tensor { elem: DataType::FLOAT, shape: Some(shape) };
    ValueInfo { value, ty: Some(ty.into()), origin: Origin::NONE }
}

#[cfg(test)]
mod tests {
    use modelopt::rewrite::Scheme;

    use super::*;

    #[test]
    fn every_layer_is_quantized() {
        let transformed = modelopt::transform(&synthetic(3, 256), &modelopt::Config::default());
        let plan = transformed.unwrap().plan;
        let count = |scheme| plan.layers.iter().filter(|layer| layer.scheme == scheme).count();
        assert_eq!((count(Scheme::INT8_DYNAMIC), count(Scheme::INT8_WEIGHTS)), (3, 3), "{plan:?}");
    }
}
