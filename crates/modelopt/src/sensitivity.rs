//! What each layer of a plan costs at the outputs.
//!
//! The original runs once with its activations as outputs, and once more for each layer with that
//! layer's rounding switched on: see [`modelopt_rewrite::switchboard`]. No model is quantized,
//! written or loaded for a layer.

use std::collections::HashMap;
use std::time::Duration;

use modelopt_calibrate::shaped;
use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, LayerNoise, Plan, Scheme, Seen, Switch, Switchboard};
use modelopt_runtime::Outputs;
use modelopt_validate::Parity;

use crate::Progress;
use crate::budget::Budget;
use crate::calibrate;
use crate::culprits;
use crate::evaluator::{Prover, worst_sqnr};
use crate::excess::Excess;
use crate::scratch::Scratch;
use crate::session_pool::SessionPool;
use crate::witness;

/// How many layers that seem to gain most are looked at on all samples, at most.
const MOST_CONFIRMED: usize = 12;

/// By how much errors are made larger that the outputs do not resolve.
const AMPLIFIED: f32 = 8.0;

/// Models with more weights than this are not run under switches: it takes two copies of them.
const MOST_BYTES: u64 = 4 << 30;

/// A model under switches, ready to run.
///
/// It computes in kernels of its own, because its weights are no constants: what switches do is told
/// against its own outputs with all of them off.
pub(crate) struct Probe {
    board: Switchboard,
    pool: SessionPool,
    /// Outputs with all switches off, by place of the sample.
    off: HashMap<usize, Outputs>,
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
    pub(crate) fn new(prover: &Prover<'_, '_>, plan: &Plan) -> Result<Self, String> {
        if plan.layers.iter().map(|layer| layer.bytes).sum::<u64>() > MOST_BYTES {
            return Err("the model is too large to be run under switches".to_owned());
        }
        let board = prover.prepared.switchboard(plan);
        let mut board = board.map_err(|error| error.to_string())?;
        witness::show_named(&mut board.model, prover.witnesses());
        let scratch = Scratch::new()?;
        let path = scratch.keep(&prover.place.copies.of(&board.model), "switches.onnx")?;
        let pool = SessionPool::new(prover.place, path, None)?;
        Ok(Probe { board, pool, off: HashMap::new(), _scratch: scratch })
    }

    pub(crate) fn switches(&self) -> &[Switch] {
        &self.board.switches
    }

