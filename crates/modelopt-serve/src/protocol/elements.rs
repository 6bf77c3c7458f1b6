//! Elements of a tensor as JSON: arrays in arrays, of which the nesting is the shape.

use std::ops::Range;

use modelopt_graph::{DataType, Payload, Tensor, TensorError};

use super::json::{JsonError, Kind, Scanner};
use super::numbers::{ReadElement, Sink, reader, write_elements};
use crate::ServeError;

/// Reads arrays in arrays into one tensor.
#[derive(Debug)]
pub(crate) struct Nested {
    dtype: DataType,
    read: ReadElement,
    sink: Sink,
    /// How many items the arrays of each level have; none before the first of them is complete.
    dims: Vec<Option<usize>>,
    /// The level of elements, once there was one.
    leaf: Option<usize>,
    count: usize,
    most: usize,
}

/// What is wrong with arrays in arrays.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NestedError {
    /// The text.
    Json(JsonError),
    /// There are more elements than there may be.
    TooMany,
}

impl From<JsonError> for NestedError {
    fn from(error: JsonError) -> Self {
        NestedError::Json(error)
    }
}

impl Nested {
    /// For at most so many elements of a type; none if the type does not go over the wire.
    pub(crate) fn new(dtype: DataType, most: usize) -> Option<Self> {
        Some(Nested {
            dtype,
            read: reader(dtype)?,
            sink: Sink::default(),
            dims: Vec::new(),
            leaf: None,
            count: 0,
            most,
        })
    }

    /// Makes place for as many elements as there may be and as a text of so many bytes can have.
    pub(crate) fn reserve(&mut self, text: usize) {
        // Each takes a digit and a comma.
        let count = self.most.min(text / 2 + 1);
        if self.dtype == DataType::STRING {
            self.sink.strings.reserve_exact(count.min(text / 3 + 1));
        } else if let Some(bytes) = self.dtype.byte_len(count) {
            self.sink.dense.reserve_exact(bytes);
        }
    }

