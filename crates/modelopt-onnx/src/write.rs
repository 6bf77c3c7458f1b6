//! Model to bytes: a rope of small pieces and shared payloads, so that sizes are known before
//! anything is written and no weight is copied.

use std::io;

use bytes::Bytes;
use modelopt_graph::{
    Attribute, AttributeValue, Constant, DeclaredType, Function, GraphId, Model, Node, NodeId,
    OpsetImport, Origin, Payload, SparseTensor, Tensor, ValueInfo,
};
use onnx_protobuf::Message;

use crate::error::ErrorKind;
use crate::field;
use crate::origin::{Extra, TypeBytes};
use crate::piece::Piece;
use crate::read::from_type;
use crate::wire::write_varint;

/// Payloads from this size on are shared rather than copied into the small pieces.
const SHARED_FROM: usize = 512;

/// Where an external file holds a tensor.
pub(crate) struct ExternalRange<'a> {
    pub(crate) file: &'a str,
    pub(crate) offset: usize,
    pub(crate) length: usize,
}

/// Decides which initializers go to an external file.
pub(crate) trait Placement {
    /// Where this tensor is, if not inline.
    fn external(&self, tensor: &Tensor) -> Option<ExternalRange<'_>>;
}

/// Everything inline.
pub(crate) struct Inline;

impl Placement for Inline {
    fn external(&self, _: &Tensor) -> Option<ExternalRange<'_>> {
        None
    }
}

/// Bytes in pieces.
#[derive(Default)]
pub(crate) struct Rope {
    parts: Vec<Piece>,
    tail: Vec<u8>,
    len: u64,
}

impl Rope {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Hands out all bytes, in order.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        for part in &self.parts {
            part.visit(&mut visit)?;
        }
        visit(&self.tail)
    }

    fn small(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
    }

    fn shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARED_FROM {
            self.small(bytes);
            return;
        }
        self.piece(Piece::Bytes(bytes.clone()));
    }

    fn piece(&mut self, piece: Piece) {
        self.flush();
        self.len += piece.len() as u64;
        self.parts.push(piece);
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.parts.push(std::mem::take(&mut self.tail).into());
        }
    }

    fn append(&mut self, other: Rope) {
        self.len += other.len;
        if other.parts.is_empty() {
            self.tail.extend_from_slice(&other.tail);
        } else {
            self.flush();
            self.parts.extend(other.parts);
            self.tail = other.tail;
        }
    }

    fn tag(&mut self, field: u32, kind: u32) {
        self.number(u64::from(field << 3 | kind));
    }

    fn number(&mut self, value: u64) {
        let before = self.tail.len();
        write_varint(&mut self.tail, value);
        self.len += (self.tail.len() - before) as u64;
    }

    fn int(&mut self, field: u32, value: i64) {
        self.tag(field, 0);
        self.number(value as u64);
    }

    fn float(&mut self, field: u32, value: f32) {
        self.tag(field, 5);
        self.small(&value.to_bits().to_le_bytes());
    }

    fn text(&mut self, field: u32, text: &str) {
        self.tag(field, 2);
        self.number(text.len() as u64);
        self.small(text.as_bytes());
    }

    /// A text that is left out when it is empty.
    fn name(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.text(field, text);
        }
    }

    fn bytes(&mut self, field: u32, bytes: &Bytes) {
        self.tag(field, 2);
        self.number(bytes.len() as u64);
        self.shared(bytes);
    }

    fn message(&mut self, field: u32, message: Rope) {
        self.tag(field, 2);
        self.number(message.len);
        self.append(message);
    }

    /// The records that the loader kept verbatim. They come first, so that fields that were
    /// changed since override them.
    fn extra(&mut self, origin: &Origin) {
        for record in Extra::of(origin).map_or(&[][..], |extra| &extra.records) {
            self.shared(record);
        }
    }
}

