//! The search: the plan that meets the limits and gives up the least.
//!
//! It starts from the fastest plan for the target. While parity fails, it first refines the plan at
//! no cost (smoothing, bias correction), then measures what each layer's rounding does to the
//! outputs, and moves layers down the ladder, those with the most noise for what moving them costs
//! first:
//!
//! ```text
//! int8-dynamic -> int8-weights -> fp16-weights -> keep
//! ```
//!
//! in growing batches until a real run passes, then back by bisection, and at last layer by layer
//! where that is worth something. Predictions only say what to try next; what counts is runs. Where the
//! user has a metric, it has the last word on each plan that is run, and parity says which to run.

mod ladder;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use modelopt_onnx::{SaveOptions, Staged};
use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, Improvements, Plan, Prepared, Scheme, Seen};
use modelopt_validate::{Limits, Measurements, SizeChange, judge};

use crate::Progress;
use crate::budget::Budget;
use crate::config::{Config, Smoothing};
use crate::evaluator::{Prover, worst_sqnr};
use crate::excess::Excess;
use crate::metric::{Meter, MetricError};
use crate::provenance;
use crate::sensitivity::{self, Probe};
use crate::target;
use ladder::Ladder;
pub(crate) use ladder::tidy;

/// How many samples tell layers apart, at most.
const MOST_PROBED: usize = 3;

/// How often the first plan that passes is halved back towards the last that failed.
const BISECTIONS: usize = 5;

/// A plan with less than this much of the noise that is allowed nearly passes: 1 dB.
const NEAR: f64 = 1.26;

/// What share of the noise that is too much a move must take to be tried there.
const HELPFUL: f64 = 0.2;

/// How many single moves are tried to make a plan pass that nearly does.
const MOST_REACHES: usize = 5;

/// How many moves are tried to be taken back, at most.
const MOST_TAKEN_BACK: usize = 10;

/// Moves that cost less than this are not worth a trial, as shares of all bytes or all time.
const WORTH_A_TRIAL: f64 = 0.004;

/// What noises may add up to at first, of what is allowed: they are not all independent.
const SHARE: f64 = 0.7;

/// Where the user's metric decides: what share of the noise is left at first, and what share of that
/// each time the metric is still too low.
const FIRST_SHARE: f64 = 0.5;
const NEXT_SHARE: f64 = 0.4;

/// The least share of the weights' bytes that must stay int8 for a plan to be a quantization.
const LEAST_INT8: f64 = 0.02;

/// What a search found.
pub(crate) struct Found {
    /// The best plan: one that passes, or the nearest to it.
    pub(crate) plan: Plan,
    /// Whether it meets the limits of parity and size.
    pub(crate) passes: bool,
    pub(crate) trials: Vec<report::Trial>,
    pub(crate) end: report::SearchEnd,
    pub(crate) sensitivity: Vec<report::Sensitivity>,
    pub(crate) warnings: Vec<String>,
    /// Why the user's metric could not be evaluated, if that ended the search.
    pub(crate) metric_error: Option<MetricError>,
}

/// A search under way.
pub(crate) struct Searcher<'a, 'b, 'c, 'm> {
    pub(crate) prover: Prover<'a, 'b>,
    config: &'a Config,
    budget: &'c Budget,
    original_bytes: u64,
    limits: &'a Limits,
    excess: Excess<'a>,
    /// The user's metric, which has the last word.
    meter: Option<&'c mut Meter<'m>>,
    progress: &'c mut dyn FnMut(Progress),
    found: Found,
    /// Trials that may still be made.
    left: usize,
    /// The nearest failure so far, or the cheapest plan that passes.
    best: Option<Best>,
    /// What was tried, so that nothing is tried twice.
    tried: Vec<(Vec<Essence>, Tried)>,
    /// How long the last trial took.
    last: Duration,
    /// Whether the samples are the user's.
    real: bool,
}

struct Best {
    plan: Plan,
    passes: bool,
    /// Cost if it passes, excess if not.
    rank: f64,
}

/// What one trial told.
#[derive(Clone, Debug)]
struct Tried {
    passes: bool,
    excess: f64,
    /// The sample that was worst.
    worst: usize,
    /// What of the user's metric is lost, where that is too much.
    lost: f64,
}

/// How much further off a plan is that the metric is not asked about.
const NOT_EVALUATED: f64 = 1e12;

/// What of a planned layer is carried out: its scheme, and whether it is refined.
type Essence = (Scheme, bool, bool);

