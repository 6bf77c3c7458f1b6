//! Tensors to and from tract's.

use bytes::Bytes;
use half::f16;
use modelopt_graph::{DataType, Payload, Tensor};
use tract_onnx::prelude as tract;
use tract_onnx::prelude::DatumType;

use super::NAME;
use crate::RuntimeError;

/// tract's name for an element type.
pub(super) fn datum_type(name: &str, dtype: DataType) -> Result<DatumType, RuntimeError> {
    Ok(match dtype {
        DataType::BOOL => DatumType::Bool,
        DataType::UINT8 => DatumType::U8,
        DataType::UINT16 => DatumType::U16,
        DataType::UINT32 => DatumType::U32,
        DataType::UINT64 => DatumType::U64,
        DataType::INT8 => DatumType::I8,
        DataType::INT16 => DatumType::I16,
        DataType::INT32 => DatumType::I32,
        DataType::INT64 => DatumType::I64,
        DataType::FLOAT16 => DatumType::F16,
        DataType::FLOAT => DatumType::F32,
        DataType::DOUBLE => DatumType::F64,
        DataType::STRING => DatumType::String,
        other => return Err(unsupported(name, other)),
    })
}

/// A copy as a tensor of tract.
pub(super) fn to_tract(name: &str, tensor: &Tensor) -> Result<tract::Tensor, RuntimeError> {
    let shape = tensor.shape();
    macro_rules! plain {
        ($($dtype:ident => $rust:ty),*) => {
            match tensor.dtype() {
                DataType::BOOL => {
                    let bytes = tensor.bytes().map_or(&[][..], |bytes| bytes);
                    let flags: Vec<bool> = bytes.iter().map(|&byte| byte != 0).collect();
                    tract::Tensor::from_shape(shape, &flags)
                }
                DataType::STRING => {
                    return strings_to_tract(tensor).ok_or_else(|| unsupported(name, "this"))?;
                }
                $(DataType::$dtype => {
                    let elements = tensor.elements::<$rust>().unwrap_or_default();
                    tract::Tensor::from_shape(shape, &elements)
                })*
                other => return Err(unsupported(name, other)),
            }
        };
    }
    plain!(
        UINT8 => u8, UINT16 => u16, UINT32 => u32, UINT64 => u64,
        INT8 => i8, INT16 => i16, INT32 => i32, INT64 => i64,
        FLOAT16 => f16, FLOAT => f32, DOUBLE => f64
    )
    .map_err(|error| unsupported(name, format!("{error:#}")))
}

fn strings_to_tract(tensor: &Tensor) -> Option<Result<tract::Tensor, RuntimeError>> {
    let Payload::Strings(strings) = tensor.payload() else { return None };
    let strings: Vec<String> =
        strings.iter().map(|string| String::from_utf8_lossy(string).into_owned()).collect();
    let flat = tract::tensor1(&strings);
    Some(flat.into_shape(tensor.shape()).map_err(|error| unsupported("strings", error)))
}

/// A copy of a tensor of tract. Symbolic integers, which tract uses for shapes, become int64.
pub(super) fn from_tract(name: &str, tensor: &tract::Tensor) -> Result<Tensor, RuntimeError> {
    let failed = |error: &dyn std::fmt::Display| unsupported(name, format!("{error:#}"));
    let cast = match tensor.datum_type() {
        DatumType::TDim => tensor.cast_to::<i64>().map_err(|error| failed(&error))?,
        _ => std::borrow::Cow::Borrowed(tensor),
    };
    let view = cast.try_as_plain_ram().map_err(|error| failed(&error))?;
    let shape = cast.shape().to_vec();
    macro_rules! plain {
        ($($datum:ident => $rust:ty),*) => {
            match cast.datum_type().unquantized() {
                DatumType::Bool => {
                    let flags = view.as_slice::<bool>().map_err(|error| failed(&error))?;
                    let bytes: Vec<u8> = flags.iter().map(|&flag| u8::from(flag)).collect();
                    Tensor::dense(DataType::BOOL, shape, bytes)
                }
                DatumType::String => {
                    let strings = view.as_slice::<String>().map_err(|error| failed(&error))?;
                    let strings =
                        strings.iter().map(|string| Bytes::from(string.clone())).collect();
                    Tensor::new(DataType::STRING, shape, Payload::Strings(strings))
                }
                $(DatumType::$datum => {
                    let elements = view.as_slice::<$rust>().map_err(|error| failed(&error))?;
                    Tensor::of(shape, elements)
                })*
                other => return Err(unsupported(name, format!("{other:?}"))),
            }
        };
    }
    plain!(
        U8 => u8, U16 => u16, U32 => u32, U64 => u64,
        I8 => i8, I16 => i16, I32 => i32, I64 => i64,
        F16 => f16, F32 => f32, F64 => f64
    )
    .map_err(|error| failed(&error))
}

fn unsupported(name: &str, what: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Unsupported { runtime: NAME, what: format!("{what} in '{name}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(tensor: &Tensor) {
        let theirs = to_tract("x", tensor).unwrap();
        assert_eq!(theirs.datum_type(), datum_type("x", tensor.dtype()).unwrap());
        assert_eq!(&from_tract("x", &theirs).unwrap(), tensor);
    }

    #[test]
    fn every_type_survives() {
        round_trip(&Tensor::scalar(1.5f32));
        round_trip(&Tensor::of(vec![2, 1], &[1i64, i64::MIN]).unwrap());
        round_trip(&Tensor::of(vec![0, 3], &[] as &[u8]).unwrap());
        round_trip(&Tensor::of(vec![1], &[f16::MAX]).unwrap());
        round_trip(&Tensor::of(vec![1], &[u64::MAX]).unwrap());
        round_trip(&Tensor::dense(DataType::BOOL, vec![2], vec![0, 1]).unwrap());
        let strings = Payload::Strings(vec!["a".into(), "ü".into()]);
        round_trip(&Tensor::new(DataType::STRING, vec![2, 1], strings).unwrap());
    }

    #[test]
    fn symbolic_integers_become_int64() {
        let dims = tract::tensor1(&[7i64]).cast_to::<tract::TDim>().unwrap().into_owned();
        let tensor = from_tract("x", &dims).unwrap();
        assert_eq!(tensor.to_i64().unwrap(), [7]);
        assert_eq!(tensor.dtype(), DataType::INT64);
    }

    #[test]
    fn types_tract_lacks_are_refused() {
        let error = datum_type("x", DataType::INT4).unwrap_err().to_string();
        assert_eq!(error, "tract does not support int4 in 'x'; try another runtime");
    }
}
