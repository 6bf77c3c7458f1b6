//! Running small models, so that tests of passes can compare numbers.
//!
//! The evaluator does what it can; the operators that fusions are about, and it does not have, are
//! spelled out here as their definitions say.

use std::collections::HashMap;
use std::sync::Arc;

use modelopt_graph::{Model, Node, NodeId, Tensor, Type, ValueId, infer, verify};

use crate::engine::{self, Rewrite};
use crate::evaluate;
use crate::testing::{Build, float, noise};

/// Infers types and runs a rewrite under the engine's checks. Returns how often it applied.
pub(super) fn fused(b: &mut Build, rewrite: &impl Rewrite) -> usize {
    infer::infer(&mut b.model);
    engine::run(&mut b.model, rewrite).unwrap()
}

/// What [`of_one`] makes has this shape.
pub(super) const SHAPE: [usize; 2] = [4, 8];

/// A model with one input, of which something is spelled out.
pub(super) fn of_one(opset: i64, spell: impl FnOnce(&mut Build, ValueId) -> ValueId) -> Build {
    let mut b = Build::new(opset);
    let x = b.input("x", float(&SHAPE));
    let y = spell(&mut b, x);
    b.output(y, float(&SHAPE));
    b
}

/// Asserts that two models have one interface, and the same outputs on a fixed input.
pub(super) fn assert_same_results(before: &Model, after: &Model, tolerance: f32) {
    assert_eq!(verify::interface(before), verify::interface(after));
    let [expected, actual] = [before, after].map(outputs);
    for (expected, actual) in expected.iter().zip(&actual) {
        assert_eq!(expected.shape(), actual.shape());
        let [expected, actual] = [expected, actual].map(|tensor| tensor.to_f32().unwrap());
        let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        assert!(largest > 0.0, "an output of zeros says nothing");
        for (a, b) in expected.iter().zip(actual.iter()) {
            assert!((a - b).abs() <= tolerance * largest, "{a} is {b} afterwards");
        }
    }
}

fn outputs(model: &Model) -> Vec<Tensor> {
    let main = model.main();
    let mut known: HashMap<ValueId, Arc<Tensor>> = HashMap::new();
    for info in &model.graph(main).inputs {
        let shape = model.value(info.value).ty().and_then(Type::shape).cloned();
        let shape = info.ty.as_ref().and_then(|ty| ty.ty.shape().cloned()).or(shape).unwrap();
        let shape: Vec<usize> = shape.iter().map(|dim| dim.fixed().unwrap()).collect();
        // Beyond 3 on both sides, where clipping begins.
        let data: Vec<f32> = noise(shape.iter().product(), 11).iter().map(|x| x * 4.0).collect();
        known.insert(info.value, Arc::new(Tensor::of(shape, &data).unwrap()));
    }
    for id in model.walk() {
        let result = result(model, id, &known);
        known.insert(model.node(id).output(0).unwrap(), Arc::new(result));
    }
    let outputs = model.graph(main).outputs.iter();
    outputs.map(|info| (*known[&info.value]).clone()).collect()
}

fn result(model: &Model, id: NodeId, known: &HashMap<ValueId, Arc<Tensor>>) -> Tensor {
    let node = model.node(id);
    let inputs: Vec<Option<Arc<Tensor>>> = node
        .inputs()
        .iter()
        .map(|input| input.map(|v| known.get(&v).cloned().or_else(|| model.constant(v)).unwrap()))
        .collect();
    let version = model.opset(node.graph(), "").unwrap();
    if let Ok(results) = evaluate::evaluate(node, version, &inputs, 1 << 20) {
        return results.into_iter().next().unwrap();
    }
    let floats: Vec<(Vec<usize>, Vec<f64>)> = inputs
        .iter()
        .flatten()
        .map(|t| (t.shape().to_vec(), t.to_f32().unwrap().iter().map(|&x| f64::from(x)).collect()))
        .collect();
    let (shape, data) = reference(node, &floats);
    Tensor::of(shape, &data.iter().map(|&x| x as f32).collect::<Vec<_>>()).unwrap()
}

type Floats = (Vec<usize>, Vec<f64>);

fn reference(node: &Node, inputs: &[Floats]) -> Floats {
    let (shape, x) = &inputs[0];
    let each = |f: &dyn Fn(f64) -> f64| (shape.clone(), x.iter().map(|&x| f(x)).collect());
    match node.op.name.as_str() {
        "Erf" => each(&erf),
        "Gelu" if node.string("approximate") == Some("tanh") => each(&|x| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }),
        "Gelu" => each(&|x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()))),
        "HardSigmoid" => each(&|x| {
            let [alpha, beta] = [("alpha", 0.2), ("beta", 0.5)]
                .map(|(name, default)| f64::from(node.float(name, default)));
            (alpha * x + beta).clamp(0.0, 1.0)
        }),
        "HardSwish" => each(&|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "LayerNormalization" => layer_norm(node, inputs),
        "Gemm" => gemm(node, inputs),
        "Conv" => conv(node, inputs),
        "ConvTranspose" => conv_transpose(inputs),
        other => panic!("no reference for {other}"),
    }
}

