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
use std::collections::hash_map::Entry;
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
use crate::wire::{MAX_DEPTH, MAX_RANK, Record, Value, Wire};

/// The IR version from which on a model must say which operator sets it uses.
const OPSETS_SINCE: i64 = 3;

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

/// What a first look at an attribute tells.
struct Outline {
    name: String,
    /// The field that holds the value, if known.
    kind: Option<u32>,
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
        // A singular message may come in pieces, which make one.
        let mut graph = Vec::new();
        let mut functions = Vec::new();
        for record in self.wire.records(range, "ModelProto") {
            let record = record?;
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
                (field::model::GRAPH, Value::Len(content)) => graph.push(content.clone()),
                (field::model::METADATA_PROPS, Value::Len(content)) => {
                    info.metadata.push(self.metadata(content.clone())?);
                }
                (field::model::FUNCTIONS, Value::Len(content)) => functions.push(content.clone()),
                _ => self.keep(&mut extra, &record),
            }
        }
        if graph.is_empty() {
            return Err(ErrorKind::Missing("graph"));
        }
        if info.opsets.is_empty() && info.ir_version >= OPSETS_SINCE {
            return Err(ErrorKind::Missing("operator set version (opset_import)"));
        }
        self.model.info = info;
        let main = self.model.main();
        self.graph(&graph, main, 1)?;
        for function in functions {
            self.function(function)?;
        }
        extra.external = self.external.total_bytes();
        self.model.info.origin = extra.into_origin();
        Ok(())
    }

    fn opset(&self, range: Range<usize>) -> Result<OpsetImport> {
        self.wire.count_object()?;
        let mut extra = Extra::default();
        let (mut domain, mut version) = (String::new(), 0);
        for record in self.wire.records(range, "OperatorSetIdProto") {
            let record = record?;
            match (record.field, &record.value) {
                (field::opset::DOMAIN, Value::Len(_)) => {
                    self.text(&record, &mut domain, &mut extra)?;
                }
                (field::opset::VERSION, Value::Varint(number)) => {
                    version = *number as i64;
                    if version == 0 {
                        self.keep(&mut extra, &record);
                    }
                }
                _ => self.keep(&mut extra, &record),
            }
        }
        Ok(OpsetImport { domain, version, origin: extra.into_origin() })
    }

    fn metadata(&self, range: Range<usize>) -> Result<Metadata> {
        self.wire.count_object()?;
        let mut extra = Extra::default();
        let (mut key, mut value) = (String::new(), String::new());
        for record in self.wire.records(range, "StringStringEntryProto") {
            let record = record?;
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
        self.wire.count_object()?;
        let body = self.model.add_graph(Owner::Function(self.model.functions.len()));
        let mut function = Function {
            domain: String::new(),
            name: String::new(),
            overload: String::new(),
            opsets: Vec::new(),
            body,
            has_attribute_defaults: false,
            origin: modelopt_graph::Origin::NONE,
        };
        let mut extra = Extra::default();
        let mut raw = RawGraph::default();
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for record in self.wire.records(range, "FunctionProto") {
            let record = record?;
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
                    inputs.push(content.clone());
                }
                (field::function::OUTPUT, Value::Len(content)) => {
                    outputs.push(content.clone());
                }
                (field::function::NODE, Value::Len(content)) => raw.nodes.push(content.clone()),
                (field::function::OPSET_IMPORT, Value::Len(content)) => {
                    function.opsets.push(self.opset(content.clone())?);
                }
                (field::function::VALUE_INFO, Value::Len(content)) => {
                    raw.declared.push(content.clone());
                }
                (field::function::ATTRIBUTE_PROTO, Value::Len(_)) => {
                    function.has_attribute_defaults = true;
                    self.keep(&mut extra, &record);
                }
                _ => self.keep(&mut extra, &record),
            }
        }
        function.origin = extra.into_origin();
        self.model.functions.push(function);
        self.scopes.push(HashMap::new());
        for name in inputs {
            let name = self.utf8(name, "FunctionProto")?;
            let value = self.define(name, body)?;
            let info = ValueInfo { value, ty: None, origin: modelopt_graph::Origin::NONE };
            self.model.add_input(body, info);
        }
        self.define_results(&raw.nodes, body)?;
        self.insert_nodes(raw.nodes, body, 1)?;
        for name in outputs {
            let name = self.utf8(name, "FunctionProto")?;
            let value = self.lookup(&name, || "an output of a function".to_owned())?;
            let info = ValueInfo { value, ty: None, origin: modelopt_graph::Origin::NONE };
            self.model.add_output(body, info);
        }
        self.declared(raw.declared, body)?;
        self.scopes.pop();
        Ok(())
    }

    /// Reads a graph from the pieces it came in, mostly one.
    fn graph(&mut self, pieces: &[Range<usize>], graph: GraphId, depth: usize) -> Result<()> {
        self.wire.count_object()?;
        if depth + 2 > MAX_DEPTH {
            let what = "graphs nested deeper than any real model nests them";
            let offset = pieces.first().map_or(0, |piece| piece.start);
            return Err(ErrorKind::Wire { what, offset, message: "GraphProto" });
        }
        let mut raw = RawGraph::default();
        for piece in pieces {
            self.raw_graph(piece.clone(), &mut raw)?;
        }
        self.model.graph_mut(graph).name.clone_from(&raw.name);
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
        self.define_results(&raw.nodes, graph)?;
        self.insert_nodes(raw.nodes, graph, depth)?;
        for output in raw.outputs {
            let (name, ty, extra) = self.value_info(output)?;
            let value = self.lookup(&name, || format!("an output of graph '{}'", raw.name))?;
            self.model.add_output(graph, ValueInfo { value, ty, origin: extra.into_origin() });
        }
        self.declared(raw.declared, graph)?;
        self.scopes.pop();
        Ok(())
    }

    fn raw_graph(&self, range: Range<usize>, raw: &mut RawGraph) -> Result<()> {
        for record in self.wire.records(range, "GraphProto") {
            let record = record?;
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
        Ok(())
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
        self.wire.count_object()?;
        let mut extra = Extra::default();
        let (mut name, mut ty) = (String::new(), None);
        for record in self.wire.records(range, "ValueInfoProto") {
            let record = record?;
            match (record.field, &record.value) {
                (field::value_info::NAME, Value::Len(_)) => {
                    self.text(&record, &mut name, &mut extra)?;
                }
                (field::value_info::TYPE, Value::Len(content)) => {
                    if ty.replace(self.declared_type(content.clone())?).is_some() {
                        return Err(self.invalid("a second type", &record, "ValueInfoProto"));
                    }
                }
                _ => self.keep(&mut extra, &record),
            }
        }
        Ok((name, ty, extra))
    }

    /// Makes the values that the nodes produce: a node may read what a later one makes, as long
    /// as they can be sorted.
    fn define_results(&mut self, nodes: &[Range<usize>], graph: GraphId) -> Result<()> {
        for node in nodes {
            for record in self.wire.records(node.clone(), "NodeProto") {
                if let Record { field: field::node::OUTPUT, value: Value::Len(content), .. } =
                    record?
                    && !content.is_empty()
                {
                    let name = self.utf8(content, "NodeProto")?;
                    self.define(name, graph)?;
                }
            }
        }
        Ok(())
    }

    fn raw_node(&self, range: Range<usize>) -> Result<RawNode> {
        self.wire.count_object()?;
        let offset = range.start;
        let mut node = RawNode::default();
        let extra = &mut node.extra;
        for record in self.wire.records(range, "NodeProto") {
            let record = record?;
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
        if node.op.is_empty() {
            let what = "a node without operator";
            return Err(ErrorKind::Wire { what, offset, message: "NodeProto" });
        }
        Ok(node)
    }

    fn insert_nodes(
        &mut self,
        nodes: Vec<Range<usize>>,
        graph: GraphId,
        depth: usize,
    ) -> Result<()> {
        for range in nodes {
            let raw = self.raw_node(range)?;
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
        Ok(true)
    }

    /// Reads a tensor whose name no graph knows, so that the tensor itself has to keep it.
    fn named_tensor(
        &mut self,
        range: Range<usize>,
        whose: &str,
    ) -> Result<(String, modelopt_graph::Tensor)> {
        let (name, tensor) = self.tensor(range.clone(), whose)?;
        if name.is_empty() {
            return Ok((name, tensor));
        }
        let mut extra = Extra::of(tensor.origin()).cloned().unwrap_or_default();
        for record in self.wire.records(range, "TensorProto") {
            let record = record?;
            if record.field == field::tensor::NAME && record.len().is_some() {
                self.keep(&mut extra, &record);
            }
        }
        Ok((name, tensor.with_origin(extra.into_origin())))
    }

    fn sparse_tensor(&mut self, range: Range<usize>) -> Result<(String, SparseTensor)> {
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

    fn initializer_value(&mut self, name: String, graph: GraphId) -> Result<ValueId> {
        match self.scopes.last().and_then(|scope| scope.get(&name)).copied() {
            Some(value) if self.model.value(value).constant().is_none() => Ok(value),
            _ => self.define(name, graph),
        }
    }

    /// Makes a value. One without a name is in no scope: an empty name means that an input or
    /// output is left out.
    fn define(&mut self, name: String, graph: GraphId) -> Result<ValueId> {
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

    fn lookup(&self, name: &str, reader: impl Fn() -> String) -> Result<ValueId> {
        let found = self.scopes.iter().rev().find_map(|scope| scope.get(name));
        found
            .copied()
            .ok_or_else(|| Problem::Dangling { reader: reader(), value: name.to_owned() }.into())
    }

    fn keep(&self, extra: &mut Extra, record: &Record) {
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

    /// Takes one record of dimensions, packed or not.
    fn dims(&self, record: &Record, shape: &mut Vec<usize>, message: &'static str) -> Result<()> {
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
