//! `int8-dynamic`: activations are quantized at run time, the product is of integers.
//!
//! ```text
//! y = MatMul(x, W)
//!   =>
//! x_int8, x_scale, x_zero = DynamicQuantizeLinear(x)          one for all that read x
//! p = Cast<to = float>(MatMulInteger(x_int8, W_int8, x_zero, 0))
//! y = Mul(p, Mul(x_scale, W_scale))
//! ```
//!
//! and for `y = Gemm(x, W, b)`, with `alpha` taken into the scale, `beta` into the bias, and a
//! transposed `W` stored untransposed:
//!
//! ```text
//! y = Add(Mul(p, Mul(x_scale, W_scale)), b)
//! ```
//!
//! and for `y = Conv(x, W, b)`, with scales and bias shaped `[O, 1, ..]`:
//!
//! ```text
//! p = Mul(Cast<to = float>(ConvInteger(x_int8, W_int8, x_zero, 0)), x_scale)
//! y = Add(Mul(p, W_scale), b)                                          scales per channel
//!
//! p = Cast<to = float>(ConvInteger(x_int8, W_int8, x_zero, 0))
//! y = Add(Mul(p, Mul(x_scale, W_scale)), b)                            one scale
//! ```
//!
//! In this arrangement onnxruntime fuses all of a product into one kernel, and rten the integer
//! operator with its cast and first scale; the weights are signed, which is what the fast kernels
//! of both want.

use std::sync::Arc;

use modelopt_graph::{
    Attribute, AttributeValue, DataType, Model, Node, NodeId, Operand, Patch, Place, Tensor,
    ValueId,
};

use super::activations::QuantizedActivations;
use super::emission::{Emission, Emitted, SharedWeight, Use, base_name, operand};
use super::form::{Activations, Considered, Form, Ladder, Objection, Sides, Storage};
use super::int8;
use crate::error_switch;
use crate::layers::{self, Role, WeightUse};
use crate::policy::Capabilities;
use crate::quantize::Recipe;
use crate::site::Site;

/// The longest dot product whose sum of u8 x s8 products always fits 32 bits.
const LONGEST_DOT: usize = i32::MAX as usize / (255 * 127);

/// The first version of `ai.onnx` that has `DynamicQuantizeLinear`.
const DYNAMIC_SINCE: i64 = 11;

/// Activations quantized at run time, product of integers.
#[derive(Debug)]
pub(super) struct Int8Dynamic;

impl Form for Int8Dynamic {
    fn about(&self) -> &'static str {
        "activations quantized at run time, product of integers"
    }

    fn sides(&self) -> Sides {
        Sides { weights: Storage::INT8, activations: Activations::Dynamic, computes: None }
    }

    fn ladders(&self) -> &'static [Ladder] {
        &[Ladder::Int8]
    }

    fn eligible(&self, site: &Site<'_>) -> Result<Vec<usize>, String> {
        // A dynamic layer's other operands (a large bias, say) stay.
        multiplied(site).map(|place| vec![place])
    }

    fn objection(&self, at: &Considered<'_>, target: &Capabilities) -> Option<Objection> {
        let node = at.model.node(at.layer.node);
        let weight = at.eligible.first().and_then(|&place| at.layer.weights.get(place));
        let shape = weight.map_or(&[][..], |weight| weight.tensor.shape());
        // Whoever asks for dynamic products does not ask for convolutions that are slower.
        let as_asked = at.asked && !node.op.is("Conv");
        if !as_asked && !target.integer_pays(node, shape) {
            return Some(Objection::DoesNotPay);
        }
        target.refuses_integer(node, shape).map(|why| Objection::Wrong(why.to_owned()))
    }

    fn reason(&self, node: &Node) -> &'static str {
        if node.op.is("Conv") {
            "an integer convolution that pays"
        } else {
            "a matrix product with a constant side"
        }
    }

    fn has_own_layout(&self) -> bool {
        true
    }

    fn recipe(&self, weight: &SharedWeight<'_>) -> Option<Recipe> {
        int8::multiplied(weight)
    }

    fn transposes(&self, role: Role) -> bool {
        role == Role::GemmB { transposed: true }
    }

    fn begin(&self, model: &mut Model, layer: NodeId, emission: &mut Emission<'_>) {
        emission.activations.quantize(model, layer);
    }

    fn rewrite(
        &self,
        model: &mut Model,
        layer: &Use<'_>,
        stored: &Emitted,
        emission: &Emission<'_>,
    ) {
        rewrite(model, layer.node, layer.weight, stored, &emission.activations);
    }

    fn restore(&self, model: &mut Model, weight: ValueId, stored: &Emitted, elem: DataType) {
        int8::restore(model, weight, stored, elem);
    }

    fn disturb(&self, model: &mut Model, layer: NodeId, switch: (ValueId, usize)) -> bool {
        round_activation(model, layer, switch)
    }
}

