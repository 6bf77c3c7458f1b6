//! The ladder: what each layer can be instead, what that costs, and in which order to move.

use std::collections::{HashMap, HashSet};

use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, LayerNoise, Plan, Scheme, Seen, Switch};
use modelopt_validate::Limits;

use crate::config::Objective;
use crate::culprits;
use crate::evaluator::Prover;
use crate::sensitivity;

/// What the other of size and time counts, where one is the objective.
const MINOR: f64 = 0.05;

/// What every move costs, so that small ones are not free.
const EVERY_MOVE: f64 = 2e-4;

/// What float16 leaves of int8's noise where that is not known: 2^-11 against 2^-8, squared.
const FP16_SHARE: f64 = 1.0 / 64.0;

/// Layers that share a weight, with what their roundings cost.
#[derive(Clone, Debug)]
struct Group {
    /// Places in the plan.
    layers: Vec<usize>,
    /// Bytes of the weights.
    bytes: f64,
    /// Whether the weights can be stored as float16.
    halves: bool,
    /// Share of float16's noise in int8's.
    fp16_share: f64,
    /// Noise of the rounded weights, as excess over the limits, for each sample that was probed.
    weights: Vec<f64>,
    /// For each layer that quantizes its activation: its place, and the noise of that.
    activations: Vec<(usize, Vec<f64>)>,
}

/// One move.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) change: Change,
    /// What it costs, as a share of all bytes and all time that a plan can save.
    pub(crate) cost: f64,
    /// The predicted excess before it.
    pub(crate) before: f64,
    /// The predicted excess after it and all before it.
    pub(crate) excess: f64,
}

/// What a move does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A layer no longer quantizes its activation.
    Stored {
        /// Group of the layer.
        group: usize,
        /// Place in the plan.
        layer: usize,
    },
    /// Weights are stored as float16, and nothing that reads them quantizes its activation.
    Half {
        /// Group of the layers.
        group: usize,
    },
    /// The layers are left as they are.
    Keep {
        /// Group of the layers.
        group: usize,
    },
}

impl Step {
    /// Whether this step is pointless or undoes another one once that is taken back.
    pub(crate) fn needs(&self, other: &Step) -> bool {
        match (&self.change, &other.change) {
            (a, b) if a == b => true,
            (Change::Keep { group }, Change::Half { group: of }) => group == of,
            _ => false,
        }
    }
}

/// What some moves cost together.
pub(crate) fn cost(steps: &[Step]) -> f64 {
    steps.iter().map(|step| step.cost).sum()
}

/// All groups of a plan.
#[derive(Debug)]
pub(crate) struct Ladder {
    base: Plan,
    groups: Vec<Group>,
    local: HashMap<usize, LayerNoise>,
    /// Share of each layer in all time that dynamic layers save.
    time: HashMap<usize, f64>,
    total_bytes: f64,
    objective: Objective,
    /// How many samples were probed.
    probed: usize,
}