    /// Elements that were read: the place of the one that is wrong, after an error.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Reads a value.
    pub(crate) fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), NestedError> {
        self.value(scanner, 0)
    }

    /// Reads a value that is one of many in the first dimension, of which [`Nested::stacked`] says how
    /// many they were.
    pub(crate) fn read_row(&mut self, scanner: &mut Scanner<'_>) -> Result<(), NestedError> {
        if self.dims.is_empty() {
            self.dims.push(None);
        }
        self.value(scanner, 1)
    }

    /// The shape.
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(|dim| dim.unwrap_or(0)).collect()
    }

    /// The elements as a tensor of a shape.
    pub(crate) fn tensor(self, shape: Vec<usize>) -> Result<Tensor, TensorError> {
        let payload = match self.dtype {
            DataType::STRING => Payload::Strings(self.sink.strings),
            _ => Payload::Dense(self.sink.dense.into()),
        };
        Tensor::new(self.dtype, shape, payload)
    }

    /// What was read by rows as a tensor.
    pub(crate) fn stacked(self, rows: usize) -> Result<Tensor, TensorError> {
        let mut shape = self.shape();
        if let Some(first) = shape.first_mut() {
            *first = rows;
        }
        self.tensor(shape)
    }

    fn value(&mut self, scanner: &mut Scanner<'_>, level: usize) -> Result<(), NestedError> {
        if scanner.kind() != Kind::Array {
            if self.leaf.is_none() && self.dims.len() == level {
                self.leaf = Some(level);
            }
            if self.leaf != Some(level) {
                return Err(scanner.unexpected("an array").into());
            }
            return self.element(scanner);
        }
        if self.leaf.is_some_and(|leaf| level >= leaf) {
            return Err(scanner.unexpected(self.wanted()).into());
        }
        if self.dims.len() == level {
            self.dims.push(None);
        }
        scanner.open_array()?;
        let mut items = 0;
        let mut first = true;
        while scanner.next_item(&mut first)? {
            if self.leaf == Some(level + 1) {
                self.element(scanner)?;
            } else {
                self.value(scanner, level + 1)?;
            }
            items += 1;
        }
        match self.dims.get_mut(level) {
            Some(Some(others)) if *others != items => {
                let what = format!("an array of {items} beside others of {others}");
                Err(scanner.error(what).into())
            }
            Some(dim) => {
                *dim = Some(items);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn element(&mut self, scanner: &mut Scanner<'_>) -> Result<(), NestedError> {
        if self.count == self.most {
            return Err(NestedError::TooMany);
        }
        (self.read)(scanner, &mut self.sink)?;
        self.count += 1;
        Ok(())
    }

    fn wanted(&self) -> &'static str {
        match self.dtype {
            DataType::STRING => "a string",
            DataType::BOOL => "true or false",
            _ => "a number",
        }
    }
}

/// Writes a tensor as one array, whatever its shape.
pub(crate) fn write_flat(out: &mut Vec<u8>, name: &str, tensor: &Tensor) -> Result<(), ServeError> {
    out.push(b'[');
    write_elements(out, name, tensor, 0..tensor.len())?;
    out.push(b']');
    Ok(())
}

/// Writes a tensor as arrays in arrays.
pub(crate) fn write_nested(
    out: &mut Vec<u8>,
    name: &str,
    tensor: &Tensor,
) -> Result<(), ServeError> {
    nested(out, name, tensor, (tensor.shape(), 0..tensor.len()))
}

/// Writes what a tensor has at one place of its first dimension.
pub(crate) fn write_row(
    out: &mut Vec<u8>,
    name: &str,
    tensor: &Tensor,
    row: usize,
) -> Result<(), ServeError> {
    let (rows, dims) = tensor.shape().split_first().unwrap_or((&1, &[]));
    let length = tensor.len() / (*rows).max(1);
    nested(out, name, tensor, (dims, row * length..(row + 1) * length))
}

fn nested(
    out: &mut Vec<u8>,
    name: &str,
    tensor: &Tensor,
    (dims, range): (&[usize], Range<usize>),
) -> Result<(), ServeError> {
    match dims {
        [] => write_elements(out, name, tensor, range),
        [_] => {
            out.push(b'[');
            write_elements(out, name, tensor, range)?;
            out.push(b']');
            Ok(())
        }
        [items, inner @ ..] => {
            out.push(b'[');
            let length = range.len() / (*items).max(1);
            for item in 0..*items {
                if item > 0 {
                    out.push(b',');
                }
                let start = range.start + item * length;
                nested(out, name, tensor, (inner, start..start + length))?;
            }
            out.push(b']');
            Ok(())
        }
    }
}

/// The error of an input whose elements could not be read, with the place of the one that is wrong.
pub(crate) fn element_error(input: &str, nested: &Nested, error: NestedError) -> ServeError {
    let place = nested.count();
    match error {
        NestedError::Json(error) => {
            ServeError::Invalid(format!("input '{}', element {place}: {error}", shown(input)))
        }
        NestedError::TooMany => ServeError::TooMany {
            what: format!("elements of input '{}'", shown(input)),
            count: place as u64 + 1,
            limit: place as u64,
        },
    }
}

/// The error of an input whose type does not go over the wire.
pub(crate) fn type_error(input: &str, dtype: DataType) -> ServeError {
    ServeError::Unsupported(format!(
        "input '{input}' is of {dtype}, which does not go over the wire"
    ))
}

/// A name that a client gave, in as many characters as people read.
pub(crate) fn shown(name: &str) -> &str {
    const SHOWN: usize = 128;
    name.char_indices().nth(SHOWN).and_then(|(end, _)| name.get(..end)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dtype: DataType, text: &str) -> Result<Tensor, String> {
        let mut nested = Nested::new(dtype, 6).unwrap();
        let mut scanner = Scanner::new(text.as_bytes(), 8);
        if let Err(error) = nested.read(&mut scanner) {
            return Err(element_error("x", &nested, error).to_string());
        }
        let shape = nested.shape();
        Ok(nested.tensor(shape).unwrap())
    }

    #[test]
    fn nesting_is_the_shape() {
        let shape = |text| read(DataType::UINT8, text).unwrap().shape().to_vec();
        assert_eq!(shape("7"), [0; 0]);
        assert_eq!(shape("[7]"), [1]);
        assert_eq!(shape("[[1,2,3],[4,5,6]]"), [2, 3]);
        assert_eq!(shape("[[[1]],[[2]]]"), [2, 1, 1]);
        assert_eq!(shape("[]"), [0]);
        assert_eq!(shape("[[],[]]"), [2, 0]);
        let tensor = read(DataType::UINT8, "[[1,2,3],[4,5,6]]").unwrap();
        assert_eq!(tensor.bytes().unwrap().as_ref(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn ragged_nesting_is_refused_where_it_is_seen() {
        let error = |text| read(DataType::UINT8, text).unwrap_err();
        assert_eq!(
            error("[[1,2],[3]]"),
            "input 'x', element 3: an array of 1 beside others of 2 at byte 10"
        );
        assert_eq!(
            error("[[1],2]"),
            "input 'x', element 1: a number where an array should be at byte 5"
        );
        assert_eq!(
            error("[1,[2]]"),
            "input 'x', element 1: an array where an integer should be at byte 3"
        );
        assert_eq!(
            error("[[[]],[1]]"),
            "input 'x', element 0: a number where an array should be at byte 7"
        );
        assert_eq!(
            error("[[1],[[2]]]"),
            "input 'x', element 1: an array where an integer should be at byte 6"
        );
        assert!(error("[[],[1]]").contains("an array of 1 beside others of 0"));
        assert!(error("{\"a\":1}").contains("an object where an integer should be"));
    }

    #[test]
    fn more_elements_than_there_may_be_are_refused() {
        let error = read(DataType::UINT8, "[1,2,3,4,5,6,7]").unwrap_err();
        assert_eq!(error, "elements of input 'x': 7, but at most 6 are taken");
    }

    #[test]
    fn rows_are_put_on_each_other() {
        let mut nested = Nested::new(DataType::UINT8, 6).unwrap();
        for row in ["[1,2]", "[3,4]", "[5,6]"] {
            nested.read_row(&mut Scanner::new(row.as_bytes(), 8)).unwrap();
        }
        let tensor = nested.stacked(3).unwrap();
        assert_eq!(tensor.shape(), [3, 2]);
        let mut out = Vec::new();
        write_row(&mut out, "x", &tensor, 1).unwrap();
        assert_eq!(out, b"[3,4]");
        let mut nested = Nested::new(DataType::UINT8, 6).unwrap();
        nested.read_row(&mut Scanner::new(b"[1,2]", 8)).unwrap();
        assert!(nested.read_row(&mut Scanner::new(b"[1]", 8)).is_err());
    }

    #[test]
    fn tensors_are_written_flat_and_nested() {
        let tensor = Tensor::of(vec![2, 1, 2], &[1u8, 2, 3, 4]).unwrap();
        let mut out = Vec::new();
        write_flat(&mut out, "y", &tensor).unwrap();
        assert_eq!(out, b"[1,2,3,4]");
        out.clear();
        write_nested(&mut out, "y", &tensor).unwrap();
        assert_eq!(out, b"[[[1,2]],[[3,4]]]");
        out.clear();
        write_nested(&mut out, "y", &Tensor::scalar(7u8)).unwrap();
        assert_eq!(out, b"7");
        out.clear();
        let empty = Tensor::of::<u8>(vec![2, 0, 3], &[]).unwrap();
        write_nested(&mut out, "y", &empty).unwrap();
        assert_eq!(out, b"[[],[]]");
    }

    #[test]
    fn long_names_are_cut_where_characters_end() {
        assert_eq!(shown("x"), "x");
        assert_eq!(shown(&"é".repeat(1000)).chars().count(), 128);
    }
}
