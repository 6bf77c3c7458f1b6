//! `TensorProto`, in whichever of its fields the elements stand.

use std::ops::Range;

use bytes::Bytes;
use modelopt_graph::{DataType, Payload, SparseTensor, Tensor, element_count};

use super::reader::{Reader, Result};
use crate::error::ErrorKind;
use crate::external::Location;
use crate::field;
use crate::field::tensor as f;
use crate::origin::Extra;
use crate::wire::{Record, Value};

const MESSAGE: &str = "TensorProto";

/// A tensor's fields before they are put together.
#[derive(Default)]
struct Raw {
    name: String,
    dtype: i32,
    shape: Vec<usize>,
    /// `raw_data`.
    bytes: Option<Range<usize>>,
    /// `float_data` and its siblings, in runs of adjacent records.
    typed: Vec<Range<usize>>,
    /// `string_data`, in runs of adjacent records.
    strings: Vec<Range<usize>>,
    external: bool,
    location: Location,
    /// Records that only say where external data lies; dropped once it is found.
    location_records: Vec<Record>,
    extra: Extra,
}

impl Reader {
    /// Reads a tensor and its name; `whose` stands in for the name in errors where it is empty.
    pub(super) fn tensor(&mut self, range: Range<usize>, whose: &str) -> Result<(String, Tensor)> {
        self.wire.count_object()?;
        let mut raw = self.raw_tensor(range)?;
        let label = if raw.name.is_empty() { whose.to_owned() } else { raw.name.clone() };
        let wrong = |why: &str| ErrorKind::Tensor { name: label.clone(), why: why.to_owned() };
        let dtype = DataType::from_number(raw.dtype);
        let count = element_count(&raw.shape)
            .ok_or_else(|| wrong("its shape has more elements than can be addressed"))?;
        let inside = raw.bytes.is_some() || !raw.typed.is_empty() || !raw.strings.is_empty();
        let payload = if raw.external {
            if inside {
                return Err(wrong("it has its elements twice, in the model and outside"));
            }
            let needed = dtype.byte_len(count);
            Payload::Dense(self.external.resolve(&raw.location, &label, needed)?)
        } else {
            for record in std::mem::take(&mut raw.location_records) {
                self.keep(&mut raw.extra, &record);
            }
            self.inside(&mut raw, dtype, &wrong)?
        };
        let tensor = Tensor::new(dtype, raw.shape, payload)
            .map_err(|error| ErrorKind::tensor(&label, &error))?;
        Ok((raw.name, tensor.with_origin(raw.extra.into_origin())))
    }

    /// The elements in whichever field of the message they are.
    fn inside(
        &self,
        raw: &mut Raw,
        dtype: DataType,
        wrong: &dyn Fn(&str) -> ErrorKind,
    ) -> Result<Payload> {
        let typed = !raw.typed.is_empty() || !raw.strings.is_empty();
        if raw.bytes.is_some() && typed {
            return Err(wrong("it has its elements twice, as raw_data and in a typed field"));
        }
        if dtype == DataType::STRING {
            if raw.bytes.is_some() || !raw.typed.is_empty() {
                return Err(wrong("it is of strings, but has numbers"));
            }
            let strings = self
                .runs(&raw.strings)
                .map(|record| Ok(self.wire.share(record?.len().unwrap_or_default())));
            return Ok(Payload::Strings(strings.collect::<Result<_>>()?));
        }
        let known = dtype.bits().is_some();
        if known && !raw.strings.is_empty() {
            return Err(wrong(&format!("it is of {dtype}, but has strings")));
        }
        let runs = raw.typed.iter().chain(&raw.strings);
        raw.extra.payload = runs.map(|run| self.wire.share(run.clone())).collect();
        Ok(Payload::Dense(match raw.bytes.take() {
            Some(data) => self.wire.share(data),
            None if known => self.typed_data(dtype, &raw.typed, wrong)?,
            // Of an unknown type the records are all there is.
            None => Bytes::new(),
        }))
    }

    fn runs(&self, runs: &[Range<usize>]) -> impl Iterator<Item = Result<Record>> {
        runs.iter().flat_map(|run| self.wire.records(run.clone(), MESSAGE))
    }