impl Ladder {
    /// The ladder below a plan. Until layers are measured, their own errors stand for what those do
    /// to the outputs.
    pub(crate) fn new(
        prover: &Prover<'_, '_>,
        base: &Plan,
        seen: &Seen,
        objective: Objective,
    ) -> Self {
        let noises = prover.prepared.sensitivity(base, seen);
        let local: HashMap<usize, LayerNoise> =
            noises.into_iter().map(|noise| (noise.layer, noise)).collect();
        let work = sensitivity::work(prover);
        let dynamic = |place: &usize| base.layers[*place].scheme == Scheme::INT8_DYNAMIC;
        let own = |place: usize| work.get(&base.layers[place].name).copied().unwrap_or(0.0);
        let places = || (0..base.layers.len()).filter(dynamic);
        let all: f64 = places().map(own).sum();
        let time = places().map(|place| (place, own(place) / all.max(1.0))).collect();
        let half = rewrite::possible(prover.prepared, Scheme::FP16_WEIGHTS);
        let group = |layers: Vec<usize>| {
            let noise = |place: &usize| local.get(place);
            let known = layers.iter().find_map(noise);
            let int8 = known.map_or(1.0, |noise| noise.int8_weights);
            let fp16 = known.and_then(|noise| noise.fp16_weights);
            let share = fp16.map_or(FP16_SHARE, |fp16| (fp16 / int8).clamp(1e-6, 1.0));
            let activations = layers.iter().filter(|place| dynamic(place));
            Group {
                bytes: sensitivity::bytes(base, &layers) as f64,
                halves: layers.iter().all(|&place| half.contains(&base.layers[place].name)),
                fp16_share: share,
                weights: vec![int8],
                activations: activations
                    .map(|&p| (p, vec![noise(&p).and_then(|n| n.activation).unwrap_or(int8)]))
                    .collect(),
                layers,
            }
        };
        let groups: Vec<Group> = culprits::groups(base).into_iter().map(group).collect();
        let total_bytes = groups.iter().map(|group| group.bytes).sum::<f64>().max(1.0);
        Ladder { base: base.clone(), groups, local, time, total_bytes, objective, probed: 0 }
    }

    /// Takes in what switches did on one more sample, as excess over the limits.
    pub(crate) fn measured(&mut self, switches: &[Switch], excesses: &[f64]) {
        if self.probed == 0 {
            for group in &mut self.groups {
                group.weights.clear();
                group.activations.iter_mut().for_each(|(_, noise)| noise.clear());
            }
        }
        self.probed += 1;
        for group in &mut self.groups {
            let mut weights = 0.0;
            for (switch, &excess) in switches.iter().zip(excesses) {
                match switch {
                    Switch::Weight { layers, .. } => {
                        if layers.iter().any(|place| group.layers.contains(place)) {
                            weights += excess;
                        }
                    }
                    Switch::Activation { layer } => {
                        let own = group.activations.iter_mut().find(|(place, _)| place == layer);
                        if let Some((_, noise)) = own {
                            noise.push(excess);
                        }
                    }
                }
            }
            group.weights.push(weights);
        }
    }

