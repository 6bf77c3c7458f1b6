//! `POST /predict`: inputs as people write them.
//!
//! ```text
//! {"x": [[1, 2], [3, 4]], "n": [5, 6]}       inputs by name
//! {"features": [1, 2]}   [1, 2]   [[1, 2]]   the input of a model that has only one
//! ```
//!
//! Types come from the model's signature and shapes from the nesting. A value with one dimension less than
//! its input is a batch of one. The answer has outputs by name, nested as their shapes are, and where names
//! of classes are known, what a row is and how sure that is.

use std::io;

use bytes::Bytes;
use modelopt_graph::Tensor;
use serde::Serialize;

use super::binary::tensor_error;
use super::elements::{Nested, element_error, shown, type_error, write_nested};
use super::json::{Kind, Scanner};
use super::limits::{Limits, hold};
use super::reply::{unwritable, write_text};
use super::request::invalid;
use crate::{Answer, Inference, ServeError, Signature, TensorSpec};

/// What a model with one input is also given under.
const FEATURES: &str = "features";

/// What was asked in this form.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// What is asked.
    pub inference: Inference,
    /// Whether an input had no dimension for a batch, so that one row is asked for.
    pub is_one_row: bool,
}

/// Names of the classes that a model tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassNames {
    /// The output with a score for each; the first that looks like it where none is named.
    pub output: Option<String>,
    /// Names, in the order of the scores.
    pub names: Vec<String>,
}

/// Reads a request.
pub fn parse_predict(
    body: &Bytes,
    signature: &Signature,
    limits: &Limits,
) -> Result<Prediction, ServeError> {
    let mut scanner = Scanner::new(body, limits.depth);
    let mut prediction = Prediction { inference: Inference::default(), is_one_row: false };
    if scanner.kind() == Kind::Object {
        scanner.open_object()?;
        let mut first = true;
        while let Some(key) = scanner.next_key(&mut first)? {
            let spec = spec(signature, &key)?;
            prediction.read(&mut scanner, spec, limits)?;
        }
    } else {
        prediction.read(&mut scanner, only(signature)?, limits)?;
    }
    scanner.end()?;
    Ok(prediction)
}

/// The input of this name, or the only one.
pub(crate) fn spec<'a>(signature: &'a Signature, name: &str) -> Result<&'a TensorSpec, ServeError> {
    if let Some(spec) = signature.input(name) {
        return Ok(spec);
    }
    if let ([spec], FEATURES) = (signature.inputs.as_slice(), name) {
        return Ok(spec);
    }
    Err(invalid(format!("the model has no input '{}'", shown(name))))
}

/// The input of a model that has only one.
pub(crate) fn only(signature: &Signature) -> Result<&TensorSpec, ServeError> {
    let [spec] = signature.inputs.as_slice() else {
        let names: Vec<&str> = signature.inputs.iter().map(|spec| spec.name.as_str()).collect();
        let names = names.join("', '");
        return Err(invalid(format!("the model has the inputs '{names}', which have to be named")));
    };
    Ok(spec)
}

/// A reader of the elements of an input.
pub(crate) fn nested(spec: &TensorSpec, limits: &Limits) -> Result<Nested, ServeError> {
    let size = spec.dtype.byte_len(1).unwrap_or(1).max(1);
    let most = limits.elements.min(limits.tensor_bytes / size);
    Nested::new(spec.dtype, most).ok_or_else(|| type_error(&spec.name, spec.dtype))
}

impl Prediction {
    fn read(
        &mut self,
        scanner: &mut Scanner<'_>,
        spec: &TensorSpec,
        limits: &Limits,
    ) -> Result<(), ServeError> {
        let name = &spec.name;
        let mut nested = nested(spec, limits)?;
        let read = nested.read(scanner);
        read.map_err(|error| element_error(name, &nested, error))?;
        let mut shape = nested.shape();
        hold(shape.len(), limits.rank, || format!("dimensions of input '{name}'"))?;
        if spec.rank() == Some(shape.len() + 1) {
            shape.insert(0, 1);
            self.is_one_row = true;
        }
        let tensor = nested.tensor(shape).map_err(|error| tensor_error(name, &error))?;
        if self.inference.inputs.insert(name.clone(), tensor).is_some() {
            return Err(invalid(format!("input '{name}' is given twice")));
        }
        Ok(())
    }
}

