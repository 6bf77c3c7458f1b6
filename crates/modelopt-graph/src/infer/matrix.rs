//! Matrix products.

#![allow(clippy::unnecessary_wraps)] // A `Rule` may have no answer, even if this one has.

use super::dims;
use super::node::{Context, Rule, Shapes, one};
use crate::{Dim, Shape};

pub(super) fn rule(op: &str) -> Option<Rule> {
    let rule: Rule = match op {
        "MatMul" | "MatMulInteger" => |context| product(context, 0, 1),
        "QLinearMatMul" => |context| product(context, 0, 3),
        "Gemm" => |context| gemm(context, 0, 1),
        "Det" => determinant,
        "Einsum" => einsum,
        _ => return None,
    };
    Some(rule)
}

/// A product as numpy's `matmul` does it, of the inputs at two places.
pub(super) fn product(context: &Context<'_>, left: usize, right: usize) -> Option<Shapes> {
    one(matmul(context.shape(left)?, context.shape(right)?)?)
}

/// The shape of a product as numpy's `matmul` does it; `None` where it has none.
pub(super) fn matmul(a: &[Dim], b: &[Dim]) -> Option<Shape> {
    let (rows, a_batch) = match a {
        [] => return None,
        [_] => (None, &[][..]),
        [batch @ .., rows, _] => (Some(rows), batch),
    };
    let (columns, b_batch) = match b {
        [] => return None,
        [_] => (None, &[][..]),
        [batch @ .., _, columns] => (Some(columns), batch),
    };
    let mut shape = dims::broadcast(a_batch, b_batch)?;
    shape.extend(rows.cloned());
    shape.extend(columns.cloned());
    Some(shape)
}

/// `Gemm` of the inputs at two places, with its attributes `transA` and `transB`.
pub(super) fn gemm(context: &Context<'_>, a: usize, b: usize) -> Option<Shapes> {
    // The rank is 2 even where the operands are not known.
    let rows = context.dim(a, usize::from(context.int("transA", 0) != 0));
    let columns = context.dim(b, usize::from(context.int("transB", 0) == 0));
    one(vec![rows, columns])
}

fn determinant(context: &Context<'_>) -> Option<Shapes> {
    match context.shape(0)?.as_slice() {
        [batch @ .., _, _] => one(batch.to_vec()),
        _ => None,
    }
}

/// Explicit and implicit equations; an ellipsis stands for the same sizes in all terms.
fn einsum(context: &Context<'_>) -> Option<Shapes> {
    const LONGEST: usize = 1024;
    let equation: String = context.string("equation")?.split_whitespace().collect();
    if equation.len() > LONGEST || context.input_count() > super::MAX_RANK {
        return None;
    }
    let (terms, output) = match equation.split_once("->") {
        Some((terms, output)) => (terms, Some(output)),
        None => (equation.as_str(), None),
    };
    let mut sizes: Vec<(char, Dim)> = Vec::new();
    let mut ellipsis: Option<Shape> = None;
    let mut counts: Vec<(char, usize)> = Vec::new();
    let terms: Vec<&str> = terms.split(',').collect();
    if terms.len() != context.input_count() {
        return None;
    }
    for (index, term) in terms.into_iter().enumerate() {
        let shape = context.shape(index)?;
        let (before, after) = term.split_once("...").unwrap_or((term, ""));
        let named = before.chars().count() + after.chars().count();
        let extra = shape.len().checked_sub(named)?;
        if extra > 0 && !term.contains("...") {
            return None;
        }
        let split = before.chars().count();
        if term.contains("...") {
            let own = shape.get(split..split + extra)?;
            ellipsis = Some(match ellipsis {
                Some(so_far) => dims::broadcast(&so_far, own)?,
                None => own.to_vec(),
            });
        }
        let rest = shape.iter().skip(split + extra);
        let letters = before.chars().chain(after.chars());
        for (letter, size) in letters.zip(shape.iter().take(split).chain(rest)) {
            match counts.iter_mut().find(|(known, _)| *known == letter) {
                Some((_, count)) => *count += 1,
                None => counts.push((letter, 1)),
            }
            match sizes.iter_mut().find(|(known, _)| *known == letter) {
                // A size of 1 may be stretched.
                Some((_, known)) if *known == Dim::Fixed(1) => *known = size.clone(),
                Some(_) if *size == Dim::Fixed(1) => {}
                Some((_, known)) => *known = dims::both(known, size),
                None => sizes.push((letter, size.clone())),
            }
        }
    }
    let size = |letter: char| {
        sizes.iter().find(|(known, _)| *known == letter).map(|(_, size)| size.clone())
    };
    let Some(output) = output else {
        let mut once: Vec<char> =
            counts.iter().filter(|(_, count)| *count == 1).map(|(letter, _)| *letter).collect();
        once.sort_unstable();
        let mut shape = ellipsis.unwrap_or_default();
        shape.extend(once.into_iter().filter_map(size));
        return one(shape);
    };
    let (before, after) = output.split_once("...").unwrap_or((output, ""));
    let mut shape: Shape = before.chars().map(size).collect::<Option<_>>()?;
    if output.contains("...") {
        shape.extend(ellipsis.unwrap_or_default());
    }
    shape.extend(after.chars().map(size).collect::<Option<Shape>>()?);
    one(shape)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, check};

    #[test]
    fn matmul_follows_numpy() {
        check("MatMul", "float[n,4]; float[4,5]", "float[n, 5]");
        check("MatMul", "float[b,1,n,4]; float[6,4,5]", "float[b, 6, n, 5]");
        check("MatMul", "float[4]; float[b,4,5]", "float[b, 5]");
        check("MatMul", "float[4]; float[4]", "float[]");
        check("MatMul", "float[]; float[4]", "float[..]");
        check("MatMul", "float[..]; float[4,5]", "float[..]");
        check("MatMulInteger", "uint8[n,4]; int8[4,5]", "int32[n, 5]");
    }

    #[test]
    fn gemm_transposes() {
        check("Gemm", "float[n,4]; float[4,5]", "float[n, 5]");
        check("Gemm transA=i1 transB=i1", "float[4,n]; float[5,4]; float[5]", "float[n, 5]");
        check("Gemm", "float[..]; float[4,5]", "float[?, 5]");
    }

    #[test]
    fn einsum_reads_its_equation() {
        at(12, "Einsum equation=sbij,bjk->bik", "float[b,2,3]; float[b,3,4]", "float[b, 2, 4]");
        at(12, "Einsum equation=s...ii->...i", "float[7,3,3]", "float[7, 3]");
        at(12, "Einsum equation=sij,jk", "float[2,3]; float[3,4]", "float[2, 4]");
        at(12, "Einsum equation=sij->ji", "float[2,3]", "float[3, 2]");
        at(12, "Einsum equation=sijk->i", "float[2,3]", "float[..]");
        at(12, "Einsum equation=si->q", "float[2]", "float[..]");
    }
}