    /// All moves to the bottom, the one that takes the most noise for its cost first.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut state = State::new(&self.groups);
        let mut steps = Vec::new();
        let mut before = worst(&state.total);
        while let Some((change, cost)) = self.next(&state) {
            state.make(&change, &self.groups);
            let excess = worst(&state.total);
            steps.push(Step { change, cost, before, excess });
            before = excess;
        }
        steps
    }

    /// The move that takes the most noise for its cost.
    fn next(&self, state: &State) -> Option<(Change, f64)> {
        let mut best: Option<(Change, f64, f64)> = None;
        // Noise counts where there is most of it.
        let emphasis: Vec<f64> = {
            let most = worst(&state.total).max(f64::MIN_POSITIVE);
            state.total.iter().map(|total| (total / most).powi(2)).collect()
        };
        for (index, group) in self.groups.iter().enumerate() {
            for (change, cost) in self.options(state, index) {
                let gain: f64 = state
                    .noise(&change, group)
                    .iter()
                    .zip(&emphasis)
                    .map(|(noise, emphasis)| noise * emphasis)
                    .sum();
                let worth = gain / cost;
                if best.as_ref().is_none_or(|(_, _, known)| worth > *known) {
                    best = Some((change, cost, worth));
                }
            }
        }
        best.map(|(change, cost, _)| (change, cost))
    }

    /// What can be done to a group, with the cost.
    fn options(&self, state: &State, index: usize) -> Vec<(Change, f64)> {
        let group = &self.groups[index];
        let rung = state.rungs[index];
        let mut options = Vec::new();
        if rung == Rung::Kept {
            return options;
        }
        let live = || group.activations.iter().filter(|(place, _)| !state.stored.contains(place));
        let time = |place: &usize| self.time.get(place).copied().unwrap_or(0.0);
        if rung == Rung::Int8 {
            for (layer, _) in live() {
                let change = Change::Stored { group: index, layer: *layer };
                options.push((change, self.weighed(0.0, time(layer))));
            }
        }
        let lost: f64 =
            if rung == Rung::Int8 { live().map(|(place, _)| time(place)).sum() } else { 0.0 };
        let share = group.bytes / self.total_bytes;
        if rung == Rung::Int8 && group.halves {
            options.push((Change::Half { group: index }, self.weighed(share * 0.25, lost)));
        }
        let more = if rung == Rung::Half { 0.5 } else { 0.75 };
        options.push((Change::Keep { group: index }, self.weighed(share * more, lost)));
        options
    }

    /// The cost of bytes and time lost, as shares of all.
    fn weighed(&self, bytes: f64, time: f64) -> f64 {
        EVERY_MOVE
            + match self.objective {
                Objective::Balanced => bytes + time,
                Objective::Latency => bytes * MINOR + time,
                Objective::Size => bytes + time * MINOR,
            }
    }

    /// The plan after some moves.
    pub(crate) fn plan(&self, steps: &[Step]) -> Plan {
        let mut plan = self.base.clone();
        for step in steps {
            match step.change {
                Change::Stored { layer, .. } => {
                    let line = &mut plan.layers[layer];
                    if line.scheme == Scheme::INT8_DYNAMIC {
                        line.scheme = Scheme::INT8_WEIGHTS;
                        "quantizing its activation costs more than the limit"
                            .clone_into(&mut line.reason);
                    }
                }
                Change::Half { group } => {
                    self.set(&mut plan, group, Scheme::FP16_WEIGHTS, "as int8");
                }
                Change::Keep { group } => {
                    self.set(&mut plan, group, Scheme::KEEP, "in fewer bits");
                }
            }
        }
        tidy(&mut plan);
        plan
    }

    fn set(&self, plan: &mut Plan, group: usize, scheme: Scheme, form: &str) {
        for &place in &self.groups[group].layers {
            let line = &mut plan.layers[place];
            line.scheme = scheme;
            line.reason = format!("{form} it costs more than the limit");
        }
    }

    /// The layers that some moves move.
    pub(crate) fn moved(&self, steps: &[Step]) -> Vec<usize> {
        let mut moved: Vec<usize> = steps
            .iter()
            .flat_map(|step| match &step.change {
                Change::Stored { layer, .. } => vec![*layer],
                Change::Half { group } | Change::Keep { group } => {
                    self.groups[*group].layers.clone()
                }
            })
            .collect();
        moved.sort_unstable();
        moved.dedup();
        moved
    }

    /// What to call a move: its first layer.
    pub(crate) fn name(&self, step: &Step) -> String {
        let layers = self.moved(std::slice::from_ref(step));
        let first = layers.first().map(|&place| self.base.layers[place].name.clone());
        first.unwrap_or_default()
    }

    /// The groups for a report, the noisiest first.
    pub(crate) fn described(&self, limits: &Limits) -> Vec<report::Sensitivity> {
        let limit = limits.min_sqnr_db.unwrap_or(0.0);
        let mut described: Vec<(f64, report::Sensitivity)> = self
            .groups
            .iter()
            .map(|group| {
                let mut total = group.weights.clone();
                for (_, noise) in &group.activations {
                    total.iter_mut().zip(noise).for_each(|(sum, noise)| *sum += noise);
                }
                let excess = worst(&total);
                let mut entry = sensitivity::described(&self.base, &group.layers, &self.local);
                entry.alone_db = (self.probed > 0).then(|| limit - 10.0 * excess.log10());
                (excess, entry)
            })
            .collect();
        described.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        described.into_iter().map(|(_, entry)| entry).collect()
    }
}

