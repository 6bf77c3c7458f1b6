//! What is written is read as it was, bit for bit.

use bytes::Bytes;
use indexmap::IndexMap;
use modelopt_graph::{DataType, Payload, Tensor};
use modelopt_serve::protocol::{Limits, Reply, Wanted, parse_infer};
use modelopt_serve::{Answer, Signature, Timing};
use proptest::prelude::*;

/// Types of numbers that are no floats, of which all bits are values.
const INTEGERS: [DataType; 8] = [
    DataType::UINT8,
    DataType::UINT16,
    DataType::UINT32,
    DataType::UINT64,
    DataType::INT8,
    DataType::INT16,
    DataType::INT32,
    DataType::INT64,
];

const FLOATS: [DataType; 4] =
    [DataType::FLOAT16, DataType::BFLOAT16, DataType::FLOAT, DataType::DOUBLE];

/// A tensor of random bits.
fn numbers(types: &'static [DataType]) -> impl Strategy<Value = Tensor> {
    let shape = prop::collection::vec(0usize..4, 0..4);
    (prop::sample::select(types), shape).prop_flat_map(|(dtype, shape)| {
        let bytes = dtype.byte_len(shape.iter().product()).unwrap();
        prop::collection::vec(any::<u8>(), bytes)
            .prop_map(move |bytes| Tensor::dense(dtype, shape.clone(), bytes).unwrap())
    })
}

fn booleans() -> impl Strategy<Value = Tensor> {
    prop::collection::vec(0u8..2, 0..9)
        .prop_map(|bytes| Tensor::dense(DataType::BOOL, vec![bytes.len()], bytes).unwrap())
}

fn strings() -> impl Strategy<Value = Tensor> {
    prop::collection::vec(any::<String>(), 0..9).prop_map(|strings| {
        let strings: Vec<Bytes> = strings.into_iter().map(Bytes::from).collect();
        Tensor::new(DataType::STRING, vec![strings.len()], Payload::Strings(strings)).unwrap()
    })
}

fn is_finite(tensor: &Tensor) -> bool {
    match tensor.dtype() {
        // As float32 it could be beyond the range.
        DataType::DOUBLE => tensor.elements::<f64>().unwrap().iter().all(|x| x.is_finite()),
        _ => tensor.to_f32().unwrap().iter().all(|x| x.is_finite()),
    }
}

/// Writes tensors as an answer, and reads that as a request: one is the other but for a name.
fn there_and_back(tensors: &[Tensor], wanted: &Wanted) -> IndexMap<String, Tensor> {
    let named =
        tensors.iter().enumerate().map(|(place, tensor)| (place.to_string(), tensor.clone()));
    let answer = Answer { outputs: named.collect(), timing: Timing::default() };
    let reply = Reply { model: "m", version: "1", id: Some("7"), answer: &answer, wanted };
    let body = reply.write().unwrap();
    let json = &body.bytes[..body.header.unwrap_or(body.bytes.len())];
    let text = std::str::from_utf8(json).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
    let request = text.replacen("\"outputs\"", "\"inputs\"", 1);
    let header = body.header.map(|_| request.len());
    let request = [request.as_bytes(), &body.bytes[json.len()..]].concat();
    let none = Signature { inputs: Vec::new(), outputs: Vec::new() };
    let parsed = parse_infer(header, &request.into(), &none, &Limits::default()).unwrap();
    assert_eq!(parsed.inference.id.as_deref(), Some("7"));
    parsed.inference.inputs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tensors_come_back_as_they_were(
        tensors in prop::collection::vec(
            prop_oneof![
                numbers(&INTEGERS),
                numbers(&FLOATS).prop_filter("JSON has only finite numbers", is_finite),
                booleans(),
                strings(),
            ],
            0..5,
        ),
        binary in any::<bool>(),
        other in any::<bool>(),
    ) {
        let outputs = IndexMap::from([("1".to_owned(), other)]);
        let read = there_and_back(&tensors, &Wanted { binary, outputs });
        prop_assert_eq!(read.into_values().collect::<Vec<_>>(), tensors);
    }

    #[test]
    fn all_bits_come_back_as_binary_data(tensor in numbers(&FLOATS)) {
        let read = there_and_back(std::slice::from_ref(&tensor), &Wanted { binary: true, ..Wanted::default() });
        prop_assert_eq!(&read["0"], &tensor);
    }
}
