//! Bytes to model: one walk over the wire format that leaves every payload where it is.
//!
//! The composite messages are walked here rather than parsed by onnx-protobuf, for three reasons
//! that `docs/architecture.md` tells at length: payloads stay ranges of the map, the presence of
//! default values is kept (onnx-protobuf is proto3, ONNX is proto2), and unknown fields keep
//! their order. Types, the leaves, are parsed by onnx-protobuf, after a scan.

mod tensor;
mod types;

pub(crate) use types::from_type;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use modelopt_graph::verify::{self, Problem};
use modelopt_graph::{
    Attribute, AttributeValue, Constant, DeclaredType, Function, GraphId, Metadata, Model,
    ModelInfo, NewNode, Operator, OpsetImport, Owner, Place, SparseTensor, ValueId, ValueInfo,
};

use crate::error::ErrorKind;
use crate::external::ExternalFiles;
use crate::field;
use crate::origin::Extra;
use crate::wire::{MAX_DEPTH, Record, Value, Wire};

type Result<T> = std::result::Result<T, ErrorKind>;

/// Reads a model from the bytes of a file.
pub(crate) fn read_model(bytes: Bytes, external: ExternalFiles) -> Result<Model> {
    if bytes.is_empty() {
        return Err(ErrorKind::Empty);
    }
    let end = bytes.len();
    let mut reader = Reader {
        wire: Wire::new(bytes),
        external,
        model: Model::new(ModelInfo::default()),
        scopes: Vec::new(),
    };
    reader.model_message(0..end)?;
    verify::check_acyclic(&reader.model)?;
    Ok(reader.model)
}

/// Reads one serialized `TensorProto`.
pub(crate) fn read_tensor(
    bytes: Bytes,
    external: ExternalFiles,
) -> Result<(String, modelopt_graph::Tensor)> {
    let end = bytes.len();
    let mut reader = Reader {
        wire: Wire::new(bytes),
        external,
        model: Model::new(ModelInfo::default()),
        scopes: Vec::new(),
    };
    reader.tensor(0..end, "")
}

/// Appends to the list inside an attribute value, which is made on first use.
macro_rules! extend {
    ($value:expr, $variant:ident, $items:expr) => {
        match $value {
            AttributeValue::$variant(list) => list.extend($items),
            other => *other = AttributeValue::$variant($items.into_iter().collect()),
        }
    };
}

struct Reader {
    wire: Wire,
    external: ExternalFiles,
    model: Model,
    /// Names of the graphs being read, innermost last.
    scopes: Vec<HashMap<String, ValueId>>,
}

/// A node before its names are resolved.
#[derive(Default)]
struct RawNode {
    name: String,
    op: String,
    domain: String,
    overload: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    attributes: Vec<Range<usize>>,
    extra: Extra,
}

/// A graph before its names are resolved.
#[derive(Default)]
struct RawGraph {
    name: String,
    nodes: Vec<Range<usize>>,
    initializers: Vec<Range<usize>>,
    sparse_initializers: Vec<Range<usize>>,
    inputs: Vec<Range<usize>>,
    outputs: Vec<Range<usize>>,
    declared: Vec<Range<usize>>,
    extra: Extra,
}