/// Drops refinements that no layer is left for: what refines int8 is of no use elsewhere.
pub(crate) fn tidy(plan: &mut Plan) {
    for line in &mut plan.layers {
        if !line.scheme.is_int8() {
            line.bias_correction = Vec::new();
        }
        line.at_load &= line.scheme == Scheme::INT8_WEIGHTS;
    }
    let useful: HashSet<Vec<u32>> = plan
        .layers
        .iter()
        .filter(|line| line.scheme == Scheme::INT8_DYNAMIC)
        .map(|line| bits(&line.smoothing))
        .collect();
    for line in &mut plan.layers {
        if !useful.contains(&bits(&line.smoothing)) {
            line.smoothing = Vec::new();
        }
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

fn worst(totals: &[f64]) -> f64 {
    totals.iter().copied().fold(0.0, f64::max)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Int8,
    Half,
    Kept,
}

/// How far down each group is, while moves are ordered.
struct State {
    rungs: Vec<Rung>,
    /// Layers that no longer quantize their activation.
    stored: HashSet<usize>,
    /// Noise of all together, for each sample.
    total: Vec<f64>,
}

impl State {
    fn new(groups: &[Group]) -> Self {
        let samples = groups.first().map_or(0, |group| group.weights.len());
        let mut total = vec![0f64; samples];
        let noises = groups.iter().flat_map(|group| {
            std::iter::once(&group.weights).chain(group.activations.iter().map(|(_, noise)| noise))
        });
        for noise in noises {
            total.iter_mut().zip(noise).for_each(|(sum, noise)| *sum += noise);
        }
        State { rungs: vec![Rung::Int8; groups.len()], stored: HashSet::new(), total }
    }

    /// The noise that a move takes away, for each sample.
    fn noise(&self, change: &Change, group: &Group) -> Vec<f64> {
        let mut taken = vec![0f64; self.total.len()];
        let mut take = |noise: &[f64], share: f64| {
            taken.iter_mut().zip(noise).for_each(|(sum, noise)| *sum += noise * share);
        };
        let index = match change {
            Change::Stored { layer, .. } => {
                let own = group.activations.iter().find(|(place, _)| place == layer);
                if let Some((_, noise)) = own {
                    take(noise, 1.0);
                }
                return taken;
            }
            Change::Half { group } | Change::Keep { group } => *group,
        };
        let half = matches!(change, Change::Half { .. });
        let left = if half { group.fp16_share } else { 0.0 };
        let now = if self.rungs[index] == Rung::Half { group.fp16_share } else { 1.0 };
        take(&group.weights, now - left);
        if self.rungs[index] == Rung::Int8 {
            let live = group.activations.iter().filter(|(place, _)| !self.stored.contains(place));
            live.for_each(|(_, noise)| take(noise, 1.0));
        }
        taken
    }

    fn make(&mut self, change: &Change, groups: &[Group]) {
        let index = match change {
            Change::Stored { group, .. } | Change::Half { group } | Change::Keep { group } => {
                *group
            }
        };
        let taken = self.noise(change, &groups[index]);
        for (sum, taken) in self.total.iter_mut().zip(taken) {
            // What is left of sums of floats is noise of another kind.
            *sum = (*sum - taken).max(*sum * 1e-9);
        }
        match change {
            Change::Stored { layer, .. } => {
                self.stored.insert(*layer);
            }
            Change::Half { .. } => self.rungs[index] = Rung::Half,
            Change::Keep { .. } => self.rungs[index] = Rung::Kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use modelopt_rewrite::{Numerics, PlannedLayer};

    use super::*;

    /// A dynamic layer with a noisy activation, a small noisy weight, a large quiet one.
    fn ladder(objective: Objective) -> Ladder {
        let line = |name: &str, scheme, bytes| PlannedLayer {
            bytes,
            weights: vec![name.into()],
            ..PlannedLayer::new(name, scheme)
        };
        let mut base = Plan::new(Numerics::default());
        base.layers = vec![
            line("dynamic", Scheme::INT8_DYNAMIC, 1000),
            line("small", Scheme::INT8_WEIGHTS, 100),
            line("large", Scheme::INT8_WEIGHTS, 9000),
        ];
        let group = |place: usize, bytes: f64, noise: f64| Group {
            layers: vec![place],
            bytes,
            halves: true,
            fp16_share: 1.0 / 64.0,
            weights: vec![noise],
            activations: Vec::new(),
        };
        let mut groups = vec![group(0, 1000.0, 0.1), group(1, 100.0, 4.0), group(2, 9000.0, 0.5)];
        groups[0].activations = vec![(0, vec![8.0])];
        Ladder {
            base,
            groups,
            local: HashMap::new(),
            time: [(0, 1.0)].into(),
            total_bytes: 10100.0,
            objective,
            probed: 1,
        }
    }

    #[test]
    fn the_most_noise_for_the_least_cost_comes_first() {
        let steps = ladder(Objective::Balanced).steps();
        assert_eq!(steps[0].change, Change::Half { group: 1 });
        assert!((steps[0].before - 12.6).abs() < 1e-9);
        assert_eq!(steps.last().unwrap().change, Change::Keep { group: 2 });
        assert!(steps.last().unwrap().excess < 1e-6);
        // Whoever wants a small file gives up time first.
        let steps = ladder(Objective::Size).steps();
        assert_eq!(steps[0].change, Change::Half { group: 1 });
        assert_eq!(steps[1].change, Change::Stored { group: 0, layer: 0 });
        let steps = ladder(Objective::Latency).steps();
        let place = |change: &Change| steps.iter().position(|step| step.change == *change).unwrap();
        assert!(place(&Change::Half { group: 2 }) < place(&Change::Keep { group: 0 }));
    }

    #[test]
    fn a_plan_has_the_moves_and_no_refinement_without_use() {
        let mut ladder = ladder(Objective::Balanced);
        ladder.base.layers[0].smoothing = vec![2.0];
        ladder.base.layers[1].bias_correction = vec![1.0];
        let step = |change| Step { change, cost: 0.0, before: 0.0, excess: 0.0 };
        let half = step(Change::Half { group: 1 });
        let plan = ladder.plan(std::slice::from_ref(&half));
        assert_eq!(plan.layers[1].scheme, Scheme::FP16_WEIGHTS);
        assert!(plan.layers[1].bias_correction.is_empty());
        assert_eq!(plan.layers[0].smoothing, [2.0]);
        let stored = step(Change::Stored { group: 0, layer: 0 });
        let plan = ladder.plan(&[half.clone(), stored]);
        assert_eq!(plan.layers[0].scheme, Scheme::INT8_WEIGHTS);
        assert!(plan.layers[0].smoothing.is_empty());
        let keep = step(Change::Keep { group: 1 });
        assert!(keep.needs(&half) && half.needs(&half) && !half.needs(&keep));
    }

    #[test]
    fn measurements_replace_what_was_assumed_and_add_up_by_sample() {
        let mut ladder = ladder(Objective::Balanced);
        ladder.probed = 0;
        let switches = [
            Switch::Activation { layer: 0 },
            Switch::Weight { weight: "dynamic".into(), layers: vec![0] },
            Switch::Weight { weight: "large".into(), layers: vec![2] },
        ];
        ladder.measured(&switches, &[3.0, 1.0, 0.5]);
        ladder.measured(&switches, &[0.0, 0.0, 9.0]);
        assert_eq!(ladder.groups[0].activations, [(0, vec![3.0, 0.0])]);
        assert_eq!(ladder.groups[2].weights, [0.5, 9.0]);
        assert_eq!(ladder.groups[1].weights, [0.0, 0.0]);
        assert!((ladder.steps()[0].before - 9.0).abs() < 1e-9);
    }
}
