//! Tensors to and from ONNX Runtime's.

use std::borrow::Cow;

use bytes::Bytes;
use half::{bf16, f16};
use modelopt_graph::{DataType, Element, Payload, Tensor, TensorError, Type};
use ort::session::SessionInputValue;
use ort::value::{
    DynValue, DynValueTypeMarker, IntoTensorElementType, PrimitiveTensorElementType,
    Tensor as OrtTensor, TensorElementType, TensorRef, ValueType,
};

use super::NAME;
use crate::RuntimeError;
use crate::outputs::Returned;

/// The tensor as a value of ONNX Runtime: a view where its elements are aligned, else a copy.
pub(super) fn to_ort<'a>(
    name: &str,
    tensor: &'a Tensor,
) -> Result<SessionInputValue<'a>, RuntimeError> {
    let shape: Vec<i64> = tensor.shape().iter().map(|&dim| dim as i64).collect();
    macro_rules! plain {
        ($($dtype:ident => $rust:ty),*) => {
            match tensor.dtype() {
                DataType::BOOL => {
                    let bytes = tensor.bytes().map_or(&[][..], |bytes| bytes);
                    let flags: Vec<bool> = bytes.iter().map(|&byte| byte != 0).collect();
                    OrtTensor::from_array((shape, flags)).map(SessionInputValue::from)
                }
                DataType::STRING => {
                    let Payload::Strings(strings) = tensor.payload() else {
                        return Err(unsupported(name, "strings without strings"));
                    };
                    let strings: Vec<String> = strings
                        .iter()
                        .map(|string| String::from_utf8_lossy(string).into_owned())
                        .collect();
                    OrtTensor::from_string_array((shape, strings.as_slice()))
                        .map(SessionInputValue::from)
                }
                $(DataType::$dtype => match tensor.elements::<$rust>().unwrap_or_default() {
                    Cow::Borrowed(elements) => {
                        TensorRef::from_array_view((shape, elements)).map(SessionInputValue::from)
                    }
                    Cow::Owned(elements) => {
                        OrtTensor::from_array((shape, elements)).map(SessionInputValue::from)
                    }
                },)*
                other => return Err(unsupported(name, other)),
            }
        };
    }
    plain!(
        UINT8 => u8, UINT16 => u16, UINT32 => u32, UINT64 => u64,
        INT8 => i8, INT16 => i16, INT32 => i32, INT64 => i64,
        FLOAT16 => f16, BFLOAT16 => bf16, FLOAT => f32, DOUBLE => f64
    )
    .map_err(|error| unsupported(name, error))
}

/// Whether values of a declared type can be copied. Where the model declares none, they are tried.
pub(super) fn returns(ty: &Type) -> bool {
    match ty {
        Type::Tensor { elem, .. } => is_known(*elem),
        Type::Sequence(of) => matches!(**of, Type::Tensor { .. } | Type::Map { .. }) && returns(of),
        Type::Optional(of) => {
            matches!(**of, Type::Tensor { .. } | Type::Sequence(_)) && returns(of)
        }
        Type::Map { key, value } => {
            let key = matches!(*key, DataType::INT64 | DataType::STRING);
            let values = [DataType::FLOAT, DataType::DOUBLE, DataType::INT64];
            key && value.elem().is_some_and(|value| values.contains(&value))
        }
        Type::SparseTensor { .. } => false,
        Type::Other => true,
    }
}

fn is_known(elem: DataType) -> bool {
    let others = [DataType::BOOL, DataType::STRING];
    let numbers = [
        DataType::UINT8,
        DataType::UINT16,
        DataType::UINT32,
        DataType::UINT64,
        DataType::INT8,
        DataType::INT16,
        DataType::INT32,
        DataType::INT64,
    ];
    elem.is_float() || others.contains(&elem) || numbers.contains(&elem)
}

