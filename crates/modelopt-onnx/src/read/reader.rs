//! What all messages are read with: names in scope, texts and numbers, and records that are kept.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use bytes::Bytes;
use modelopt_graph::verify::Problem;
use modelopt_graph::{GraphId, Model, ModelInfo, ValueId};

use crate::error::ErrorKind;
use crate::external::ExternalFiles;
use crate::origin::Extra;
use crate::wire::{MAX_RANK, Record, Value, Wire, read_varint};

pub(super) type Result<T> = std::result::Result<T, ErrorKind>;

pub(super) struct Reader {
    pub(super) wire: Wire,
    pub(super) external: ExternalFiles,
    pub(super) model: Model,
    /// Names of the graphs being read, innermost last.
    pub(super) scopes: Vec<HashMap<String, ValueId>>,
}

impl Reader {
    pub(super) fn of(bytes: Bytes, external: ExternalFiles) -> Self {
        Reader {
            wire: Wire::new(bytes),
            external,
            model: Model::new(ModelInfo::default()),
            scopes: Vec::new(),
        }
    }

    /// Makes a value. One without a name is in no scope: an empty name means that an input or
    /// output is left out.
    pub(super) fn define(&mut self, name: String, graph: GraphId) -> Result<ValueId> {
        self.wire.count_object()?;
        let value = self.model.add_value(name.clone());
        let Some(scope) = self.scopes.last_mut().filter(|_| !name.is_empty()) else {
            return Ok(value);
        };
        match scope.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(value)
            }
            Entry::Occupied(entry) => {
                let graph = format!("graph '{}'", self.model.graph(graph).name);
                Err(Problem::DuplicateName { name: entry.key().clone(), graph }.into())
            }
        }
    }

    pub(super) fn lookup(&self, name: &str, reader: impl Fn() -> String) -> Result<ValueId> {
        let found = self.scopes.iter().rev().find_map(|scope| scope.get(name));
        found
            .copied()
            .ok_or_else(|| Problem::Dangling { reader: reader(), value: name.to_owned() }.into())
    }

    pub(super) fn keep(&self, extra: &mut Extra, record: &Record) {
        self.append(&mut extra.records, record);
    }

    /// Appends a record to a list; neighbours in the file become one range.
    fn append(&self, records: &mut Vec<Bytes>, record: &Record) {
        let bytes = self.wire.share(record.span.clone());
        match records.last_mut() {
            Some(last) if last.as_ptr_range().end == bytes.as_ptr() => {
                let start = record.span.start - last.len();
                *last = self.wire.share(start..record.span.end);
            }
            _ => records.push(bytes),
        }
    }

    /// Takes a singular text field; one that is present but empty is kept verbatim.
    pub(super) fn text(&self, record: &Record, into: &mut String, extra: &mut Extra) -> Result<()> {
        *into = self.utf8(record.len().unwrap_or(0..0), "a message")?;
        if into.is_empty() {
            self.keep(extra, record);
        }
        Ok(())
    }

    pub(super) fn utf8(&self, range: Range<usize>, message: &'static str) -> Result<String> {
        let offset = range.start;
        let text = std::str::from_utf8(self.wire.view(range));
        let what = "a text that is not UTF-8";
        text.map(str::to_owned).map_err(|_| ErrorKind::Wire { what, offset, message })
    }

    /// Takes one record of dimensions, packed or not.
    pub(super) fn dims(
        &self,
        record: &Record,
        shape: &mut Vec<usize>,
        message: &'static str,
    ) -> Result<()> {
        let too_many = || self.invalid("more dimensions than any runtime takes", record, message);
        if record.len().is_some_and(|content| content.len() > 10 * MAX_RANK) {
            return Err(too_many());
        }
        for dim in self.varints(record, message)? {
            let dim = usize::try_from(dim as i64);
            shape.push(dim.map_err(|_| self.invalid("a negative dimension", record, message))?);
        }
        if shape.len() > MAX_RANK { Err(too_many()) } else { Ok(()) }
    }

    pub(super) fn varints(&self, record: &Record, message: &'static str) -> Result<Vec<u64>> {
        match &record.value {
            Value::Varint(number) => Ok(vec![*number]),
            Value::Len(range) => unpack_varints(self.wire.view(range.clone()))
                .ok_or_else(|| self.invalid("a broken list of numbers", record, message)),
            _ => Err(self.invalid("a field of the wrong kind", record, message)),
        }
    }

    #[allow(clippy::unused_self)] // Reads as one of the reader's verbs.
    pub(super) fn invalid(
        &self,
        what: &'static str,
        record: &Record,
        message: &'static str,
    ) -> ErrorKind {
        ErrorKind::Wire { what, offset: record.span.start, message }
    }
}

/// The numbers of a packed varint field; `None` when the last one is cut off.
fn unpack_varints(mut bytes: &[u8]) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        let (number, length) = read_varint(bytes)?;
        numbers.push(number);
        bytes = bytes.get(length..)?;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_numbers_ends_where_it_should() {
        assert_eq!(unpack_varints(&[1, 0x80, 1]), Some(vec![1, 128]));
        assert_eq!(unpack_varints(&[]), Some(vec![]));
        assert_eq!(unpack_varints(&[1, 0x80]), None);
    }
}
