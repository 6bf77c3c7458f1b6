//! What each layer of a plan costs at the outputs.
//!
//! The original runs once with its activations as outputs, and once more for each layer with that
//! layer's rounding switched on: see [`modelopt_rewrite::switchboard`]. No model is quantized,
//! written or loaded for a layer.

use std::collections::HashMap;
use std::time::Duration;

use modelopt_calibrate::shaped;
use modelopt_report as report;
use modelopt_rewrite::{
    self as rewrite, Capabilities, ExplainedPlan, LayerNoise, Plan, Prepared, Scheme, Seen, Switch,
    Switchboard,
};
use modelopt_runtime::{Outputs, Sample};
use modelopt_validate::Parity;

use crate::budget::Budget;
use crate::calibrate;
use crate::culprits;
use crate::evaluator::{Prover, worst_sqnr};
use crate::excess::Excess;
use crate::scratch::Scratch;
use crate::search::tuning::{Probing, Tuning};
use crate::session_pool::SessionPool;
use crate::trial_error::TrialError;
use crate::witness;
use crate::{Progress, Step};

/// A model under switches, ready to run.
///
/// It computes in kernels of its own, because its weights are no constants: what switches do is told
/// against its own outputs with all of them off.
pub(crate) struct Probe {
    board: Switchboard,
    pool: SessionPool,
    /// Outputs with all switches off, by place of the sample.
    off: HashMap<usize, Outputs>,
    /// By how much errors are made larger that the outputs do not resolve.
    amplified: f32,
    /// From which excess on errors are looked at again, made smaller by a factor.
    loud: f64,
    gentle: f32,
    /// Where its file is.
    _scratch: Scratch,
}

/// One run under switches.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The switches that are on.
    pub(crate) on: Vec<usize>,
    /// 1 for errors as they are.
    pub(crate) strength: f32,
    /// Place of the sample.
    pub(crate) sample: usize,
}

impl Probe {
    pub(crate) fn new(
        prover: &Prover<'_, '_>,
        mut board: Switchboard,
        tuning: &Probing,
    ) -> Result<Self, TrialError> {
        witness::show_named(&mut board.model, prover.witnesses());
        let scratch = Scratch::new()?;
        let path = scratch.keep(&prover.host.copies.of(&board.model), "switches.onnx")?;
        let pool = SessionPool::new(prover.host, path, None)?;
        let &Probing { amplified, loud, gentle, .. } = tuning;
        Ok(Probe { board, pool, off: HashMap::new(), amplified, loud, gentle, _scratch: scratch })
    }

    pub(crate) fn switches(&self) -> &[Switch] {
        &self.board.switches
    }

