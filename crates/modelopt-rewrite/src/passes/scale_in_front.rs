//! A factor or an offset for each channel right before a layer is part of the layer:
//!
//! ```text
//! m = x * k; y = Conv(m, W, b)
//!   =>
//! y = Conv(x, W * k, b)                      k along the input channels of W
//!
//! a = x + s; y = Conv(a, W, b)
//!   =>
//! y = Conv(x, W, b + sum of W * s)           only without padding
//! ```
//!
//! This is how images are normalized. A factor leaves zeros zero, so it is exact with padding; an
//! offset is not, since what is padded gets none. For `Conv`, and factors for `ConvTranspose`, `Gemm`
//! and `MatMul` with a constant matrix; also `x / k` and `x - s`. Not done where something else reads
//! the scaled value or `W`, or where `x` is not known to have all the channels: the constant may
//! broadcast it.

use std::sync::{Arc, LazyLock};

use modelopt_graph::{Dim, Model, Node, NodeId, Operand, Patch, Place, Tensor, Type, ValueId};

use super::affine::{attributes, finite, float32, per_channel, replacement, rescaled};
use crate::engine::{Declined, Rewrite};
use crate::pattern::{Expr, Match, any, constant, either, one_of, optional};

pub(crate) struct ScaleInFront;

static PATTERN: LazyLock<Expr> = LazyLock::new(|| {
    let (x, c) = (any("x"), constant("c"));
    let changed = either([
        (x.clone() * c.clone()).named("Mul"),
        (x.clone() / c.clone()).named("Div"),
        (x.clone() + c.clone()).named("Add"),
        (x - c).named("Sub"),
    ]);
    let layers = ["Conv", "ConvTranspose", "Gemm", "MatMul"];
    one_of(&layers, [changed, any("W"), optional(any("b"))])
});

impl Rewrite for ScaleInFront {
    fn name(&self) -> &'static str {
        "scale-in-front"
    }

    fn propose(&self, model: &Model, id: NodeId) -> Result<Patch, Declined> {
        let found = PATTERN.find(model, id)?;
        let weight = float32(model, found.required("W")?)?;
        let c = numbers(model, &found, &weight)?;
        let is = |name| found.node(name).is_some();
        if is("Mul") || is("Div") {
            let factor: Vec<f64> =
                if is("Mul") { c } else { c.iter().map(|c| c.recip()).collect() };
            return scaled(model, &found, &weight, &factor);
        }
        let sign = if is("Sub") { -1.0 } else { 1.0 };
        let offset: Vec<f64> = c.iter().map(|c| sign * c).collect();
        shifted(model, &found, &weight, &offset)
    }

    fn requires(&self) -> &[&'static str] {
        &["constants", "fold", "batchnorm", "types"]
    }
}

/// Input channels of a layer, and how many dimensions its input has behind them.
fn channels(node: &Node, weight: &Tensor) -> Option<(usize, usize)> {
    let shape = weight.shape();
    let inner = shape.len().checked_sub(2)?;
    let group = usize::try_from(node.int("group", 1)).ok().filter(|&group| group > 0)?;
    match node.op.name.as_str() {
        "Conv" => Some((shape[1].checked_mul(group)?, inner)),
        "ConvTranspose" => Some((shape[0], inner)),
        "Gemm" if node.int("transA", 0) == 0 => {
            Some((shape[usize::from(node.int("transB", 0) != 0)], 0))
        }
        "MatMul" if inner == 0 => Some((shape[0], 0)),
        _ => None,
    }
}

/// What the constant is for each channel, if `x` has all of them.
fn numbers(model: &Model, found: &Match, weight: &Tensor) -> Result<Vec<f64>, Declined> {
    let node = model.node(found.root());
    let (channels, inner) = channels(node, weight).ok_or(Declined::NoMatch)?;
    let x = model.value(found.required("x")?);
    let shape = x.ty().and_then(Type::shape).ok_or(Declined::Unsafe("a rank is not known"))?;
    let axis = shape.len().checked_sub(inner + 1).ok_or(Declined::NoMatch)?;
    let c = float32(model, found.required("c")?)?;
    if c.len() > 1 && shape[axis] != Dim::Fixed(channels) {
        return Err(Declined::Unsafe("the constant may give the input its channels"));
    }
    per_channel(&c, channels, inner, shape.len())
        .ok_or(Declined::Unsafe("the constant is not one number for each channel"))
}

