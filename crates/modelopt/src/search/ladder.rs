//! Makes a problem of a plan: what each layer can be instead is read from the ladder of schemes, what
//! that costs from bytes and work, and which layers go together from the weights that they share.
//!
//! ```text
//! a layer that quantizes its activation or computes in 16 bits -> the same weights, computed in float32
//! weights in int8 -> in 16 bits -> float32
//! ```

use std::collections::{HashMap, HashSet};

use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, LayerNoise, Plan, PlannedLayer, Prepared, Scheme, Switch};
use modelopt_validate::Limits;

use super::problem::{Item, Move, Problem, Selection, Source};
use super::tuning::Tuning;
use crate::config::Objective;
use crate::culprits;
use crate::sensitivity;

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
    /// A switch, by its place.
    Switch(usize),
}

/// A plan, and what its moves stand for.
#[derive(Debug)]
pub(crate) struct Ladder {
    base: Plan,
    groups: Vec<Group>,
    computing: HashMap<usize, Computing>,
    origins: Vec<Origin>,
    local: HashMap<usize, LayerNoise>,
}

/// Makes a ladder, and the problem that goes with it.
struct Builder<'a> {
    tuning: &'a Tuning,
    weights: Weights,
    known: Known,
    /// Names of the layers that can have a scheme, for each scheme that was asked about.
    possible: HashMap<Scheme, HashSet<String>>,
    prepared: &'a Prepared,
    /// Whether moves are made from switches.
    by_switch: bool,
    ladder: Ladder,
    problem: Problem,
}

impl Ladder {
    /// The ladder below an int8 plan. Until switches tell, the layers' own errors stand for what those
    /// do to the outputs.
    pub(crate) fn below(
        prepared: &Prepared,
        base: &Plan,
        known: Known,
        weights: Weights,
        tuning: &Tuning,
    ) -> (Ladder, Problem) {
        let mut builder = Builder::new(prepared, base, known, weights, tuning);
        let groups = culprits::groups(base, |_| true);
        builder.add_groups(groups);
        builder.add_own_sources();
        let layers = &base.layers;
        let bytes: u64 = layers.iter().map(|line| line.bytes).sum();
        builder.problem.least = tuning.costs.least_int8 * bytes as f64;
        (builder.ladder, builder.problem)
    }

    /// The ladder below a plan of 16 bits, by the switches that its roundings are under.
    pub(crate) fn of_switches(
        prepared: &Prepared,
        base: &Plan,
        switches: &[Switch],
        weights: Weights,
        tuning: &Tuning,
    ) -> (Ladder, Problem) {
        let mut builder = Builder::new(prepared, base, Known::default(), weights, tuning);
        builder.by_switch = !switches.is_empty();
        let small = tuning.mixing.small;
        let groups = culprits::groups(base, |line| line.bytes >= small);
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
    pub(crate) fn plan(&self, selection: &Selection) -> Plan {
        let mut plan = self.base.clone();
        for (place, line) in plan.layers.iter_mut().enumerate() {
            let Some(computing) = self.computing.get(&place) else { continue };
            if selection.0[computing.item] > 0 {
                set(line, computing.below);
            }
        }
        for group in &self.groups {
            let Some((item, schemes)) = &group.weights else { continue };
            let level = selection.0[*item];
            if let (true, Some(&scheme)) = (level > 0, schemes.get(level)) {
                group.layers.iter().for_each(|&place| set(&mut plan.layers[place], scheme));
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
        first.map_or("", |place| &self.base.layers[place].name)
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
                Origin::Switch(_) => false,
            };
            if is_own {
                total.resize(source.noise.len().max(total.len()), 0.0);
                total.iter_mut().zip(&source.noise).for_each(|(sum, noise)| *sum += noise);
            }
        }
        total.into_iter().fold(0.0, f64::max)
    }
}

impl<'a> Builder<'a> {
    fn new(
        prepared: &'a Prepared,
        base: &Plan,
        mut known: Known,
        weights: Weights,
        tuning: &'a Tuning,
    ) -> Self {
        let ladder = Ladder {
            base: base.clone(),
            groups: Vec::new(),
            computing: HashMap::new(),
            origins: Vec::new(),
            local: std::mem::take(&mut known.local),
        };
        let every_move = tuning.costs.every_move;
        let problem = Problem { every_move, ..Problem::default() };
        let possible = HashMap::new();
        Builder { tuning, weights, known, possible, prepared, by_switch: false, ladder, problem }
    }