/// The whole model.
pub(crate) fn model(model: &Model, placement: &dyn Placement) -> Result<Rope, ErrorKind> {
    let info = &model.info;
    let mut out = Rope::default();
    out.extra(&info.origin);
    if info.ir_version != 0 {
        out.int(field::model::IR_VERSION, info.ir_version);
    }
    out.name(field::model::PRODUCER_NAME, &info.producer_name);
    out.name(field::model::PRODUCER_VERSION, &info.producer_version);
    out.name(field::model::DOMAIN, &info.domain);
    if info.model_version != 0 {
        out.int(field::model::MODEL_VERSION, info.model_version);
    }
    out.name(field::model::DOC_STRING, &info.doc_string);
    let writer = Writer { model, placement };
    out.message(field::model::GRAPH, writer.graph(model.main())?);
    for import in &info.opsets {
        out.message(field::model::OPSET_IMPORT, opset(import));
    }
    for entry in &info.metadata {
        let mut message = Rope::default();
        message.extra(&entry.origin);
        message.name(field::entry::KEY, &entry.key);
        message.name(field::entry::VALUE, &entry.value);
        out.message(field::model::METADATA_PROPS, message);
    }
    for function in &model.functions {
        out.message(field::model::FUNCTIONS, writer.function(function)?);
    }
    Ok(out)
}

fn opset(import: &OpsetImport) -> Rope {
    let mut message = Rope::default();
    message.extra(&import.origin);
    message.name(field::opset::DOMAIN, &import.domain);
    if import.version != 0 {
        message.int(field::opset::VERSION, import.version);
    }
    message
}

struct Writer<'a> {
    model: &'a Model,
    placement: &'a dyn Placement,
}

impl Writer<'_> {
    fn graph(&self, id: GraphId) -> Result<Rope, ErrorKind> {
        let graph = self.model.graph(id);
        let mut out = Rope::default();
        out.extra(&graph.origin);
        for node in self.model.nodes_of(id) {
            out.message(field::graph::NODE, self.node(node)?);
        }
        out.name(field::graph::NAME, &graph.name);
        for &value in self.model.initializers_of(id) {
            match self.model.value(value).constant() {
                Some(Constant::Dense(tensor)) => {
                    let mut message = match self.placement.external(tensor) {
                        Some(range) => external_tensor(tensor, &range),
                        None => inline_tensor(tensor),
                    };
                    message.name(field::tensor::NAME, self.model.value(value).name());
                    out.message(field::graph::INITIALIZER, message);
                }
                Some(Constant::Sparse(tensor)) => {
                    out.message(field::graph::SPARSE_INITIALIZER, sparse_tensor(tensor));
                }
                None => {}
            }
        }
        for (field, infos) in [
            (field::graph::INPUT, &graph.inputs),
            (field::graph::OUTPUT, &graph.outputs),
            (field::graph::VALUE_INFO, &graph.declared),
        ] {
            for info in infos {
                out.message(field, self.value_info(info)?);
            }
        }
        Ok(out)
    }

    fn function(&self, function: &Function) -> Result<Rope, ErrorKind> {
        let body = self.model.graph(function.body);
        let mut out = Rope::default();
        out.extra(&function.origin);
        out.name(field::function::NAME, &function.name);
        for info in &body.inputs {
            out.text(field::function::INPUT, self.model.value(info.value).name());
        }
        for info in &body.outputs {
            out.text(field::function::OUTPUT, self.model.value(info.value).name());
        }
        for node in self.model.nodes_of(function.body) {
            out.message(field::function::NODE, self.node(node)?);
        }
        for import in &function.opsets {
            out.message(field::function::OPSET_IMPORT, opset(import));
        }
        out.name(field::function::DOMAIN, &function.domain);
        for info in &body.declared {
            out.message(field::function::VALUE_INFO, self.value_info(info)?);
        }
        out.name(field::function::OVERLOAD, &function.overload);
        Ok(out)
    }

    fn node(&self, id: NodeId) -> Result<Rope, ErrorKind> {
        let node: &Node = self.model.node(id);
        let mut out = Rope::default();
        out.extra(&node.origin);
        for (field, values) in
            [(field::node::INPUT, node.inputs()), (field::node::OUTPUT, node.outputs())]
        {
            for value in values {
                out.text(field, value.map_or("", |value| self.model.value(value).name()));
            }
        }
        out.name(field::node::NAME, &node.name);
        out.name(field::node::OP_TYPE, &node.op.name);
        for attribute in &node.attributes {
            out.message(field::node::ATTRIBUTE, self.attribute(attribute)?);
        }
        out.name(field::node::DOMAIN, &node.op.domain);
        out.name(field::node::OVERLOAD, &node.op.overload);
        Ok(out)
    }

    fn attribute(&self, attribute: &Attribute) -> Result<Rope, ErrorKind> {
        use AttributeValue as V;
        use field::attribute as f;
        let mut out = Rope::default();
        let loaded = Extra::of(&attribute.origin);
        out.extra(&attribute.origin);
        out.name(f::NAME, &attribute.name);
        // Of a loaded attribute, a default value that was present is among the kept records.
        let made = loaded.is_none();
        let kind = match &attribute.value {
            V::Float(value) => {
                if made || value.to_bits() != 0 {
                    out.float(f::F, *value);
                }
                f::F
            }
            V::Int(value) => {
                if made || *value != 0 {
                    out.int(f::I, *value);
                }
                f::I
            }
            V::String(value) => {
                if made || !value.is_empty() {
                    out.bytes(f::S, value);
                }
                f::S
            }
            V::Tensor(value) => {
                out.message(f::T, inline_tensor(value));
                f::T
            }
            V::Graph(value) => {
                out.message(f::G, self.graph(*value)?);
                f::G
            }
            V::SparseTensor(value) => {
                out.message(f::SPARSE_TENSOR, sparse_tensor(value));
                f::SPARSE_TENSOR
            }
            V::Type(value) => {
                out.message(f::TP, declared_type(value)?);
                f::TP
            }
            V::Floats(values) => {
                for &value in values {
                    out.float(f::FLOATS, value);
                }
                f::FLOATS
            }
            V::Ints(values) => {
                for &value in values {
                    out.int(f::INTS, value);
                }
                f::INTS
            }
            V::Strings(values) => {
                for value in values {
                    out.bytes(f::STRINGS, value);
                }
                f::STRINGS
            }
            V::Tensors(values) => {
                for value in values {
                    out.message(f::TENSORS, inline_tensor(value));
                }
                f::TENSORS
            }
            V::Graphs(values) => {
                for &value in values {
                    out.message(f::GRAPHS, self.graph(value)?);
                }
                f::GRAPHS
            }
            V::SparseTensors(values) => {
                for value in values {
                    out.message(f::SPARSE_TENSORS, sparse_tensor(value));
                }
                f::SPARSE_TENSORS
            }
            V::Types(values) => {
                for value in values {
                    out.message(f::TYPE_PROTOS, declared_type(value)?);
                }
                f::TYPE_PROTOS
            }
            V::Reference(name) => {
                out.text(f::REF_ATTR_NAME, name);
                return Ok(out);
            }
            V::Other => return Ok(out),
        };
        if (made || loaded.is_some_and(|extra| extra.typed))
            && let Some((number, _)) = field::ATTRIBUTE_KINDS.iter().find(|(_, f)| *f == kind)
        {
            out.int(f::TYPE, *number as i64);
        }
        Ok(out)
    }

    fn value_info(&self, info: &ValueInfo) -> Result<Rope, ErrorKind> {
        let mut out = Rope::default();
        out.extra(&info.origin);
        out.name(field::value_info::NAME, self.model.value(info.value).name());
        if let Some(ty) = &info.ty {
            out.message(field::value_info::TYPE, declared_type(ty)?);
        }
        Ok(out)
    }
}

