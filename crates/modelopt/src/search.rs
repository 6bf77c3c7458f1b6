//! The search: the plan that meets the limits and gives up the least.
//!
//! It starts from the fastest plan for the target. While parity fails, it first refines the plan at
//! no cost (smoothing, bias correction), then measures what each layer's rounding does to the
//! outputs, and moves layers down the ladder, those with the most noise for what moving them costs
//! first:
//!
//! ```text
//! int8-dynamic -> int8-weights -> fp16-weights -> keep
//!         fp16 ->                 fp16-weights -> keep
//! ```
//!
//! in growing batches until a real run passes, then back by bisection, and at last layer by layer
//! where that is worth something. The algorithm ([`descent`]) knows moves ([`problem`]) and an
//! [`evaluator`]; [`ladder`] makes moves of a plan, and [`candidates`] runs real ones. Where the user
//! has a metric, it has the last word on each plan that is run, and parity says which to run.

mod candidates;
mod descent;
mod evaluator;
mod halving;
mod ladder;
pub(crate) mod mixing;
mod problem;
mod ranging;
mod trials;
pub(crate) mod tuning;

#[cfg(test)]
mod interrupted;
#[cfg(test)]
mod on_networks;
#[cfg(test)]
mod planted;
#[cfg(test)]
mod tests;

use modelopt_report as report;
use modelopt_rewrite::{self as rewrite, ExplainedPlan, Improvements, Seen};

use modelopt_runtime::Sample;

use crate::config::{Config, Smoothing};
use crate::error::Error;
use crate::ranges::SeenTensors;
use crate::sensitivity;
use crate::target;
use crate::trial_error::TrialError;
use crate::warning::Warning;
use candidates::Candidates;
use descent::Rules;
use evaluator::{End, Evaluation};
use ladder::{Known, Ladder, Weights};
use tuning::Tuning;

pub(crate) use ladder::tidy;
pub(crate) use trials::{Court, Trials, carried_out, schemes};

/// What a search found.
pub(crate) struct Found {
    /// The best plan: one that passes, or the nearest to it.
    pub(crate) plan: ExplainedPlan,
    /// Whether it meets the limits of parity and size.
    pub(crate) passes: bool,
    pub(crate) trials: Vec<report::Trial>,
    pub(crate) end: report::SearchEnd,
    pub(crate) sensitivity: Vec<report::Sensitivity>,
    pub(crate) warnings: Vec<Warning>,
}

impl Found {
    /// A plan that was not searched for.
    pub(crate) fn nothing(plan: ExplainedPlan) -> Self {
        let (trials, sensitivity, warnings) = (Vec::new(), Vec::new(), Vec::new());
        let end = report::SearchEnd::OutOfTrials;
        Found { plan, passes: false, trials, end, sensitivity, warnings }
    }

    /// Whether there is no time for anything else.
    pub(crate) fn is_cut_short(&self) -> bool {
        matches!(self.end, report::SearchEnd::Stopped | report::SearchEnd::OutOfTime)
    }
}

/// A search for an int8 plan.
pub(crate) struct Searcher<'t, 'a, 'b, 'm> {
    trials: Trials<'a, 'b, 'm>,
    tuning: &'t Tuning,
    /// What was seen of tensors that are quantized by ranges, and the samples that it was seen on, where
    /// those are not judged on.
    tensors: Option<&'t SeenTensors>,
    calibrating: &'t [Sample],
    /// Trials that may still be made.
    left: usize,
    sensitivity: Vec<report::Sensitivity>,
    warnings: Vec<Warning>,
}

/// What has come of it so far.
struct State {
    plan: ExplainedPlan,
    told: Evaluation,
    end: End,
}

impl<'t, 'a, 'b, 'm> Searcher<'t, 'a, 'b, 'm> {
    /// A search of so many trials, the verdict's among them.
    pub(crate) fn new(trials: Trials<'a, 'b, 'm>, tuning: &'t Tuning, most: usize) -> Self {
        let left = most.saturating_sub(1);
        let (sensitivity, warnings) = (Vec::new(), Vec::new());
        Searcher { trials, tuning, tensors: None, calibrating: &[], left, sensitivity, warnings }
    }

    /// The same with other ranges of tensors to choose from.
    pub(crate) fn with_tensors(self, tensors: &'t SeenTensors, on: &'t [Sample]) -> Self {
        Searcher { tensors: Some(tensors), calibrating: on, ..self }
    }

