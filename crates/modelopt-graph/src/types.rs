//! Types and shapes of values.

use std::fmt;

use crate::{DataType, Origin};

/// One dimension of a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A fixed size.
    Fixed(usize),
    /// A named size, equal wherever the name occurs.
    Symbol(String),
    /// Nothing known.
    Unknown,
}

impl Dim {
    /// The size, if fixed.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Dim::Fixed(size) => Some(*size),
            _ => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => write!(f, "{size}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// Dimensions, outermost first.
pub type Shape = Vec<Dim>;

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A dense tensor.
    Tensor {
        /// Element type.
        elem: DataType,
        /// Shape; `None` when not even the rank is known.
        shape: Option<Shape>,
    },
    /// A sparse tensor.
    SparseTensor {
        /// Element type.
        elem: DataType,
        /// Shape of the dense equivalent.
        shape: Option<Shape>,
    },
    /// A list of values of one type.
    Sequence(Box<Type>),
    /// A value or nothing.
    Optional(Box<Type>),
    /// A dictionary.
    Map {
        /// Key type: an integer type or string.
        key: DataType,
        /// Value type.
        value: Box<Type>,
    },
    /// Something else (opaque types of vendors, or nothing at all).
    Other,
}

impl Type {
    /// A tensor type whose shape is not known.
    pub fn tensor(elem: DataType) -> Self {
        Type::Tensor { elem, shape: None }
    }

    /// Element type of a dense tensor.
    pub fn elem(&self) -> Option<DataType> {
        match self {
            Type::Tensor { elem, .. } => Some(*elem),
            _ => None,
        }
    }

    /// Shape of a dense tensor, if its rank is known.
    pub fn shape(&self) -> Option<&Shape> {
        match self {
            Type::Tensor { shape, .. } => shape.as_ref(),
            _ => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn dims(f: &mut fmt::Formatter<'_>, shape: Option<&Shape>) -> fmt::Result {
            let Some(shape) = shape else {
                return f.write_str("[..]");
            };
            f.write_str("[")?;
            for (i, dim) in shape.iter().enumerate() {
                write!(f, "{}{dim}", if i == 0 { "" } else { ", " })?;
            }
            f.write_str("]")
        }
        match self {
            Type::Tensor { elem, shape } => {
                write!(f, "{elem}")?;
                dims(f, shape.as_ref())
            }
            Type::SparseTensor { elem, shape } => {
                write!(f, "sparse {elem}")?;
                dims(f, shape.as_ref())
            }
            Type::Sequence(of) => write!(f, "seq({of})"),
            Type::Optional(of) => write!(f, "optional({of})"),
            Type::Map { key, value } => write!(f, "map({key}, {value})"),
            Type::Other => f.write_str("unknown"),
        }
    }
}

/// A type as a model file declares it, with the loader's note of how it was written.
#[derive(Clone, Debug)]
pub struct DeclaredType {
    /// The type.
    pub ty: Type,
    /// The loader's note.
    pub origin: Origin,
}

impl From<Type> for DeclaredType {
    fn from(ty: Type) -> Self {
        DeclaredType { ty, origin: Origin::NONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_print_as_people_write_them() {
        let ty = Type::Tensor {
            elem: DataType::FLOAT,
            shape: Some(vec![Dim::Symbol("batch".into()), Dim::Fixed(3), Dim::Unknown]),
        };
        assert_eq!(ty.to_string(), "float[batch, 3, ?]");
        assert_eq!(
            Type::Sequence(Type::tensor(DataType::INT64).into()).to_string(),
            "seq(int64[..])"
        );
    }
}
