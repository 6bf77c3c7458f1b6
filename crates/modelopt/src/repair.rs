//! Mixed precision: where a model that computes or stores its weights in 16 bits is not close
//! enough, the nodes that do the most damage go back to float32, and no others.
//!
//! Each part of the model is converted alone and its damage measured as noise power relative to
//! the output. Roundings are independent of each other, so noise powers add up, more or less: the
//! parts with the most are halved and measured again until single nodes are found whose damage
//! does not fit. Whether it does is told by the whole model only, which is run at the end.

use std::collections::HashMap;

use modelopt_graph::Model;
use modelopt_rewrite::{self as rewrite, Plan, Precision, Scheme};
use modelopt_validate::{Limits, Parity};

use crate::Progress;
use crate::error::Error;
use crate::evaluator::{Prover, noise, worst_sqnr};
use crate::patience::Patience;

/// How often parts are run to find what must go, at most, and at least. Counted, not timed, so that
/// the same model gives the same plan on a busy machine.
const MOST_RUNS: u64 = 500;
const FEWEST_RUNS: u64 = 12;

/// Between them, as often as writes this many bytes of models.
const MOST_BYTES: u64 = 4 << 30;

/// How often the whole is run to find what may come back, at most.
const MOST_TAKEN_BACK: usize = 24;

/// How often the whole model is run.
const MOST_ATTEMPTS: usize = 6;

/// What single parts may add up to, of what the whole may have: they are not all independent.
const SHARE: f64 = 0.7;

/// The model is not taken apart into more parts than this that compute in 16 bits: where damage is
/// spread evenly, looking closer finds nothing.
const MOST_PARTS: usize = 64;

/// Constants below this size are not worth a scheme of their own.
const SMALL: u64 = 4096;

/// Keeping this share of all weights in float32 counts as much as one part computed in float32.
const DEAR: f64 = 0.002;

/// Neighbouring layers of the plan, converted alone.
#[derive(Clone, Debug)]
struct Part {
    /// Places in the plan.
    layers: Vec<usize>,
    /// Whether only weights are of 16 bits, and all is computed in float32.
    stored: bool,
    /// Noise power relative to the signal's, on the worst output.
    noise: f64,
}

/// The layers that cannot be as the plan has them, by name, with what they are instead: their
/// weights alone in 16 bits, or left as they are.
#[derive(Debug, Default)]
pub(crate) struct Repaired {
    schemes: HashMap<String, Scheme>,
}

impl Repaired {
    /// The plan with these layers as they have to be.
    pub(crate) fn apply(self, prepared: &Model, mut plan: Plan) -> Result<Plan, Error> {
        if self.schemes.is_empty() {
            return Ok(plan);
        }
        for layer in &mut plan.layers {
            if let Some(&scheme) = self.schemes.get(&layer.name) {
                layer.scheme = scheme;
                let stored = scheme.stores_in().map_or("", |_| "; its weights alone do not");
                layer.reason = format!("in 16 bits it costs more than the limit{stored}");
            }
        }
        Ok(rewrite::plan_from(prepared, &plan)?)
    }
}

/// What is to be repaired, and where it runs.
pub(crate) struct Patient<'a, 'b> {
    pub(crate) plan: &'a Plan,
    pub(crate) limits: &'a Limits,
    pub(crate) prover: Prover<'a, 'b>,
    pub(crate) patience: Patience,
}

/// A repair under way.
struct Repair<'a, 'b> {
    patient: Patient<'a, 'b>,
    /// How often parts may still be run.
    runs_left: u64,
    /// Who waits.
    progress: &'a mut dyn FnMut(Progress),
}

impl<'a> Patient<'a, '_> {
    /// Finds what has to stay float32 for the limit of parity. Nothing where the model is close
    /// enough, or where it cannot be run.
    pub(crate) fn repair(self, progress: &'a mut dyn FnMut(Progress)) -> Repaired {
        Repair { patient: self, runs_left: 0, progress }.run()
    }
}

