//! Rounding to a 16-bit type by float32 arithmetic, for runtimes without such types.
//!
//! Adding a number `M` that is some powers of two larger and taking it away again leaves a
//! multiple of the last place of `M`, rounded to nearest, ties to even:
//!
//! ```text
//! y = (x + M) - M
//! ```
//!
//! `M` has to lie in the binade that is as far above that of `x` as float32 has more places than
//! the 16-bit type. It is made of the first two bits of `|x|`, which Veltkamp's splitting gives
//! (Dekker 1971): with `a = 7/8 |x|`, `c = (2^22 + 1) a`, they are `c - (c - a)`. Below the normal
//! numbers of the type places stay where they are, so `|x|` is taken for no less than the smallest
//! of them. What is beyond the range becomes infinite as it does in float32, scaled up.

use std::sync::Arc;

use modelopt_graph::{Attribute, Constant, DataType, Model, NodeId, Place, Tensor, Type, ValueId};

use super::insert;
use crate::plan::Precision;

/// The numbers of the method.
#[derive(Clone, Copy, Debug)]
struct Steps {
    /// Brings numbers away from the end of float32's range, and back.
    scale: Option<(f32, f32)>,
    /// What `|x|` is taken for at least and at most, when it is scaled.
    bounds: (f32, f32),
    /// From the first two bits of `|x|` to `M`.
    lift: f32,
    /// Lets what is beyond the range overflow, and brings the rest back.
    overflow: Option<(f32, f32)>,
}

/// 7/8 and a little: 1 must not be taken for less, and what is taken for 2 must round to 2 anyway.
const SHRINK: f32 = 0.875 * (1.0 + 1.0 / (1u32 << 20) as f32);
/// Leaves two bits of 24.
const SPLIT: f32 = ((1u32 << 22) + 1) as f32;
/// Keeps `x + M` in the binade of `M`, whichever sign `x` has: `M` is 1.25 or 1.875 times a power of
/// two.
const CENTRE: f32 = 1.25;

fn power(exponent: i32) -> f32 {
    2f32.powi(exponent)
}

impl Steps {
    fn of(to: Precision) -> Self {
        match to {
            Precision::Fp16 => Steps {
                scale: None,
                bounds: (power(-14), power(17)),
                lift: CENTRE * power(13),
                overflow: Some((power(112), power(-112))),
            },
            Precision::Bf16 => Steps {
                scale: Some((power(-24), power(24))),
                bounds: (power(-120), power(105)),
                lift: CENTRE * power(16),
                overflow: None,
            },
        }
    }
}

/// Rounds values of one model to one type.
pub(super) struct Rounder {
    steps: Steps,
    scale: Option<(ValueId, ValueId)>,
    bounds: (ValueId, ValueId),
    shrink: ValueId,
    split: ValueId,
    lift: ValueId,
    overflow: Option<(ValueId, ValueId)>,
    lowest: ValueId,
    to: Precision,
}

impl Rounder {
    /// Adds the constants to the model.
    pub(super) fn new(model: &mut Model, to: Precision) -> Self {
        let steps = Steps::of(to);
        let mut number = |name: &str, number: f32| {
            let name = model.fresh_name(&format!("round_{}_{name}", to.name()));
            let value = model.add_value(name);
            let main = model.main();
            model.set_constant(main, value, Constant::Dense(Arc::new(Tensor::scalar(number))));
            let ty = Type::Tensor { elem: DataType::FLOAT, shape: Some(Vec::new()) };
            model.set_type(value, Some(ty));
            value
        };
        Rounder {
            scale: steps.scale.map(|(down, up)| (number("down", down), number("up", up))),
            bounds: (number("least", steps.bounds.0), number("most", steps.bounds.1)),
            shrink: number("shrink", SHRINK),
            split: number("split", SPLIT),
            lift: number("lift", steps.lift),
            overflow: steps.overflow.map(|(up, down)| (number("over", up), number("back", down))),
            lowest: number("lowest", f32::NEG_INFINITY),
            steps,
            to,
        }
    }

    /// Rounds `from` to `output` behind a node. `shielded` ends with an operator that no runtime
    /// takes for part of a product. Returns the last node.
    pub(super) fn insert(
        &self,
        model: &mut Model,
        from: ValueId,
        output: ValueId,
        behind: NodeId,
        shielded: bool,
    ) -> NodeId {
        let mut chain = Chain { model, last: behind, output };
        let x = match self.scale {
            Some((down, _)) => chain.add("Mul", &[from, down]),
            None => from,
        };
        let size = chain.add("Abs", &[x]);
        let size = chain.clip(size, self.bounds, self.steps.bounds);
        let a = chain.add("Mul", &[size, self.shrink]);
        let c = chain.add("Mul", &[a, self.split]);
        let d = chain.add("Sub", &[c, a]);
        let bits = chain.add("Sub", &[c, d]);
        let m = chain.add("Mul", &[bits, self.lift]);
        let sum = chain.add("Add", &[x, m]);
        let mut ends = vec![("Sub", Some(m))];
        ends.extend(self.overflow.into_iter().flat_map(|(up, down)| [up, down]).map(mul));
        ends.extend(self.scale.map(|(_, up)| mul(up)));
        if shielded {
            ends.push(("Max", Some(self.lowest)));
        }
        let mut value = sum;
        let count = ends.len();
        for (index, (op, operand)) in ends.into_iter().enumerate() {
            let inputs: Vec<ValueId> = [Some(value), operand].into_iter().flatten().collect();
            if index + 1 == count {
                chain.end(op, &inputs);
            } else {
                value = chain.add(op, &inputs);
            }
        }
        tracing::trace!(to = self.to.name(), "rounded by arithmetic");
        chain.last
    }
}

fn mul(by: ValueId) -> (&'static str, Option<ValueId>) {
    ("Mul", Some(by))
}

/// Nodes one after the other.
struct Chain<'a> {
    model: &'a mut Model,
    last: NodeId,
    /// What comes of it, whose type all have.
    output: ValueId,
}

impl Chain<'_> {
    fn add(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        let value = self.value();
        self.last = insert(self.model, op, inputs, value, Vec::new(), Place::After(self.last));
        value
    }

    fn value(&mut self) -> ValueId {
        let name = format!("{}_rounding", self.model.value(self.output).name());
        let name = self.model.fresh_name(&name);
        let value = self.model.add_value(name);
        let ty = self.model.value(self.output).ty().cloned();
        self.model.set_type(value, ty);
        value
    }

    /// Bounds are attributes before version 11.
    fn clip(&mut self, x: ValueId, values: (ValueId, ValueId), numbers: (f32, f32)) -> ValueId {
        let graph = self.model.node(self.last).graph();
        if self.model.opset(graph, "").unwrap_or(1) >= 11 {
            return self.add("Clip", &[x, values.0, values.1]);
        }
        let value = self.value();
        let bounds = vec![Attribute::new("min", numbers.0), Attribute::new("max", numbers.1)];
        self.last = insert(self.model, "Clip", &[x], value, bounds, Place::After(self.last));
        value
    }

    fn end(&mut self, op: &str, inputs: &[ValueId]) {
        let place = Place::After(self.last);
        self.last = insert(self.model, op, inputs, self.output, Vec::new(), place);
    }
}
