//! Inputs and outputs in the request log, as much of them as a line can bear.

use bytes::Bytes;
use indexmap::IndexMap;
use modelopt_graph::{DataType, Payload, Tensor};
use serde_json::{Map, Value, json};

/// Elements of a tensor that are logged. A line that has fewer than there are says so by its shape.
const MOST_ELEMENTS: usize = 1_000;
const LONGEST_STRING: usize = 256;
const MOST_TENSORS: usize = 32;

/// What went in and came out of a request: for each tensor its shape and its first elements.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedValues {
    pub(super) inputs: Value,
    pub(super) outputs: Value,
}

impl LoggedValues {
    /// Those of a request that was answered, or of one that was not and has no outputs.
    pub fn of(
        inputs: &IndexMap<String, Tensor>,
        outputs: Option<&IndexMap<String, Tensor>>,
    ) -> Self {
        let outputs = outputs.map_or(Value::Null, tensors);
        LoggedValues { inputs: tensors(inputs), outputs }
    }
}

fn tensors(tensors: &IndexMap<String, Tensor>) -> Value {
    let tensors = tensors.iter().take(MOST_TENSORS).map(|(name, tensor)| {
        let name = String::from_utf8_lossy(start(name.as_bytes())).into_owned();
        (name, json!({ "shape": tensor.shape(), "data": elements(tensor) }))
    });
    Value::Object(tensors.collect::<Map<_, _>>())
}

/// The first elements; null of types that JSON has no numbers for.
fn elements(tensor: &Tensor) -> Value {
    if let Payload::Strings(strings) = tensor.payload() {
        let strings = strings.iter().take(MOST_ELEMENTS);
        return strings.map(|string| String::from_utf8_lossy(start(string))).collect();
    }
    let Some(head) = head(tensor) else { return Value::Null };
    if let Some(numbers) = head.elements::<f64>() {
        return numbers.iter().map(|&x| float(x)).collect();
    }
    if let Some(numbers) = head.to_f32() {
        // With the digits that tell it apart as float32, and not those of the next float64.
        return numbers.iter().map(|x| float(x.to_string().parse().unwrap_or(f64::NAN))).collect();
    }
    if let Some(numbers) = head.elements::<u64>() {
        return numbers.iter().copied().collect();
    }
    if head.dtype() == DataType::BOOL {
        return head.bytes().into_iter().flatten().map(|&byte| byte != 0).collect();
    }
    head.to_i64().map_or(Value::Null, Value::from)
}

/// A tensor of the first elements alone, so that what a large one costs does not depend on its size.
fn head(tensor: &Tensor) -> Option<Tensor> {
    let count = tensor.len().min(MOST_ELEMENTS);
    let bytes: Bytes = tensor.bytes()?.get(..tensor.dtype().byte_len(count)?)?.to_vec().into();
    Tensor::dense(tensor.dtype(), vec![count], bytes).ok()
}

/// JSON has no name for what is no number.
fn float(number: f64) -> Value {
    if number.is_finite() { number.into() } else { number.to_string().into() }
}

fn start(bytes: &[u8]) -> &[u8] {
    bytes.get(..LONGEST_STRING).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(tensor: Tensor) -> Value {
        let inputs = [("x".to_owned(), tensor)].into_iter().collect();
        LoggedValues::of(&inputs, None).inputs["x"].take()
    }

    #[test]
    fn elements_of_each_type_are_what_they_are() {
        let cases = [
            (Tensor::of(vec![2], &[0.1f32, -2.0]), json!([0.1, -2.0])),
            (Tensor::of(vec![3], &[f32::NAN, f32::INFINITY, 1.0]), json!(["NaN", "inf", 1.0])),
            (Tensor::of(vec![1], &[0.1f64]), json!([0.1])),
            (Tensor::of(vec![1], &[u64::MAX]), json!([u64::MAX])),
            (Tensor::of(vec![2], &[-1i8, 2]), json!([-1, 2])),
            (Tensor::dense(DataType::BOOL, vec![2], vec![0, 1]), json!([false, true])),
            (Tensor::dense(DataType::FLOAT16, vec![1], vec![0, 0x3c]), json!([1.0])),
            (Tensor::dense(DataType::COMPLEX64, vec![1], vec![0; 8]), Value::Null),
        ];
        for (tensor, expected) in cases {
            let tensor = tensor.unwrap();
            assert_eq!(logged(tensor.clone())["data"], expected, "{tensor:?}");
        }
        let strings = Payload::Strings(vec![Bytes::from_static(b"a\xff"), vec![b'b'; 999].into()]);
        let tensor = Tensor::new(DataType::STRING, vec![2], strings).unwrap();
        assert_eq!(logged(tensor)["data"], json!(["a\u{fffd}", "b".repeat(256)]));
    }

    #[test]
    fn large_tensors_are_cut_and_keep_their_shape() {
        let large = Tensor::of(vec![1, 5_000], &vec![1u8; 5_000]).unwrap();
        let value = logged(large.clone());
        assert_eq!(value["shape"], json!([1, 5_000]));
        assert_eq!(value["data"].as_array().unwrap().len(), MOST_ELEMENTS);
        let many = (0..100).map(|number| (number.to_string(), large.clone())).collect();
        let values = LoggedValues::of(&many, Some(&many));
        assert_eq!(values.inputs.as_object().unwrap().len(), MOST_TENSORS);
        assert_eq!(values.outputs, values.inputs);
    }
}
