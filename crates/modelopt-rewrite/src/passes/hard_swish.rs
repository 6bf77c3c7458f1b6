//! A hard swish, spelled out:
//!
//! ```text
//! y = x * Clip(x + 3, 0, 6) / 6
//! y = x * HardSigmoid<alpha = 1/6, beta = 1/2>(x)
//!   =>
//! y = HardSwish(x)                                          from opset 14 on
//! y = x * HardSigmoid<alpha = 1/6, beta = 1/2>(x)           before
//! ```
//!
//! `/ 6` may stand anywhere in the product or be `* (1/6)`; `Clip` may be `Min(Relu(..), 6)`.
//! `HardSwish` came with opset 14; two operators in place of four are half the work before. Not done where something else reads a value in between, where the
//! slope is another one (`PaddlePaddle` exports 0.2), or where a constant adds dimensions.

use std::sync::LazyLock;

use modelopt_graph::{Model, NodeId, Patch, Place};

use super::fusion;
use crate::engine::{Declined, Rewrite};
use crate::pattern::{Expr, any, either, op, scaled};

/// The first version of `ai.onnx` that has `HardSwish`.
const HARD_SWISH_SINCE: i64 = 14;

/// The first whose `HardSigmoid` is as it is now.
const HARD_SIGMOID_SINCE: i64 = 6;

pub(crate) struct HardSwish;

static PATTERN: LazyLock<Expr> = LazyLock::new(|| {
    let x = any("x");
    let moved = x.clone() + 3.0;
    let relu6 = either([
        op("Clip", [moved.clone(), 0.0.into(), 6.0.into()]),
        op("Min", [op("Relu", [moved.clone()]), 6.0.into()]),
        op("Min", [op("Max", [moved, 0.0.into()]), 6.0.into()]),
    ]);
    let hard_sigmoid =
        op("HardSigmoid", [x.clone()]).float("alpha", 0.2, 1.0 / 6.0).float("beta", 0.5, 0.5);
    either([
        x.clone() * hard_sigmoid,
        x.clone() * scaled(&relu6, 1.0 / 6.0),
        scaled(&(x.clone() * relu6.clone()), 1.0 / 6.0),
        scaled(&x, 1.0 / 6.0) * relu6,
    ])
});

