//! Which layers a failed verdict is due to: what each alone does to the outputs.
//!
//! The plan is run under switches, one layer switched on at a time. Layers without switches, and all of
//! them where there can be none, are tried as plans in which everything else is kept. Runs are counted,
//! not timed.

use std::collections::HashMap;
use std::time::Duration;

use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, ExplainedPlan, Explanation, Scheme, Switchboard};
use modelopt_validate::Culprit;

use crate::budget::Budget;
use crate::error::Error;
use crate::evaluator::{Prover, worst_sqnr};
use crate::search::tuning::Tuning;
use crate::sensitivity::{self, Probe, Setting, lowest_db};
use crate::trial_error::TrialError;
use crate::{Progress, Step};

/// Which layers to look at first.
pub(crate) enum Suspects<'a> {
    /// Those whose weights lost the most.
    Weights(&'a [rewrite::QuantizedWeight]),
    /// Those at the head of a list, and no others.
    Ranked(&'a [report::Sensitivity]),
}

impl Suspects<'_> {
    /// Changed layers of a plan, the first to look at first.
    fn groups(&self, plan: &ExplainedPlan, most_ranked: usize) -> Vec<Vec<usize>> {
        let mut groups = groups(plan, |_| true);
        match self {
            Suspects::Weights(weights) => {
                let loss: HashMap<&str, f64> =
                    weights.iter().map(|weight| (weight.name.as_str(), weight.sqnr_db)).collect();
                let worst = |group: &Vec<usize>| {
                    let names = group.iter().flat_map(|&index| &plan.why(index).weights);
                    let losses = names.filter_map(|name| loss.get(name.as_str())).copied();
                    losses.fold(f64::INFINITY, f64::min)
                };
                groups.sort_by(|a, b| worst(a).total_cmp(&worst(b)));
            }
            Suspects::Ranked(ranked) => {
                let rank = |group: &Vec<usize>| {
                    let names = |entry: &report::Sensitivity| {
                        group.iter().any(|&at| entry.layers.contains(&plan.layers[at].id))
                    };
                    ranked.iter().position(names).unwrap_or(usize::MAX)
                };
                groups.sort_by_key(rank);
                groups.truncate(most_ranked);
            }
        }
        groups
    }
}

/// What failed, and on what.
pub(crate) struct Inquiry<'i, 'a, 'b> {
    pub(crate) prover: Prover<'a, 'b>,
    pub(crate) plan: &'i ExplainedPlan,
    /// The sample on which the verdict was worst: it tells the layers apart, and leaves time for many
    /// layers.
    pub(crate) sample: usize,
    pub(crate) budget: &'i Budget,
    pub(crate) tuning: &'i Tuning,
    pub(crate) progress: &'i mut dyn FnMut(Progress),
}

