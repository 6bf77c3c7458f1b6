//! A layer as forms look at it, and what all forms ask of its weights.

use std::cell::OnceCell;

use modelopt_graph::Model;

use crate::layers::{self, Layer, WeightUse};

/// A layer that is looked at.
pub(crate) struct Site<'a> {
    pub(crate) model: &'a Model,
    pub(crate) layer: &'a Layer,
    /// Weights smaller than this are left alone, in bytes.
    pub(crate) min_weight_bytes: usize,
    /// What rounding to 16 bits must leave, in dB.
    pub(crate) min_rounding_sqnr_db: f64,
    /// The weights that can be stored as int8, which several forms ask for.
    pub(crate) int8: OnceCell<Result<Vec<usize>, String>>,
}

/// Which weights of a layer can be stored in another type, or why none can.
pub(crate) fn storable(
    site: &Site<'_>,
    fits: impl Fn(&WeightUse) -> Result<(), String>,
) -> Result<Vec<usize>, String> {
    let &Site { model, layer, .. } = site;
    if layers::is_quantized_operator(model, layer.node) {
        return Err("already quantized".to_owned());
    }
    let mut first_reason = None;
    let mut places = Vec::new();
    // The largest weight's reason is the one to tell.
    let mut order: Vec<usize> = (0..layer.weights.len()).collect();
    order.sort_by_key(|&place| std::cmp::Reverse(layer.weights[place].tensor.byte_len()));
    for place in order {
        let weight = &layer.weights[place];
        match replaceable(site, weight).and_then(|()| fits(weight)) {
            Ok(()) => places.push(place),
            Err(reason) => {
                first_reason.get_or_insert(reason);
            }
        }
    }
    places.sort_unstable();
    if places.is_empty() {
        let sparse = !layers::sparse_weights(model, layer.node).is_empty();
        let otherwise =
            if sparse { "sparse: it is stored small already" } else { "already quantized" };
        Err(first_reason.unwrap_or_else(|| otherwise.to_owned()))
    } else {
        Ok(places)
    }
}

/// Whether a weight can be replaced by something computed, and is worth it.
fn replaceable(site: &Site<'_>, weight: &WeightUse) -> Result<(), String> {
    let &Site { model, layer, min_weight_bytes: min, .. } = site;
    if layers::is_overridable(model, weight.value) {
        return Err(format!(
            "'{}' is an input with a default, which callers may override",
            model.value(weight.value).name()
        ));
    }
    if layers::is_returned(model, weight.value) {
        return Err("the weight is also an output of the graph".to_owned());
    }
    if let Some(reason) = layers::refuses_computed(model, layer.node) {
        return Err(reason.to_owned());
    }
    let size = weight.tensor.byte_len();
    if size < min { Err(format!("{size} bytes: below the threshold of {min}")) } else { Ok(()) }
}