impl Rewrite for HardSwish {
    fn name(&self) -> &'static str {
        "hard-swish"
    }

    fn propose(&self, model: &Model, id: NodeId) -> Result<Patch, Declined> {
        let found = PATTERN.find(model, id)?;
        let x = found.required("x")?;
        fusion::is_float32(model, x)?;
        found.keeps_rank_of(model, "x")?;
        let mut patch = Patch::new();
        if fusion::has_opset(model, &found, HARD_SWISH_SINCE).is_ok() {
            return fusion::replace(model, &found, patch, "HardSwish", &[x.into()], &[]);
        }
        fusion::has_opset(model, &found, HARD_SIGMOID_SINCE)?;
        if found.nodes().iter().any(|&node| model.node(node).op.is("HardSigmoid")) {
            return Err(Declined::NoGain("it is a product with a HardSigmoid already"));
        }
        let slope = [("alpha", (1f32 / 6.0).into()), ("beta", 0.5f32.into())];
        let (before, name) = (Place::Before(id), format!("{}/HardSigmoid", model.value(x).name()));
        let gate = patch.node(before, "HardSigmoid", name, &[x.into()], &slope);
        fusion::replace(model, &found, patch, "Mul", &[x.into(), gate], &[])
    }

    fn requires(&self) -> &[&'static str] {
        &["constants", "fold", "types"]
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::ValueId;

    use super::*;
    use crate::passes::testing::{assert_same_results, fused, of_one as model};
    use crate::testing::Build;

    /// `Clip(x + 3, 0, 6)`.
    fn relu6(b: &mut Build, x: ValueId) -> ValueId {
        let [three, zero, six] = [("three", 3.0), ("zero", 0.0), ("top", 6.0)]
            .map(|(name, c)| b.weight(name, &[], &[c]));
        let moved = b.node("Add", &[three, x], &[]);
        b.node("Clip", &[moved, zero, six], &[])
    }

    fn exported(b: &mut Build, x: ValueId) -> ValueId {
        let clipped = relu6(b, x);
        let six = b.weight("six", &[1], &[6.0]);
        let product = b.node("Mul", &[x, clipped], &[]);
        b.node("Div", &[product, six], &[])
    }

    #[test]
    fn every_spelling_becomes_one_node_with_the_same_numbers() {
        let spellings: [fn(&mut Build, ValueId) -> ValueId; 5] = [
            exported,
            |b, x| {
                let clipped = relu6(b, x);
                let sixth = b.weight("sixth", &[], &[1.0 / 6.0]);
                let part = b.node("Mul", &[clipped, sixth], &[]);
                b.node("Mul", &[part, x], &[])
            },
            |b, x| {
                let clipped = relu6(b, x);
                let six = b.weight("six", &[], &[6.0]);
                let part = b.node("Div", &[x, six], &[]);
                b.node("Mul", &[part, clipped], &[])
            },
            |b, x| {
                let [three, six] =
                    [("three", 3.0), ("six", 6.0)].map(|(n, c)| b.weight(n, &[], &[c]));
                let moved = b.node("Add", &[x, three], &[]);
                let positive = b.node("Relu", &[moved], &[]);
                let clipped = b.node("Min", &[positive, six], &[]);
                let product = b.node("Mul", &[clipped, x], &[]);
                b.node("Div", &[product, six], &[])
            },
            |b, x| {
                let attributes = [("alpha", (1f32 / 6.0).into()), ("beta", 0.5f32.into())];
                let gate = b.node("HardSigmoid", &[x], &attributes);
                b.node("Mul", &[x, gate], &[])
            },
        ];
        for spell in spellings {
            let mut b = model(14, spell);
            let before = b.model.clone();
            assert_eq!(fused(&mut b, &HardSwish), 1);
            assert_eq!(b.ops(), ["HardSwish"]);
            assert_same_results(&before, &b.model, 1e-6);
        }
    }

    #[test]
    fn older_opsets_get_two_nodes() {
        let mut b = model(13, exported);
        let before = b.model.clone();
        assert_eq!(fused(&mut b, &HardSwish), 1);
        assert_eq!(b.ops(), ["HardSigmoid", "Mul"]);
        assert_same_results(&before, &b.model, 1e-6);
        // And are left alone then.
        assert_eq!(fused(&mut b, &HardSwish), 0);
    }

    #[test]
    fn other_slopes_and_other_inputs_stay() {
        let paddle = |b: &mut Build, x| {
            let gate = b.node("HardSigmoid", &[x], &[("alpha", 0.2f32.into())]);
            b.node("Mul", &[x, gate], &[])
        };
        assert_eq!(fused(&mut model(14, paddle), &HardSwish), 0);
        let other_input = |b: &mut Build, x| {
            let clipped = relu6(b, x);
            let six = b.weight("six", &[], &[6.0]);
            let other = b.node("Neg", &[x], &[]);
            let product = b.node("Mul", &[other, clipped], &[]);
            b.node("Div", &[product, six], &[])
        };
        assert_eq!(fused(&mut model(14, other_input), &HardSwish), 0);
    }

    #[test]
    fn a_value_in_between_that_is_read_elsewhere_stays() {
        let read_twice = |b: &mut Build, x| {
            let y = exported(b, x);
            let product = b.maker(y).input(0).unwrap();
            b.node("Max", &[y, product], &[])
        };
        assert_eq!(fused(&mut model(14, read_twice), &HardSwish), 0);
    }

    #[test]
    fn a_constant_that_adds_a_dimension_stays() {
        let wide = |b: &mut Build, x| {
            let clipped = relu6(b, x);
            let six = b.weight("six", &[1, 1, 1], &[6.0]);
            let product = b.node("Mul", &[x, clipped], &[]);
            b.node("Div", &[product, six], &[])
        };
        assert_eq!(fused(&mut model(14, wide), &HardSwish), 0);
    }
}
