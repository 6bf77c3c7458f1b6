//! Infer requests of the Open Inference Protocol, with Triton's binary tensors.
//!
//! A request is an object of JSON and, where its length is given apart, the bytes of binary tensors after
//! it, in the order of its inputs. Parameters that mean nothing here are ignored, as the protocol wants;
//! those that would change what the answer is, and are not known here, are refused.

use std::time::Duration;

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};
use modelopt_graph::{DataType, Tensor, element_count};
use serde::Deserialize;

use super::binary::{read_binary, tensor_error};
use super::datatype::datatype;
use super::elements::{Nested, element_error, shown, type_error};
use super::json::{Kind, Scanner};
use super::limits::{Limits, hold};
use crate::{Dimension, Inference, ServeError, Signature, TensorSpec};

/// What a client asks, and how it wants the answer.
#[derive(Clone, Debug, Default)]
pub struct InferRequest {
    /// What it asks.
    pub inference: Inference,
    /// How it wants the outputs.
    pub wanted: Wanted,
}

/// Which outputs a client wants as binary data rather than JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Outputs about which nothing is said.
    pub binary: bool,
    /// Outputs about which something is said.
    pub outputs: IndexMap<String, bool>,
}

impl Wanted {
    /// Whether this output goes back as binary data.
    pub fn is_binary(&self, output: &str) -> bool {
        self.outputs.get(output).copied().unwrap_or(self.binary)
    }
}

/// Reads the value of the header `Inference-Header-Content-Length`.
pub fn parse_header_length(value: &[u8]) -> Result<usize, ServeError> {
    let text = std::str::from_utf8(value).unwrap_or_default().trim();
    text.parse()
        .map_err(|_| invalid(format!("'{}' is no length of an inference header", shown(text))))
}

/// Reads an infer request.
///
/// `header` is what `Inference-Header-Content-Length` says: the bytes of the JSON before binary data, or 0
/// for a body that is the only input of a model as bytes.
pub fn parse_infer(
    header: Option<usize>,
    body: &Bytes,
    signature: &Signature,
    limits: &Limits,
) -> Result<InferRequest, ServeError> {
    let json = match header {
        Some(0) => return raw(body, signature, limits),
        Some(length) => body.get(..length).ok_or_else(|| {
            let has = body.len();
            invalid(format!("the header says {length} bytes of JSON, but the body has {has}"))
        })?,
        None => body,
    };
    let draft = Draft::read(json, limits)?;
    let mut rest = body.slice(json.len()..);
    let said = draft.parameters;
    let mut inference = Inference {
        id: draft.id,
        outputs: Vec::with_capacity(draft.outputs.len()),
        priority: said.priority.unwrap_or(0),
        timeout: said.timeout.filter(|timeout| *timeout > 0).map(Duration::from_micros),
        inputs: IndexMap::with_capacity(draft.inputs.len()),
    };
    for input in draft.inputs {
        let tensor = input.tensor(json, &mut rest, limits)?;
        let name = input.name.unwrap_or_default();
        if let Some(tensor) = tensor.or(input.tensor)
            && inference.inputs.insert(name.clone(), tensor).is_some()
        {
            return Err(invalid(format!("input '{}' is given twice", shown(&name))));
        }
    }
    if !rest.is_empty() {
        let left = rest.len();
        return Err(invalid(format!("{left} bytes of binary data belong to no input")));
    }
    let mut wanted =
        Wanted { binary: said.binary_data_output.unwrap_or(false), ..Wanted::default() };
    let mut names = IndexSet::new();
    for (name, binary) in draft.outputs {
        if let Some(binary) = binary {
            wanted.outputs.insert(name.clone(), binary);
        }
        if !names.insert(name.clone()) {
            return Err(invalid(format!("output '{}' is asked for twice", shown(&name))));
        }
        inference.outputs.push(name);
    }
    Ok(InferRequest { inference, wanted })
}

