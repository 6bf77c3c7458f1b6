//! Operators that move elements about: reshaping, joining, cutting, indexing.

use std::collections::HashMap;

use super::contents::Int;
use super::context::Context;
use super::dims;
use super::rule::{Rule, Shapes, one};
use crate::{Dim, Shape};

pub(super) fn rule(op: &str) -> Option<Rule> {
    let rule: Rule = match op {
        "Reshape" => reshape,
        "Transpose" => transpose,
        "Flatten" => flatten,
        "Squeeze" => squeeze,
        "Unsqueeze" => unsqueeze,
        "Concat" => |context| concat(context, 0..context.input_count(), 1),
        "Split" => split,
        "Slice" => slice,
        "Gather" => |context| gather(context, "axis"),
        "GatherND" => gather_nd,
        "GatherElements" => |context| one(context.shape(1)?.clone()),
        "Expand" => expand,
        "Tile" => tile,
        "Pad" => pad,
        "DepthToSpace" => depth_to_space,
        "SpaceToDepth" => space_to_depth,
        "CenterCropPad" => center,
        "Compress" => compress,
        _ => return None,
    };
    Some(rule)
}

fn reshape(context: &Context<'_>) -> Option<Shapes> {
    let target: Vec<Int> = if context.version < 5 {
        context.ints("shape")?.iter().copied().map(Int::Known).collect()
    } else {
        context.contents(1)?
    };
    let input = context.shape(0);
    let copies = context.int("allowzero", 0) == 0;
    let mut open = Vec::new();
    let mut shape = Shape::new();
    for (index, size) in target.iter().enumerate() {
        shape.push(match size {
            Int::Known(0) if copies => context.dim(0, index),
            Int::Known(size) if *size >= 0 => dims::dim(*size),
            Int::Known(-1) | Int::Unknown => {
                open.push(index);
                Dim::Unknown
            }
            Int::Known(_) => return None,
            Int::Symbol(_) => size.dim(),
        });
    }
    // A single size that is left over follows from the number of elements.
    if let (Some(input), [open]) = (input, open.as_slice()) {
        let others: Vec<Dim> =
            shape.iter().enumerate().filter(|(i, _)| i != open).map(|(_, d)| d.clone()).collect();
        shape[*open] = remaining(input, &others);
    }
    one(shape)
}

/// The size that, times `others`, gives as many elements as `all` have.
fn remaining(all: &[Dim], others: &[Dim]) -> Dim {
    let mut symbols: HashMap<&str, i32> = HashMap::new();
    let mut fixed = [1usize; 2];
    for (side, (dims, step)) in [(all, 1), (others, -1)].into_iter().enumerate() {
        for dim in dims {
            match dim {
                Dim::Fixed(size) => match fixed[side].checked_mul(*size) {
                    Some(product) => fixed[side] = product,
                    None => return Dim::Unknown,
                },
                Dim::Symbol(name) => *symbols.entry(name).or_default() += step,
                Dim::Unknown => return Dim::Unknown,
            }
        }
    }
    let left: Vec<(&str, i32)> = symbols.into_iter().filter(|(_, count)| *count != 0).collect();
    let [all, others] = fixed;
    if others == 0 || all == 0 || all % others != 0 {
        return Dim::Unknown;
    }
    match left.as_slice() {
        [] => Dim::Fixed(all / others),
        [(name, 1)] if all == others => Dim::Symbol((*name).to_owned()),
        _ => Dim::Unknown,
    }
}

fn transpose(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    let Some(order) = context.ints("perm") else {
        return one(shape.iter().rev().cloned().collect());
    };
    if order.len() != shape.len() {
        return None;
    }
    dims::axes(order, shape.len())?;
    one(order
        .iter()
        .map(|&a| shape.get(dims::axis(a, shape.len())?).cloned())
        .collect::<Option<_>>()?)
}

fn flatten(context: &Context<'_>) -> Option<Shapes> {
    let Some(shape) = context.shape(0) else {
        return one(dims::unknown(2));
    };
    let axis = context.int("axis", 1);
    let at = if usize::try_from(axis) == Ok(shape.len()) {
        shape.len()
    } else {
        dims::axis(axis, shape.len())?
    };
    let (outer, inner) = shape.split_at(at);
    one(vec![dims::product(outer), dims::product(inner)])
}

