//! The weight layers of a model: which nodes read constant float tensors, and in what role.

use std::collections::HashMap;
use std::sync::Arc;

use modelopt_graph::{Constant, DataType, Model, NodeId, Producer, Tensor, Type, ValueId, schema};

use crate::quantize::Channels;

/// A node that reads weights.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Node.
    pub node: NodeId,
    /// What no other node of the model has: path of the graph, then the node's name or, where that
    /// is empty, the name of its first output; `#2`, `#3` … behind what occurs again. It does not
    /// depend on which other nodes are layers.
    pub id: String,
    /// Weights it reads, by input.
    pub weights: Vec<WeightUse>,
}

/// One weight as one node reads it.
#[derive(Clone, Debug)]
pub struct WeightUse {
    /// Which input of the node.
    pub input: usize,
    /// The value that holds the constant.
    pub value: ValueId,
    /// The constant; where it is stored in 16 bits with a cast behind it, as it is stored.
    pub tensor: Arc<Tensor>,
    /// Element type in which the node reads it.
    pub elem: DataType,
    /// What the node does with it.
    pub role: Role,
}

/// What a node does with a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The right side of a MatMul, `[.., K, N]`.
    MatMulRight,
    /// The left side of a MatMul, `[.., M, K]`.
    MatMulLeft,
    /// `B` of a Gemm, `[K, N]`, or `[N, K]` when transposed.
    GemmB {
        /// `transB`.
        transposed: bool,
    },
    /// `A` of a Gemm, `[M, K]`, or `[K, M]` when transposed.
    GemmA {
        /// `transA`.
        transposed: bool,
    },
    /// A Conv's filters, `[O, I / groups, ..]`.
    ConvFilters,
    /// A ConvTranspose's filters, `[I, O / groups, ..]`.
    ConvTransposeFilters,
    /// `W` or `R` of an LSTM, GRU or RNN, `[directions, gates * hidden, inputs]`.
    Recurrent,
    /// The table of a Gather.
    GatherTable {
        /// Axis along which it gathers.
        axis: usize,
    },
    /// Any other input that takes part in float arithmetic.
    Other,
}

/// Float operands of these operators steer rather than weigh: small, or needed exactly.
const STEERING: &[&str] = &[
    "BatchNormalization",
    "Clip",
    "CumSum",
    "DequantizeLinear",
    "Dropout",
    "DynamicQuantizeLinear",
    "EyeLike",
    "If",
    "Loop",
    "NonMaxSuppression",
    "OneHot",
    "Pad",
    "QuantizeLinear",
    "Range",
    "Resize",
    "RoiAlign",
    "MaxRoiPool",
    "Scan",
    "SequenceConstruct",
    "SequenceInsert",
    "Shape",
    "Size",
    "TopK",
    "Upsample",
    "NegativeLogLikelihoodLoss",
    "SoftmaxCrossEntropyLoss",
];

/// Operators that compute on quantized numbers already.
const QUANTIZED: &[&str] = &[
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "MatMulNBits",
    "MatMulBnb4",
    "MatMulFpQ4",
    "GatherBlockQuantized",
    "QAttention",
    "QGemm",
    "QLinearAdd",
    "QLinearMul",
    "QLinearConcat",
    "QLinearSigmoid",
    "QLinearLeakyRelu",
    "QLinearAveragePool",
    "QLinearGlobalAveragePool",
    "QLinearSoftmax",
    "QLinearWhere",
    "QLinearReduceMean",
    "QEmbedLayerNormalization",
    "QOrderedMatMul",
    "QOrderedAttention",
    "QOrderedGelu",
    "QOrderedLayerNormalization",
    "QOrderedLongformerAttention",
    "QMoE",
];

