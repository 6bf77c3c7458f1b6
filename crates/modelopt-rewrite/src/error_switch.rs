//! A switch of an error in a model under switches: see [`crate::switchboard`].

use std::sync::Arc;

use modelopt_graph::{Model, Operand, Patch, Place, Tensor, ValueId};

/// One element of the settings, as a scalar. Nodes that read it come later in the same patch: it
/// stands before all that are at the front of the graph already.
pub(crate) fn switch(
    model: &Model,
    patch: &mut Patch,
    (settings, index): (ValueId, usize),
) -> Operand {
    let main = model.main();
    let place = patch.constant(main, "switch_index", Arc::new(Tensor::scalar(index as i64)));
    patch.node(Place::Front(main), "Gather", "switch", &[settings.into(), place], &[])
}
