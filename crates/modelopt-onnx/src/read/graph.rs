//! `GraphProto` and `NodeProto`: first their parts, then names made into values.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use modelopt_graph::{
    Constant, DeclaredType, GraphId, NewNode, Operator, Place, ValueId, ValueInfo,
};

use super::reader::{Reader, Result};
use crate::error::ErrorKind;
use crate::field;
use crate::origin::Extra;
use crate::wire::{MAX_DEPTH, Record, Value};

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
pub(super) struct RawGraph {
    name: String,
    pub(super) nodes: Vec<Range<usize>>,
    initializers: Vec<Range<usize>>,
    sparse_initializers: Vec<Range<usize>>,
    pub(super) inputs: Vec<Range<usize>>,
    pub(super) outputs: Vec<Range<usize>>,
    pub(super) declared: Vec<Range<usize>>,
    extra: Extra,
}

impl Reader {
    /// Reads a graph from the pieces it came in, mostly one.
    pub(super) fn graph(
        &mut self,
        pieces: &[Range<usize>],
        graph: GraphId,
        depth: usize,
    ) -> Result<()> {
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

    pub(super) fn declared(&mut self, infos: Vec<Range<usize>>, graph: GraphId) -> Result<()> {
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
    pub(super) fn define_results(&mut self, nodes: &[Range<usize>], graph: GraphId) -> Result<()> {
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

    pub(super) fn insert_nodes(
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

    fn initializer_value(&mut self, name: String, graph: GraphId) -> Result<ValueId> {
        match self.scopes.last().and_then(|scope| scope.get(&name)).copied() {
            Some(value) if self.model.value(value).constant().is_none() => Ok(value),
            _ => self.define(name, graph),
        }
    }
}