    /// Searches from a plan. An error is one of the environment or of the user's metric.
    pub(crate) fn run(mut self, start: &ExplainedPlan) -> Result<Found, Error> {
        let State { plan, told, end } = self.search(start)?;
        // Layers that share a weight agree.
        let plan = rewrite::agreed(self.trials.prover.prepared, &plan).unwrap_or(plan);
        Ok(Found {
            plan,
            passes: told.passes,
            trials: self.trials.record,
            end: end.into(),
            sensitivity: self.sensitivity,
            warnings: self.warnings,
        })
    }

    fn search(&mut self, start: &ExplainedPlan) -> Result<State, Error> {
        let mut state = State { plan: start.clone(), told: Evaluation::FAILED, end: End::Found };
        match self.attempt(start, "the default plan".to_owned())? {
            Ok(told) => state.told = told,
            Err(end) => return Ok(State { end, ..state }),
        }
        let by_ranges = !start.tensors.is_empty();
        if self.is_enough(&state.told, by_ranges) {
            return Ok(state);
        }
        if let Some(tensors) = self.tensors.filter(|_| by_ranges) {
            let narrow = tensors.narrow(self.trials.prover.prepared, start);
            match self.attempt(&narrow, "ranges no wider than what was seen".to_owned())? {
                Ok(told) if is_better(&told, &state.told) => {
                    state = State { plan: narrow, told, ..state };
                }
                Ok(_) => {}
                Err(end) => return Ok(State { end, ..state }),
            }
            if self.is_enough(&state.told, by_ranges) {
                return Ok(state);
            }
        }
        let start = &state.plan.clone();
        // Looking at activations and choosing refinements takes as long as some trials.
        if let Some(end) = self.trials.cannot_afford(self.trials.last * 2) {
            return Ok(State { end, ..state });
        }
        let seen = self.statistics(start);
        if let Some(refined) = self.refined(start, &seen) {
            match self.attempt(&refined, refinement(&refined))? {
                Ok(told) if is_better(&told, &state.told) => {
                    state = State { plan: refined, told, ..state };
                }
                Ok(_) => {}
                Err(end) => return Ok(State { end, ..state }),
            }
        }
        if state.told.passes {
            return Ok(state);
        }
        if let Some(ranged) = self.ranged(&state)? {
            match self.attempt(&ranged, "other ranges of tensors".to_owned())? {
                Ok(told) if is_better(&told, &state.told) => {
                    state = State { plan: ranged, told, ..state };
                }
                Ok(_) => {}
                Err(end) => return Ok(State { end, ..state }),
            }
        }
        if state.told.passes { Ok(state) } else { self.descend(&state, &seen) }
    }

    /// Whether there is nothing to search for: ranges should leave some of what is allowed.
    fn is_enough(&self, told: &Evaluation, by_ranges: bool) -> bool {
        told.passes && (!by_ranges || told.excess <= self.tuning.ranging.comfortable)
    }

    /// The plan with those ranges of its noisiest tensors that do the least to the outputs, if there are
    /// better ones.
    fn ranged(&mut self, state: &State) -> Result<Option<ExplainedPlan>, Error> {
        let Some(tensors) = self.tensors.filter(|_| !state.plan.tensors.is_empty()) else {
            return Ok(None);
        };
        let choice =
            ranging::chosen(&mut self.trials, tensors, &state.plan, state.told, self.tuning);
        match choice {
            Ok(plan) => Ok((plan != state.plan).then_some(plan)),
            Err(error) => error.of_plan().map(|_| None),
        }
    }

    fn statistics(&mut self, plan: &ExplainedPlan) -> Seen {
        let Trials { prover, court, .. } = &mut self.trials;
        let samples = if self.calibrating.is_empty() { prover.samples } else { self.calibrating };
        sensitivity::statistics_on(prover, plan, samples, court.progress).unwrap_or_else(|why| {
            self.warnings.push(Warning::UnseenActivations { reason: why });
            Seen::default()
        })
    }

    /// The plan with what makes it more precise at no cost, if there is anything.
    fn refined(&self, base: &ExplainedPlan, seen: &Seen) -> Option<ExplainedPlan> {
        let prover = &self.trials.prover;
        let real = target::summary(prover.samples).kind == report::SampleKind::Real;
        let wanted = improvements(self.trials.court.config, real);
        let mut refined = base.clone();
        prover.prepared.improve(&mut refined, seen, wanted);
        (refined != *base).then_some(refined)
    }

