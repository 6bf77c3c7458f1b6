//! `int8-weights` of an embedding table: gathered as int8, so that the table stays small while
//! the model runs, too.
//!
//! ```text
//! y = Gather(W, ids)
//!   =>
//! y = Mul(Cast<to = float>(Gather(W_int8, ids)), W_scale)                  scales per column
//! y = Mul(Cast<to = float>(Gather(W_int8, ids)), Gather(W_scale, ids))     scales per row
//! ```

use std::sync::Arc;

use modelopt_graph::{DataType, Model, NodeId, Patch, Place};

use super::{Channels, Stored, base_name, operand, weights};

/// Where the scales of a table may run: along the gathered axis, or, for a table of rows, along
/// the last axis.
pub(super) fn channels(shape: &[usize], axis: usize) -> Vec<Channels> {
    let mut choices = vec![Channels::along(shape, axis, 0)];
    if axis == 0 && shape.len() >= 2 {
        choices.push(Channels::along(shape, shape.len() - 1, 0));
    }
    choices
}

pub(super) fn rewrite(
    model: &mut Model,
    id: NodeId,
    axis: usize,
    stored: &Stored,
    dtype: DataType,
) {
    let node = model.node(id);
    let (Some(output), indices) = (node.output(0), operand(node.input(1))) else { return };
    let name = base_name(model, id);
    let gather_axis = [("axis", (axis as i64).into())];
    let before = Place::Before(id);
    let mut patch = Patch::new();
    let rows = patch.node(before, "Gather", &name, &[stored.values.into(), indices], &gather_axis);
    let shape = stored.scale_tensor.shape();
    let scales = if shape.is_empty() {
        stored.scales.into()
    } else if shape.get(axis).is_some_and(|&dim| dim > 1) {
        let inputs = [stored.scales.into(), indices];
        patch.node(before, "Gather", format!("{name}_scale"), &inputs, &gather_axis)
    } else {
        // What the gathered axis leaves; it broadcasts from the right.
        let trailing = shape.iter().skip(axis + 1).copied().collect();
        match stored.scale_tensor.reshaped(trailing) {
            Ok(scales) => patch.constant(stored.home, format!("{name}_scale"), Arc::new(scales)),
            Err(_) => return,
        }
    };
    weights::dequantize(&mut patch, before, &name, [rows, scales], dtype, output);
    patch.remove(id);
    model.apply(patch);
}