fn rewrite(
    model: &mut Model,
    id: NodeId,
    weight: &WeightUse,
    stored: &Emitted,
    activations: &QuantizedActivations,
) {
    let node = model.node(id);
    let (Some(x), Some(output)) = (activations.of(model, id), node.output(0)) else { return };
    let Some(stored_scales) = stored.scales else { return };
    let gemm = node.op.is("Gemm").then(|| Gemm {
        alpha: node.float("alpha", 1.0),
        beta: node.float("beta", 1.0),
        bias: node.input(2),
    });
    let is_conv = weight.role == Role::ConvFilters;
    let (integer, attributes) = if is_conv {
        ("ConvInteger", node.attributes.iter().map(named).collect())
    } else {
        ("MatMulInteger", Vec::new())
    };
    let conv_bias = node.input(2).filter(|_| is_conv);
    let name = base_name(model, id);
    let before = Place::Before(id);
    let mut patch = Patch::new();
    let scales = output_scales(&mut patch, &name, weight, (stored, stored_scales), gemm.as_ref());
    let operands = [x.values.into(), stored.values.into(), x.zero.into(), x.weight_zero.into()];
    let attributes: Vec<(&str, AttributeValue)> = attributes;
    let product = patch.node(before, integer, &name, &operands, &attributes);
    let to_float = [("to", i64::from(DataType::FLOAT.number()).into())];
    let float = patch.node(before, "Cast", format!("{name}_float"), &[product], &to_float);
    let (float, scale) = if is_conv && stored.scale_tensor.len() > 1 {
        let by_input = [float, x.scale.into()];
        (patch.node(before, "Mul", format!("{name}_input_scale"), &by_input, &[]), scales)
    } else {
        let both = [x.scale.into(), scales];
        (float, patch.node(before, "Mul", format!("{name}_scale"), &both, &[]))
    };
    let bias = match (gemm, conv_bias) {
        (Some(gemm), _) => gemm.scaled_bias(model, &mut patch, &name, id),
        (None, Some(bias)) => channel_bias(model, &mut patch, &name, bias, weight),
        (None, None) => None,
    };
    match bias {
        None => patch.node_into(before, "Mul", format!("{name}_mul"), &[float, scale], &[], output),
        Some(bias) => {
            let scaled = patch.node(before, "Mul", format!("{name}_mul"), &[float, scale], &[]);
            patch.node_into(before, "Add", format!("{name}_bias"), &[scaled, bias], &[], output);
        }
    }
    patch.remove(id);
    model.apply(patch);
}

/// An attribute as a patch takes it.
fn named(attribute: &Attribute) -> (&str, AttributeValue) {
    (attribute.name.as_str(), attribute.value.clone())
}

