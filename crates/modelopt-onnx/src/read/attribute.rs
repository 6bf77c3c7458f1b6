//! `AttributeProto`, whose value stands in a field of its own for each kind.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use modelopt_graph::{Attribute, AttributeValue, Owner};

use super::reader::{Reader, Result};
use crate::field;
use crate::origin::Extra;
use crate::wire::{Record, Value};

/// Appends to the list inside an attribute value, which is made on first use.
macro_rules! extend {
    ($value:expr, $variant:ident, $items:expr) => {
        match $value {
            AttributeValue::$variant(list) => list.extend($items),
            other => *other = AttributeValue::$variant($items.into_iter().collect()),
        }
    };
}

/// What a first look at an attribute tells.
struct Outline {
    name: String,
    /// The field that holds the value, if known.
    kind: Option<u32>,
}

impl Reader {
    pub(super) fn attribute(&mut self, range: Range<usize>, depth: usize) -> Result<Attribute> {
        self.wire.count_object()?;
        let Outline { name, kind } = self.outline(range.clone())?;
        let mut extra = Extra::default();
        let mut value = AttributeValue::Other;
        for record in self.wire.records(range.clone(), "AttributeProto") {
            let record = record?;
            match (record.field, &record.value) {
                (field, _) if Some(field) == kind => {
                    if !self.attribute_value(&record, &mut value, depth, &name)? {
                        self.keep(&mut extra, &record);
                    }
                }
                (field::attribute::NAME, Value::Len(content)) if !content.is_empty() => {}
                (field::attribute::TYPE, Value::Varint(_)) => extra.typed = true,
                _ => self.keep(&mut extra, &record),
            }
        }
        if let (AttributeValue::Other, Some(kind)) = (&value, kind) {
            // The type says what it is, but the value is absent: its default.
            value = default_value(kind);
        }
        // Of these the saver knows no type to write.
        if matches!(value, AttributeValue::Other | AttributeValue::Reference(_)) && extra.typed {
            for record in self.wire.records(range, "AttributeProto") {
                let record = record?;
                if record.field == field::attribute::TYPE && record.varint().is_some() {
                    self.keep(&mut extra, &record);
                }
            }
        }
        Ok(Attribute { name, value, origin: extra.into_origin() })
    }

    /// A first look at an attribute: its name, and which field holds its value. That is a
    /// reference, else what `type` says, else, for files older than `type`, the first kind of
    /// which there is a value, wherever it stands.
    fn outline(&self, range: Range<usize>) -> Result<Outline> {
        use field::attribute as f;
        let mut name = String::new();
        let (mut refers, mut ty, mut first) = (false, None, None);
        for record in self.wire.records(range, "AttributeProto") {
            let record = record?;
            match (record.field, &record.value) {
                (f::NAME, Value::Len(content)) => {
                    name = self.utf8(content.clone(), "AttributeProto")?;
                }
                (f::REF_ATTR_NAME, Value::Len(content)) => refers |= !content.is_empty(),
                (f::TYPE, Value::Varint(number)) => ty = Some(*number),
                (field, _) => {
                    let kind = field::ATTRIBUTE_KINDS.iter().find(|kind| kind.1 == field);
                    first = first.into_iter().chain(kind).min();
                }
            }
        }
        let kind = match ty {
            _ if refers => Some(f::REF_ATTR_NAME),
            Some(ty) => field::ATTRIBUTE_KINDS.iter().find(|kind| kind.0 == ty).map(|kind| kind.1),
            None => first.map(|kind| kind.1),
        };
        Ok(Outline { name, kind })
    }

