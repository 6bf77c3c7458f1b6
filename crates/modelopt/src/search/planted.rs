//! An evaluator made of planted noise, crashes and full disks.

use std::collections::HashMap;

use super::descent::{Found, Rules, search};
use super::evaluator::{End, Evaluation, Evaluator, Why};
use super::problem::{Item, Move, Problem, Selection, Source};
use super::tuning::Descent;
use crate::error::Error;
use crate::trial_error::TrialError;

/// What noises come to together, of what each leaves.
type Sum = fn(&[f64]) -> f64;

/// How a planted evaluator fails, and when: counted in trials, from 1.
pub(super) type Failure = fn() -> TrialError;

/// A world in which everything is known.
pub(super) struct Planted {
    pub(super) problem: Problem,
    /// The true noise of each source, for each sample.
    pub(super) noise: Vec<Vec<f64>>,
    pub(super) sum: Sum,
    /// Trials that fail.
    pub(super) fails: HashMap<usize, Failure>,
    /// Probes that fail.
    pub(super) refuses_probes: Option<Failure>,
    /// After how many trials it is over.
    pub(super) ends: Option<(usize, End)>,
    /// The most noise that the metric lets pass, where there is one.
    pub(super) metric: Option<f64>,
    pub(super) trials: usize,
    pub(super) tuning: Descent,
    /// What was tried, and what came of it.
    pub(super) told: Vec<(Selection, Why, Evaluation)>,
    pub(super) probed: Vec<usize>,
}

/// Noises that add up.
pub(super) fn added(noises: &[f64]) -> f64 {
    noises.iter().sum()
}

impl Planted {
    /// One item for each noise, with what it costs to be rid of it.
    pub(super) fn of(sources: &[(f64, f64)]) -> Self {
        let noises: Vec<Vec<f64>> = sources.iter().map(|(noise, _)| vec![*noise]).collect();
        let costs: Vec<f64> = sources.iter().map(|(_, cost)| *cost).collect();
        Planted::on_samples(&noises, &costs)
    }

    /// The same with a noise for each sample.
    pub(super) fn on_samples(noise: &[Vec<f64>], costs: &[f64]) -> Self {
        let item = |&cost: &f64| Item { costs: vec![0.0, cost], share: 1.0 };
        let source = |at: usize| Source {
            scaled: Vec::new(),
            noise: vec![1.0],
            left: vec![(at, vec![1.0, 0.0])],
        };
        let problem = Problem {
            items: costs.iter().map(item).collect(),
            sources: (0..costs.len()).map(source).collect(),
            moves: (0..costs.len()).map(|at| Move { to: vec![(at, 1)] }).collect(),
            every_move: 1e-4,
            least: 0.0,
        };
        Planted {
            problem,
            noise: noise.to_vec(),
            sum: added,
            fails: HashMap::new(),
            refuses_probes: None,
            ends: None,
            metric: None,
            trials: 24,
            tuning: Descent::default(),
            told: Vec::new(),
            probed: Vec::new(),
        }
    }

    /// What is true of a selection.
    pub(super) fn truth(&self, selection: &Selection) -> Evaluation {
        let samples = self.noise.first().map_or(0, Vec::len);
        let left = |source: usize, sample: usize| {
            let shares = self.problem.sources[source].left.iter();
            let share = shares.map(|(item, shares)| shares[selection.0[*item]]);
            self.noise[source][sample] * share.fold(0.0, f64::max)
        };
        let excess = |sample: usize| {
            let all: Vec<f64> = (0..self.noise.len()).map(|source| left(source, sample)).collect();
            (self.sum)(&all)
        };
        let excesses: Vec<f64> = (0..samples).map(excess).collect();
        let worst = (0..samples).max_by(|&a, &b| excesses[a].total_cmp(&excesses[b])).unwrap_or(0);
        let excess = excesses.get(worst).copied().unwrap_or(0.0);
        let lost = self.metric.map_or(0.0, |most| (excess - most).max(0.0));
        let passes = excess <= 1.0 && lost == 0.0;
        Evaluation {
            passes,
            excess,
            worst: Some(worst),
            lost: if excess <= 1.0 { lost } else { 0.0 },
        }
    }

    /// Searches with everything as it is at first tried already.
    pub(super) fn search(&mut self) -> Result<Found, Error> {
        let first = self.truth(&self.problem.start());
        self.search_after(first)
    }

    pub(super) fn search_after(&mut self, first: Evaluation) -> Result<Found, Error> {
        let tuning = self.tuning.clone();
        let rules =
            Rules { tuning: &tuning, trials: self.trials, by_metric: self.metric.is_some() };
        search(self.problem.clone(), first, &rules, self)
    }

    /// What the selection of a search costs.
    pub(super) fn cost(&self, selection: &Selection) -> f64 {
        let items = self.problem.items.iter().zip(&selection.0);
        items.map(|(item, &level)| item.costs[level]).sum()
    }
}

impl Evaluator for Planted {
    fn evaluate(&mut self, selection: &Selection, why: Why) -> Result<Evaluation, TrialError> {
        let told = match self.fails.get(&(self.told.len() + 1)) {
            Some(failure) => {
                self.told.push((selection.clone(), why, Evaluation::FAILED));
                return Err(failure());
            }
            None => self.truth(selection),
        };
        self.told.push((selection.clone(), why, told));
        Ok(told)
    }

    fn probe(&mut self, sample: usize) -> Result<Vec<f64>, TrialError> {
        if let Some(failure) = self.refuses_probes {
            return Err(failure());
        }
        self.probed.push(sample);
        Ok(self.noise.iter().map(|noise| noise[sample]).collect())
    }

    fn is_over(&self) -> Option<End> {
        self.ends.filter(|(after, _)| self.told.len() >= *after).map(|(_, end)| end)
    }
}
