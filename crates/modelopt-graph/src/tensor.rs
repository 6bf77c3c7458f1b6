//! Tensors as cheap shared byte ranges.

use std::borrow::Cow;

use bytes::Bytes;

use crate::rounded::Rounded;
use crate::{DataType, Origin};

/// An immutable tensor: element type, shape and elements.
///
/// Cloning is cheap: the elements are a reference-counted range, often straight into the
/// mapped model file. They are *not* aligned; typed access through [`Tensor::to_f32`] and its
/// siblings copies only when it must.
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: DataType,
    shape: Vec<usize>,
    payload: Payload,
    origin: Origin,
}

/// The elements of a [`Tensor`].
#[derive(Clone, Debug)]
pub enum Payload {
    /// Little-endian elements in row-major order, sub-byte types packed low half first.
    Dense(Bytes),
    /// The elements of a float32 tensor, rounded to the 16-bit type of this one when needed.
    Rounded(Rounded),
    /// One byte string per element.
    Strings(Vec<Bytes>),
}

/// Why a [`Tensor`] could not be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TensorError {
    /// The payload does not hold as many elements as the shape says.
    #[error("shape {shape:?} of {dtype} needs {needed} bytes, but the payload has {actual}")]
    Length {
        /// Element type.
        dtype: DataType,
        /// Declared shape.
        shape: Vec<usize>,
        /// Bytes that shape and type ask for.
        needed: usize,
        /// Bytes there are.
        actual: usize,
    },
    /// The number of elements or bytes does not fit in memory's address range.
    #[error("shape {0:?} has more elements than can be addressed")]
    TooLarge(Vec<usize>),
    /// A string payload for a numeric type, or the reverse.
    #[error("a tensor of {0} cannot hold this kind of payload")]
    Kind(DataType),
}

/// The product of the dimensions, unless it overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

impl Tensor {
    /// A tensor over `payload`, checked against type and shape.
    ///
    /// Element types this crate does not know are taken as they are.
    pub fn new(dtype: DataType, shape: Vec<usize>, payload: Payload) -> Result<Self, TensorError> {
        let count = element_count(&shape).ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
        match &payload {
            Payload::Strings(strings) if dtype == DataType::STRING => {
                if strings.len() != count {
                    return Err(TensorError::Length {
                        dtype,
                        shape,
                        needed: count,
                        actual: strings.len(),
                    });
                }
            }
            Payload::Rounded(rounded) => {
                let needed = dtype.byte_len(count).unwrap_or(0);
                if needed != rounded.byte_len() {
                    return Err(TensorError::Kind(dtype));
                }
            }
            Payload::Dense(bytes) if dtype != DataType::STRING => {
                if dtype.bits().is_some() {
                    let needed = dtype
                        .byte_len(count)
                        .ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
                    if needed != bytes.len() {
                        return Err(TensorError::Length {
                            dtype,
                            shape,
                            needed,
                            actual: bytes.len(),
                        });
                    }
                }
            }
            _ => return Err(TensorError::Kind(dtype)),
        }
        Ok(Tensor { dtype, shape, payload, origin: Origin::NONE })
    }

    /// A dense tensor over little-endian bytes.
    pub fn dense(
        dtype: DataType,
        shape: Vec<usize>,
        bytes: impl Into<Bytes>,
    ) -> Result<Self, TensorError> {
        Self::new(dtype, shape, Payload::Dense(bytes.into()))
    }

    /// A dense tensor of any plain number type.
    pub fn of<T: Element>(shape: Vec<usize>, elements: &[T]) -> Result<Self, TensorError> {
        if cfg!(target_endian = "little") {
            return Self::dense(T::DTYPE, shape, bytemuck::cast_slice(elements).to_vec());
        }
        let mut bytes = Vec::with_capacity(std::mem::size_of_val(elements));
        for &element in elements {
            element.write(&mut bytes);
        }
        Self::dense(T::DTYPE, shape, bytes)
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(element: T) -> Self {
        let mut bytes = Vec::with_capacity(size_of::<T>());
        element.write(&mut bytes);
        Tensor {
            dtype: T::DTYPE,
            shape: Vec::new(),
            payload: Payload::Dense(bytes.into()),
            origin: Origin::NONE,
        }
    }

    /// The same tensor with a loader's note.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// The same elements in another shape with as many elements; the note of the loader goes.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self, TensorError> {
        Self::new(self.dtype, shape, self.payload.clone())
    }

    /// The elements rounded to float16 or bfloat16 when they are needed; `None` unless these are
    /// float32. Holds on to the elements as they are, and to no others until somebody looks at them.
    pub fn rounded(&self, to: DataType) -> Option<Self> {
        let payload = Payload::Rounded(Rounded::of(self, to)?);
        Some(Tensor { dtype: to, shape: self.shape.clone(), payload, origin: Origin::NONE })
    }

    /// Element type.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The loader's note.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        // Checked when the tensor was made.
        element_count(&self.shape).unwrap_or(0)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the payload in bytes.
    pub fn byte_len(&self) -> usize {
        match &self.payload {
            Payload::Dense(bytes) => bytes.len(),
            Payload::Rounded(rounded) => rounded.byte_len(),
            Payload::Strings(strings) => strings.iter().map(Bytes::len).sum(),
        }
    }

