//! Makes items, sources and moves of the layers of a plan.

use std::collections::{HashMap, HashSet};

use modelopt_rewrite::{self as rewrite, ExplainedPlan, PlannedLayer, Prepared, Scheme, Switch};

use super::super::problem::{Item, Move, Problem, Source};
use super::super::tuning::Tuning;
use super::{Computing, Group, Known, Ladder, Origin, Weights, computes};
use crate::sensitivity;

/// Makes a ladder, and the problem that goes with it.
pub(super) struct Builder<'a> {
    pub(super) tuning: &'a Tuning,
    pub(super) weights: Weights,
    pub(super) known: Known,
    /// Names of the layers that can have a scheme, for each scheme that was asked about.
    pub(super) possible: HashMap<Scheme, HashSet<String>>,
    pub(super) prepared: &'a Prepared,
    /// Whether moves are made from switches.
    pub(super) by_switch: bool,
    pub(super) ladder: Ladder,
    pub(super) problem: Problem,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        prepared: &'a Prepared,
        base: &ExplainedPlan,
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

    /// Bytes of a layer's weights.
    fn bytes(&self, place: usize) -> u64 {
        self.ladder.base.why(place).bytes
    }

    fn is_possible(&mut self, scheme: Scheme, place: usize) -> bool {
        let prepared = self.prepared;
        let possible =
            self.possible.entry(scheme).or_insert_with(|| rewrite::possible(prepared, scheme));
        scheme.is_keep() || possible.contains(&self.ladder.base.layers[place].id)
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
        !layers.iter().any(|&place| self.line(place).scheme.is_int8())
            && layers.iter().all(|&place| self.bytes(place) < self.tuning.mixing.small)
    }

    fn add_item(&mut self, costs: Vec<f64>) -> usize {
        self.problem.items.push(Item { costs, share: 0.0 });
        self.problem.items.len() - 1
    }

    pub(super) fn add_groups(&mut self, groups: Vec<Vec<usize>>) {
        let work = |builder: &Self, place: usize| {
            let own = builder.known.work.get(&builder.line(place).id).copied();
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
        let is_stored = |scheme: &Scheme| scheme.sides().weights != first.sides().weights;
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
            let bytes = layers.iter().map(|&place| self.bytes(place)).sum::<u64>();
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
    pub(super) fn add_own_sources(&mut self) {
        for group in 0..self.ladder.groups.len() {
            let Group { layers, weights, .. } = self.ladder.groups[group].clone();
            let own = |place: &usize| self.ladder.local.get(place);
            let known = layers.iter().find_map(own);
            let noise = known.map_or(1.0, |noise| noise.weights);
            let left = |scheme: &Scheme| {
                let below = || known.into_iter().flat_map(|noise| &noise.below);
                let left = below().find(|(known, _)| known == scheme).map(|(_, left)| left / noise);
                left.map_or(self.tuning.costs.narrow_share, |share| share.clamp(1e-6, 1.0))
            };
            let of_layer = |place: &usize| {
                let noise = own(place).and_then(|own| own.activation).unwrap_or(noise);
                // Its tensors are sources of their own.
                let by_itself = !self.line(*place).scheme.needs_ranges();
                by_itself.then_some(())?;
                Some((*place, self.ladder.computing.get(place)?.item, noise))
            };
            let activations: Vec<(usize, usize, f64)> =
                layers.iter().filter_map(of_layer).collect();
            if let Some((item, schemes)) = weights {
                let share = |scheme: &Scheme| if scheme.is_keep() { 0.0 } else { left(scheme) };
                let shares: Vec<f64> =
                    std::iter::once(1.0).chain(schemes.iter().skip(1).map(share)).collect();
                let in_float = |place: &usize| {
                    let share = own(place)?.in_float?.clamp(0.0, 1.0);
                    Some((self.ladder.computing.get(place)?.item, vec![1.0, share]))
                };
                let scaled: Vec<_> = match layers.as_slice() {
                    [only] => in_float(only).into_iter().collect(),
                    // Whoever still multiplies it as integers needs it so.
                    _ => Vec::new(),
                };
                self.add_source(Origin::Weights(group), noise, vec![(item, shares)]);
                if let Some(source) = self.problem.sources.last_mut() {
                    source.scaled = scaled;
                }
            }
            for (place, item, noise) in activations {
                self.add_source(Origin::Activation(place), noise, vec![(item, vec![1.0, 0.0])]);
            }
        }
    }

    /// A source for each tensor that is quantized by a range; a move takes all layers down because of
    /// which it is.
    pub(super) fn add_tensors(&mut self) {
        for (tensor, layers) in rewrite::quantized_tensors(self.prepared, &self.ladder.base) {
            let item = |place: &usize| Some(self.ladder.computing.get(place)?.item);
            let mut items: Vec<usize> = layers.iter().filter_map(item).collect();
            items.sort_unstable();
            items.dedup();
            if items.len() > 1 {
                let to = items.iter().map(|&item| (item, 1)).collect();
                self.problem.moves.push(Move { to });
            }
            let left = items.into_iter().map(|item| (item, vec![1.0, 0.0])).collect();
            self.add_source(Origin::Tensor(tensor), self.tuning.costs.tensor_noise, left);
        }
    }

    /// A source for each switch; a move takes everything down that it needs to be silent.
    pub(super) fn add_switches(&mut self, switches: &[Switch]) {
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
                Switch::Rounding { layers } | Switch::Tensor { layers, .. } => {
                    (layers.as_slice(), false)
                }
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
        self.problem.sources.push(Source { noise: vec![noise], left, scaled: Vec::new() });
    }
}