/// A body that is an input as bytes: the batch is one, and at most one more dimension follows from how
/// many bytes there are.
fn raw(body: &Bytes, signature: &Signature, limits: &Limits) -> Result<InferRequest, ServeError> {
    let [spec] = signature.inputs.as_slice() else {
        let count = signature.inputs.len();
        return Err(invalid(format!(
            "a body without JSON is one input, but the model has {count}"
        )));
    };
    hold(body.len(), limits.tensor_bytes, || format!("bytes of input '{}'", spec.name))?;
    let tensor = if spec.dtype == DataType::STRING {
        let shape = raw_shape(spec, 1)?;
        let count = element_count(&shape).unwrap_or(usize::MAX);
        if count != 1 {
            let name = &spec.name;
            return Err(invalid(format!(
                "input '{name}' of a body without JSON is one string, but has {count} elements"
            )));
        }
        let payload = modelopt_graph::Payload::Strings(vec![body.clone()]);
        Tensor::new(spec.dtype, shape, payload).map_err(|error| tensor_error(&spec.name, &error))?
    } else {
        let size = spec.dtype.byte_len(1).ok_or_else(|| type_error(&spec.name, spec.dtype))?;
        let shape = raw_shape(spec, body.len() / size.max(1))?;
        let count = element_count(&shape).unwrap_or(usize::MAX);
        hold(count, limits.elements, || format!("elements of input '{}'", spec.name))?;
        read_binary(&spec.name, (spec.dtype, shape), count, body.clone())?
    };
    let mut inference = Inference::default();
    inference.inputs.insert(spec.name.clone(), tensor);
    Ok(InferRequest { inference, wanted: Wanted { binary: true, ..Wanted::default() } })
}

fn raw_shape(spec: &TensorSpec, elements: usize) -> Result<Vec<usize>, ServeError> {
    let name = &spec.name;
    let Some(dims) = &spec.shape else {
        return Err(invalid(format!(
            "input '{name}' has no shape: it cannot be sent without JSON"
        )));
    };
    let mut shape: Vec<Option<usize>> = dims
        .iter()
        .map(|dim| match dim {
            Dimension::Fixed(size) => Some(*size),
            Dimension::Named(_) | Dimension::Any => None,
        })
        .collect();
    // What has only one dimension is no batch of things, but a thing.
    if let [first @ None, _, ..] = shape.as_mut_slice() {
        *first = Some(1);
    }
    let known = shape.iter().flatten().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    let known = known.ok_or_else(|| invalid(format!("input '{name}' is too large")))?;
    let mut open = shape.iter_mut().filter(|dim| dim.is_none());
    if let Some(dim) = open.next() {
        *dim = Some(elements.checked_div(known).unwrap_or(0));
    }
    if open.next().is_some() {
        return Err(invalid(format!(
            "input '{name}' has more than one dimension that varies: its shape has to be sent"
        )));
    }
    Ok(shape.into_iter().flatten().collect())
}

/// A request of which binary data is not read yet.
#[derive(Debug, Default)]
struct Draft {
    id: Option<String>,
    parameters: RequestParameters,
    inputs: Vec<InputDraft>,
    /// Outputs, and whether they are wanted as binary data where that is said.
    outputs: Vec<(String, Option<bool>)>,
}