/// A copy of a value of ONNX Runtime, which the model declares to be of a type.
pub(super) fn from_ort(
    name: &str,
    value: &DynValue,
    declared: &Type,
) -> Result<Returned, RuntimeError> {
    match value.dtype() {
        ValueType::Sequence(_) => {
            let values = value.try_extract_sequence::<DynValueTypeMarker>();
            let values = values.map_err(|error| unsupported(name, error))?;
            let of = match declared {
                Type::Sequence(of) => of,
                _ => &Type::Other,
            };
            let copies = values.iter().map(|value| from_ort(name, value, of));
            Ok(Returned::Sequence(copies.collect::<Result<_, _>>()?))
        }
        ValueType::Map { key, value: of } => match (key, of) {
            (TensorElementType::Int64, TensorElementType::Float32) => map::<i64, f32>(name, value),
            (TensorElementType::Int64, TensorElementType::Float64) => map::<i64, f64>(name, value),
            (TensorElementType::Int64, TensorElementType::Int64) => map::<i64, i64>(name, value),
            (TensorElementType::String, TensorElementType::Float32) => {
                map::<String, f32>(name, value)
            }
            (TensorElementType::String, TensorElementType::Float64) => {
                map::<String, f64>(name, value)
            }
            (TensorElementType::String, TensorElementType::Int64) => {
                map::<String, i64>(name, value)
            }
            _ => Err(unsupported(name, value.dtype())),
        },
        _ => Ok(Returned::Tensor(tensor(name, value)?)),
    }
}

/// Whether the one element of a boolean tensor is true.
pub(super) fn is_true(name: &str, value: &DynValue) -> Result<bool, RuntimeError> {
    let (_, flags) = extract::<bool>(name, value)?;
    Ok(flags.first().copied().unwrap_or_default())
}

/// What keys are.
trait Key: Sized {
    fn list(keys: Vec<Self>) -> Result<Tensor, TensorError>;
}

impl Key for i64 {
    fn list(keys: Vec<Self>) -> Result<Tensor, TensorError> {
        Tensor::of(vec![keys.len()], &keys)
    }
}

impl Key for String {
    fn list(keys: Vec<Self>) -> Result<Tensor, TensorError> {
        let keys: Vec<Bytes> = keys.into_iter().map(Bytes::from).collect();
        Tensor::new(DataType::STRING, vec![keys.len()], Payload::Strings(keys))
    }
}

fn map<K, V>(name: &str, value: &DynValue) -> Result<Returned, RuntimeError>
where
    K: Key + IntoTensorElementType + Clone + std::hash::Hash + Eq,
    V: Element + PrimitiveTensorElementType,
{
    let pairs = value.try_extract_key_values::<K, V>();
    let (keys, values): (Vec<K>, Vec<V>) =
        pairs.map_err(|error| unsupported(name, error))?.into_iter().unzip();
    let keys = K::list(keys).map_err(|error| unsupported(name, error))?;
    let values =
        Tensor::of(vec![values.len()], &values).map_err(|error| unsupported(name, error))?;
    Ok(Returned::Map { keys, values })
}

/// A copy of a tensor of ONNX Runtime.
fn tensor(name: &str, value: &DynValue) -> Result<Tensor, RuntimeError> {
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(unsupported(name, format!("an output that is no tensor, {}", value.dtype())));
    };
    macro_rules! plain {
        ($($theirs:ident => $rust:ty),*) => {
            match ty {
                TensorElementType::Bool => {
                    let (shape, flags) = extract::<bool>(name, value)?;
                    let bytes: Vec<u8> = flags.iter().map(|&flag| u8::from(flag)).collect();
                    Tensor::dense(DataType::BOOL, shape, bytes)
                }
                TensorElementType::String => {
                    let (shape, strings) = value
                        .try_extract_strings()
                        .map_err(|error| unsupported(name, error))?;
                    let shape = shape.iter().map(|&dim| dim as usize).collect();
                    let strings = strings.into_iter().map(Bytes::from).collect();
                    Tensor::new(DataType::STRING, shape, Payload::Strings(strings))
                }
                $(TensorElementType::$theirs => {
                    let (shape, elements) = extract::<$rust>(name, value)?;
                    Tensor::of(shape, elements)
                })*
                other => return Err(unsupported(name, other)),
            }
        };
    }
    plain!(
        Uint8 => u8, Uint16 => u16, Uint32 => u32, Uint64 => u64,
        Int8 => i8, Int16 => i16, Int32 => i32, Int64 => i64,
        Float16 => f16, Bfloat16 => bf16, Float32 => f32, Float64 => f64
    )
    .map_err(|error| unsupported(name, error))
}

fn extract<'a, T: PrimitiveTensorElementType>(
    name: &str,
    value: &'a DynValue,
) -> Result<(Vec<usize>, &'a [T]), RuntimeError> {
    let (shape, elements) =
        value.try_extract_tensor::<T>().map_err(|error| unsupported(name, error))?;
    Ok((shape.iter().map(|&dim| dim as usize).collect(), elements))
}

fn unsupported(name: &str, what: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Unsupported { runtime: NAME, what: format!("{what} in '{name}'") }
}
