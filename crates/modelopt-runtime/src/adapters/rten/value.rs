//! Tensors to and from rten's values.

use half::{bf16, f16};
use modelopt_graph::{DataType, Element, Tensor, Type};
use rten::Value;
use rten_tensor::Layout;

use super::NAME;
use crate::RuntimeError;
use crate::outputs::Returned;

/// A copy as a value of rten: floats become float32, integers and booleans int32 unless they are
/// int8 or uint8.
pub(super) fn to_rten(name: &str, tensor: &Tensor) -> Result<Value, RuntimeError> {
    match tensor.dtype() {
        DataType::INT8 => value(name, tensor, tensor.elements::<i8>().map(Into::into)),
        DataType::UINT8 => value(name, tensor, tensor.elements::<u8>().map(Into::into)),
        dtype if dtype.is_float() => value(name, tensor, tensor.to_f32().map(Into::into)),
        // Above the range of i64, and so above that of i32.
        DataType::UINT64 if tensor.to_i64().is_none() => Err(range(name, "an element")),
        dtype => {
            let elements = tensor.to_i64().ok_or_else(|| unsupported(name, dtype))?;
            let narrow = elements
                .into_iter()
                .map(|x| i32::try_from(x).map_err(|_| range(name, x)))
                .collect::<Result<Vec<_>, _>>()?;
            value(name, tensor, Some(narrow))
        }
    }
}

fn value<T>(name: &str, tensor: &Tensor, elements: Option<Vec<T>>) -> Result<Value, RuntimeError>
where
    Value: From<rten_tensor::Tensor<T>>,
{
    let elements = elements.ok_or_else(|| unsupported(name, tensor.dtype()))?;
    rten_tensor::Tensor::try_from_data(tensor.shape(), elements)
        .map(Value::from)
        .map_err(|error| unsupported(name, error))
}

/// A copy of a value of rten, as the type that the model declares for it.
pub(super) fn from_rten(
    name: &str,
    value: Value,
    declared: &Type,
) -> Result<Returned, RuntimeError> {
    let Value::Sequence(mut values) = value else {
        return Ok(Returned::Tensor(tensor(name, value, declared.elem())?));
    };
    let elem = match declared {
        Type::Sequence(of) => of.elem(),
        _ => None,
    };
    let mut copies = Vec::with_capacity(values.len());
    while !values.is_empty() {
        let last = values.len() - 1;
        let value = values.remove(last).map_err(|error| unsupported(name, format!("{error:?}")))?;
        copies.push(Returned::Tensor(tensor(name, value, elem)?));
    }
    copies.reverse();
    Ok(Returned::Sequence(copies))
}

/// A copy of a tensor of rten, of the element type that the model declares. Where it declares none,
/// or none that rten's type stands for, the type stays as it is.
fn tensor(name: &str, value: Value, declared: Option<DataType>) -> Result<Tensor, RuntimeError> {
    let shape = value.shape().to_vec();
    match value {
        Value::FloatTensor(tensor) => floats(name, shape, &tensor.into_data(), declared),
        Value::Int32Tensor(tensor) => integers(name, shape, &tensor.into_data(), declared),
        Value::Int8Tensor(tensor) => tensor_of(name, shape, &tensor.into_data()),
        Value::UInt8Tensor(tensor) => tensor_of(name, shape, &tensor.into_data()),
        _ => Err(unsupported(name, "a sequence of sequences")),
    }
}

fn floats(
    name: &str,
    shape: Vec<usize>,
    elements: &[f32],
    declared: Option<DataType>,
) -> Result<Tensor, RuntimeError> {
    match declared {
        Some(DataType::DOUBLE) => tensor_of(name, shape, &map(elements, f64::from)),
        Some(DataType::FLOAT16) => tensor_of(name, shape, &map(elements, f16::from_f32)),
        Some(DataType::BFLOAT16) => tensor_of(name, shape, &map(elements, bf16::from_f32)),
        _ => tensor_of(name, shape, elements),
    }
}

