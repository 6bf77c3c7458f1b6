//! Tensors to and from ONNX Runtime's.

use std::borrow::Cow;

use bytes::Bytes;
use half::{bf16, f16};
use modelopt_graph::{DataType, Payload, Tensor};
use ort::session::SessionInputValue;
use ort::value::{DynValue, Tensor as OrtTensor, TensorElementType, TensorRef};

use super::NAME;
use crate::RuntimeError;

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

/// A copy of a value of ONNX Runtime.
pub(super) fn from_ort(name: &str, value: &DynValue) -> Result<Tensor, RuntimeError> {
    let ort::value::ValueType::Tensor { ty, .. } = value.dtype() else {
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

fn extract<'a, T: ort::value::PrimitiveTensorElementType>(
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