    /// What settings do to the outputs, in order; an error where time ends.
    fn run(
        &mut self,
        prover: &Prover<'_, '_>,
        settings: &[Setting],
        budget: &Budget,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Parity>, String> {
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
        let place = prover.place;
        self.pool.run(
            place,
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
        self.pool.run(place, total, of, &mut |index, outputs| {
            if !budget.allows(Duration::ZERO) {
                return Err("there is no time left to measure layers".to_owned());
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

    /// What each switch alone does on one sample, as excess over the limits.
    pub(crate) fn alone(
        &mut self,
        prover: &Prover<'_, '_>,
        excess: &Excess<'_>,
        sample: usize,
        budget: &Budget,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<f64>, String> {
        // Other samples are not looked at again.
        self.off.clear();
        let setting = |strength: f32| move |switch| Setting { on: vec![switch], strength, sample };
        let all: Vec<Setting> = (0..self.board.switches.len()).map(setting(1.0)).collect();
        let parities = self.run(prover, &all, budget, progress)?;
        let mut excesses: Vec<f64> = parities.iter().map(|parity| excess.of(parity)).collect();
        // Too little to be resolved alone, but not beside others.
        let silent: Vec<usize> = (0..excesses.len()).filter(|&at| excesses[at] == 0.0).collect();
        let louder: Vec<Setting> = silent.iter().copied().map(setting(AMPLIFIED)).collect();
        let parities = self.run(prover, &louder, budget, progress)?;
        for (at, parity) in silent.into_iter().zip(&parities) {
            excesses[at] = excess.of(parity) / f64::from(AMPLIFIED).powi(2);
        }
        Ok(excesses)
    }
}

/// What the layers of a plan read on the samples, by name of the layer.
pub(crate) fn statistics(
    prover: &Prover<'_, '_>,
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
) -> Result<Seen, String> {
    calibrate::statistics(prover.prepared, plan, prover.samples, prover.place, progress)
}

/// Multiplications of each layer on the largest sample, by name.
pub(crate) fn work(prover: &Prover<'_, '_>) -> HashMap<String, f64> {
    rewrite::work(&shaped(prover.prepared, prover.samples))
}

/// The layers of a plan, those that share a weight together, by what the whole gains when they are
/// left out; the most first.
pub(crate) fn ranked(
    prover: &mut Prover<'_, '_>,
    plan: &Plan,
    seen: &Seen,
    budget: &Budget,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<report::Sensitivity>, String> {
    let mut probe = Probe::new(prover, plan)?;
    let local: HashMap<usize, LayerNoise> = prover
        .prepared
        .sensitivity(plan, seen)
        .into_iter()
        .map(|noise| (noise.layer, noise))
        .collect();
    let groups = culprits::groups(plan);
    let all: Vec<usize> = (0..probe.switches().len()).collect();
    let own: Vec<Vec<usize>> =
        groups.iter().map(|group| switches_of(&probe, plan, group)).collect();
    let without = |own: &[usize]| -> Vec<usize> {
        all.iter().copied().filter(|switch| !own.contains(switch)).collect()
    };
    let setting = |on: Vec<usize>, sample| Setting { on, strength: 1.0, sample };
    let everywhere = |on: &[usize]| -> Vec<Setting> {
        prover.all().into_iter().map(|sample| setting(on.to_vec(), sample)).collect()
    };
    progress(Progress::Step("measuring the plan under switches"));
    let whole = probe.run(prover, &everywhere(&all), budget, progress)?;
    let whole: Vec<f64> = whole.iter().map(lowest_db).collect();
    let worst = (0..whole.len()).min_by(|&a, &b| whole[a].total_cmp(&whole[b])).unwrap_or(0);
    let of_all = |ratios: &[f64]| ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let whole_db = of_all(&whole);
    progress(Progress::Step("measuring what each layer costs"));
    let settings: Vec<Setting> = own
        .iter()
        .flat_map(|own| [setting(own.clone(), worst), setting(without(own), worst)])
        .collect();
    let measured = probe.run(prover, &settings, budget, progress)?;
    let mut ranked: Vec<(usize, report::Sensitivity)> = groups
        .iter()
        .zip(measured.chunks_exact(2))
        .enumerate()
        .map(|(place, (group, measured))| {
            let mut entry = described(plan, group, &local);
            entry.alone_db = Some(lowest_db(&measured[0]));
            entry.gained_db = Some(lowest_db(&measured[1]) - whole_db);
            (place, entry)
        })
        .collect();
    // On the other samples as well, until the first of the list has stood that.
    progress(Progress::Step("measuring the worst of them on all samples"));
    let mut confirmed: Vec<usize> = Vec::new();
    loop {
        ranked.sort_by(|(_, a), (_, b)| gained(b).total_cmp(&gained(a)));
        let Some((place, entry)) = ranked.first_mut() else { break };
        if confirmed.contains(place) || confirmed.len() == MOST_CONFIRMED {
            break;
        }
        confirmed.push(*place);
        let settings = everywhere(&without(&own[*place]));
        let measured = probe.run(prover, &settings, budget, progress)?;
        let ratios: Vec<f64> = measured.iter().map(lowest_db).collect();
        entry.gained_db = Some(of_all(&ratios) - whole_db);
    }
    Ok(ranked.into_iter().map(|(_, entry)| entry).collect())
}

fn gained(entry: &report::Sensitivity) -> f64 {
    entry.gained_db.unwrap_or(f64::NEG_INFINITY)
}

/// The lowest SQNR of any float output, in dB; infinite without one.
fn lowest_db(parity: &Parity) -> f64 {
    worst_sqnr(parity).map_or(f64::INFINITY, |(sqnr_db, _)| sqnr_db)
}

/// The switches of layers that share weights.
fn switches_of(probe: &Probe, plan: &Plan, group: &[usize]) -> Vec<usize> {
    let belongs = |switch: &Switch| match switch {
        Switch::Activation { layer } => group.contains(layer),
        Switch::Weight { weight, .. } => {
            group.iter().any(|&place| plan.layers[place].weights.contains(weight))
        }
    };
    let switches = probe.switches().iter().enumerate();
    switches.filter(|(_, switch)| belongs(switch)).map(|(place, _)| place).collect()
}

/// What is known of layers without running the model.
pub(crate) fn described(
    plan: &Plan,
    group: &[usize],
    local: &HashMap<usize, LayerNoise>,
) -> report::Sensitivity {
    let lines = || group.iter().filter_map(|&place| plan.layers.get(place));
    let first = lines().next();
    let noise = group.first().and_then(|place| local.get(place));
    let db = |noise: f64| -10.0 * noise.log10();
    report::Sensitivity {
        layers: lines().map(|line| line.name.clone()).collect(),
        op: first.map(|line| line.op.clone()).unwrap_or_default(),
        scheme: first.map_or(Scheme::KEEP, |line| line.scheme).to_string(),
        bytes: bytes(plan, group),
        layer_weights_db: noise.map(|noise| db(noise.int8_weights)),
        layer_activation_db: noise.and_then(|noise| noise.activation).map(db),
        alone_db: None,
        gained_db: None,
    }
}

/// Bytes of the weights of layers, each weight counted once.
pub(crate) fn bytes(plan: &Plan, group: &[usize]) -> u64 {
    let mut known: Vec<&str> = Vec::new();
    let mut total = 0;
    for line in group.iter().filter_map(|&place| plan.layers.get(place)) {
        let own = line.weights.iter().map(String::as_str);
        let fresh: Vec<&str> = own.filter(|name| !known.contains(name)).collect();
        // Which of several weights is how large does not stand in the plan.
        total += line.bytes * fresh.len() as u64 / line.weights.len().max(1) as u64;
        known.extend(fresh);
    }
    total
}
