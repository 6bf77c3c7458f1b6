//! Makes a problem of a plan: what each layer can be instead is read from the ladder of schemes, what
//! that costs from bytes and work, and which layers go together from the weights that they share.
//!
//! ```text
//! a layer that quantizes its activation or computes in 16 bits -> the same weights, computed in float32
//! weights in int8 -> in 16 bits -> float32
//! ```

mod builder;

use std::collections::{HashMap, HashSet};

use modelopt_report as report;
use modelopt_rewrite::{
    ExplainedPlan, Explanation, LayerNoise, Plan, PlannedLayer, Prepared, Scheme, Switch,
};
use modelopt_validate::Limits;

use super::problem::{Move, Problem, Selection};
use super::tuning::Tuning;
use crate::config::Objective;
use crate::culprits;
use crate::sensitivity;
use builder::Builder;

/// What bytes and time count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    bytes: f64,
    time: f64,
}

impl Weights {
    pub(crate) fn of(objective: Objective, tuning: &Tuning) -> Self {
        let minor = tuning.costs.minor;
        match objective {
            Objective::Balanced => Weights { bytes: 1.0, time: 1.0 },
            Objective::Latency => Weights { bytes: minor, time: 1.0 },
            Objective::Size => Weights { bytes: 1.0, time: minor },
        }
    }

    /// Where layers compute on integers by ranges: that saves a part of the time.
    fn by_ranges(self, tuning: &Tuning) -> Self {
        let costs = &tuning.costs;
        Weights { time: self.time * costs.time_by_ranges, ..self.with_bytes(costs.bytes_by_ranges) }
    }

    /// Where bytes count so many times as much.
    pub(crate) fn with_bytes(self, factor: f64) -> Self {
        Weights { bytes: self.bytes * factor, ..self }
    }
}

/// What is known of a plan's layers besides what stands in the plan.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// What their own rounding costs, by place.
    pub(crate) local: HashMap<usize, LayerNoise>,
    /// The work of each, by name: what taking it out of what is fast costs.
    pub(crate) work: HashMap<String, f64>,
}

/// Layers that share a weight.
#[derive(Clone, Debug)]
struct Group {
    /// Places in the plan.
    layers: Vec<usize>,
    /// The item that their weights are, with the scheme of each of its levels; none where weights go
    /// wherever the layer goes.
    weights: Option<(usize, Vec<Scheme>)>,
}

/// A layer that does more than store its weights.
#[derive(Clone, Debug)]
struct Computing {
    /// Its item: computed as planned, or in float32.
    item: usize,
    /// What it is in float32.
    below: Scheme,
}

/// What a source of the problem is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// The weights of a group.
    Weights(usize),
    /// The activation of a layer.
    Activation(usize),
    /// A tensor that is quantized by a range.
    Tensor(String),
    /// A switch, by its place.
    Switch(usize),
}

/// A plan, and what its moves stand for.
#[derive(Debug)]
pub(crate) struct Ladder {
    base: ExplainedPlan,
    groups: Vec<Group>,
    computing: HashMap<usize, Computing>,
    origins: Vec<Origin>,
    local: HashMap<usize, LayerNoise>,
}

impl Ladder {
    /// The ladder below an int8 plan. Until switches tell, the layers' own errors stand for what those
    /// do to the outputs.
    pub(crate) fn below(
        prepared: &Prepared,
        base: &ExplainedPlan,
        known: Known,
        weights: Weights,
        tuning: &Tuning,
    ) -> (Ladder, Problem) {
        let by_ranges = base.layers.iter().any(|line| line.scheme.needs_ranges());
        let weights = if by_ranges { weights.by_ranges(tuning) } else { weights };
        let mut builder = Builder::new(prepared, base, known, weights, tuning);
        let groups = culprits::groups(base, |_| true);
        builder.add_groups(groups);
        builder.add_own_sources();
        builder.add_tensors();
        let bytes: u64 = base.lines().map(|(_, why)| why.bytes).sum();
        builder.problem.least = tuning.costs.least_int8 * bytes as f64;
        (builder.ladder, builder.problem)
    }

    /// The ladder below a plan of 16 bits, by the switches that its roundings are under.
    pub(crate) fn of_switches(
        prepared: &Prepared,
        base: &ExplainedPlan,
        switches: &[Switch],
        weights: Weights,
        tuning: &Tuning,
    ) -> (Ladder, Problem) {
        let mut builder = Builder::new(prepared, base, Known::default(), weights, tuning);
        builder.by_switch = !switches.is_empty();
        let small = tuning.mixing.small;
        let groups = culprits::groups(base, |why| why.bytes >= small);
        builder.add_groups(groups);
        if switches.is_empty() {
            builder.add_own_sources();
        } else {
            builder.add_switches(switches);
        }
        (builder.ladder, builder.problem)
    }

    /// The noise of each source, of what each switch does.
    pub(crate) fn noises(&self, switches: &[Switch], excesses: &[f64]) -> Vec<f64> {
        let of = |origin: &Origin| match origin {
            Origin::Tensor(name) => {
                let is_own = |switch: &Switch| matches!(switch, Switch::Tensor { tensor, .. } if tensor == name);
                let place = switches.iter().position(is_own);
                place.and_then(|place| excesses.get(place)).copied().unwrap_or_default()
            }
            Origin::Switch(place) => excesses.get(*place).copied().unwrap_or_default(),
            Origin::Weights(group) => {
                let layers = &self.groups[*group].layers;
                let own = switches.iter().zip(excesses).filter(|(switch, _)| match switch {
                    Switch::Weight { layers: read, .. } => {
                        read.iter().any(|place| layers.contains(place))
                    }
                    _ => false,
                });
                own.map(|(_, excess)| excess).sum()
            }
            Origin::Activation(place) => {
                let own = switches.iter().zip(excesses).filter(
                    |(switch, _)| matches!(switch, Switch::Activation { layer } if layer == place),
                );
                own.map(|(_, excess)| excess).sum()
            }
        };
        self.origins.iter().map(of).collect()
    }