/// The error function by its Taylor series, which is exact enough within -6..6.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn layer_norm(node: &Node, inputs: &[Floats]) -> Floats {
    let (shape, x) = &inputs[0];
    let scale = &inputs[1].1;
    let epsilon = f64::from(node.float("epsilon", 1e-5));
    let mut out = Vec::new();
    for row in x.chunks_exact(scale.len()) {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
        for (i, x) in row.iter().enumerate() {
            let bias = inputs.get(2).map_or(0.0, |(_, bias)| bias[i]);
            out.push((x - mean) / (variance + epsilon).sqrt() * scale[i] + bias);
        }
    }
    (shape.clone(), out)
}

fn gemm(node: &Node, inputs: &[Floats]) -> Floats {
    let ((a_shape, a), (b_shape, b)) = (&inputs[0], &inputs[1]);
    let [alpha, beta] = ["alpha", "beta"].map(|name| f64::from(node.float(name, 1.0)));
    let transposed = node.int("transB", 0) != 0;
    let (rows, inner) = (a_shape[0], a_shape[1]);
    let columns = b_shape[usize::from(!transposed)];
    let mut out = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            let weight =
                |k: usize| b[if transposed { column * inner + k } else { k * columns + column }];
            let sum: f64 = (0..inner).map(|k| a[row * inner + k] * weight(k)).sum();
            let bias = inputs.get(2).map_or(0.0, |(_, bias)| bias[column]);
            out.push(alpha * sum + beta * bias);
        }
    }
    (vec![rows, columns], out)
}

/// Two dimensions, one image, stride 1.
fn conv(node: &Node, inputs: &[Floats]) -> Floats {
    let ((x_shape, x), (w_shape, w)) = (&inputs[0], &inputs[1]);
    let pad = node.ints("pads").map_or(0, |pads| pads[0]);
    let (height, width) = (x_shape[2] as i64, x_shape[3] as i64);
    let (taps_y, taps_x) = (w_shape[2] as i64, w_shape[3] as i64);
    let (out_y, out_x) = (height + 2 * pad - taps_y + 1, width + 2 * pad - taps_x + 1);
    let filters_in_group = w_shape[0] / node.int("group", 1) as usize;
    let mut out = Vec::new();
    for filter in 0..w_shape[0] {
        for place in 0..out_y * out_x {
            let (top, left) = (place / out_x - pad, place % out_x - pad);
            let mut sum = inputs.get(2).map_or(0.0, |(_, bias)| bias[filter]);
            for tap in 0..w_shape[1] as i64 * taps_y * taps_x {
                let channel = tap / (taps_y * taps_x);
                let (y, x_) = (top + tap / taps_x % taps_y, left + tap % taps_x);
                if (0..height).contains(&y) && (0..width).contains(&x_) {
                    let first = (filter / filters_in_group * w_shape[1]) as i64;
                    let at = ((first + channel) * height + y) * width + x_;
                    let weight = filter as i64 * w_shape[1] as i64 * taps_y * taps_x + tap;
                    sum += x[at as usize] * w[weight as usize];
                }
            }
            out.push(sum);
        }
    }
    (vec![1, w_shape[0], out_y as usize, out_x as usize], out)
}

/// Two dimensions, one image, one group, stride 1, no padding.
fn conv_transpose(inputs: &[Floats]) -> Floats {
    let ((x_shape, x), (w_shape, w)) = (&inputs[0], &inputs[1]);
    let (height, width) = (x_shape[2] + w_shape[2] - 1, x_shape[3] + w_shape[3] - 1);
    let filters = w_shape[1];
    let mut out = vec![0.0; filters * height * width];
    for (index, value) in out.iter_mut().enumerate() {
        *value = inputs.get(2).map_or(0.0, |(_, bias)| bias[index / (height * width)]);
    }
    for (at, &number) in x.iter().enumerate() {
        let (channel, y, x_) =
            (at / (x_shape[2] * x_shape[3]), at / x_shape[3] % x_shape[2], at % x_shape[3]);
        let taps = w_shape[2] * w_shape[3];
        for index in 0..filters * taps {
            let (filter, tap) = (index / taps, index % taps);
            let place = (y + tap / w_shape[3]) * width + x_ + tap % w_shape[3];
            out[filter * height * width + place] += number * w[channel * filters * taps + index];
        }
    }
    (vec![1, filters, height, width], out)
}
