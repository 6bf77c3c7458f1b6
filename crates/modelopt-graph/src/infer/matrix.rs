//! Matrix products.

#![allow(clippy::unnecessary_wraps)] // A `Rule` may have no answer, even if this one has.

use super::context::Context;
use super::dims;
use super::rule::{Rule, Shapes, one};
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
    if equation.len() > LONGEST {
        return None;
    }
    let (terms, output) = match equation.split_once("->") {
        Some((terms, output)) => (terms, Some(output)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = terms.split(',').collect();
    if terms.len() != context.input_count() {
        return None;
    }
    let mut letters = Letters::default();
    for (index, term) in terms.into_iter().enumerate() {
        letters.read(term, context.shape(index)?)?;
    }
    one(match output {
        Some(output) => letters.explicit(output)?,
        None => letters.implicit(),
    })
}

/// What the terms of an einsum equation say.
#[derive(Default)]
struct Letters {
    /// Each letter with its size and how often it occurs.
    sizes: Vec<(char, Dim, usize)>,
    /// The sizes that an ellipsis stands for.
    ellipsis: Shape,
}

impl Letters {
    fn read(&mut self, term: &str, shape: &[Dim]) -> Option<()> {
        let (before, after) = match term.split_once("...") {
            Some(parts) => parts,
            None if term.chars().count() == shape.len() => (term, ""),
            None => return None,
        };
        let (first, last) = (before.chars().count(), after.chars().count());
        let end = shape.len().checked_sub(last)?;
        self.ellipsis = dims::broadcast(&self.ellipsis, shape.get(first..end)?)?;
        let named = shape.iter().take(first).chain(shape.iter().skip(end));
        for (letter, size) in before.chars().chain(after.chars()).zip(named) {
            self.add(letter, size);
        }
        Some(())
    }

    fn add(&mut self, letter: char, size: &Dim) {
        match self.sizes.iter_mut().find(|(known, ..)| *known == letter) {
            Some((_, known, count)) => {
                *count += 1;
                // A size of 1 may be stretched.
                *known = match (&*known, size) {
                    (Dim::Fixed(1), other) => other.clone(),
                    (_, Dim::Fixed(1)) => known.clone(),
                    _ => dims::both(known, size),
                };
            }
            None => self.sizes.push((letter, size.clone(), 1)),
        }
    }

    fn explicit(&self, output: &str) -> Option<Shape> {
        let size = |letter: char| {
            self.sizes.iter().find(|(known, ..)| *known == letter).map(|(_, size, _)| size.clone())
        };
        let (before, after) = output.split_once("...").unwrap_or((output, ""));
        let mut shape: Shape = before.chars().map(size).collect::<Option<_>>()?;
        if output.contains("...") {
            shape.extend(self.ellipsis.iter().cloned());
        }
        shape.extend(after.chars().map(size).collect::<Option<Shape>>()?);
        Some(shape)
    }

    /// The letters that occur once, sorted.
    fn implicit(mut self) -> Shape {
        self.sizes.sort_by_key(|(letter, ..)| *letter);
        let once = self.sizes.into_iter().filter(|(_, _, count)| *count == 1);
        self.ellipsis.into_iter().chain(once.map(|(_, size, _)| size)).collect()
    }
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
