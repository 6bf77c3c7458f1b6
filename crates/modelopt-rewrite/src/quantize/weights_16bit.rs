//! `fp16-weights` and `bf16-weights`: the weight is stored in 16 bits and computed from them, and
//! whatever reads it stays as it is:
//!
//! ```text
//! initializer W
//!   =>
//! initializer W_fp16
//! W = Cast<to = float>(W_fp16)
//! ```
//!
//! Runtimes fold this when they load the model, so it costs no time.

use std::sync::Arc;

use modelopt_graph::{DataType, GraphId, Model, Patch, Tensor, ValueId};

use super::weights;
use crate::plan::Precision;

pub(super) fn rewrite(
    model: &mut Model,
    weight: ValueId,
    home: GraphId,
    tensor: &Tensor,
    to: Precision,
) {
    let Some(rounded) = tensor.rounded(to.dtype()) else { return };
    let name = model.value(weight).name().to_owned();
    let mut patch = Patch::new();
    let stored = patch.constant(home, format!("{name}_{}", to.name()), Arc::new(rounded));
    let place = weights::take_over(model, &mut patch, weight, home);
    let to_float = [("to", i64::from(DataType::FLOAT.number()).into())];
    patch.node_into(place, "Cast", format!("{name}_cast"), &[stored], &to_float, weight);
    model.apply(patch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scheme;
    use crate::testing::{Build, float, noise, options};

    fn product(scheme: Scheme, weights: &[f32]) -> (Build, crate::Plan) {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let w = b.weight("W", &[32, 32], weights);
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, float(&[4, 32]));
        let plan = b.quantized(&options(scheme));
        (b, plan)
    }

    #[test]
    fn a_product_reads_the_same_value_cast() {
        for (scheme, to) in
            [(Scheme::Fp16Weights, Precision::Fp16), (Scheme::Bf16Weights, Precision::Bf16)]
        {
            let (b, _) = product(scheme, &noise(1024, 1));
            assert_eq!(b.ops(), ["Cast", "MatMul"]);
            let main = b.model.main();
            let [stored] = *b.model.initializers_of(main) else { panic!("one initializer") };
            assert_eq!(b.model.value(stored).elem(), Some(to.dtype()));
            assert_eq!(b.model.value(stored).name(), format!("W_{}", to.name()));
        }
    }

    #[test]
    fn a_weight_beyond_the_range_stays() {
        let mut weights = noise(1024, 1);
        weights[3] = 1e5;
        let (b, plan) = product(Scheme::Fp16Weights, &weights);
        assert_eq!(b.ops(), ["MatMul"]);
        assert!(plan.layers[0].reason.contains("beyond the 6.550e4"), "{:?}", plan.layers[0]);
        let (b, _) = product(Scheme::Bf16Weights, &weights);
        assert_eq!(b.ops(), ["Cast", "MatMul"]);
    }

    #[test]
    fn weights_that_vanish_stay() {
        let weights: Vec<f32> = noise(1024, 1).into_iter().map(|x| x * 1e-7).collect();
        let (_, plan) = product(Scheme::Fp16Weights, &weights);
        assert!(plan.layers[0].reason.contains("too small for float16"), "{:?}", plan.layers[0]);
    }

    #[test]
    fn what_is_in_16_bits_already_stays() {
        let (mut b, _) = product(Scheme::Fp16Weights, &noise(1024, 1));
        let again = b.quantized(&options(Scheme::Fp16Weights));
        assert_eq!(b.ops(), ["Cast", "MatMul"]);
        assert_eq!(again.changed(), 0);
    }
}
