//! `MatMul`.

use modelopt_graph::{DataType, Tensor, element_count};
use rayon::prelude::*;

use super::call::{Call, Folded, NotFolded, broadcast};
use super::movement::expanded;
use super::number::{Number, numbers};

/// The most products of two elements that one evaluation makes; a few seconds of work.
const MAX_PRODUCTS: usize = 1 << 33;

/// Rows of the result that are computed together.
const ROWS: usize = 16;

/// `MatMul` of float32 or float64, accumulated in float64 in the order of the inner dimension.
pub(super) fn matmul(call: &Call<'_>) -> Folded<Tensor> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    if a.dtype() != b.dtype() {
        return Err(NotFolded::Invalid("the inputs differ in element type"));
    }
    let (a_batch, [rows, depth]) = matrix(a.shape(), |n| [1, n])?;
    let (b_batch, [inner, columns]) = matrix(b.shape(), |n| [n, 1])?;
    if depth != inner {
        return Err(NotFolded::Invalid("the inner dimensions of a product differ"));
    }
    let batch = broadcast([a_batch, b_batch])?;
    let mut shape = batch.clone();
    shape.extend((a.shape().len() > 1).then_some(rows));
    shape.extend((b.shape().len() > 1).then_some(columns));
    let count = call.room(a.dtype(), &shape)?;
    if count.checked_mul(depth).is_none_or(|products| products > MAX_PRODUCTS) {
        return Err(NotFolded::TooLarge);
    }
    let operand = |tensor: &Tensor, own: &[usize], matrix: [usize; 2]| {
        let matrices = tensor.reshaped([own, &matrix].concat());
        let matrices = matrices.map_err(|_| NotFolded::Unsupported)?;
        expanded(call, &matrices, &[&batch, &matrix[..]].concat())
    };
    let operands = [operand(a, a_batch, [rows, depth])?, operand(b, b_batch, [depth, columns])?];
    let size =
        Size { batch: element_count(&batch).ok_or(NotFolded::TooLarge)?, rows, depth, columns };
    match a.dtype() {
        DataType::FLOAT => products::<f32>(&operands, size, shape),
        DataType::DOUBLE => products::<f64>(&operands, size, shape),
        _ => Err(NotFolded::Unsupported),
    }
}

/// Splits a shape into that of the batch and that of one matrix.
fn matrix(shape: &[usize], of_vector: fn(usize) -> [usize; 2]) -> Folded<(&[usize], [usize; 2])> {
    match shape {
        [] => Err(NotFolded::Invalid("a scalar in a matrix product")),
        [n] => Ok((&[], of_vector(*n))),
        [batch @ .., rows, columns] => Ok((batch, [*rows, *columns])),
    }
}

/// A batch of products of `rows × depth` by `depth × columns` matrices.
#[derive(Clone, Copy)]
struct Size {
    batch: usize,
    rows: usize,
    depth: usize,
    columns: usize,
}

fn products<T: Number<Wide = f64> + Send + Sync>(
    [a, b]: &[Tensor; 2],
    size: Size,
    shape: Vec<usize>,
) -> Folded<Tensor> {
    let (a, b) = (numbers::<T>(a)?, numbers::<T>(b)?);
    let count = element_count(&shape).ok_or(NotFolded::TooLarge)?;
    let mut out: Vec<T> = Vec::with_capacity(count);
    for index in 0..if count == 0 { 0 } else { size.batch } {
        let matrix = |len: usize| index * len..(index + 1) * len;
        let a = a.get(matrix(size.rows * size.depth)).unwrap_or_default();
        let b = b.get(matrix(size.depth * size.columns)).unwrap_or_default();
        let blocks: Vec<Vec<T>> = (0..size.rows.div_ceil(ROWS))
            .into_par_iter()
            .map(|block| {
                let first = block * ROWS;
                let a = a.get(first * size.depth..).unwrap_or_default();
                multiplied(a, b, Size { rows: ROWS.min(size.rows - first), ..size })
            })
            .collect();
        out.extend(blocks.into_iter().flatten());
    }
    Tensor::of(shape, &out).map_err(|_| NotFolded::Unsupported)
}

/// The product of the first rows of `a` and all of `b`; `size.rows` says how many.
fn multiplied<T: Number<Wide = f64>>(a: &[T], b: &[T], size: Size) -> Vec<T> {
    let mut sums = vec![0f64; size.rows * size.columns];
    let mut wide = vec![0f64; size.columns];
    for (inner, b_row) in b.chunks_exact(size.columns).enumerate() {
        wide.iter_mut().zip(b_row).for_each(|(wide, x)| *wide = x.wide());
        for (row, sums) in sums.chunks_exact_mut(size.columns).enumerate() {
            let factor = a.get(row * size.depth + inner).map_or(0.0, |x| x.wide());
            sums.iter_mut().zip(&wide).for_each(|(sum, x)| *sum += factor * x);
        }
    }
    sums.into_iter().filter_map(T::narrow).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, counting, floats};
    use super::*;

    fn of(a: Tensor, b: Tensor) -> Folded<Tensor> {
        Case::new("MatMul").input(a).input(b).limit(1 << 20).one(13)
    }

    #[test]
    fn matrices_and_vectors() {
        let (a, b) = (counting(&[2, 3]), counting(&[3, 2]));
        assert_eq!(of(a.clone(), b.clone()), Ok(floats(&[2, 2], &[10.0, 13.0, 28.0, 40.0])));
        assert_eq!(of(a.clone(), counting(&[3])), Ok(floats(&[2], &[5.0, 14.0])));
        assert_eq!(of(counting(&[3]), b), Ok(floats(&[2], &[10.0, 13.0])));
        assert_eq!(of(counting(&[3]), counting(&[3])), Ok(Tensor::scalar(5f32)));
        assert!(of(a.clone(), a.clone()).is_err());
        assert!(of(a, Tensor::scalar(1f32)).is_err());
    }

    #[test]
    fn batches_broadcast() {
        let product = of(counting(&[2, 1, 1, 2]), counting(&[3, 2, 1])).unwrap();
        assert_eq!(product, floats(&[2, 3, 1, 1], &[1.0, 3.0, 5.0, 3.0, 13.0, 23.0]));
    }

    #[test]
    fn more_rows_than_one_block() {
        let a = counting(&[ROWS * 2 + 3, 2]);
        let product = of(a.clone(), floats(&[2, 2], &[0.0, 1.0, 1.0, 0.0])).unwrap();
        let swapped: Vec<f32> =
            a.to_f32().unwrap().chunks(2).flat_map(|row| [row[1], row[0]]).collect();
        assert_eq!(product, floats(&[ROWS * 2 + 3, 2], &swapped));
    }

    #[test]
    fn an_empty_inner_dimension_gives_zeros() {
        assert_eq!(
            of(floats(&[2, 0], &[]), floats(&[0, 1], &[])),
            Ok(floats(&[2, 1], &[0.0, 0.0]))
        );
        assert_eq!(of(floats(&[1 << 40, 0], &[]), floats(&[0, 0], &[])).unwrap().len(), 0);
        let wide = of(floats(&[1 << 40, 0], &[]), floats(&[0, 1 << 10], &[]));
        assert_eq!(wide, Err(NotFolded::TooLarge));
    }
}
