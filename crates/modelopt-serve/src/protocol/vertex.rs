//! Vertex AI's form: `{"instances": […]}` in, `{"predictions": […]}` out, of the same length and order.
//!
//! An instance is one row: an object of the model's inputs, or the bare value of a model with one input.
//! A prediction is an object of its outputs, or the bare value of a model with one output.

use bytes::Bytes;
use indexmap::IndexMap;

use super::binary::tensor_error;
use super::elements::{Nested, element_error, shown, write_row};
use super::json::{Kind, Scanner};
use super::limits::{Limits, hold};
use super::predict::{nested, only, spec};
use super::reply::{unwritable, write_text};
use super::request::invalid;
use crate::{Answer, Inference, ServeError, Signature, TensorSpec};

/// Reads a request: what is asked, and how many instances there are.
pub fn parse_instances(
    body: &Bytes,
    signature: &Signature,
    limits: &Limits,
) -> Result<(Inference, usize), ServeError> {
    let mut scanner = Scanner::new(body, limits.depth);
    let mut rows = None;
    let mut first = true;
    scanner.open_object()?;
    while let Some(key) = scanner.next_key(&mut first)? {
        match key.as_ref() {
            "instances" if rows.is_some() => return Err(invalid("instances are given twice")),
            "instances" => rows = Some(Rows::read(&mut scanner, signature, limits)?),
            // Parameters mean nothing to a model.
            _ => drop(scanner.skip()?),
        }
    }
    scanner.end()?;
    let rows = rows.ok_or_else(|| invalid("the request has no instances"))?;
    if rows.count == 0 {
        return Err(invalid("instances are empty"));
    }
    let count = rows.count;
    Ok((rows.stacked(limits)?, count))
}

/// Instances, put on each other input by input.
struct Rows<'a> {
    inputs: IndexMap<&'a str, Input>,
    count: usize,
}

struct Input {
    nested: Nested,
    /// In how many instances it was.
    rows: usize,
}

impl<'a> Rows<'a> {
    fn read(
        scanner: &mut Scanner<'_>,
        signature: &'a Signature,
        limits: &Limits,
    ) -> Result<Self, ServeError> {
        let mut rows = Rows { inputs: IndexMap::new(), count: 0 };
        let mut first = true;
        scanner.open_array()?;
        while scanner.next_item(&mut first)? {
            if scanner.kind() == Kind::Object {
                rows.object(scanner, signature, limits)?;
            } else {
                rows.value(scanner, only(signature)?, limits)?;
            }
            rows.count += 1;
        }
        Ok(rows)
    }

    fn object(
        &mut self,
        scanner: &mut Scanner<'_>,
        signature: &'a Signature,
        limits: &Limits,
    ) -> Result<(), ServeError> {
        let mut first = true;
        scanner.open_object()?;
        while let Some(key) = scanner.next_key(&mut first)? {
            self.value(scanner, spec(signature, &key)?, limits)?;
        }
        let lacking = self.inputs.iter().find(|(_, input)| input.rows <= self.count);
        match lacking {
            Some((name, _)) => {
                Err(invalid(format!("instance {} has no input '{name}'", self.count)))
            }
            None => Ok(()),
        }
    }

    /// Reads one input of the instance.
    fn value(
        &mut self,
        scanner: &mut Scanner<'_>,
        spec: &'a TensorSpec,
        limits: &Limits,
    ) -> Result<(), ServeError> {
        let (name, place) = (spec.name.as_str(), self.count);
        if spec.rank() == Some(0) {
            return Err(invalid(format!(
                "input '{name}' is a scalar: there is none for each instance"
            )));
        }
        let input = match self.inputs.entry(name) {
            indexmap::map::Entry::Occupied(entry) => entry.into_mut(),
            indexmap::map::Entry::Vacant(entry) => {
                entry.insert(Input { nested: nested(spec, limits)?, rows: 0 })
            }
        };
        if input.rows != place {
            let what = if input.rows > place { "has it twice" } else { "is the first to have it" };
            return Err(invalid(format!("input '{}': instance {place} {what}", shown(name))));
        }
        let read = input.nested.read_row(scanner);
        read.map_err(|error| {
            let error = element_error(name, &input.nested, error);
            match error {
                ServeError::Invalid(what) => invalid(format!("instance {place}: {what}")),
                other => other,
            }
        })?;
        input.rows += 1;
        Ok(())
    }

    fn stacked(self, limits: &Limits) -> Result<Inference, ServeError> {
        let mut inference = Inference::default();
        for (name, Input { nested, rows }) in self.inputs {
            hold(nested.shape().len(), limits.rank, || format!("dimensions of input '{name}'"))?;
            let tensor = nested.stacked(rows).map_err(|error| tensor_error(name, &error))?;
            inference.inputs.insert(name.to_owned(), tensor);
        }
        Ok(inference)
    }
}

