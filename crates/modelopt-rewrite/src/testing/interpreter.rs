//! Runs small models for this crate's tests, quantized ones among them. What it has no operator for is what
//! constant folding evaluates.

use std::collections::HashMap;
use std::sync::Arc;

use modelopt_graph::{
    Attribute, DataType, GraphId, Model, ModelInfo, NewNode, Node, Operator, Origin, Place, Tensor,
    ValueId,
};

use crate::evaluate::evaluate;

/// Values of a model by id.
pub(crate) type Values = HashMap<ValueId, Tensor>;

/// All values of the main graph, from those of its inputs, in their order.
pub(crate) fn run(model: &Model, feeds: &[Tensor]) -> Values {
    let mut values = Values::new();
    for (info, feed) in model.graph(model.main()).inputs.iter().zip(feeds) {
        values.insert(info.value, feed.clone());
    }
    run_graph(model, model.main(), &mut values);
    values
}

/// The first output of a model.
pub(crate) fn first_output(model: &Model, feeds: &[Tensor]) -> Tensor {
    let output = model.graph(model.main()).outputs[0].value;
    run(model, feeds).remove(&output).unwrap()
}

fn run_graph(model: &Model, graph: GraphId, values: &mut Values) {
    for id in model.nodes_of(graph) {
        let node = model.node(id);
        let value = |value: ValueId| match model.constant(value) {
            Some(tensor) => Tensor::clone(&tensor),
            None => values[&value].clone(),
        };
        let inputs: Vec<Option<Tensor>> =
            node.inputs().iter().map(|input| input.map(value)).collect();
        if node.op.is("If") {
            let taken = inputs[0].as_ref().unwrap().to_i64().unwrap()[0] != 0;
            let body = node.bodies().nth(usize::from(!taken)).unwrap();
            run_graph(model, body, values);
            let made = values[&model.graph(body).outputs[0].value].clone();
            values.insert(node.output(0).unwrap(), made);
            continue;
        }
        let version = model.opset(model.main(), "").unwrap();
        let made = compute(&node.op.name, node, version, &inputs);
        for (output, made) in node.outputs().iter().zip(made) {
            values.extend(output.map(|output| (output, made)));
        }
    }
}

fn compute(op: &str, node: &Node, version: i64, inputs: &[Option<Tensor>]) -> Vec<Tensor> {
    let input = |place: usize| inputs[place].as_ref().unwrap();
    let optional = |place: usize| inputs.get(place).and_then(Option::as_ref);
    vec![match op {
        "QuantizeLinear" => quantize(input(0), input(1), input(2), node.int("axis", 1) as usize),
        "DequantizeLinear" => {
            dequantize(input(0), input(1), optional(2), node.int("axis", 1) as usize)
        }
        "Conv" => conv(node, input(0), input(1), optional(2)),
        "Gemm" => return vec![gemm(node, version, inputs)],
        "MaxPool" => max_pool(node, input(0)),
        "GlobalAveragePool" => global_average(input(0)),
        "LeakyRelu" => {
            let slope = node.float("alpha", 0.01);
            map(input(0), |x| if x < 0.0 { x * slope } else { x })
        }
        "QGemm"
        | "MatMulIntegerToFloat"
        | "QLinearMatMul"
        | "QLinearConv"
        | "QLinearAdd"
        | "QLinearMul"
        | "QLinearConcat"
        | "QLinearSigmoid"
        | "QLinearLeakyRelu"
        | "QLinearGlobalAveragePool" => on_integers(op, node, version, inputs),
        _ => return folded(op, node, version, inputs),
    }]
}

/// An operator of quantized numbers: that of float between what dequantizes and what quantizes.
fn on_integers(op: &str, node: &Node, version: i64, inputs: &[Option<Tensor>]) -> Tensor {
    let input = |place: usize| inputs[place].as_ref().unwrap();
    let float = |place: usize, axis: usize| {
        Some(dequantize(input(place), input(place + 1), Some(input(place + 2)), axis))
    };
    let bias = |place: usize| {
        let bias = inputs.get(place)?.as_ref()?;
        let steps = map(input(4), |scale| scale * numbers(input(1))[0]);
        Some(dequantize(bias, &steps, None, 0))
    };
    if op == "MatMulIntegerToFloat" {
        let operands = [(0, 2, 4, 0), (1, 3, 5, 1)].map(|(place, scale, zero, axis)| {
            Some(dequantize(input(place), input(scale), Some(input(zero)), axis))
        });
        return compute("MatMul", node, version, &operands).remove(0);
    }
    let plain = op.trim_start_matches("QLinear").trim_start_matches('Q');
    let (operands, result) = match plain {
        "Conv" => (vec![float(0, 0), float(3, 0), bias(8)], 6),
        "Gemm" => {
            let columns = usize::from(node.int("transB", 0) == 0);
            (vec![float(0, 0), float(3, columns), bias(6)], 7)
        }
        "MatMul" => (vec![float(0, 0), float(3, 1)], 6),
        "Add" | "Mul" => (vec![float(0, 0), float(3, 0)], 6),
        "Concat" => ((2..inputs.len()).step_by(3).map(|place| float(place, 0)).collect(), 0),
        _ => (vec![float(0, 0)], 3),
    };
    let made = compute(plain, node, version, &operands).remove(0);
    if inputs.len() <= result {
        return made;
    }
    quantize(&made, input(result), input(result + 1), 0)
}