/// Writes the answer to a request: outputs by name, and under `label` and `confidence` what one row is, or
/// under `labels` and `confidence` what each of them is. Outputs with these names win.
pub fn write_predict(
    is_one_row: bool,
    answer: &Answer,
    classes: Option<&ClassNames>,
) -> Result<Vec<u8>, ServeError> {
    let mut out = vec![b'{'];
    for (place, (name, tensor)) in answer.outputs.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_text(&mut out, name).map_err(|error| unwritable(&error))?;
        out.push(b':');
        write_nested(&mut out, name, tensor)?;
    }
    if let Some(classes) = classes
        && let Some(scores) = scores(answer, classes)
    {
        let winners = scores.chunks_exact(classes.names.len()).map(winner);
        let named = winners.map(|winner| {
            let (place, confidence) = winner?;
            Some((classes.names.get(place)?.as_str(), confidence))
        });
        let (labels, confidences): (Vec<Option<&str>>, Vec<Option<f32>>) =
            named.map(Option::unzip).unzip();
        if is_one_row && let ([label], [confidence]) = (labels.as_slice(), confidences.as_slice()) {
            member(&mut out, answer, "label", label)?;
            member(&mut out, answer, "confidence", confidence)?;
        } else {
            member(&mut out, answer, "labels", &labels)?;
            member(&mut out, answer, "confidence", &confidences)?;
        }
    }
    out.push(b'}');
    Ok(out)
}

fn member(
    out: &mut Vec<u8>,
    answer: &Answer,
    key: &str,
    value: &impl Serialize,
) -> Result<(), ServeError> {
    if answer.outputs.contains_key(key) {
        return Ok(());
    }
    out.push(b',');
    let mut write = || {
        write_text(out, key)?;
        out.push(b':');
        serde_json::to_writer(&mut *out, value).map_err(io::Error::from)
    };
    write().map_err(|error| unwritable(&error))
}

/// The scores of all rows: an output of floats that has one for each class, and nothing else but rows.
fn scores(answer: &Answer, classes: &ClassNames) -> Option<Vec<f32>> {
    let count = classes.names.len();
    let fits = |tensor: &&Tensor| {
        let shape = tensor.shape();
        tensor.dtype().is_float() && shape.len() <= 2 && shape.last() == Some(&count) && count > 0
    };
    let tensor = match &classes.output {
        Some(name) => answer.outputs.get(name).filter(fits),
        None => answer.outputs.values().find(fits),
    };
    Some(tensor?.to_f32()?.into_owned())
}