impl Repair<'_, '_> {
    fn run(mut self) -> Repaired {
        let mut repaired = Repaired::default();
        let plan = self.patient.plan;
        let all: Vec<usize> =
            (0..plan.layers.len()).filter(|&place| is_sixteen(plan.layers[place].scheme)).collect();
        let (Some(limit), false) = (self.patient.limits.min_sqnr_db, all.is_empty()) else {
            return repaired;
        };
        let stored = all.iter().all(|&place| plan.layers[place].scheme.computes_in().is_none());
        let whole = vec![Part { layers: all, stored, noise: 0.0 }];
        match self.worst(&whole) {
            Some(found) if found.sqnr_db < limit => {
                (self.progress)(Progress::Step("looking for what must stay float32"));
                let parts = self.fit(whole, found, limit);
                let mixed = self.plan_of(&parts);
                for (now, before) in mixed.layers.iter().zip(&plan.layers) {
                    if now.scheme != before.scheme {
                        repaired.schemes.insert(now.name.clone(), now.scheme);
                    }
                }
            }
            _ => {}
        }
        repaired
    }

    /// Takes parts down until the whole meets the limit, then back up what was not needed.
    fn fit(&mut self, mut parts: Vec<Part>, mut worst: Worst, limit: f64) -> Vec<Part> {
        let weights: u64 = self.patient.plan.layers.iter().map(|layer| layer.bytes).sum();
        let most = (MOST_BYTES / weights.max(1)).clamp(FEWEST_RUNS, MOST_RUNS);
        let patience = self.patient.patience;
        // Making a part and loading it takes about as long as running it.
        let most = patience.allowed(most as usize, FEWEST_RUNS as usize, 2.0) as u64;
        // Most searches end long before.
        patience.announce("looking for what must stay float32", most as f64 * 0.5, self.progress);
        self.runs_left = most;
        let allowed = noise(limit);
        let mut budget = allowed * SHARE;
        // Only the worst sample tells parts apart; others may turn out worse later on.
        let mut samples = vec![worst.sample];
        for part in &mut parts {
            part.noise = noise(worst.sqnr_db);
        }
        let smallest = parts.iter().map(|part| part.layers.len()).sum::<usize>() / MOST_PARTS;
        let mut dropped: Vec<Part> = Vec::new();
        for _ in 0..MOST_ATTEMPTS {
            while parts.iter().map(|part| part.noise).sum::<f64>() > budget && self.runs_left > 0 {
                self.refine(&mut parts, &mut dropped, &samples, smallest.max(1));
                let done = (most - self.runs_left) as usize;
                (self.progress)(Progress::Part { done, total: most as usize });
            }
            match self.worst(&parts) {
                Some(found) if found.sqnr_db >= limit => {
                    self.take_back(&mut parts, dropped, limit);
                    break;
                }
                Some(found) => worst = found,
                None => break,
            }
            if self.runs_left == 0 {
                break;
            }
            if samples.contains(&worst.sample) {
                budget *= (allowed / noise(worst.sqnr_db)).clamp(0.1, 0.8);
            } else {
                samples.push(worst.sample);
                for part in &mut parts {
                    let noise = self.alone(part, &samples[samples.len() - 1..]);
                    part.noise = part.noise.max(noise);
                }
            }
        }
        parts
    }

    /// Halves the part with the most noise for what float32 would cost there, or takes it one step
    /// down.
    fn refine(
        &mut self,
        parts: &mut Vec<Part>,
        dropped: &mut Vec<Part>,
        samples: &[usize],
        smallest: usize,
    ) {
        let total: u64 = self.patient.plan.layers.iter().map(|layer| layer.bytes).sum();
        let rank = |part: &Part| {
            let share = self.bytes(part) as f64 / (total.max(1) as f64 * DEAR);
            part.noise / if part.stored { 1.0 + share } else { 1.0 }
        };
        let ranks: Vec<f64> = parts.iter().map(rank).collect();
        let Some(place) = (0..parts.len()).max_by(|&a, &b| ranks[a].total_cmp(&ranks[b])) else {
            return;
        };
        let part = parts.swap_remove(place);
        let finest = if part.stored { 1 } else { smallest };
        let mut pieces: Vec<Part> = if part.layers.len() > finest {
            let (first, second) = part.layers.split_at(part.layers.len() / 2);
            [first, second].map(|l| Part { layers: l.to_vec(), ..part.clone() }).to_vec()
        } else if part.stored {
            dropped.push(part);
            Vec::new()
        } else {
            vec![Part { stored: true, ..part }]
        };
        pieces.retain(|piece| !piece.stored || self.bytes(piece) > 0);
        for mut piece in pieces {
            piece.noise = self.alone(&piece, samples);
            parts.push(piece);
        }
    }

