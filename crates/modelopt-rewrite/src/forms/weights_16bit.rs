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

use modelopt_graph::{DataType, Model, Patch, ValueId};

use super::emission::{self, Emitted, SharedWeight};
use super::form::{Activations, Form, Ladder, Sides, Storage};
use crate::choices::Precision;
use crate::layers::WeightUse;
use crate::precision;
use crate::quantize::Recipe;
use crate::site::{Site, storable};

/// What the node and initializer add to the file, roughly.
const CAST_BYTES: usize = 100;

/// Stored in a 16-bit type.
#[derive(Debug)]
pub(super) struct StoredIn(pub(super) Precision);

impl StoredIn {
    fn fits(&self, site: &Site<'_>, weight: &WeightUse) -> Result<(), String> {
        let tensor = &weight.tensor;
        if tensor.dtype() != DataType::FLOAT {
            return Err(format!("it is {} already", tensor.dtype()));
        }
        precision::available(site.model, self.0)?;
        if tensor.byte_len() / 2 < CAST_BYTES {
            return Err("16 bits and a cast would save nothing".to_owned());
        }
        let rounding = precision::of_tensor(tensor, self.0).ok_or("not of a float type")?;
        match rounding.objection(self.0, site.min_rounding_sqnr_db) {
            Some(why) => Err(format!("the weight {why}")),
            None => Ok(()),
        }
    }
}

impl Form for StoredIn {
    fn about(&self) -> &'static str {
        match self.0 {
            Precision::Fp16 => "stored as float16, computed in float",
            Precision::Bf16 => "stored as bfloat16, computed in float",
        }
    }

    fn sides(&self) -> Sides {
        Sides { weights: Storage::of(self.0), activations: Activations::Unchanged, computes: None }
    }

    fn ladders(&self) -> &'static [Ladder] {
        match self.0 {
            Precision::Fp16 => &[Ladder::Sixteen(Precision::Fp16), Ladder::Int8],
            Precision::Bf16 => &[Ladder::Sixteen(Precision::Bf16)],
        }
    }

    fn eligible(&self, site: &Site<'_>) -> Result<Vec<usize>, String> {
        storable(site, |weight| self.fits(site, weight))
    }

    fn recipe(&self, _weight: &SharedWeight<'_>) -> Option<Recipe> {
        Some(Recipe::rounded(self.0))
    }

    fn restore(&self, model: &mut Model, weight: ValueId, stored: &Emitted, _elem: DataType) {
        let name = model.value(weight).name().to_owned();
        let mut patch = Patch::new();
        let place = emission::take_over(model, &mut patch, weight, stored.home);
        let to_float = [("to", i64::from(DataType::FLOAT.number()).into())];
        let cast = format!("{name}_cast");
        patch.node_into(place, "Cast", cast, &[stored.values.into()], &to_float, weight);
        model.apply(patch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scheme;
    use crate::testing::{Build, float, noise, options};

    fn product(scheme: Scheme, weights: &[f32]) -> (Build, crate::ExplainedPlan) {
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
            [(Scheme::FP16_WEIGHTS, Precision::Fp16), (Scheme::BF16_WEIGHTS, Precision::Bf16)]
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
        let (b, plan) = product(Scheme::FP16_WEIGHTS, &weights);
        assert_eq!(b.ops(), ["MatMul"]);
        assert!(plan.why(0).reason.contains("beyond the 6.550e4"), "{plan:?}");
        let (b, _) = product(Scheme::BF16_WEIGHTS, &weights);
        assert_eq!(b.ops(), ["Cast", "MatMul"]);
    }

    #[test]
    fn weights_that_vanish_stay() {
        let weights: Vec<f32> = noise(1024, 1).into_iter().map(|x| x * 1e-7).collect();
        let (_, plan) = product(Scheme::FP16_WEIGHTS, &weights);
        assert!(plan.why(0).reason.contains("too small for float16"), "{plan:?}");
    }

    #[test]
    fn what_is_in_16_bits_already_stays() {
        let (mut b, _) = product(Scheme::FP16_WEIGHTS, &noise(1024, 1));
        let again = b.quantized(&options(Scheme::FP16_WEIGHTS));
        assert_eq!(b.ops(), ["Cast", "MatMul"]);
        assert_eq!(again.changed(), 0);
    }
}