impl Reader {
    fn model_message(&mut self, range: Range<usize>) -> Result<()> {
        let mut info = ModelInfo::default();
        let mut extra = Extra::default();
        let mut graph = None;
        let mut functions = Vec::new();
        for record in self.records(range, "ModelProto")? {
            match (record.field, &record.value) {
                (field::model::IR_VERSION, Value::Varint(version)) => {
                    info.ir_version = *version as i64;
                    if info.ir_version == 0 {
                        self.keep(&mut extra, &record);
                    }
                }
                (field::model::MODEL_VERSION, Value::Varint(version)) => {
                    info.model_version = *version as i64;
                    if info.model_version == 0 {
                        self.keep(&mut extra, &record);
                    }
                }
                (field::model::OPSET_IMPORT, Value::Len(content)) => {
                    info.opsets.push(self.opset(content.clone())?);
                }
                (field::model::PRODUCER_NAME, Value::Len(_)) => {
                    self.text(&record, &mut info.producer_name, &mut extra)?;
                }
                (field::model::PRODUCER_VERSION, Value::Len(_)) => {
                    self.text(&record, &mut info.producer_version, &mut extra)?;
                }
                (field::model::DOMAIN, Value::Len(_)) => {
                    self.text(&record, &mut info.domain, &mut extra)?;
                }
                (field::model::DOC_STRING, Value::Len(_)) => {
                    self.text(&record, &mut info.doc_string, &mut extra)?;
                }
                (field::model::GRAPH, Value::Len(content)) => {
                    if graph.replace(content.clone()).is_some() {
                        return Err(self.invalid("a second graph", &record, "ModelProto"));
                    }
                }
                (field::model::METADATA_PROPS, Value::Len(content)) => {
                    info.metadata.push(self.metadata(content.clone())?);
                }
                (field::model::FUNCTIONS, Value::Len(content)) => functions.push(content.clone()),
                _ => self.keep(&mut extra, &record),
            }
        }
        let graph = graph.ok_or(ErrorKind::Missing("graph"))?;
        info.origin = extra.into_origin();
        self.model.info = info;
        let main = self.model.main();
        self.graph(graph, main, 1)?;
        for function in functions {
            self.function(function)?;
        }
        Ok(())
    }

    fn opset(&self, range: Range<usize>) -> Result<OpsetImport> {
        let mut extra = Extra::default();
        let (mut domain, mut version) = (String::new(), 0);
        for record in self.records(range, "OperatorSetIdProto")? {
            match (record.field, &record.value) {
                (field::opset::DOMAIN, Value::Len(_)) => {
                    self.text(&record, &mut domain, &mut extra)?;
                }
                (field::opset::VERSION, Value::Varint(number)) if *number != 0 => {
                    version = *number as i64;
                }
                _ => self.keep(&mut extra, &record),
            }
        }
        Ok(OpsetImport { domain, version, origin: extra.into_origin() })
    }

    fn metadata(&self, range: Range<usize>) -> Result<Metadata> {
        let mut extra = Extra::default();
        let (mut key, mut value) = (String::new(), String::new());
        for record in self.records(range, "StringStringEntryProto")? {
            match (record.field, &record.value) {
                (field::entry::KEY, Value::Len(_)) => self.text(&record, &mut key, &mut extra)?,
                (field::entry::VALUE, Value::Len(_)) => {
                    self.text(&record, &mut value, &mut extra)?;
                }
                _ => self.keep(&mut extra, &record),
            }
        }
        Ok(Metadata { key, value, origin: extra.into_origin() })
    }

    fn function(&mut self, range: Range<usize>) -> Result<()> {
        let body = self.model.add_graph(Owner::Function(self.model.functions.len()));
        let mut function = Function {
            domain: String::new(),
            name: String::new(),
            overload: String::new(),
            opsets: Vec::new(),
            body,
            origin: modelopt_graph::Origin::NONE,
        };
        let mut extra = Extra::default();
        let mut raw = RawGraph::default();
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for record in self.records(range, "FunctionProto")? {
            match (record.field, &record.value) {
                (field::function::NAME, Value::Len(_)) => {
                    self.text(&record, &mut function.name, &mut extra)?;
                }
                (field::function::DOMAIN, Value::Len(_)) => {
                    self.text(&record, &mut function.domain, &mut extra)?;
                }
                (field::function::OVERLOAD, Value::Len(_)) => {
                    self.text(&record, &mut function.overload, &mut extra)?;
                }
                (field::function::INPUT, Value::Len(content)) => {
                    inputs.push(self.utf8(content.clone(), "FunctionProto")?);
                }
                (field::function::OUTPUT, Value::Len(content)) => {
                    outputs.push(self.utf8(content.clone(), "FunctionProto")?);
                }
                (field::function::NODE, Value::Len(content)) => raw.nodes.push(content.clone()),
                (field::function::OPSET_IMPORT, Value::Len(content)) => {
                    function.opsets.push(self.opset(content.clone())?);
                }
                (field::function::VALUE_INFO, Value::Len(content)) => {
                    raw.declared.push(content.clone());
                }
                _ => self.keep(&mut extra, &record),
            }
        }
        function.origin = extra.into_origin();
        self.model.functions.push(function);
        self.scopes.push(HashMap::new());
        for name in inputs {
            let value = self.define(name, body)?;
            let info = ValueInfo { value, ty: None, origin: modelopt_graph::Origin::NONE };
            self.model.add_input(body, info);
        }
        let nodes = self.define_nodes(&raw.nodes, body)?;
        self.insert_nodes(nodes, body, 1)?;
        for name in outputs {
            let value = self.lookup(&name, || "an output of a function".to_owned())?;
            let info = ValueInfo { value, ty: None, origin: modelopt_graph::Origin::NONE };
            self.model.add_output(body, info);
        }
        self.declared(raw.declared, body)?;
        self.scopes.pop();
        Ok(())
    }

