//! The weights that a plan changes, each with all layers that read it.

use indexmap::IndexMap;
use modelopt_graph::{Model, ValueId};

use crate::choices::Numerics;
use crate::eligibility::Candidate;
use crate::forms::{Scheme, SharedWeight, Use};
use crate::layers::Layer;

/// The weights that schemes change, in model order, with all layers that read them so.
pub(crate) fn shared_weights<'a>(
    model: &Model,
    candidates: &'a [Candidate],
    decided: impl Fn(&str) -> (Scheme, Numerics),
) -> IndexMap<ValueId, SharedWeight<'a>> {
    let mut shared: IndexMap<ValueId, SharedWeight<'a>> = IndexMap::new();
    for candidate in candidates {
        let (scheme, numerics) = decided(&candidate.layer.id);
        for weight in candidate.weights(scheme) {
            let Some(home) = model.home(weight.value) else { continue };
            let own = shared.entry(weight.value).or_insert_with(|| SharedWeight {
                tensor: weight.tensor.clone(),
                elem: weight.elem,
                home,
                numerics,
                uses: Vec::new(),
            });
            let Layer { node, id, .. } = &candidate.layer;
            own.uses.push(Use { node: *node, id, weight, form: scheme.form() });
        }
    }
    shared
}