    fn raw_tensor(&self, range: Range<usize>) -> Result<Raw> {
        let mut raw = Raw::default();
        for record in self.wire.records(range, MESSAGE) {
            let record = record?;
            match (record.field, &record.value) {
                (f::NAME, Value::Len(_)) => self.text(&record, &mut raw.name, &mut raw.extra)?,
                (f::DATA_TYPE, Value::Varint(number)) => {
                    raw.dtype = *number as i32;
                    if raw.dtype == 0 {
                        self.keep(&mut raw.extra, &record);
                    }
                }
                (f::DIMS, _) => self.dims(&record, &mut raw.shape, MESSAGE)?,
                (f::RAW_DATA, Value::Len(content)) => {
                    raw.bytes = Some(content.clone()).filter(|content| !content.is_empty());
                    if raw.bytes.is_none() {
                        self.keep(&mut raw.extra, &record);
                    }
                }
                (
                    f::FLOAT_DATA | f::INT32_DATA | f::INT64_DATA | f::DOUBLE_DATA | f::UINT64_DATA,
                    _,
                ) => {
                    // A packed list of nothing is as good as none.
                    if record.len().is_none_or(|content| !content.is_empty()) {
                        extend(&mut raw.typed, record.span);
                    }
                }
                (f::STRING_DATA, Value::Len(_)) => extend(&mut raw.strings, record.span),
                (f::EXTERNAL_DATA, Value::Len(content)) => {
                    let entry = self.metadata(content.clone())?;
                    raw.location.set(&entry.key, entry.value);
                    raw.location_records.push(record);
                }
                (f::DATA_LOCATION, Value::Varint(location)) => {
                    raw.external = *location == 1;
                    raw.location_records.push(record);
                }
                _ => self.keep(&mut raw.extra, &record),
            }
        }
        Ok(raw)
    }

    /// The little-endian elements that typed fields hold; a range of the file where the wire
    /// has them in that form.
    fn typed_data(
        &self,
        dtype: DataType,
        runs: &[Range<usize>],
        wrong: &dyn Fn(&str) -> ErrorKind,
    ) -> Result<Bytes> {
        let (field, width) = typed_field(dtype);
        let fixed = matches!(field, f::FLOAT_DATA | f::DOUBLE_DATA);
        let mut bytes = Vec::new();
        for record in self.runs(runs) {
            let record = record?;
            match &record.value {
                _ if record.field != field => {
                    return Err(wrong(&format!("its elements are not in the field for {dtype}")));
                }
                Value::Len(content) if fixed && *runs == [record.span.clone()] => {
                    return Ok(self.wire.share(content.clone()));
                }
                Value::Len(content) if fixed => {
                    bytes.extend_from_slice(self.wire.view(content.clone()));
                }
                Value::Fixed32(bits) if field == f::FLOAT_DATA => {
                    bytes.extend_from_slice(&bits.to_le_bytes());
                }
                Value::Fixed64(bits) if field == f::DOUBLE_DATA => {
                    bytes.extend_from_slice(&bits.to_le_bytes());
                }
                Value::Varint(_) | Value::Len(_) if !fixed => {
                    for number in self.varints(&record, MESSAGE)? {
                        let element = number.to_le_bytes();
                        bytes.extend_from_slice(element.get(..width).unwrap_or_default());
                    }
                }
                _ => return Err(wrong("its elements are of the wrong kind")),
            }
        }
        if dtype.bits() == Some(6) {
            bytes = pack_six_bits(&bytes);
        }
        Ok(bytes.into())
    }

    /// Reads a tensor whose name no graph knows, so that the tensor itself has to keep it.
    pub(super) fn named_tensor(
        &mut self,
        range: Range<usize>,
        whose: &str,
    ) -> Result<(String, Tensor)> {
        let (name, tensor) = self.tensor(range.clone(), whose)?;
        if name.is_empty() {
            return Ok((name, tensor));
        }
        let mut extra = Extra::of(tensor.origin()).cloned().unwrap_or_default();
        for record in self.wire.records(range, "TensorProto") {
            let record = record?;
            if record.field == f::NAME && record.len().is_some() {
                self.keep(&mut extra, &record);
            }
        }
        Ok((name, tensor.with_origin(extra.into_origin())))
    }