fn essence(plan: &Plan) -> Vec<Essence> {
    let of = |line: &rewrite::PlannedLayer| {
        (line.scheme, !line.smoothing.is_empty(), !line.bias_correction.is_empty())
    };
    plan.layers.iter().map(of).collect()
}

/// Why there is no trial.
struct Over(report::SearchEnd);

impl<'a, 'b, 'c, 'm> Searcher<'a, 'b, 'c, 'm> {
    pub(crate) fn new(
        prover: Prover<'a, 'b>,
        config: &'a Config,
        limits: &'a Limits,
        budget: &'c Budget,
        original_bytes: u64,
        meter: Option<&'c mut Meter<'m>>,
        progress: &'c mut dyn FnMut(Progress),
    ) -> Self {
        let real = target::summary(prover.samples).kind == report::SampleKind::Real;
        let found = Found {
            plan: Plan::new(config.numerics),
            passes: false,
            trials: Vec::new(),
            end: report::SearchEnd::Impossible,
            sensitivity: Vec::new(),
            warnings: Vec::new(),
            metric_error: None,
        };
        Searcher {
            prover,
            config,
            budget,
            original_bytes,
            limits,
            excess: Excess::new(limits),
            meter,
            progress,
            found,
            // One is for the verdict.
            left: config.search.max_trials.saturating_sub(1),
            best: None,
            tried: Vec::new(),
            last: Duration::ZERO,
            real,
        }
    }

    /// Searches from a plan, after so many trials were made from others.
    pub(crate) fn run(mut self, start: &Plan, used: usize) -> Found {
        self.left = self.left.saturating_sub(used);
        let end = match self.search(start) {
            Ok(end) | Err(Over(end)) => end,
        };
        match self.best {
            Some(Best { plan, passes, .. }) => Found { plan, passes, end, ..self.found },
            None => Found { plan: start.clone(), end, ..self.found },
        }
    }

    fn search(&mut self, start: &Plan) -> Result<report::SearchEnd, Over> {
        let mut base = start.clone();
        let mut tried = self.attempt(&base, "the default plan".to_owned(), 0.0)?;
        if tried.passes {
            return Ok(report::SearchEnd::Found);
        }
        // Looking at activations and choosing refinements takes as long as some trials.
        self.afford(self.last * 2)?;
        let seen = sensitivity::statistics(&self.prover, &base, self.progress);
        let seen = seen.unwrap_or_else(|why| {
            self.found.warnings.push(format!("activations could not be measured: {why}"));
            Seen::default()
        });
        if let Some(refined) = self.refined(&base, &seen) {
            let better = self.attempt(&refined, refinement(&refined), 0.0)?;
            if better.passes {
                return Ok(report::SearchEnd::Found);
            }
            if better.excess < tried.excess {
                (base, tried) = (refined, better);
            }
        }
        self.descend(&base, &tried, &seen)
    }

    /// The plan with what makes it more precise at no cost, if there is anything.
    fn refined(&self, base: &Plan, seen: &Seen) -> Option<Plan> {
        let wanted = improvements(self.config, self.real);
        let refined = self.prover.prepared.improve(base, seen, wanted);
        (refined != *base).then_some(refined)
    }

