//! Types of which only a part is known: cut to what is cheap, joined, and completed.

use std::borrow::Cow;

use super::dims::{self, MAX_RANK};
use crate::model::Constant;
use crate::{Dim, Tensor, Type};

/// Longer symbols are treated as unknown sizes, so that types stay cheap to pass on.
const MAX_SYMBOL: usize = 256;
/// Names that exporters give to any size they do not know, so that equal names do not mean
/// equal sizes.
const NO_NAMES: [&str; 4] = ["", "?", "-1", "None"];
/// How deep sequences and optionals may nest before their type counts as unknown.
const MAX_WRAPS: usize = 8;

/// The type that a constant has.
pub(super) fn constant_type(constant: &Constant) -> Type {
    match constant {
        Constant::Dense(tensor) => tensor_type(tensor),
        Constant::Sparse(tensor) => Type::SparseTensor {
            elem: tensor.values.dtype(),
            shape: Some(tensor.shape.iter().map(|&size| Dim::Fixed(size)).collect()),
        },
    }
}

fn tensor_type(tensor: &Tensor) -> Type {
    Type::Tensor {
        elem: tensor.dtype(),
        shape: Some(tensor.shape().iter().map(|&size| Dim::Fixed(size)).collect()),
    }
}

fn is_unusable(dim: &Dim) -> bool {
    match dim {
        Dim::Symbol(name) => name.len() > MAX_SYMBOL || NO_NAMES.contains(&name.as_str()),
        _ => false,
    }
}

/// A type without symbols that mean nothing and parts that would be expensive to pass on.
pub(super) fn tame(ty: Cow<'_, Type>) -> Option<Cow<'_, Type>> {
    fn cheap(ty: &Type, wraps: usize) -> Option<bool> {
        match ty {
            Type::Tensor { shape, .. } | Type::SparseTensor { shape, .. } => Some(
                shape
                    .as_ref()
                    .is_none_or(|shape| shape.len() <= MAX_RANK && !shape.iter().any(is_unusable)),
            ),
            Type::Sequence(inner) | Type::Optional(inner) | Type::Map { value: inner, .. } => {
                if wraps == MAX_WRAPS {
                    None
                } else {
                    cheap(inner, wraps + 1)
                }
            }
            Type::Other => Some(true),
        }
    }
    fn cut(ty: &mut Type) {
        match ty {
            Type::Tensor { shape, .. } | Type::SparseTensor { shape, .. } => {
                if shape.as_ref().is_some_and(|shape| shape.len() > MAX_RANK) {
                    *shape = None;
                }
                for dim in shape.iter_mut().flatten() {
                    if is_unusable(dim) {
                        *dim = Dim::Unknown;
                    }
                }
            }
            Type::Sequence(inner) | Type::Optional(inner) | Type::Map { value: inner, .. } => {
                cut(inner);
            }
            Type::Other => {}
        }
    }
    if cheap(&ty, 0)? {
        return Some(ty);
    }
    let mut ty = ty.into_owned();
    cut(&mut ty);
    Some(Cow::Owned(ty))
}

/// What holds of a value that has one of two types: the parts in which they agree.
pub(super) fn join(a: &Type, b: &Type) -> Option<Type> {
    fn shapes(a: Option<&Vec<Dim>>, b: Option<&Vec<Dim>>) -> Option<Vec<Dim>> {
        let (a, b) = (a?, b?);
        (a.len() == b.len()).then(|| a.iter().zip(b).map(|(a, b)| dims::join(a, b)).collect())
    }
    let (a, b) = match (a, b) {
        (Type::Tensor { elem, shape }, Type::Tensor { elem: other, shape: with }) => {
            let shape = shapes(shape.as_ref(), with.as_ref());
            return (elem == other).then_some(Type::Tensor { elem: *elem, shape });
        }
        (Type::SparseTensor { elem, shape }, Type::SparseTensor { elem: other, shape: with }) => {
            let shape = shapes(shape.as_ref(), with.as_ref());
            return (elem == other).then_some(Type::SparseTensor { elem: *elem, shape });
        }
        (Type::Sequence(a), Type::Sequence(b)) => {
            return Some(Type::Sequence(join(a, b)?.into()));
        }
        (Type::Optional(a), Type::Optional(b)) => {
            return Some(Type::Optional(join(a, b)?.into()));
        }
        other => other,
    };
    (a == b).then(|| a.clone())
}

/// The same type with no shapes known.
pub(super) fn without_shape(ty: &Type) -> Type {
    match ty {
        Type::Tensor { elem, .. } => Type::tensor(*elem),
        Type::SparseTensor { elem, .. } => Type::SparseTensor { elem: *elem, shape: None },
        Type::Sequence(inner) => Type::Sequence(without_shape(inner).into()),
        Type::Optional(inner) => Type::Optional(without_shape(inner).into()),
        Type::Map { key, value } => Type::Map { key: *key, value: without_shape(value).into() },
        Type::Other => Type::Other,
    }
}

pub(super) fn join_known(a: Option<&Type>, b: Option<&Type>) -> Option<Type> {
    join(a?, b?)
}

/// What was derived, completed by what is declared where nothing was derived.
pub(super) fn complete(found: Option<Type>, declared: Option<&Type>) -> Option<Type> {
    match (found, declared) {
        (None, declared) => {
            tame(Cow::Borrowed(declared?)).map(Cow::into_owned).filter(|ty| *ty != Type::Other)
        }
        (Some(Type::Tensor { elem, shape: None }), Some(Type::Tensor { elem: same, shape }))
            if elem == *same =>
        {
            tame(Cow::Owned(Type::Tensor { elem, shape: shape.clone() })).map(Cow::into_owned)
        }
        (found, _) => found,
    }
}