fn declared_type(declared: &DeclaredType) -> Result<Rope, ErrorKind> {
    let mut out = Rope::default();
    if let Some(TypeBytes(bytes)) = declared.origin.get::<TypeBytes>() {
        out.small(bytes);
    } else {
        let bytes = from_type(&declared.ty).write_to_bytes().map_err(|_| {
            let what = "a type that cannot be written";
            ErrorKind::Wire { what, offset: 0, message: "TypeProto" }
        })?;
        out.small(&bytes);
    }
    Ok(out)
}

fn sparse_tensor(tensor: &SparseTensor) -> Rope {
    let mut out = Rope::default();
    out.extra(&tensor.origin);
    out.message(field::sparse_tensor::VALUES, inline_tensor(&tensor.values));
    out.message(field::sparse_tensor::INDICES, inline_tensor(&tensor.indices));
    for &dim in &tensor.shape {
        out.int(field::sparse_tensor::DIMS, dim as i64);
    }
    out
}

fn tensor_header(tensor: &Tensor) -> Rope {
    let mut out = Rope::default();
    out.extra(tensor.origin());
    for &dim in tensor.shape() {
        out.int(field::tensor::DIMS, dim as i64);
    }
    if tensor.dtype().number() != 0 {
        out.int(field::tensor::DATA_TYPE, i64::from(tensor.dtype().number()));
    }
    out
}

