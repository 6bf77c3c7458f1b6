//! The weights that a plan changes, each with all layers that read it.

use indexmap::IndexMap;
use modelopt_graph::{Model, ValueId};

use crate::eligibility::Candidate;
use crate::forms::{Scheme, SharedWeight, Use};
use crate::layers::Layer;

/// The weights that schemes change, in model order, with all layers that read them so.
pub(crate) fn shared_weights<'a>(
    model: &Model,
    candidates: &'a [Candidate],
    scheme_of: impl Fn(&str) -> Scheme,
) -> IndexMap<ValueId, SharedWeight<'a>> {
    let mut shared: IndexMap<ValueId, SharedWeight<'a>> = IndexMap::new();
    for candidate in candidates {
        let scheme = scheme_of(&candidate.layer.name);
        for weight in candidate.weights(scheme) {
            let Some(home) = model.home(weight.value) else { continue };
            let own = shared.entry(weight.value).or_insert_with(|| SharedWeight {
                tensor: weight.tensor.clone(),
                elem: weight.elem,
                home,
                uses: Vec::new(),
            });
            let Layer { node, name, .. } = &candidate.layer;
            own.uses.push(Use { node: *node, name, weight, form: scheme.form() });
        }
    }
    shared
}
