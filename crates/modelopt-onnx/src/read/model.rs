//! `ModelProto` and `FunctionProto`.

use std::collections::HashMap;
use std::ops::Range;

use modelopt_graph::{
    Function, GraphId, Metadata, ModelInfo, OpsetImport, Origin, Owner, ValueInfo,
};

use super::graph::RawGraph;
use super::reader::{Reader, Result};
use crate::error::ErrorKind;
use crate::field;
use crate::origin::Extra;
use crate::wire::Value;

/// The IR version from which on a model must say which operator sets it uses.
const OPSETS_SINCE: i64 = 3;

impl Reader {
    pub(super) fn model_message(&mut self, range: Range<usize>) -> Result<()> {
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

    pub(super) fn metadata(&self, range: Range<usize>) -> Result<Metadata> {
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
        let (function, raw) = self.raw_function(range, body)?;
        self.model.functions.push(function);
        self.scopes.push(HashMap::new());
        for name in raw.inputs {
            let name = self.utf8(name, "FunctionProto")?;
            let value = self.define(name, body)?;
            self.model.add_input(body, ValueInfo { value, ty: None, origin: Origin::NONE });
        }
        self.define_results(&raw.nodes, body)?;
        self.insert_nodes(raw.nodes, body, 1)?;
        for name in raw.outputs {
            let name = self.utf8(name, "FunctionProto")?;
            let value = self.lookup(&name, || "an output of a function".to_owned())?;
            self.model.add_output(body, ValueInfo { value, ty: None, origin: Origin::NONE });
        }
        self.declared(raw.declared, body)?;
        self.scopes.pop();
        Ok(())
    }

    /// A function, and its body before names are resolved; inputs and outputs are names.
    fn raw_function(&self, range: Range<usize>, body: GraphId) -> Result<(Function, RawGraph)> {
        let mut function = Function {
            domain: String::new(),
            name: String::new(),
            overload: String::new(),
            opsets: Vec::new(),
            body,
            has_attribute_defaults: false,
            origin: Origin::NONE,
        };
        let mut extra = Extra::default();
        let mut raw = RawGraph::default();
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
                (field::function::INPUT, Value::Len(content)) => raw.inputs.push(content.clone()),
                (field::function::OUTPUT, Value::Len(content)) => {
                    raw.outputs.push(content.clone());
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
        Ok((function, raw))
    }
}
