//! Amazon `SageMaker`'s `POST /invocations`: what the body is follows from its content type.
//!
//! | content type | body |
//! |---|---|
//! | `application/json`, or none | an infer request of the protocol, or the form of `/predict` |
//! | `application/vnd.sagemaker-triton.binary+json;json-header-size=N` | an infer request with binary data |
//! | `application/octet-stream` | the same, with `Inference-Header-Content-Length` where it comes through |
//! | `text/csv` | rows of numbers, for a model with one input of two dimensions |
//!
//! `SageMaker` hands on no headers but its own, so Triton's clients write the length of the JSON into the
//! content type.

use bytes::Bytes;
use modelopt_graph::Tensor;

use super::binary::tensor_error;
use super::json::{Kind, Scanner};
use super::limits::{Limits, hold};
use super::numbers::{Sink, reader};
use super::predict::{Prediction, only, parse_predict};
use super::request::{InferRequest, Wanted, invalid, parse_infer};
use crate::{Inference, ServeError, Signature, TensorSpec};

const TRITON: &str = "application/vnd.sagemaker-triton.binary+json";
const HEADER_SIZE: &str = "json-header-size";

/// What is asked, and in which form the answer goes back.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// What is asked.
    pub inference: Inference,
    /// The form of the answer.
    pub form: AnswerForm,
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerForm {
    /// An answer of the protocol, with these outputs as binary data.
    Infer(Wanted),
    /// That of `/predict`.
    Predict {
        /// Whether one row was asked for, without a batch.
        is_one_row: bool,
    },
}

impl AnswerForm {
    /// The content type of an answer that has so many bytes of JSON before binary data, where it has any.
    pub fn content_type(header: Option<usize>) -> String {
        match header {
            Some(size) => format!("{TRITON};{HEADER_SIZE}={size}"),
            None => "application/json".to_owned(),
        }
    }
}

/// Reads an invocation; `header` is what `Inference-Header-Content-Length` says.
pub fn parse_invocation(
    content_type: Option<&str>,
    header: Option<usize>,
    body: &Bytes,
    signature: &Signature,
    limits: &Limits,
) -> Result<Invocation, ServeError> {
    let mut parts = content_type.unwrap_or("application/json").split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    match media.as_str() {
        TRITON => {
            let header = Some(header_size(parts)?);
            Ok(parse_infer(header, body, signature, limits)?.into())
        }
        "application/octet-stream" => Ok(parse_infer(header, body, signature, limits)?.into()),
        "application/json" | "" if header.is_some() || is_infer(body, limits) => {
            Ok(parse_infer(header, body, signature, limits)?.into())
        }
        "application/json" | "" => Ok(parse_predict(body, signature, limits)?.into()),
        "text/csv" => csv(body, only(signature)?, limits),
        _ => Err(ServeError::UnsupportedMedia(format!(
            "the content type is none of application/json, text/csv, application/octet-stream and {TRITON}"
        ))),
    }
}

impl From<InferRequest> for Invocation {
    fn from(request: InferRequest) -> Self {
        let InferRequest { inference, wanted } = request;
        Invocation { inference, form: AnswerForm::Infer(wanted) }
    }
}

impl From<Prediction> for Invocation {
    fn from(prediction: Prediction) -> Self {
        let Prediction { inference, is_one_row } = prediction;
        Invocation { inference, form: AnswerForm::Predict { is_one_row } }
    }
}

/// The length of the JSON, from the parameters of a content type.
fn header_size<'a>(parameters: impl Iterator<Item = &'a str>) -> Result<usize, ServeError> {
    let mut pairs = parameters.filter_map(|parameter| parameter.split_once('='));
    let size = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(HEADER_SIZE));
    size.and_then(|(_, size)| size.trim().trim_matches('"').parse().ok())
        .ok_or_else(|| invalid(format!("the content type {TRITON} has no {HEADER_SIZE}")))
}

/// Whether a body is an infer request rather than inputs by name: `inputs` is then a list of objects, which
/// no tensor is.
fn is_infer(body: &[u8], limits: &Limits) -> bool {
    let mut scanner = Scanner::new(body, limits.depth);
    let mut first = true;
    if scanner.open_object().is_err() {
        return false;
    }
    while let Ok(Some(key)) = scanner.next_key(&mut first) {
        if key == "inputs" {
            return scanner.open_array().is_ok() && scanner.kind() == Kind::Object;
        }
        if scanner.skip().is_err() {
            return false;
        }
    }
    false
}

