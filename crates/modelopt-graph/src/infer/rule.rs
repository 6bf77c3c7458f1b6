//! What the rule of an operator is.

use super::context::Context;
use crate::Shape;

/// The shapes of a node's outputs, as far as they are known; missing ones are unknown.
pub(super) type Shapes = Vec<Option<Shape>>;

/// Derives the shapes of an operator's outputs; `None` where nothing can be said.
pub(super) type Rule = fn(&Context<'_>) -> Option<Shapes>;

/// The answer of a rule for an operator with one output.
#[allow(clippy::unnecessary_wraps)] // What a `Rule` returns.
pub(super) fn one(shape: Shape) -> Option<Shapes> {
    Some(vec![Some(shape)])
}
