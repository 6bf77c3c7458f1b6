//! A factor or an offset for each channel right after a layer is part of the layer:
//!
//! ```text
//! c = Conv(x, W, b); m = c * k; y = m + s
//!   =>
//! y = Conv(x, W * k, b * k + s)
//! ```
//!
//! For `Conv`, `ConvTranspose` of one group, `Gemm`, and `MatMul` with a constant matrix, with or
//! without an `Add` of a bias behind it; also `c / k`, `c - s` and `s - c`. Not done where something
//! else reads `c` or a `W` that would change, where `k` or `s` differ within a channel, add dimensions
//! or are not finite; nor for an offset behind a bare `MatMul`, which has no bias to take it.

use std::sync::{Arc, LazyLock};

use modelopt_graph::{Model, NodeId, Operand, Patch, Place, Tensor, Type};

use super::affine::{Affine, Layer, attributes, finite, float32, per_channel};
use crate::engine::{Declined, Rewrite};
use crate::pattern::{Expr, Match, any, constant, either, one_of, op, optional};

pub(crate) struct ScaleShift;

static PATTERN: LazyLock<Expr> = LazyLock::new(|| {
    let layer =
        one_of(&["Conv", "ConvTranspose", "Gemm"], [any("x"), any("W"), optional(any("b"))]);
    let product = op("MatMul", [any("x"), constant("W")]).named("layer");
    let layer = either([
        layer.named("layer"),
        (product.clone() + constant("bias")).named("biased"),
        product,
    ]);
    let c = constant("c");
    either([
        layer.clone() * c.clone(),
        layer.clone() + c.clone(),
        layer.clone() / c.clone(),
        layer.clone() - c.clone(),
        (c - layer).named("reversed"),
    ])
});

impl Rewrite for ScaleShift {
    fn name(&self) -> &'static str {
        "scale-shift"
    }

    fn propose(&self, model: &Model, id: NodeId) -> Result<Patch, Declined> {
        let found = PATTERN.find(model, id)?;
        let layer = Layer::of(model, found.node("layer").ok_or(Declined::NoMatch)?)?;
        let c = float32(model, found.required("c")?)?;
        let affine = affine(model, &found, &layer, &c)?;
        if model.node(layer.id).op.is("MatMul") {
            return product(model, &found, &layer, &affine);
        }
        layer.absorb(model, &affine, found.nodes(), id, "scaled")
    }

    fn requires(&self) -> &[&'static str] {
        &["constants", "fold", "batchnorm"]
    }
}

/// What the last node does to each channel of the layer's result.
fn affine(model: &Model, found: &Match, layer: &Layer, c: &Tensor) -> Result<Affine, Declined> {
    let rank = result_rank(model, layer);
    let c = per_channel(c, layer.channels, layer.inner, rank)
        .ok_or(Declined::Unsafe("the constant is not one number for each channel"))?;
    let same = |number: f64| vec![number; c.len()];
    let (factor, offset) = match model.node(found.root()).op.name.as_str() {
        "Mul" => (c.clone(), same(0.0)),
        "Div" => (c.iter().map(|c| c.recip()).collect(), same(0.0)),
        "Add" => (same(1.0), c),
        _ if found.node("reversed").is_some() => (same(-1.0), c),
        _ => (same(1.0), c.iter().map(|c| -c).collect()),
    };
    if factor.iter().all(|&k| k.is_normal()) {
        Ok(Affine { factor, offset })
    } else {
        Err(Declined::Unsafe("a factor is zero or not finite"))
    }
}

/// How many dimensions the layer's result is known to have at least.
fn result_rank(model: &Model, layer: &Layer) -> usize {
    let node = model.node(layer.id);
    if !node.op.is("MatMul") {
        return layer.inner + 2;
    }
    let shape = node.input(0).and_then(|x| model.value(x).ty()).and_then(Type::shape);
    shape.map_or(1, Vec::len)
}

