//! A node as its family sees it: constant inputs, attributes, and how large a result may be.

use std::sync::Arc;

use modelopt_graph::{AttributeValue, DataType, Node, Tensor, element_count};

/// More dimensions than any model has; keeps work that is quadratic in the rank small.
pub(super) const MAX_RANK: usize = 64;

/// Why a node was not evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFolded {
    /// The operator, its version, an element type or a case of it is outside this module.
    #[error("not supported by constant folding")]
    Unsupported,
    /// The result, or the work for it, is over the limit.
    #[error("the result would be too large")]
    TooLarge,
    /// The inputs or attributes break the operator's rules.
    #[error("invalid: {0}")]
    Invalid(&'static str),
}

/// A result, or why there is none.
pub(super) type Folded<T> = Result<T, NotFolded>;

/// A node with what is needed to evaluate it.
pub(super) struct Call<'a> {
    pub(super) node: &'a Node,
    pub(super) version: i64,
    pub(super) inputs: &'a [Option<Arc<Tensor>>],
    pub(super) max_bytes: usize,
}

impl<'a> Call<'a> {
    pub(super) fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index)?.as_deref()
    }

    pub(super) fn input(&self, index: usize) -> Folded<&'a Tensor> {
        self.optional(index).ok_or(NotFolded::Invalid("a required input is missing"))
    }

    /// A list of integers, such as axes, given as an input of rank 0 or 1.
    pub(super) fn ints_input(&self, index: usize) -> Folded<Option<Vec<i64>>> {
        self.optional(index).map(ints_of).transpose()
    }

    pub(super) fn attribute(&self, name: &str) -> Folded<Option<&'a AttributeValue>> {
        match self.node.attribute(name) {
            Some(AttributeValue::Reference(_) | AttributeValue::Other) => {
                Err(NotFolded::Unsupported)
            }
            value => Ok(value),
        }
    }

    pub(super) fn int(&self, name: &str) -> Folded<Option<i64>> {
        match self.attribute(name)? {
            None => Ok(None),
            Some(AttributeValue::Int(value)) => Ok(Some(*value)),
            Some(_) => Err(NotFolded::Invalid("an attribute is not an integer")),
        }
    }

    /// An integer attribute that says yes or no, from operator version `since` on.
    pub(super) fn flag(&self, name: &str, default: bool, since: i64) -> Folded<bool> {
        if self.version < since {
            return Ok(default);
        }
        Ok(self.int(name)?.map_or(default, |value| value != 0))
    }

    pub(super) fn float(&self, name: &str) -> Folded<Option<f32>> {
        match self.attribute(name)? {
            None => Ok(None),
            Some(AttributeValue::Float(value)) => Ok(Some(*value)),
            Some(_) => Err(NotFolded::Invalid("an attribute is not a float")),
        }
    }

    pub(super) fn ints(&self, name: &str) -> Folded<Option<Vec<i64>>> {
        match self.attribute(name)? {
            None => Ok(None),
            Some(AttributeValue::Ints(values)) => Ok(Some(values.clone())),
            Some(_) => Err(NotFolded::Invalid("an attribute is not a list of integers")),
        }
    }

    /// A list that is an attribute before `version`, and the input at `index` from it on.
    pub(super) fn list(&self, name: &str, index: usize, version: i64) -> Folded<Option<Vec<i64>>> {
        if self.version < version { self.ints(name) } else { self.ints_input(index) }
    }

    /// The place of `axis` among `rank` axes. Negative ones count from the back, which most
    /// operators allow from version 11 on.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Folded<usize> {
        if axis < 0 && self.version < 11 {
            return Err(NotFolded::Unsupported);
        }
        let from_front = if axis < 0 { axis.checked_add_unsigned(rank as u64) } else { Some(axis) };
        from_front
            .and_then(|axis| usize::try_from(axis).ok())
            .filter(|&axis| axis < rank)
            .ok_or(NotFolded::Invalid("an axis or index is out of range"))
    }

    /// The places of `axes` as a mask over `rank` axes; an axis given twice is an error.
    pub(super) fn axes(&self, axes: &[i64], rank: usize) -> Folded<Vec<bool>> {
        let mut mask = vec![false; rank];
        for &axis in axes {
            let place = self.axis(axis, rank)?;
            match mask.get_mut(place) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(NotFolded::Invalid("an axis is given twice")),
            }
        }
        Ok(mask)
    }

    /// The number of elements of a result, if a tensor of it is within the limit.
    pub(super) fn room(&self, dtype: DataType, shape: &[usize]) -> Folded<usize> {
        if shape.len() > MAX_RANK {
            return Err(NotFolded::Unsupported);
        }
        let count = element_count(shape).ok_or(NotFolded::TooLarge)?;
        let bytes = count.checked_mul(width(dtype)?).ok_or(NotFolded::TooLarge)?;
        if bytes > self.max_bytes { Err(NotFolded::TooLarge) } else { Ok(count) }
    }
}

/// Bytes per element; strings and sub-byte types are not supported.
pub(super) fn width(dtype: DataType) -> Folded<usize> {
    match dtype.bits() {
        Some(bits) if bits.is_multiple_of(8) => Ok(bits as usize / 8),
        _ => Err(NotFolded::Unsupported),
    }
}

pub(super) fn bytes(tensor: &Tensor) -> Folded<&[u8]> {
    width(tensor.dtype())?;
    tensor.bytes().map(AsRef::as_ref).ok_or(NotFolded::Unsupported)
}

/// The elements of an int32 or int64 tensor of rank 0 or 1.
fn ints_of(tensor: &Tensor) -> Folded<Vec<i64>> {
    if tensor.shape().len() > 1 || !matches!(tensor.dtype(), DataType::INT32 | DataType::INT64) {
        return Err(NotFolded::Invalid("a list of integers is not an integer tensor of rank 1"));
    }
    tensor.to_i64().ok_or(NotFolded::Unsupported)
}

/// Dimensions, none of them negative.
pub(super) fn dims_of(values: &[i64]) -> Folded<Vec<usize>> {
    values
        .iter()
        .map(|&dim| usize::try_from(dim).map_err(|_| NotFolded::Invalid("a dimension is negative")))
        .collect()
}

pub(super) fn dense(dtype: DataType, shape: Vec<usize>, bytes: Vec<u8>) -> Folded<Tensor> {
    Tensor::dense(dtype, shape, bytes).map_err(|_| NotFolded::Unsupported)
}

/// The shape that all of `shapes` broadcast to, by the rule of numpy.
pub(super) fn broadcast<'s>(shapes: impl IntoIterator<Item = &'s [usize]>) -> Folded<Vec<usize>> {
    let mut result: Vec<usize> = Vec::new();
    for shape in shapes {
        if shape.len() > result.len() {
            let missing = shape.len() - result.len();
            result.splice(0..0, std::iter::repeat_n(1, missing));
        }
        for (have, &dim) in result.iter_mut().rev().zip(shape.iter().rev()) {
            if *have == 1 {
                *have = dim;
            } else if dim != 1 && dim != *have {
                return Err(NotFolded::Invalid("shapes do not broadcast"));
            }
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_as_in_numpy() {
        let of = |shapes: &[&[usize]]| broadcast(shapes.iter().copied());
        assert_eq!(of(&[&[3, 1], &[4]]), Ok(vec![3, 4]));
        assert_eq!(of(&[&[], &[2, 0], &[1]]), Ok(vec![2, 0]));
        assert!(of(&[&[2], &[3]]).is_err());
        assert!(of(&[&[0], &[3]]).is_err());
    }
}