    /// Moves layers down until the plan passes, then back up where they need not be down.
    fn descend(
        &mut self,
        base: &Plan,
        tried: &Tried,
        seen: &Seen,
    ) -> Result<report::SearchEnd, Over> {
        let mut ladder = Ladder::new(&self.prover, base, seen, self.config.search.objective);
        let mut probed: Vec<usize> = Vec::new();
        let mut probe = Probe::new(&self.prover, base);
        self.probe(&mut ladder, &mut probe, &mut probed, tried.worst);
        self.found.sensitivity = ladder.described(self.limits);
        let mut steps = ladder.steps();
        // What the metric allows is not known beforehand: the noise is halved first.
        let by_metric = self.meter.is_some();
        let mut share = FIRST_SHARE;
        let halved = |steps: &[ladder::Step], share: f64| {
            let before = steps.first().map_or(0.0, |step| step.before);
            (before * share).min(SHARE)
        };
        let mut target = if by_metric { halved(&steps, share) } else { SHARE };
        let mut low = 0;
        let mut high = loop {
            // In growing batches, whatever is predicted.
            let least = low + 1 + low / 4;
            let next = (least..=steps.len()).find(|&count| steps[count - 1].excess <= target);
            let count = next.unwrap_or(steps.len()).min(most_worthwhile(&ladder, &steps));
            if count <= low {
                return Ok(report::SearchEnd::Impossible);
            }
            let plan = ladder.plan(&steps[..count]);
            let what = format!("{} down the ladder", counted(&ladder.moved(&steps[..count])));
            let tried = self.attempt(&plan, what, ladder::cost(&steps[..count]))?;
            if tried.passes {
                break count;
            }
            if probed.len() < MOST_PROBED && !probed.contains(&tried.worst) {
                self.probe(&mut ladder, &mut probe, &mut probed, tried.worst);
                self.found.sensitivity = ladder.described(self.limits);
                steps = ladder.steps();
                low = 0;
                if by_metric {
                    target = halved(&steps, share);
                }
            } else if by_metric {
                low = count;
                share *= NEXT_SHARE;
                target = halved(&steps, share);
            } else {
                low = count;
                // By how much the prediction was off, and at least a growing batch.
                let off = steps[count - 1].excess / tried.excess;
                target = (off * SHARE).clamp(target * 0.1, target * 0.6);
            }
        };
        // The fewest moves that nearly pass.
        let mut near: Option<(usize, f64)> = None;
        for _ in 0..BISECTIONS {
            let Some(middle) = between(&steps, low, high) else { break };
            let plan = ladder.plan(&steps[..middle]);
            let what = format!("{} of them up again", high - middle);
            let tried = self.attempt(&plan, what, ladder::cost(&steps[..middle]))?;
            if tried.passes {
                high = middle;
                continue;
            }
            low = middle;
            if !by_metric && tried.excess <= NEAR && near.is_none_or(|(known, _)| middle < known) {
                near = Some((middle, tried.excess));
            }
        }
        let mut chosen = steps[..high].to_vec();
        if let Some((count, excess)) = near
            && let Some(reached) = self.reach(&ladder, &steps, count, high, excess)?
        {
            chosen = reached;
        }
        self.take_back(&ladder, chosen)?;
        Ok(report::SearchEnd::Found)
    }

    /// From a plan that nearly passes, single moves that make it pass for less than the first
    /// `high` do.
    fn reach(
        &mut self,
        ladder: &Ladder,
        steps: &[ladder::Step],
        near: usize,
        high: usize,
        mut excess: f64,
    ) -> Result<Option<Vec<ladder::Step>>, Over> {
        let mut chosen = steps[..near].to_vec();
        let most = ladder::cost(&steps[..high]);
        // The cheapest first, of those that take a good part of what is too much.
        let needed = (excess - 1.0) * HELPFUL;
        let helps = |step: &&ladder::Step| step.before - step.excess >= needed;
        let mut next: Vec<&ladder::Step> = steps[near..].iter().filter(helps).collect();
        next.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        for step in next.into_iter().take(MOST_REACHES) {
            let with: Vec<ladder::Step> = chosen.iter().chain([step]).cloned().collect();
            let cost = ladder::cost(&with);
            if cost >= most {
                break;
            }
            let what = format!("{} down as well", ladder.name(step));
            let tried = self.attempt(&ladder.plan(&with), what, cost)?;
            if tried.passes {
                return Ok(Some(with));
            }
            if tried.excess < excess {
                (chosen, excess) = (with, tried.excess);
            }
        }
        Ok(None)
    }

    /// Undoes single moves that cost something, as long as the plan still passes: first those that
    /// cost the most for the noise that they took.
    fn take_back(&mut self, ladder: &Ladder, mut steps: Vec<ladder::Step>) -> Result<(), Over> {
        let noise = |step: &ladder::Step| step.before - step.excess;
        let mut dear: Vec<ladder::Step> = steps.clone();
        dear.retain(|step| step.cost >= WORTH_A_TRIAL);
        let worth = |step: &ladder::Step| step.cost / noise(step).max(1e-6);
        dear.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
        for step in dear.into_iter().take(MOST_TAKEN_BACK) {
            let without: Vec<ladder::Step> =
                steps.iter().filter(|other| !other.needs(&step)).cloned().collect();
            let plan = ladder.plan(&without);
            let what = format!("{} up again", ladder.name(&step));
            if self.attempt(&plan, what, ladder::cost(&without))?.passes {
                steps = without;
            }
        }
        Ok(())
    }

