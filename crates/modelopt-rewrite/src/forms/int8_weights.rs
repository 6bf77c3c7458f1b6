//! `int8-weights`: stored as int8, computed in float.
//!
//! ```text
//! initializer W: float[..]
//!   =>
//! initializer W_int8: int8[..], W_scale: float[broadcastable]
//! W = Mul(Cast<to = float>(W_int8), W_scale)
//! ```
//!
//! with a second `Mul` where filters have scales per input channel, too.
//!
//! `W` keeps its name, so nothing that reads it changes, in any graph. Runtimes fold the two
//! nodes when they load the model; `DequantizeLinear` would keep some from using their fast
//! layout, and cannot be per-channel below opset 13. A float16, bfloat16 or double weight is
//! computed in float and cast at the end.

mod table;

use modelopt_graph::{DataType, Model, ValueId};

use super::emission::{Emission, Emitted, SharedWeight, Use};
use super::form::{Activations, Considered, Form, Ladder, Objection, Sides, Storage};
use super::int8;
use crate::layers::Role;
use crate::policy::Capabilities;
use crate::quantize::{Channels, Granularity, Recipe};
use crate::site::Site;

/// Stored as int8, computed in float.
#[derive(Debug)]
pub(super) struct Int8Weights;

impl Form for Int8Weights {
    fn about(&self) -> &'static str {
        "stored small, computed in float"
    }

    fn sides(&self) -> Sides {
        Sides { weights: Storage::INT8, activations: Activations::Unchanged, computes: None }
    }

    fn ladders(&self) -> &'static [Ladder] {
        &[Ladder::Int8]
    }

    fn eligible(&self, site: &Site<'_>) -> Result<Vec<usize>, String> {
        int8::eligible(site)
    }

    fn objection(&self, at: &Considered<'_>, target: &Capabilities) -> Option<Objection> {
        let mut weights = at.layer.weights.iter();
        weights
            .find_map(|weight| target.refuses_stored(at.model, at.layer.node, weight.value))
            .filter(|_| !at.asked)
            .map(|why| Objection::Slow(why.to_owned()))
    }

    fn recipe(&self, weight: &SharedWeight<'_>) -> Option<Recipe> {
        let numerics = weight.numerics;
        let (shape, limit) = (weight.tensor.shape(), numerics.limit());
        if numerics.granularity == Granularity::PerTensor {
            return Some(Recipe::best_of(shape, vec![Channels::whole(shape)], limit));
        }
        if let Some(channels) = weight.channels() {
            let filters = weight.roles().all(|role| role == Role::ConvFilters);
            return Some(if filters {
                Recipe::filters(shape, channels, limit)
            } else {
                Recipe::best_of(shape, vec![channels], limit)
            });
        }
        let gathered = weight.roles().find_map(|role| match role {
            Role::GatherTable { axis } => Some(axis),
            _ => None,
        });
        let choices = gathered.map_or_else(|| any_axis(shape), |axis| table::channels(shape, axis));
        Some(Recipe::best_of(shape, choices, limit))
    }

    fn rewrite(
        &self,
        model: &mut Model,
        layer: &Use<'_>,
        stored: &Emitted,
        emission: &Emission<'_>,
    ) {
        if let Role::GatherTable { axis } = layer.weight.role
            && !emission.is_at_load(layer.id)
        {
            table::rewrite(model, layer.node, axis, stored, layer.weight.elem);
        }
    }

    fn restore(&self, model: &mut Model, weight: ValueId, stored: &Emitted, elem: DataType) {
        int8::restore(model, weight, stored, elem);
    }

    fn has_at_load(&self, op: &str) -> bool {
        op == "Gather"
    }
}

/// For a weight whose use does not say where its channels are: any axis whose scales would take
/// at most an eighth of the values, or none.
fn any_axis(shape: &[usize]) -> Vec<Channels> {
    let count: usize = shape.iter().product();
    let mut choices = vec![Channels::whole(shape)];
    for (axis, &dim) in shape.iter().enumerate() {
        if dim > 1 && dim * 32 <= count {
            choices.push(Channels::along(shape, axis, 0));
        }
    }
    choices
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Tensor;

    use super::*;
    use crate::Scheme;
    use crate::testing::{Build, float, noise, options};

    #[test]
    fn a_convolution_reads_the_same_value_computed() {
        let mut b = Build::new(7);
        let x = b.input("x", float(&[1, 8, 4, 4]));
        let w = b.weight("W", &[16, 8, 3, 3], &noise(1152, 1));
        let y = b.node("Conv", &[x, w], &[]);
        b.output(y, float(&[1, 16, 2, 2]));
        b.quantized(&options(Scheme::INT8_WEIGHTS));
        assert_eq!(b.ops(), ["Cast", "Mul", "Mul", "Conv"]);
        assert_eq!(b.maker(y).input(1), Some(w));
        assert_eq!(b.model.value(w).name(), "W");
        let factors = b.model.constant(b.maker(w).input(1).unwrap()).unwrap();
        assert_eq!(factors.shape(), [1, 8, 1, 1]);
        let inner = b.maker(b.maker(w).input(0).unwrap());
        let scales = b.model.constant(inner.input(1).unwrap()).unwrap();
        assert_eq!(scales.shape(), [16, 1, 1, 1]);
        let cast = b.maker(inner.input(0).unwrap());
        let stored = b.model.constant(cast.input(0).unwrap()).unwrap();
        assert_eq!((stored.dtype(), stored.shape()), (DataType::INT8, [16, 8, 3, 3].as_slice()));
    }

    #[test]
    fn one_weight_in_two_branches_is_stored_once() {
        let mut b = Build::new(17);
        b.branches("MatMul");
        b.quantized(&options(Scheme::INT8_WEIGHTS));
        assert_eq!(b.ops(), ["Cast", "Mul", "If", "MatMul", "MatMul"]);
        assert_eq!(b.model.initializers_of(b.model.main()).len(), 2);
    }

    #[test]
    fn a_weight_of_one_branch_is_computed_there() {
        let mut b = Build::new(17);
        b.branches("Relu");
        b.quantized(&options(Scheme::INT8_WEIGHTS));
        assert_eq!(b.ops(), ["If", "Cast", "Mul", "MatMul", "Relu"]);
        assert_eq!(b.model.initializers_of(b.model.main()).len(), 2);
    }

    #[test]
    fn half_precision_weights_are_cast_back() {
        let mut b = Build::new(17);
        let half: Vec<half::f16> = noise(1024, 3).into_iter().map(half::f16::from_f32).collect();
        let ty = modelopt_graph::Type::tensor(DataType::FLOAT16);
        let x = b.input("x", ty.clone());
        let w = b.model.add_value("W");
        let tensor = Tensor::of(vec![32, 32], &half).unwrap();
        let constant = modelopt_graph::Constant::Dense(tensor.into());
        b.model.set_constant(b.model.main(), w, constant);
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, ty);
        b.quantized(&options(Scheme::INT8_WEIGHTS));
        assert_eq!(b.ops(), ["Cast", "Mul", "Cast", "MatMul"]);
        assert_eq!(b.maker(w).int("to", 0), i64::from(DataType::FLOAT16.number()));
    }

    #[test]
    fn a_weight_that_is_an_output_stays() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let w = b.weight("W", &[32, 32], &noise(1024, 4));
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, float(&[4, 32]));
        b.output(w, float(&[32, 32]));
        let plan = b.quantized(&options(Scheme::INT8_DYNAMIC));
        assert_eq!(b.ops(), ["MatMul"]);
        assert_eq!(plan.why(0).reason, "the weight is also an output of the graph");
    }
}
