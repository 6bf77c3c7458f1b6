//! Computing in 16 bits: float16 and bfloat16, decided by the schema of each operator.
//!
//! - [`form`] says what a node looks like in 16 bits, or why it must stay float32;
//! - [`unsafe_ops`] and [`values`] say what should stay float32 for the sake of its numbers;
//! - [`regions`] decides which nodes change, [`chains`] follows values through control flow;
//! - [`storing`] lets nodes that stay float32 store their weights in 16 bits all the same;
//! - [`convert`] carries it out;
//! - [`error_injection`] lets roundings be switched on one by one;
//! - [`emulate`](mod@emulate) computes what comes of it in float32.
//!
//! The plan has a line for each node that reads or makes float32.

mod chains;
mod convert;
mod emulate;
mod error_injection;
mod form;
mod options;
mod regions;
mod rounding;
mod storing;
mod unsafe_ops;
mod values;

use std::collections::{HashMap, HashSet};

use modelopt_graph::{DataType, Model, NodeId, Tensor, ValueId};
use rayon::prelude::*;

use crate::apply::QuantizedWeight;
use crate::engine::{self, BrokenRewrite};
use crate::forms::Scheme;
use crate::layers;
use crate::plan::{
    ExplainedPlan, Explanation, Interface, Plan, PlanError, PlannedLayer, Precision,
};
use crate::policy::PlanOptions;
use crate::select;
use form::Slot;
use regions::Fate;

pub use emulate::{Emulated, Known, emulate};
pub use error_injection::rounding_switchboard;
pub(crate) use form::available;
pub use options::PrecisionOptions;
pub(crate) use rounding::of_tensor;
pub use rounding::{Rounding, rounding};

/// The plan for computing in `to` wherever that is possible and safe.
pub(crate) fn plan(
    model: &Model,
    to: Precision,
    options: &PlanOptions,
) -> Result<ExplainedPlan, PlanError> {
    let named: Vec<layers::Layer> = layers::all(model);
    let refused = refusals(model, &named, to, options)?;
    let mut plan = ExplainedPlan::new(options.numerics);
    plan.io = options.precision.io;
    let ids: HashMap<NodeId, &str> =
        named.iter().map(|layer| (layer.node, layer.id.as_str())).collect();
    for (id, fate) in regions::decide(model, to, &options.precision, &refused) {
        let scheme = Scheme::computing_in(to);
        let (scheme, reason) = match &fate {
            Fate::Narrow => (scheme, reason(model, id)),
            Fate::Through(true) => (scheme, "values pass through it".to_owned()),
            Fate::Through(false) => {
                (Scheme::default(), "nothing of 16 bits passes through it".into())
            }
            Fate::Idle => (Scheme::default(), "it moves what stays float32".to_owned()),
            Fate::Must(reason) | Fate::Should(reason) => (Scheme::default(), reason.clone()),
        };
        let layer = ids.get(&id).copied().unwrap_or_default();
        plan.push(PlannedLayer::new(layer, scheme), explanation(model, id, reason));
    }
    storing::store(model, &mut plan, &refused, &named, to, options);
    if form::available(model, to).is_err() || !convert::has_float_interface(model) {
        plan.io = Interface::default();
    }
    Ok(plan)
}

fn reason(model: &Model, id: NodeId) -> String {
    let moves = regions::moves(model, id);
    if moves { "moves numbers of 16 bits" } else { "its operator computes in 16 bits" }.to_owned()
}

/// What a node is, with the constants that it reads.
fn explanation(model: &Model, id: NodeId, reason: String) -> Explanation {
    let constants: Vec<(ValueId, u64)> = model
        .node(id)
        .inputs()
        .iter()
        .flatten()
        .filter_map(|&value| {
            let float = model.constant(value).filter(|t| t.dtype() == DataType::FLOAT);
            let tensor = float.or_else(|| layers::stored_narrow(model, value))?;
            Some((value, tensor.byte_len() as u64))
        })
        .collect();
    Explanation::of(model, id, &constants, reason)
}

/// The nodes that stay float32 because somebody said so.
fn refusals(
    model: &Model,
    named: &[layers::Layer],
    to: Precision,
    options: &PlanOptions,
) -> Result<HashMap<NodeId, String>, PlanError> {
    let selected = select::selected(model, named, &options.include, &options.exclude)?;
    let unavailable = form::available(model, to).err();
    let reasons = named.iter().zip(selected).filter_map(|(layer, selected)| {
        let reason = unavailable.clone().or(selected.err())?;
        Some((layer.node, reason))
    });
    Ok(reasons.collect())
}