    /// Stores weights in 16 bits again that were left alone, the largest first, where the whole
    /// still meets the limit.
    fn take_back(&mut self, parts: &mut Vec<Part>, mut dropped: Vec<Part>, limit: f64) {
        dropped.sort_by_key(|part| std::cmp::Reverse(self.bytes(part)));
        for part in dropped.into_iter().take(MOST_TAKEN_BACK) {
            parts.push(part);
            if !self.worst(parts).is_some_and(|found| found.sqnr_db >= limit) {
                parts.pop();
            }
        }
    }

    /// Size of the weights that a part could store in 16 bits.
    fn bytes(&self, part: &Part) -> u64 {
        let worth = |&&place: &&usize| self.patient.plan.layers[place].bytes >= SMALL;
        part.layers.iter().filter(worth).map(|&place| self.patient.plan.layers[place].bytes).sum()
    }

    /// The plan in which only these parts are of 16 bits.
    fn plan_of(&self, parts: &[Part]) -> Plan {
        let mut plan = self.patient.plan.clone();
        for layer in &mut plan.layers {
            layer.scheme = Scheme::KEEP;
        }
        for part in parts {
            for &place in &part.layers {
                let before = &self.patient.plan.layers[place];
                plan.layers[place].scheme = match before.scheme.computes_in() {
                    Some(to) if part.stored && before.bytes >= SMALL => stored_in(to),
                    Some(_) if part.stored => Scheme::KEEP,
                    _ => before.scheme,
                };
            }
        }
        plan
    }

    /// The noise of a part alone; infinite where it does not run.
    fn alone(&mut self, part: &Part, samples: &[usize]) -> f64 {
        self.runs_left = self.runs_left.saturating_sub(1);
        let plan = self.plan_of(std::slice::from_ref(part));
        let parity = self.measure(&plan, samples);
        parity.and_then(|parity| Some(noise(worst_sqnr(&parity)?.0))).unwrap_or(f64::INFINITY)
    }

    fn worst(&mut self, parts: &[Part]) -> Option<Worst> {
        let plan = self.plan_of(parts);
        let all = self.patient.prover.all();
        let parity = self.measure(&plan, &all)?;
        let (sqnr_db, name) = worst_sqnr(&parity)?;
        Some(Worst { sqnr_db, sample: self.patient.prover.place(name).unwrap_or(0) })
    }

    /// Runs the model under a plan, on some of the samples.
    fn measure(&mut self, plan: &Plan, samples: &[usize]) -> Option<Parity> {
        let prover = &mut self.patient.prover;
        let plan = rewrite::plan_from(prover.prepared, plan).ok()?;
        Some(prover.prove(&plan, samples).ok()?.parity)
    }
}

/// Whether a scheme computes or stores in 16 bits.
pub(crate) fn is_sixteen(scheme: Scheme) -> bool {
    scheme.computes_in().is_some() || scheme.stores_in().is_some()
}

/// The scheme that only stores weights in a type.
fn stored_in(to: Precision) -> Scheme {
    match to {
        Precision::Fp16 => Scheme::FP16_WEIGHTS,
        Precision::Bf16 => Scheme::BF16_WEIGHTS,
    }
}

/// The lowest ratio, and where.
struct Worst {
    sqnr_db: f64,
    sample: usize,
}