/// The layer with a factor for each input channel in its weight.
fn scaled(
    model: &Model,
    found: &Match,
    weight: &Tensor,
    factor: &[f64],
) -> Result<Patch, Declined> {
    if !factor.iter().all(|k| k.is_normal()) {
        return Err(Declined::Unsafe("a factor is zero or not finite"));
    }
    let node = model.node(found.root());
    let shape = weight.shape();
    let inner: usize = shape.iter().skip(2).product();
    let (rows, columns) = (shape[0].max(1), shape[1].max(1));
    let per_group = rows / usize::try_from(node.int("group", 1)).unwrap_or(1).clamp(1, rows);
    let along_columns = match node.op.name.as_str() {
        "Gemm" => node.int("transB", 0) != 0,
        name => name == "Conv",
    };
    let is_conv = node.op.is("Conv");
    let changed = rescaled(weight, inner, |block| {
        let (row, column) = (block / columns, block % columns);
        match (along_columns, is_conv) {
            (true, true) => factor[row / per_group * columns + column],
            (true, false) => factor[column],
            (false, _) => factor[row],
        }
    })?;
    let mut patch = Patch::new();
    let changed = replacement(model, found.required("W")?, changed, &mut patch, "scaled")?;
    let bias = node.input(2).map(Operand::Value);
    layer(model, found, patch, changed, bias)
}

/// The convolution with an offset for each input channel in its bias.
fn shifted(
    model: &Model,
    found: &Match,
    weight: &Tensor,
    offset: &[f64],
) -> Result<Patch, Declined> {
    let node = model.node(found.root());
    if !node.op.is("Conv") {
        return Err(Declined::NoGain("only a convolution has a bias for an offset in front"));
    }
    let padded = node.ints("pads").is_some_and(|pads| pads.iter().any(|&pad| pad != 0));
    let auto = node.string("auto_pad").is_some_and(|auto| !matches!(auto, "NOTSET" | "VALID"));
    if padded || auto {
        return Err(Declined::Unsafe("what is padded gets no offset"));
    }
    let filters = weight.shape()[0];
    let bias = match node.input(2) {
        Some(bias) => per_channel(&*float32(model, bias)?, filters, 0, 1)
            .ok_or(Declined::Unsafe("the bias does not fit the weight"))?,
        None => vec![0.0; filters],
    };
    let bias = offset_bias(node, weight, bias, offset)?;
    let mut patch = Patch::new();
    let name = format!("{}_shifted_bias", model.value(found.required("W")?).name());
    let bias = patch.constant(node.graph(), name, bias);
    layer(model, found, patch, found.required("W")?.into(), Some(bias))
}

/// The bias plus what the offsets add up to in each filter.
fn offset_bias(
    node: &Node,
    weight: &Tensor,
    mut bias: Vec<f64>,
    offset: &[f64],
) -> Result<Arc<Tensor>, Declined> {
    let data = weight.to_f32().ok_or(Declined::NoMatch)?;
    let shape = weight.shape();
    let inner: usize = shape.iter().skip(2).product();
    let columns = shape[1].max(1);
    let groups = usize::try_from(node.int("group", 1)).unwrap_or(1).clamp(1, shape[0].max(1));
    let per_group = (shape[0] / groups).max(1);
    for (block, taps) in data.chunks_exact(inner.max(1)).enumerate() {
        let (filter, column) = (block / columns, block % columns);
        let sum: f64 = taps.iter().map(|&tap| f64::from(tap)).sum();
        bias[filter] += sum * offset[filter / per_group * columns + column];
    }
    let bias: Vec<f32> = bias.into_iter().map(|b| b as f32).collect();
    finite(vec![bias.len()], &bias)
}

