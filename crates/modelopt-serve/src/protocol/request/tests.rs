//! Requests, good and bad.

use half::f16;
use modelopt_graph::Payload;

use super::*;
use crate::protocol::{Reply, ReplyBody};
use crate::{Answer, Timing};

fn signature(shape: &[Dimension], dtype: DataType) -> Signature {
    let spec = TensorSpec { name: "x".to_owned(), dtype, shape: Some(shape.to_vec()) };
    Signature { inputs: vec![spec], outputs: Vec::new() }
}

fn parse_with(
    header: Option<usize>,
    body: impl Into<Bytes>,
    limits: &Limits,
) -> Result<InferRequest, ServeError> {
    let signature = signature(&[Dimension::Any, Dimension::Fixed(2)], DataType::FLOAT);
    parse_infer(header, &body.into(), &signature, limits)
}

fn parse(body: &str) -> Result<InferRequest, String> {
    parse_with(None, body.to_owned(), &Limits::default()).map_err(|error| error.to_string())
}

/// A request with one input.
fn input(rest: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x",{rest}}}]}}"#)
}

fn refused(rest: &str) -> String {
    parse(&input(rest)).unwrap_err()
}

fn floats(shape: &[usize], elements: &[f32]) -> Tensor {
    Tensor::of(shape.to_vec(), elements).unwrap()
}