    fn graph(&mut self, range: Range<usize>, graph: GraphId, depth: usize) -> Result<()> {
        if depth + 2 > MAX_DEPTH {
            let what = "graphs nested deeper than any real model nests them";
            return Err(ErrorKind::Wire { what, offset: range.start, message: "GraphProto" });
        }
        let raw = self.raw_graph(range)?;
        self.model.graph_mut(graph).name = raw.name;
        self.model.graph_mut(graph).origin = raw.extra.into_origin();
        self.scopes.push(HashMap::new());
        for input in raw.inputs {
            let (name, ty, extra) = self.value_info(input)?;
            let value = self.define(name, graph)?;
            self.model.add_input(graph, ValueInfo { value, ty, origin: extra.into_origin() });
        }
        for initializer in raw.initializers {
            let (name, tensor) = self.tensor(initializer, "initializer")?;
            let value = self.initializer_value(name, graph)?;
            self.model.set_constant(graph, value, Constant::Dense(Arc::new(tensor)));
        }
        for initializer in raw.sparse_initializers {
            let (name, tensor) = self.sparse_tensor(initializer)?;
            let value = self.initializer_value(name, graph)?;
            self.model.set_constant(graph, value, Constant::Sparse(Arc::new(tensor)));
        }
        let nodes = self.define_nodes(&raw.nodes, graph)?;
        self.insert_nodes(nodes, graph, depth)?;
        for output in raw.outputs {
            let (name, ty, extra) = self.value_info(output)?;
            let place = self.model.graph(graph).name.clone();
            let value = self.lookup(&name, || format!("an output of graph '{place}'"))?;
            self.model.add_output(graph, ValueInfo { value, ty, origin: extra.into_origin() });
        }
        self.declared(raw.declared, graph)?;
        self.scopes.pop();
        Ok(())
    }

    fn raw_graph(&self, range: Range<usize>) -> Result<RawGraph> {
        let mut raw = RawGraph::default();
        for record in self.records(range, "GraphProto")? {
            match (record.field, &record.value) {
                (field::graph::NAME, Value::Len(_)) => {
                    self.text(&record, &mut raw.name, &mut raw.extra)?;
                }
                (field::graph::NODE, Value::Len(content)) => raw.nodes.push(content.clone()),
                (field::graph::INITIALIZER, Value::Len(content)) => {
                    raw.initializers.push(content.clone());
                }
                (field::graph::SPARSE_INITIALIZER, Value::Len(content)) => {
                    raw.sparse_initializers.push(content.clone());
                }
                (field::graph::INPUT, Value::Len(content)) => raw.inputs.push(content.clone()),
                (field::graph::OUTPUT, Value::Len(content)) => raw.outputs.push(content.clone()),
                (field::graph::VALUE_INFO, Value::Len(content)) => {
                    raw.declared.push(content.clone());
                }
                _ => self.keep(&mut raw.extra, &record),
            }
        }
        Ok(raw)
    }

    fn declared(&mut self, infos: Vec<Range<usize>>, graph: GraphId) -> Result<()> {
        for info in infos {
            let (name, ty, extra) = self.value_info(info)?;
            // A declaration of something that does not exist is stale, but must survive a save.
            let known = self.scopes.last().and_then(|scope| scope.get(&name)).copied();
            let value = known.unwrap_or_else(|| self.model.add_value(name));
            if let (None, Some(declared)) = (self.model.value(value).ty(), &ty) {
                self.model.set_type(value, Some(declared.ty.clone()));
            }
            let info = ValueInfo { value, ty, origin: extra.into_origin() };
            self.model.graph_mut(graph).declared.push(info);
        }
        Ok(())
    }