    fn line(&self, place: usize) -> &PlannedLayer {
        &self.ladder.base.layers[place]
    }

    fn is_possible(&mut self, scheme: Scheme, place: usize) -> bool {
        let prepared = self.prepared;
        let possible =
            self.possible.entry(scheme).or_insert_with(|| rewrite::possible(prepared, scheme));
        scheme.is_keep() || possible.contains(&self.ladder.base.layers[place].name)
    }

    /// The schemes below that only store weights, as far as layers can have them, and what is left as
    /// it is.
    fn below(&mut self, from: Scheme, layers: &[usize]) -> Vec<Scheme> {
        let mut schemes = Vec::new();
        let mut next = from.down();
        while let Some(scheme) = next {
            let worth = scheme.is_int8() || !self.is_small(layers);
            let fits = worth && layers.iter().all(|&place| self.is_possible(scheme, place));
            if !computes(scheme) && (scheme.is_keep() || fits) {
                schemes.push(scheme);
            }
            next = scheme.down();
        }
        schemes
    }

    /// Whether weights are not worth 16 bits of their own. Those that were worth int8 are.
    fn is_small(&self, layers: &[usize]) -> bool {
        let lines = || layers.iter().map(|&place| self.line(place));
        !lines().any(|line| line.scheme.is_int8())
            && lines().all(|line| line.bytes < self.tuning.mixing.small)
    }

    fn add_item(&mut self, costs: Vec<f64>) -> usize {
        self.problem.items.push(Item { costs, share: 0.0 });
        self.problem.items.len() - 1
    }

    fn add_groups(&mut self, groups: Vec<Vec<usize>>) {
        let work = |builder: &Self, place: usize| {
            let own = builder.known.work.get(&builder.line(place).name).copied();
            // Where nobody knows better, one layer is as much work as another.
            if builder.known.work.is_empty() { 1.0 } else { own.unwrap_or(0.0) }
        };
        let all: f64 = groups
            .iter()
            .flatten()
            .filter(|place| computes(self.line(**place).scheme))
            .map(|&place| work(self, place))
            .sum();
        let base = &self.ladder.base;
        let bytes_of = |group: &Vec<usize>| sensitivity::bytes(base, group) as f64;
        let bytes = groups.iter().map(bytes_of).sum::<f64>().max(1.0);
        for layers in groups {
            let time: Vec<f64> =
                layers.iter().map(|&place| work(self, place) / all.max(1.0)).collect();
            self.add_group(layers, &time, bytes);
        }
    }

    fn add_group(&mut self, layers: Vec<usize>, time: &[f64], all_bytes: f64) {
        let own_bytes = sensitivity::bytes(&self.ladder.base, &layers) as f64;
        for (&place, &time) in layers.iter().zip(time) {
            let scheme = self.line(place).scheme;
            if computes(scheme) {
                let below = self.below(scheme, &[place]).first().copied().unwrap_or_default();
                let item = self.add_item(vec![0.0, time * self.weights.time]);
                self.ladder.computing.insert(place, Computing { item, below });
                if !self.by_switch {
                    self.problem.moves.push(Move { to: vec![(item, 1)] });
                }
            }
        }
        let first = layers.first().map_or(Scheme::default(), |&place| self.line(place).scheme);
        // The first level is that of what is stored now, whatever is computed with it.
        let stored = self.below(first, &layers);
        let is_stored = |scheme: &Scheme| scheme.weight_bits() > first.weight_bits();
        let schemes: Vec<Scheme> =
            std::iter::once(first).chain(stored.iter().copied().filter(is_stored)).collect();
        let has_own = !computes(first) || stored.iter().any(|scheme| !is_stored(scheme));
        let weights = has_own.then(|| {
            let extra = |scheme: &Scheme| {
                let bits = f64::from(scheme.weight_bits()) - f64::from(first.weight_bits());
                bits / 32.0 * own_bytes / all_bytes * self.weights.bytes
            };
            let costs = schemes.iter().map(extra).collect();
            (self.add_item(costs), schemes)
        });
        if let Some((item, schemes)) = &weights {
            let bytes = layers.iter().map(|&place| self.line(place).bytes).sum::<u64>();
            self.problem.items[*item].share = bytes as f64;
            let acts: Vec<(usize, usize)> = layers
                .iter()
                .filter_map(|place| Some((self.ladder.computing.get(place)?.item, 1)))
                .collect();
            for level in 1..schemes.len() {
                let to = acts.iter().copied().chain([(*item, level)]).collect();
                self.problem.moves.push(Move { to });
            }
        }
        self.ladder.groups.push(Group { layers, weights });
    }