/// Parameters of a request that mean something here.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct RequestParameters {
    binary_data_output: Option<bool>,
    priority: Option<u32>,
    /// Microseconds; 0 for none.
    timeout: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct InputParameters {
    binary_data_size: Option<usize>,
    shared_memory_region: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct OutputParameters {
    binary_data: Option<bool>,
    classification: Option<u64>,
    shared_memory_region: Option<String>,
}

/// An input as far as it has been read.
#[derive(Debug, Default)]
struct InputDraft {
    name: Option<String>,
    shape: Option<Vec<usize>>,
    dtype: Option<DataType>,
    binary_size: Option<usize>,
    /// Elements, where what they are was known before them.
    tensor: Option<Tensor>,
    /// Where the elements begin, where it was not.
    later: Option<usize>,
}

impl Draft {
    fn read(json: &[u8], limits: &Limits) -> Result<Self, ServeError> {
        let mut scanner = Scanner::new(json, limits.depth);
        let mut draft = Draft::default();
        let mut has_inputs = false;
        scanner.open_object()?;
        let mut first = true;
        while let Some(key) = scanner.next_member(&mut first)? {
            match key.as_ref() {
                "id" => draft.id = Some(scanner.string("an id")?.into_owned()),
                "parameters" => draft.parameters = parameters(&mut scanner, "the request")?,
                "inputs" if has_inputs => return Err(invalid("inputs are given twice")),
                "inputs" => {
                    has_inputs = true;
                    draft.inputs = items(&mut scanner, limits, "inputs", InputDraft::read)?;
                }
                "outputs" => draft.outputs = items(&mut scanner, limits, "outputs", output)?,
                _ => drop(scanner.skip()?),
            }
        }
        scanner.end()?;
        if !has_inputs {
            return Err(invalid("the request has no inputs"));
        }
        Ok(draft)
    }
}

/// Reads the items of an array, up to as many as there may be.
fn items<T>(
    scanner: &mut Scanner<'_>,
    limits: &Limits,
    what: &str,
    read: fn(&mut Scanner<'_>, usize, &Limits) -> Result<T, ServeError>,
) -> Result<Vec<T>, ServeError> {
    let mut items = Vec::new();
    let mut first = true;
    scanner.open_array()?;
    while scanner.next_item(&mut first)? {
        hold(items.len() + 1, limits.tensors, || what.to_owned())?;
        items.push(read(scanner, items.len(), limits)?);
    }
    Ok(items)
}

/// Reads an output that is asked for.
fn output(
    scanner: &mut Scanner<'_>,
    place: usize,
    _limits: &Limits,
) -> Result<(String, Option<bool>), ServeError> {
    let mut name = None;
    let mut wanted = OutputParameters::default();
    let mut first = true;
    scanner.open_object()?;
    while let Some(key) = scanner.next_member(&mut first)? {
        match key.as_ref() {
            "name" => name = Some(scanner.string("a name")?.into_owned()),
            "parameters" => wanted = parameters(scanner, &format!("output {place}"))?,
            _ => drop(scanner.skip()?),
        }
    }
    let name = name.ok_or_else(|| invalid(format!("output {place} has no name")))?;
    if wanted.classification.is_some_and(|classes| classes > 0) {
        let name = shown(&name);
        return Err(ServeError::Unsupported(format!(
            "output '{name}': the classification extension is not served here"
        )));
    }
    no_shared_memory(wanted.shared_memory_region.as_ref(), "output", &name)?;
    Ok((name, wanted.binary_data))
}

fn no_shared_memory(region: Option<&String>, what: &str, name: &str) -> Result<(), ServeError> {
    if region.is_none() {
        return Ok(());
    }
    let name = shown(name);
    Err(ServeError::Unsupported(format!("{what} '{name}': shared memory is not served here")))
}

/// Reads an object of parameters, of which unknown ones say nothing.
fn parameters<T: for<'a> Deserialize<'a>>(
    scanner: &mut Scanner<'_>,
    of: &str,
) -> Result<T, ServeError> {
    // A list of what an object has would be taken for one.
    if scanner.kind() != Kind::Object {
        return Err(scanner.unexpected("an object of parameters").into());
    }
    let text = scanner.skip()?;
    serde_json::from_slice(text).map_err(|error| invalid(format!("parameters of {of}: {error}")))
}

impl InputDraft {
    fn read(scanner: &mut Scanner<'_>, place: usize, limits: &Limits) -> Result<Self, ServeError> {
        let mut input = InputDraft::default();
        let mut given = InputParameters::default();
        let mut first = true;
        scanner.open_object()?;
        while let Some(key) = scanner.next_member(&mut first)? {
            match key.as_ref() {
                "name" => input.name = Some(scanner.string("a name")?.into()),
                "datatype" => input.dtype = Some(input.read_datatype(scanner, place)?),
                "shape" => input.shape = Some(input.read_shape(scanner, place, limits)?),
                "parameters" => given = parameters(scanner, &input.called(place))?,
                "data" if input.tensor.is_some() || input.later.is_some() => {
                    return Err(invalid(format!("{} has data twice", input.called(place))));
                }
                "data" if input.is_described() => {
                    input.tensor = Some(input.elements(scanner, limits)?);
                }
                "data" => {
                    input.later = Some(scanner.position());
                    scanner.skip()?;
                }
                _ => drop(scanner.skip()?),
            }
        }
        input.binary_size = given.binary_data_size;
        input.complete(given.shared_memory_region.as_ref(), place)?;
        Ok(input)
    }

    /// Holds an input to what it must have.
    fn complete(&self, region: Option<&String>, place: usize) -> Result<(), ServeError> {
        let called = self.called(place);
        let lacks = |what| Err(invalid(format!("{called} has no {what}")));
        let Some(name) = &self.name else { return lacks("name") };
        no_shared_memory(region, "input", name)?;
        if self.shape.is_none() {
            return lacks("shape");
        }
        if self.dtype.is_none() {
            return lacks("datatype");
        }
        match (self.tensor.is_some() || self.later.is_some(), self.binary_size.is_some()) {
            (false, false) => lacks("data"),
            (true, true) => Err(invalid(format!("{called} has data and binary data"))),
            _ => Ok(()),
        }
    }

    fn called(&self, place: usize) -> String {
        match &self.name {
            Some(name) => format!("input '{}'", shown(name)),
            None => format!("input {place}"),
        }
    }

    fn is_described(&self) -> bool {
        self.name.is_some() && self.shape.is_some() && self.dtype.is_some()
    }

    fn read_datatype(
        &self,
        scanner: &mut Scanner<'_>,
        place: usize,
    ) -> Result<DataType, ServeError> {
        let name = scanner.string("a datatype")?;
        datatype(&name).ok_or_else(|| {
            invalid(format!("{}: '{}' is no datatype", self.called(place), shown(&name)))
        })
    }

    fn read_shape(
        &self,
        scanner: &mut Scanner<'_>,
        place: usize,
        limits: &Limits,
    ) -> Result<Vec<usize>, ServeError> {
        let mut shape = Vec::new();
        let mut first = true;
        scanner.open_array()?;
        while scanner.next_item(&mut first)? {
            let axis = shape.len();
            hold(axis + 1, limits.rank, || format!("dimensions of {}", self.called(place)))?;
            let size = scanner.number("a dimension")?;
            shape.push(size.text.parse().map_err(|_| {
                let (called, size) = (self.called(place), shown(size.text));
                invalid(format!("{called}: dimension {axis} of its shape is {size}"))
            })?);
        }
        let called = || self.called(place);
        let count = element_count(&shape).ok_or_else(|| {
            invalid(format!("{}: its shape {shape:?} has too many elements to count", called()))
        })?;
        hold(count, limits.elements, || format!("elements of {}", called()))?;
        Ok(shape)
    }

    /// Reads elements that begin here, once it is known what they are.
    fn elements(&self, scanner: &mut Scanner<'_>, limits: &Limits) -> Result<Tensor, ServeError> {
        let (name, dtype, shape) = self.described()?;
        let count = element_count(&shape).unwrap_or(usize::MAX);
        hold(dtype.byte_len(count).unwrap_or(0), limits.tensor_bytes, || {
            format!("bytes of input '{}'", shown(name))
        })?;
        // One more than there should be is one too many.
        let most = count.saturating_add(1);
        let mut nested = Nested::new(dtype, most).ok_or_else(|| type_error(name, dtype))?;
        nested.reserve(scanner.remaining());
        let read = nested.read(scanner);
        if nested.count() > count {
            let name = shown(name);
            return Err(invalid(format!("input '{name}' has more elements than {shape:?}")));
        }
        read.map_err(|error| element_error(name, &nested, error))?;
        let nesting = nested.shape();
        let is_flat = nesting.len() == 1 || nesting.is_empty() && shape.is_empty();
        if nested.count() != count || !is_flat && nesting != shape {
            let name = shown(name);
            return Err(invalid(format!("input '{name}' has data of {nesting:?}, not {shape:?}")));
        }
        nested.tensor(shape).map_err(|error| tensor_error(name, &error))
    }

    /// Reads what stands elsewhere: in the JSON, before it was known what it is, or in the bytes after it.
    fn tensor(
        &self,
        json: &[u8],
        rest: &mut Bytes,
        limits: &Limits,
    ) -> Result<Option<Tensor>, ServeError> {
        if let Some(start) = self.later {
            let mut scanner = Scanner::starting(json, start, limits.depth);
            return self.elements(&mut scanner, limits).map(Some);
        }
        let Some(size) = self.binary_size else { return Ok(None) };
        let (name, dtype, shape) = self.described()?;
        hold(size, limits.tensor_bytes, || format!("bytes of input '{}'", shown(name)))?;
        let count = element_count(&shape).unwrap_or(usize::MAX);
        if let Some(needed) = dtype.byte_len(count)
            && needed != size
        {
            let name = shown(name);
            return Err(invalid(format!(
                "input '{name}' has {size} bytes of binary data, but {shape:?} needs {needed}"
            )));
        }
        if size > rest.len() {
            let (name, left) = (shown(name), rest.len());
            return Err(invalid(format!(
                "input '{name}' has {size} bytes of binary data, but {left} are left in the body"
            )));
        }
        let bytes = rest.split_to(size);
        read_binary(name, (dtype, shape), count, bytes).map(Some)
    }

    fn described(&self) -> Result<(&str, DataType, Vec<usize>), ServeError> {
        match (&self.name, self.dtype, &self.shape) {
            (Some(name), Some(dtype), Some(shape)) => Ok((name, dtype, shape.clone())),
            _ => Err(invalid("an input has no name, datatype or shape")),
        }
    }
}

pub(crate) fn invalid(what: impl Into<String>) -> ServeError {
    ServeError::Invalid(what.into())
}

#[cfg(test)]
mod tests;
