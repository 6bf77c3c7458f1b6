//! Rows of requests: what is put together into a batch, and taken apart again.
//!
//! A row is one index of the first dimension, which all inputs of a request share.

use bytes::Bytes;
use indexmap::IndexMap;
use modelopt_graph::{Payload, Tensor};

/// Tensors by name.
pub(crate) type Tensors = IndexMap<String, Tensor>;

/// How many rows these inputs have; none where they cannot share a batch.
pub(crate) fn rows_of(tensors: &Tensors) -> Option<usize> {
    let (_, first) = tensors.first()?;
    let rows = first.shape().first().copied().filter(|&rows| rows > 0)?;
    tensors.values().all(|tensor| has_rows(tensor, rows)).then_some(rows)
}

/// Whether a tensor has so many rows, each of whole bytes.
fn has_rows(tensor: &Tensor, rows: usize) -> bool {
    let whole = match tensor.payload() {
        Payload::Strings(_) => true,
        _ => tensor.dtype().bits().is_some_and(|bits| bits.is_multiple_of(8)),
    };
    whole && tensor.shape().first() == Some(&rows)
}

/// Whether rows of two requests can lie in one batch: the same names, types and other dimensions.
pub(crate) fn alike(a: &Tensors, b: &Tensors) -> bool {
    let fits = |(name, tensor): (&String, &Tensor)| {
        b.get(name).is_some_and(|other| {
            tensor.dtype() == other.dtype() && tensor.shape().get(1..) == other.shape().get(1..)
        })
    };
    a.len() == b.len() && a.iter().all(fits)
}

/// The rows of several requests that are [`alike`], behind each other.
pub(crate) fn stack(parts: &[&Tensors]) -> Option<Tensors> {
    let first = parts.first()?;
    let stacked = first.keys().map(|name| {
        let tensors: Option<Vec<&Tensor>> = parts.iter().map(|part| part.get(name)).collect();
        Some((name.clone(), stacked(&tensors?)?))
    });
    stacked.collect()
}

fn stacked(parts: &[&Tensor]) -> Option<Tensor> {
    let first = parts.first()?;
    let rows = parts.iter().try_fold(0, |sum, part| Some(sum + part.shape().first()?))?;
    let mut shape = first.shape().to_vec();
    *shape.first_mut()? = rows;
    let payload = if let Payload::Strings(_) = first.payload() {
        let mut strings = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            let Payload::Strings(part) = part.payload() else { return None };
            strings.extend_from_slice(part);
        }
        Payload::Strings(strings)
    } else {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.byte_len()).sum());
        for part in parts {
            bytes.extend_from_slice(part.bytes()?);
        }
        Payload::Dense(Bytes::from(bytes))
    };
    Tensor::new(first.dtype(), shape, payload).ok()
}

/// Outputs of a batch for each of its requests, which have so many rows; none where an output does not
/// have one row for each row of the batch. Nothing is copied.
pub(crate) fn split(outputs: &Tensors, counts: &[usize]) -> Option<Vec<Tensors>> {
    let rows: usize = counts.iter().sum();
    if !outputs.values().all(|tensor| has_rows(tensor, rows)) {
        return None;
    }
    let mut parts: Vec<Tensors> =
        counts.iter().map(|_| Tensors::with_capacity(outputs.len())).collect();
    for (name, tensor) in outputs {
        let mut start = 0;
        for (part, &count) in parts.iter_mut().zip(counts) {
            part.insert(name.clone(), part_of(tensor, rows, start, count)?);
            start += count;
        }
    }
    Some(parts)
}

/// Some rows of a tensor that has so many.
fn part_of(tensor: &Tensor, rows: usize, start: usize, count: usize) -> Option<Tensor> {
    let mut shape = tensor.shape().to_vec();
    *shape.first_mut()? = count;
    let range = |whole: usize| {
        let width = whole / rows;
        start * width..(start + count) * width
    };
    let payload = if let Payload::Strings(strings) = tensor.payload() {
        Payload::Strings(strings.get(range(strings.len()))?.to_vec())
    } else {
        let bytes = tensor.bytes()?;
        Payload::Dense(bytes.slice(range(bytes.len())))
    };
    Tensor::new(tensor.dtype(), shape, payload).ok()
}

#[cfg(test)]
mod tests {
    use modelopt_graph::DataType;

