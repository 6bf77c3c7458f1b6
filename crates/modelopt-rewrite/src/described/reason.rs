//! Why a region ends where it ends.

use std::collections::{HashMap, HashSet};
use std::fmt;

use indexmap::IndexSet;
use modelopt_graph::{Model, NodeId, ValueId};

use crate::integer::{self, Bounds, Kernel, Regions};
use crate::plan::ExplainedPlan;
use crate::policy::Capabilities;

/// A tensor at which numbers go into a region or out of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegionEnd {
    /// Name of the tensor.
    pub tensor: String,
    /// In which direction.
    pub edge: Edge,
    /// Why the region does not go on there.
    pub why: EndReason,
}

/// On which side of a region a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edge {
    /// It is made as float, and quantized for the region.
    Begin,
    /// It is made in the region, and read as float.
    End,
}

/// Why a region does not go on beyond a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// It is an input of the model.
    Input,
    /// It is an output of the model.
    Output,
    /// The node there has no integer kernel on the target that is worth its time.
    NoKernel {
        /// Its operator.
        op: String,
        /// The target.
        runtime: Option<&'static str>,
    },
    /// Some runtimes have an integer kernel for the node there, and nobody said where the model will run.
    UnknownTarget {
        /// Its operator.
        op: String,
    },
    /// The node there multiplies numbers none of which are weights.
    NoWeight {
        /// Its operator.
        op: String,
    },
    /// The node there is a layer that has another form.
    OtherForm {
        /// The layer's id.
        layer: String,
        /// The name of its scheme.
        scheme: String,
        /// Why it has that.
        why: String,
    },
    /// The node there has an integer kernel, and what else it reads is float.
    FloatBeside {
        /// Its operator.
        op: String,
        /// What it reads.
        tensor: String,
    },
    /// Nothing before the node there computes on integers.
    NothingBefore {
        /// Its operator.
        op: String,
    },
    /// Nothing behind the node there computes on integers.
    NothingBehind {
        /// Its operator.
        op: String,
    },
    /// The node there would be in the region if a range was known.
    NoRange {
        /// Its operator.
        op: String,
        /// The tensor whose range is not known.
        tensor: String,
    },
    /// The node there is in a branch or a loop.
    Nested {
        /// Its operator.
        op: String,
    },
}

impl EndReason {
    /// What kind of reason it is, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            EndReason::Input => "input",
            EndReason::Output => "output",
            EndReason::NoKernel { .. } => "no_kernel",
            EndReason::UnknownTarget { .. } => "unknown_target",
            EndReason::NoWeight { .. } => "no_weight",
            EndReason::OtherForm { .. } => "other_form",
            EndReason::FloatBeside { .. } => "float_beside",
            EndReason::NothingBefore { .. } => "nothing_before",
            EndReason::NothingBehind { .. } => "nothing_behind",
            EndReason::NoRange { .. } => "no_range",
            EndReason::Nested { .. } => "nested",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndReason::Input => f.write_str("it is an input of the model"),
            EndReason::Output => f.write_str("it is an output of the model"),
            EndReason::NoKernel { op, runtime: Some(runtime) } => {
                write!(f, "{op} has no integer kernel on {runtime} that is worth its time")
            }
            EndReason::NoKernel { op, runtime: None } => write!(f, "{op} has no integer kernel"),
            EndReason::UnknownTarget { op } => {
                write!(f, "not every runtime has an integer kernel for {op}, and none was named")
            }
            EndReason::NoWeight { op } => write!(f, "{op} multiplies without a weight"),
            EndReason::OtherForm { layer, scheme, why } if why.is_empty() => {
                write!(f, "layer '{layer}' is {scheme}")
            }
            EndReason::OtherForm { layer, scheme, why } => {
                write!(f, "layer '{layer}' is {scheme}: {why}")
            }
            EndReason::FloatBeside { op, tensor } => {
                write!(f, "{op} reads '{tensor}' as well, which is float")
            }
            EndReason::NothingBefore { op } => {
                write!(f, "nothing before {op} computes on integers")
            }
            EndReason::NothingBehind { op } => {
                write!(f, "nothing behind {op} computes on integers")
            }
            EndReason::NoRange { op, tensor } => {
                write!(f, "{op} needs the range of '{tensor}', which is not known")
            }
            EndReason::Nested { op } => write!(f, "{op} is in a branch or a loop"),
        }
    }
}

/// What is around the regions of a plan.
pub(super) struct Surroundings<'a> {
    model: &'a Model,
    plan: &'a ExplainedPlan,
    target: &'a Capabilities,
    layers: &'a HashSet<NodeId>,
    regions: &'a Regions,
    /// The ids of all layers.
    pub(super) ids: &'a HashMap<NodeId, String>,
    /// The tensors that there would be if all ranges were known.
    reachable: IndexSet<ValueId>,
    /// The tensors that are made on integers.
    made: HashSet<ValueId>,
}

impl<'a> Surroundings<'a> {
    pub(super) fn new(
        model: &'a Model,
        plan: &'a ExplainedPlan,
        target: &'a Capabilities,
        (layers, regions): (&'a HashSet<NodeId>, &'a Regions),
        ids: &'a HashMap<NodeId, String>,
    ) -> Self {
        let is_fused = |node| target.fuses(model.node(node));
        let bounds = Bounds { has_range: &|_| true, is_fused: &is_fused };
        let reachable = integer::regions(model, layers, &bounds).tensors;
        let made = integer::made_inside(model, regions);
        Surroundings { model, plan, target, layers, regions, ids, reachable, made }
    }