/// Operators whose weight is the point of the node: always listed, however small the weight.
const LAYERS: &[&str] =
    &["MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "FusedMatMul", "FusedConv"];

/// Whether the node computes on quantized numbers already.
pub(crate) fn is_quantized_operator(model: &Model, node: NodeId) -> bool {
    QUANTIZED.contains(&model.node(node).op.name.as_str())
}

/// Whether a value comes from quantized numbers: out of a `DequantizeLinear`, or out of a `Cast`
/// from an 8-bit or smaller constant, behind any scaling.
pub(crate) fn comes_quantized(model: &Model, value: ValueId) -> bool {
    let mut current = model.resolve(value);
    // Scaling and reshaping may stand in between; more steps than these are something else.
    for _ in 0..6 {
        let Some(producer) = model.producer_node(current) else { return false };
        let node = model.node(producer);
        match node.op.name.as_str() {
            "DequantizeLinear" => return true,
            "Cast" => {
                let Some(input) = node.input(0) else { return false };
                let bits = model.value(input).elem().and_then(DataType::bits);
                let float = model.value(input).elem().is_some_and(DataType::is_float);
                if !float && bits.is_some_and(|bits| bits <= 8) {
                    return true;
                }
                current = input;
            }
            "Mul" | "Sub" | "Transpose" | "Reshape" | "Identity" | "Gather" | "Squeeze"
            | "Unsqueeze" => {
                let Some(input) = node.input(0) else { return false };
                current = input;
            }
            _ => return false,
        }
    }
    false
}

/// All layers of the main graph and the graphs nested in it, in order.
///
/// A node is a layer if it reads a float constant of at least `min_bytes`, or if it is one of the
/// operators that exist for their weight and has one of any size or an already quantized one, or
/// if it reads a sparse one.
pub fn find(model: &Model, min_bytes: usize) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    for id in model.walk() {
        let layer = layer_id(model, id, &mut names);
        if model.node(id).output(0).is_some_and(|value| stored_narrow(model, value).is_some()) {
            // The layers are those that read what it makes.
            continue;
        }
        let weights = weights_of(model, id);
        let node = model.node(id);
        let is_layer = LAYERS.contains(&node.op.name.as_str());
        let large = weights.iter().any(|weight| weight.tensor.byte_len() >= min_bytes);
        let quantized = is_quantized_operator(model, id)
            || (is_layer
                && node.inputs().iter().skip(1).flatten().any(|&v| comes_quantized(model, v)));
        let sparse = !sparse_weights(model, id).is_empty();
        if large || quantized || sparse || (is_layer && !weights.is_empty()) {
            layers.push(Layer { node: id, id: layer, weights });
        }
    }
    layers
}

/// All nodes of the main graph and the graphs nested in it by the ids they have as layers,
/// without their weights.
pub(crate) fn all(model: &Model) -> Vec<Layer> {
    let mut names: HashMap<String, usize> = HashMap::new();
    let nodes = model.walk().into_iter();
    nodes
        .map(|node| Layer { node, id: layer_id(model, node, &mut names), weights: Vec::new() })
        .collect()
}

fn layer_id(model: &Model, id: NodeId, taken: &mut HashMap<String, usize>) -> String {
    let node = model.node(id);
    let path = model.graph_path(node.graph());
    let own = if node.name.is_empty() {
        node.outputs()
            .iter()
            .flatten()
            .next()
            .map_or_else(|| node.op.name.clone(), |&output| model.value(output).name().to_owned())
    } else {
        node.name.clone()
    };
    let name = if path.is_empty() { own } else { format!("{path}/{own}") };
    let mut count = taken.get(&name).copied().unwrap_or_default() + 1;
    let numbered = |count| if count == 1 { name.clone() } else { format!("{name}#{count}") };
    // A node may be called `name#2` itself.
    while count > 1 && taken.contains_key(&numbered(count)) {
        count += 1;
    }
    let unique = numbered(count);
    taken.insert(unique.clone(), 1);
    taken.insert(name, count);
    unique
}