    /// What settings do to the outputs, in order; an error where time ends.
    pub(crate) fn run(
        &mut self,
        prover: &Prover<'_, '_>,
        settings: &[Setting],
        budget: &Budget,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Parity>, TrialError> {
        let mut fresh: Vec<usize> = settings.iter().map(|setting| setting.sample).collect();
        fresh.sort_unstable();
        fresh.dedup();
        fresh.retain(|sample| !self.off.contains_key(sample));
        let board = &self.board;
        let inputs = |sample: usize, on: &[usize], strength: f32| {
            let mut inputs =
                prover.samples.get(sample).map(|s| s.inputs.clone()).unwrap_or_default();
            inputs.insert(board.input.clone(), board.settings(on, strength));
            inputs
        };
        let off = &mut self.off;
        let host = prover.host;
        self.pool.run(
            host,
            fresh.len(),
            |index| inputs(fresh[index], &[], 0.0),
            &mut |index, outputs| {
                off.insert(fresh[index], outputs.clone());
                Ok(())
            },
        )?;
        let of = |index: usize| {
            let setting = &settings[index];
            inputs(setting.sample, &setting.on, setting.strength)
        };
        let (off, total) = (&self.off, settings.len());
        let mut parities = Vec::with_capacity(total);
        self.pool.run(host, total, of, &mut |index, outputs| {
            if !budget.allows(Duration::ZERO) {
                return Err("there is no time left to measure layers".to_owned().into());
            }
            let sample = settings[index].sample;
            let mut parity = prover.accumulator();
            if let (Some(off), Some(given)) = (off.get(&sample), prover.samples.get(sample)) {
                parity.add(&given.name, false, off, outputs);
            }
            parities.push(parity.finish());
            progress(Progress::Part { done: index + 1, total });
            Ok(())
        })?;
        Ok(parities)
    }

    /// Looks again, with smaller errors, at what does much alone where tensors are quantized by ranges: that
    /// turns one decision or another over, which says little of what it does beside others.
    fn ask_gently(
        &mut self,
        prover: &Prover<'_, '_>,
        excess: &Excess<'_>,
        sample: usize,
        budget: &Budget,
        (excesses, progress): (&mut [f64], &mut dyn FnMut(Progress)),
    ) -> Result<(), TrialError> {
        let is_tensor = |switch: &Switch| matches!(switch, Switch::Tensor { .. });
        if !self.board.switches.iter().any(is_tensor) {
            return Ok(());
        }
        let strength = self.gentle;
        let loud: Vec<usize> = (0..excesses.len()).filter(|&at| excesses[at] > self.loud).collect();
        let setting = |switch| Setting { on: vec![switch], strength, sample };
        let settings: Vec<Setting> = loud.iter().copied().map(setting).collect();
        let parities = self.run(prover, &settings, budget, progress)?;
        for (at, parity) in loud.into_iter().zip(&parities) {
            let told = excess.of(parity) / f64::from(strength).powi(2);
            excesses[at] = if told > 0.0 { told } else { self.loud };
        }
        Ok(())
    }

    /// What each switch alone does on one sample, as excess over the limits.
    pub(crate) fn alone(
        &mut self,
        prover: &Prover<'_, '_>,
        excess: &Excess<'_>,
        sample: usize,
        budget: &Budget,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<f64>, TrialError> {
        // Other samples are not looked at again.
        self.off.clear();
        let setting = |strength: f32| move |switch| Setting { on: vec![switch], strength, sample };
        let all: Vec<Setting> = (0..self.board.switches.len()).map(setting(1.0)).collect();
        let parities = self.run(prover, &all, budget, progress)?;
        let mut excesses: Vec<f64> = parities.iter().map(|parity| excess.of(parity)).collect();
        self.ask_gently(prover, excess, sample, budget, (&mut excesses, progress))?;
        // Too little to be resolved alone, but not beside others.
        let silent: Vec<usize> = (0..excesses.len()).filter(|&at| excesses[at] == 0.0).collect();
        let louder: Vec<Setting> = silent.iter().copied().map(setting(self.amplified)).collect();
        let parities = self.run(prover, &louder, budget, progress)?;
        for (at, parity) in silent.into_iter().zip(&parities) {
            excesses[at] = excess.of(parity) / f64::from(self.amplified).powi(2);
        }
        Ok(excesses)
    }
}

/// The errors of an int8 plan under switches, unless that takes too much memory.
pub(crate) fn board(
    prepared: &Prepared,
    plan: &ExplainedPlan,
    most_bytes: u64,
) -> Result<Switchboard, String> {
    if plan.lines().map(|(_, why)| why.bytes).sum::<u64>() > most_bytes {
        return Err("the model is too large to be run under switches".to_owned());
    }
    prepared.switchboard(plan).map_err(|error| error.to_string())
}

/// What the layers of a plan read on the samples, by name of the layer.
pub(crate) fn statistics(
    prover: &Prover<'_, '_>,
    plan: &ExplainedPlan,
    progress: &mut dyn FnMut(Progress),
) -> Result<Seen, String> {
    statistics_on(prover, plan, prover.samples, progress)
}

/// The same on other samples than those that are judged on.
pub(crate) fn statistics_on(
    prover: &Prover<'_, '_>,
    plan: &ExplainedPlan,
    samples: &[Sample],
    progress: &mut dyn FnMut(Progress),
) -> Result<Seen, String> {
    calibrate::statistics(prover.prepared, plan, samples, prover.host, progress)
}

/// Multiplications of each layer on the largest sample, by name.
pub(crate) fn work(
    prover: &Prover<'_, '_>,
    plan: &Plan,
    target: &Capabilities,
) -> HashMap<String, f64> {
    rewrite::work(&shaped(prover.prepared, prover.samples), plan, target)
}

/// Layers while they are put in order.
struct Ranking<'r, 'a, 'b> {
    prover: &'r Prover<'a, 'b>,
    probe: Probe,
    /// The switches of each group.
    own: Vec<Vec<usize>>,
    /// The lowest ratio with all switches on, in dB.
    whole_db: f64,
    budget: &'r Budget,
    progress: &'r mut dyn FnMut(Progress),
}

/// The layers of a plan, those that share a weight together, by what the whole gains when they are
/// left out; the most first.
pub(crate) fn ranked(
    prover: &Prover<'_, '_>,
    plan: &ExplainedPlan,
    seen: &Seen,
    budget: &Budget,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<report::Sensitivity>, TrialError> {
    let tuning = Tuning::default().probing;
    let board = board(prover.prepared, plan, tuning.most_bytes)?;
    let probe = Probe::new(prover, board, &tuning)?;
    let local: HashMap<usize, LayerNoise> = prover
        .prepared
        .sensitivity(plan, seen)
        .into_iter()
        .map(|noise| (noise.layer, noise))
        .collect();
    let groups = culprits::groups(plan, |_| true);
    let own: Vec<Vec<usize>> =
        groups.iter().map(|group| switches_of(probe.switches(), plan, group)).collect();
    let whole_db = f64::INFINITY;
    let mut ranking = Ranking { prover, probe, own, whole_db, budget, progress };
    let alone = ranking.alone()?;
    let entry = |(group, (alone, gained)): (&Vec<usize>, (f64, f64))| report::Sensitivity {
        alone_db: Some(alone),
        gained_db: Some(gained),
        ..described(plan, group, &local)
    };
    let mut entries: Vec<(usize, report::Sensitivity)> =
        groups.iter().zip(alone).map(entry).enumerate().collect();
    ranking.confirm(&mut entries, tuning.most_confirmed)?;
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

impl Ranking<'_, '_, '_> {
    /// What each group does alone, and what the whole gains without it, on the sample that is worst
    /// for the whole, in dB.
    fn alone(&mut self) -> Result<Vec<(f64, f64)>, TrialError> {
        (self.progress)(Progress::Step(Step::MeasuringWholePlan));
        let all: Vec<usize> = (0..self.probe.switches().len()).collect();
        let whole = self.everywhere(&all)?;
        let worst = (0..whole.len()).min_by(|&a, &b| whole[a].total_cmp(&whole[b])).unwrap_or(0);
        self.whole_db = lowest(&whole);
        (self.progress)(Progress::Step(Step::MeasuringLayerCosts));
        let setting = |on: Vec<usize>| Setting { on, strength: 1.0, sample: worst };
        let settings: Vec<Setting> = self
            .own
            .iter()
            .flat_map(|own| [setting(own.clone()), setting(self.without(own))])
            .collect();
        let measured = self.probe.run(self.prover, &settings, self.budget, self.progress)?;
        let both = |pair: &[Parity]| (lowest_db(&pair[0]), lowest_db(&pair[1]) - self.whole_db);
        Ok(measured.chunks_exact(2).map(both).collect())
    }

    /// Looks at the others of the samples as well, until the first of the list has stood that.
    fn confirm(
        &mut self,
        entries: &mut [(usize, report::Sensitivity)],
        most: usize,
    ) -> Result<(), TrialError> {
        (self.progress)(Progress::Step(Step::ConfirmingLayerCosts));
        let mut confirmed: Vec<usize> = Vec::new();
        loop {
            entries.sort_by(|(_, a), (_, b)| gained(b).total_cmp(&gained(a)));
            let Some((place, entry)) = entries.first_mut() else { return Ok(()) };
            if confirmed.contains(place) || confirmed.len() == most {
                return Ok(());
            }
            confirmed.push(*place);
            let ratios = self.everywhere(&self.without(&self.own[*place]))?;
            entry.gained_db = Some(lowest(&ratios) - self.whole_db);
        }
    }

    fn without(&self, own: &[usize]) -> Vec<usize> {
        let all = 0..self.probe.switches().len();
        all.filter(|switch| !own.contains(switch)).collect()
    }

    /// The lowest ratio on each sample with these switches on, in dB.
    fn everywhere(&mut self, on: &[usize]) -> Result<Vec<f64>, TrialError> {
        let setting = |sample| Setting { on: on.to_vec(), strength: 1.0, sample };
        let settings: Vec<Setting> = self.prover.all().into_iter().map(setting).collect();
        let measured = self.probe.run(self.prover, &settings, self.budget, self.progress)?;
        Ok(measured.iter().map(lowest_db).collect())
    }
}

fn lowest(ratios: &[f64]) -> f64 {
    ratios.iter().copied().fold(f64::INFINITY, f64::min)
}

fn gained(entry: &report::Sensitivity) -> f64 {
    entry.gained_db.unwrap_or(f64::NEG_INFINITY)
}

/// The lowest SQNR of any float output, in dB; infinite without one.
pub(crate) fn lowest_db(parity: &Parity) -> f64 {
    worst_sqnr(parity).map_or(f64::INFINITY, |(sqnr_db, _)| sqnr_db)
}

/// The switches of layers that share weights.
pub(crate) fn switches_of(
    switches: &[Switch],
    plan: &ExplainedPlan,
    group: &[usize],
) -> Vec<usize> {
    let belongs = |switch: &Switch| match switch {
        Switch::Activation { layer } => group.contains(layer),
        Switch::Rounding { layers } | Switch::Tensor { layers, .. } => {
            layers.iter().any(|place| group.contains(place))
        }
        Switch::Weight { weight, .. } => {
            group.iter().any(|&place| plan.why(place).weights.contains(weight))
        }
    };
    let switches = switches.iter().enumerate();
    switches.filter(|(_, switch)| belongs(switch)).map(|(place, _)| place).collect()
}

/// What is known of layers without running the model.
pub(crate) fn described(
    plan: &ExplainedPlan,
    group: &[usize],
    local: &HashMap<usize, LayerNoise>,
) -> report::Sensitivity {
    let lines = || group.iter().filter_map(|&place| plan.layers.get(place));
    let first = lines().next();
    let noise = group.first().and_then(|place| local.get(place));
    let db = |noise: f64| -10.0 * noise.log10();
    report::Sensitivity {
        layers: lines().map(|line| line.id.clone()).collect(),
        op: group.first().map(|&place| plan.why(place).op.clone()).unwrap_or_default(),
        scheme: first.map_or(Scheme::default(), |line| line.scheme).to_string(),
        bytes: bytes(plan, group),
        layer_weights_db: noise.map(|noise| db(noise.weights)),
        layer_activation_db: noise.and_then(|noise| noise.activation).map(db),
        alone_db: None,
        gained_db: None,
    }
}

/// Bytes of the weights of layers, each weight counted once.
pub(crate) fn bytes(plan: &ExplainedPlan, group: &[usize]) -> u64 {
    let mut known: Vec<&str> = Vec::new();
    let mut total = 0;
    for line in group.iter().map(|&place| plan.why(place)) {
        let own = line.weights.iter().map(String::as_str);
        let fresh: Vec<&str> = own.filter(|name| !known.contains(name)).collect();
        // Which of several weights is how large does not stand in the plan.
        total += line.bytes * fresh.len() as u64 / line.weights.len().max(1) as u64;
        known.extend(fresh);
    }
    total
}

#[cfg(test)]
mod planted;