/// Axes as an attribute or, since version 13, as the second input.
enum Axes {
    Known(Vec<i64>),
    Count(usize),
    Absent,
}

fn axes_of(context: &Context<'_>) -> Option<Axes> {
    if let Some(axes) = context.ints("axes") {
        return Some(Axes::Known(axes.to_vec()));
    }
    if !context.has(1) {
        return Some(Axes::Absent);
    }
    match context.constant_ints(1) {
        Some(axes) => Some(Axes::Known(axes)),
        None => Some(Axes::Count(context.contents(1)?.len())),
    }
}

fn squeeze(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    match axes_of(context)? {
        Axes::Known(axes) => {
            let axes = dims::axes(&axes, shape.len())?;
            let kept = shape.iter().enumerate().filter(|(i, _)| axes.binary_search(i).is_err());
            one(kept.map(|(_, size)| size.clone()).collect())
        }
        Axes::Count(count) => one(dims::unknown(shape.len().checked_sub(count)?)),
        Axes::Absent => {
            shape.iter().all(|size| size.fixed().is_some()).then_some(())?;
            one(shape.iter().filter(|size| **size != Dim::Fixed(1)).cloned().collect())
        }
    }
}

fn unsqueeze(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    match axes_of(context)? {
        Axes::Known(axes) => {
            let rank = shape.len() + axes.len();
            if rank > dims::MAX_RANK {
                return None;
            }
            let axes = dims::axes(&axes, rank)?;
            let mut sizes = shape.iter();
            let size = |index| match axes.binary_search(&index) {
                Ok(_) => Some(Dim::Fixed(1)),
                Err(_) => sizes.next().cloned(),
            };
            one((0..rank).map(size).collect::<Option<_>>()?)
        }
        Axes::Count(count) => one(dims::unknown(shape.len() + count)),
        Axes::Absent => None,
    }
}

/// The inputs of a range put together along the attribute `axis`.
pub(super) fn concat(
    context: &Context<'_>,
    inputs: impl Iterator<Item = usize> + Clone,
    default_axis: i64,
) -> Option<Shapes> {
    let known: Vec<Option<&Shape>> = inputs.map(|index| context.shape(index)).collect();
    let first = known.iter().flatten().next()?;
    let axis = dims::axis(context.int("axis", default_axis), first.len())?;
    let mut shape = (*first).clone();
    for other in known.iter().flatten() {
        if other.len() != shape.len() {
            return None;
        }
        for (size, other) in shape.iter_mut().zip(*other) {
            *size = dims::both(size, other);
        }
    }
    let parts: Option<Vec<&Dim>> =
        known.iter().map(|shape| shape.map(|shape| &shape[axis])).collect();
    shape[axis] = parts.map_or(Dim::Unknown, dims::sum);
    one(shape)
}

fn split(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    let axis = dims::axis(context.int("axis", 0), shape.len())?;
    let count = context.output_count();
    let sizes: Vec<Dim> = if let Some(sizes) = context.ints("split") {
        sizes.iter().map(|&size| dims::dim(size)).collect()
    } else if context.has(1) {
        match context.contents(1) {
            Some(sizes) => sizes.iter().map(Int::dim).collect(),
            None => vec![Dim::Unknown; count],
        }
    } else {
        even_parts(&shape[axis], count, context.version >= 18)
    };
    let part = |index: usize| {
        let mut part = shape.clone();
        part[axis] = sizes.get(index).cloned().unwrap_or(Dim::Unknown);
        Some(part)
    };
    Some((0..count).map(part).collect())
}

/// Equal parts; since version 18, the last one may be smaller.
fn even_parts(total: &Dim, count: usize, uneven: bool) -> Vec<Dim> {
    match total {
        _ if count == 1 => vec![total.clone()],
        Dim::Fixed(total) if count > 0 && total % count == 0 => {
            vec![Dim::Fixed(total / count); count]
        }
        Dim::Fixed(total) if count > 0 && uneven => {
            let size = total.div_ceil(count);
            let mut left = *total;
            let part = |_| {
                let part = size.min(left);
                left -= part;
                Dim::Fixed(part)
            };
            (0..count).map(part).collect()
        }
        _ => vec![Dim::Unknown; count],
    }
}

