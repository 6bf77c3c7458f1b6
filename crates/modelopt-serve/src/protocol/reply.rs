//! Answers to infer requests: JSON, and bytes of tensors after it for outputs that are wanted so.

use std::io::{self, Write};

use modelopt_graph::Tensor;

use super::binary::{binary_len, write_binary};
use super::datatype::datatype_name;
use super::elements::write_flat;
use super::request::Wanted;
use crate::{Answer, ServeError};

/// What is answered, and by whom.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The model.
    pub model: &'a str,
    /// Its version.
    pub version: &'a str,
    /// What the client called its request.
    pub id: Option<&'a str>,
    /// The outputs.
    pub answer: &'a Answer,
    /// How they are wanted.
    pub wanted: &'a Wanted,
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyBody {
    /// JSON, and binary data after it.
    pub bytes: Vec<u8>,
    /// What `Inference-Header-Content-Length` has to say: bytes of JSON, where binary data follows them.
    pub header: Option<usize>,
}

impl ReplyBody {
    /// The content type.
    pub fn content_type(&self) -> &'static str {
        if self.header.is_some() { "application/octet-stream" } else { "application/json" }
    }
}

impl Reply<'_> {
    /// Writes the body.
    pub fn write(&self) -> Result<ReplyBody, ServeError> {
        let outputs = &self.answer.outputs;
        let is_binary = |name: &String| self.wanted.is_binary(name);
        let binary: Vec<&Tensor> =
            outputs.iter().filter(|(name, _)| is_binary(name)).map(|(_, tensor)| tensor).collect();
        let binary_bytes: usize = binary.iter().map(|tensor| binary_len(tensor)).sum();
        let elements: usize = outputs.values().map(Tensor::len).sum();
        // What it takes without growing in most cases; JSON has about a dozen bytes an element.
        let json = 128 + 128 * outputs.len() + if binary.is_empty() { 12 * elements } else { 0 };
        let mut out = Vec::with_capacity(json.saturating_add(binary_bytes));
        self.json(&mut out)?;
        let header = (!binary.is_empty()).then_some(out.len());
        for tensor in binary {
            write_binary(&mut out, tensor);
        }
        Ok(ReplyBody { bytes: out, header })
    }

    fn json(&self, out: &mut Vec<u8>) -> Result<(), ServeError> {
        self.head(out).map_err(|error| unwritable(&error))?;
        for (place, (name, tensor)) in self.answer.outputs.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            let is_binary = self.wanted.is_binary(name);
            describe(out, name, tensor, is_binary)?;
            if !is_binary {
                out.extend_from_slice(b",\"data\":");
                write_flat(out, name, tensor)?;
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
        Ok(())
    }

    fn head(&self, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(b"{\"model_name\":");
        write_text(out, self.model)?;
        out.extend_from_slice(b",\"model_version\":");
        write_text(out, self.version)?;
        if let Some(id) = self.id {
            out.extend_from_slice(b",\"id\":");
            write_text(out, id)?;
        }
        out.extend_from_slice(b",\"outputs\":[");
        Ok(())
    }
}

/// Everything of an output but its elements and the end of the object.
fn describe(
    out: &mut Vec<u8>,
    name: &str,
    tensor: &Tensor,
    is_binary: bool,
) -> Result<(), ServeError> {
    let dtype = tensor.dtype();
    let datatype = datatype_name(dtype).ok_or_else(|| {
        ServeError::Unsupported(format!(
            "output '{name}' is of {dtype}, which does not go over the wire"
        ))
    })?;
    let mut write = || {
        out.extend_from_slice(b"{\"name\":");
        write_text(out, name)?;
        write!(out, ",\"datatype\":\"{datatype}\",\"shape\":[")?;
        for (axis, size) in tensor.shape().iter().enumerate() {
            write!(out, "{}{size}", if axis > 0 { "," } else { "" })?;
        }
        out.push(b']');
        if is_binary {
            let size = binary_len(tensor);
            write!(out, ",\"parameters\":{{\"binary_data_size\":{size}}}")?;
        }
        Ok(())
    };
    write().map_err(|error: io::Error| unwritable(&error))
}

/// Writes a text as a string of JSON.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    serde_json::to_writer(out, text).map_err(io::Error::from)
}

/// The error of an answer that cannot be written, which memory does not have.
pub(crate) fn unwritable(error: &io::Error) -> ServeError {
    ServeError::Runtime(format!("the answer could not be written: {error}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use indexmap::IndexMap;
    use modelopt_graph::{DataType, Payload};

    use super::*;
    use crate::Timing;

    fn answer() -> Answer {
        let y = Tensor::of(vec![1, 2], &[0.1f32, 2.0]).unwrap();
        let strings = vec![Bytes::from("a"), Bytes::from("é")];
        let s = Tensor::new(DataType::STRING, vec![2], Payload::Strings(strings)).unwrap();
        let outputs = IndexMap::from([("y".to_owned(), y), ("s".to_owned(), s)]);
        Answer { outputs, timing: Timing::default() }
    }

    fn write(id: Option<&str>, wanted: &Wanted) -> ReplyBody {
        let answer = answer();
        let reply = Reply { model: "m\"1", version: "2", id, answer: &answer, wanted };
        reply.write().unwrap()
    }

    #[test]
    fn answers_are_json_where_nothing_else_is_wanted() {
        let body = write(Some("7"), &Wanted::default());
        assert_eq!((body.header, body.content_type()), (None, "application/json"));
        let text = r#"{"model_name":"m\"1","model_version":"2","id":"7","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[0.1,2.0]},{"name":"s","datatype":"BYTES","shape":[2],"data":["a","é"]}]}"#;
        assert_eq!(String::from_utf8(body.bytes).unwrap(), text);
    }

    #[test]
    fn binary_outputs_follow_the_json_in_their_order() {
        let body = write(None, &Wanted { binary: true, ..Wanted::default() });
        let header = body.header.unwrap();
        let json = std::str::from_utf8(&body.bytes[..header]).unwrap();
        let text = r#"{"model_name":"m\"1","model_version":"2","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}},{"name":"s","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":11}}]}"#;
        assert_eq!(json, text);
        let mut data = [0.1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
        data.extend_from_slice(&[1, 0, 0, 0, b'a', 2, 0, 0, 0, 0xc3, 0xa9]);
        assert_eq!(&body.bytes[header..], data);
        assert_eq!(body.content_type(), "application/octet-stream");
    }

    #[test]
    fn each_output_is_written_as_it_is_wanted() {
        let outputs = IndexMap::from([("s".to_owned(), false)]);
        let body = write(None, &Wanted { binary: true, outputs });
        let json = String::from_utf8(body.bytes[..body.header.unwrap()].to_vec()).unwrap();
        assert!(json.contains("\"binary_data_size\":8") && json.contains("\"data\":[\"a\",\"é\"]"));
        assert_eq!(body.bytes.len() - body.header.unwrap(), 8);
    }

    #[test]
    fn types_without_a_name_are_no_answer() {
        let y = Tensor::dense(DataType::COMPLEX64, vec![1], vec![0; 8]).unwrap();
        let outputs = IndexMap::from([("y".to_owned(), y)]);
        let answer = Answer { outputs, timing: Timing::default() };
        let wanted = Wanted::default();
        let reply = Reply { model: "m", version: "1", id: None, answer: &answer, wanted: &wanted };
        let error = reply.write().unwrap_err();
        assert_eq!(error.status(), 501);
        assert!(error.to_string().contains("'y' is of complex64"), "{error}");
    }
}