/// The same for a `MatMul`, whose bias is a node of its own.
fn product(
    model: &Model,
    found: &Match,
    layer: &Layer,
    affine: &Affine,
) -> Result<Patch, Declined> {
    let (node, root) = (model.node(layer.id), found.root());
    if affine.shifts() && found.value("bias").is_none() {
        return Err(Declined::NoGain("a MatMul has no bias"));
    }
    let output = model.node(root).output(0).ok_or(Declined::NoMatch)?;
    let mut patch = Patch::new();
    let weight = if affine.scales() {
        layer.scaled_weight(model, affine, &mut patch, "scaled")?
    } else {
        node.input(1).map_or(Operand::Missing, Operand::Value)
    };
    let inputs = [node.input(0).map_or(Operand::Missing, Operand::Value), weight];
    for &id in found.nodes() {
        patch.remove(id);
    }
    let place = Place::Before(root);
    let Some(biased) = found.node("biased").map(|id| model.node(id)) else {
        let attributes = attributes(node);
        patch.node_into(place, "MatMul", node.name.clone(), &inputs, &attributes, output);
        return Ok(patch);
    };
    let bias = moved_bias(model, found, layer, affine)?;
    let name = format!("{}_scaled", model.value(found.required("bias")?).name());
    let bias = patch.constant(node.graph(), name, bias);
    let made = patch.node(place, "MatMul", node.name.clone(), &inputs, &attributes(node));
    patch.node_into(place, "Add", biased.name.clone(), &[made, bias], &[], output);
    Ok(patch)
}

