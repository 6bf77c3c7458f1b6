//! A Gaussian error linear unit, spelled out:
//!
//! ```text
//! y = x * 1/2 * (1 + Erf(x / sqrt(2)))
//!   =>
//! y = Gelu(x)
//!
//! y = x * 1/2 * (1 + Tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))
//!   =>
//! y = Gelu<approximate = "tanh">(x)
//! ```
//!
//! Factors may come in any order, halves and roots as products or divisions, the cube as `Pow` or as
//! products. `Gelu` came with opset 20. Not done where something else reads a value in between;
//! `x * Sigmoid(1.702 * x)` is another function and stays what it is.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
use std::sync::LazyLock;

use modelopt_graph::{AttributeValue, Model, NodeId, Patch};

use super::fusion;
use crate::engine::{Declined, Rewrite};
use crate::pattern::{Expr, any, either, number, op, product, scaled};

pub(crate) struct Gelu;

/// Exporters write these constants with as many digits as their authors did: `0.7978845608`,
/// `1.4142`, `0.044715`.
const DIGITS: f64 = 3e-5;

static EXACT: LazyLock<Expr> = LazyLock::new(|| {
    let x = any("x");
    let inner = either([
        x.clone() * number(FRAC_1_SQRT_2, DIGITS),
        x.clone() / number(FRAC_1_SQRT_2.recip(), DIGITS),
    ]);
    gated(&x, op("Erf", [inner]))
});

static TANH: LazyLock<Expr> = LazyLock::new(|| {
    let x = any("x");
    let square = either([op("Pow", [x.clone(), 2.0.into()]), x.clone() * x.clone()]);
    let cube = either([op("Pow", [x.clone(), 3.0.into()]), square.clone() * x.clone()]);
    let third = number(0.044_715, DIGITS);
    let root = number(FRAC_2_SQRT_PI * FRAC_1_SQRT_2, DIGITS);
    let inner = either([
        (x.clone() + cube * third.clone()) * root.clone(),
        (x.clone() + product(x.clone(), x.clone(), third.clone() * x.clone())) * root.clone(),
        product(x.clone(), root, 1.0 + square * third),
    ]);
    gated(&x, op("Tanh", [inner]))
});

/// `x / 2 * (1 + gate)`, in any order.
fn gated(x: &Expr, gate: Expr) -> Expr {
    let gate = 1.0 + gate;
    either([
        product(x.clone(), 0.5, gate.clone()),
        scaled(x, 0.5) * gate.clone(),
        x.clone() * scaled(&gate, 0.5),
        scaled(&(x.clone() * gate), 0.5),
    ])
}