#[test]
fn data_is_flat_or_nested() {
    let expected = floats(&[2, 2], &[1.0, 2.5, -3.0, 4.0]);
    for data in ["[1,2.5,-3,4e0]", "[[1,2.5],[-3,4]]"] {
        let text = input(&format!(r#""shape":[2,2],"datatype":"FP32","data":{data}"#));
        let request = parse(&text).unwrap();
        assert_eq!(request.inference.inputs["x"], expected, "{data}");
    }
}

#[test]
fn data_may_come_before_what_it_is() {
    let text = r#"{"inputs":[{"data":[[1],[2]],"datatype":"INT8","name":"x","shape":[2,1]}]}"#;
    let request = parse(text).unwrap();
    assert_eq!(request.inference.inputs["x"], Tensor::of(vec![2, 1], &[1i8, 2]).unwrap());
    let text = r#"{"inputs":[{"data":[1,300],"datatype":"INT8","name":"x","shape":[2]}]}"#;
    let error = parse(text).unwrap_err();
    assert_eq!(error, "input 'x', element 1: 300 is out of the range of INT8 at byte 22");
}

#[test]
fn all_types_are_read() {
    let read = |datatype: &str, data: &str| {
        let text = input(&format!(r#""shape":[2],"datatype":"{datatype}","data":{data}"#));
        parse(&text).unwrap().inference.inputs["x"].clone()
    };
    assert_eq!(read("BOOL", "[true,false]").bytes().unwrap().as_ref(), [1, 0]);
    assert_eq!(read("UINT64", "[1,18446744073709551615]").to_i64(), None);
    assert_eq!(read("INT16", "[-5,6]").to_i64(), Some(vec![-5, 6]));
    let half = Tensor::of(vec![2], &[f16::from_f32(0.1), f16::ONE]).unwrap();
    assert_eq!(read("FP16", "[0.1,1]"), half);
    assert_eq!(read("FP64", "[0.1,1]"), Tensor::of(vec![2], &[0.1f64, 1.0]).unwrap());
    let strings = read("BYTES", r#"["a","\u00e9"]"#);
    assert!(matches!(strings.payload(), Payload::Strings(all) if all[1] == "é"));
}

#[test]
fn scalars_and_empty_tensors_are_read() {
    for data in ["5", "[5]"] {
        let text = input(&format!(r#""shape":[],"datatype":"INT64","data":{data}"#));
        assert_eq!(parse(&text).unwrap().inference.inputs["x"], Tensor::scalar(5i64), "{data}");
    }
    for (shape, data) in [("[0,3]", "[]"), ("[2,0]", "[[],[]]"), ("[0]", "[]")] {
        let text = input(&format!(r#""shape":{shape},"datatype":"FP32","data":{data}"#));
        assert!(parse(&text).unwrap().inference.inputs["x"].is_empty(), "{shape}");
    }
}

#[test]
fn elements_that_are_wrong_are_named() {
    let of = |datatype: &str, data: &str| {
        refused(&format!(r#""shape":[3],"datatype":"{datatype}","data":{data}"#))
    };
    assert_eq!(
        of("FP32", "[1,2,NaN]"),
        "input 'x', element 2: NaN or infinity, which only binary data can have, at byte 65"
    );
    assert!(of("FP32", "[1,-Infinity,2]").starts_with("input 'x', element 1: NaN or infinity"));
    assert!(of("FP32", "[1,null,2]").starts_with("input 'x', element 1: null where a number"));
    assert!(of("INT32", "[1,2,3.5]").starts_with("input 'x', element 2: 3.5 where an integer"));
    assert!(of("FP32", "[1,\"2\",3]").starts_with("input 'x', element 1: a string where a number"));
    assert!(of("UINT8", "[0,256,0]").starts_with("input 'x', element 1: 256 is out of the range"));
    assert!(
        of("BYTES", "[\"a\",1,\"b\"]").starts_with("input 'x', element 1: a number where a str")
    );
}

#[test]
fn data_that_does_not_match_its_shape_is_refused() {
    let of = |shape: &str, data: &str| {
        refused(&format!(r#""shape":{shape},"datatype":"FP32","data":{data}"#))
    };
    assert_eq!(of("[2]", "[1,2,3]"), "input 'x' has more elements than [2]");
    assert_eq!(of("[3]", "[1,2]"), "input 'x' has data of [2], not [3]");
    assert_eq!(of("[4]", "[[1,2],[3,4]]"), "input 'x' has data of [2, 2], not [4]");
    assert_eq!(of("[2,2]", "[[1,2,3,4]]"), "input 'x' has data of [1, 4], not [2, 2]");
    assert_eq!(of("[1]", "5"), "input 'x' has data of [], not [1]");
    assert!(of("[2,2]", "[[1,2],[3]]").contains("element 3: an array of 1 beside others of 2"));
    assert!(of("[2,2]", "[[1,2],3,4]").contains("element 2: a number where an array should be"));
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let of = |shape: &str| refused(&format!(r#""shape":{shape},"datatype":"FP32","data":[]"#));
    assert_eq!(of("[2,-1]"), "input 'x': dimension 1 of its shape is -1");
    assert_eq!(of("[1.5]"), "input 'x': dimension 0 of its shape is 1.5");
    assert!(of("[9223372036854775807,9]").contains("too many elements to count"));
    assert!(of("[99999999999999999999]").contains("dimension 0 of its shape is 9999"));
    assert!(of("[1000000000]").contains("elements of input 'x': 1000000000, but at most"));
    assert!(
        of("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]")
            .contains("dimensions")
    );
    assert!(of("[\"1\"]").contains("a string where a dimension should be"));
}

#[test]
fn what_lacks_or_repeats_is_refused() {
    assert_eq!(parse("{}").unwrap_err(), "the request has no inputs");
    assert_eq!(refused(r#""shape":[1],"data":[1]"#), "input 'x' has no datatype");
    assert_eq!(refused(r#""datatype":"FP32","data":[1]"#), "input 'x' has no shape");
    assert_eq!(refused(r#""datatype":"FP32","shape":[1]"#), "input 'x' has no data");
    assert_eq!(refused(r#""datatype":"FP8","shape":[1]"#), "input 'x': 'FP8' is no datatype");
    let nameless = parse(r#"{"inputs":[{"shape":[1],"datatype":"FP32","data":[1]}]}"#);
    assert_eq!(nameless.unwrap_err(), "input 0 has no name");
    let one = r#"{"name":"x","shape":[1],"datatype":"FP32","data":[1]}"#;
    let twice = parse(&format!(r#"{{"inputs":[{one},{one}]}}"#)).unwrap_err();
    assert_eq!(twice, "input 'x' is given twice");
    let lists = parse(&format!(r#"{{"inputs":[{one}],"inputs":[{one}]}}"#)).unwrap_err();
    assert_eq!(lists, "inputs are given twice");
    let outputs = parse(r#"{"outputs":[{"name":"y"},{"name":"y"}],"inputs":[]}"#).unwrap_err();
    assert_eq!(outputs, "output 'y' is asked for twice");
    let data = refused(r#""shape":[1],"datatype":"FP32","data":[1],"data":[2]"#);
    assert_eq!(data, "input 'x' has data twice");
}

#[test]
fn parameters_that_mean_something_are_taken() {
    let text = r#"{"id":"a7","parameters":{"binary_data_output":true,"priority":2,"timeout":1500,"sequence_id":3,"headers":{}},
        "inputs":[],"outputs":[{"name":"y","parameters":{"binary_data":false,"other":[1]}},{"name":"z"}]}"#;
    let InferRequest { inference, wanted } = parse(text).unwrap();
    assert_eq!(inference.id.as_deref(), Some("a7"));
    assert_eq!((inference.priority, inference.timeout), (2, Some(Duration::from_micros(1500))));
    assert_eq!(inference.outputs, ["y", "z"]);
    assert_eq!(["y", "z", "other"].map(|name| wanted.is_binary(name)), [false, true, true]);
    let plain = parse(r#"{"inputs":[],"parameters":{"timeout":0}}"#).unwrap();
    assert_eq!(plain.inference.timeout, None);
    assert!(!plain.wanted.is_binary("y"));
    let wrong = parse(r#"{"inputs":[],"parameters":{"timeout":"soon"}}"#).unwrap_err();
    assert!(wrong.starts_with("parameters of the request: invalid type"), "{wrong}");
    let list = parse(r#"{"inputs":[],"parameters":[true,1,5]}"#).unwrap_err();
    assert!(list.contains("an array where an object of parameters should be"), "{list}");
}

#[test]
fn what_is_null_is_not_said() {
    let text = r#"{"id":null,"parameters":null,"outputs":null,"inputs":[{"name":"x","shape":[1],"datatype":"FP32",
        "parameters":null,"data":[1]}]}"#;
    let request = parse(text).unwrap();
    assert_eq!(request.inference.id, None);
    assert_eq!(request.inference.inputs["x"], floats(&[1], &[1.0]));
    let parameters = r#"{"inputs":[],"parameters":{"timeout":null,"binary_data_output":null}}"#;
    assert!(parse(parameters).is_ok());
    assert_eq!(refused(r#""shape":[1],"datatype":"FP32","data":null"#), "input 'x' has no data");
    assert_eq!(parse(r#"{"inputs":null}"#).unwrap_err(), "the request has no inputs");
}

#[test]
fn what_is_not_served_is_said_so() {
    for text in [
        r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":3}}]}"#,
        r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"shared_memory_region":"r"}}]}"#,
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}]}"#,
    ] {
        let error = parse_with(None, text, &Limits::default()).unwrap_err();
        assert_eq!(error.status(), 501, "{error}");
    }
    let none = r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":0}}]}"#;
    assert!(parse(none).is_ok());
}

/// A request with two binary inputs, and the length of its JSON.
fn binary(sizes: [usize; 2]) -> (Vec<u8>, usize) {
    let [first, second] = sizes;
    let json = format!(
        r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"FP32","parameters":{{"binary_data_size":{first}}}}},{{"name":"j","shape":[1],"datatype":"INT8","data":[7]}},{{"name":"b","shape":[3],"datatype":"BOOL","parameters":{{"binary_data_size":{second}}}}}]}}"#
    );
    let length = json.len();
    let mut body = json.into_bytes();
    body.extend_from_slice(&1.5f32.to_le_bytes());
    body.extend_from_slice(&f32::NAN.to_le_bytes());
    body.extend_from_slice(&[1, 0, 1]);
    (body, length)
}

#[test]
fn binary_inputs_follow_in_their_order() {
    let (body, length) = binary([8, 3]);
    let request = parse_with(Some(length), body, &Limits::default()).unwrap();
    let inputs = &request.inference.inputs;
    assert_eq!(inputs["x"].bytes(), floats(&[2], &[1.5, f32::NAN]).bytes());
    assert_eq!(inputs["b"].bytes().unwrap().as_ref(), [1, 0, 1]);
    assert_eq!(inputs.keys().collect::<Vec<_>>(), ["x", "j", "b"]);
}

#[test]
fn wrong_byte_counts_are_refused() {
    let error = |header, body: Vec<u8>| {
        parse_with(Some(header), body, &Limits::default()).unwrap_err().to_string()
    };
    let (body, length) = binary([7, 3]);
    assert_eq!(error(length, body), "input 'x' has 7 bytes of binary data, but [2] needs 8");
    let (mut body, length) = binary([8, 3]);
    body.pop();
    assert_eq!(
        error(length, body),
        "input 'b' has 3 bytes of binary data, but 2 are left in the body"
    );
    let (mut body, length) = binary([8, 3]);
    body.push(0);
    assert_eq!(error(length, body), "1 bytes of binary data belong to no input");
    let (body, length) = binary([8, 3]);
    let has = body.len();
    assert_eq!(
        error(9999, body.clone()),
        format!("the header says 9999 bytes of JSON, but the body has {has}")
    );
    assert!(error(length - 1, body).contains("the text ends"));
    let both =
        refused(r#""shape":[1],"datatype":"FP32","data":[1],"parameters":{"binary_data_size":4}"#);
    assert_eq!(both, "input 'x' has data and binary data");
}

#[test]
fn the_length_of_the_json_is_a_number() {
    assert_eq!(parse_header_length(b" 12 "), Ok(12));
    for value in [b"-1".as_slice(), b"", b"1.5", b"99999999999999999999999", b"\xff"] {
        assert_eq!(parse_header_length(value).unwrap_err().status(), 400, "{value:?}");
    }
}

#[test]
fn a_body_without_json_is_the_only_input() {
    let raw = |shape: &[Dimension], dtype, bytes: &[u8]| {
        let body = Bytes::copy_from_slice(bytes);
        parse_infer(Some(0), &body, &signature(shape, dtype), &Limits::default())
            .map(|request| request.inference.inputs["x"].clone())
            .map_err(|error| error.to_string())
    };
    let two = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
    let (any, fixed) = (Dimension::Any, Dimension::Fixed(2));
    let shape = |dims: &[Dimension]| raw(dims, DataType::FLOAT, &two).unwrap().shape().to_vec();
    assert_eq!(shape(&[any.clone(), fixed.clone()]), [1, 2]);
    assert_eq!(shape(&[any.clone(), any.clone()]), [1, 2]);
    assert_eq!(shape(std::slice::from_ref(&any)), [2]);
    let open = [any.clone(), any.clone(), any.clone()];
    assert!(raw(&open, DataType::FLOAT, &two).unwrap_err().contains("more than one dimension"));
    let short = raw(&[any.clone(), fixed.clone()], DataType::FLOAT, &two[..4]).unwrap_err();
    assert!(short.contains("needs 8 bytes, but the payload has 4"), "{short}");
    let string = raw(std::slice::from_ref(&any), DataType::STRING, b"hello").unwrap();
    assert!(matches!(string.payload(), Payload::Strings(all) if all[0] == "hello"));
    assert!(raw(&[fixed], DataType::STRING, b"hello").is_err());
    let request = parse_with(Some(0), two.clone(), &Limits::default()).unwrap();
    assert!(request.wanted.is_binary("y"));
    let none = Signature { inputs: Vec::new(), outputs: Vec::new() };
    let error = parse_infer(Some(0), &two.into(), &none, &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "a body without JSON is one input, but the model has 0");
}

#[test]
fn limits_are_held_before_anything_is_read() {
    let limits = Limits { tensors: 2, rank: 4, elements: 8, tensor_bytes: 16, depth: 6 };
    let status = |text: &str| parse_with(None, text.to_owned(), &limits).unwrap_err().status();
    let one = |place| format!(r#"{{"name":"x{place}","shape":[1],"datatype":"FP32","data":[1]}}"#);
    let three: Vec<String> = (0..3).map(one).collect();
    assert_eq!(status(&format!(r#"{{"inputs":[{}]}}"#, three.join(","))), 413);
    let outputs = r#"{"inputs":[],"outputs":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#;
    assert_eq!(status(outputs), 413);
    assert_eq!(status(&input(r#""shape":[9],"datatype":"INT8","data":[]"#)), 413);
    assert_eq!(status(&input(r#""shape":[3],"datatype":"FP64","data":[1,2,3]"#)), 413);
    let bytes = r#""shape":[3],"datatype":"FP64","parameters":{"binary_data_size":24}"#;
    assert_eq!(status(&input(bytes)), 413);
    let deep = format!(r#"{{"inputs":[],"x":{}1{}}}"#, "[".repeat(6), "]".repeat(6));
    assert_eq!(status(&deep), 400);
}

#[test]
fn what_is_written_is_read_as_it_was() {
    let x = floats(&[2, 2], &[0.1, f32::MIN_POSITIVE, f32::MAX, -0.0]);
    for binary in [false, true] {
        let outputs = IndexMap::from([("x".to_owned(), x.clone())]);
        let answer = Answer { outputs, timing: Timing::default() };
        let wanted = Wanted { binary, ..Wanted::default() };
        let reply = Reply { model: "m", version: "1", id: None, answer: &answer, wanted: &wanted };
        let ReplyBody { bytes, header } = reply.write().unwrap();
        // An answer is a request but for the name of the list.
        let length = header.unwrap_or(bytes.len());
        let json = String::from_utf8(bytes[..length].to_vec()).unwrap();
        let json = json.replace("\"outputs\"", "\"inputs\"");
        let header = header.map(|_| json.len());
        let body = [json.as_bytes(), &bytes[length..]].concat();
        let request = parse_with(header, body, &Limits::default()).unwrap();
        assert_eq!(request.inference.inputs["x"], x);
    }
}