/// The constant bias of a convolution, `[O]`, as `[O, 1, ..]`.
fn channel_bias(
    model: &Model,
    patch: &mut Patch,
    name: &str,
    bias: ValueId,
    weight: &WeightUse,
) -> Option<Operand> {
    let tensor = model.constant(bias)?;
    let shape = channel_shape(tensor.len(), weight);
    let shaped = tensor.reshaped(shape).ok()?;
    Some(patch.constant(model.home(bias)?, format!("{name}_channel_bias"), Arc::new(shaped)))
}

/// `[O, 1, ..]`, which broadcasts over `[N, O, ..]`.
fn channel_shape(channels: usize, weight: &WeightUse) -> Vec<usize> {
    let mut shape = vec![1; weight.tensor.shape().len() - 1];
    shape[0] = channels;
    shape
}

/// The weight's scales as they multiply the product: of rank 1 for a matrix, so that an
/// activation of any rank keeps its own.
fn output_scales(
    patch: &mut Patch,
    name: &str,
    weight: &WeightUse,
    (stored, scales): (&Emitted, ValueId),
    gemm: Option<&Gemm>,
) -> Operand {
    let alpha = gemm.map_or(1.0, |gemm| gemm.alpha);
    let tensor = &stored.scale_tensor;
    let shape = match tensor.shape() {
        [] => Vec::new(),
        _ if weight.role == Role::ConvFilters && tensor.len() > 1 => {
            channel_shape(tensor.len(), weight)
        }
        shape if weight.tensor.shape().len() == 2 => vec![shape.iter().product()],
        shape => shape.to_vec(),
    };
    #[allow(clippy::float_cmp)] // Only an exact 1 can be left out.
    if alpha == 1.0 && shape == tensor.shape() {
        return scales.into();
    }
    let scaled: Vec<f32> =
        tensor.to_f32().unwrap_or_default().iter().map(|scale| scale * alpha).collect();
    match Tensor::of(shape, &scaled) {
        Ok(tensor) => patch.constant(stored.home, format!("{name}_scales"), Arc::new(tensor)),
        Err(_) => scales.into(),
    }
}

