//! Reductions along axes.

#![allow(clippy::unnecessary_wraps)] // A `Rule` may have no answer, even if this one has.

use super::context::Context;
use super::dims;
use super::rule::{Rule, Shapes, one};
use crate::{Dim, Shape};

pub(super) fn rule(op: &str) -> Option<Rule> {
    let rule: Rule = match op {
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax"
        | "ReduceMean" | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => reduce,
        "ArgMax" | "ArgMin" => extreme,
        "TopK" => top,
        _ => return None,
    };
    Some(rule)
}

/// Axes come as an attribute or, in later versions, as the second input.
pub(super) fn reduce(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    let keep = context.int("keepdims", 1) != 0;
    let axes = match context.ints("axes") {
        Some(axes) => axes.to_vec(),
        None if context.has(1) => match context.constant_ints(1) {
            Some(axes) => axes,
            None if keep => return one(dims::unknown(shape.len())),
            None => {
                let count = context.contents(1)?.len();
                // No axes at all may mean all of them.
                let left = shape.len().checked_sub(count).filter(|_| count > 0)?;
                return one(dims::unknown(left));
            }
        },
        None => Vec::new(),
    };
    if axes.is_empty() && context.int("noop_with_empty_axes", 0) != 0 {
        return one(shape.clone());
    }
    one(reduced(shape, &axes, keep)?)
}

/// The shape without the axes, or with size 1 there; no axes mean all.
fn reduced(shape: &[Dim], axes: &[i64], keep: bool) -> Option<Shape> {
    let axes = dims::axes(axes, shape.len())?;
    let all = axes.is_empty();
    let gone = |index: &usize| all || axes.binary_search(index).is_ok();
    let size = |(index, size): (usize, &Dim)| match (gone(&index), keep) {
        (false, _) => Some(size.clone()),
        (true, true) => Some(Dim::Fixed(1)),
        (true, false) => None,
    };
    Some(shape.iter().enumerate().filter_map(size).collect())
}

fn extreme(context: &Context<'_>) -> Option<Shapes> {
    let keep = context.int("keepdims", 1) != 0;
    one(reduced(context.shape(0)?, &[context.int("axis", 0)], keep)?)
}

fn top(context: &Context<'_>) -> Option<Shapes> {
    let mut shape = context.shape(0)?.clone();
    let axis = dims::axis(context.int("axis", -1), shape.len())?;
    shape[axis] = if context.version < 10 {
        dims::dim(context.int("k", -1))
    } else {
        match context.contents(1).as_deref() {
            Some([k]) => k.dim(),
            _ => Dim::Unknown,
        }
    };
    Some(vec![Some(shape.clone()), Some(shape)])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, check};

    #[test]
    fn axes_come_as_attribute_or_input() {
        check("ReduceMean axes=[-1]", "float[n,3,4]", "float[n, 3, 1]");
        check("ReduceMean axes=[0,2] keepdims=i0", "float[n,3,4]", "float[3]");
        at(18, "ReduceMean keepdims=i0", "float[n,3,4]; int64{1}", "float[n, 4]");
        at(13, "ReduceSum", "float[n,3]; int64[1]", "float[?, ?]");
        at(13, "ReduceSum keepdims=i0", "float[n,3]; int64[1]", "float[?]");
        at(13, "ReduceSum keepdims=i0", "float[n,3]; int64[?]", "float[..]");
        at(13, "ReduceSum noop_with_empty_axes=i1", "float[n,3]", "float[n, 3]");
        check("ReduceMax keepdims=i0", "float[n,3]", "float[]");
        check("ReduceMax", "float[n,3]", "float[1, 1]");
        check("ReduceMax axes=[5]", "float[n,3]", "float[..]");
    }

    #[test]
    fn extremes_are_along_one_axis() {
        check("ArgMax axis=i1", "float[n,3]", "int64[n, 1]");
        check("ArgMin keepdims=i0", "float[n,3]", "int64[3]");
        check("TopK axis=i0", "float[9,3]; int64{2}", "float[2, 3]; int64[2, 3]");
        at(9, "TopK k=i2", "float[9,3]", "float[9, 2]; int64[9, 2]");
        check("TopK", "float[9,3]; int64[1]", "float[9, ?]; int64[9, ?]");
    }
}