    /// A source for the weights of each group and one for each activation.
    fn add_own_sources(&mut self) {
        for group in 0..self.ladder.groups.len() {
            let Group { layers, weights, .. } = self.ladder.groups[group].clone();
            let own = |place: &usize| self.ladder.local.get(place);
            let known = layers.iter().find_map(own);
            let noise = known.map_or(1.0, |noise| noise.int8_weights);
            let narrow = known.and_then(|noise| noise.fp16_weights);
            let narrow = narrow
                .map_or(self.tuning.costs.narrow_share, |narrow| (narrow / noise).clamp(1e-6, 1.0));
            let of_layer = |place: &usize| {
                let noise = own(place).and_then(|own| own.activation).unwrap_or(noise);
                Some((*place, self.ladder.computing.get(place)?.item, noise))
            };
            let activations: Vec<(usize, usize, f64)> =
                layers.iter().filter_map(of_layer).collect();
            if let Some((item, schemes)) = weights {
                let share = |scheme: &Scheme| if scheme.is_keep() { 0.0 } else { narrow };
                let shares: Vec<f64> =
                    std::iter::once(1.0).chain(schemes.iter().skip(1).map(share)).collect();
                self.add_source(Origin::Weights(group), noise, vec![(item, shares)]);
            }
            for (place, item, noise) in activations {
                self.add_source(Origin::Activation(place), noise, vec![(item, vec![1.0, 0.0])]);
            }
        }
    }

    /// A source for each switch; a move takes everything down that it needs to be silent.
    fn add_switches(&mut self, switches: &[Switch]) {
        let weights: HashMap<usize, usize> = self
            .ladder
            .groups
            .iter()
            .filter_map(|group| Some((group.weights.as_ref()?.0, group)))
            .flat_map(|(item, group)| group.layers.iter().map(move |&place| (place, item)))
            .collect();
        for (place, switch) in switches.iter().enumerate() {
            let (layers, of_weight) = match switch {
                Switch::Weight { layers, .. } => (layers.as_slice(), true),
                Switch::Rounding { layers } => (layers.as_slice(), false),
                Switch::Activation { layer } => (std::slice::from_ref(layer), false),
            };
            let item = |layer: &usize| {
                let stored = weights.get(layer).filter(|_| of_weight).copied();
                stored.or_else(|| self.ladder.computing.get(layer).map(|known| known.item))
            };
            let mut items: Vec<usize> = layers.iter().filter_map(item).collect();
            items.sort_unstable();
            items.dedup();
            let to: Vec<(usize, usize)> = items.iter().map(|&item| (item, 1)).collect();
            let silent = |item: usize| (item, vec![1.0, 0.0]);
            self.add_source(Origin::Switch(place), 1.0, items.into_iter().map(silent).collect());
            if !of_weight && !to.is_empty() {
                self.problem.moves.push(Move { to });
            }
        }
    }

    fn add_source(&mut self, origin: Origin, noise: f64, left: Vec<(usize, Vec<f64>)>) {
        self.ladder.origins.push(origin);
        self.problem.sources.push(Source { noise: vec![noise], left });
    }
}

/// Whether a layer does more than store its weights.
fn computes(scheme: Scheme) -> bool {
    scheme.quantizes_activations() || scheme.computes_in().is_some()
}

/// Gives a layer a scheme further down, with the reason.
fn set(line: &mut PlannedLayer, scheme: Scheme) {
    let before = line.scheme;
    line.scheme = scheme;
    line.reason = if before.computes_in().is_some() || before.stores_in().is_some() {
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
        }
        line.at_load &= line.scheme.is_int8() && !line.scheme.quantizes_activations();
    }
    let useful: HashSet<Vec<u32>> = plan
        .layers
        .iter()
        .filter(|line| line.scheme.quantizes_activations())
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

#[cfg(test)]
mod tests {
    use modelopt_graph::ModelInfo;
    use modelopt_rewrite::Numerics;

    use super::*;
    use crate::search::problem::Step;

    fn line(name: &str, scheme: Scheme, bytes: u64) -> PlannedLayer {
        let weights = if bytes > 0 { vec![name.into()] } else { Vec::new() };
        PlannedLayer { bytes, weights, ..PlannedLayer::new(name, scheme) }
    }

    fn plan(layers: Vec<PlannedLayer>) -> Plan {
        Plan { layers, ..Plan::new(Numerics::default()) }
    }