fn weights_of(model: &Model, id: NodeId) -> Vec<WeightUse> {
    let node = model.node(id);
    let mut weights = Vec::new();
    for (input, value) in node.inputs().iter().enumerate() {
        let Some(value) = value.map(|value| model.resolve(value)) else { continue };
        let direct = constant_or_default(model, value).map(|tensor| (tensor.dtype(), tensor));
        let found = direct.or_else(|| stored_narrow(model, value).map(|t| (DataType::FLOAT, t)));
        if let Some((elem, tensor)) = found
            && tensor.dtype().is_float()
            && !tensor.is_empty()
        {
            let role = role(model, id, input, &tensor);
            weights.push(WeightUse { input, value, tensor, elem, role });
        }
    }
    weights
}

/// The sparse float initializers that a node reads, with their size in bytes. They are listed in
/// order to say why they are left alone.
pub(crate) fn sparse_weights(model: &Model, id: NodeId) -> Vec<(ValueId, u64)> {
    let values = model.node(id).inputs().iter().flatten().map(|&value| model.resolve(value));
    let sparse = |value: ValueId| match model.value(value).constant() {
        Some(Constant::Sparse(tensor)) if tensor.values.dtype().is_float() => {
            Some((value, tensor.byte_len()))
        }
        _ => None,
    };
    values.filter_map(sparse).collect()
}

/// The 16-bit constant that a float32 value is cast from.
pub(crate) fn stored_narrow(model: &Model, value: ValueId) -> Option<Arc<Tensor>> {
    let node = model.node(model.producer_node(value)?);
    if !node.op.is("Cast") || model.value(value).elem() != Some(DataType::FLOAT) {
        return None;
    }
    let tensor = model.constant(model.resolve(node.input(0)?))?;
    matches!(tensor.dtype(), DataType::FLOAT16 | DataType::BFLOAT16).then_some(tensor)
}

/// Bytes of all constants that are stored in 16 bits.
pub fn narrow_weight_bytes(model: &Model) -> u64 {
    let narrow =
        |tensor: &Arc<Tensor>| matches!(tensor.dtype(), DataType::FLOAT16 | DataType::BFLOAT16);
    let constants = model.values().filter_map(|value| model.constant(value)).filter(narrow);
    constants.map(|tensor| tensor.byte_len() as u64).sum()
}

/// The constant of a value, or the default of an input that callers may override; the plan
/// mentions the latter in order to say why it is left alone.
fn constant_or_default(model: &Model, value: ValueId) -> Option<Arc<Tensor>> {
    model.constant(value).or_else(|| match model.value(value).constant() {
        Some(Constant::Dense(tensor)) => Some(tensor.clone()),
        _ => None,
    })
}

/// Whether callers may give another tensor than the default.
pub(crate) fn is_overridable(model: &Model, value: ValueId) -> bool {
    matches!(model.value(value).producer(), Producer::Input(_)) && model.constant(value).is_none()
}

/// Whether the weight is also an output, by its own name or, of the main graph, by another.
pub(crate) fn is_returned(model: &Model, value: ValueId) -> bool {
    let is_output = |value: ValueId| model.value(value).is_output();
    // Behind an Identity in a branch it goes on to be computed with.
    let is_copied_out = |id: NodeId| {
        let node = model.node(id);
        node.op.is("Identity")
            && node.graph() == model.main()
            && node.output(0).is_some_and(is_output)
    };
    is_output(value) || model.consumers(value).any(|(id, _)| is_copied_out(id))
}

fn role(model: &Model, id: NodeId, input: usize, tensor: &Tensor) -> Role {
    let node = model.node(id);
    if !node.op.is_onnx() {
        return Role::Other;
    }
    let rank = tensor.shape().len();
    match (node.op.name.as_str(), input) {
        ("MatMul", 1) if rank >= 2 => Role::MatMulRight,
        ("MatMul", 0) if rank >= 2 => Role::MatMulLeft,
        ("Gemm", 1) if rank == 2 => Role::GemmB { transposed: node.int("transB", 0) != 0 },
        ("Gemm", 0) if rank == 2 => Role::GemmA { transposed: node.int("transA", 0) != 0 },
        ("Conv", 1) if rank >= 3 => Role::ConvFilters,
        ("ConvTranspose", 1) if rank >= 3 => Role::ConvTransposeFilters,
        ("LSTM" | "GRU" | "RNN", 1 | 2) if rank == 3 => Role::Recurrent,
        ("Gather", 0) if rank >= 2 => {
            let axis = node.int("axis", 0);
            let axis = if axis < 0 { axis + rank as i64 } else { axis };
            match usize::try_from(axis) {
                Ok(axis) if axis < rank => Role::GatherTable { axis },
                _ => Role::Other,
            }
        }
        _ => Role::Other,
    }
}

