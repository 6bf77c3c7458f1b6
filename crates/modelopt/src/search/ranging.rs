//! Ranges by what they do to the outputs: for each of the noisiest tensors, the way to choose its range that
//! makes the least noise there.
//!
//! A wide range rounds coarsely, a narrow one clips. Which of the two matters, the tensor alone does not tell: a
//! logit that is clipped may be the one that decides, or one of thousands that Softmax makes zero.

use std::collections::HashMap;

use modelopt_rewrite::{ExplainedPlan, Switch};

use super::evaluator::Evaluation;
use super::trials::Trials;
use super::tuning::Tuning;
use crate::ranges::SeenTensors;
use crate::sensitivity::{self, Probe, Setting};
use crate::trial_error::TrialError;
use crate::{Progress, Step};

/// The plan with the best ranges of its noisiest tensors.
pub(super) fn chosen(
    trials: &mut Trials<'_, '_, '_>,
    tensors: &SeenTensors,
    plan: &ExplainedPlan,
    told: Evaluation,
    tuning: &Tuning,
) -> Result<ExplainedPlan, TrialError> {
    (trials.court.progress)(Progress::Step(Step::MeasuringLayerCosts));
    let worst = told.worst.unwrap_or(0);
    let count = trials.prover.samples.len();
    let samples: Vec<usize> =
        (0..count.min(tuning.ranging.most_samples)).map(|at| (worst + at) % count).collect();
    let mut noise = measured(trials, plan, &|_| true, &samples, tuning)?;
    noise.retain(|(name, _)| tensors.has_choice(name));
    noise.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    noise.truncate(tuning.ranging.most_tensors);
    let mut best: HashMap<String, (usize, f64)> =
        noise.into_iter().map(|(name, noise)| (name, (0, noise))).collect();
    for way in 1..SeenTensors::ways() {
        let other = tensors.chosen(trials.prover.prepared, plan, |_| way);
        let looked_at = |name: &str| best.contains_key(name);
        for (name, noise) in measured(trials, &other, &looked_at, &samples, tuning)? {
            if let Some(known) = best.get_mut(&name)
                && noise < known.1 * tuning.ranging.better
            {
                *known = (way, noise);
            }
        }
    }
    let way = |name: &str| best.get(name).map_or(0, |&(way, _)| way);
    Ok(tensors.chosen(trials.prover.prepared, plan, way))
}

/// What the tensors of a plan do to the outputs, each alone, as the sum over samples.
fn measured(
    trials: &mut Trials<'_, '_, '_>,
    plan: &ExplainedPlan,
    looked_at: &dyn Fn(&str) -> bool,
    samples: &[usize],
    tuning: &Tuning,
) -> Result<Vec<(String, f64)>, TrialError> {
    let reserve = trials.reserve() + trials.last;
    let Trials { prover, court, excess, .. } = &mut *trials;
    let board = sensitivity::board(prover.prepared, plan, tuning.probing.most_bytes)?;
    let mut probe = Probe::new(prover, board, &tuning.probing)?;
    let of_tensor = |(place, switch): (usize, &Switch)| match switch {
        Switch::Tensor { tensor, .. } if looked_at(tensor) => Some((place, tensor.clone())),
        _ => None,
    };
    let switches: Vec<(usize, String)> =
        probe.switches().iter().enumerate().filter_map(of_tensor).collect();
    let settings: Vec<Setting> = switches
        .iter()
        .flat_map(|&(place, _)| {
            samples.iter().map(move |&sample| Setting { on: vec![place], strength: 1.0, sample })
        })
        .collect();
    let budget = court.budget.holding_back(reserve);
    let parities = probe.run(prover, &settings, &budget, court.progress)?;
    let noise = parities.chunks(samples.len().max(1)).map(|own| {
        own.iter().map(|parity| excess.of(parity).min(tuning.ranging.loudest)).sum::<f64>()
    });
    Ok(switches.into_iter().map(|(_, name)| name).zip(noise).collect())
}