    /// Takes one record of the value field; false where the record is present with a default
    /// value, which the caller keeps verbatim.
    fn attribute_value(
        &mut self,
        record: &Record,
        value: &mut AttributeValue,
        depth: usize,
        name: &str,
    ) -> Result<bool> {
        use AttributeValue as V;
        let content = record.len().unwrap_or(0..0);
        if let V::Tensor(_) | V::Graph(_) | V::SparseTensor(_) | V::Type(_) = value {
            return Err(self.invalid("a second value", record, "AttributeProto"));
        }
        match (record.field, &record.value) {
            (field::attribute::REF_ATTR_NAME, Value::Len(_)) => {
                *value = V::Reference(self.utf8(content, "AttributeProto")?);
            }
            (field::attribute::F, Value::Fixed32(bits)) => {
                *value = V::Float(f32::from_bits(*bits));
                return Ok(*bits != 0);
            }
            (field::attribute::I, Value::Varint(number)) => {
                *value = V::Int(*number as i64);
                return Ok(*number != 0);
            }
            (field::attribute::S, Value::Len(_)) => {
                let bytes = self.wire.share(content);
                let present = !bytes.is_empty();
                *value = V::String(bytes);
                return Ok(present);
            }
            (field::attribute::T, Value::Len(_)) => {
                *value = V::Tensor(Arc::new(self.named_tensor(content, name)?.1));
            }
            (field::attribute::G, Value::Len(_)) => {
                let graph = self.model.add_graph(Owner::Model);
                self.graph(&[content], graph, depth + 3)?;
                *value = V::Graph(graph);
            }
            (field::attribute::SPARSE_TENSOR, Value::Len(_)) => {
                *value = V::SparseTensor(Arc::new(self.sparse_tensor(content)?.1));
            }
            (field::attribute::TP, Value::Len(_)) => *value = V::Type(self.declared_type(content)?),
            _ => self.attribute_list(record, value, depth, name)?,
        }
        Ok(true)
    }

    /// Takes one record of a list, which goes on where the last one ended.
    fn attribute_list(
        &mut self,
        record: &Record,
        value: &mut AttributeValue,
        depth: usize,
        name: &str,
    ) -> Result<()> {
        let content = record.len().unwrap_or(0..0);
        match (record.field, &record.value) {
            (field::attribute::FLOATS, Value::Len(_)) => {
                let chunk = self.wire.view(content);
                let (numbers, rest) = chunk.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(self.invalid("a broken list of floats", record, "AttributeProto"));
                }
                extend!(value, Floats, numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            }
            (field::attribute::FLOATS, Value::Fixed32(bits)) => {
                extend!(value, Floats, [f32::from_bits(*bits)]);
            }
            (field::attribute::INTS, Value::Varint(number)) => {
                extend!(value, Ints, [*number as i64]);
            }
            (field::attribute::INTS, Value::Len(_)) => {
                let numbers = self.varints(record, "AttributeProto")?;
                extend!(value, Ints, numbers.into_iter().map(|number| number as i64));
            }
            (field::attribute::STRINGS, Value::Len(_)) => {
                let bytes = self.wire.share(content);
                extend!(value, Strings, [bytes]);
            }
            (field::attribute::TENSORS, Value::Len(_)) => {
                let tensor = Arc::new(self.named_tensor(content, name)?.1);
                extend!(value, Tensors, [tensor]);
            }
            (field::attribute::GRAPHS, Value::Len(_)) => {
                let graph = self.model.add_graph(Owner::Model);
                self.graph(&[content], graph, depth + 3)?;
                extend!(value, Graphs, [graph]);
            }
            (field::attribute::SPARSE_TENSORS, Value::Len(_)) => {
                let tensor = Arc::new(self.sparse_tensor(content)?.1);
                extend!(value, SparseTensors, [tensor]);
            }
            (field::attribute::TYPE_PROTOS, Value::Len(_)) => {
                self.wire.count_object()?;
                let ty = self.declared_type(content)?;
                extend!(value, Types, [ty]);
            }
            _ => return Err(self.invalid("a field of the wrong kind", record, "AttributeProto")),
        }
        Ok(())
    }
}

fn default_value(kind: u32) -> AttributeValue {
    use field::attribute as f;
    match kind {
        f::F => AttributeValue::Float(0.0),
        f::I => AttributeValue::Int(0),
        f::S => AttributeValue::String(Bytes::new()),
        f::FLOATS => AttributeValue::Floats(Vec::new()),
        f::INTS => AttributeValue::Ints(Vec::new()),
        f::STRINGS => AttributeValue::Strings(Vec::new()),
        f::TENSORS => AttributeValue::Tensors(Vec::new()),
        f::GRAPHS => AttributeValue::Graphs(Vec::new()),
        f::SPARSE_TENSORS => AttributeValue::SparseTensors(Vec::new()),
        f::TYPE_PROTOS => AttributeValue::Types(Vec::new()),
        _ => AttributeValue::Other,
    }
}
