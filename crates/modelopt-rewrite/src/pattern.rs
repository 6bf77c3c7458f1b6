//! A small language for what rewrites look for: patterns that read like arithmetic.
//!
//! ```
//! use modelopt_rewrite::pattern::{any, op};
//! // x * 1/2 * (1 + erf(x / sqrt(2)))
//! let x = any("x");
//! let gelu = x.clone() * 0.5 * (1.0 + op("Erf", [x / std::f64::consts::SQRT_2]));
//! ```
//!
//! A pattern ([`Expr`]) is matched against a node ([`Expr::find`]); what it captured by name is in the
//! [`Match`]. These hold of every match, so that no rewrite need check them:
//!
//! - The same name, used twice, means the same value (or equal constants).
//! - Operators that commute match in either order: `Add`, `Mul`, `Min`, `Max` and the logical ones.
//! - A number matches a constant of one element, of any float or integer type, within what its type
//!   can tell apart.
//! - Nothing outside the match reads a value in between, and none is a graph output: all matched
//!   nodes but the last can be removed.
//! - All matched nodes stand in one graph. Captured values may come from graphs around it; they are
//!   visible where the last node stands, because a node of that graph reads them already.
//!
//! Association is not guessed: a pattern for `a * b * c` names the order, or says [`product`].

mod expr;
mod matcher;
#[cfg(test)]
mod tests;

pub use expr::{
    Expr, any, constant, either, number, one_of, op, optional, product, scalar, scaled,
};
pub use matcher::Match;
