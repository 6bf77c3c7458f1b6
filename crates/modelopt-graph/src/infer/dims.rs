//! Arithmetic on sizes of which only some are known. Nothing overflows: what does not fit is
//! unknown.

use crate::{Dim, Shape};

/// Ranks above this are treated as unknown, so that shapes stay cheap to pass on.
pub(super) const MAX_RANK: usize = 64;

/// A size from a signed number; negative ones are unknown.
pub(super) fn dim(size: i64) -> Dim {
    usize::try_from(size).map_or(Dim::Unknown, Dim::Fixed)
}

/// The size as a signed number, if it is fixed and fits.
pub(super) fn fixed(dim: &Dim) -> Option<i64> {
    dim.fixed().and_then(|size| i64::try_from(size).ok())
}

/// A shape of `rank` unknown sizes.
pub(super) fn unknown(rank: usize) -> Shape {
    vec![Dim::Unknown; rank.min(MAX_RANK + 1)]
}

/// An axis that may count from the end, as an index below `rank`.
pub(super) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
    (0..rank).contains(&axis).then_some(axis as usize)
}

/// Axes as sorted indices; `None` if one is out of range or occurs twice.
pub(super) fn axes(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    if axes.len() > rank {
        return None;
    }
    let mut all: Vec<usize> = axes.iter().map(|&a| axis(a, rank)).collect::<Option<_>>()?;
    all.sort_unstable();
    all.windows(2).all(|pair| pair[0] != pair[1]).then_some(all)
}

/// The size that is one of two.
pub(super) fn join(a: &Dim, b: &Dim) -> Dim {
    if a == b { a.clone() } else { Dim::Unknown }
}

/// What is known of a size of which two things are known.
pub(super) fn both(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Fixed(_), _) | (_, Dim::Unknown) => a.clone(),
        (_, Dim::Fixed(_)) | (Dim::Unknown, _) => b.clone(),
        _ => a.clone(),
    }
}

/// The product of sizes. A symbol survives only among ones.
pub(super) fn product(dims: &[Dim]) -> Dim {
    if dims.contains(&Dim::Fixed(0)) {
        return Dim::Fixed(0);
    }
    let mut rest = dims.iter().filter(|dim| **dim != Dim::Fixed(1));
    match (rest.next(), rest.next()) {
        (None, _) => Dim::Fixed(1),
        (Some(only), None) => only.clone(),
        _ => dims
            .iter()
            .try_fold(1usize, |product, dim| product.checked_mul(dim.fixed()?))
            .map_or(Dim::Unknown, Dim::Fixed),
    }
}

/// The sum of sizes. A symbol survives only among zeros.
pub(super) fn sum<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    dims.into_iter().fold(Dim::Fixed(0), |sum, dim| match (sum, dim) {
        (Dim::Fixed(a), Dim::Fixed(b)) => a.checked_add(*b).map_or(Dim::Unknown, Dim::Fixed),
        (Dim::Fixed(0), other) => other.clone(),
        (other, Dim::Fixed(0)) => other,
        _ => Dim::Unknown,
    })
}

/// A size with something added.
pub(super) fn add(to: &Dim, amount: i64) -> Dim {
    match fixed(to) {
        _ if amount == 0 => to.clone(),
        Some(size) => size.checked_add(amount).map_or(Dim::Unknown, dim),
        None => Dim::Unknown,
    }
}

/// A size times a factor.
pub(super) fn times(size: &Dim, factor: i64) -> Dim {
    product(&[size.clone(), dim(factor)])
}

/// A size divided by a number that must divide it.
pub(super) fn divided(size: &Dim, by: i64) -> Dim {
    match fixed(size) {
        _ if by == 1 => size.clone(),
        Some(size) if by > 0 && size % by == 0 => dim(size / by),
        _ => Dim::Unknown,
    }
}