    fn value_info(&self, range: Range<usize>) -> Result<(String, Option<DeclaredType>, Extra)> {
        let mut extra = Extra::default();
        let (mut name, mut ty) = (String::new(), None);
        for record in self.records(range, "ValueInfoProto")? {
            match (record.field, &record.value) {
                (field::value_info::NAME, Value::Len(_)) => {
                    self.text(&record, &mut name, &mut extra)?;
                }
                (field::value_info::TYPE, Value::Len(content)) => {
                    ty = Some(self.declared_type(content.clone())?);
                }
                _ => self.keep(&mut extra, &record),
            }
        }
        Ok((name, ty, extra))
    }

    fn define_nodes(&mut self, nodes: &[Range<usize>], graph: GraphId) -> Result<Vec<RawNode>> {
        let mut raw = Vec::with_capacity(nodes.len());
        for range in nodes {
            let node = self.raw_node(range.clone())?;
            for name in node.outputs.iter().filter(|name| !name.is_empty()) {
                self.define(name.clone(), graph)?;
            }
            raw.push(node);
        }
        Ok(raw)
    }

    fn raw_node(&self, range: Range<usize>) -> Result<RawNode> {
        let mut node = RawNode::default();
        let extra = &mut node.extra;
        for record in self.records(range, "NodeProto")? {
            match (record.field, &record.value) {
                (field::node::INPUT, Value::Len(content)) => {
                    node.inputs.push(self.utf8(content.clone(), "NodeProto")?);
                }
                (field::node::OUTPUT, Value::Len(content)) => {
                    node.outputs.push(self.utf8(content.clone(), "NodeProto")?);
                }
                (field::node::NAME, Value::Len(_)) => self.text(&record, &mut node.name, extra)?,
                (field::node::OP_TYPE, Value::Len(_)) => self.text(&record, &mut node.op, extra)?,
                (field::node::DOMAIN, Value::Len(_)) => {
                    self.text(&record, &mut node.domain, extra)?;
                }
                (field::node::OVERLOAD, Value::Len(_)) => {
                    self.text(&record, &mut node.overload, extra)?;
                }
                (field::node::ATTRIBUTE, Value::Len(content)) => {
                    node.attributes.push(content.clone());
                }
                _ => self.keep(extra, &record),
            }
        }
        Ok(node)
    }

    fn insert_nodes(&mut self, nodes: Vec<RawNode>, graph: GraphId, depth: usize) -> Result<()> {
        for raw in nodes {
            let reader = || {
                let made = raw.outputs.first().map_or("", String::as_str);
                format!("{} '{}' (makes '{made}')", raw.op, raw.name)
            };
            let inputs =
                raw.inputs
                    .iter()
                    .map(|name| {
                        if name.is_empty() { Ok(None) } else { self.lookup(name, reader).map(Some) }
                    })
                    .collect::<Result<Vec<_>>>()?;
            let scope = self.scopes.last();
            let outputs = raw
                .outputs
                .iter()
                .map(|name| scope.and_then(|scope| scope.get(name)).copied())
                .collect();
            let mut attributes = Vec::with_capacity(raw.attributes.len());
            for range in raw.attributes {
                attributes.push(self.attribute(range, depth)?);
            }
            let node = NewNode {
                name: raw.name,
                op: Operator { domain: raw.domain, name: raw.op, overload: raw.overload },
                inputs,
                outputs,
                attributes,
                origin: raw.extra.into_origin(),
            };
            self.model.insert(node, Place::Back(graph));
        }
        Ok(())
    }