/// Why a node's operand may not be replaced by something computed, or `None` if it may.
pub(crate) fn refuses_computed(model: &Model, id: NodeId) -> Option<&'static str> {
    let node = model.node(id);
    if STEERING.contains(&node.op.name.as_str()) {
        return Some("the operand steers the operator and is needed exactly");
    }
    if model.called_function(id).is_some() {
        return Some("it is passed to a model-local function");
    }
    let version = model.opset(node.graph(), &node.op.domain).unwrap_or(1);
    if schema::lookup(&node.op.domain, &node.op.name, version).is_none() {
        return Some("the operator is not known here, nor what it does with its operand");
    }
    None
}

impl Role {
    /// Along which indices a weight in this role has scales of its own; `None` where the role
    /// does not say.
    pub(crate) fn channels(self, shape: &[usize]) -> Option<Channels> {
        let rank = shape.len();
        Some(match self {
            // Behind a LayerNormalization as often as not: centred.
            Role::MatMulRight => Channels::along(shape, rank - 1, rank - 2),
            Role::MatMulLeft => Channels::along(shape, rank - 2, rank - 2),
            Role::Recurrent => Channels::along(shape, 1, 1),
            Role::GemmB { transposed } => {
                Channels::along(shape, usize::from(!transposed), 0).summed()
            }
            Role::GemmA { transposed } => {
                Channels::along(shape, usize::from(transposed), 0).summed()
            }
            Role::ConvFilters => Channels::along(shape, 0, 0).summed(),
            Role::ConvTransposeFilters => Channels::along(shape, 1, 0).summed(),
            Role::GatherTable { .. } | Role::Other => return None,
        })
    }
}

/// The rank of a value, if known.
pub(crate) fn rank(model: &Model, value: ValueId) -> Option<usize> {
    model.value(value).ty().and_then(Type::shape).map(Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Build, float, noise};

    /// A plan lists large weights and carrying it out looks at all: both must mean the same node.
    #[test]
    fn names_do_not_depend_on_what_is_listed() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 64]));
        let small = b.weight("small", &[64], &noise(64, 1));
        let large = b.weight("large", &[64, 64], &noise(4096, 2));
        let shifted = b.node("Add", &[x, small], &[]);
        let y = b.node("Mul", &[shifted, large], &[]);
        b.output(y, float(&[64, 64]));
        let nodes = b.model.walk();
        for &node in &nodes {
            b.model.node_mut(node).name = "same".to_owned();
        }
        let name = |min| {
            let layers = find(&b.model, min);
            layers.into_iter().find(|layer| layer.node == nodes[1]).map(|layer| layer.id)
        };
        assert_eq!(name(0).as_deref(), Some("same#2"));
        assert_eq!(name(4096), name(0));
    }

    #[test]
    fn names_that_look_numbered_are_not_taken_twice() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 64]));
        let w = b.weight("w", &[64, 64], &noise(4096, 2));
        let y = (0..3).fold(x, |x, _| b.node("MatMul", &[x, w], &[]));
        b.output(y, float(&[4, 64]));
        for (node, name) in b.model.walk().into_iter().zip(["a#2", "a", "a"]) {
            b.model.node_mut(node).name = name.to_owned();
        }
        let names: Vec<String> = find(&b.model, 0).into_iter().map(|layer| layer.id).collect();
        assert_eq!(names, ["a#2", "a", "a#3"]);
    }
}