    /// The little-endian payload; `None` for strings.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.payload {
            Payload::Dense(bytes) => Some(bytes),
            Payload::Rounded(rounded) => Some(rounded.bytes()),
            Payload::Strings(_) => None,
        }
    }

    /// The elements as `T`, if they are of that type; borrowed where alignment allows.
    pub fn elements<T: Element>(&self) -> Option<Cow<'_, [T]>> {
        let bytes = self.bytes()?;
        (self.dtype == T::DTYPE).then(|| cast_elements(bytes))
    }

    /// The elements as float32, converted from float16, bfloat16 or float64; `None` for other
    /// types. Values of float64 beyond the range of float32 become infinite.
    pub fn to_f32(&self) -> Option<Cow<'_, [f32]>> {
        match self.dtype {
            DataType::FLOAT => self.elements::<f32>(),
            DataType::FLOAT16 => Some(self.convert(half::f16::to_f32)?.into()),
            DataType::BFLOAT16 => Some(self.convert(half::bf16::to_f32)?.into()),
            DataType::DOUBLE => Some(self.convert(|x: f64| x as f32)?.into()),
            _ => None,
        }
    }

    /// The elements of any integer or boolean type up to 64 bits as `i64`; `None` for other
    /// types, or if an element is above `i64::MAX`.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        match self.dtype {
            DataType::INT64 => Some(self.elements::<i64>()?.into_owned()),
            DataType::INT32 => self.convert(|x: i32| i64::from(x)),
            DataType::INT16 => self.convert(|x: i16| i64::from(x)),
            DataType::INT8 => self.convert(|x: i8| i64::from(x)),
            DataType::UINT8 => self.convert(|x: u8| i64::from(x)),
            DataType::UINT16 => self.convert(|x: u16| i64::from(x)),
            DataType::UINT32 => self.convert(|x: u32| i64::from(x)),
            DataType::UINT64 => {
                self.elements::<u64>()?.iter().map(|&x| i64::try_from(x).ok()).collect()
            }
            DataType::BOOL => Some(self.bytes()?.iter().map(|&x| i64::from(x != 0)).collect()),
            _ => None,
        }
    }

    fn convert<T: Element, U>(&self, f: impl Fn(T) -> U) -> Option<Vec<U>> {
        Some(self.elements::<T>()?.iter().map(|&x| f(x)).collect())
    }
}

/// Same type, shape and elements; notes of the loader do not count.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && match (&self.payload, &other.payload) {
                (Payload::Strings(a), Payload::Strings(b)) => a == b,
                _ => self.bytes() == other.bytes(),
            }
    }
}

/// A plain number that can be an element of a [`Tensor`].
pub trait Element: bytemuck::Pod {
    /// Its element type.
    const DTYPE: DataType;
    /// Appends it in little-endian order.
    fn write(self, out: &mut Vec<u8>);
    /// Reads it from exactly `size_of::<Self>()` little-endian bytes.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),* $(,)?) => {$(
        impl Element for $rust {
            const DTYPE: DataType = DataType::$dtype;
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn read(bytes: &[u8]) -> Self {
                let mut buffer = [0; size_of::<Self>()];
                buffer.copy_from_slice(bytes);
                Self::from_le_bytes(buffer)
            }
        }
    )*};
}

element! {
    f32 => FLOAT, f64 => DOUBLE, half::f16 => FLOAT16, half::bf16 => BFLOAT16,
    i8 => INT8, i16 => INT16, i32 => INT32, i64 => INT64,
    u8 => UINT8, u16 => UINT16, u32 => UINT32, u64 => UINT64,
}

fn cast_elements<T: Element>(bytes: &[u8]) -> Cow<'_, [T]> {
    if cfg!(target_endian = "little")
        && let Ok(elements) = bytemuck::try_cast_slice(bytes)
    {
        return Cow::Borrowed(elements);
    }
    bytes.chunks_exact(size_of::<T>()).map(T::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaligned_payloads_are_read_by_copying() {
        let mut bytes = vec![0u8];
        for x in [1.5f32, -2.0] {
            bytes.extend_from_slice(&x.to_le_bytes());
        }
        let unaligned = Bytes::from(bytes).slice(1..);
        let tensor = Tensor::dense(DataType::FLOAT, vec![2], unaligned).unwrap();
        assert_eq!(&*tensor.to_f32().unwrap(), &[1.5, -2.0]);
        assert!(tensor.elements::<i32>().is_none());
    }

    #[test]
    fn a_payload_that_does_not_fit_the_shape_is_refused() {
        let short = Tensor::dense(DataType::FLOAT, vec![2, 2], vec![0; 15]);
        assert!(matches!(short, Err(TensorError::Length { needed: 16, actual: 15, .. })));
        let huge = Tensor::dense(DataType::FLOAT, vec![usize::MAX, 2], vec![]);
        assert!(matches!(huge, Err(TensorError::TooLarge(_))));
        let strings = Tensor::dense(DataType::STRING, vec![1], vec![0]);
        assert!(matches!(strings, Err(TensorError::Kind(_))));
    }

    #[test]
    fn integers_of_every_width_widen() {
        assert_eq!(Tensor::of(vec![2], &[-1i8, 3]).unwrap().to_i64(), Some(vec![-1, 3]));
        assert_eq!(Tensor::of(vec![1], &[u64::MAX]).unwrap().to_i64(), None);
        assert_eq!(Tensor::scalar(7u16).to_i64(), Some(vec![7]));
    }
}
