//! Element types, numbered as in `TensorProto.DataType`.

use std::fmt;

/// The element type of a tensor: the numbers of ONNX's `TensorProto.DataType`.
///
/// A newtype rather than an enum, because a model written by a newer exporter may carry a
/// number this crate has no name for, and such a model must still survive load and save.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataType(i32);

/// `(number, ONNX type-string name, bits per element)`; strings have no fixed width.
const TABLE: &[(i32, &str, Option<u32>)] = &[
    (1, "float", Some(32)),
    (2, "uint8", Some(8)),
    (3, "int8", Some(8)),
    (4, "uint16", Some(16)),
    (5, "int16", Some(16)),
    (6, "int32", Some(32)),
    (7, "int64", Some(64)),
    (8, "string", None),
    (9, "bool", Some(8)),
    (10, "float16", Some(16)),
    (11, "double", Some(64)),
    (12, "uint32", Some(32)),
    (13, "uint64", Some(64)),
    (14, "complex64", Some(64)),
    (15, "complex128", Some(128)),
    (16, "bfloat16", Some(16)),
    (17, "float8e4m3fn", Some(8)),
    (18, "float8e4m3fnuz", Some(8)),
    (19, "float8e5m2", Some(8)),
    (20, "float8e5m2fnuz", Some(8)),
    (21, "uint4", Some(4)),
    (22, "int4", Some(4)),
    (23, "float4e2m1", Some(4)),
    (24, "float8e8m0", Some(8)),
    (25, "uint2", Some(2)),
    (26, "int2", Some(2)),
    (27, "float6e2m3", Some(6)),
    (28, "float6e3m2", Some(6)),
];

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl DataType {
            $($(#[$doc])* pub const $name: DataType = DataType($number);)*
        }
    };
}

named! {
    /// No type given.
    UNDEFINED = 0;
    /// IEEE 754 binary32.
    FLOAT = 1;
    /// Unsigned 8-bit integer.
    UINT8 = 2;
    /// Signed 8-bit integer.
    INT8 = 3;
    /// Unsigned 16-bit integer.
    UINT16 = 4;
    /// Signed 16-bit integer.
    INT16 = 5;
    /// Signed 32-bit integer.
    INT32 = 6;
    /// Signed 64-bit integer.
    INT64 = 7;
    /// Byte strings, UTF-8 by convention.
    STRING = 8;
    /// Boolean, one byte an element.
    BOOL = 9;
    /// IEEE 754 binary16.
    FLOAT16 = 10;
    /// IEEE 754 binary64.
    DOUBLE = 11;
    /// Unsigned 32-bit integer.
    UINT32 = 12;
    /// Unsigned 64-bit integer.
    UINT64 = 13;
    /// Two binary32: real, imaginary.
    COMPLEX64 = 14;
    /// Two binary64: real, imaginary.
    COMPLEX128 = 15;
    /// The upper half of a binary32.
    BFLOAT16 = 16;
    /// Unsigned 4-bit integer, two to a byte.
    UINT4 = 21;
    /// Signed 4-bit integer, two to a byte.
    INT4 = 22;
}

impl DataType {
    /// The type with this `TensorProto.DataType` number, known or not.
    pub const fn from_number(number: i32) -> Self {
        DataType(number)
    }

    /// The `TensorProto.DataType` number.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The type of an ONNX type string's element, such as `float16` in `tensor(float16)`.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| DataType(row.0))
    }

    /// ONNX's name for it; `None` for numbers newer than this crate.
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|row| row.1)
    }

    /// Bits per element; `None` for strings and unknown types. Types of six bits are packed
    /// across bytes, four elements to three; those of two and four are not.
    pub fn bits(self) -> Option<u32> {
        self.row().and_then(|row| row.2)
    }

    /// The bytes that `elements` of this type take, sub-byte types packed; `None` for
    /// strings, unknown types, or on overflow.
    pub fn byte_len(self, elements: usize) -> Option<usize> {
        let bits = self.bits()? as usize;
        // Eight elements take as many bytes as one takes bits; all bits may be too many to count.
        (elements / 8).checked_mul(bits)?.checked_add((elements % 8 * bits).div_ceil(8))
    }

    /// Whether this is one of float16, bfloat16, float32, float64.
    pub fn is_float(self) -> bool {
        matches!(self, Self::FLOAT | Self::FLOAT16 | Self::BFLOAT16 | Self::DOUBLE)
    }

    fn row(self) -> Option<&'static (i32, &'static str, Option<u32>)> {
        TABLE.iter().find(|row| row.0 == self.0)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}

impl fmt::Debug for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for &(number, name, _) in TABLE {
            assert_eq!(DataType::from_name(name), Some(DataType(number)));
            assert_eq!(DataType(number).to_string(), name);
        }
        assert_eq!(DataType::from_number(999).to_string(), "type 999");
    }

    #[test]
    fn sub_byte_types_are_packed() {
        assert_eq!(DataType::INT4.byte_len(3), Some(2));
        assert_eq!(DataType::from_number(26).byte_len(5), Some(2));
        assert_eq!(
            [1, 3, 4, 5, 8].map(|n| DataType::from_number(27).byte_len(n)),
            [1, 3, 3, 4, 6].map(Some)
        );
        assert_eq!(DataType::DOUBLE.byte_len(usize::MAX), None);
        assert_eq!(DataType::STRING.byte_len(1), None);
    }
}