fn slice(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    let part = |attribute: &str, index: usize| {
        if context.version < 10 {
            context.ints(attribute).map(|list| list.iter().copied().map(Int::Known).collect())
        } else {
            context.contents(index)
        }
    };
    let (starts, ends): (Option<Vec<Int>>, Option<Vec<Int>>) = (part("starts", 1), part("ends", 2));
    let given = if context.version < 10 { context.ints("axes").is_some() } else { context.has(3) };
    let count = starts.as_ref().or(ends.as_ref()).map(Vec::len);
    let axes: Option<Vec<i64>> = if given {
        part("axes", 3).and_then(|axes| axes.iter().map(Int::known).collect())
    } else {
        count.map(|count| (0..count as i64).collect())
    };
    let Some(axes) = axes else {
        return one(dims::unknown(shape.len()));
    };
    let steps: Option<Vec<Int>> = if context.version >= 10 && context.has(4) {
        context.contents(4)
    } else {
        Some(vec![Int::Known(1); axes.len()])
    };
    dims::axes(&axes, shape.len())?;
    let mut shape = shape.clone();
    for (index, &axis) in axes.iter().enumerate() {
        let place = dims::axis(axis, shape.len())?;
        let at = |list: &Option<Vec<Int>>| list.as_ref()?.get(index)?.known();
        shape[place] = match (at(&starts), at(&ends), at(&steps)) {
            (Some(start), Some(end), Some(step)) => sliced(&shape[place], start, end, step)?,
            _ => Dim::Unknown,
        };
    }
    one(shape)
}

fn sliced(size: &Dim, start: i64, end: i64, step: i64) -> Option<Dim> {
    match dims::fixed(size) {
        Some(size) => Some(dims::dim(dims::slice_of(size, start, end, step)?.1)),
        // Ends at or above this are how exporters write "to the end".
        None if start == 0 && end >= i64::from(i32::MAX) && step == 1 => Some(size.clone()),
        None => Some(Dim::Unknown),
    }
}

/// The second input replaces an axis of the first.
pub(super) fn gather(context: &Context<'_>, axis: &str) -> Option<Shapes> {
    let (data, indices) = (context.shape(0)?, context.shape(1)?);
    let axis = dims::axis(context.int(axis, 0), data.len())?;
    let after = data.get(axis + 1..)?;
    one(data.iter().take(axis).chain(indices).chain(after).cloned().collect())
}

fn gather_nd(context: &Context<'_>) -> Option<Shapes> {
    let (data, indices) = (context.shape(0)?, context.shape(1)?);
    let batch = usize::try_from(context.int("batch_dims", 0)).ok()?;
    let (last, outer) = indices.split_last()?;
    let rest = data.get(batch.checked_add(last.fixed()?)?..)?;
    one(outer.iter().chain(rest).cloned().collect())
}

fn expand(context: &Context<'_>) -> Option<Shapes> {
    let target: Shape = context.contents(1)?.iter().map(Int::dim).collect();
    one(dims::broadcast(context.shape(0)?, &target)?)
}

fn tile(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    if context.version < 6 {
        let (tiles, axis) = (context.constant_int(1)?, context.constant_int(2)?);
        let mut shape = shape.clone();
        let axis = dims::axis(axis, shape.len())?;
        shape[axis] = dims::times(&shape[axis], tiles);
        return one(shape);
    }
    let Some(repeats) = context.contents(1) else {
        return one(dims::unknown(shape.len()));
    };
    if repeats.len() != shape.len() {
        return None;
    }
    one(shape
        .iter()
        .zip(&repeats)
        .map(|(size, n)| dims::product(&[size.clone(), n.dim()]))
        .collect())
}

fn pad(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    let pads = match context.ints(if context.version < 2 { "paddings" } else { "pads" }) {
        Some(pads) if context.version < 11 => Some(pads.iter().copied().map(Int::Known).collect()),
        _ => context.contents(1),
    };
    let axes: Vec<i64> = if context.has(3) {
        match context.constant_ints(3) {
            Some(axes) => axes,
            None => return one(dims::unknown(shape.len())),
        }
    } else {
        (0..shape.len() as i64).collect()
    };
    let Some(pads) = pads else {
        return one(dims::unknown(shape.len()));
    };
    if pads.len() != axes.len() * 2 {
        return None;
    }
    dims::axes(&axes, shape.len())?;
    let mut shape = shape.clone();
    let (begin, end) = pads.split_at(axes.len());
    for ((axis, begin), end) in axes.into_iter().zip(begin).zip(end) {
        let place = dims::axis(axis, shape.len())?;
        let amount = begin.known().zip(end.known()).and_then(|(a, b)| a.checked_add(b));
        shape[place] = amount.map_or(Dim::Unknown, |amount| dims::add(&shape[place], amount));
    }
    one(shape)
}

