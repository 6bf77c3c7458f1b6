//! What storing as int8 takes from each weight of a plan.

use std::sync::Arc;

use modelopt_graph::{DataType, Model, Tensor, ValueId};
use rayon::prelude::*;

use crate::eligibility::{Look, candidates};
use crate::memo::Memo;
use crate::plan::Plan;
use crate::shared::shared_weights;

/// The difference that storing as int8 makes to each weight that a plan stores so, by value, with
/// the places in the plan of the layers that read it.
pub(crate) fn errors(model: &Model, plan: &Plan, memo: &Memo) -> Vec<WeightError> {
    let candidates = candidates(model, &Look::at(plan));
    let places = plan.places();
    let shared = shared_weights(model, &candidates, plan.decided());
    shared
        .par_iter()
        .filter_map(|(&value, weight)| {
            let int8 = weight.uses.iter().all(|layer| layer.form.sides().weights.is_int8());
            let fits = int8 && weight.elem == DataType::FLOAT;
            let rounded = fits.then(|| weight.stored(memo)).flatten()?.numbers()?;
            let numbers = weight.tensor.to_f32()?;
            let error = rounded.iter().zip(numbers.iter()).map(|(q, x)| q - x).collect();
            let readers = weight.uses.iter();
            let layers = readers.filter_map(|layer| places.get(layer.id).copied()).collect();
            let tensor = if weight.tensor.dtype() == DataType::FLOAT {
                weight.tensor.clone()
            } else {
                Arc::new(Tensor::of(weight.tensor.shape().to_vec(), &numbers).ok()?)
            };
            Some(WeightError { value, tensor, error, layers })
        })
        .collect()
}

/// What becomes of one weight.
pub(crate) struct WeightError {
    pub(crate) value: ValueId,
    pub(crate) tensor: Arc<Tensor>,
    /// Dequantized minus original.
    pub(crate) error: Vec<f32>,
    /// Places in the plan of the layers that read it.
    pub(crate) layers: Vec<usize>,
}