    /// A dynamic layer with a noisy activation, a small noisy weight, a large quiet one.
    fn int8() -> Plan {
        plan(vec![
            line("dynamic", Scheme::Int8Dynamic, 1000),
            line("small", Scheme::Int8Weights, 100),
            line("large", Scheme::Int8Weights, 9000),
        ])
    }

    /// Fills a ladder where every layer can have every scheme.
    fn built(
        plan: &Plan,
        objective: Objective,
        fill: impl FnOnce(&mut Builder<'_>),
    ) -> (Ladder, Problem) {
        let noise = |(layer, int8_weights, activation)| {
            let noise = LayerNoise {
                layer,
                int8_weights,
                activation,
                fp16_weights: Some(int8_weights / 64.0),
                informed: true,
            };
            (layer, noise)
        };
        let local = [(0, 0.1, Some(8.0)), (1, 4.0, None), (2, 0.5, None)].map(noise).into();
        let work = [("dynamic".to_owned(), 1.0)].into();
        let model = Model::new(ModelInfo::default());
        let tuning = Tuning::default();
        let weights = Weights::of(objective, &tuning);
        let mut builder = Builder::new(&model, plan, Known { local, work }, weights, &tuning);
        let names: HashSet<String> = plan.layers.iter().map(|line| line.name.clone()).collect();
        builder.possible = Scheme::ALL.into_iter().map(|scheme| (scheme, names.clone())).collect();
        fill(&mut builder);
        (builder.ladder, builder.problem)
    }

    fn below(plan: &Plan, objective: Objective) -> (Ladder, Problem) {
        built(plan, objective, |builder| {
            let groups = culprits::groups(plan, |_| true);
            builder.add_groups(groups);
            builder.add_own_sources();
        })
    }

    fn schemes(ladder: &Ladder, problem: &Problem, steps: &[Step]) -> Vec<Scheme> {
        let plan = ladder.plan(&problem.selection(steps));
        plan.layers.iter().map(|line| line.scheme).collect()
    }

    const DYNAMIC: Scheme = Scheme::Int8Dynamic;
    const STORED: Scheme = Scheme::Int8Weights;
    const NARROW: Scheme = Scheme::Fp16Weights;
    const KEEP: Scheme = Scheme::Keep;

    #[test]
    fn the_most_noise_for_the_least_cost_comes_first() {
        let plan = int8();
        let (ladder, problem) = below(&plan, Objective::Balanced);
        let steps = problem.steps();
        assert!((steps[0].before - 12.6).abs() < 1e-9);
        assert_eq!(schemes(&ladder, &problem, &steps[..1]), [DYNAMIC, NARROW, STORED]);
        assert_eq!(schemes(&ladder, &problem, &steps), [KEEP; 3]);
        assert!(steps.last().unwrap().excess < 1e-6);
        // Whoever wants a small file gives up time first.
        let (ladder, problem) = below(&plan, Objective::Size);
        let steps = problem.steps();
        assert_eq!(schemes(&ladder, &problem, &steps[..2]), [STORED, NARROW, STORED]);
        // And whoever wants a fast model bytes.
        let (ladder, problem) = below(&plan, Objective::Latency);
        let steps = problem.steps();
        let first = (1..steps.len())
            .map(|count| schemes(&ladder, &problem, &steps[..count]))
            .find(|schemes| schemes[0] != DYNAMIC || schemes[2] != STORED);
        assert_eq!(first.unwrap()[0], STORED, "its noise is most by far");
    }

    #[test]
    fn a_move_costs_what_it_adds() {
        let (_, problem) = below(&int8(), Objective::Balanced);
        let of = |item: usize| problem.items[item].costs.clone();
        // What the dynamic layer computes in, then its weights.
        assert_eq!(of(0), [0.0, 1.0]);
        let share = 1000.0 / 10100.0;
        assert_eq!(of(1), [0.0, 0.25 * share, 0.75 * share]);
    }

    #[test]
    fn a_plan_has_the_moves_and_no_refinement_without_use() {
        let mut plan = int8();
        plan.layers[0].smoothing = vec![2.0];
        plan.layers[1].bias_correction = vec![1.0];
        let (ladder, _) = below(&plan, Objective::Balanced);
        // Items: the first's computing and weights, the second's weights, the third's.
        let narrow = ladder.plan(&Selection(vec![0, 0, 1, 0]));
        assert_eq!(narrow.layers[1].scheme, NARROW);
        assert_eq!(narrow.layers[1].reason, "as int8 it costs more than the limit");
        assert!(narrow.layers[1].bias_correction.is_empty());
        assert_eq!(narrow.layers[0].smoothing, [2.0]);
        let stored = ladder.plan(&Selection(vec![1, 0, 1, 0]));
        assert_eq!(stored.layers[0].scheme, STORED);
        assert!(stored.layers[0].smoothing.is_empty());
        assert_eq!(ladder.moved(&Selection(vec![1, 0, 1, 0])), 2);
        assert_eq!(ladder.name(&Move { to: vec![(2, 1)] }), "small");
    }

    #[test]
    fn switches_are_taken_for_what_they_are_of() {
        let (ladder, _) = below(&int8(), Objective::Balanced);
        let weight =
            |name: &str, layer| Switch::Weight { weight: name.into(), layers: vec![layer] };
        let switches = [Switch::Activation { layer: 0 }, weight("dynamic", 0), weight("large", 2)];
        // Weights and activation of the first, then the others; what has no switch is silent.
        assert_eq!(ladder.noises(&switches, &[3.0, 1.0, 0.5]), [1.0, 3.0, 0.0, 0.5]);
    }

    #[test]
    fn layers_that_share_a_weight_go_together() {
        let mut plan = int8();
        plan.layers[2].weights = vec!["small".into()];
        let (ladder, problem) = below(&plan, Objective::Balanced);
        assert_eq!(problem.items.len(), 3);
        let kept = ladder.plan(&Selection(vec![0, 0, 2]));
        assert_eq!(kept.layers[1].scheme, KEEP);
        assert_eq!(kept.layers[2].scheme, KEEP);
        assert_eq!(kept.layers[0].scheme, DYNAMIC);
    }

    #[test]
    fn what_computes_in_sixteen_bits_goes_down_by_the_values_between() {
        let fp16 = Scheme::Fp16;
        let plan = plan(vec![line("a", fp16, 8192), line("b", fp16, 0), line("c", fp16, 100)]);
        let switches = [
            Switch::Rounding { layers: vec![0, 1] },
            Switch::Rounding { layers: vec![1, 2] },
            Switch::Weight { weight: "a".into(), layers: vec![0] },
            Switch::Weight { weight: "c".into(), layers: vec![2] },
        ];
        let (ladder, mut problem) = built(&plan, Objective::Balanced, |builder| {
            builder.by_switch = true;
            builder.add_groups(culprits::groups(&plan, |line| line.bytes >= 4096));
            builder.add_switches(&switches);
        });
        assert!(ladder.by_switch());
        let noises = ladder.noises(&switches, &[9.0, 0.1, 0.1, 0.1]);
        assert_eq!(noises, [9.0, 0.1, 0.1, 0.1]);
        problem.measured(&noises, true);
        let steps = problem.steps();
        // Both that touch the loud value compute in float32; large weights stay stored.
        assert_eq!(schemes(&ladder, &problem, &steps[..1]), [NARROW, KEEP, fp16]);
        assert_eq!(schemes(&ladder, &problem, &steps), [KEEP; 3]);
        let reason = &ladder.plan(&problem.selection(&steps[..1])).layers[0].reason;
        assert!(reason.ends_with("its weights alone do not"), "{reason}");
    }

    #[test]
    fn weights_in_sixteen_bits_are_kept_one_by_one() {
        let plan = plan(vec![line("a", NARROW, 8192), line("b", NARROW, 16384)]);
        let (ladder, problem) = below(&plan, Objective::Balanced);
        assert_eq!(problem.items.len(), 2);
        let kept = ladder.plan(&Selection(vec![1, 0]));
        assert_eq!((kept.layers[0].scheme, kept.layers[1].scheme), (KEEP, NARROW));
        assert_eq!(kept.layers[0].reason, "in 16 bits it costs more than the limit");
    }

    #[test]
    fn the_noisiest_group_is_described_first() {
        let plan = int8();
        let (ladder, problem) = below(&plan, Objective::Balanced);
        let limits = Limits { min_sqnr_db: Some(20.0), ..Limits::default() };
        let described = ladder.described(&problem, &limits, true);
        assert_eq!(described[0].layers, ["dynamic"]);
        let alone = described[0].alone_db.unwrap();
        assert!((alone - (20.0 - 10.0 * 8.1f64.log10())).abs() < 1e-9, "{alone}");
        assert!(ladder.described(&problem, &limits, false)[0].alone_db.is_none());
    }
}