    /// Measures what each layer does on one more sample.
    fn probe(
        &mut self,
        ladder: &mut Ladder,
        probe: &mut Result<Probe, String>,
        probed: &mut Vec<usize>,
        sample: usize,
    ) {
        probed.push(sample);
        (self.progress)(Progress::Step("measuring what each layer costs"));
        let budget = self.budget.holding_back(self.reserve() + self.last);
        let told = match probe {
            Ok(probe) => probe
                .alone(&self.prover, &self.excess, sample, &budget, self.progress)
                .map(|excesses| ladder.measured(probe.switches(), &excesses)),
            Err(why) => Err(why.clone()),
        };
        if let Err(why) = told
            && budget.allows(Duration::ZERO)
        {
            let message =
                format!("layers are ranked by their own error, not by what it does: {why}");
            if !self.found.warnings.contains(&message) {
                self.found.warnings.push(message);
            }
        }
    }

    /// Runs a plan, if there are trials and time left.
    fn attempt(&mut self, plan: &Plan, what: String, cost: f64) -> Result<Tried, Over> {
        let essence = essence(plan);
        if let Some((_, tried)) = self.tried.iter().find(|(known, _)| *known == essence) {
            return Ok(tried.clone());
        }
        if self.budget.is_stopped() {
            return Err(Over(report::SearchEnd::Stopped));
        }
        if self.left == 0 {
            return Err(Over(report::SearchEnd::OutOfTrials));
        }
        if !self.found.trials.is_empty() {
            self.afford(self.last)?;
        }
        self.left -= 1;
        let started = Instant::now();
        (self.progress)(Progress::Step("trying a plan"));
        let all = self.prover.all();
        let proved = rewrite::plan_from(self.prover.prepared, plan)
            .map_err(|error| error.to_string())
            .and_then(|plan| Ok((self.prover.prove(&plan, &all)?, plan)));
        self.last = started.elapsed();
        let mut trial = report::Trial { what, schemes: schemes(plan), ..report::Trial::default() };
        let (tried, plan) = match proved {
            Ok((proved, plan)) => {
                let size = SizeChange {
                    original_bytes: self.original_bytes,
                    candidate_bytes: proved.bytes,
                };
                let measured = Measurements { parity: Some(&proved.parity), size, latency: None };
                trial.pass = judge(self.limits, &measured).pass;
                trial.bytes = proved.bytes;
                let worst = worst_sqnr(&proved.parity);
                trial.sqnr_db = worst.map(|(sqnr_db, _)| sqnr_db);
                let place = worst.and_then(|(_, sample)| self.prover.place(sample));
                let mut tried = Tried {
                    passes: trial.pass,
                    excess: self.excess.of(&proved.parity),
                    worst: place.unwrap_or(0),
                    lost: 0.0,
                };
                if tried.passes {
                    self.consult(&plan, &mut trial, &mut tried)?;
                }
                (tried, plan)
            }
            Err(why) => {
                trial.failure = Some(why);
                let excess = f64::INFINITY;
                (Tried { passes: false, excess, worst: 0, lost: 0.0 }, plan.clone())
            }
        };
        // What misses the limits of parity is further off than what the metric refuses.
        let missed = if tried.lost > 0.0 { tried.lost } else { tried.excess + NOT_EVALUATED };
        let rank = match (tried.passes, self.meter.is_some()) {
            (true, _) => cost,
            (false, true) => missed,
            (false, false) => tried.excess,
        };
        let better = self.best.as_ref().is_none_or(|best| {
            (tried.passes && !best.passes) || (tried.passes == best.passes && rank < best.rank)
        });
        if better {
            self.best = Some(Best { plan, passes: tried.passes, rank });
        }
        (self.progress)(Progress::Trial(Box::new(trial.clone())));
        self.found.trials.push(trial);
        self.tried.push((essence, tried.clone()));
        Ok(tried)
    }

    /// Asks the user's metric about a plan that meets the limits.
    fn consult(
        &mut self,
        plan: &Plan,
        trial: &mut report::Trial,
        tried: &mut Tried,
    ) -> Result<(), Over> {
        let Some(meter) = self.meter.as_mut() else { return Ok(()) };
        (self.progress)(Progress::Step("evaluating the metric"));
        let prepared = self.prover.prepared;
        match meter.measure(&provenance::essence(plan), |path| carried_out(prepared, plan, path)) {
            Ok(change) => {
                let pass = change.check().pass;
                trial.metric = Some(change.candidate);
                trial.pass &= pass;
                tried.passes &= pass;
                tried.lost = if pass { 0.0 } else { change.lost() };
                Ok(())
            }
            Err(error) => {
                self.found.metric_error = Some(error);
                Err(Over(report::SearchEnd::Stopped))
            }
        }
    }