/// Rows of numbers, one a line. Numbers are written as in JSON.
fn csv(body: &Bytes, spec: &TensorSpec, limits: &Limits) -> Result<Invocation, ServeError> {
    let name = &spec.name;
    let read = reader(spec.dtype).filter(|_| spec.dtype.is_float() && spec.rank() == Some(2));
    let Some(read) = read else {
        return Err(ServeError::UnsupportedMedia(format!(
            "input '{name}' is no table of floats: CSV cannot be read into it"
        )));
    };
    let text = std::str::from_utf8(body).map_err(|_| invalid("the body is not UTF-8"))?;
    let mut sink = Sink::default();
    let (mut count, mut rows, mut columns) = (0, 0, 0);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let before = count;
        for (column, cell) in line.split(',').enumerate() {
            hold(count + 1, limits.elements, || format!("elements of input '{name}'"))?;
            let mut scanner = Scanner::new(cell.trim().as_bytes(), 0);
            let value = read(&mut scanner, &mut sink).and_then(|()| scanner.end());
            value.map_err(|error| {
                let what = error.what;
                invalid(format!(
                    "input '{name}', element {count} (row {rows}, column {column}): {what}"
                ))
            })?;
            count += 1;
        }
        let width = count - before;
        if rows > 0 && width != columns {
            return Err(invalid(format!(
                "input '{name}': row {rows} has {width} columns, but the first has {columns}"
            )));
        }
        columns = width;
        rows += 1;
    }
    if rows == 0 {
        return Err(invalid("the body has no rows"));
    }
    hold(sink.dense.len(), limits.tensor_bytes, || format!("bytes of input '{name}'"))?;
    let tensor = Tensor::dense(spec.dtype, vec![rows, columns], sink.dense);
    let mut inference = Inference::default();
    inference.inputs.insert(name.clone(), tensor.map_err(|error| tensor_error(name, &error))?);
    Ok(Invocation { inference, form: AnswerForm::Predict { is_one_row: false } })
}

#[cfg(test)]
mod tests {
    use modelopt_graph::DataType;

    use super::*;
    use crate::Dimension;

    fn signature(dtype: DataType) -> Signature {
        let shape = Some(vec![Dimension::Any, Dimension::Fixed(2)]);
        let spec = TensorSpec { name: "x".to_owned(), dtype, shape };
        Signature { inputs: vec![spec], outputs: Vec::new() }
    }

    fn parse(content_type: &str, body: impl Into<Bytes>) -> Result<Invocation, ServeError> {
        let signature = signature(DataType::FLOAT);
        parse_invocation(Some(content_type), None, &body.into(), &signature, &Limits::default())
    }

    fn table() -> Tensor {
        Tensor::of(vec![2, 2], &[1f32, 2.0, 3.0, -4.5]).unwrap()
    }

    #[test]
    fn rows_of_csv_are_rows_of_the_input() {
        for text in ["1,2\n3,-4.5\n", "1, 2\r\n\r\n3e0,-4.5"] {
            let invocation = parse("text/csv; charset=utf-8", text).unwrap();
            assert_eq!(invocation.inference.inputs["x"], table());
            assert_eq!(invocation.form, AnswerForm::Predict { is_one_row: false });
        }
    }

    #[test]
    fn wrong_cells_of_csv_are_named() {
        let error = |text: &'static str| parse("text/csv", text).unwrap_err().to_string();
        assert_eq!(
            error("1,2\n3,x"),
            "input 'x', element 3 (row 1, column 1): no value where a number should be"
        );
        assert!(error("1,nan").contains("element 1 (row 0, column 1)"));
        assert!(error("1,").contains("the text ends where a number should be"));
        assert!(error("1 2").contains("something after the value"));
        assert!(error("1,1e39").contains("1e39 is out of the range of FP32"));
        assert_eq!(error("1,2\n3"), "input 'x': row 1 has 1 columns, but the first has 2");
        assert_eq!(error("\n"), "the body has no rows");
    }

    #[test]
    fn csv_is_for_tables_of_floats() {
        let integers = signature(DataType::INT64);
        let body = Bytes::from("1,2");
        let parsed = parse_invocation(Some("text/csv"), None, &body, &integers, &Limits::default());
        assert_eq!(parsed.unwrap_err().status(), 415);
    }

    #[test]
    fn json_is_of_the_protocol_or_of_predict() {
        let infer = r#"{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,-4.5]}]}"#;
        let invocation = parse("application/json", infer).unwrap();
        assert_eq!(invocation.inference.inputs["x"], table());
        assert_eq!(invocation.form, AnswerForm::Infer(Wanted::default()));
        for text in [r#"{"x": [[1, 2], [3, -4.5]]}"#, "[[1, 2], [3, -4.5]]"] {
            let invocation = parse("Application/JSON", text).unwrap();
            assert_eq!(invocation.inference.inputs["x"], table());
            assert_eq!(invocation.form, AnswerForm::Predict { is_one_row: false });
        }
    }

    #[test]
    fn an_input_may_be_called_inputs() {
        let mut signature = signature(DataType::FLOAT);
        signature.inputs[0].name = "inputs".to_owned();
        let body = Bytes::from(r#"{"inputs": [[1, 2], [3, -4.5]]}"#);
        let parsed = parse_invocation(None, None, &body, &signature, &Limits::default()).unwrap();
        assert_eq!(parsed.inference.inputs["inputs"], table());
    }

    #[test]
    fn the_length_of_the_json_stands_in_the_content_type() {
        let json = r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","parameters":{"binary_data_size":16}}]}"#;
        let mut body = json.as_bytes().to_vec();
        body.extend_from_slice(table().bytes().unwrap());
        let content_type = AnswerForm::content_type(Some(json.len()));
        let invocation = parse(&content_type, body.clone()).unwrap();
        assert_eq!(invocation.inference.inputs["x"], table());
        let error = parse(TRITON, body).unwrap_err();
        assert!(error.to_string().ends_with("has no json-header-size"), "{error}");
        assert_eq!(AnswerForm::content_type(None), "application/json");
    }

    #[test]
    fn other_content_types_are_refused() {
        assert_eq!(parse("text/plain", "1").unwrap_err().status(), 415);
    }
}