fn folded(op: &str, node: &Node, version: i64, inputs: &[Option<Tensor>]) -> Vec<Tensor> {
    let mut model = Model::new(ModelInfo::default());
    let operands = inputs.iter().map(|input| input.as_ref().map(|_| model.add_value("i")));
    let operands = operands.collect::<Vec<_>>();
    let outputs = node.outputs().iter().map(|_| Some(model.add_value("o"))).collect();
    let attributes: Vec<Attribute> = node.attributes.clone();
    let (name, origin) = (String::new(), Origin::NONE);
    let new =
        NewNode { name, op: Operator::onnx(op), inputs: operands, outputs, attributes, origin };
    let place = Place::Back(model.main());
    let id = model.insert(new, place);
    let inputs: Vec<_> = inputs.iter().map(|input| input.clone().map(Arc::new)).collect();
    evaluate(model.node(id), version, &inputs, 1 << 24).unwrap_or_else(|why| panic!("{op}: {why}"))
}

/// Numbers of any type of up to 64 bits.
pub(crate) fn numbers(tensor: &Tensor) -> Vec<f32> {
    match tensor.to_f32() {
        Some(numbers) => numbers.into_owned(),
        None => tensor.to_i64().unwrap().into_iter().map(|x| x as f32).collect(),
    }
}

/// Numbers as a tensor of a type.
fn tensor_of(dtype: DataType, shape: Vec<usize>, numbers: &[f32]) -> Tensor {
    match dtype {
        DataType::UINT8 => Tensor::of(shape, &numbers.iter().map(|&x| x as u8).collect::<Vec<_>>()),
        DataType::INT8 => Tensor::of(shape, &numbers.iter().map(|&x| x as i8).collect::<Vec<_>>()),
        _ => Tensor::of(shape, numbers),
    }
    .unwrap()
}

fn map(tensor: &Tensor, f: impl Fn(f32) -> f32) -> Tensor {
    let made: Vec<f32> = numbers(tensor).into_iter().map(f).collect();
    tensor_of(DataType::FLOAT, tensor.shape().to_vec(), &made)
}

/// The number of a list that is for a place of a tensor: one for all, or one for each index of an axis.
fn at(list: &[f32], shape: &[usize], axis: usize, place: usize) -> f32 {
    let inner: usize = shape.iter().skip(axis + 1).product();
    match list.len() {
        0 => 0.0,
        1 => list[0],
        count => {
            assert_eq!(count, shape[axis], "numbers along axis {axis}");
            list[place / inner % count]
        }
    }
}

fn quantize(x: &Tensor, scales: &Tensor, zero: &Tensor, axis: usize) -> Tensor {
    let (scales, zeros) = (numbers(scales), numbers(zero));
    let ends = if zero.dtype() == DataType::UINT8 { (0.0, 255.0) } else { (-128.0, 127.0) };
    let shape = x.shape();
    let integer = |(place, x): (usize, f32)| {
        let offset = at(&zeros, shape, axis, place);
        ((x / at(&scales, shape, axis, place)).round_ties_even() + offset).clamp(ends.0, ends.1)
    };
    let made: Vec<f32> = numbers(x).into_iter().enumerate().map(integer).collect();
    tensor_of(zero.dtype(), shape.to_vec(), &made)
}

fn dequantize(q: &Tensor, scales: &Tensor, zeros: Option<&Tensor>, axis: usize) -> Tensor {
    let (scales, zeros) = (numbers(scales), zeros.map(numbers).unwrap_or_default());
    let shape = q.shape();
    let float = |(place, q): (usize, f32)| {
        (q - at(&zeros, shape, axis, place)) * at(&scales, shape, axis, place)
    };
    let made: Vec<f32> = numbers(q).into_iter().enumerate().map(float).collect();
    tensor_of(DataType::FLOAT, shape.to_vec(), &made)
}

/// How a window moves over two dimensions; one dimension is the second of two.
struct Window {
    size: [usize; 2],
    step: [usize; 2],
    apart: [usize; 2],
    before: [usize; 2],
    made: [usize; 2],
    given: [usize; 2],
}

impl Window {
    fn of(node: &Node, shape: &[usize], size: &[usize]) -> Self {
        let pair = |list: &[usize], missing| match *list {
            [width] => [missing, width],
            [height, width] => [height, width],
            _ => panic!("{list:?} is not of one or two dimensions"),
        };
        let rank = size.len();
        let ints = |name: &str, count: usize, default: usize| match node.ints(name) {
            Some(list) => list.iter().map(|&x| x as usize).collect(),
            None => vec![default; count],
        };
        let pads: Vec<usize> = ints("pads", 2 * rank, 0);
        let (before, after) = (pair(&pads[..rank], 0), pair(&pads[rank..], 0));
        let step = pair(&ints("strides", rank, 1), 1);
        let apart = pair(&ints("dilations", rank, 1), 1);
        let (size, given) = (pair(size, 1), pair(&shape[2..], 1));
        let made = [0, 1].map(|d| {
            let spread = apart[d] * (size[d] - 1) + 1;
            (given[d] + before[d] + after[d] - spread) / step[d] + 1
        });
        Window { size, step, apart, before, made, given }
    }