    pub(super) fn sparse_tensor(&mut self, range: Range<usize>) -> Result<(String, SparseTensor)> {
        let mut extra = Extra::default();
        let (mut values, mut indices, mut shape) = (None, None, Vec::new());
        for record in self.wire.records(range, "SparseTensorProto") {
            let record = record?;
            match (record.field, record.len()) {
                (field::sparse_tensor::VALUES, Some(content)) if values.is_none() => {
                    values = Some(content);
                }
                (field::sparse_tensor::INDICES, Some(content)) if indices.is_none() => {
                    indices = Some(content);
                }
                (field::sparse_tensor::VALUES | field::sparse_tensor::INDICES, Some(_)) => {
                    return Err(self.invalid("a second value", &record, "SparseTensorProto"));
                }
                (field::sparse_tensor::DIMS, _) => {
                    self.dims(&record, &mut shape, "SparseTensorProto")?;
                }
                _ => self.keep(&mut extra, &record),
            }
        }
        let values = values.ok_or(ErrorKind::Missing("values in a sparse tensor"))?;
        let indices = indices.ok_or(ErrorKind::Missing("indices in a sparse tensor"))?;
        let (name, values) = self.named_tensor(values, "values of a sparse tensor")?;
        let (_, indices) = self.named_tensor(indices, "indices of a sparse tensor")?;
        Ok((name, SparseTensor { values, indices, shape, origin: extra.into_origin() }))
    }
}

/// Appends a range to a list; neighbours become one.
fn extend(runs: &mut Vec<Range<usize>>, span: Range<usize>) {
    match runs.last_mut() {
        Some(last) if last.end == span.start => last.end = span.end,
        _ => runs.push(span),
    }
}

/// Elements of six bits as raw data has them, four to three bytes; in a typed field each has an
/// entry of its own.
fn pack_six_bits(elements: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(elements.len());
    for four in elements.chunks(4) {
        let bits =
            four.iter().rev().fold(0u32, |bits, &element| bits << 6 | u32::from(element & 63));
        let bytes = (6 * four.len()).div_ceil(8);
        packed.extend_from_slice(bits.to_le_bytes().get(..bytes).unwrap_or_default());
    }
    packed
}

/// The typed field for elements of a type, and the bytes that one entry of it stands for.
fn typed_field(dtype: DataType) -> (u32, usize) {
    match dtype {
        DataType::FLOAT | DataType::COMPLEX64 => (f::FLOAT_DATA, 4),
        DataType::DOUBLE | DataType::COMPLEX128 => (f::DOUBLE_DATA, 8),
        DataType::INT64 => (f::INT64_DATA, 8),
        DataType::UINT64 => (f::UINT64_DATA, 8),
        DataType::UINT32 => (f::UINT64_DATA, 4),
        // Sub-byte types stand packed, one byte in each entry.
        _ => (f::INT32_DATA, dtype.bits().map_or(1, |bits| (bits as usize).div_ceil(8))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_bits_are_packed_from_the_lowest_bit_on() {
        // Elements 1, 2, 3, 63 as in onnx.proto: byte0 = x0 | (x1 & 3) << 6, and so on.
        assert_eq!(pack_six_bits(&[1, 2, 3, 63]), [0x81, 0x30, 0xfc]);
        assert_eq!(pack_six_bits(&[63, 63, 63, 63, 1]), [0xff, 0xff, 0xff, 1]);
        assert_eq!(pack_six_bits(&[0xff]), [63]);
        for count in 0..9 {
            let length = DataType::from_number(27).byte_len(count).unwrap();
            assert_eq!(pack_six_bits(&vec![1; count]).len(), length);
        }
    }

    #[test]
    fn neighbours_make_one_run() {
        let mut runs = Vec::new();
        for span in [0..2, 2..5, 6..7, 7..9] {
            extend(&mut runs, span);
        }
        assert_eq!(runs, [0..5, 6..9]);
    }
}