    fn attribute(&mut self, range: Range<usize>, depth: usize) -> Result<Attribute> {
        let records = self.records(range, "AttributeProto")?;
        let mut name = String::new();
        let mut extra = Extra::default();
        for record in &records {
            match record.field {
                field::attribute::NAME => self.text(record, &mut name, &mut extra)?,
                field::attribute::TYPE => extra.typed = true,
                _ => {}
            }
        }
        let kind = attribute_field(&records);
        let mut value = AttributeValue::Other;
        for record in &records {
            match record.field {
                field::attribute::NAME => {}
                field if Some(field) == kind => {
                    if !self.attribute_value(record, &mut value, depth, &name)? {
                        self.keep(&mut extra, record);
                    }
                }
                field::attribute::TYPE
                    if kind.is_some_and(|kind| kind != field::attribute::REF_ATTR_NAME) => {}
                _ => self.keep(&mut extra, record),
            }
        }
        if matches!(value, AttributeValue::Other)
            && let Some(kind) = kind
        {
            // The type says what it is, but the value is absent: its default.
            value = default_value(kind);
        }
        Ok(Attribute { name, value, origin: extra.into_origin() })
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
                *value = V::Tensor(Arc::new(self.attribute_tensor(content, name)?));
            }
            (field::attribute::G, Value::Len(_)) => {
                let graph = self.model.add_graph(Owner::Model);
                self.graph(content, graph, depth + 3)?;
                *value = V::Graph(graph);
            }
            (field::attribute::SPARSE_TENSOR, Value::Len(_)) => {
                *value = V::SparseTensor(Arc::new(self.sparse_tensor(content)?.1));
            }
            (field::attribute::TP, Value::Len(_)) => *value = V::Type(self.declared_type(content)?),
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
            (field::attribute::INTS, Value::Len(_) | Value::Varint(_)) => {
                let numbers = self.varints(record, "AttributeProto")?;
                extend!(value, Ints, numbers.into_iter().map(|number| number as i64));
            }
            (field::attribute::STRINGS, Value::Len(_)) => {
                let bytes = self.wire.share(content);
                extend!(value, Strings, [bytes]);
            }
            (field::attribute::TENSORS, Value::Len(_)) => {
                let tensor = Arc::new(self.attribute_tensor(content, name)?);
                extend!(value, Tensors, [tensor]);
            }
            (field::attribute::GRAPHS, Value::Len(_)) => {
                let graph = self.model.add_graph(Owner::Model);
                self.graph(content, graph, depth + 3)?;
                extend!(value, Graphs, [graph]);
            }
            (field::attribute::SPARSE_TENSORS, Value::Len(_)) => {
                let tensor = Arc::new(self.sparse_tensor(content)?.1);
                extend!(value, SparseTensors, [tensor]);
            }
            (field::attribute::TYPE_PROTOS, Value::Len(_)) => {
                let ty = self.declared_type(content)?;
                extend!(value, Types, [ty]);
            }
            _ => return Err(self.invalid("a field of the wrong kind", record, "AttributeProto")),
        }
        Ok(true)
    }

    fn attribute_tensor(
        &mut self,
        range: Range<usize>,
        attribute: &str,
    ) -> Result<modelopt_graph::Tensor> {
        let (name, tensor) = self.tensor(range.clone(), attribute)?;
        // An attribute's tensor may have a name of its own, which nothing reads.
        let mut extra = Extra::of(tensor.origin()).cloned().unwrap_or_default();
        if !name.is_empty() {
            for record in self.records(range, "TensorProto")? {
                if record.field == field::tensor::NAME {
                    self.keep(&mut extra, &record);
                }
            }
        }
        Ok(tensor.with_origin(extra.into_origin()))
    }

    fn sparse_tensor(&mut self, range: Range<usize>) -> Result<(String, SparseTensor)> {
        let mut extra = Extra::default();
        let (mut values, mut indices, mut shape) = (None, None, Vec::new());
        for record in self.records(range, "SparseTensorProto")? {
            match (record.field, record.len()) {
                (field::sparse_tensor::VALUES, Some(content)) => values = Some(content),
                (field::sparse_tensor::INDICES, Some(content)) => indices = Some(content),
                (field::sparse_tensor::DIMS, _) => {
                    for dim in self.varints(&record, "SparseTensorProto")? {
                        let dim = usize::try_from(dim as i64).map_err(|_| {
                            self.invalid("a negative dimension", &record, "SparseTensorProto")
                        })?;
                        shape.push(dim);
                    }
                }
                _ => self.keep(&mut extra, &record),
            }
        }
        let values = values.ok_or(ErrorKind::Missing("values in a sparse tensor"))?;
        let indices = indices.ok_or(ErrorKind::Missing("indices in a sparse tensor"))?;
        let (name, _) = self.tensor(values.clone(), "values of a sparse tensor")?;
        let values = self.attribute_tensor(values, "values of a sparse tensor")?;
        let indices = self.attribute_tensor(indices, "indices of a sparse tensor")?;
        Ok((name, SparseTensor { values, indices, shape, origin: extra.into_origin() }))
    }

    fn initializer_value(&mut self, name: String, graph: GraphId) -> Result<ValueId> {
        match self.scopes.last().and_then(|scope| scope.get(&name)).copied() {
            Some(value) if self.model.value(value).constant().is_none() => Ok(value),
            _ => self.define(name, graph),
        }
    }

    fn define(&mut self, name: String, graph: GraphId) -> Result<ValueId> {
        let value = self.model.add_value(name.clone());
        let path = self.model.graph(graph).name.clone();
        if let Some(scope) = self.scopes.last_mut()
            && scope.insert(name.clone(), value).is_some()
        {
            return Err(Problem::DuplicateName { name, graph: format!("graph '{path}'") }.into());
        }
        Ok(value)
    }

    fn lookup(&self, name: &str, reader: impl Fn() -> String) -> Result<ValueId> {
        let found = self.scopes.iter().rev().find_map(|scope| scope.get(name));
        found
            .copied()
            .ok_or_else(|| Problem::Dangling { reader: reader(), value: name.to_owned() }.into())
    }

    fn records(&self, range: Range<usize>, message: &'static str) -> Result<Vec<Record>> {
        self.wire.records(range, message).collect()
    }

    fn keep(&self, extra: &mut Extra, record: &Record) {
        extra.records.push(self.wire.share(record.span.clone()));
    }

    /// Takes a singular text field; one that is present but empty is kept verbatim.
    fn text(&self, record: &Record, into: &mut String, extra: &mut Extra) -> Result<()> {
        *into = self.utf8(record.len().unwrap_or(0..0), "a message")?;
        if into.is_empty() {
            self.keep(extra, record);
        }
        Ok(())
    }

    fn utf8(&self, range: Range<usize>, message: &'static str) -> Result<String> {
        let offset = range.start;
        let text = std::str::from_utf8(self.wire.view(range));
        let what = "a text that is not UTF-8";
        text.map(str::to_owned).map_err(|_| ErrorKind::Wire { what, offset, message })
    }

    fn varints(&self, record: &Record, message: &'static str) -> Result<Vec<u64>> {
        match &record.value {
            Value::Varint(number) => Ok(vec![*number]),
            Value::Len(range) => tensor::unpack_varints(self.wire.view(range.clone()))
                .ok_or_else(|| self.invalid("a broken list of numbers", record, message)),
            _ => Err(self.invalid("a field of the wrong kind", record, message)),
        }
    }

    #[allow(clippy::unused_self)] // Reads as one of the reader's verbs.
    fn invalid(&self, what: &'static str, record: &Record, message: &'static str) -> ErrorKind {
        ErrorKind::Wire { what, offset: record.span.start, message }
    }
}

/// Which field holds an attribute's value: a reference, else what `type` says, else, for files
/// older than `type`, the first value field there is.
fn attribute_field(records: &[Record]) -> Option<u32> {
    use field::attribute as f;
    let refers = |record: &Record| {
        record.field == f::REF_ATTR_NAME && record.len().is_some_and(|range| !range.is_empty())
    };
    if records.iter().any(refers) {
        return Some(f::REF_ATTR_NAME);
    }
    let ty = records.iter().rev().find(|record| record.field == f::TYPE).and_then(Record::varint);
    match ty {
        Some(ty) => field::ATTRIBUTE_KINDS.iter().find(|kind| kind.0 == ty).map(|kind| kind.1),
        None => records
            .iter()
            .map(|record| record.field)
            .find(|field| field::ATTRIBUTE_KINDS.iter().any(|kind| kind.1 == *field)),
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
