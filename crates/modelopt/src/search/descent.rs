//! The search itself. It knows moves and an evaluator, and nothing of what they stand for.
//!
//! ```text
//! excess │ x                      down in growing batches, as far as predictions say
//!        │    x
//!      1 │- - - - - x - x - - -   until one passes; then back by bisection,
//!        │      x     x           single moves from those that nearly pass,
//!        └───────────────── cost  and single moves undone
//! ```
//!
//! Predictions only say what to try next; what counts is runs of candidates.

use super::evaluator::{End, Evaluation, Evaluator, Why};
use super::problem::{Problem, Selection, Step, cost};
use super::tuning::Descent as Tuning;
use crate::error::Error;
use crate::trial_error::TrialError;

/// How much further off a plan is that the metric is not asked about.
const NOT_EVALUATED: f64 = 1e12;

/// What a search goes by.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) tuning: &'a Tuning,
    /// How many candidates may be run.
    pub(crate) trials: usize,
    /// Whether a metric has the last word on what passes.
    pub(crate) by_metric: bool,
}

/// What a search found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) end: End,
    /// The cheapest selection that passes, or the one that is nearest to it.
    pub(crate) selection: Selection,
    pub(crate) passes: bool,
    /// The problem with what was measured.
    pub(crate) problem: Problem,
    /// Why noise could not be measured where it could not.
    pub(crate) unmeasured: Option<String>,
}

/// A search under way.
struct Search<'a, E> {
    rules: &'a Rules<'a>,
    evaluator: &'a mut E,
    problem: Problem,
    left: usize,
    best: Best,
    /// What was tried, so that nothing is tried twice.
    tried: Vec<(Selection, Evaluation)>,
    probed: Vec<usize>,
    unmeasured: Option<String>,
}

struct Best {
    selection: Selection,
    passes: bool,
    /// Cost if it passes, and how far off it is if not.
    rank: f64,
}

/// Why there is no trial.
enum Halt {
    Over(End),
    Failed(Error),
}

impl From<End> for Halt {
    fn from(end: End) -> Self {
        Halt::Over(end)
    }
}

/// Searches from everything on its first level, which was evaluated already and does not pass. An
/// error is one of the environment, which ends all.
pub(crate) fn search(
    problem: Problem,
    first: Evaluation,
    rules: &Rules<'_>,
    evaluator: &mut impl Evaluator,
) -> Result<Found, Error> {
    let start = problem.start();
    let best = Best { selection: start.clone(), passes: false, rank: rules.missed(&first) };
    let mut search = Search {
        rules,
        evaluator,
        problem,
        left: rules.trials,
        best,
        tried: vec![(start, first)],
        probed: Vec::new(),
        unmeasured: None,
    };
    let end = match search.run(&first) {
        Ok(end) | Err(Halt::Over(end)) => end,
        Err(Halt::Failed(error)) => return Err(error),
    };
    let Search { best, problem, unmeasured, .. } = search;
    Ok(Found { end, selection: best.selection, passes: best.passes, problem, unmeasured })
}

impl Rules<'_> {
    /// How far off what fails is. What misses the limits of parity is further off than what the metric
    /// refuses.
    fn missed(&self, evaluation: &Evaluation) -> f64 {
        match (self.by_metric, evaluation.lost > 0.0) {
            (false, _) => evaluation.excess,
            (true, true) => evaluation.lost,
            (true, false) => evaluation.excess + NOT_EVALUATED,
        }
    }
}