fn depth_to_space(context: &Context<'_>) -> Option<Shapes> {
    let [n, c, h, w] = context.shape(0)?.as_slice() else {
        return None;
    };
    let block = context.int("blocksize", 0);
    let area = block.checked_mul(block).filter(|_| block > 0)?;
    let (h, w) = (dims::times(h, block), dims::times(w, block));
    one(vec![n.clone(), dims::divided(c, area), h, w])
}

fn space_to_depth(context: &Context<'_>) -> Option<Shapes> {
    let [n, c, h, w] = context.shape(0)?.as_slice() else {
        return None;
    };
    let block = context.int("blocksize", 0);
    let area = block.checked_mul(block).filter(|_| block > 0)?;
    let (h, w) = (dims::divided(h, block), dims::divided(w, block));
    one(vec![n.clone(), dims::times(c, area), h, w])
}

fn center(context: &Context<'_>) -> Option<Shapes> {
    let mut shape = context.shape(0)?.clone();
    let axes: Vec<i64> = match context.ints("axes") {
        Some(axes) => axes.to_vec(),
        None => (0..shape.len() as i64).collect(),
    };
    dims::axes(&axes, shape.len())?;
    let sizes = context.contents(1);
    for (index, axis) in axes.into_iter().enumerate() {
        let place = dims::axis(axis, shape.len())?;
        let size = sizes.as_ref().and_then(|sizes| sizes.get(index));
        shape[place] = size.map_or(Dim::Unknown, Int::dim);
    }
    one(shape)
}

fn compress(context: &Context<'_>) -> Option<Shapes> {
    if context.attribute("axis").is_none() {
        return one(vec![Dim::Unknown]);
    }
    let mut shape = context.shape(0)?.clone();
    let axis = dims::axis(context.int("axis", 0), shape.len())?;
    shape[axis] = Dim::Unknown;
    one(shape)
}

#[cfg(test)]
mod tests {
    use super::super::dims::slice_of;
    use super::super::testing::{at, check};

    #[test]
    fn reshape_fills_in_what_is_left() {
        check("Reshape", "float[2,3,4]; int64{0,-1}", "float[2, 12]");
        check("Reshape", "float[n,3,4]; int64{0,-1}", "float[n, 12]");
        check("Reshape", "float[n,3,4]; int64{-1,12}", "float[n, 12]");
        check("Reshape", "float[n,3,4]; int64{-1,6}", "float[?, 6]");
        check("Reshape", "float[2,3,4]; int64[2]", "float[?, ?]");
        check("Reshape", "float[2,3]; int64[k]", "float[..]");
        check("Reshape", "float[2,3]; int64{4,-1}", "float[4, ?]");
        check("Reshape allowzero=i1", "float[0,3]; int64{3,0}", "float[3, 0]");
        check("Reshape", "float[2,3]; int64{-2}", "float[..]");
        check("Reshape", "float[..]; int64{0,-1,5}", "float[?, ?, 5]");
        check("Reshape", "float[18446744073709551615,18446744073709551615]; int64{-1}", "float[?]");
        at(4, "Reshape shape=[6]", "float[2,3]", "float[6]");
    }

    #[test]
    fn transposing_and_flattening() {
        check("Transpose perm=[2,0,1]", "float[a,b,c]", "float[c, a, b]");
        check("Transpose", "float[a,b]", "float[b, a]");
        check("Transpose perm=[0,0]", "float[a,b]", "float[..]");
        check("Flatten", "float[n,3,4]", "float[n, 12]");
        check("Flatten axis=i2", "float[2,3]", "float[6, 1]");
        check("Flatten axis=i-1", "float[2,3,4]", "float[6, 4]");
        check("Flatten", "float[..]", "float[?, ?]");
    }

    #[test]
    fn ones_come_and_go() {
        check("Squeeze", "float[n,1,4]; int64{1}", "float[n, 4]");
        at(11, "Squeeze axes=[-2]", "float[n,1,4]", "float[n, 4]");
        check("Squeeze", "float[1,3,1]", "float[3]");
        check("Squeeze", "float[n,1]", "float[..]");
        check("Unsqueeze", "float[n]; int64{-1,0}", "float[1, n, 1]");
        at(11, "Unsqueeze axes=[1]", "float[n,4]", "float[n, 1, 4]");
        check("Unsqueeze", "float[n]; int64[2]", "float[?, ?, ?]");
        check("Unsqueeze", "float[n]; int64{7}", "float[..]");
    }

