//! A model with a newer operator set: raised, held against the original, and put in its place.

use std::path::Path;

use modelopt_graph::Model;
use modelopt_onnx::{self as onnx, SaveOptions, Staged};
use modelopt_rewrite::upgrade::{Upgraded, upgrade as raise};
use modelopt_runtime::RuntimeKind;

use crate::budget::Stop;
use crate::compare::{Compared, compare_until};
use crate::config::{Config, Enforcement};
use crate::error::Error;
use crate::{Progress, Step};

/// What came of an upgrade.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UpgradeOutcome {
    /// What was done to the model.
    pub upgraded: Upgraded,
    /// How original and result compare; none where nothing changed or nothing was to be run.
    pub compared: Option<Compared>,
    /// Whether the output was written. Not where it is the input already, or failed.
    pub emitted: bool,
    /// Whether the result failed the limits and was kept back.
    pub refused: bool,
}

/// The operator set that a model is brought to where nobody says another: the newest that the runtime
/// with the most operators runs the model with, and not less than the model's own.
pub fn default_opset(model: &Model) -> i64 {
    let own = model.opset(model.main(), "").unwrap_or(0);
    RuntimeKind::broadest().map_or(own, |runtime| runtime.newest_opset_for(model)).max(own)
}

/// Brings the model at `input` to an operator set, runs both, and writes it to `output` if they agree or
/// the settings say so. `output` is untouched otherwise, and replaced atomically.
///
/// Where nothing is to be done, `output` becomes a copy of the model, unless it is the model itself.
pub fn upgrade(
    input: &Path,
    output: &Path,
    opset: Option<i64>,
    config: &Config,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<UpgradeOutcome, Error> {
    config.check()?;
    progress(Progress::Step(Step::Loading));
    let mut model = onnx::load(input)?;
    let to = opset.unwrap_or_else(|| default_opset(&model));
    let upgraded = raise(&mut model, to)?;
    let mut outcome = UpgradeOutcome { upgraded, compared: None, emitted: false, refused: false };
    if !outcome.upgraded.changed && is_same_file(input, output) {
        return Ok(outcome);
    }
    progress(Progress::Step(Step::WritingCandidate));
    let options = SaveOptions { external_data: config.external_data };
    let staged = Staged::write(&model, output, options)?;
    drop(model);
    if outcome.upgraded.changed && config.enforcement != Enforcement::None {
        let compared = compare_until(input, staged.path(), config, stop, progress)?;
        outcome.refused = !compared.verdict.pass && config.enforcement == Enforcement::Gate;
        outcome.compared = Some(compared);
    }
    if !outcome.refused && !stop.is_stopped() {
        progress(Progress::Step(Step::Emitting));
        staged.commit()?;
        outcome.emitted = true;
    }
    Ok(outcome)
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::canonicalize(a), std::fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
