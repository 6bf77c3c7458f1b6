//! Which layers a failed verdict is due to: each is quantized alone and the outputs compared.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, Plan, Scheme};
use modelopt_validate::Culprit;

use crate::Progress;
use crate::evaluator::{Prover, worst_sqnr};

/// At most this long, so that a refusal does not keep a build waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How many layers are looked at where a search has put them in order.
const MOST_SUSPECTS: usize = 8;

/// Which layers to look at first.
pub(crate) enum Suspects<'a> {
    /// Those whose weights lost the most.
    Weights(&'a [rewrite::QuantizedWeight]),
    /// Those at the head of a list, and no others.
    Ranked(&'a [report::Sensitivity]),
}

impl Suspects<'_> {
    /// Changed layers of a plan, the first to look at first.
    fn groups(&self, plan: &Plan) -> Vec<Vec<usize>> {
        let mut groups = groups(plan);
        match self {
            Suspects::Weights(weights) => {
                let loss: HashMap<&str, f64> =
                    weights.iter().map(|weight| (weight.name.as_str(), weight.sqnr_db)).collect();
                let worst = |group: &Vec<usize>| {
                    let names = group.iter().flat_map(|&index| &plan.layers[index].weights);
                    let losses = names.filter_map(|name| loss.get(name.as_str())).copied();
                    losses.fold(f64::INFINITY, f64::min)
                };
                groups.sort_by(|a, b| worst(a).total_cmp(&worst(b)));
            }
            Suspects::Ranked(ranked) => {
                let rank = |group: &Vec<usize>| {
                    let names = |entry: &report::Sensitivity| {
                        group.iter().any(|&at| entry.layers.contains(&plan.layers[at].name))
                    };
                    ranked.iter().position(names).unwrap_or(usize::MAX)
                };
                groups.sort_by_key(rank);
                groups.truncate(MOST_SUSPECTS);
            }
        }
        groups
    }
}

/// The layers of the plan by the damage that each does alone, worst first, as far as time allows.
/// `sample` is that on which the verdict was worst: it tells the layers apart, and leaves time for
/// many layers.
pub(crate) fn culprits(
    prover: &mut Prover<'_, '_>,
    plan: &Plan,
    suspects: &Suspects<'_>,
    sample: usize,
    progress: &mut dyn FnMut(Progress),
) -> Vec<Culprit> {
    let started = Instant::now();
    let groups = suspects.groups(plan);
    let total = groups.len();
    let mut culprits = Vec::new();
    progress(Progress::Step("looking for the layers to blame"));
    for (done, group) in groups.into_iter().enumerate() {
        if started.elapsed() > PATIENCE {
            break;
        }
        let mut alone = plan.clone();
        for (index, layer) in alone.layers.iter_mut().enumerate() {
            if !group.contains(&index) {
                layer.scheme = Scheme::KEEP;
            }
        }
        let proved = prover.prove(&alone, &[sample]).ok();
        if let Some((sqnr_db, _)) = proved.as_ref().and_then(|proved| worst_sqnr(&proved.parity)) {
            culprits.push(Culprit {
                scheme: plan.layers[group[0]].scheme.to_string(),
                layers: group.iter().map(|&index| plan.layers[index].name.clone()).collect(),
                sqnr_db,
                predicted: false,
            });
        }
        progress(Progress::Part { done: done + 1, total });
    }
    culprits.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
    culprits
}

/// The changed layers of a plan, those that share a weight together.
pub(crate) fn groups(plan: &Plan) -> Vec<Vec<usize>> {
    let changed = |index: &usize| plan.layers[*index].scheme != Scheme::KEEP;
    let mut group_of: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in (0..plan.layers.len()).filter(changed) {
        let weights = &plan.layers[index].weights;
        let mut known: Vec<usize> =
            weights.iter().filter_map(|name| group_of.get(name.as_str())).copied().collect();
        known.sort_unstable();
        known.dedup();
        let home = known.first().copied().unwrap_or_else(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        // A layer with two weights may join two groups.
        for &other in known.iter().skip(1) {
            let moved = std::mem::take(&mut groups[other]);
            groups[home].extend(moved);
            group_of.values_mut().filter(|group| **group == other).for_each(|g| *g = home);
        }
        groups[home].push(index);
        group_of.extend(weights.iter().map(|name| (name.as_str(), home)));
    }
    groups.retain(|group| !group.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use modelopt_rewrite::{Numerics, PlannedLayer};

    use super::*;

    fn layer(name: &str, scheme: Scheme, weights: &[&str]) -> PlannedLayer {
        let weights = weights.iter().map(|&name| name.into()).collect();
        PlannedLayer { weights, ..PlannedLayer::new(name, scheme) }
    }

    #[test]
    fn layers_that_share_a_weight_are_tried_together() {
        let int8 = Scheme::INT8_WEIGHTS;
        let mut plan = Plan::new(Numerics::default());
        plan.layers = vec![
            layer("a", int8, &["1"]),
            layer("b", int8, &["2"]),
            layer("kept", Scheme::KEEP, &["1"]),
            layer("c", int8, &["1"]),
            layer("joins", int8, &["1", "2"]),
            layer("d", int8, &["3"]),
        ];
        assert_eq!(groups(&plan), [vec![0, 3, 1, 4], vec![5]]);
    }
}
