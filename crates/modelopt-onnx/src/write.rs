//! Model to bytes: a rope of small pieces and shared payloads, so that sizes are known before
//! anything is written and no weight is copied.

mod rope;

use modelopt_graph::{
    Attribute, AttributeValue, Constant, DeclaredType, Function, GraphId, Model, Node, NodeId,
    OpsetImport, Payload, SparseTensor, Tensor, ValueInfo,
};
use onnx_protobuf::Message;

use crate::error::ErrorKind;
use crate::field;
use crate::origin::{Extra, TypeBytes};
use crate::piece::Piece;
use crate::read::from_type;
pub(crate) use rope::Rope;
use rope::SHARED_FROM;

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
        use field::attribute as f;
        let mut out = Rope::default();
        let loaded = Extra::of(&attribute.origin);
        out.extra(&attribute.origin);
        // Where it would be kept once it was loaded, so that saving it again gives the same bytes.
        let early = loaded.is_none() && is_default(&attribute.value);
        if early {
            plain_value(&mut out, &attribute.value, true);
        }
        out.name(f::NAME, &attribute.name);
        if let AttributeValue::Reference(name) = &attribute.value {
            out.text(f::REF_ATTR_NAME, name);
            return Ok(out);
        }
        // Of a loaded attribute, a default value that was present is among the kept records.
        let made = loaded.is_none();
        let kind = match plain_value(&mut out, &attribute.value, made && !early) {
            None => self.nested_value(&mut out, &attribute.value)?,
            kind => kind,
        };
        if (made || loaded.is_some_and(|extra| extra.typed))
            && let Some((number, _)) =
                field::ATTRIBUTE_KINDS.iter().find(|(_, field)| Some(*field) == kind)
        {
            out.int(f::TYPE, *number as i64);
        }
        Ok(out)
    }

    /// Writes a value made of messages; the field that it is in, if it is one.
    fn nested_value(
        &self,
        out: &mut Rope,
        value: &AttributeValue,
    ) -> Result<Option<u32>, ErrorKind> {
        use AttributeValue as V;
        use field::attribute as f;
        match value {
            V::Tensor(value) => messages(out, f::T, [Ok(inline_tensor(value))]),
            V::Graph(value) => messages(out, f::G, [self.graph(*value)]),
            V::SparseTensor(value) => messages(out, f::SPARSE_TENSOR, [Ok(sparse_tensor(value))]),
            V::Type(value) => messages(out, f::TP, [declared_type(value)]),
            V::Tensors(values) => {
                messages(out, f::TENSORS, values.iter().map(|value| Ok(inline_tensor(value))))
            }
            V::Graphs(values) => {
                messages(out, f::GRAPHS, values.iter().map(|value| self.graph(*value)))
            }
            V::SparseTensors(values) => messages(
                out,
                f::SPARSE_TENSORS,
                values.iter().map(|value| Ok(sparse_tensor(value))),
            ),
            V::Types(values) => messages(out, f::TYPE_PROTOS, values.iter().map(declared_type)),
            _ => Ok(None),
        }
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

/// Writes messages into a field, which is returned.
fn messages(
    out: &mut Rope,
    field: u32,
    messages: impl IntoIterator<Item = Result<Rope, ErrorKind>>,
) -> Result<Option<u32>, ErrorKind> {
    for message in messages {
        out.message(field, message?);
    }
    Ok(Some(field))
}

/// Whether protobuf leaves a value out.
fn is_default(value: &AttributeValue) -> bool {
    match value {
        AttributeValue::Float(value) => value.to_bits() == 0,
        AttributeValue::Int(value) => *value == 0,
        AttributeValue::String(value) => value.is_empty(),
        _ => false,
    }
}

/// Writes a value that is no message, or a list of such; the field that it is in, if it is one. A
/// default value is written only into an attribute that was `made` here.
fn plain_value(out: &mut Rope, value: &AttributeValue, made: bool) -> Option<u32> {
    use AttributeValue as V;
    use field::attribute as f;
    match value {
        V::Float(value) => {
            if made || value.to_bits() != 0 {
                out.float(f::F, *value);
            }
            Some(f::F)
        }
        V::Int(value) => {
            if made || *value != 0 {
                out.int(f::I, *value);
            }
            Some(f::I)
        }
        V::String(value) => {
            if made || !value.is_empty() {
                out.bytes(f::S, value);
            }
            Some(f::S)
        }
        V::Floats(values) => {
            for &value in values {
                out.float(f::FLOATS, value);
            }
            Some(f::FLOATS)
        }
        V::Ints(values) => {
            for &value in values {
                out.int(f::INTS, value);
            }
            Some(f::INTS)
        }
        V::Strings(values) => {
            for value in values {
                out.bytes(f::STRINGS, value);
            }
            Some(f::STRINGS)
        }
        _ => None,
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
    // Where it would be kept once it was loaded, so that saving it again gives the same bytes.
    if let (None, Payload::Dense(bytes)) = (Extra::of(tensor.origin()), tensor.payload())
        && bytes.is_empty()
    {
        out.bytes(field::tensor::RAW_DATA, bytes);
    }
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
            // An empty payload that was present is among the kept records, and a new one is written.
            if !bytes.is_empty() {
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
    use bytes::Bytes;
    use modelopt_graph::{DataType, ModelInfo};

    use super::rope::testing::bytes_of;
    use super::*;

    #[test]
    fn what_modelopt_made_says_its_type_and_its_zero() {
        let model = Model::new(ModelInfo::default());
        let writer = Writer { model: &model, placement: &Inline };
        let bytes = |attribute| bytes_of(&writer.attribute(&attribute).unwrap());
        assert_eq!(bytes(Attribute::new("a", 0)), b"\x18\x00\x0a\x01a\xa0\x01\x02");
        assert_eq!(bytes(Attribute::new("a", "")), b"\x22\x00\x0a\x01a\xa0\x01\x03");
        let none = AttributeValue::Ints(Vec::new());
        assert_eq!(bytes(Attribute::new("a", none)), b"\x0a\x01a\xa0\x01\x07");
        let empty = Tensor::dense(DataType::FLOAT, vec![0], Bytes::new()).unwrap();
        assert_eq!(bytes_of(&inline_tensor(&empty)), b"\x4a\x00\x08\x00\x10\x01");
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
