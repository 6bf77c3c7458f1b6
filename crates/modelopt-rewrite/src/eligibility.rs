//! What can be done to each layer, and why not more.

use modelopt_graph::{DataType, Model};
use rayon::prelude::*;

use crate::layers::{self, Layer, Role, WeightUse};
use crate::plan::{Plan, Precision, Scheme};
use crate::precision;
use crate::quantize::SMALLEST;

/// What the nodes and initializers of `int8-weights` add to the file, roughly.
const PATTERN_BYTES: usize = 300;

/// The longest dot product whose sum of u8 x s8 products always fits 32 bits.
const LONGEST_DOT: usize = i32::MAX as usize / (255 * 127);

/// The first version of `ai.onnx` whose `Mul` broadcasts as numpy does. Before, it does so by
/// attributes, and not along two axes at once; onnxruntime has no kernel for those versions.
const BROADCASTS_SINCE: i64 = 7;

/// The first version of `ai.onnx` that has `DynamicQuantizeLinear`.
const DYNAMIC_SINCE: i64 = 11;

/// A layer with what can be done to it.
pub(crate) struct Candidate {
    pub(crate) layer: Layer,
    /// Its weights that can be stored as int8, by place in `layer.weights`.
    pub(crate) int8_weights: Result<Vec<usize>, String>,
    /// Its weight that can be multiplied as int8, by place in `layer.weights`.
    pub(crate) int8_dynamic: Result<usize, String>,
    /// Its weights that can be stored in 16 bits, by place in `layer.weights`, for each type.
    halves: [Result<Vec<usize>, String>; 2],
}

impl Candidate {
    /// The weights that a scheme would store as int8.
    pub(crate) fn weights(&self, scheme: Scheme) -> impl Iterator<Item = &WeightUse> {
        let places = match scheme {
            Scheme::Keep | Scheme::Fp16 | Scheme::Bf16 => Vec::new(),
            Scheme::Fp16Weights => self.halves[0].clone().unwrap_or_default(),
            Scheme::Bf16Weights => self.halves[1].clone().unwrap_or_default(),
            Scheme::Int8Weights => self.int8_weights.clone().unwrap_or_default(),
            // A dynamic layer's other operands (a large bias, say) stay.
            Scheme::Int8Dynamic => self.int8_dynamic.iter().copied().collect(),
        };
        places.into_iter().filter_map(|place| self.layer.weights.get(place))
    }

    /// Whether a scheme is possible, or why not.
    pub(crate) fn possible(&self, scheme: Scheme) -> Result<(), String> {
        match scheme {
            Scheme::Keep | Scheme::Fp16 | Scheme::Bf16 => Ok(()),
            Scheme::Fp16Weights => self.halves[0].as_ref().map(|_| ()).map_err(Clone::clone),
            Scheme::Bf16Weights => self.halves[1].as_ref().map(|_| ()).map_err(Clone::clone),
            Scheme::Int8Weights => self.int8_weights.as_ref().map(|_| ()).map_err(Clone::clone),
            Scheme::Int8Dynamic => self.int8_dynamic.as_ref().map(|_| ()).map_err(Clone::clone),
        }
    }
}

/// What to look at: every scheme that is looked at reads all weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Weights smaller than this are left alone, in bytes.
    pub(crate) min_weight_bytes: usize,
    int8: bool,
    halves: [bool; 2],
    /// What rounding to 16 bits must leave, in dB.
    min_rounding_sqnr_db: f64,
}

impl Look {
    /// Looks at these schemes.
    pub(crate) fn new(
        schemes: impl IntoIterator<Item = Scheme>,
        min_weight_bytes: usize,
        min_rounding_sqnr_db: f64,
    ) -> Self {
        let mut look =
            Look { min_weight_bytes, int8: false, halves: [false; 2], min_rounding_sqnr_db };
        for scheme in schemes {
            look.int8 |= scheme.is_int8();
            for (wanted, to) in look.halves.iter_mut().zip(Precision::ALL) {
                *wanted |= scheme.stores_in() == Some(to);
            }
        }
        look
    }

    /// Looks at what a plan asks for, without a threshold: whoever writes a plan by hand may mean
    /// a small layer, or one that loses much.
    pub(crate) fn at(plan: &Plan) -> Self {
        Look::new(plan.layers.iter().map(|layer| layer.scheme), 0, f64::NEG_INFINITY)
    }
}