impl<E: Evaluator> Search<'_, E> {
    fn run(&mut self, first: &Evaluation) -> Result<End, Halt> {
        self.measure(first)?;
        let mut steps = self.problem.steps();
        let Some((low, high)) = self.down(&mut steps)? else { return Ok(End::Impossible) };
        let chosen = self.back(&steps, low, high)?;
        self.take_back(chosen)?;
        Ok(End::Found)
    }

    /// Down in growing batches: how many steps failed last, and how many pass.
    fn down(&mut self, steps: &mut Vec<Step>) -> Result<Option<(usize, usize)>, Halt> {
        let tuning = self.rules.tuning;
        let mut share = tuning.first_share;
        let mut target = self.first_target(steps, share);
        let mut low = 0;
        loop {
            let count = self.batch(steps, low, target);
            if count <= low {
                return Ok(None);
            }
            let told = self.attempt(&steps[..count], Why::Down)?;
            if told.passes {
                return Ok(Some((low, count)));
            }
            if self.is_news(&told) {
                self.measure(&told)?;
                *steps = self.problem.steps();
                low = 0;
                if self.rules.by_metric {
                    target = self.first_target(steps, share);
                }
                continue;
            }
            low = count;
            if told.worst.is_none() {
                // What does not run says nothing of noise.
                target *= tuning.most_kept;
            } else if self.rules.by_metric {
                share *= tuning.next_share;
                target = self.first_target(steps, share);
            } else {
                // By how much the prediction was off, and at least a growing batch.
                let off = steps[count - 1].excess / told.excess;
                let most = target * tuning.most_kept;
                target = (off * tuning.share).clamp(target * tuning.least_kept, most);
            }
        }
    }

    /// What noise is to come down to: what is allowed, or, where a metric decides, a share of what
    /// there is.
    fn first_target(&self, steps: &[Step], share: f64) -> f64 {
        let most = self.rules.tuning.share;
        if !self.rules.by_metric {
            return most;
        }
        (steps.first().map_or(0.0, |step| step.before) * share).min(most)
    }

    /// How many steps are predicted to be enough, more than `low` and not so many that too little is
    /// left.
    fn batch(&self, steps: &[Step], low: usize, target: f64) -> usize {
        let least = low + 1 + (low as f64 * self.rules.tuning.growth) as usize;
        let enough = (least..=steps.len()).find(|&count| steps[count - 1].excess <= target);
        let counts: Vec<usize> = (1..=steps.len()).collect();
        let worthwhile =
            |&count: &usize| self.problem.is_worthwhile(&self.problem.selection(&steps[..count]));
        enough.unwrap_or(steps.len()).min(counts.partition_point(worthwhile))
    }

    /// Back by bisection to the fewest moves that pass, and from those that nearly pass by single
    /// moves.
    fn back(&mut self, steps: &[Step], low: usize, high: usize) -> Result<Vec<Step>, Halt> {
        let tuning = self.rules.tuning;
        let (mut low, mut high) = (low, high);
        // The fewest moves that nearly pass.
        let mut near: Option<(usize, f64)> = None;
        for _ in 0..tuning.bisections {
            let Some(middle) = between(steps, low, high) else { break };
            let told = self.attempt(&steps[..middle], Why::Back(high - middle))?;
            if told.passes {
                high = middle;
                continue;
            }
            low = middle;
            let fewer = near.is_none_or(|(known, _)| middle < known);
            if !self.rules.by_metric && told.excess <= tuning.near && fewer {
                near = Some((middle, told.excess));
            }
        }
        let reached = match near {
            Some((count, excess)) => self.reach(steps, count, high, excess)?,
            None => None,
        };
        Ok(reached.unwrap_or_else(|| steps[..high].to_vec()))
    }

    /// From a plan that nearly passes, single moves that make it pass for less than the first `high`
    /// do.
    fn reach(
        &mut self,
        steps: &[Step],
        near: usize,
        high: usize,
        mut excess: f64,
    ) -> Result<Option<Vec<Step>>, Halt> {
        let tuning = self.rules.tuning;
        let mut chosen = steps[..near].to_vec();
        let most = cost(&steps[..high]);
        // The cheapest first, of those that take a good part of what is too much.
        let needed = (excess - 1.0) * tuning.helpful;
        let helps = |step: &&Step| step.gain() >= needed;
        let mut next: Vec<&Step> = steps[near..].iter().filter(helps).collect();
        next.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        for step in next.into_iter().take(tuning.most_reaches) {
            let with: Vec<Step> = chosen.iter().chain([step]).cloned().collect();
            if cost(&with) >= most {
                break;
            }
            let told = self.attempt(&with, Why::AsWell(step.of))?;
            if told.passes {
                return Ok(Some(with));
            }
            if told.excess < excess {
                (chosen, excess) = (with, told.excess);
            }
        }
        Ok(None)
    }

    /// Undoes single moves that cost something, as long as the plan still passes: first those that
    /// cost the most for the noise that they took.
    fn take_back(&mut self, mut steps: Vec<Step>) -> Result<(), Halt> {
        let tuning = self.rules.tuning;
        let mut dear: Vec<Step> = steps.clone();
        dear.retain(|step| step.cost >= tuning.worth_a_trial);
        let worth = |step: &Step| step.cost / step.gain().max(1e-6);
        dear.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
        for step in dear.into_iter().take(tuning.most_taken_back) {
            let stays = |other: &&Step| !self.problem.needs(other, &step);
            let without: Vec<Step> = steps.iter().filter(stays).cloned().collect();
            if self.attempt(&without, Why::Undone(step.of))?.passes {
                steps = without;
            }
        }
        Ok(())
    }

    /// Whether a trial was worst on a sample that moves were not told apart on.
    fn is_news(&self, told: &Evaluation) -> bool {
        let fresh = |worst: usize| !self.probed.contains(&worst);
        let may = self.unmeasured.is_none() && self.probed.len() < self.rules.tuning.most_probed;
        may && told.worst.is_some_and(fresh)
    }

    /// Measures what each source does on the sample that was worst. Where that is not possible, what
    /// was assumed is put to scale.
    fn measure(&mut self, told: &Evaluation) -> Result<(), Halt> {
        let sample = told.worst.unwrap_or(0);
        let is_first = self.probed.is_empty();
        self.probed.push(sample);
        match self.evaluator.probe(sample).map_err(TrialError::of_plan) {
            Ok(noises) => {
                self.problem.measured(&noises, is_first);
                if is_first && self.rules.tuning.calibrates {
                    self.problem.scale(told.excess);
                }
            }
            Err(Err(error)) => return Err(Halt::Failed(error)),
            Err(Ok(why)) => {
                if is_first {
                    self.problem.scale(told.excess);
                }
                self.unmeasured = Some(why);
            }
        }
        Ok(())
    }

    /// Runs a candidate, if it is a new one, and there are trials and time left.
    fn attempt(&mut self, steps: &[Step], why: Why) -> Result<Evaluation, Halt> {
        let selection = self.problem.selection(steps);
        if let Some((_, told)) = self.tried.iter().find(|(known, _)| *known == selection) {
            return Ok(*told);
        }
        match self.evaluator.is_over() {
            Some(End::Stopped) => return Err(End::Stopped.into()),
            _ if self.left == 0 => return Err(End::OutOfTrials.into()),
            Some(end) => return Err(end.into()),
            None => {}
        }
        self.left -= 1;
        let told = match self.evaluator.evaluate(&selection, why).map_err(TrialError::of_plan) {
            Ok(told) => told,
            Err(Ok(_)) => Evaluation::FAILED,
            Err(Err(error)) => return Err(Halt::Failed(error)),
        };
        self.remember(&selection, &told, cost(steps));
        self.tried.push((selection, told));
        Ok(told)
    }

    fn remember(&mut self, selection: &Selection, told: &Evaluation, cost: f64) {
        let rank = if told.passes { cost } else { self.rules.missed(told) };
        let best = &self.best;
        let better = if told.passes == best.passes { rank < best.rank } else { told.passes };
        if better {
            self.best = Best { selection: selection.clone(), passes: told.passes, rank };
        }
    }
}

/// The number of steps between two whose predicted excess is nearest to the geometric middle.
fn between(steps: &[Step], low: usize, high: usize) -> Option<usize> {
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