    /// The switches that each source is, where it is switches.
    pub(crate) fn by_switch(&self) -> bool {
        self.origins.iter().any(|origin| matches!(origin, Origin::Switch(_)))
    }

    /// The plan with everything on the levels of a selection.
    pub(crate) fn plan(&self, selection: &Selection) -> ExplainedPlan {
        let mut plan = self.base.clone();
        for (place, line) in plan.lines_mut().enumerate() {
            let Some(computing) = self.computing.get(&place) else { continue };
            if selection.0[computing.item] > 0 {
                set(line, computing.below);
            }
        }
        for group in &self.groups {
            let Some((item, schemes)) = &group.weights else { continue };
            let level = selection.0[*item];
            if let (true, Some(&scheme)) = (level > 0, schemes.get(level)) {
                group.layers.iter().for_each(|&place| set(plan.line_mut(place), scheme));
            }
        }
        tidy(&mut plan);
        plan
    }

    /// The layers that a selection changes.
    pub(crate) fn moved(&self, selection: &Selection) -> usize {
        let plan = self.plan(selection);
        let lines = plan.layers.iter().zip(&self.base.layers);
        lines.filter(|(now, before)| now.scheme != before.scheme).count()
    }

    /// What to call a move: its first layer.
    pub(crate) fn name(&self, step: &Move) -> &str {
        let items: Vec<usize> = step.to.iter().map(|(item, _)| *item).collect();
        let computing = |place: usize| self.computing.get(&place).map(|known| known.item);
        let weights = |place: usize| {
            let of = |group: &&Group| group.layers.contains(&place);
            self.groups.iter().find(of).and_then(|group| group.weights.as_ref().map(|w| w.0))
        };
        let is_part = |&place: &usize| {
            let own = [computing(place), weights(place)];
            own.iter().flatten().any(|item| items.contains(item))
        };
        let first = (0..self.base.layers.len()).find(is_part);
        first.map_or("", |place| &self.base.layers[place].id)
    }

    /// The groups for a report, the noisiest first.
    pub(crate) fn described(
        &self,
        problem: &Problem,
        limits: &Limits,
        is_measured: bool,
    ) -> Vec<report::Sensitivity> {
        let limit = limits.min_sqnr_db.unwrap_or(0.0);
        let mut described: Vec<(f64, report::Sensitivity)> = (0..self.groups.len())
            .map(|group| {
                let excess = self.excess_of(group, problem);
                let layers = &self.groups[group].layers;
                let mut entry = sensitivity::described(&self.base, layers, &self.local);
                entry.alone_db = is_measured.then(|| limit - 10.0 * excess.log10());
                (excess, entry)
            })
            .collect();
        described.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        described.into_iter().map(|(_, entry)| entry).collect()
    }

    /// The noise of a group on the sample where it is worst.
    fn excess_of(&self, group: usize, problem: &Problem) -> f64 {
        let mut total: Vec<f64> = Vec::new();
        for (origin, source) in self.origins.iter().zip(&problem.sources) {
            let is_own = match origin {
                Origin::Weights(of) => *of == group,
                Origin::Activation(place) => self.groups[group].layers.contains(place),
                Origin::Switch(_) | Origin::Tensor(_) => false,
            };
            if is_own {
                total.resize(source.noise.len().max(total.len()), 0.0);
                total.iter_mut().zip(&source.noise).for_each(|(sum, noise)| *sum += noise);
            }
        }
        total.into_iter().fold(0.0, f64::max)
    }
}

/// Whether a layer does more than store its weights.
fn computes(scheme: Scheme) -> bool {
    scheme.quantizes_activations() || scheme.computes_in().is_some()
}

/// Gives a layer a scheme further down, with the reason.
fn set((layer, why): (&mut PlannedLayer, &mut Explanation), scheme: Scheme) {
    let before = layer.scheme;
    layer.scheme = scheme;
    why.reason = if before.computes_in().is_some() || before.stores_in().is_some() {
        let stored = scheme.stores_in().map_or("", |_| "; its weights alone do not");
        format!("in 16 bits it costs more than the limit{stored}")
    } else if scheme.is_int8() {
        "quantizing its activation costs more than the limit".to_owned()
    } else if scheme.is_keep() {
        "in fewer bits it costs more than the limit".to_owned()
    } else {
        "as int8 it costs more than the limit".to_owned()
    };
}

/// Drops refinements that no layer is left for: what refines int8 is of no use elsewhere.
pub(crate) fn tidy(plan: &mut Plan) {
    for line in &mut plan.layers {
        if !line.scheme.is_int8() {
            line.bias_correction = Vec::new();
            line.numerics = None;
        }
        line.at_load &= line.scheme.is_int8() && !line.scheme.quantizes_activations();
    }
    let useful: HashSet<Vec<u32>> = plan
        .layers
        .iter()
        .filter(|line| line.scheme.is_dynamic())
        .map(|line| bits(&line.smoothing))
        .collect();
    for line in &mut plan.layers {
        if !line.scheme.needs_ranges() && !useful.contains(&bits(&line.smoothing)) {
            line.smoothing = Vec::new();
        }
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[cfg(test)]
mod tests;
