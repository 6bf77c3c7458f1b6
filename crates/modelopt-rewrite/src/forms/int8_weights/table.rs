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

use super::super::emission::{Dequantized, Emitted, base_name, dequantize, operand};
use crate::quantize::Channels;

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
    stored: &Emitted,
    dtype: DataType,
) {
    let node = model.node(id);
    let (Some(output), Some(stored_scales)) = (node.output(0), stored.scales) else { return };
    let indices = operand(node.input(1));
    let name = base_name(model, id);
    let gather_axis = [("axis", (axis as i64).into())];
    let before = Place::Before(id);
    let mut patch = Patch::new();
    let rows = patch.node(before, "Gather", &name, &[stored.values.into(), indices], &gather_axis);
    let shape = stored.scale_tensor.shape();
    let scales = if shape.is_empty() {
        stored_scales.into()
    } else if shape.get(axis).is_some_and(|&dim| dim > 1) {
        let inputs = [stored_scales.into(), indices];
        patch.node(before, "Gather", format!("{name}_scale"), &inputs, &gather_axis)
    } else {
        // What the gathered axis leaves; it broadcasts from the right.
        let trailing = shape.iter().skip(axis + 1).copied().collect();
        match stored.scale_tensor.reshaped(trailing) {
            Ok(scales) => patch.constant(stored.home, format!("{name}_scale"), Arc::new(scales)),
            Err(_) => return,
        }
    };
    let (name, scales) = (name.as_str(), &[scales]);
    let stored = Dequantized { name, values: rows, scales, elem: dtype };
    dequantize(&mut patch, before, &stored, output);
    patch.remove(id);
    model.apply(patch);
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Type;

    use super::*;
    use crate::Scheme;
    use crate::testing::{Build, float, noise, options};

    fn embedding(table: &[f32], shape: &[usize]) -> (Build, modelopt_graph::ValueId) {
        let mut b = Build::new(13);
        let ids = b.input("ids", Type::tensor(DataType::INT64));
        let w = b.weight("table", shape, table);
        let y = b.node("Gather", &[w, ids], &[]);
        b.output(y, float(&[4, shape[1]]));
        b.quantized(&options(Scheme::INT8_WEIGHTS));
        (b, y)
    }

    #[test]
    fn rows_of_different_size_have_scales_of_their_own() {
        let mut table = noise(64 * 32, 1);
        for (index, x) in table.iter_mut().enumerate() {
            *x *= (1 + index / 32) as f32;
        }
        let (b, y) = embedding(&table, &[64, 32]);
        assert_eq!(b.ops(), ["Gather", "Gather", "Cast", "Mul"]);
        let scales = b.maker(b.maker(y).input(1).unwrap());
        assert_eq!(scales.op.name, "Gather");
        let tensor = b.model.constant(scales.input(0).unwrap()).unwrap();
        assert_eq!(tensor.shape(), [64, 1]);
    }

    #[test]
    fn columns_of_different_size_have_scales_of_their_own() {
        let mut table = noise(64 * 32, 2);
        for (index, x) in table.iter_mut().enumerate() {
            *x *= (1 + index % 32) as f32;
        }
        let (b, y) = embedding(&table, &[64, 32]);
        assert_eq!(b.ops(), ["Gather", "Cast", "Mul"]);
        let scales = b.model.constant(b.maker(y).input(1).unwrap()).unwrap();
        assert_eq!(scales.shape(), [32]);
    }

    #[test]
    fn a_table_can_be_float_once_it_is_loaded() {
        let mut b = Build::new(13);
        let ids = b.input("ids", Type::tensor(DataType::INT64));
        let w = b.weight("table", &[64, 32], &noise(64 * 32, 4));
        let y = b.node("Gather", &[w, ids], &[]);
        b.output(y, float(&[4, 32]));
        let mut plan = crate::plan(&b.model, &options(Scheme::INT8_WEIGHTS)).unwrap();
        plan.layers[0].at_load = true;
        let plan = crate::plan_from(&b.model, &plan).unwrap();
        assert!(plan.layers[0].at_load);
        assert!(crate::Plan::from_toml(&plan.to_toml()).unwrap() == *plan);
        crate::apply(&mut b.model, &plan).unwrap();
        // What is before the Gather depends on constants only.
        assert_eq!(b.ops(), ["Cast", "Mul", "Gather"]);
    }

    #[test]
    fn a_table_that_is_multiplied_too_is_stored_once() {
        let mut b = Build::new(13);
        let ids = b.input("ids", Type::tensor(DataType::INT64));
        let w = b.weight("table", &[64, 64], &noise(4096, 3));
        let x = b.node("Gather", &[w, ids], &[]);
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, float(&[4, 64]));
        b.quantized(&options(Scheme::INT8_DYNAMIC));
        let stored = b.model.initializers_of(b.model.main()).iter();
        let tensors = stored.filter_map(|&v| b.model.constant(v));
        let int8 = tensors.filter(|t| t.dtype() == DataType::INT8 && t.len() > 1).count();
        assert_eq!(int8, 1, "{:?}", b.ops());
    }
}