fn inline_tensor(tensor: &Tensor) -> Rope {
    let mut out = tensor_header(tensor);
    let loaded = Extra::of(tensor.origin());
    match tensor.payload() {
        Payload::Strings(strings) => {
            for string in strings {
                out.bytes(field::tensor::STRING_DATA, string);
            }
        }
        Payload::Dense(_) if loaded.is_some_and(|extra| !extra.payload.is_empty()) => {
            for record in loaded.map_or(&[][..], |extra| &extra.payload) {
                out.shared(record);
            }
        }
        Payload::Rounded(rounded) => {
            out.tag(field::tensor::RAW_DATA, 2);
            out.number(rounded.byte_len() as u64);
            if rounded.byte_len() < SHARED_FROM {
                out.small(rounded.bytes());
            } else {
                out.piece(Piece::Rounded(rounded.clone()));
            }
        }
        Payload::Dense(bytes) => {
            // An empty payload that was present is among the kept records.
            if loaded.is_none() || !bytes.is_empty() {
                out.bytes(field::tensor::RAW_DATA, bytes);
            }
        }
    }
    out
}

fn external_tensor(tensor: &Tensor, range: &ExternalRange<'_>) -> Rope {
    let mut out = tensor_header(tensor);
    for (key, value) in [
        ("location", range.file.to_owned()),
        ("offset", range.offset.to_string()),
        ("length", range.length.to_string()),
    ] {
        let mut entry = Rope::default();
        entry.text(field::entry::KEY, key);
        entry.text(field::entry::VALUE, &value);
        out.message(field::tensor::EXTERNAL_DATA, entry);
    }
    out.int(field::tensor::DATA_LOCATION, 1);
    out
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{DataType, ModelInfo};

    use super::*;

    fn bytes_of(rope: &Rope) -> Vec<u8> {
        let mut bytes = Vec::new();
        rope.visit(|part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .unwrap();
        bytes
    }

    #[test]
    fn a_rope_knows_its_length_and_shares_what_is_large() {
        let large = Bytes::from(vec![7; SHARED_FROM]);
        let mut inner = Rope::default();
        inner.bytes(1, &large);
        inner.text(2, "end");
        let mut outer = Rope::default();
        outer.text(3, "start");
        outer.message(4, inner);
        outer.bytes(5, &Bytes::from_static(b"small"));
        assert_eq!(outer.len(), bytes_of(&outer).len() as u64);
        let is_large =
            |part: &&Piece| matches!(part, Piece::Bytes(b) if b.as_ptr() == large.as_ptr());
        let shared = outer.parts.iter().filter(is_large).count();
        assert_eq!(shared, 1);
        assert!(bytes_of(&outer).ends_with(b"end\x2a\x05small"));
    }

    #[test]
    fn what_modelopt_made_says_its_type_and_its_zero() {
        let model = Model::new(ModelInfo::default());
        let writer = Writer { model: &model, placement: &Inline };
        let bytes = |attribute| bytes_of(&writer.attribute(&attribute).unwrap());
        assert_eq!(bytes(Attribute::new("a", 0)), b"\x0a\x01a\x18\x00\xa0\x01\x02");
        assert_eq!(bytes(Attribute::new("a", "")), b"\x0a\x01a\x22\x00\xa0\x01\x03");
        let none = AttributeValue::Ints(Vec::new());
        assert_eq!(bytes(Attribute::new("a", none)), b"\x0a\x01a\xa0\x01\x07");
        let empty = Tensor::dense(DataType::FLOAT, vec![0], Bytes::new()).unwrap();
        assert_eq!(bytes_of(&inline_tensor(&empty)), b"\x08\x00\x10\x01\x4a\x00");
    }

    /// Fields that were changed come after the records that were kept, and so win.
    #[test]
    fn changes_override_what_was_kept() {
        let kept = |bytes: &'static [u8]| {
            let records = vec![Bytes::from_static(bytes)];
            Extra { records, ..Extra::default() }.into_origin()
        };
        let info = ModelInfo { ir_version: 10, origin: kept(&[8, 0]), ..ModelInfo::default() };
        let rope = super::model(&Model::new(info), &Inline).unwrap();
        assert!(bytes_of(&rope).starts_with(&[8, 0, 8, 10]));
        let mut opset = OpsetImport { domain: String::new(), version: 0, origin: kept(&[16, 0]) };
        assert_eq!(bytes_of(&super::opset(&opset)), [16, 0]);
        opset.version = 21;
        assert_eq!(bytes_of(&super::opset(&opset)), [16, 0, 16, 21]);
    }
}
