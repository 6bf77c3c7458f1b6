//! What is in a model.

use std::collections::BTreeMap;
use std::path::Path;

use modelopt_graph::{AttributeValue, Constant, Model, SparseTensor, Tensor, ValueInfo};
use modelopt_onnx as onnx;
use modelopt_report as report;
use modelopt_rewrite::ExplainedPlan;
use serde::Serialize;

use crate::config::Config;
use crate::error::Error;
use crate::regions;
use crate::transform;

/// What is in a model.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Size on disk, external data included, in bytes.
    pub bytes: u64,
    /// Version of the ONNX format.
    pub ir_version: i64,
    /// Operator sets by domain.
    pub opsets: BTreeMap<String, i64>,
    /// Tool that made it, with its version.
    pub producer: String,
    /// Named strings.
    pub metadata: BTreeMap<String, String>,
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
    /// Operators, the most frequent first, nested graphs included.
    pub operators: Vec<OperatorCount>,
    /// Graphs nested in nodes.
    pub nested_graphs: usize,
    /// Model-local functions.
    pub functions: usize,
    /// Weights by element type, the largest first.
    pub weights: Vec<WeightBytes>,
    /// What `modelopt quantize` would do by default.
    #[serde(skip)]
    pub plan: ExplainedPlan,
    /// What that computes on integers by ranges.
    #[serde(skip)]
    pub regions: Vec<report::Region>,
}

/// An input or output.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Type and shape.
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether it is an input that has a default.
    pub has_default: bool,
}

/// How often an operator occurs.
#[derive(Clone, Debug, Serialize)]
pub struct OperatorCount {
    /// Operator, with its domain where that is not `ai.onnx`.
    pub operator: String,
    /// Number of nodes.
    pub count: usize,
}

/// How much of a model is weights of one type.
#[derive(Clone, Debug, Serialize)]
pub struct WeightBytes {
    /// Element type.
    #[serde(rename = "type")]
    pub ty: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Size in bytes.
    pub bytes: u64,
}

/// Reads a model and says what is in it.
pub fn inspect(path: &Path, config: &Config) -> Result<Inspection, Error> {
    let model = onnx::load(path)?;
    let prepared = transform::prepared(&model, config)?;
    let plan = transform::planned(&prepared, config, &transform::Hints::default())?;
    let regions = regions::regions(&prepared, &plan, config);
    let info = &model.info;
    let main = model.graph(model.main());
    let port = |info: &ValueInfo| Port {
        name: model.value(info.value).name().to_owned(),
        ty: info.ty.as_ref().map_or_else(|| "unknown".to_owned(), |ty| ty.ty.to_string()),
        has_default: model.value(info.value).constant().is_some(),
    };
    let domain = |domain: &str| if domain.is_empty() { "ai.onnx" } else { domain }.to_owned();
    Ok(Inspection {
        bytes: onnx::stored_size(path, &model)?,
        ir_version: info.ir_version,
        opsets: info.opsets.iter().map(|o| (domain(&o.domain), o.version)).collect(),
        producer: format!("{} {}", info.producer_name, info.producer_version).trim().to_owned(),
        metadata: info.metadata.iter().map(|m| (m.key.clone(), m.value.clone())).collect(),
        inputs: main.inputs.iter().map(port).collect(),
        outputs: main.outputs.iter().map(port).collect(),
        operators: operators(&model),
        nested_graphs: model.live_graphs().len() - 1,
        functions: model.functions.len(),
        weights: weights(&model),
        plan,
        regions,
    })
}

fn operators(model: &Model) -> Vec<OperatorCount> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for node in model.walk() {
        *counts.entry(model.node(node).op.to_string()).or_default() += 1;
    }
    let mut operators: Vec<OperatorCount> =
        counts.into_iter().map(|(operator, count)| OperatorCount { operator, count }).collect();
    operators.sort_by_key(|entry| std::cmp::Reverse(entry.count));
    operators
}

fn weights(model: &Model) -> Vec<WeightBytes> {
    let mut by_type: BTreeMap<String, WeightBytes> = BTreeMap::new();
    let mut add = |ty: String, bytes: u64| {
        let entry = by_type.entry(ty.clone()).or_insert(WeightBytes { ty, tensors: 0, bytes: 0 });
        entry.tensors += 1;
        entry.bytes += bytes;
    };
    let dense = |tensor: &Tensor| (tensor.dtype().to_string(), tensor.byte_len() as u64);
    let sparse =
        |tensor: &SparseTensor| (format!("{}, sparse", tensor.values.dtype()), tensor.byte_len());
    for graph in model.live_graphs() {
        for &value in model.initializers_of(graph) {
            let (ty, bytes) = match model.value(value).constant() {
                Some(Constant::Dense(tensor)) => dense(tensor),
                Some(Constant::Sparse(tensor)) => sparse(tensor),
                None => continue,
            };
            add(ty, bytes);
        }
    }
    for node in model.walk() {
        for attribute in &model.node(node).attributes {
            let (ty, bytes) = match &attribute.value {
                AttributeValue::Tensor(tensor) => dense(tensor),
                AttributeValue::SparseTensor(tensor) => sparse(tensor),
                _ => continue,
            };
            add(ty, bytes);
        }
    }
    let mut weights: Vec<WeightBytes> = by_type.into_values().collect();
    weights.sort_by_key(|entry| std::cmp::Reverse(entry.bytes));
    weights
}

#[cfg(test)]
mod tests;
