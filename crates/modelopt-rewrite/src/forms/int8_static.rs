//! `int8-static`: activations are quantized by ranges that were found beforehand, the product is of
//! integers from one layer to the next.
//!
//! ```text
//! y = Conv(x, W, b)
//!   =>
//! y_float = Conv(DQ(Q(x)), DQ(W_int8, W_scale), DQ(b_int32, x_scale * W_scale))
//! y = DQ(Q(y_float))
//! ```
//!
//! with `Q` for `QuantizeLinear` and `DQ` for `DequantizeLinear`: the form that ONNX calls QDQ. Runtimes
//! that have integer kernels fuse each operator with what stands around it. Only the layer's weights
//! are made here; which tensors are quantized is a matter of the whole graph (`integer.rs`).

use std::sync::Arc;

use modelopt_graph::{
    DataType, Model, Node, NodeId, Operand, Patch, Place, Tensor, TensorError, ValueId,
};

use super::emission::{Emission, Emitted, SharedWeight, Use, base_name};
use super::form::{Activations, Considered, Form, Ladder, Objection, Sides, Storage};
use super::int8;
use crate::integer::Affine;
use crate::layers::{self, Role, WeightUse};
use crate::policy::Capabilities;
use crate::quantize::Recipe;
use crate::site::{Site, storable};

/// The first version of `ai.onnx` whose `DequantizeLinear` has scales by channel.
const BY_CHANNEL_SINCE: i64 = 13;

/// The first version whose `QuantizeLinear` there is.
const QUANTIZES_SINCE: i64 = 10;

/// The largest integer that a bias becomes: half of what 32 bits hold is left for the sum.
const LARGEST_BIAS: f32 = (1u32 << 30) as f32;

/// Activations quantized by ranges, product of integers.
#[derive(Debug)]
pub(super) struct Int8Static;

impl Form for Int8Static {
    fn about(&self) -> &'static str {
        "activations quantized by ranges that were found beforehand, integers from layer to layer"
    }

    fn sides(&self) -> Sides {
        Sides { weights: Storage::INT8, activations: Activations::Static, computes: None }
    }

    fn ladders(&self) -> &'static [Ladder] {
        &[Ladder::Int8]
    }

    fn opset(&self) -> Option<i64> {
        Some(BY_CHANNEL_SINCE)
    }

    fn eligible(&self, site: &Site<'_>) -> Result<Vec<usize>, String> {
        multiplied(site).map(|place| vec![place])
    }

    fn objection(&self, at: &Considered<'_>, target: &Capabilities) -> Option<Objection> {
        let node = at.model.node(at.layer.node);
        let pays = at.asked || target.static_pays(node);
        (!pays).then_some(Objection::DoesNotPay)
    }

    fn reason(&self, _node: &Node) -> &'static str {
        "computes on integers with what stands around it"
    }

    fn has_own_layout(&self) -> bool {
        true
    }

    fn recipe(&self, weight: &SharedWeight<'_>) -> Option<Recipe> {
        int8::multiplied(weight)
    }

    fn rewrite(
        &self,
        model: &mut Model,
        layer: &Use<'_>,
        stored: &Emitted,
        emission: &Emission<'_>,
    ) {
        let range = model.node(layer.node).input(0).and_then(|x| emission.ranges.get(&x).copied());
        if let Some(x) = range {
            // What cannot be made is not: a weight is what was stored.
            rewrite(model, layer.node, layer.weight, stored, x).unwrap_or_default();
        }
    }

    fn restore(&self, model: &mut Model, weight: ValueId, stored: &Emitted, elem: DataType) {
        int8::restore(model, weight, stored, elem);
    }
}

