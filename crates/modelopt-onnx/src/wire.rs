//! Protobuf's wire format: records read from a byte range, with nothing trusted.
//!
//! No ONNX message uses groups, so group records are refused: parsers that follow them can be
//! made to overflow the stack (RUSTSEC-2024-0437).

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use crate::error::ErrorKind;

/// Nesting beyond this many messages is refused; Python's protobuf has the same limit.
pub(crate) const MAX_DEPTH: usize = 100;

/// More length-delimited records than this are refused. A language model of 100,000 nodes has
/// about a million.
pub(crate) const MAX_PARTS: usize = 16_000_000;

/// More nodes, values, attributes and the like than this are refused, whatever the file's size.
const MAX_OBJECTS: usize = 4_000_000;

/// So many objects any file may have.
const FREE_OBJECTS: usize = 100_000;

/// Beyond those, a file must have at least so many bytes for each, as every node with names has.
/// Two bytes are enough to claim an object and it takes some 500 in memory, so that a small file
/// could otherwise blow up into gigabytes.
const BYTES_PER_OBJECT: usize = 12;

/// More dimensions than this, in one shape, occur in no model; runtimes stop at 8 to 64.
pub(crate) const MAX_RANK: usize = 1024;

/// The value of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Where the content of a length-delimited record lies in the file.
    Len(Range<usize>),
}

/// One field of a message.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) field: u32,
    pub(crate) value: Value,
    /// The whole record, tag included.
    pub(crate) span: Range<usize>,
}

impl Record {
    /// The integer of a varint record.
    pub(crate) fn varint(&self) -> Option<u64> {
        match self.value {
            Value::Varint(value) => Some(value),
            _ => None,
        }
    }

    /// The content of a length-delimited record.
    pub(crate) fn len(&self) -> Option<Range<usize>> {
        match &self.value {
            Value::Len(range) => Some(range.clone()),
            _ => None,
        }
    }
}

/// Walks the bytes of one file. Clones count together.
#[derive(Clone)]
pub(crate) struct Wire {
    bytes: Bytes,
    parts: Rc<Cell<usize>>,
    objects: Rc<Cell<usize>>,
}

impl Wire {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Wire { bytes, parts: Rc::default(), objects: Rc::default() }
    }

    /// Counts one part of the file that becomes an object of the model.
    pub(crate) fn count_object(&self) -> Result<(), ErrorKind> {
        let limit = (FREE_OBJECTS + self.bytes.len() / BYTES_PER_OBJECT).min(MAX_OBJECTS);
        count(&self.objects, limit)
    }

    /// A shared view of part of the file.
    pub(crate) fn share(&self, range: Range<usize>) -> Bytes {
        if range.start <= range.end && range.end <= self.bytes.len() {
            self.bytes.slice(range)
        } else {
            Bytes::new()
        }
    }

    /// A borrowed view of part of the file.
    pub(crate) fn view(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// The records of the message that lies in `range`.
    pub(crate) fn records(&self, range: Range<usize>, message: &'static str) -> Records {
        let end = range.end.min(self.bytes.len());
        Records { wire: self.clone(), at: range.start, end, message }
    }
}

fn count(counter: &Cell<usize>, limit: usize) -> Result<(), ErrorKind> {
    counter.set(counter.get() + 1);
    if counter.get() > limit { Err(ErrorKind::TooManyParts(limit)) } else { Ok(()) }
}

/// Iterator over the records of a message; ends after the first error.
pub(crate) struct Records {
    wire: Wire,
    at: usize,
    end: usize,
    message: &'static str,
}

impl Records {
    fn error(&self, what: &'static str, offset: usize) -> ErrorKind {
        ErrorKind::Wire { what, offset, message: self.message }
    }

    fn varint(&mut self) -> Result<u64, ErrorKind> {
        let start = self.at;
        let window = self.wire.view(start..self.end);
        match read_varint(window) {
            Some((value, length)) => {
                self.at += length;
                Ok(value)
            }
            None if window.len() < 10 => Err(self.error("the file ends within a number", start)),
            None => Err(self.error("a number longer than 64 bits", start)),
        }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], ErrorKind> {
        let start = self.at;
        let content = self.wire.view(start..self.end).first_chunk::<N>().copied();
        self.at += N;
        content.ok_or_else(|| self.error("the file ends within a number", start))
    }