    use super::*;

    fn floats(shape: &[usize], start: f32) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|at| start + at as f32).collect();
        Tensor::of(shape.to_vec(), &values).unwrap()
    }

    fn strings(texts: &[&'static str]) -> Tensor {
        let texts: Vec<Bytes> = texts.iter().map(|text| Bytes::from(*text)).collect();
        Tensor::new(DataType::STRING, vec![texts.len(), 1], Payload::Strings(texts)).unwrap()
    }

    fn tensors(entries: &[(&str, Tensor)]) -> Tensors {
        entries.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect()
    }

    #[test]
    fn rows_are_counted_only_where_all_inputs_have_as_many() {
        let x = floats(&[3, 2], 0.0);
        assert_eq!(
            rows_of(&tensors(&[("x", x.clone()), ("t", strings(&["a", "b", "c"]))])),
            Some(3)
        );
        assert_eq!(rows_of(&tensors(&[("x", x.clone()), ("y", floats(&[2, 2], 0.0))])), None);
        assert_eq!(rows_of(&tensors(&[("x", x), ("s", Tensor::scalar(1f32))])), None);
        assert_eq!(rows_of(&tensors(&[("x", floats(&[0, 2], 0.0))])), None);
        assert_eq!(rows_of(&Tensors::new()), None);
        // Two to a byte: a row would begin in the middle of one.
        let packed = Tensor::dense(DataType::UINT4, vec![2, 1], vec![0x21]).unwrap();
        assert_eq!(rows_of(&tensors(&[("x", packed)])), None);
    }

    #[test]
    fn only_what_is_alike_shares_a_batch() {
        let a = tensors(&[("x", floats(&[3, 2], 0.0)), ("t", strings(&["a", "b", "c"]))]);
        let other_order = tensors(&[("t", strings(&["d"])), ("x", floats(&[1, 2], 0.0))]);
        assert!(alike(&a, &other_order));
        assert!(!alike(&a, &tensors(&[("x", floats(&[3, 2], 0.0))])));
        let wide = tensors(&[("x", floats(&[3, 3], 0.0)), ("t", strings(&["a", "b", "c"]))]);
        assert!(!alike(&a, &wide));
        let whole = Tensor::of(vec![3, 2], &[0i32; 6]).unwrap();
        assert!(!alike(&a, &tensors(&[("x", whole), ("t", strings(&["a", "b", "c"]))])));
        let renamed = tensors(&[("y", floats(&[3, 2], 0.0)), ("t", strings(&["a", "b", "c"]))]);
        assert!(!alike(&a, &renamed));
    }

    #[test]
    fn what_is_put_together_comes_apart_again() {
        let parts = [
            tensors(&[("x", floats(&[2, 3], 0.0)), ("t", strings(&["a", "b"]))]),
            tensors(&[("t", strings(&["c"])), ("x", floats(&[1, 3], 10.0))]),
            tensors(&[("x", floats(&[3, 3], 20.0)), ("t", strings(&["d", "e", "f"]))]),
        ];
        let whole = stack(&parts.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((whole["x"].shape(), whole["t"].shape()), (&[6, 3][..], &[6, 1][..]));
        assert_eq!(whole["x"].to_f32().unwrap()[6..9], [10.0, 11.0, 12.0]);
        let apart = split(&whole, &[2, 1, 3]).unwrap();
        assert_eq!(apart.len(), 3);
        assert!(apart.iter().zip(&parts).all(|(a, b)| a == b));
    }

    #[test]
    fn outputs_without_a_row_for_each_are_not_taken_apart() {
        assert!(split(&tensors(&[("y", floats(&[2, 3], 0.0))]), &[1, 1]).is_some());
        assert!(split(&tensors(&[("y", floats(&[3, 3], 0.0))]), &[1, 1]).is_none());
        assert!(split(&tensors(&[("y", Tensor::scalar(0f32))]), &[1, 1]).is_none());
        let one = tensors(&[("y", floats(&[2, 3], 0.0)), ("loss", floats(&[1], 0.0))]);
        assert!(split(&one, &[1, 1]).is_none());
        // Rows without elements are rows, too.
        let empty = split(&tensors(&[("y", floats(&[2, 0], 0.0))]), &[1, 1]).unwrap();
        assert_eq!(empty[1]["y"].shape(), [1, 0]);
    }
}