    /// Moves layers down until the plan passes, then back up where they need not be down.
    fn descend(&mut self, state: &State, seen: &Seen) -> Result<State, Error> {
        let prover = &self.trials.prover;
        let prepared = prover.prepared;
        let target = self.trials.court.config.runtime.target();
        let local = prepared.sensitivity(&state.plan, seen).into_iter();
        let local = local.map(|noise| (noise.layer, noise)).collect();
        let known = Known { local, work: sensitivity::work(prover, &state.plan, &target) };
        let weights = Weights::of(self.trials.court.config.search.objective, self.tuning);
        let (ladder, problem) = Ladder::below(prepared, &state.plan, known, weights, self.tuning);
        let mut tuning = self.tuning.descent.clone();
        if !state.plan.tensors.is_empty() {
            tuning.near = self.tuning.ranging.near;
        }
        let rules =
            Rules { tuning: &tuning, trials: self.left, by_metric: self.trials.by_metric() };
        let most_bytes = self.tuning.probing.most_bytes;
        let board = || sensitivity::board(prepared, &state.plan, most_bytes);
        let moves = problem.moves.clone();
        let mut candidates =
            Candidates::new(&mut self.trials, &ladder, moves, self.tuning, Box::new(board));
        let found = descent::search(problem, state.told, &rules, &mut candidates)?;
        let is_measured = candidates.probed > 0;
        drop(candidates);
        let court = &self.trials.court;
        self.sensitivity = ladder.described(&found.problem, court.limits, is_measured);
        if let Some(why) = found.unmeasured
            && court.budget.allows(std::time::Duration::ZERO)
        {
            self.warnings.push(Warning::RankedByOwnError { reason: why });
        }
        let told = Evaluation { passes: found.passes, ..state.told };
        Ok(State { plan: ladder.plan(&found.selection), told, end: found.end })
    }

    /// Runs a plan, if there are trials and time left.
    fn attempt(
        &mut self,
        plan: &ExplainedPlan,
        what: String,
    ) -> Result<Result<Evaluation, End>, Error> {
        match self.trials.is_over() {
            Some(End::Stopped) => return Ok(Err(End::Stopped)),
            _ if self.left == 0 => return Ok(Err(End::OutOfTrials)),
            Some(end) => return Ok(Err(end)),
            None => {}
        }
        self.left -= 1;
        match self.trials.run(plan, what) {
            Ok(told) => Ok(Ok(told)),
            Err(TrialError::Environment(error)) => Err(error),
            // The metric was stopped.
            Err(_) => Ok(Err(End::Stopped)),
        }
    }
}

/// Whether a plan is better than another that costs as much.
fn is_better(told: &Evaluation, other: &Evaluation) -> bool {
    if told.passes == other.passes { told.excess < other.excess } else { told.passes }
}

impl From<End> for report::SearchEnd {
    fn from(end: End) -> Self {
        match end {
            End::Found => report::SearchEnd::Found,
            End::Impossible => report::SearchEnd::Impossible,
            End::OutOfTrials => report::SearchEnd::OutOfTrials,
            End::OutOfTime => report::SearchEnd::OutOfTime,
            End::Stopped => report::SearchEnd::Stopped,
        }
    }
}

/// What to refine a plan by. Means of invented inputs say nothing of real ones.
pub(crate) fn improvements(config: &Config, real: bool) -> Improvements {
    Improvements {
        smoothing: config.search.smoothing != Smoothing::Off,
        bias_correction: config.search.bias_correction && real,
    }
}

fn refinement(plan: &ExplainedPlan) -> String {
    let smoothed = plan.layers.iter().filter(|layer| !layer.smoothing.is_empty()).count();
    let corrected = plan.layers.iter().filter(|layer| !layer.bias_correction.is_empty()).count();
    let equalized = plan.tensors.iter().filter(|range| !range.divided_by.is_empty()).count();
    let layers = if smoothed + equalized > 0 { "" } else { " layers" };
    let told = [
        (smoothed, format!("{smoothed} layers smoothed")),
        (equalized, format!("channels of {equalized} tensors equalized")),
        (corrected, format!("biases of {corrected}{layers} corrected")),
    ];
    let told: Vec<String> =
        told.into_iter().filter(|(count, _)| *count > 0).map(|(_, what)| what).collect();
    told.join(", ")
}