    #[test]
    fn joining_and_splitting() {
        check("Concat axis=i-1", "float[n,2]; float[?,3]", "float[n, 5]");
        check("Concat axis=i0", "float[n,2]; float[3,2]", "float[?, 2]");
        check("Concat axis=i0", "float[n,2]; float[..]", "float[?, 2]");
        check("Concat axis=i3", "float[n,2]; float[n,2]", "float[..]");
        check("Split axis=i1", "float[n,6]", "float[n, 3]; float[n, 3]");
        check("Split", "float[5,2]; int64{2,3}", "float[2, 2]; float[3, 2]");
        at(11, "Split split=[2,3]", "float[5]", "float[2]; float[3]");
        at(18, "Split num_outputs=i2", "float[5]", "float[3]; float[2]");
        check("Split", "float[5]", "float[?]; float[?]");
    }

    #[test]
    fn slices_are_clamped() {
        check("Slice", "float[9,n]; int64{1}; int64{-1}; int64{0}", "float[7, n]");
        check("Slice", "float[n,9]; int64{0}; int64{9223372036854775807}; int64{0}", "float[n, 9]");
        check("Slice", "float[n,9]; int64{1}; int64{3}; int64{0}", "float[?, 9]");
        check("Slice", "float[9]; int64{-1}; int64{-99}; int64{0}; int64{-2}", "float[5]");
        check("Slice", "float[9]; int64{0}; int64{9}; int64{0}; int64{0}", "float[..]");
        check("Slice", "float[9,9]; int64[1]; int64[1]; int64{1}", "float[9, ?]");
        check("Slice", "float[9,9]; int64[1]; int64[1]; int64[1]", "float[?, ?]");
        at(9, "Slice starts=[2] ends=[5] axes=[1]", "float[9,9]", "float[9, 3]");
        let extreme = [i64::MIN, -1, 0, 1, i64::MAX];
        for (start, end) in extreme.iter().flat_map(|a| extreme.map(|b| (*a, b))) {
            for (size, step) in extreme.iter().flat_map(|a| extreme.map(|b| (*a, b))) {
                if let Some((_, count)) = slice_of(size, start, end, step) {
                    assert!((0..=size).contains(&count));
                }
            }
        }
    }

    #[test]
    fn indices_replace_axes() {
        check("Gather", "float[100,8]; int64[n,t]", "float[n, t, 8]");
        check("Gather axis=i1", "float[a,9,b]; int64[]", "float[a, b]");
        check("GatherND", "float[a,b,c]; int64[n,2]", "float[n, c]");
        check("GatherND batch_dims=i1", "float[a,b,c]; int64[a,1]", "float[a, c]");
        check("GatherND", "float[a,b,c]; int64[n,?]", "float[..]");
        check("GatherElements", "float[a,b]; int64[a,3]", "float[a, 3]");
    }

    #[test]
    fn growing() {
        check("Expand", "float[n,1]; int64{5,1,4}", "float[5, n, 4]");
        check("Tile", "float[n,3]; int64{1,2}", "float[n, 6]");
        check("Tile", "float[n,3]; int64[2]", "float[?, ?]");
        check("Pad", "float[n,3]; int64{0,1,0,2}", "float[n, 6]");
        at(10, "Pad pads=[1,1]", "float[3]", "float[5]");
        at(18, "Pad", "float[n,3]; int64{1,1}; -; int64{1}", "float[n, 5]");
        check("Pad", "float[n,3]; int64{9223372036854775807,1,1,2}", "float[?, 6]");
        check("DepthToSpace blocksize=i2", "float[n,8,h,3]", "float[n, 2, ?, 6]");
        check("SpaceToDepth blocksize=i2", "float[n,2,4,6]", "float[n, 8, 2, 3]");
        check("SpaceToDepth blocksize=i0", "float[n,2,4,6]", "float[..]");
        at(18, "CenterCropPad axes=[1]", "float[n,3]; int64{7}", "float[n, 7]");
        check("Compress axis=i0", "float[9,2]; bool[9]", "float[?, 2]");
    }
}