impl Inquiry<'_, '_, '_> {
    /// The layers of the plan by the damage that each does alone, worst first. An error is one of the
    /// environment.
    pub(crate) fn culprits(mut self, suspects: &Suspects<'_>) -> Result<Vec<Culprit>, Error> {
        (self.progress)(Progress::Step(Step::FindingCulprits));
        let tuning = &self.tuning.culprits;
        let mut groups = suspects.groups(self.plan, tuning.most_ranked);
        groups.truncate(tuning.most_switched);
        let mut culprits = Vec::new();
        let switched = self.under_switches(&groups).map_err(TrialError::of_plan);
        match switched {
            Ok(told) => {
                groups.retain(|group| told.iter().all(|(known, _)| known != group));
                culprits.extend(told.iter().map(|(group, db)| self.culprit(group, *db)));
            }
            Err(Err(error)) => return Err(error),
            Err(Ok(why)) => tracing::debug!(why, "layers to blame are tried one by one"),
        }
        groups.truncate(tuning.most_made);
        culprits.extend(self.as_candidates(&groups)?);
        culprits.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
        Ok(culprits)
    }

    /// What the groups that have switches do, in dB.
    fn under_switches(
        &mut self,
        groups: &[Vec<usize>],
    ) -> Result<Vec<(Vec<usize>, f64)>, TrialError> {
        let board = self.board()?;
        let of = |group: &Vec<usize>| {
            let on = sensitivity::switches_of(&board.switches, self.plan, group);
            (!on.is_empty()).then(|| (group.clone(), on))
        };
        let (switched, on): (Vec<_>, Vec<_>) = groups.iter().filter_map(of).unzip();
        if switched.is_empty() {
            return Ok(Vec::new());
        }
        let mut probe = Probe::new(&self.prover, board, &self.tuning.probing)?;
        let setting = |on| Setting { on, strength: 1.0, sample: self.sample };
        let settings: Vec<Setting> = on.into_iter().map(setting).collect();
        let parities = probe.run(&self.prover, &settings, self.budget, self.progress)?;
        Ok(switched.into_iter().zip(parities.iter().map(lowest_db)).collect())
    }

    fn board(&self) -> Result<Switchboard, TrialError> {
        let (prepared, most_bytes) = (self.prover.prepared, self.tuning.probing.most_bytes);
        if self.plan.layers.iter().any(|line| line.scheme.computes_in().is_some()) {
            let board = rewrite::rounding_switchboard(prepared, self.plan)?;
            let none = || TrialError::Refused("roundings have no switches".to_owned());
            return board.ok_or_else(none);
        }
        Ok(sensitivity::board(prepared, self.plan, most_bytes)?)
    }

    /// What groups do where everything else is kept.
    fn as_candidates(&mut self, groups: &[Vec<usize>]) -> Result<Vec<Culprit>, Error> {
        let mut culprits = Vec::new();
        for (done, group) in groups.iter().enumerate() {
            if !self.budget.allows(Duration::ZERO) {
                break;
            }
            let mut alone = self.plan.clone();
            for (index, layer) in alone.layers.iter_mut().enumerate() {
                if !group.contains(&index) {
                    layer.scheme = Scheme::default();
                }
            }
            match self.prover.prove(&alone, &[self.sample]) {
                Ok(proved) => {
                    let worst = worst_sqnr(&proved.parity);
                    culprits.extend(worst.map(|(sqnr_db, _)| self.culprit(group, sqnr_db)));
                }
                // What does not run alone says nothing of the whole.
                Err(error) => drop(error.of_plan()?),
            }
            (self.progress)(Progress::Part { done: done + 1, total: groups.len() });
        }
        Ok(culprits)
    }

    fn culprit(&self, group: &[usize], sqnr_db: f64) -> Culprit {
        let lines = || group.iter().map(|&index| &self.plan.layers[index]);
        Culprit {
            scheme: lines().next().map_or(Scheme::default(), |line| line.scheme).to_string(),
            layers: lines().map(|line| line.id.clone()).collect(),
            sqnr_db,
            predicted: false,
        }
    }
}

/// What a layer is predicted to cost alone, as one that is to blame.
pub(crate) fn predicted(entry: &report::Sensitivity) -> Option<Culprit> {
    Some(Culprit {
        layers: entry.layers.clone(),
        scheme: entry.scheme.clone(),
        sqnr_db: entry.alone_db?,
        predicted: true,
    })
}