/// Which weight of a layer can be multiplied as int8, or why none can.
fn multiplied(site: &Site<'_>) -> Result<usize, String> {
    let &Site { model, layer, .. } = site;
    let node = model.node(layer.node);
    if !matches!(node.op.name.as_str(), "MatMul" | "Gemm" | "Conv") || !node.op.is_onnx() {
        return Err(format!("{} has no static int8 form", node.op));
    }
    if node.graph() != model.main() {
        return Err("ranges inside branches and loops are not known".to_owned());
    }
    let version = model.opset(node.graph(), "").unwrap_or(0);
    if version < QUANTIZES_SINCE {
        return Err(format!(
            "opset {version} has no QuantizeLinear (it came with {QUANTIZES_SINCE})"
        ));
    }
    // A small layer that stays float would be a hole among those that are not.
    let whole = Site { min_weight_bytes: 0, int8: std::cell::OnceCell::new(), ..*site };
    let places = storable(&whole, finite)?;
    let is_right =
        |role| matches!(role, Role::MatMulRight | Role::GemmB { .. } | Role::ConvFilters);
    let place = places
        .into_iter()
        .find(|&place| is_right(layer.weights[place].role))
        .ok_or("the weight is on the left, and integer kernels want it on the right")?;
    let activation = node.input(0).ok_or("it has no activation")?;
    if layers::comes_quantized(model, activation) {
        return Err("its activation is quantized already".to_owned());
    }
    if layer.weights[place].tensor.shape().len() > 2 && node.op.is("MatMul") {
        return Err("batches of weights have one scale each".to_owned());
    }
    let plain = |name: &str| (node.float(name, 1.0) - 1.0).abs() < f32::EPSILON;
    if node.op.is("Gemm") && (node.int("transA", 0) != 0 || !plain("alpha") || !plain("beta")) {
        return Err("integer kernels want a plain Gemm".to_owned());
    }
    let bias = node.input(2);
    if bias.is_some_and(|bias| model.constant(bias).is_none_or(|b| b.dtype() != DataType::FLOAT)) {
        return Err("its bias is computed".to_owned());
    }
    if bias.is_some() && by_channel(model, layer.node, &layer.weights[place]).is_none() {
        return Err("its bias is not one number for each channel".to_owned());
    }
    Ok(place)
}

/// Whether a weight is of finite float32 numbers, some of which are not zero.
fn finite(weight: &WeightUse) -> Result<(), String> {
    if weight.elem != DataType::FLOAT {
        return Err(format!("integer kernels stand for float, not {}", weight.elem));
    }
    let numbers = weight.tensor.to_f32().ok_or("not of a float type")?;
    if numbers.iter().any(|x| !x.is_finite()) {
        return Err("the weight holds NaN or infinity".to_owned());
    }
    if numbers.iter().all(|&x| x.abs() < crate::quantize::SMALLEST) {
        return Err("the weight is all zero, or next to it".to_owned());
    }
    Ok(())
}

/// Along which axis of a weight its channels lie.
fn axis(role: Role) -> i64 {
    match role {
        Role::MatMulRight | Role::GemmB { transposed: false } => 1,
        _ => 0,
    }
}

/// The constant bias of a layer as one number for each of its channels, where it is that.
fn by_channel(model: &Model, id: NodeId, weight: &WeightUse) -> Option<Vec<f32>> {
    let channels = *weight.tensor.shape().get(axis(weight.role) as usize)?;
    let bias = model.constant(model.node(id).input(2)?)?;
    let rows = bias.shape().split_last().map_or(&[][..], |(_, rows)| rows);
    let numbers = bias.to_f32()?.into_owned();
    match numbers.len() {
        _ if rows.iter().any(|&rows| rows != 1) => None,
        1 => Some(vec![*numbers.first()?; channels]),
        count => (count == channels).then_some(numbers),
    }
}