fn integers(
    name: &str,
    shape: Vec<usize>,
    elements: &[i32],
    declared: Option<DataType>,
) -> Result<Tensor, RuntimeError> {
    match declared {
        Some(DataType::INT64) => tensor_of(name, shape, &map(elements, i64::from)),
        Some(DataType::INT16) => tensor_of(name, shape, &narrow::<i16>(name, elements)?),
        Some(DataType::UINT16) => tensor_of(name, shape, &narrow::<u16>(name, elements)?),
        Some(DataType::UINT32) => tensor_of(name, shape, &narrow::<u32>(name, elements)?),
        Some(DataType::UINT64) => tensor_of(name, shape, &narrow::<u64>(name, elements)?),
        Some(DataType::BOOL) => {
            let bytes = map(elements, |x| u8::from(x != 0));
            Tensor::dense(DataType::BOOL, shape, bytes).map_err(|error| unsupported(name, error))
        }
        _ => tensor_of(name, shape, elements),
    }
}

fn map<T: Copy, U>(elements: &[T], f: impl Fn(T) -> U) -> Vec<U> {
    elements.iter().map(|&x| f(x)).collect()
}

fn narrow<T: TryFrom<i32>>(name: &str, elements: &[i32]) -> Result<Vec<T>, RuntimeError> {
    elements.iter().map(|&x| T::try_from(x).map_err(|_| range(name, x))).collect()
}

fn tensor_of<T: Element>(
    name: &str,
    shape: Vec<usize>,
    elements: &[T],
) -> Result<Tensor, RuntimeError> {
    Tensor::of(shape, elements).map_err(|error| unsupported(name, error))
}

fn range(name: &str, value: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Range { runtime: NAME, name: name.to_owned(), value: value.to_string() }
}

fn unsupported(name: &str, what: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Unsupported { runtime: NAME, what: format!("{what} in '{name}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(tensor: &Tensor) {
        let theirs = to_rten("x", tensor).unwrap();
        let ours = super::tensor("x", theirs, Some(tensor.dtype())).unwrap();
        assert_eq!(&ours, tensor);
    }

    #[test]
    fn sequences_come_back_in_order() {
        let lists = [[1i32, 2], [3, 4]].map(rten_tensor::Tensor::from);
        let theirs = Value::from(rten::Sequence::from(lists));
        let ty = Type::Sequence(Type::tensor(DataType::INT64).into());
        let mut outputs = crate::Outputs::new();
        from_rten("ys", theirs, &ty).unwrap().flatten("ys", &mut outputs);
        assert_eq!(outputs["ys.length"], Tensor::scalar(2i64));
        assert_eq!(outputs["ys[1]"], Tensor::of(vec![2], &[3i64, 4]).unwrap());
    }

    #[test]
    fn declared_types_come_back() {
        round_trip(&Tensor::scalar(1.5f32));
        round_trip(&Tensor::of(vec![2, 1], &[-1i64, 3]).unwrap());
        round_trip(&Tensor::of(vec![0, 3], &[] as &[u8]).unwrap());
        round_trip(&Tensor::of(vec![1], &[f16::MAX]).unwrap());
        round_trip(&Tensor::of(vec![1], &[0.5f64]).unwrap());
        round_trip(&Tensor::of(vec![2], &[3u16, u16::MAX]).unwrap());
        round_trip(&Tensor::dense(DataType::BOOL, vec![2], vec![0, 1]).unwrap());
    }

    #[test]
    fn integers_beyond_32_bits_are_refused() {
        let error = to_rten("ids", &Tensor::scalar(1i64 << 31)).unwrap_err().to_string();
        assert!(error.contains("2147483648 in 'ids' does not fit"), "{error}");
        assert!(to_rten("x", &Tensor::scalar(u64::MAX)).is_err());
        let negative = Value::from(rten_tensor::Tensor::from([-1i32]));
        assert!(super::tensor("x", negative, Some(DataType::UINT32)).is_err());
    }

    #[test]
    fn strings_are_refused() {
        let strings = modelopt_graph::Payload::Strings(vec!["a".into()]);
        let tensor = Tensor::new(DataType::STRING, vec![1], strings).unwrap();
        let error = to_rten("text", &tensor).unwrap_err().to_string();
        assert_eq!(error, "rten does not support string in 'text'; try another runtime");
    }
}