impl Rewrite for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn propose(&self, model: &Model, id: NodeId) -> Result<Patch, Declined> {
        let (found, attributes) = match EXACT.find(model, id) {
            Ok(found) => (found, Vec::new()),
            Err(Declined::NoMatch) => {
                (TANH.find(model, id)?, vec![("approximate", AttributeValue::from("tanh"))])
            }
            Err(other) => return Err(other),
        };
        let x = found.required("x")?;
        fusion::has_opset(model, &found, 20)?;
        fusion::is_float32(model, x)?;
        found.keeps_rank_of(model, "x")?;
        fusion::replace(model, &found, Patch::new(), "Gelu", &[x.into()], &attributes)
    }

    fn requires(&self) -> &[&'static str] {
        &["constants", "fold", "types"]
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::ValueId;

    use super::*;
    use crate::passes::testing::{SHAPE, assert_same_results, fused, of_one as model};
    use crate::testing::{Build, float};

    fn with(b: &mut Build, op: &str, value: ValueId, number: f32) -> ValueId {
        let name = b.model.fresh_name("c");
        let c = b.weight(&name, &[], &[number]);
        b.node(op, &[value, c], &[])
    }

    /// `1 + Erf(x / sqrt(2))`, as `PyTorch` exports it.
    fn erf_gate(b: &mut Build, x: ValueId) -> ValueId {
        let scaled = with(b, "Div", x, std::f32::consts::SQRT_2);
        let erf = b.node("Erf", &[scaled], &[]);
        with(b, "Add", erf, 1.0)
    }

    fn exported(b: &mut Build, x: ValueId) -> ValueId {
        let gate = erf_gate(b, x);
        let product = b.node("Mul", &[x, gate], &[]);
        with(b, "Mul", product, 0.5)
    }

    /// `x * 1/2 * (1 + Tanh(sqrt(2/pi) * (x + 0.044715 * cube)))`.
    fn tanh(b: &mut Build, x: ValueId, cube: ValueId) -> ValueId {
        let third = with(b, "Mul", cube, 0.044_715);
        let sum = b.node("Add", &[x, third], &[]);
        let inner = with(b, "Mul", sum, 0.797_884_6);
        let tanh = b.node("Tanh", &[inner], &[]);
        let gate = with(b, "Add", tanh, 1.0);
        let half = with(b, "Mul", x, 0.5);
        b.node("Mul", &[half, gate], &[])
    }

    fn check(spell: fn(&mut Build, ValueId) -> ValueId, approximate: Option<&str>) {
        let mut b = model(20, spell);
        let before = b.model.clone();
        assert_eq!(fused(&mut b, &Gelu), 1);
        assert_eq!(b.ops(), ["Gelu"]);
        assert_eq!(b.model.node(b.model.walk()[0]).string("approximate"), approximate);
        assert_same_results(&before, &b.model, 1e-5);
    }

    #[test]
    fn exact_spellings_become_one_node() {
        check(exported, None);
        check(
            |b, x| {
                let gate = erf_gate(b, x);
                let half = with(b, "Mul", x, 0.5);
                b.node("Mul", &[gate, half], &[])
            },
            None,
        );
        check(
            |b, x| {
                let scaled = with(b, "Mul", x, std::f32::consts::FRAC_1_SQRT_2);
                let erf = b.node("Erf", &[scaled], &[]);
                let gate = with(b, "Add", erf, 1.0);
                let half = with(b, "Div", gate, 2.0);
                b.node("Mul", &[x, half], &[])
            },
            None,
        );
    }

    #[test]
    fn approximate_spellings_become_one_node_that_says_so() {
        check(
            |b, x| {
                let cube = with(b, "Pow", x, 3.0);
                tanh(b, x, cube)
            },
            Some("tanh"),
        );
        check(
            |b, x| {
                let square = b.node("Mul", &[x, x], &[]);
                let cube = b.node("Mul", &[x, square], &[]);
                tanh(b, x, cube)
            },
            Some("tanh"),
        );
        check(
            |b, x| {
                let square = b.node("Mul", &[x, x], &[]);
                let part = with(b, "Mul", square, 0.044_715);
                let sum = with(b, "Add", part, 1.0);
                let scaled = with(b, "Mul", x, 0.797_884_6);
                let inner = b.node("Mul", &[scaled, sum], &[]);
                let tanh = b.node("Tanh", &[inner], &[]);
                let gate = with(b, "Add", tanh, 1.0);
                let product = b.node("Mul", &[x, gate], &[]);
                with(b, "Mul", product, 0.5)
            },
            Some("tanh"),
        );
    }

    #[test]
    fn older_opsets_other_functions_and_other_constants_stay() {
        assert_eq!(fused(&mut model(19, exported), &Gelu), 0);
        let quick = |b: &mut Build, x| {
            let scaled = with(b, "Mul", x, 1.702);
            let gate = b.node("Sigmoid", &[scaled], &[]);
            b.node("Mul", &[x, gate], &[])
        };
        assert_eq!(fused(&mut model(20, quick), &Gelu), 0);
        let wrong_root = |b: &mut Build, x| {
            let scaled = with(b, "Div", x, 1.5);
            let erf = b.node("Erf", &[scaled], &[]);
            let gate = with(b, "Add", erf, 1.0);
            let product = b.node("Mul", &[x, gate], &[]);
            with(b, "Mul", product, 0.5)
        };
        assert_eq!(fused(&mut model(20, wrong_root), &Gelu), 0);
    }

    #[test]
    fn a_value_in_between_that_is_an_output_stays() {
        let mut b = model(20, exported);
        let y = b.model.graph(b.model.main()).outputs[0].value;
        let product = b.maker(y).input(0).unwrap();
        b.output(product, float(&SHAPE));
        assert_eq!(fused(&mut b, &Gelu), 0);
    }
}