/// All layers, with what can be done to each.
pub(crate) fn candidates(model: &Model, look: &Look) -> Vec<Candidate> {
    let not_looked_at = || Err("not asked for".to_owned());
    layers::find(model, look.min_weight_bytes)
        .into_par_iter()
        .map(|layer| {
            let int8_weights = if look.int8 {
                storable(model, &layer, look.min_weight_bytes, as_int8)
            } else {
                not_looked_at()
            };
            let int8_dynamic = dynamic(model, &layer, int8_weights.as_deref());
            let [fp16, bf16] = Precision::ALL;
            let half = |to: Precision| {
                if !look.halves[to as usize] {
                    return not_looked_at();
                }
                storable(model, &layer, look.min_weight_bytes, |model, layer, weight| {
                    as_half(model, layer, weight, to, look.min_rounding_sqnr_db)
                })
            };
            let halves = [half(fp16), half(bf16)];
            Candidate { layer, int8_weights, int8_dynamic, halves }
        })
        .collect()
}

/// Which weights of a layer can be stored in another type, or why none can.
fn storable(
    model: &Model,
    layer: &Layer,
    min: usize,
    fits: impl Fn(&Model, &Layer, &WeightUse) -> Result<(), String>,
) -> Result<Vec<usize>, String> {
    if layers::is_quantized_operator(model, layer.node) {
        return Err("already quantized".to_owned());
    }
    let mut first_reason = None;
    let mut places = Vec::new();
    // The largest weight's reason is the one to tell.
    let mut order: Vec<usize> = (0..layer.weights.len()).collect();
    order.sort_by_key(|&place| std::cmp::Reverse(layer.weights[place].tensor.byte_len()));
    for place in order {
        let weight = &layer.weights[place];
        match replaceable(model, layer, weight, min).and_then(|()| fits(model, layer, weight)) {
            Ok(()) => places.push(place),
            Err(reason) => {
                first_reason.get_or_insert(reason);
            }
        }
    }
    places.sort_unstable();
    if places.is_empty() {
        let sparse = !layers::sparse_weights(model, layer.node).is_empty();
        let otherwise =
            if sparse { "sparse: it is stored small already" } else { "already quantized" };
        Err(first_reason.unwrap_or_else(|| otherwise.to_owned()))
    } else {
        Ok(places)
    }
}

/// Whether a weight can be replaced by something computed, and is worth it.
fn replaceable(model: &Model, layer: &Layer, weight: &WeightUse, min: usize) -> Result<(), String> {
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
    let size = weight.tensor.byte_len();
    if size < min { Err(format!("{size} bytes: below the threshold of {min}")) } else { Ok(()) }
}

fn as_int8(model: &Model, layer: &Layer, weight: &WeightUse) -> Result<(), String> {
    match model.opset(model.main(), "") {
        None => return Err("the model imports no operators of ai.onnx, and so no Mul".to_owned()),
        Some(version) if version < BROADCASTS_SINCE => {
            return Err(format!(
                "opset {version} has no Mul that broadcasts (it came with {BROADCASTS_SINCE})"
            ));
        }
        Some(_) => {}
    }
    let tensor = &weight.tensor;
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

/// What the node and initializer of `fp16-weights` add to the file, roughly.
const CAST_BYTES: usize = 100;

fn as_half(
    model: &Model,
    _: &Layer,
    weight: &WeightUse,
    to: Precision,
    min_sqnr_db: f64,
) -> Result<(), String> {
    let tensor = &weight.tensor;
    if tensor.dtype() != DataType::FLOAT {
        return Err(format!("it is {} already", tensor.dtype()));
    }
    precision::available(model, to)?;
    if tensor.byte_len() / 2 < CAST_BYTES {
        return Err("16 bits and a cast would save nothing".to_owned());
    }
    let rounding = precision::of_tensor(tensor, to).ok_or("not of a float type")?;
    match rounding.objection(to, min_sqnr_db) {
        Some(why) => Err(format!("the weight {why}")),
        None => Ok(()),
    }
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
    if weight.elem != DataType::FLOAT {
        return Err(format!("DynamicQuantizeLinear takes float, not {}", weight.elem));
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
