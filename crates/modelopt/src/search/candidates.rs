//! The evaluator of real plans: a selection becomes a plan, and a probe a run under switches.

use std::ops::Range;
use std::time::Duration;

use modelopt_rewrite::{Switch, Switchboard};

use super::evaluator::{End, Evaluation, Evaluator, Why};
use super::halving;
use super::ladder::Ladder;
use super::problem::{Move, Selection};
use super::trials::Trials;
use super::tuning::Tuning;
use crate::sensitivity::{Probe, Setting};
use crate::trial_error::TrialError;
use crate::{Progress, Step};

/// Where the switches of a plan come from: they are made when they are asked for.
pub(crate) type Board<'a> = Box<dyn FnOnce() -> Result<Switchboard, String> + 'a>;

/// Candidates of one plan.
pub(crate) struct Candidates<'t, 'a, 'b, 'm> {
    pub(crate) trials: &'t mut Trials<'a, 'b, 'm>,
    pub(crate) ladder: &'t Ladder,
    pub(crate) tuning: &'t Tuning,
    /// What is told to whoever waits while it measures.
    pub(crate) step: Step,
    moves: Vec<Move>,
    board: Option<Board<'t>>,
    probe: Option<Probe>,
    /// The time that probing has to leave.
    reserve: Duration,
    /// How many samples were probed.
    pub(crate) probed: usize,
}

impl<'t, 'a, 'b, 'm> Candidates<'t, 'a, 'b, 'm> {
    pub(crate) fn new(
        trials: &'t mut Trials<'a, 'b, 'm>,
        ladder: &'t Ladder,
        moves: Vec<Move>,
        tuning: &'t Tuning,
        board: Board<'t>,
    ) -> Self {
        let reserve = trials.reserve() + trials.last;
        let step = Step::MeasuringLayerCosts;
        let (board, probe) = (Some(board), None);
        Candidates { trials, ladder, tuning, step, moves, board, probe, reserve, probed: 0 }
    }

    /// Why a candidate is tried, in words.
    fn words(&self, selection: &Selection, why: Why) -> String {
        let name = |of: usize| self.moves.get(of).map_or("", |step| self.ladder.name(step));
        match why {
            Why::Down => match self.ladder.moved(selection) {
                1 => "1 layer down the ladder".to_owned(),
                count => format!("{count} layers down the ladder"),
            },
            Why::Back(count) => format!("{count} of them up again"),
            Why::AsWell(of) => format!("{} down as well", name(of)),
            Why::Undone(of) => format!("{} up again", name(of)),
        }
    }
}

impl Evaluator for Candidates<'_, '_, '_, '_> {
    fn evaluate(&mut self, selection: &Selection, why: Why) -> Result<Evaluation, TrialError> {
        let what = self.words(selection, why);
        self.trials.run(&self.ladder.plan(selection), what)
    }

    fn probe(&mut self, sample: usize) -> Result<Vec<f64>, TrialError> {
        (self.trials.court.progress)(Progress::Step(self.step));
        let Trials { prover, court, excess, .. } = &mut *self.trials;
        if self.probe.is_none() {
            let Some(board) = self.board.take() else {
                return Err(TrialError::Refused("the model has no switches".to_owned()));
            };
            self.probe = Some(Probe::new(prover, board()?, &self.tuning.probing)?);
        }
        let Some(probe) = self.probe.as_mut() else { return Ok(Vec::new()) };
        // What values lose says nothing of what weights do.
        let switches = probe.switches();
        let is_weight = |switch: &Switch| matches!(switch, Switch::Weight { .. });
        let values = switches.iter().position(is_weight).unwrap_or(switches.len());
        let starts = [0..values, values..switches.len()];
        let budget = court.budget.holding_back(self.reserve);
        let progress = &mut *court.progress;
        let mut measure = |on: Vec<Vec<usize>>| -> Result<Vec<f64>, TrialError> {
            let settings: Vec<Setting> =
                on.into_iter().map(|on| Setting { on, strength: 1.0, sample }).collect();
            let parities = probe.run(prover, &settings, &budget, progress)?;
            Ok(parities.iter().map(|parity| excess.of(parity)).collect())
        };
        let noises = if self.ladder.by_switch() {
            let all =
                |ranges: &[Range<usize>]| ranges.iter().map(|r| r.clone().collect()).collect();
            let mixing = &self.tuning.mixing;
            halving::noises(&starts, mixing, &mut |ranges| measure(all(ranges)))?
        } else {
            let alone = probe.alone(prover, excess, sample, &budget, progress)?;
            self.ladder.noises(probe.switches(), &alone)
        };
        self.probed += 1;
        Ok(noises)
    }

    fn is_over(&self) -> Option<End> {
        self.trials.is_over()
    }
}

#[cfg(test)]
mod planted;