/// The changed layers of a plan, those that share a weight together if `ties` says that their weights
/// count.
pub(crate) fn groups(plan: &ExplainedPlan, ties: impl Fn(&Explanation) -> bool) -> Vec<Vec<usize>> {
    let changed = |index: &usize| !plan.layers[*index].scheme.is_keep();
    let mut group_of: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in (0..plan.layers.len()).filter(changed) {
        let why = plan.why(index);
        let weights = if ties(why) { why.weights.as_slice() } else { &[] };
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

    /// A layer that reads weights.
    type Line<'a> = (&'a str, Scheme, &'a [&'a str]);

    fn plan(layers: &[Line<'_>]) -> ExplainedPlan {
        let mut plan = ExplainedPlan::new(Numerics::default());
        for &(id, scheme, weights) in layers {
            let weights = weights.iter().map(|&name| name.into()).collect();
            let why = Explanation { weights, ..Explanation::default() };
            plan.push(PlannedLayer::new(id, scheme), why);
        }
        plan
    }

    #[test]
    fn layers_that_share_a_weight_are_tried_together() {
        let int8 = Scheme::INT8_WEIGHTS;
        let plan = plan(&[
            ("a", int8, &["1"]),
            ("b", int8, &["2"]),
            ("kept", Scheme::KEEP, &["1"]),
            ("c", int8, &["1"]),
            ("joins", int8, &["1", "2"]),
            ("d", int8, &["3"]),
        ]);
        assert_eq!(groups(&plan, |_| true), [vec![0, 3, 1, 4], vec![5]]);
        // Where weights do not count, each is alone.
        assert_eq!(groups(&plan, |_| false).len(), 5);
    }

    use crate::budget::Stop;
    use crate::testing::{Bed, Layer};

    /// The layers to blame for a plan, as they are named.
    fn blamed(bed: &Bed, plan: &ExplainedPlan, tuning: &Tuning, stop: &Stop) -> Vec<Culprit> {
        bed.judge(stop, |trials| {
            let inquiry = Inquiry {
                prover: trials.prover,
                plan,
                sample: 0,
                budget: trials.court.budget,
                tuning,
                progress: trials.court.progress,
            };
            inquiry.culprits(&Suspects::Weights(&[])).unwrap()
        })
    }

    fn outlier() -> Bed {
        Bed::of(&[Layer::Even, Layer::Outliers, Layer::Even], 20.0)
    }

    #[test]
    fn the_layer_that_does_the_damage_comes_first() {
        let bed = outlier();
        let plan = bed.plan(Scheme::INT8_WEIGHTS);
        let found = blamed(&bed, &plan, &Tuning::default(), &Stop::default());
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].layers, ["product1"]);
        assert_eq!(found[0].scheme, "int8-weights");
        assert!(found[0].sqnr_db + 3.0 < found[1].sqnr_db, "{found:?}");
        assert!(found.iter().all(|culprit| !culprit.predicted));
    }

    #[test]
    fn candidates_say_what_switches_say() {
        let bed = outlier();
        let plan = bed.plan(Scheme::INT8_WEIGHTS);
        let mut tuning = Tuning::default();
        let by_switches = blamed(&bed, &plan, &tuning, &Stop::default());
        // Too large to be put under switches.
        tuning.probing.most_bytes = 0;
        let by_candidates = blamed(&bed, &plan, &tuning, &Stop::default());
        for (a, b) in by_switches.iter().zip(&by_candidates) {
            assert_eq!(a.layers, b.layers);
            assert!((a.sqnr_db - b.sqnr_db).abs() < 1.0, "{a:?} {b:?}");
        }
    }

    #[test]
    fn only_so_many_candidates_are_made() {
        let bed = outlier();
        let plan = bed.plan(Scheme::INT8_WEIGHTS);
        let mut tuning = Tuning::default();
        (tuning.probing.most_bytes, tuning.culprits.most_made) = (0, 2);
        assert_eq!(blamed(&bed, &plan, &tuning, &Stop::default()).len(), 2);
    }

    #[test]
    fn nobody_is_blamed_after_a_stop() {
        let bed = outlier();
        let plan = bed.plan(Scheme::INT8_WEIGHTS);
        let stop = Stop::default();
        stop.stop();
        assert!(blamed(&bed, &plan, &Tuning::default(), &stop).is_empty());
    }

    #[test]
    fn layers_of_sixteen_bits_are_blamed_as_well() {
        let bed = Bed::of(&[Layer::Even; 3], 20.0);
        let plan = bed.plan(Scheme::BF16);
        let found = blamed(&bed, &plan, &Tuning::default(), &Stop::default());
        assert!(found.len() >= 3, "{found:?}");
        assert!(found.windows(2).all(|pair| pair[0].sqnr_db <= pair[1].sqnr_db));
    }

    #[test]
    fn suspects_that_a_search_ranked_are_the_only_ones() {
        let bed = outlier();
        let plan = bed.plan(Scheme::INT8_WEIGHTS);
        let entry = |name: &str| report::Sensitivity {
            layers: vec![name.to_owned()],
            alone_db: Some(9.0),
            ..sensitivity::described(&plan, &[0], &HashMap::new())
        };
        let ranked = [entry("product2"), entry("product0")];
        let groups = Suspects::Ranked(&ranked).groups(&plan, 2);
        let names: Vec<&str> =
            groups.iter().map(|group| plan.layers[group[0]].id.as_str()).collect();
        assert_eq!(names, ["product2", "product0"]);
        let predicted = predicted(&ranked[0]).unwrap();
        assert!(predicted.predicted && (predicted.sqnr_db - 9.0).abs() < 1e-12);
    }

    #[test]
    fn weights_that_lost_the_most_are_looked_at_first() {
        let bed = outlier();
        let plan = bed.plan(Scheme::INT8_WEIGHTS);
        let weight = |name: &str, sqnr_db: f64| rewrite::QuantizedWeight {
            name: name.to_owned(),
            bytes_before: 4,
            bytes_after: 1,
            sqnr_db,
        };
        let weights = [weight("W0", 40.0), weight("W1", 20.0), weight("W2", 30.0)];
        let groups = Suspects::Weights(&weights).groups(&plan, 8);
        assert_eq!(groups, [vec![1], vec![2], vec![0]]);
    }
}

#[cfg(test)]
mod planted;