/// The shape of what two operands give when their sizes are broadcast against each other;
/// `None` where they cannot be.
pub(super) fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Shape> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let ahead = long.len() - short.len();
    let mut shape: Shape = long.get(..ahead)?.to_vec();
    for (a, b) in long.iter().skip(ahead).zip(short) {
        shape.push(match (a, b) {
            (Dim::Fixed(1), other) | (other, Dim::Fixed(1)) => other.clone(),
            (Dim::Fixed(a), Dim::Fixed(b)) if a != b => return None,
            // The other one can only be the same or 1.
            (Dim::Fixed(size), _) | (_, Dim::Fixed(size)) => Dim::Fixed(*size),
            (a, b) => join(a, b),
        });
    }
    Some(shape)
}

/// First index and number of elements of a slice of `size` elements; `None` for a step of 0.
pub(super) fn slice_of(size: i64, start: i64, end: i64, step: i64) -> Option<(i64, i64)> {
    if step == 0 || size < 0 {
        return None;
    }
    let clamp = |at: i64, low: i64, high: i64| {
        let at = if at < 0 { at.saturating_add(size) } else { at };
        // An empty axis has `high` below `low` for negative steps.
        at.min(high).max(low)
    };
    let (first, length, step) = if step > 0 {
        let first = clamp(start, 0, size);
        (first, i128::from(clamp(end, 0, size)) - i128::from(first), i128::from(step))
    } else {
        let first = clamp(start, -1, size - 1);
        (first, i128::from(first) - i128::from(clamp(end, -1, size - 1)), -i128::from(step))
    };
    let count = if length <= 0 { 0 } else { (length + step - 1) / step };
    Some((first, i64::try_from(count).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str) -> Dim {
        Dim::Symbol(name.into())
    }

    #[test]
    fn sizes_never_overflow() {
        let huge = Dim::Fixed(usize::MAX);
        assert_eq!(product(&[huge.clone(), Dim::Fixed(2)]), Dim::Unknown);
        assert_eq!(product(&[huge.clone(), Dim::Fixed(2), Dim::Fixed(0)]), Dim::Fixed(0));
        assert_eq!(sum([&huge, &Dim::Fixed(1)]), Dim::Unknown);
        assert_eq!(add(&Dim::Fixed(i64::MAX as usize), 1), Dim::Unknown);
        assert_eq!(times(&huge, i64::MAX), Dim::Unknown);
        assert_eq!(axis(i64::MIN, 3), None);
        assert_eq!(divided(&Dim::Fixed(4), 0), Dim::Unknown);
        assert_eq!(unknown(usize::MAX).len(), 65);
    }

    #[test]
    fn symbols_survive_where_the_size_stays() {
        assert_eq!(product(&[Dim::Fixed(1), symbol("n")]), symbol("n"));
        assert_eq!(product(&[Dim::Fixed(2), symbol("n")]), Dim::Unknown);
        assert_eq!(sum([&Dim::Fixed(0), &symbol("n")]), symbol("n"));
        assert_eq!(sum([&Dim::Fixed(1), &symbol("n")]), Dim::Unknown);
        assert_eq!(both(&Dim::Unknown, &symbol("n")), symbol("n"));
        assert_eq!(both(&symbol("n"), &Dim::Fixed(3)), Dim::Fixed(3));
    }

    #[test]
    fn broadcasting_keeps_what_is_certain() {
        let n = symbol("n");
        let one = std::slice::from_ref(&n);
        let of = |a: &[Dim], b: &[Dim]| broadcast(a, b);
        assert_eq!(
            of(&[n.clone(), Dim::Fixed(1)], &[Dim::Fixed(3)]),
            Some(vec![n.clone(), Dim::Fixed(3)])
        );
        assert_eq!(of(one, &[Dim::Fixed(3)]), Some(vec![Dim::Fixed(3)]));
        assert_eq!(of(one, &[symbol("m")]), Some(vec![Dim::Unknown]));
        assert_eq!(of(one, one), Some(one.to_vec()));
        assert_eq!(of(&[Dim::Fixed(2)], &[Dim::Fixed(3)]), None);
        assert_eq!(axes(&[-1, 0], 3), Some(vec![0, 2]));
        assert_eq!(axes(&[-1, 2], 3), None);
    }
}