/// Which weight of a layer can be multiplied as int8, or why none can.
fn multiplied(site: &Site<'_>) -> Result<usize, String> {
    let &Site { model, layer, .. } = site;
    let node = model.node(layer.node);
    if !matches!(node.op.name.as_str(), "MatMul" | "Gemm" | "Conv") || !node.op.is_onnx() {
        return Err(format!("{} has no dynamic int8 form", node.op));
    }
    let places = int8::eligible(site)?;
    let is_right =
        |role| matches!(role, Role::MatMulRight | Role::GemmB { .. } | Role::ConvFilters);
    let place = places
        .into_iter()
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

/// Adds what quantizing its activation at run time takes from a layer; says whether there is any.
fn round_activation(model: &mut Model, id: NodeId, at: (ValueId, usize)) -> bool {
    let Some(x) = model.node(id).input(0) else { return false };
    let name = model.value(x).name().to_owned();
    let before = Place::Before(id);
    let mut patch = Patch::new();
    let switch = error_switch::switch(model, &mut patch, at);
    let [values, scale, zero] = patch.node_with(
        before,
        "DynamicQuantizeLinear",
        format!("{name}_rounded"),
        &[x.into()],
        &[],
    );
    // Not DequantizeLinear: tract takes only constant scales there.
    let to_float = [("to", i64::from(DataType::FLOAT.number()).into())];
    let [values, zero] =
        [values, zero].map(|of| patch.node(before, "Cast", name.as_str(), &[of], &to_float));
    let centred = patch.node(before, "Sub", name.as_str(), &[values, zero], &[]);
    let back = patch.node(before, "Mul", name.as_str(), &[centred, scale], &[]);
    let error = patch.node(before, "Sub", name.as_str(), &[back, x.into()], &[]);
    let error = patch.node(before, "Mul", name.as_str(), &[error, switch], &[]);
    patch.node(before, "Add", name.as_str(), &[x.into(), error], &[]);
    let disturbed = model.apply(patch).last().copied();
    if let Some(disturbed) = disturbed {
        model.set_input(id, 0, Some(disturbed));
    }
    disturbed.is_some()
}

/// What a Gemm has beyond a MatMul.
struct Gemm {
    alpha: f32,
    beta: f32,
    bias: Option<ValueId>,
}

impl Gemm {
    /// `beta * C`, computed now where `C` is constant.
    fn scaled_bias(
        &self,
        model: &Model,
        patch: &mut Patch,
        name: &str,
        id: NodeId,
    ) -> Option<Operand> {
        let bias = self.bias?;
        #[allow(clippy::float_cmp)] // Exactly 1 is the default.
        if self.beta == 1.0 {
            return Some(operand(Some(bias)));
        }
        if self.beta == 0.0 {
            return None;
        }
        if let Some(tensor) = model.constant(bias)
            && let Some(home) = model.home(bias)
            && let Some(numbers) = tensor.to_f32()
        {
            let scaled: Vec<f32> = numbers.iter().map(|x| x * self.beta).collect();
            let scaled = Tensor::of(tensor.shape().to_vec(), &scaled).ok()?;
            return Some(patch.constant(home, format!("{name}_beta_bias"), Arc::new(scaled)));
        }
        let beta = Arc::new(Tensor::scalar(self.beta));
        let beta = patch.constant(model.node(id).graph(), format!("{name}_beta"), beta);
        let name = format!("{name}_beta_bias");
        Some(patch.node(Place::Before(id), "Mul", name, &[bias.into(), beta], &[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scheme;
    use crate::testing::{Build, float, noise, options};

    #[test]
    fn one_activation_is_quantized_once_for_all_its_readers() {
        let mut b = Build::new(11);
        let x = b.input("x", float(&[2, 64]));
        let [q, k] = ["Q", "K"].map(|name| b.weight(name, &[64, 64], &noise(4096, 1)));
        let y = b.node("MatMul", &[x, q], &[]);
        let z = b.node("MatMul", &[x, k], &[]);
        b.output(y, float(&[2, 64]));
        b.output(z, float(&[2, 64]));
        b.quantized(&options(Scheme::INT8_DYNAMIC));
        let layer = ["MatMulInteger", "Cast", "Mul", "Mul"];
        assert_eq!(b.ops(), [["DynamicQuantizeLinear"].as_slice(), &layer, &layer].concat());
        let scales = b.maker(b.maker(y).input(1).unwrap()).input(1).unwrap();
        assert_eq!(b.model.constant(scales).unwrap().shape(), [64]);
    }

    #[test]
    fn a_gemm_keeps_alpha_beta_bias_and_transposition() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[64, 2]));
        let w = b.weight("W", &[32, 64], &noise(2048, 2));
        let c = b.weight("C", &[32], &noise(32, 3));
        let attributes = [
            ("transA", 1.into()),
            ("transB", 1.into()),
            ("alpha", 0.5f32.into()),
            ("beta", 2f32.into()),
        ];
        let y = b.node("Gemm", &[x, w, c], &attributes);
        b.output(y, float(&[2, 32]));
        let bias_before = b.model.constant(c).unwrap().to_f32().unwrap()[5];
        b.quantized(&options(Scheme::INT8_DYNAMIC));
        let ops =
            ["Transpose", "DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul", "Mul", "Add"];
        assert_eq!(b.ops(), ops);
        let bias = b.model.constant(b.maker(y).input(1).unwrap()).unwrap();
        assert!((bias.to_f32().unwrap()[5] - 2.0 * bias_before).abs() < 1e-6);
        let product = b.model.walk()[2];
        let stored = b.model.constant(b.model.node(product).input(1).unwrap()).unwrap();
        assert_eq!(stored.shape(), [64, 32]);
    }

    #[test]
    fn what_has_no_dynamic_form_is_stored_as_int8_with_the_reason() {
        let reason = |opset, op: &str, left: bool| {
            let mut b = Build::new(opset);
            let x = b.input("x", float(&[64, 64]));
            let w = b.weight("W", &[64, 64], &noise(4096, 1));
            let inputs = if left { [w, x] } else { [x, w] };
            let y = b.node(op, &inputs, &[]);
            b.output(y, float(&[64, 64]));
            let plan = b.quantized(&options(Scheme::INT8_DYNAMIC));
            assert_eq!(plan.layers[0].scheme, Scheme::INT8_WEIGHTS);
            plan.why(0).reason.clone()
        };
        assert!(reason(10, "MatMul", false).contains("opset 10"));
        assert!(reason(13, "MatMul", true).contains("on the left"));
        assert!(reason(13, "Add", false).contains("no dynamic int8 form"));
    }

    #[test]
    fn a_convolution_keeps_its_attributes_and_adds_its_bias_last() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[1, 8, 6, 6]));
        let w = b.weight("W", &[16, 4, 3, 3], &noise(576, 1));
        let c = b.weight("b", &[16], &noise(16, 2));
        let attributes = [("group", 2.into()), ("pads", vec![1, 1, 1, 1].into())];
        let y = b.node("Conv", &[x, w, c], &attributes);
        b.output(y, float(&[1, 16, 6, 6]));
        b.quantized_as(Scheme::INT8_DYNAMIC);
        let ops = ["DynamicQuantizeLinear", "ConvInteger", "Cast", "Mul", "Mul", "Add"];
        let mut made = b.ops();
        made.sort_unstable();
        let mut expected = ops.map(str::to_owned);
        expected.sort_unstable();
        assert_eq!(made, expected);
        let add = b.maker(y);
        let bias = b.model.constant(add.input(1).unwrap()).unwrap();
        assert_eq!(bias.shape(), [16, 1, 1]);
        let integer = b.model.walk().into_iter().map(|node| b.model.node(node));
        let integer = integer.filter(|node| node.op.is("ConvInteger")).collect::<Vec<_>>();
        assert_eq!(integer[0].int("group", 1), 2);
        assert_eq!(integer[0].ints("pads").unwrap(), [1, 1, 1, 1]);
    }

    #[test]
    fn a_convolution_whose_bias_is_computed_is_not_multiplied_as_int8() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[1, 8, 6, 6]));
        let bias = b.input("b", float(&[16]));
        let w = b.weight("W", &[16, 8, 3, 3], &noise(1152, 1));
        let y = b.node("Conv", &[x, w, bias], &[]);
        b.output(y, float(&[1, 16, 4, 4]));
        modelopt_graph::infer::infer(&mut b.model);
        let mut plan = crate::plan(&b.model, &options(Scheme::INT8_DYNAMIC)).unwrap();
        assert_eq!(plan.layers[0].scheme, Scheme::INT8_WEIGHTS);
        plan.layers[0].scheme = Scheme::INT8_DYNAMIC;
        let error = crate::plan_from(&b.model, &plan).unwrap_err().to_string();
        assert!(error.contains("bias is computed"), "{error}");
    }

    #[test]
    fn an_activation_that_is_quantized_already_is_not_quantized_again() {
        let mut b = Build::new(13);
        let x = b.input("x", modelopt_graph::Type::tensor(DataType::INT8));
        let scale = b.weight("s", &[], &[0.1]);
        let float_x = b.node("DequantizeLinear", &[x, scale], &[]);
        let w = b.weight("W", &[64, 64], &noise(4096, 1));
        let y = b.node("MatMul", &[float_x, w], &[]);
        b.output(y, float(&[2, 64]));
        let plan = b.quantized(&options(Scheme::INT8_DYNAMIC));
        let (_, why) = plan.lines().find(|(_, why)| why.op == "MatMul").unwrap();
        assert!(why.reason.contains("quantized already"), "{why:?}");
        assert_eq!(b.ops(), ["Cast", "Mul", "DequantizeLinear", "MatMul"]);
    }
}