/// Writes the answer to so many instances.
pub fn write_predictions(answer: &Answer, instances: usize) -> Result<Vec<u8>, ServeError> {
    for (name, tensor) in &answer.outputs {
        if tensor.shape().first() != Some(&instances) {
            let shape = tensor.shape();
            return Err(ServeError::Runtime(format!(
                "output '{name}' of {shape:?} has no row for each of {instances} instances"
            )));
        }
    }
    let mut out = b"{\"predictions\":[".to_vec();
    for row in 0..instances {
        if row > 0 {
            out.push(b',');
        }
        if let (1, Some((name, tensor))) = (answer.outputs.len(), answer.outputs.first()) {
            write_row(&mut out, name, tensor, row)?;
            continue;
        }
        out.push(b'{');
        for (place, (name, tensor)) in answer.outputs.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            write_text(&mut out, name).map_err(|error| unwritable(&error))?;
            out.push(b':');
            write_row(&mut out, name, tensor, row)?;
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{DataType, Tensor};

    use super::*;
    use crate::{Dimension, Timing};

    fn signature(names: &[&str]) -> Signature {
        let spec = |name: &&str| TensorSpec {
            name: (*name).to_owned(),
            dtype: DataType::FLOAT,
            shape: Some(vec![Dimension::Any, Dimension::Fixed(2)]),
        };
        Signature { inputs: names.iter().map(spec).collect(), outputs: Vec::new() }
    }

    fn parse(text: &str, names: &[&str]) -> Result<(Inference, usize), String> {
        let body = Bytes::from(text.to_owned());
        parse_instances(&body, &signature(names), &Limits::default())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn instances_are_rows() {
        let expected = Tensor::of(vec![2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap();
        for text in [
            r#"{"instances": [[1, 2], [3, 4]], "parameters": {"a": [1]}}"#,
            r#"{"parameters": 7, "instances": [{"x": [1, 2]}, {"x": [3, 4]}]}"#,
        ] {
            let (inference, count) = parse(text, &["x"]).unwrap();
            assert_eq!((&inference.inputs["x"], count), (&expected, 2), "{text}");
        }
        let text = r#"{"instances": [{"x": [1, 2], "n": [5, 6]}, {"n": [7, 8], "x": [3, 4]}]}"#;
        let (inference, _) = parse(text, &["x", "n"]).unwrap();
        assert_eq!(inference.inputs["x"], expected);
        let expected = Tensor::of(vec![2, 2], &[5f32, 6.0, 7.0, 8.0]).unwrap();
        assert_eq!(inference.inputs["n"], expected);
    }

    #[test]
    fn instances_that_differ_are_refused_by_their_number() {
        let error = |text| parse(text, &["x", "n"]).unwrap_err();
        assert_eq!(
            error(r#"{"instances": [{"x": [1], "n": [1]}, {"x": [1]}]}"#),
            "instance 1 has no input 'n'"
        );
        assert_eq!(
            error(r#"{"instances": [{"x": [1]}, {"x": [1], "n": [1]}]}"#),
            "input 'n': instance 1 is the first to have it"
        );
        assert_eq!(
            error(r#"{"instances": [{"x": [1], "x": [1]}]}"#),
            "input 'x': instance 0 has it twice"
        );
        assert!(error(r#"{"instances": [[1]]}"#).contains("have to be named"));
        let ragged = parse(r#"{"instances": [[1, 2], [3]]}"#, &["x"]).unwrap_err();
        assert_eq!(
            ragged,
            "instance 1: input 'x', element 3: an array of 1 beside others of 2 at byte 26"
        );
    }

    #[test]
    fn requests_without_instances_are_refused() {
        assert_eq!(parse("{}", &["x"]).unwrap_err(), "the request has no instances");
        assert_eq!(parse(r#"{"instances":[]}"#, &["x"]).unwrap_err(), "instances are empty");
        assert!(parse("[1]", &["x"]).is_err());
    }

    #[test]
    fn predictions_are_rows_of_outputs() {
        let y = Tensor::of(vec![2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap();
        let n = Tensor::of(vec![2], &[5i64, 6]).unwrap();
        let answer = |outputs| Answer { outputs, timing: Timing::default() };
        let one = answer(IndexMap::from([("y".to_owned(), y.clone())]));
        let text = |answer: &Answer, count| {
            write_predictions(answer, count).map(|out| String::from_utf8(out).unwrap())
        };
        assert_eq!(text(&one, 2).unwrap(), r#"{"predictions":[[1.0,2.0],[3.0,4.0]]}"#);
        let two = answer(IndexMap::from([("y".to_owned(), y), ("n".to_owned(), n)]));
        assert_eq!(
            text(&two, 2).unwrap(),
            r#"{"predictions":[{"y":[1.0,2.0],"n":5},{"y":[3.0,4.0],"n":6}]}"#
        );
        assert_eq!(text(&two, 3).unwrap_err().status(), 500);
    }
}