    /// What the verdict will take: one more run, and latency.
    fn reserve(&self) -> Duration {
        self.last.mul_f64(2.5) + self.latency_seconds()
    }

    /// Refuses what takes this long, if no time is left for the verdict then.
    fn afford(&self, cost: Duration) -> Result<(), Over> {
        if self.budget.is_stopped() {
            return Err(Over(report::SearchEnd::Stopped));
        }
        let fits = self.budget.allows(cost + self.reserve());
        if fits { Ok(()) } else { Err(Over(report::SearchEnd::OutOfTime)) }
    }

    /// What measuring latency takes at least.
    fn latency_seconds(&self) -> Duration {
        let seconds =
            if self.config.measure_latency { self.config.latency.min_seconds } else { 0.0 };
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
            + Duration::from_millis(300)
    }
}

/// What to refine a plan by. Means of invented inputs say nothing of real ones.
pub(crate) fn improvements(config: &Config, real: bool) -> Improvements {
    Improvements {
        smoothing: config.search.smoothing != Smoothing::Off,
        bias_correction: config.search.bias_correction && real,
    }
}

/// Writes a model under a plan.
pub(crate) fn carried_out(prepared: &Prepared, plan: &Plan, path: &Path) -> Result<(), String> {
    let (model, _) = prepared.apply(plan).map_err(|error| error.to_string())?;
    let staged = Staged::write(&model, path, SaveOptions::default());
    staged.and_then(Staged::commit).map_err(|error| error.to_string())
}

fn refinement(plan: &Plan) -> String {
    let smoothed = plan.layers.iter().filter(|layer| !layer.smoothing.is_empty()).count();
    let corrected = plan.layers.iter().filter(|layer| !layer.bias_correction.is_empty()).count();
    match (smoothed, corrected) {
        (0, corrected) => format!("biases of {corrected} layers corrected"),
        (smoothed, 0) => format!("{smoothed} layers smoothed"),
        _ => format!("{smoothed} layers smoothed, biases of {corrected} corrected"),
    }
}

fn counted(layers: &[usize]) -> String {
    match layers.len() {
        1 => "1 layer".to_owned(),
        count => format!("{count} layers"),
    }
}

/// How many layers have each scheme.
pub(crate) fn schemes(plan: &Plan) -> BTreeMap<String, usize> {
    plan.layers.iter().fold(BTreeMap::new(), |mut counts, layer| {
        *counts.entry(layer.scheme.to_string()).or_default() += 1;
        counts
    })
}

/// Whether enough stays int8 to speak of a quantized model.
fn is_worthwhile(plan: &Plan) -> bool {
    let bytes = |fits: fn(Scheme) -> bool| {
        plan.layers.iter().filter(|layer| fits(layer.scheme)).map(|l| l.bytes).sum::<u64>()
    };
    bytes(Scheme::is_int8) as f64 >= LEAST_INT8 * bytes(|_| true) as f64
}

/// How many steps can be taken before too little is left in int8.
fn most_worthwhile(ladder: &Ladder, steps: &[ladder::Step]) -> usize {
    let counts: Vec<usize> = (1..=steps.len()).collect();
    counts.partition_point(|&count| is_worthwhile(&ladder.plan(&steps[..count])))
}

/// The number of steps between two whose predicted excess is nearest to the geometric middle.
fn between(steps: &[ladder::Step], low: usize, high: usize) -> Option<usize> {
    let log = |count: usize| match count.checked_sub(1) {
        Some(place) => steps[place].excess.max(1e-12).ln(),
        None => steps.first().map_or(0.0, |step| step.before.max(1e-12).ln()),
    };
    let middle = f64::midpoint(log(low), log(high));
    // Single moves are looked at later.
    (low + 1..high)
        .filter(|_| high - low > 2)
        .min_by(|&a, &b| (log(a) - middle).abs().total_cmp(&(log(b) - middle).abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_where_the_noise_is_halved() {
        let step = |before: f64, excess: f64| ladder::Step {
            change: ladder::Change::Keep { group: 0 },
            cost: 0.0,
            before,
            excess,
        };
        let steps =
            [step(16.0, 8.0), step(8.0, 4.0), step(4.0, 2.0), step(2.0, 1.0), step(1.0, 0.5)];
        assert_eq!(between(&steps, 0, 4), Some(2));
        assert_eq!(between(&steps, 1, 5), Some(3));
        assert_eq!(between(&steps, 2, 4), None);
    }
}