    fn record(&mut self) -> Result<Record, ErrorKind> {
        let start = self.at;
        let tag = self.varint()?;
        let field = u32::try_from(tag >> 3).ok().filter(|field| (1..1 << 29).contains(field));
        let field = field.ok_or_else(|| self.error("a field number out of range", start))?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.fixed()?)),
            5 => Value::Fixed32(u32::from_le_bytes(self.fixed()?)),
            2 => {
                count(&self.wire.parts, MAX_PARTS)?;
                let length = self.varint()?;
                let left = self.end - self.at;
                let length = usize::try_from(length).ok().filter(|&length| length <= left);
                let length = length.ok_or_else(|| {
                    self.error("a part that is longer than what holds it (truncated?)", start)
                })?;
                self.at += length;
                Value::Len(self.at - length..self.at)
            }
            3 | 4 => return Err(self.error("a group, which no ONNX message has,", start)),
            _ => return Err(self.error("an unknown kind of field", start)),
        };
        Ok(Record { field, value, span: start..self.at })
    }
}

impl Iterator for Records {
    type Item = Result<Record, ErrorKind>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let record = self.record();
        if record.is_err() {
            self.at = self.end;
        }
        Some(record)
    }
}

/// Reads one varint; `None` when it does not end within the bytes or within ten bytes.
pub(crate) fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Appends one varint.
pub(crate) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(bytes: &[u8]) -> Vec<Result<Record, ErrorKind>> {
        let wire = Wire::new(Bytes::copy_from_slice(bytes));
        wire.records(0..bytes.len(), "Test").collect()
    }

    fn error(bytes: &[u8]) -> String {
        walk(bytes).pop().unwrap().unwrap_err().to_string()
    }

    #[test]
    fn records_of_every_kind_are_read() {
        let records: Vec<Record> = walk(&[
            0x08, 0x96, 0x01, // 1: 150
            0x12, 0x02, 7, 8, // 2: two bytes
            0x1d, 0, 0, 0x80, 0x3f, // 3: 1.0f
            0x21, 1, 0, 0, 0, 0, 0, 0, 0, // 4: fixed64
        ])
        .into_iter()
        .map(Result::unwrap)
        .collect();
        let values: Vec<Value> = records.iter().map(|record| record.value.clone()).collect();
        let one = Value::Fixed32(1f32.to_bits());
        assert_eq!(values, [Value::Varint(150), Value::Len(5..7), one, Value::Fixed64(1)]);
        assert_eq!(records[1].span, 3..7);
    }

    #[test]
    fn what_cannot_be_a_message_is_refused() {
        assert!(error(&[0xa3, 0x06]).contains("a group"));
        assert!(
            error(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x07, 1]).contains("longer than what holds it")
        );
        assert!(error(&[0x08]).contains("ends within a number"));
        assert!(error(&[0x08; 1]).contains("byte 1"));
        assert!(error(&[0x00, 0x00]).contains("field number"));
        assert!(error(&[[0x08].as_slice(), &[0xff; 11]].concat()).contains("64 bits"));
        assert!(error(&[0x1d, 0]).contains("ends within"));
        assert!(error(&[0x0f]).contains("unknown kind"));
    }

    #[test]
    fn objects_are_limited_by_the_size_of_the_file() {
        let limit = |bytes: usize| {
            let wire = Wire::new(Bytes::from(vec![0; bytes]));
            let clone = wire.clone();
            let count = |wire: &Wire| wire.count_object().is_ok();
            (0..=MAX_OBJECTS).take_while(|_| count(&wire) && count(&clone)).count() * 2
        };
        assert_eq!(limit(0), FREE_OBJECTS);
        assert_eq!(limit(10_000 * BYTES_PER_OBJECT), FREE_OBJECTS + 10_000);
        assert_eq!(limit(100 << 20), MAX_OBJECTS);
    }

    #[test]
    fn varints_round_trip() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            assert_eq!(read_varint(&bytes), Some((value, bytes.len())));
        }
    }
}
