//! Mixed precision: where a model that computes or stores its weights in 16 bits is not close enough,
//! what does the most damage goes back to float32, and nothing else.
//!
//! It is the same search as for int8 with other moves. Where damage is done is told by switches: each
//! rounded value has one, and neighbours are switched on together until those are found that count.

use modelopt_rewrite::{self as rewrite, ExplainedPlan, Switch};
use modelopt_validate::Limits;

use super::candidates::Candidates;
use super::descent::{self, Rules};
use super::ladder::{Ladder, Weights};
use super::trials::Trials;
use super::tuning::Tuning;
use crate::error::Error;
use crate::patience::Patience;
use crate::trial_error::TrialError;
use crate::{Progress, Step};

/// The limits that mixing can do something about.
pub(crate) fn limits(gate: &Limits) -> Limits {
    Limits { min_shrink: None, max_slowdown: None, ..gate.clone() }
}

/// The plan with what has to stay float32 for the limits of parity; the plan itself where the model is
/// close enough, or where it cannot be run.
pub(crate) fn mixed(
    plan: &ExplainedPlan,
    mut trials: Trials<'_, '_, '_>,
    patience: &Patience,
    tuning: &Tuning,
) -> Result<ExplainedPlan, Error> {
    let sixteen = plan.layers.iter().any(|line| line.scheme.is_sixteen());
    if !sixteen || trials.court.limits.min_sqnr_db.is_none() {
        return Ok(plan.clone());
    }
    trials.tells = false;
    let first = match trials.run(plan, String::new()) {
        Err(TrialError::Environment(error)) => return Err(error),
        Ok(told) if !told.passes && told.worst.is_some() => told,
        // What does not run has a verdict of its own.
        _ => return Ok(plan.clone()),
    };
    (trials.court.progress)(Progress::Step(Step::MixingPrecision));
    let prepared = trials.prover.prepared;
    let samples = trials.prover.samples.len();
    let wanted = tuning.mixing.most_trials;
    let allowed = patience.allowed(wanted, tuning.mixing.fewest_trials, samples as f64);
    // Most searches end long before.
    patience.announce(
        Step::MixingPrecision,
        (allowed * samples) as f64 * 0.5,
        trials.court.progress,
    );
    let board = rewrite::rounding_switchboard(prepared, plan).ok().flatten();
    let switches: Vec<Switch> = board.as_ref().map_or(Vec::new(), |b| b.switches.clone());
    let objective = trials.court.config.search.objective;
    let weights = Weights::of(objective, tuning).with_bytes(tuning.mixing.byte_weight);
    let (ladder, problem) = Ladder::of_switches(prepared, plan, &switches, weights, tuning);
    let rules = Rules { tuning: &tuning.mixing.descent, trials: allowed, by_metric: false };
    let none = || "roundings have no switches at this opset".to_owned();
    let board = move || board.ok_or_else(none);
    let moves = problem.moves.clone();
    let mut candidates = Candidates::new(&mut trials, &ladder, moves, tuning, Box::new(board));
    candidates.step = Step::MixingPrecision;
    let found = descent::search(problem, first, &rules, &mut candidates)?;
    let mixed = ladder.plan(&found.selection);
    Ok(rewrite::agreed(prepared, &mixed)?)
}

#[cfg(test)]
mod tests {
    use modelopt_rewrite::Scheme;

    use super::*;
    use crate::budget::Stop;
    use crate::evaluator::worst_sqnr;
    use crate::testing::{Bed, Layer};

    fn mixed_plan(bed: &Bed, plan: &ExplainedPlan) -> ExplainedPlan {
        bed.judge(&Stop::default(), |trials| {
            mixed(plan, trials, &Patience::unbounded(), &Tuning::default()).unwrap()
        })
    }

    fn sqnr_db(bed: &Bed, plan: &ExplainedPlan) -> f64 {
        bed.prove(|mut prover| {
            let all = prover.all();
            worst_sqnr(&prover.prove(plan, &all).unwrap().parity).unwrap().0
        })
    }

    #[test]
    fn what_is_close_enough_stays_as_it_is() {
        let bed = Bed::of(&[Layer::Even; 3], 40.0);
        let plan = bed.plan(Scheme::FP16);
        assert_eq!(mixed_plan(&bed, &plan), plan);
    }

    #[test]
    fn what_is_not_is_mixed_until_it_is() {
        for scheme in [Scheme::FP16, Scheme::BF16] {
            let whole = Bed::of(&[Layer::Even; 4], 40.0);
            // More than all of 16 bits can meet.
            let bed = Bed::of(&[Layer::Even; 4], sqnr_db(&whole, &whole.plan(scheme)) + 3.0);
            let plan = bed.plan(scheme);
            let mixed = mixed_plan(&bed, &plan);
            assert!(sqnr_db(&bed, &mixed) >= bed.config.gate.min_sqnr_db.unwrap());
            let kinds =
                |plan: &ExplainedPlan| plan.layers.iter().filter(|l| l.scheme == scheme).count();
            assert!(kinds(&mixed) < kinds(&plan), "{mixed:?}");
            assert!(mixed.layers.iter().any(|line| line.scheme.is_sixteen()), "{mixed:?}");
        }
    }

    #[test]
    fn weights_that_are_only_stored_are_kept_where_they_must_be() {
        let whole = Bed::of(&[Layer::Even; 4], 40.0);
        let scheme = Scheme::BF16_WEIGHTS;
        let bed = Bed::of(&[Layer::Even; 4], sqnr_db(&whole, &whole.plan(scheme)) + 2.0);
        let plan = bed.plan(scheme);
        let mixed = mixed_plan(&bed, &plan);
        assert!(sqnr_db(&bed, &mixed) >= bed.config.gate.min_sqnr_db.unwrap());
        let stored = mixed.layers.iter().filter(|line| line.scheme == scheme).count();
        assert!((1..plan.layers.len()).contains(&stored), "{mixed:?}");
    }

    #[test]
    fn the_same_model_is_mixed_in_the_same_way() {
        let bed = Bed::of(&[Layer::Even; 3], 52.0);
        let plan = bed.plan(Scheme::BF16);
        assert_eq!(mixed_plan(&bed, &plan), mixed_plan(&bed, &plan));
    }

    #[test]
    fn without_a_limit_nothing_is_mixed() {
        let mut bed = Bed::of(&[Layer::Even; 2], 90.0);
        bed.config.gate.min_sqnr_db = None;
        let plan = bed.plan(Scheme::BF16);
        assert_eq!(mixed_plan(&bed, &plan), plan);
        // An int8 plan has a search of its own.
        let bed = Bed::of(&[Layer::Even; 2], 90.0);
        let plan = bed.plan(Scheme::INT8_WEIGHTS);
        assert_eq!(mixed_plan(&bed, &plan), plan);
    }

    #[test]
    fn neither_size_nor_time_is_what_mixing_is_for() {
        let limits = limits(&Limits::default());
        assert_eq!((limits.min_shrink, limits.max_slowdown), (None, None));
        assert_eq!(limits.min_sqnr_db, Limits::default().min_sqnr_db);
    }
}

#[cfg(test)]
mod planted;