/// The class with the highest score and how sure that is: the score itself among probabilities, and what
/// softmax makes of it among others. None where a score is not finite.
fn winner(scores: &[f32]) -> Option<(usize, f32)> {
    /// How far from 1 a sum of probabilities is that were rounded, to 16 bits at worst.
    const ROUNDING: f32 = 5e-3;
    if scores.iter().any(|score| !score.is_finite()) {
        return None;
    }
    // The last of equal ones is taken, which is the first from the end.
    let (place, &highest) = scores.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1))?;
    let sum: f32 = scores.iter().sum();
    let are_probabilities =
        scores.iter().all(|score| *score >= 0.0) && (sum - 1.0).abs() <= ROUNDING;
    if are_probabilities {
        return Some((place, highest));
    }
    let sum: f32 = scores.iter().map(|score| (score - highest).exp()).sum();
    Some((place, 1.0 / sum))
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use modelopt_graph::DataType;

    use super::*;
    use crate::{Dimension, Timing};

    fn signature(inputs: &[(&str, DataType, &[usize])]) -> Signature {
        let spec = |(name, dtype, row): &(&str, DataType, &[usize])| {
            let row = row.iter().map(|size| Dimension::Fixed(*size));
            let shape = std::iter::once(Dimension::Any).chain(row).collect();
            TensorSpec { name: (*name).to_owned(), dtype: *dtype, shape: Some(shape) }
        };
        Signature { inputs: inputs.iter().map(spec).collect(), outputs: Vec::new() }
    }

    fn one() -> Signature {
        signature(&[("x", DataType::FLOAT, &[2])])
    }

    fn parse(text: &str, signature: &Signature) -> Result<Prediction, String> {
        parse_predict(&Bytes::from(text.to_owned()), signature, &Limits::default())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn inputs_are_given_by_name() {
        let two = signature(&[("x", DataType::FLOAT, &[2]), ("n", DataType::INT64, &[])]);
        let prediction = parse(r#"{"n": [5, 6], "x": [[1, 2], [3, 4.5]]}"#, &two).unwrap();
        let inputs = &prediction.inference.inputs;
        assert_eq!(inputs["x"], Tensor::of(vec![2, 2], &[1f32, 2.0, 3.0, 4.5]).unwrap());
        assert_eq!(inputs["n"], Tensor::of(vec![2], &[5i64, 6]).unwrap());
        assert!(!prediction.is_one_row);
    }

    #[test]
    fn one_input_needs_no_name_and_one_row_no_batch() {
        for text in ["[1, 2]", "[[1, 2]]", r#"{"features": [1, 2]}"#, r#"{"x": [[1, 2]]}"#] {
            let prediction = parse(text, &one()).unwrap();
            let expected = Tensor::of(vec![1, 2], &[1f32, 2.0]).unwrap();
            assert_eq!(prediction.inference.inputs["x"], expected, "{text}");
            assert_eq!(prediction.is_one_row, !text.contains("[["), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_input_and_element() {
        let error = |text| parse(text, &one()).unwrap_err();
        assert_eq!(
            error(r#"{"x": [[1, 2], [3, "4"]]}"#),
            "input 'x', element 3: a string where a number should be at byte 19"
        );
        assert_eq!(error(r#"{"z": 1}"#), "the model has no input 'z'");
        assert_eq!(error(r#"{"x": [1, 2], "x": [1, 2]}"#), "input 'x' is given twice");
        assert_eq!(
            error("[[1, 2], [3]]"),
            "input 'x', element 3: an array of 1 beside others of 2 at byte 12"
        );
        let two = signature(&[("x", DataType::FLOAT, &[2]), ("n", DataType::INT64, &[])]);
        let unnamed = parse("[1, 2]", &two).unwrap_err();
        assert_eq!(unnamed, "the model has the inputs 'x', 'n', which have to be named");
        assert!(parse(r#"{"features": 1}"#, &two).is_err());
    }

    #[test]
    fn more_elements_than_allowed_are_refused() {
        let limits = Limits { tensor_bytes: 8, ..Limits::default() };
        let body = Bytes::from("[[1,2],[3,4]]");
        let error = parse_predict(&body, &one(), &limits).unwrap_err();
        assert_eq!(error.status(), 413);
    }

    fn answer(name: &str, tensor: Tensor) -> Answer {
        let outputs = IndexMap::from([(name.to_owned(), tensor)]);
        Answer { outputs, timing: Timing::default() }
    }

    fn written(is_one_row: bool, answer: &Answer) -> String {
        let names = ["cat", "dog"].map(str::to_owned).to_vec();
        let classes = ClassNames { output: None, names };
        String::from_utf8(write_predict(is_one_row, answer, Some(&classes)).unwrap()).unwrap()
    }

    #[test]
    fn probabilities_are_the_confidence() {
        let y = answer("y", Tensor::of(vec![1, 2], &[0.25f32, 0.75]).unwrap());
        assert_eq!(written(true, &y), r#"{"y":[[0.25,0.75]],"label":"dog","confidence":0.75}"#);
        assert_eq!(
            written(false, &y),
            r#"{"y":[[0.25,0.75]],"labels":["dog"],"confidence":[0.75]}"#
        );
    }

    #[test]
    fn other_scores_go_through_softmax() {
        let y = answer("y", Tensor::of(vec![2, 2], &[4f32, 4.0, f32::NAN, 1.0]).unwrap());
        assert_eq!(
            written(false, &y),
            r#"{"y":[[4.0,4.0],[null,1.0]],"labels":["cat",null],"confidence":[0.5,null]}"#
        );
    }

    #[test]
    fn what_does_not_look_like_scores_has_no_label() {
        let wide = answer("y", Tensor::of(vec![1, 3], &[1f32, 2.0, 3.0]).unwrap());
        assert_eq!(written(true, &wide), r#"{"y":[[1.0,2.0,3.0]]}"#);
        let integers = answer("y", Tensor::of(vec![1, 2], &[1i64, 2]).unwrap());
        assert_eq!(written(true, &integers), r#"{"y":[[1,2]]}"#);
        let taken = answer("label", Tensor::of(vec![1, 2], &[0f32, 1.0]).unwrap());
        assert_eq!(written(true, &taken), r#"{"label":[[0.0,1.0]],"confidence":1.0}"#);
    }
}