/// The layer itself, reading `x`.
fn layer(
    model: &Model,
    found: &Match,
    mut patch: Patch,
    weight: Operand,
    bias: Option<Operand>,
) -> Result<Patch, Declined> {
    let node = model.node(found.root());
    let output: ValueId = node.output(0).ok_or(Declined::NoMatch)?;
    let mut inputs = vec![Operand::Value(found.required("x")?), weight];
    inputs.extend(bias);
    for &id in found.nodes() {
        patch.remove(id);
    }
    let place = Place::Before(found.root());
    patch.node_into(place, &node.op.name, node.name.clone(), &inputs, &attributes(node), output);
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use modelopt_graph::AttributeValue;

    use super::*;
    use crate::passes::testing::{assert_same_results, fused};
    use crate::testing::{Build, float, noise};

    fn with(b: &mut Build, op: &str, value: ValueId, shape: &[usize]) -> ValueId {
        let name = b.model.fresh_name("c");
        let numbers: Vec<f32> = noise(shape.iter().product(), 7).iter().map(|x| x + 1.5).collect();
        let c = b.weight(&name, shape, &numbers);
        b.node(op, &[value, c], &[])
    }

    /// What comes in front of a layer that reads `x` and gives `y`, with shapes of `x`, `W` and `y`.
    fn model(
        op: &str,
        shapes: [&[usize]; 3],
        attributes: &[(&str, AttributeValue)],
        front: &[(&str, &[usize])],
    ) -> Build {
        let mut b = Build::new(13);
        let mut x = b.input("x", float(shapes[0]));
        for (op, shape) in front {
            x = with(&mut b, op, x, shape);
        }
        let w = b.weight("W", shapes[1], &noise(shapes[1].iter().product(), 1));
        let y = b.node(op, &[x, w], attributes);
        b.output(y, float(shapes[2]));
        b
    }

    const CONV: [&[usize]; 3] = [&[1, 4, 4, 4], &[6, 2, 3, 3], &[1, 6, 2, 2]];

    fn becomes_one(mut b: Build, op: &str, applied: usize) {
        let before = b.model.clone();
        assert_eq!(fused(&mut b, &ScaleInFront), applied);
        assert_eq!(b.ops(), [op]);
        assert_same_results(&before, &b.model, 1e-5);
    }

    #[test]
    fn the_normalization_of_an_image_goes_into_a_convolution() {
        let group = [("group", 2.into())];
        let front: [(&str, &[usize]); 2] = [("Sub", &[1, 4, 1, 1]), ("Div", &[4, 1, 1])];
        becomes_one(model("Conv", CONV, &group, &front), "Conv", 2);
        becomes_one(model("Conv", CONV, &group, &[("Add", &[])]), "Conv", 1);
    }

    #[test]
    fn a_factor_is_exact_with_padding_and_an_offset_is_not() {
        let attributes = [("group", 2.into()), ("pads", vec![1i64, 1, 1, 1].into())];
        let shapes = [CONV[0], CONV[1], &[1, 6, 4, 4]];
        becomes_one(model("Conv", shapes, &attributes, &[("Mul", &[4, 1, 1])]), "Conv", 1);
        let mut b = model("Conv", shapes, &attributes, &[("Add", &[4, 1, 1])]);
        assert_eq!(fused(&mut b, &ScaleInFront), 0);
        let same = [("group", 2.into()), ("auto_pad", "SAME_UPPER".into())];
        let mut b = model("Conv", shapes, &same, &[("Sub", &[1])]);
        assert_eq!(fused(&mut b, &ScaleInFront), 0);
    }

    #[test]
    fn other_layers_take_factors_only() {
        let transposed = [&[1, 2, 4, 4][..], &[2, 3, 2, 2], &[1, 3, 5, 5]];
        let front: (&str, &[usize]) = ("Mul", &[2, 1, 1]);
        becomes_one(model("ConvTranspose", transposed, &[], &[front]), "ConvTranspose", 1);
        let gemm = [&[5, 2][..], &[3, 2], &[5, 3]];
        let transpose = [("transB", 1.into())];
        becomes_one(model("Gemm", gemm, &transpose, &[("Div", &[2])]), "Gemm", 1);
        let product = [&[5, 2][..], &[2, 3], &[5, 3]];
        becomes_one(model("MatMul", product, &[], &[("Mul", &[1, 2])]), "MatMul", 1);
        assert_eq!(fused(&mut model("MatMul", product, &[], &[("Add", &[2])]), &ScaleInFront), 0);
        let mut b = model("ConvTranspose", transposed, &[], &[("Add", &[2, 1, 1])]);
        assert_eq!(fused(&mut b, &ScaleInFront), 0);
    }

    #[test]
    fn a_constant_that_makes_the_channels_stays() {
        let shapes = [&[1, 1, 4, 4][..], &[3, 2, 3, 3], &[1, 3, 2, 2]];
        let mut b = model("Conv", shapes, &[], &[("Mul", &[2, 1, 1])]);
        assert_eq!(fused(&mut b, &ScaleInFront), 0);
    }

    #[test]
    fn a_scaled_value_that_is_read_elsewhere_stays() {
        let mut b = model("Conv", CONV, &[("group", 2.into())], &[("Mul", &[4, 1, 1])]);
        let scaled = b.model.node(b.model.walk()[0]).output(0).unwrap();
        let other = b.node("Neg", &[scaled], &[]);
        b.output(other, float(CONV[0]));
        assert_eq!(fused(&mut b, &ScaleInFront), 0);
    }
}