/// The bias of a `MatMul` after the change, as a vector.
fn moved_bias(
    model: &Model,
    found: &Match,
    layer: &Layer,
    affine: &Affine,
) -> Result<Arc<Tensor>, Declined> {
    let tensor = float32(model, found.required("bias")?)?;
    let bias = per_channel(&tensor, layer.channels, 0, result_rank(model, layer))
        .ok_or(Declined::Unsafe("the bias does not fit the weight"))?;
    let moved: Vec<f32> = bias
        .iter()
        .zip(affine.factor.iter().zip(&affine.offset))
        .map(|(b, (k, s))| (b * k + s) as f32)
        .collect();
    finite(vec![layer.channels], &moved)
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{AttributeValue, ValueId};

    use super::*;
    use crate::passes::testing::{assert_same_results, fused};
    use crate::testing::{Build, float, noise};

    /// A layer of 3 channels with what comes behind it; `x` is `[1, 2, 4, 4]` or `[5, 2]`.
    fn model(
        op: &str,
        shapes: [&[usize]; 3],
        attributes: &[(&str, AttributeValue)],
        behind: impl FnOnce(&mut Build, ValueId) -> ValueId,
    ) -> Build {
        let mut b = Build::new(13);
        let x = b.input("x", float(shapes[0]));
        let w = b.weight("W", shapes[1], &noise(shapes[1].iter().product(), 1));
        let mut inputs = vec![x, w];
        if op != "MatMul" {
            inputs.push(b.weight("b", &[3], &noise(3, 2)));
        }
        let c = b.node(op, &inputs, attributes);
        let y = behind(&mut b, c);
        b.output(y, float(shapes[2]));
        b
    }

    fn conv(behind: impl FnOnce(&mut Build, ValueId) -> ValueId) -> Build {
        let pads = [("pads", vec![1i64, 1, 1, 1].into())];
        model("Conv", [&[1, 2, 4, 4], &[3, 2, 3, 3], &[1, 3, 4, 4]], &pads, behind)
    }

    fn with(b: &mut Build, op: &str, value: ValueId, shape: &[usize], reversed: bool) -> ValueId {
        let name = b.model.fresh_name("c");
        let numbers: Vec<f32> = noise(shape.iter().product(), 7).iter().map(|x| x + 1.5).collect();
        let c = b.weight(&name, shape, &numbers);
        b.node(op, &if reversed { [c, value] } else { [value, c] }, &[])
    }

    fn becomes(mut b: Build, applied: usize, ops: &[&str]) {
        let before = b.model.clone();
        assert_eq!(fused(&mut b, &ScaleShift), applied);
        assert_eq!(b.ops(), ops);
        assert_same_results(&before, &b.model, 1e-5);
    }

    #[test]
    fn whole_chains_go_into_a_convolution() {
        becomes(
            conv(|b, c| {
                let m = with(b, "Mul", c, &[1, 3, 1, 1], false);
                let a = with(b, "Add", m, &[3, 1, 1], true);
                let d = with(b, "Div", a, &[], false);
                let s = with(b, "Sub", d, &[1], false);
                with(b, "Sub", s, &[3, 1, 1], true)
            }),
            5,
            &["Conv"],
        );
    }

    #[test]
    fn transposed_convolutions_gemm_and_matmul_take_them_too() {
        let chain = |channels: &'static [usize]| {
            move |b: &mut Build, c| {
                let m = with(b, "Mul", c, channels, false);
                with(b, "Add", m, channels, false)
            }
        };
        let transposed = [&[1, 2, 4, 4][..], &[2, 3, 2, 2], &[1, 3, 5, 5]];
        becomes(model("ConvTranspose", transposed, &[], chain(&[3, 1, 1])), 2, &["ConvTranspose"]);
        let gemm = [&[5, 2][..], &[3, 2], &[5, 3]];
        let attributes = [("transB", 1.into()), ("alpha", 0.5f32.into()), ("beta", 2f32.into())];
        becomes(model("Gemm", gemm, &attributes, chain(&[3])), 2, &["Gemm"]);
        let product = [&[5, 2][..], &[2, 3], &[5, 3]];
        becomes(model("MatMul", product, &[], chain(&[3])), 1, &["MatMul", "Add"]);
        let scaled = |b: &mut Build, c| {
            let biased = with(b, "Add", c, &[3], true);
            with(b, "Div", biased, &[1], false)
        };
        becomes(model("MatMul", product, &[], scaled), 1, &["MatMul", "Add"]);
    }

    #[test]
    fn an_offset_leaves_a_shared_weight_alone_and_a_factor_stays_out() {
        let shared = |op: &'static str| {
            conv(move |b, c| {
                let w = b.maker(c).input(1).unwrap();
                let y = with(b, op, c, &[3, 1, 1], false);
                let total = b.node("ReduceSum", &[w], &[("keepdims", 0.into())]);
                b.node("Add", &[y, total], &[])
            })
        };
        becomes(shared("Add"), 1, &["Conv", "ReduceSum", "Add"]);
        assert_eq!(fused(&mut shared("Mul"), &ScaleShift), 0);
    }

    #[test]
    fn constants_that_differ_within_a_channel_or_add_dimensions_stay() {
        for shape in [&[4][..], &[4, 4], &[3, 4, 4], &[1, 1, 3, 1, 1], &[2, 1, 1, 1]] {
            assert_eq!(fused(&mut conv(|b, c| with(b, "Mul", c, shape, false)), &ScaleShift), 0);
        }
        let by_row = |b: &mut Build, c| with(b, "Mul", c, &[5, 1], false);
        let gemm = [&[5, 2][..], &[2, 3], &[5, 3]];
        assert_eq!(fused(&mut model("Gemm", gemm, &[], by_row), &ScaleShift), 0);
    }

    #[test]
    fn what_is_read_elsewhere_or_divided_by_stays() {
        let read_twice = conv(|b, c| {
            let y = with(b, "Mul", c, &[3, 1, 1], false);
            b.node("Add", &[y, c], &[])
        });
        let divided_by = conv(|b, c| with(b, "Div", c, &[3, 1, 1], true));
        let by_zero = conv(|b, c| {
            let zero = b.weight("zero", &[], &[0.0]);
            b.node("Div", &[c, zero], &[])
        });
        for mut b in [read_twice, divided_by, by_zero] {
            assert_eq!(fused(&mut b, &ScaleShift), 0);
        }
    }

    #[test]
    fn a_layer_outside_a_branch_is_not_moved_into_it() {
        let mut b = conv(|_, c| c);
        let c = b.model.graph(b.model.main()).outputs[0].value;
        let condition = b.input("condition", crate::testing::boolean());
        let [then, other] = ["then", "other"].map(|name| {
            let k = b.weight(&format!("{name}_k"), &[1], &[2.0]);
            b.body(|b, graph| (b.named_node_in(graph, "Mul", &[c, k], name), ())).0
        });
        let y = b.if_node(condition, then, other);
        b.output(y, float(&[1, 3, 4, 4]));
        assert_eq!(fused(&mut b, &ScaleShift), 0);
    }
}