/// The nodes that a plan wants in `to`, by node; an error where that cannot be.
pub(crate) fn asked(
    model: &Model,
    plan: &Plan,
    to: Precision,
) -> Result<HashSet<NodeId>, PlanError> {
    let wanted: HashMap<&str, Scheme> = plan
        .layers
        .iter()
        .filter(|layer| layer.scheme.computes_in() == Some(to))
        .map(|layer| (layer.id.as_str(), layer.scheme))
        .collect();
    let mut nodes = HashSet::new();
    if wanted.is_empty() {
        return Ok(nodes);
    }
    for layer in layers::all(model) {
        let Some(&scheme) = wanted.get(layer.id.as_str()) else { continue };
        let impossible =
            form::available(model, to).err().or_else(|| match form::form(model, layer.node, to) {
                form::Kind::Fixed(reason) => Some(reason),
                form::Kind::Unconcerned => Some("it has nothing to do with float32".to_owned()),
                form::Kind::Control | form::Kind::Free(_) => None,
            });
        if let Some(why) = impossible {
            return Err(PlanError::Impossible { layer: layer.id, scheme, why });
        }
        nodes.insert(layer.node);
    }
    Ok(nodes)
}

/// Why a layer is as a plan that was given has it.
pub(crate) const GIVEN: &str = "as the plan says";

/// The layers that a plan asks for, checked and explained.
pub(crate) fn lines_from(
    model: &Model,
    wanted: &Plan,
) -> Result<Vec<(PlannedLayer, Explanation)>, PlanError> {
    let mut lines = Vec::new();
    for to in Precision::ALL {
        asked(model, wanted, to)?;
    }
    let asked: HashMap<&str, &PlannedLayer> =
        wanted.layers.iter().map(|layer| (layer.id.as_str(), layer)).collect();
    for layer in layers::all(model) {
        let Some(&wanted) = asked.get(layer.id.as_str()) else { continue };
        lines.push((wanted.clone(), explanation(model, layer.node, GIVEN.to_owned())));
    }
    Ok(lines)
}

/// The regions that a plan asks for, found before anything else changes the model.
pub(crate) struct Conversion {
    to: Precision,
    changes_io: bool,
    regions: regions::Regions,
}

/// What a plan asks for in 16 bits.
pub(crate) fn conversions(model: &Model, plan: &Plan) -> Vec<Conversion> {
    let mut all = Vec::new();
    for to in Precision::ALL {
        // Checked when the plan was made.
        let nodes = asked(model, plan, to).unwrap_or_default();
        let changes_io = plan.io.precision() == Some(to);
        if !nodes.is_empty() || changes_io {
            let regions = regions::planned(model, to, &nodes, changes_io);
            all.push(Conversion { to, changes_io, regions });
        }
    }
    all
}

/// Carries out a conversion. Returns what became of the constants.
pub(crate) fn convert(
    model: &mut Model,
    conversion: &Conversion,
) -> Result<Vec<QuantizedWeight>, BrokenRewrite> {
    let &Conversion { to, changes_io, ref regions } = conversion;
    let mut rounded = Vec::new();
    let change = |model: &mut Model| {
        rounded = convert::convert(model, regions, to, changes_io);
        // Casts alone may be what changed.
        1
    };
    if changes_io {
        engine::checked_inside(model, to.name(), change)?;
    } else {
        engine::checked(model, to.name(), change)?;
    }
    let results = rounded.into_par_iter().map(|(name, tensor)| weight(name, &tensor, to));
    Ok(results.collect())
}

/// What rounding does to a weight.
pub(crate) fn weight(name: String, tensor: &Tensor, to: Precision) -> QuantizedWeight {
    let bytes = tensor.byte_len() as u64;
    QuantizedWeight {
        name,
        bytes_before: bytes,
        bytes_after: to.dtype().byte_len(tensor.len()).unwrap_or(0) as u64,
        sqnr_db: of_tensor(tensor, to).map_or(f64::INFINITY, |rounding| rounding.sqnr_db()),
    }
}

/// The values of the main graph that could be rounded, and so are worth measuring.
pub fn measurable(model: &Model, to: Precision) -> Vec<ValueId> {
    let mut seen = HashSet::new();
    let mut values = Vec::new();
    for id in model.nodes_of(model.main()) {
        let form::Kind::Free(form) = form::form(model, id, to) else { continue };
        let node = model.node(id);
        let read =
            node.inputs().iter().zip(&form.inputs).filter(|(_, slot)| **slot == Slot::Narrow);
        let made = node.outputs().iter().zip(&form.outputs).filter(|(_, narrow)| **narrow);
        for value in read.map(|(value, _)| value).chain(made.map(|(value, _)| value)).flatten() {
            if model.constant(*value).is_none() && seen.insert(*value) {
                values.push(*value);
            }
        }
    }
    values
}
