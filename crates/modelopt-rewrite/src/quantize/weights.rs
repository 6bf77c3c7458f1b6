//! `int8-weights`: stored as int8, computed in float.
//!
//! ```text
//! initializer W: float[..]
//!   =>
//! initializer W_int8: int8[..], W_scale: float[broadcastable]
//! W = Mul(Cast<to = float>(W_int8), W_scale)
//! ```
//!
//! `W` keeps its name, so nothing that reads it changes, in any graph. Runtimes fold the two
//! nodes when they load the model; `DequantizeLinear` would keep some from using their fast
//! layout, and cannot be per-channel below opset 13. A float16, bfloat16 or double weight is
//! computed in float and cast at the end.

use modelopt_graph::{DataType, Model, Operand, Patch, Place, ValueId};

use super::Stored;

pub(super) fn rewrite(model: &mut Model, weight: ValueId, stored: &Stored, dtype: DataType) {
    let name = model.value(weight).name().to_owned();
    let mut patch = Patch::new();
    let place = if let Some(constant) = model.producer_node(weight) {
        // Preparation was told to leave constants in their nodes.
        patch.remove(constant);
        Place::Before(constant)
    } else {
        patch.free(weight);
        Place::Front(stored.home)
    };
    dequantize(
        &mut patch,
        place,
        &name,
        [stored.values.into(), stored.scales.into()],
        dtype,
        weight,
    );
    model.apply(patch);
}

/// `output = Mul(Cast<to = float>(values), scales)`, cast to `dtype` where that is not float.
pub(super) fn dequantize(
    patch: &mut Patch,
    place: Place,
    name: &str,
    [values, scales]: [Operand; 2],
    dtype: DataType,
    output: ValueId,
) {
    let to = |dtype: DataType| [("to", i64::from(dtype.number()).into())];
    let cast = patch.node(place, "Cast", format!("{name}_float"), &[values], &to(DataType::FLOAT));
    let name_mul = format!("{name}_mul");
    if dtype == DataType::FLOAT {
        patch.node_into(place, "Mul", name_mul, &[cast, scales], &[], output);
    } else {
        let product = patch.node(place, "Mul", name_mul, &[cast, scales], &[]);
        patch.node_into(place, "Cast", format!("{name}_cast"), &[product], &to(dtype), output);
    }
}