    /// The places that one window has, as places in the window and in a channel; not those in the padding.
    fn places(&self, made: usize) -> Vec<(usize, usize)> {
        let [height, width] = self.size;
        let corner = [made / self.made[1], made % self.made[1]];
        let inside = |place: usize| {
            let own = [place / width, place % width];
            let mut at = [0; 2];
            for d in 0..2 {
                let padded = corner[d] * self.step[d] + own[d] * self.apart[d];
                at[d] = padded.checked_sub(self.before[d]).filter(|&at| at < self.given[d])?;
            }
            Some((place, at[0] * self.given[1] + at[1]))
        };
        (0..height * width).filter_map(inside).collect()
    }

    /// The shape that is made of so many channels.
    fn shape(&self, input: &[usize], channels: usize) -> Vec<usize> {
        let spatial = &self.made[2 - (input.len() - 2)..];
        [&[input[0], channels], spatial].concat()
    }
}

fn conv(node: &Node, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let window = Window::of(node, x.shape(), &w.shape()[2..]);
    let (kernel, area, made) = (
        window.size.iter().product::<usize>(),
        window.given.iter().product::<usize>(),
        window.made.iter().product::<usize>(),
    );
    let (batch, inputs, outputs) = (x.shape()[0], x.shape()[1], w.shape()[0]);
    let (own, groups) = (w.shape()[1], node.int("group", 1) as usize);
    let (x, weights) = (numbers(x), numbers(w));
    let bias = bias.map_or_else(|| vec![0.0; outputs], numbers);
    let mut y = Vec::new();
    for (n, o, place) in (0..batch)
        .flat_map(|n| (0..outputs).flat_map(move |o| (0..made).map(move |place| (n, o, place))))
    {
        let first = o / (outputs / groups) * own;
        let places = window.places(place);
        let sum: f64 = (0..own)
            .flat_map(|c| places.iter().map(move |&(k, at)| (c, k, at)))
            .map(|(c, k, at)| {
                let x = x[(n * inputs + first + c) * area + at];
                f64::from(x) * f64::from(weights[(o * own + c) * kernel + k])
            })
            .sum();
        y.push(sum as f32 + bias[o]);
    }
    let shape = window.shape(&[&[batch, inputs], x_spatial(&window, w)].concat(), outputs);
    tensor_of(DataType::FLOAT, shape, &y)
}

/// The spatial part of a shape that a window moves over.
fn x_spatial<'a>(window: &'a Window, w: &Tensor) -> &'a [usize] {
    &window.given[2 - (w.shape().len() - 2)..]
}

fn max_pool(node: &Node, x: &Tensor) -> Tensor {
    let size: Vec<usize> =
        node.ints("kernel_shape").unwrap().iter().map(|&size| size as usize).collect();
    let window = Window::of(node, x.shape(), &size);
    let area = window.given.iter().product::<usize>();
    let made = window.made.iter().product::<usize>();
    let largest = |channel: &[f32]| -> Vec<f32> {
        let of = |place| window.places(place).into_iter().map(|(_, at)| channel[at]);
        (0..made).map(|place| of(place).fold(f32::NEG_INFINITY, f32::max)).collect()
    };
    let y: Vec<f32> = numbers(x).chunks(area).flat_map(largest).collect();
    tensor_of(x.dtype(), window.shape(x.shape(), x.shape()[1]), &y)
}

fn global_average(x: &Tensor) -> Tensor {
    let area: usize = x.shape()[2..].iter().product();
    let mean = |channel: &[f32]| channel.iter().sum::<f32>() / area as f32;
    let y: Vec<f32> = numbers(x).chunks(area).map(mean).collect();
    let shape = [&x.shape()[..2], &vec![1; x.shape().len() - 2]].concat();
    tensor_of(DataType::FLOAT, shape, &y)
}

fn gemm(node: &Node, version: i64, inputs: &[Option<Tensor>]) -> Tensor {
    let one = |op: &str, operands: &[&Tensor]| {
        let operands: Vec<_> = operands.iter().map(|&tensor| Some(tensor.clone())).collect();
        let mut plain = node.clone();
        plain.attributes.clear();
        folded(op, &plain, version, &operands).remove(0)
    };
    let turned = |place: usize, name: &str| {
        let given = inputs[place].as_ref().unwrap();
        if node.int(name, 0) == 0 { given.clone() } else { one("Transpose", &[given]) }
    };
    let product = one("MatMul", &[&turned(0, "transA"), &turned(1, "transB")]);
    let product = map(&product, |x| x * node.float("alpha", 1.0));
    match inputs.get(2).and_then(Option::as_ref) {
        Some(bias) => one("Add", &[&product, &map(bias, |x| x * node.float("beta", 1.0))]),
        None => product,
    }
}