    /// Where a region begins and ends: first where it begins, each in model order.
    pub(super) fn ends(&self, nodes: &[NodeId], tensors: &[ValueId]) -> Vec<RegionEnd> {
        let mut ends: IndexSet<RegionEnd> = IndexSet::new();
        for &tensor in tensors {
            let is_read = !self.regions.readers(self.model, tensor).is_empty();
            if is_read && !self.made.contains(&tensor) {
                ends.insert(self.end(tensor, Edge::Begin, self.before(tensor)));
            }
        }
        let made = nodes.iter().flat_map(|&node| self.model.node(node).outputs().iter().flatten());
        for tensor in made.map(|&made| integer::end(self.model, made).0) {
            if self.model.value(tensor).is_output() {
                ends.insert(self.end(tensor, Edge::End, EndReason::Output));
            }
            for (reader, input) in self.model.consumers(tensor) {
                let is_quantized = self.regions.tensors.contains(&tensor);
                if !(is_quantized && self.regions.reads(self.model, reader, input)) {
                    ends.insert(self.end(tensor, Edge::End, self.at(reader, Edge::End)));
                }
            }
        }
        ends.into_iter().collect()
    }

    fn end(&self, tensor: ValueId, edge: Edge, why: EndReason) -> RegionEnd {
        RegionEnd { tensor: self.name(tensor), edge, why }
    }

    fn name(&self, value: ValueId) -> String {
        self.model.value(value).name().to_owned()
    }

    /// Why what makes a tensor is not in its region.
    fn before(&self, tensor: ValueId) -> EndReason {
        let Some(maker) = self.model.producer_node(tensor) else { return EndReason::Input };
        // What cuts numbers off belongs to what stands before it.
        let source = self.model.node(maker).input(0);
        let whole = source.filter(|&source| integer::end(self.model, source).0 == tensor);
        let maker = whole.and_then(|source| self.model.producer_node(source)).unwrap_or(maker);
        self.at(maker, Edge::Begin)
    }

    /// Why a node is not in the region that it is next to.
    fn at(&self, id: NodeId, edge: Edge) -> EndReason {
        let node = self.model.node(id);
        let op = node.op.to_string();
        if node.graph() != self.model.main() {
            return EndReason::Nested { op };
        }
        if let Some(other) = self.other_form(id) {
            return other;
        }
        match integer::kernel(node) {
            Some(Kernel::Product) if !self.layers.contains(&id) => EndReason::NoWeight { op },
            Some(_) if self.target.runtime.is_none() => EndReason::UnknownTarget { op },
            Some(_) if self.target.fuses(node) => self.beside(id, op, edge),
            _ => EndReason::NoKernel { op, runtime: self.target.runtime },
        }
    }

    /// The form of a layer of the plan that does not compute on integers. What has a kernel without being a
    /// layer of integers, such as an `Add` of a constant, is not decided by that.
    fn other_form(&self, id: NodeId) -> Option<EndReason> {
        if !matches!(integer::kernel(self.model.node(id)), None | Some(Kernel::Product)) {
            return None;
        }
        let layer = self.ids.get(&id).filter(|_| !self.layers.contains(&id))?;
        let (line, why) = self.plan.lines().find(|(line, _)| line.id == *layer)?;
        let (scheme, why) = (line.scheme.to_string(), why.reason.clone());
        Some(EndReason::OtherForm { layer: layer.clone(), scheme, why })
    }

    /// Why a node is not in the region that has an integer kernel.
    fn beside(&self, id: NodeId, op: String, edge: Edge) -> EndReason {
        let node = self.model.node(id);
        let is_absent = |value: &ValueId| !self.regions.tensors.contains(value);
        let inputs = integer::numbers(node).filter_map(|place| node.input(place));
        let read: Vec<ValueId> =
            inputs.filter(|&value| self.model.constant(value).is_none()).collect();
        let outputs = node.outputs().iter().flatten();
        let made = outputs.map(|&made| integer::end(self.model, made).0);
        let unknown = read.iter().copied().chain(made).filter(is_absent);
        if let Some(unknown) = unknown.into_iter().find(|value| self.reachable.contains(value)) {
            return EndReason::NoRange { op, tensor: self.name(unknown) };
        }
        let beside = read.iter().find(|value| is_absent(value));
        let goes_on = match edge {
            Edge::Begin => read.iter().any(|value| !is_absent(value)),
            Edge::End => self.leads_on(id),
        };
        match (beside, edge) {
            (Some(&beside), _) if goes_on => {
                EndReason::FloatBeside { op, tensor: self.name(beside) }
            }
            (_, Edge::Begin) => EndReason::NothingBefore { op },
            (_, Edge::End) => EndReason::NothingBehind { op },
        }
    }

    /// Whether layers that compute on integers come behind a node, with nothing but integer kernels between.
    fn leads_on(&self, from: NodeId) -> bool {
        let (mut next, mut seen) = (vec![from], HashSet::new());
        while let Some(id) = next.pop() {
            if !seen.insert(id) {
                continue;
            }
            let made = self.model.node(id).outputs().iter().flatten();
            for (reader, input) in made.flat_map(|&made| self.model.consumers(made)) {
                if self.layers.contains(&reader) && input == 0 {
                    return true;
                }
                let node = self.model.node(reader);
                let is_between = integer::kernel(node).is_some_and(|k| k != Kernel::Product);
                if is_between && self.target.fuses(node) {
                    next.push(reader);
                }
            }
        }
        false
    }
}