/// Lets a layer read its weight and its bias from integers.
fn rewrite(
    model: &mut Model,
    id: NodeId,
    weight: &WeightUse,
    stored: &Emitted,
    x: Affine,
) -> Result<(), TensorError> {
    let name = base_name(model, id);
    let before = Place::Before(id);
    let bias = by_channel(model, id, weight);
    let scales = stored.scale_tensor.to_f32().unwrap_or_default().into_owned();
    let wide = widened(&scales, bias.as_deref(), x);
    let is_whole = scales.len() == 1;
    let shape = if is_whole { Vec::new() } else { vec![scales.len()] };
    let along = [("axis", axis(weight.role).into())];
    let along = if is_whole { &[][..] } else { &along[..] };
    let mut patch = Patch::new();
    let values: Operand = if wide == scales {
        stored.values.into()
    } else {
        let values = rescaled(model, stored.values, axis(weight.role), &scales, &wide)?;
        patch.constant(stored.home, format!("{name}_int8"), Arc::new(values))
    };
    let scale = Tensor::of(shape.clone(), &wide)?;
    let scale = patch.constant(stored.home, format!("{name}_weight_scale"), Arc::new(scale));
    let zero = Tensor::of(shape.clone(), &vec![0i8; wide.len()])?;
    let zero = patch.constant(stored.home, format!("{name}_weight_zero"), Arc::new(zero));
    let inputs = [values, scale, zero];
    patch.node(before, "DequantizeLinear", format!("{name}_weight"), &inputs, along);
    if let Some(bias) = &bias {
        let steps: Vec<f32> = wide.iter().map(|scale| scale * x.scale).collect();
        let step = |place: usize| steps[if is_whole { 0 } else { place % steps.len() }];
        let integer = |(place, &b): (usize, &f32)| (b / step(place)).round_ties_even() as i32;
        let integers: Vec<i32> = bias.iter().enumerate().map(integer).collect();
        let integers = Tensor::of(vec![integers.len()], &integers)?;
        let integers =
            patch.constant(stored.home, format!("{name}_bias_int32"), Arc::new(integers));
        let steps = Arc::new(Tensor::of(shape, &steps)?);
        let steps = patch.constant(stored.home, format!("{name}_bias_scale"), steps);
        let axis = [("axis", 0.into())];
        let along = if is_whole { &[][..] } else { &axis[..] };
        let inputs = [integers, steps];
        patch.node(before, "DequantizeLinear", format!("{name}_bias"), &inputs, along);
    }
    let made = model.apply(patch);
    let weights = made.iter().copied().filter(|&value| model.producer_node(value).is_some());
    for (place, value) in [weight.input, 2].into_iter().zip(weights.collect::<Vec<_>>()) {
        model.set_input(id, place, Some(value));
    }
    Ok(())
}

/// Scales with which every bias fits 32 bits: those of channels of tiny weights are widened.
fn widened(scales: &[f32], bias: Option<&[f32]>, x: Affine) -> Vec<f32> {
    let mut wide = scales.to_vec();
    for (place, bias) in bias.unwrap_or_default().iter().enumerate() {
        let least = bias.abs() / (x.scale * LARGEST_BIAS);
        let place = if wide.len() == 1 { 0 } else { place };
        if let Some(scale) = wide.get_mut(place) {
            *scale = scale.max(least);
        }
    }
    wide
}

