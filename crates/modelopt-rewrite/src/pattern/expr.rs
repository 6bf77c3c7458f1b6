//! What patterns are made of.

use std::ops::{Add, Div, Mul, Sub};
use std::sync::Arc;

use modelopt_graph::Node;

/// A pattern for a value: where it comes from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Expr(pub(super) Arc<Kind>);

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Any value.
    Any(&'static str),
    /// A value that is a constant tensor.
    Constant(&'static str),
    /// A constant of one element.
    Scalar(&'static str),
    /// A constant of one element that is this number.
    Number { value: f64, tolerance: Option<f64> },
    /// An input that may be left out.
    Optional(Expr),
    /// The first output of a node.
    Node(NodeExpr),
    /// One of several, the first that fits.
    OneOf(Vec<Expr>),
}

#[derive(Clone, Debug)]
pub(super) struct NodeExpr {
    pub(super) ops: Vec<&'static str>,
    pub(super) inputs: Vec<Expr>,
    pub(super) name: Option<&'static str>,
    pub(super) checks: Vec<Check>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    /// An integer attribute has this value, with the default where it is absent.
    Int { name: &'static str, default: i64, wanted: i64 },
    /// A float attribute has this value, within float32's rounding.
    Float { name: &'static str, default: f32, wanted: f32 },
    /// Anything else about the node itself.
    Node(fn(&Node) -> bool),
}

/// Operators of two inputs that may be swapped.
const COMMUTATIVE: &[&str] = &["Add", "And", "Equal", "Max", "Min", "Mul", "Or", "Xor"];

impl NodeExpr {
    pub(super) fn commutes(&self) -> bool {
        self.inputs.len() == 2 && self.ops.iter().all(|op| COMMUTATIVE.contains(op))
    }
}

fn expr(kind: Kind) -> Expr {
    Expr(Arc::new(kind))
}

/// Any value, captured.
pub fn any(name: &'static str) -> Expr {
    expr(Kind::Any(name))
}

/// A constant tensor of any shape, captured.
pub fn constant(name: &'static str) -> Expr {
    expr(Kind::Constant(name))
}

/// A constant of one element, captured.
pub fn scalar(name: &'static str) -> Expr {
    expr(Kind::Scalar(name))
}

/// A constant of one element: this number within `tolerance`, as a share of the number.
///
/// Plain numbers in patterns stand for constants within what the constant's type can tell apart.
pub fn number(value: f64, tolerance: f64) -> Expr {
    expr(Kind::Number { value, tolerance: Some(tolerance) })
}

/// The first output of a node of `ai.onnx` with these inputs, no more and no fewer.
pub fn op<const N: usize>(name: &'static str, inputs: [Expr; N]) -> Expr {
    one_of(&[name], inputs)
}

/// The first output of a node that is one of these operators of `ai.onnx`.
pub fn one_of<const N: usize>(ops: &[&'static str], inputs: [Expr; N]) -> Expr {
    expr(Kind::Node(NodeExpr {
        ops: ops.to_vec(),
        inputs: inputs.into(),
        name: None,
        checks: Vec::new(),
    }))
}

/// An input that may be left out, as the last or in between.
pub fn optional(input: Expr) -> Expr {
    expr(Kind::Optional(input))
}

/// One of several spellings; earlier ones are tried first.
pub fn either<const N: usize>(spellings: [Expr; N]) -> Expr {
    expr(Kind::OneOf(spellings.into()))
}

/// The product of three factors, in whichever order it is computed.
pub fn product(a: impl Into<Expr>, b: impl Into<Expr>, c: impl Into<Expr>) -> Expr {
    let (a, b, c) = (a.into(), b.into(), c.into());
    either([(a.clone() * b.clone()) * c.clone(), (a.clone() * c.clone()) * b.clone(), (b * c) * a])
}

/// A value times a number, spelled as a product or as a division by the reciprocal.
pub fn scaled(value: &Expr, by: f64) -> Expr {
    either([value.clone() * by, value.clone() / by.recip()])
}

impl Expr {
    /// Captures the node, to look at its attributes. Only for patterns made by [`op`], [`one_of`]
    /// and operators; others stay as they are.
    #[must_use]
    pub fn named(self, name: &'static str) -> Self {
        self.changed(|node| node.name = Some(name))
    }

    /// Demands the value of an integer attribute; `default` stands where it is absent.
    #[must_use]
    pub fn int(self, name: &'static str, default: i64, wanted: i64) -> Self {
        self.changed(|node| node.checks.push(Check::Int { name, default, wanted }))
    }

    /// Demands the value of a float attribute; `default` stands where it is absent.
    #[must_use]
    pub fn float(self, name: &'static str, default: f32, wanted: f32) -> Self {
        self.changed(|node| node.checks.push(Check::Float { name, default, wanted }))
    }

    /// Demands something else of the node.
    #[must_use]
    pub fn when(self, holds: fn(&Node) -> bool) -> Self {
        self.changed(|node| node.checks.push(Check::Node(holds)))
    }

    fn changed(self, change: impl FnOnce(&mut NodeExpr)) -> Self {
        match Arc::unwrap_or_clone(self.0) {
            Kind::Node(mut node) => {
                change(&mut node);
                expr(Kind::Node(node))
            }
            kind => expr(kind),
        }
    }
}

impl From<f64> for Expr {
    fn from(value: f64) -> Self {
        expr(Kind::Number { value, tolerance: None })
    }
}

macro_rules! arithmetic {
    ($($trait:ident $method:ident $op:literal),*) => {$(
        impl<T: Into<Expr>> $trait<T> for Expr {
            type Output = Expr;
            fn $method(self, other: T) -> Expr {
                op($op, [self, other.into()])
            }
        }

        impl $trait<Expr> for f64 {
            type Output = Expr;
            fn $method(self, other: Expr) -> Expr {
                op($op, [self.into(), other])
            }
        }
    )*};
}

arithmetic!(Add add "Add", Sub sub "Sub", Mul mul "Mul", Div div "Div");
