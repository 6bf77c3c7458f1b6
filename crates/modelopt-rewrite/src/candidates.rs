//! What can be done to each layer, and why not more.

use modelopt_graph::{DataType, Model};
use rayon::prelude::*;

use crate::layers::{self, Layer, Role, WeightUse};
use crate::plan::Scheme;
use crate::quantize::SMALLEST;

/// What the nodes and initializers of `int8-weights` add to the file, roughly.
const PATTERN_BYTES: usize = 300;

/// The longest dot product whose sum of u8 x s8 products always fits 32 bits.
const LONGEST_DOT: usize = i32::MAX as usize / (255 * 127);

/// The first version of `ai.onnx` that has `DynamicQuantizeLinear`.
const DYNAMIC_SINCE: i64 = 11;

/// A layer with what can be done to it.
pub(crate) struct Candidate {
    pub(crate) layer: Layer,
    /// Its weights that can be stored as int8, by place in `layer.weights`.
    pub(crate) int8_weights: Result<Vec<usize>, String>,
    /// Its weight that can be multiplied as int8, by place in `layer.weights`.
    pub(crate) int8_dynamic: Result<usize, String>,
}

impl Candidate {
    /// The weights that a scheme would store as int8.
    pub(crate) fn weights(&self, scheme: Scheme) -> impl Iterator<Item = &WeightUse> {
        let places = match scheme {
            Scheme::Keep => Vec::new(),
            Scheme::Int8Weights => self.int8_weights.clone().unwrap_or_default(),
            // A dynamic layer's other operands (a large bias, say) stay.
            Scheme::Int8Dynamic => self.int8_dynamic.iter().copied().collect(),
        };
        places.into_iter().filter_map(|place| self.layer.weights.get(place))
    }

    /// Whether a scheme is possible, or why not.
    pub(crate) fn possible(&self, scheme: Scheme) -> Result<(), String> {
        match scheme {
            Scheme::Keep => Ok(()),
            Scheme::Int8Weights => self.int8_weights.as_ref().map(|_| ()).map_err(Clone::clone),
            Scheme::Int8Dynamic => self.int8_dynamic.as_ref().map(|_| ()).map_err(Clone::clone),
        }
    }
}

/// All layers, with what can be done to each.
pub(crate) fn candidates(model: &Model, min_weight_bytes: usize) -> Vec<Candidate> {
    layers::find(model, min_weight_bytes)
        .into_par_iter()
        .map(|layer| {
            let int8_weights = weights_as_int8(model, &layer, min_weight_bytes);
            let int8_dynamic = dynamic(model, &layer, int8_weights.as_deref());
            Candidate { layer, int8_weights, int8_dynamic }
        })
        .collect()
}

/// Which weights of a layer can be stored as int8, or why none can.
fn weights_as_int8(model: &Model, layer: &Layer, min: usize) -> Result<Vec<usize>, String> {
    if layers::is_quantized_operator(model, layer.node) {
        return Err("already quantized".to_owned());
    }
    let mut first_reason = None;
    let mut places = Vec::new();
    // The largest weight's reason is the one to tell.
    let mut order: Vec<usize> = (0..layer.weights.len()).collect();
    order.sort_by_key(|&place| std::cmp::Reverse(layer.weights[place].tensor.byte_len()));
    for place in order {
        match weight_as_int8(model, layer, &layer.weights[place], min) {
            Ok(()) => places.push(place),
            Err(reason) => {
                first_reason.get_or_insert(reason);
            }
        }
    }
    places.sort_unstable();
    if places.is_empty() {
        Err(first_reason.unwrap_or_else(|| "already quantized".to_owned()))
    } else {
        Ok(places)
    }
}

fn weight_as_int8(
    model: &Model,
    layer: &Layer,
    weight: &WeightUse,
    min: usize,
) -> Result<(), String> {
    let tensor = &weight.tensor;
    if layers::is_overridable(model, weight.value) {
        return Err(format!(
            "'{}' is an input with a default, which callers may override",
            model.value(weight.value).name()
        ));
    }
    if layers::is_returned(model, weight.value) {
        return Err("the weight is also an output of the graph".to_owned());
    }
    if let Some(reason) = layers::refuses_computed(model, layer.node) {
        return Err(reason.to_owned());
    }
    if tensor.byte_len() < min {
        return Err(format!("{} bytes: below the threshold of {min}", tensor.byte_len()));
    }
    // Biases and peepholes; directions and gates make them look like matrices.
    let recurrent = matches!(model.node(layer.node).op.name.as_str(), "LSTM" | "GRU" | "RNN");
    let is_bias = recurrent && weight.role == Role::Other;
    if is_bias || tensor.shape().iter().filter(|&&dim| dim > 1).count() < 2 {
        return Err("a vector: it needs its precision, and there is little to gain".to_owned());
    }
    let scales = weight.role.channels(tensor.shape()).map_or(1, |channels| channels.count());
    if tensor.len() + 4 * scales + PATTERN_BYTES >= tensor.byte_len() {
        return Err("int8 with its scales would save nothing".to_owned());
    }
    let Some(numbers) = tensor.to_f32() else {
        return Err("not of a float type".to_owned());
    };
    if numbers.iter().any(|x| !x.is_finite()) {
        return Err("the weight holds NaN or infinity".to_owned());
    }
    if numbers.iter().all(|&x| x.abs() < SMALLEST) {
        return Err("the weight is all zero, or next to it".to_owned());
    }
    Ok(())
}

/// Which weight of a layer can be multiplied as int8, or why none can.
fn dynamic(
    model: &Model,
    layer: &Layer,
    int8_weights: Result<&[usize], &String>,
) -> Result<usize, String> {
    let node = model.node(layer.node);
    if !matches!(node.op.name.as_str(), "MatMul" | "Gemm" | "Conv") || !node.op.is_onnx() {
        return Err(format!("{} has no dynamic int8 form", node.op));
    }
    let places = int8_weights.map_err(Clone::clone)?;
    let is_right =
        |role| matches!(role, Role::MatMulRight | Role::GemmB { .. } | Role::ConvFilters);
    let place = places
        .iter()
        .copied()
        .find(|&place| is_right(layer.weights[place].role))
        .ok_or("the weight is on the left, and integer kernels want it on the right")?;
    let weight = &layer.weights[place];
    if weight.tensor.dtype() != DataType::FLOAT {
        return Err(format!("DynamicQuantizeLinear takes float, not {}", weight.tensor.dtype()));
    }
    let version = model.opset(node.graph(), "").unwrap_or(0);
    if version < DYNAMIC_SINCE {
        return Err(format!("opset {version} has no DynamicQuantizeLinear (it came with 11)"));
    }
    let activation = node.input(0).ok_or("it has no activation")?;
    if layers::comes_quantized(model, activation) {
        return Err("its activation is quantized already".to_owned());
    }
    let shape = weight.tensor.shape();
    let depth: usize = match weight.role {
        Role::GemmB { transposed: true } => shape[1],
        Role::ConvFilters => shape.iter().skip(1).product(),
        _ => shape[shape.len() - 2],
    };
    if depth > LONGEST_DOT {
        return Err("its dot products are too long for 32-bit sums".to_owned());
    }
    if weight.role == Role::ConvFilters {
        let computed = node.input(2).is_some_and(|bias| model.constant(bias).is_none());
        return if computed { Err("its bias is computed".to_owned()) } else { Ok(place) };
    }
    if shape.len() > 2 && layers::rank(model, activation).is_none_or(|rank| rank < 2) {
        return Err("a batched weight needs an activation of known rank".to_owned());
    }
    Ok(place)
}