/// Integers with other scales along an axis.
fn rescaled(
    model: &Model,
    values: ValueId,
    axis: i64,
    from: &[f32],
    to: &[f32],
) -> Result<Tensor, TensorError> {
    let Some(tensor) = model.constant(values) else { return Tensor::of(Vec::new(), &[0i8]) };
    let shape = tensor.shape().to_vec();
    let inner: usize = shape.iter().skip(axis as usize + 1).product();
    let bytes = tensor.bytes().cloned().unwrap_or_default();
    let again = |(place, &byte): (usize, &u8)| {
        let channel = place / inner.max(1) % from.len().max(1);
        (f32::from(byte as i8) * from[channel] / to[channel]).round_ties_even() as i8
    };
    Tensor::of(shape, &bytes.iter().enumerate().map(again).collect::<Vec<i8>>())
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{AttributeValue, Dim, Type};

    use super::*;
    use crate::Scheme;
    use crate::eligibility::{Look, candidates};
    use crate::testing::{Build, float, noise};

    /// Why the last layer of a model cannot have the form.
    fn why(b: &mut Build) -> String {
        modelopt_graph::infer::infer(&mut b.model);
        let look = Look::new([Scheme::INT8_STATIC], 0, f64::NEG_INFINITY);
        let found = candidates(&b.model, &look);
        found.last().unwrap().possible(Scheme::INT8_STATIC).err().unwrap_or_default()
    }

    /// `y = op(x, w)` with attributes.
    fn layer(
        opset: i64,
        op: &str,
        [x, w]: [&[usize]; 2],
        numbers: &[f32],
        attributes: &[(&str, AttributeValue)],
    ) -> String {
        let mut b = Build::new(opset);
        let x = b.input("x", float(x));
        let w = b.weight("W", w, numbers);
        let y = b.node(op, &[x, w], attributes);
        b.output(y, Type::Tensor { elem: DataType::FLOAT, shape: None::<Vec<Dim>> });
        why(&mut b)
    }

    #[test]
    fn layers_that_integer_kernels_do_not_know_say_so() {
        let numbers = noise(64, 1);
        let product =
            |opset, numbers: &[f32]| layer(opset, "MatMul", [&[4, 8], &[8, 8]], numbers, &[]);
        let gemm = |name, value: AttributeValue| {
            layer(13, "Gemm", [&[8, 8], &[8, 8]], &numbers, &[(name, value)])
        };
        let with = |place: usize, number: f32| {
            let mut numbers = numbers.clone();
            numbers[place] = number;
            numbers
        };
        assert_eq!(product(10, &numbers), "");
        assert_eq!(gemm("transB", 1.into()), "");
        for (found, expected) in [
            (product(9, &numbers), "opset 9 has no QuantizeLinear (it came with 10)"),
            (product(13, &with(3, f32::NAN)), "the weight holds NaN or infinity"),
            (product(13, &with(3, f32::INFINITY)), "the weight holds NaN or infinity"),
            (product(13, &[1e-42; 64]), "the weight is all zero, or next to it"),
            (gemm("transA", 1.into()), "integer kernels want a plain Gemm"),
            (gemm("alpha", 0.5f32.into()), "integer kernels want a plain Gemm"),
            (gemm("beta", 0.5f32.into()), "integer kernels want a plain Gemm"),
            (
                layer(13, "MatMul", [&[2, 4, 4], &[2, 4, 8]], &numbers, &[]),
                "batches of weights have one scale each",
            ),
            (
                layer(13, "ConvTranspose", [&[1, 4, 4, 4], &[4, 4, 2, 2]], &numbers, &[]),
                "ConvTranspose has no static int8 form",
            ),
        ] {
            assert!(found.contains(expected), "{expected}: {found}");
        }
    }

    #[test]
    fn weights_on_the_left_computed_biases_and_quantized_activations_are_told() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[8, 4]));
        let w = b.weight("W", &[8, 8], &noise(64, 1));
        let y = b.node("MatMul", &[w, x], &[]);
        b.output(y, float(&[8, 4]));
        assert!(why(&mut b).contains("the weight is on the left"));

        let mut b = Build::new(13);
        let x = b.input("x", float(&[4, 8]));
        let c = b.input("c", float(&[8]));
        let w = b.weight("W", &[8, 8], &noise(64, 1));
        let y = b.node("Gemm", &[x, w, c], &[]);
        b.output(y, float(&[4, 8]));
        assert_eq!(why(&mut b), "its bias is computed");

        let mut b = Build::new(13);
        let q = b.input("q", Type::Tensor { elem: DataType::UINT8, shape: None });
        let scale = b.weight("scale", &[], &[0.5]);
        let x = b.node("DequantizeLinear", &[q, scale], &[]);
        let w = b.weight("W", &[8, 8], &noise(64, 1));
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, float(&[4, 8]));
        assert!(why(&mut b).contains("quantized already"), "{}", why(&mut b));
    }

    #[test]
    fn scales_are_widened_only_where_a_bias_needs_it() {
        let x = Affine { scale: 0.5, zero: 0 };
        assert_eq!(widened(&[1.0, 2.0], None, x), [1.0, 2.0]);
        assert_eq!(widened(&[1.0, 2.0], Some(&[3.0, 4.0]), x), [1.0, 2.0]);
        let wide = widened(&[1.0, 1e-12], Some(&[3.0, -4.0]), x);
        assert_eq!(wide[..1], [1.0]);
        // The bias is as large as it may be, in steps of the product.
        assert!((4.0 / (wide[1] * x.scale) / LARGEST_BIAS - 1.0).abs() < 1e-6);
        // One scale for all fits the largest of them.
        assert_eq!(widened(&[1e-12], Some(&[1.0, -4.0, 2.0]), x), [wide[1]]);
    }

    #[test]
    fn integers_keep_what_they_stand_for_in_wider_steps() {
        let mut b = Build::new(13);
        let values = b.int8_weight("q", &[2, 3], &[100, -50, 7, 100, -50, 7]);
        let numbers = |tensor: Tensor| tensor.elements::<i8>().unwrap().into_owned();
        let rows = rescaled(&b.model, values, 0, &[1.0, 1.0], &[1.0, 4.0]).unwrap();
        assert_eq!(numbers(rows), [100, -50, 7, 25, -12, 2]);
        let columns = rescaled(&b.model, values, 1, &[1.0; 3], &[2.0, 1.0, 1.0]).unwrap();
        assert_eq!(numbers(columns), [50, -50, 7, 50, -50, 7]);
        let whole = rescaled(&b.model, values, 1, &[1.0], &[10.0]).unwrap();
        assert_eq!(numbers(whole), [10, -5, 1, 10, -5, 1]);
    }
}
