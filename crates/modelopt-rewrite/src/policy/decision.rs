//! What is done to one layer by default: the first form of its ladder that is possible and pays.

use modelopt_graph::Model;

use super::options::{MeasuredLayer, PlanOptions};
use crate::eligibility::Candidate;
use crate::forms::{Considered, Objection, Scheme};

/// What is done to a layer, and why.
pub(super) struct Decision {
    pub(super) scheme: Scheme,
    pub(super) reason: String,
}

/// The schemes to try, the first that is possible and pays.
pub(super) fn rungs(options: &PlanOptions) -> Vec<Scheme> {
    options.scheme.map_or_else(Scheme::default_ladder, Scheme::rungs)
}

pub(super) fn default_decision(
    model: &Model,
    candidate: &Candidate,
    options: &PlanOptions,
) -> Decision {
    if options.scheme.is_some_and(Scheme::is_keep) {
        return Decision { scheme: Scheme::default(), reason: "as asked".to_owned() };
    }
    first_of(&rungs(options), model, candidate, options)
}

/// The first of some schemes that is possible and pays.
pub(super) fn first_of(
    rungs: &[Scheme],
    model: &Model,
    candidate: &Candidate,
    options: &PlanOptions,
) -> Decision {
    let layer = &candidate.layer;
    let objection = |scheme: Scheme| {
        let (eligible, asked) = (candidate.places(scheme), options.scheme == Some(scheme));
        let considered = Considered { model, layer, eligible, asked };
        scheme.form().objection(&considered, &options.target)
    };
    let is_wrong = |&scheme: &Scheme| matches!(objection(scheme), Some(Objection::Wrong(_)));
    if let (None, Some(measured)) = (options.scheme, options.measured.get(&candidate.layer.id))
        && !rungs.iter().any(is_wrong)
        && let Some(decision) = measured.decision(candidate, rungs)
    {
        return decision;
    }
    let mut reasons: Vec<String> = Vec::new();
    // Why nothing is possible is told only where nothing else is to be said.
    let mut impossible = String::new();
    for &scheme in rungs {
        if scheme.needs_ranges() && options.observed.is_empty() {
            if options.scheme == Some(scheme) {
                reasons.push("no ranges of tensors are known".to_owned());
            }
            continue;
        }
        match (candidate.possible(scheme), objection(scheme)) {
            (Ok(()), None) if reasons.is_empty() => {
                let reason = scheme.form().reason(model.node(layer.node));
                return Decision { scheme, reason: reason.to_owned() };
            }
            (Ok(()), None) => return Decision { scheme, reason: reasons.join("; ") },
            (Ok(()), Some(Objection::DoesNotPay)) => {
                let (op, place) = (&model.node(layer.node).op.name, options.target.place());
                reasons.push(format!("{scheme} does not pay for {op}{place}"));
            }
            (Ok(()), Some(Objection::Slow(why) | Objection::Wrong(why))) => reasons.push(why),
            (Err(why), None) if !reasons.contains(&why) => reasons.push(why),
            (Err(_), None) => {}
            (Err(why), Some(_)) => impossible = why,
        }
    }
    // The last step's reason is why nothing at all is done.
    let reason = reasons.pop().unwrap_or(impossible);
    Decision { scheme: Scheme::default(), reason }
}

/// A scheme must be faster than another by this much to be chosen for its speed; below it, the
/// smaller file counts.
const NOTICEABLE: f64 = 0.97;

impl MeasuredLayer {
    /// The fastest scheme of those that are possible: where activations are quantized it must be
    /// noticeably faster than without, where weights are only stored not noticeably slower.
    fn decision(&self, candidate: &Candidate, rungs: &[Scheme]) -> Option<Decision> {
        let ratio = |scheme: Scheme| {
            let found = self.ratios.iter().find(|(measured, _)| *measured == scheme);
            found.filter(|_| candidate.possible(scheme).is_ok()).map(|&(_, ratio)| ratio)
        };
        let (mut best, mut time) = (Scheme::default(), 1.0f64);
        for &scheme in rungs.iter().rev() {
            let Some(ratio) = ratio(scheme) else { continue };
            let chosen = if scheme.quantizes_activations() {
                ratio < NOTICEABLE * time.min(1.0)
            } else {
                ratio * NOTICEABLE <= 1.0
            };
            if chosen {
                (best, time) = (scheme, ratio);
            }
        }
        let figures = self.ratios.iter().map(|(scheme, ratio)| format!("{scheme} {ratio:.2}x"));
        let figures = figures.collect::<Vec<_>>().join(", ");
        (!self.ratios.is_empty()).then(|| Decision {
            scheme: best,
            reason: format!("measured on {}: {figures} of float32's time", self.place),
        })
    }
}
