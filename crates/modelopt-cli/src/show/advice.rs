//! What to try after a refusal: only what was seen to help, or what cannot but help.

use modelopt::Outcome;
use modelopt::rewrite::Scheme;

/// Below this a limit proves nothing, in dB.
const LEAST_USEFUL_DB: f64 = 10.0;

/// After a verdict that failed on parity.
pub(super) fn for_parity(outcome: &Outcome) -> Option<String> {
    if outcome.search_end.is_some() {
        // The verdict is the last trial of a search.
        let best = outcome.trials.last().and_then(|trial| trial.sqnr_db)?;
        let useful = best.is_finite() && best - 0.05 >= LEAST_USEFUL_DB && best < least(outcome)?;
        return useful.then(|| format!("--min-sqnr {:.1}, which the best plan meets", best - 0.05));
    }
    let worst = outcome.culprits.first()?;
    let scheme = worst.scheme.parse::<Scheme>().ok();
    let gentler = scheme.and_then(gentler).map(|scheme| format!("--to {scheme}"));
    let first = worst.layers.first()?;
    // What is below the limit by itself has to go, whatever else does.
    let alone = worst.sqnr_db < least(outcome)?;
    match (alone, gentler) {
        (true, Some(gentler)) => Some(format!("--exclude '{first}', or {gentler}")),
        (true, None) => Some(format!(
            "--exclude '{first}', which is below the limit by itself; or no --scheme and no \
             --plan, so that a search finds what to leave"
        )),
        (false, Some(gentler)) => Some(gentler),
        (false, None) => Some(
            "no --scheme and no --plan, so that a search finds what to leave: no layer is below \
             the limit by itself"
                .to_owned(),
        ),
    }
}

/// The highest limit of SQNR that failed, in dB.
fn least(outcome: &Outcome) -> Option<f64> {
    let checks = outcome.verdict.iter().flat_map(modelopt::validate::Verdict::failures);
    checks.filter(|check| check.name == "sqnr").map(|check| check.limit).max_by(f64::total_cmp)
}

/// After a verdict that failed on latency.
pub(super) fn for_latency(outcome: &Outcome) -> Option<String> {
    match outcome.plan.layers.iter().find_map(|layer| gentler(layer.scheme)) {
        Some(gentler) => Some(format!("--to {gentler}, which costs no time")),
        // A search has tried what there is.
        None if outcome.search_end.is_some() => None,
        None => Some("no --scheme and no --plan, so that a search moves what is slow".to_owned()),
    }
}

/// What only stores weights in the type that a scheme computes in.
fn gentler(scheme: Scheme) -> Option<Scheme> {
    scheme.computes_in().and_then(|_| scheme.down())
}
