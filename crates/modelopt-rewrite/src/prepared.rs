//! The prepared model that all plans of a run are made for.

use std::ops::Deref;

use modelopt_graph::{DataType, Model, Tensor};

use crate::apply::{self, QuantizedWeight};
use crate::engine::BrokenRewrite;
use crate::error_injection::{self, Switchboard};
use crate::forms::Scheme;
use crate::layer_models::Isolated;
use crate::layers;
use crate::memo::{Memo, Quantizations};
use crate::plan::{Numerics, Plan};
use crate::refine::{self, Improvements};
use crate::sensitivity::{self, LayerNoise};
use crate::statistics::Seen;

/// In how many ways each weight is kept once it was quantized: as it is and smoothed, or as the
/// filters of a convolution that computes in integers and in float.
const WAYS: usize = 2;

/// A model after preparation, and what its weights became when they were quantized.
///
/// Trials, probes and the final model take quantized weights from here, so that no weight is quantized
/// twice in the same way. It can be shared by threads. Besides the model it holds no more than two int8
/// copies of all weights.
#[derive(Debug)]
pub struct Prepared {
    model: Model,
    memo: Memo,
}

impl Prepared {
    /// A model that [`prepare`](crate::prepare) was applied to.
    pub fn new(model: Model) -> Self {
        let mut weights: Vec<_> = layers::find(&model, 0)
            .into_iter()
            .flat_map(|layer| layer.weights)
            .filter(|weight| weight.elem == DataType::FLOAT)
            .map(|weight| (weight.value, int8_bytes(&weight.tensor)))
            .collect();
        weights.sort_unstable();
        weights.dedup();
        let memo = Memo::keeping(WAYS * weights.iter().map(|(_, bytes)| bytes).sum::<usize>());
        Prepared { model, memo }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What a plan makes of the model, and of each weight, in model order: see [`crate::apply`].
    pub fn apply(&self, plan: &Plan) -> Result<(Model, Vec<QuantizedWeight>), BrokenRewrite> {
        let mut model = self.model.clone();
        let weights = apply::apply_with(&mut model, plan, &self.memo)?;
        Ok((model, weights))
    }

    /// The model with every int8 layer of a plan under switches: see [`crate::switchboard`].
    pub fn switchboard(&self, plan: &Plan) -> Result<Switchboard, BrokenRewrite> {
        error_injection::switchboard_with(&self.model, plan, &self.memo)
    }

    /// What int8 and float16 cost each int8 layer of a plan: see [`crate::sensitivity`].
    pub fn sensitivity(&self, plan: &Plan, seen: &Seen) -> Vec<LayerNoise> {
        sensitivity::sensitivity_with(&self.model, plan, seen, &self.memo)
    }

    /// Gives a plan what makes it more precise at no cost: see [`crate::improve`].
    pub fn improve(&self, plan: &mut Plan, seen: &Seen, wanted: Improvements) {
        refine::improve_with(&self.model, plan, seen, wanted, &self.memo);
    }

    /// One of its layers as a model of its own in another scheme: see [`Isolated::with`].
    pub fn isolated(&self, layer: &Isolated, scheme: Scheme, numerics: Numerics) -> Option<Model> {
        layer.with_memo(scheme, numerics, &self.memo)
    }

    /// How often weights were quantized so far.
    pub fn quantizations(&self) -> Quantizations {
        self.memo.quantizations()
    }
}

/// What an int8 copy of a weight takes at most, as a rule: its values, and float32 scales along two axes.
fn int8_bytes(weight: &Tensor) -> usize {
    weight.len() + 2 * size_of::<f32>() * weight.shape().iter().sum::<usize>()
}

impl Deref for Prepared {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{Model, infer};

    use super::*;
    use crate::ExplainedPlan;
    use crate::testing::{Build, float, noise, options, rows_seen};

    /// Two products and a convolution.
    fn model() -> Model {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[1, 8, 8, 16]));
        let filters = b.weight("F", &[8, 8, 3, 3], &noise(576, 1));
        let pads = ("pads", vec![1i64, 1, 1, 1].into());
        let c = b.node("Conv", &[x, filters], &[pads]);
        let [v, w] = [2, 3].map(|seed| b.weight(&format!("W{seed}"), &[16, 16], &noise(256, seed)));
        let h = b.node("MatMul", &[c, v], &[]);
        let y = b.node("MatMul", &[h, w], &[]);
        b.output(y, float(&[1, 8, 8, 16]));
        infer::infer(&mut b.model);
        b.model
    }

    fn plan(model: &Model, scheme: Scheme) -> ExplainedPlan {
        crate::plan(model, &options(scheme)).unwrap()
    }

    fn made(prepared: &Prepared) -> usize {
        prepared.quantizations().made
    }

    fn weights(model: &Model) -> Vec<(String, std::sync::Arc<modelopt_graph::Tensor>)> {
        let of = |value| Some((model.value(value).name().to_owned(), model.constant(value)?));
        model.values().filter_map(of).collect()
    }

    #[test]
    fn a_second_apply_of_the_same_plan_quantizes_nothing() {
        let prepared = Prepared::new(model());
        for scheme in [Scheme::INT8_WEIGHTS, Scheme::INT8_DYNAMIC] {
            let plan = plan(&prepared, scheme);
            let (first, results) = prepared.apply(&plan).unwrap();
            let before = made(&prepared);
            assert!(before >= 3);
            let (second, again) = prepared.apply(&plan).unwrap();
            assert_eq!(made(&prepared), before);
            assert_eq!(results, again);
            assert_eq!(weights(&first), weights(&second));
            // As if there were no memo.
            let mut plain = model();
            assert_eq!(crate::apply(&mut plain, &plan).unwrap(), results);
            assert_eq!(weights(&plain), weights(&first));
        }
    }

    #[test]
    fn switches_layers_sensitivity_and_refinement_take_what_trials_made() {
        let prepared = Prepared::new(model());
        let plan = plan(&prepared, Scheme::INT8_DYNAMIC);
        prepared.apply(&plan).unwrap();
        let before = made(&prepared);
        prepared.switchboard(&plan).unwrap();
        let (alone, _) = crate::isolate(&prepared, &[]);
        for layer in &alone {
            let line = plan.layers.iter().find(|line| line.id == layer.name).unwrap();
            let of_memo = prepared.isolated(layer, line.scheme, plan.numerics).unwrap();
            let plain = layer.with(line.scheme, plan.numerics).unwrap();
            assert_eq!(weights(&of_memo), weights(&plain));
        }
        assert!(alone.len() >= 2);
        let seen = Seen::default();
        assert_eq!(prepared.sensitivity(&plan, &seen), crate::sensitivity(&model(), &plan, &seen));
        let wanted = Improvements { smoothing: true, bias_correction: true };
        let mut improved = plan.clone();
        prepared.improve(&mut improved, &seen, wanted);
        assert_eq!(improved, plan);
        assert_eq!(made(&prepared), before);
        assert!(prepared.quantizations().answered > 0);
    }

    #[test]
    fn smoothed_weights_are_quantized_once_more_and_then_known() {
        let prepared = Prepared::new(model());
        let mut plan = plan(&prepared, Scheme::INT8_DYNAMIC);
        prepared.apply(&plan).unwrap();
        let before = made(&prepared);
        let product = plan.lines().position(|(_, why)| why.op == "MatMul").unwrap();
        plan.layers[product].smoothing = (1..=16u8).map(f32::from).collect();
        let plan = crate::plan_from(&prepared, &plan).unwrap();
        prepared.apply(&plan).unwrap();
        assert_eq!(made(&prepared), before + 1);
        prepared.apply(&plan).unwrap();
        assert_eq!(made(&prepared), before + 1);
    }

    #[test]
    fn threads_share_it() {
        let prepared = Prepared::new(model());
        let plan = plan(&prepared, Scheme::INT8_WEIGHTS);
        let expected = prepared.apply(&plan).unwrap().1;
        let before = made(&prepared);
        std::thread::scope(|scope| {
            let runs = [(); 4].map(|()| scope.spawn(|| prepared.apply(&plan).unwrap().1));
            for run in runs {
                assert_eq!(run.join().unwrap(), expected);
            }
        });
        assert_eq!(made(&prepared), before);
    }

    #[test]
    fn refinement_by_what_was_seen_is_the_same() {
        let prepared = Prepared::new(model());
        let plan = plan(&prepared, Scheme::INT8_DYNAMIC);
        let watched = crate::watched(&prepared, &plan);
        let rows: Vec<f32> = noise(64 * 16, 9)
            .iter()
            .zip(0..)
            .map(|(x, at)| if at % 16 == 3 { x * 50.0 } else { x + 0.5 })
            .collect();
        let seen = Seen::new(watched.into_iter().map(|watched| (watched, rows_seen(&rows, 16))));
        let wanted = Improvements { smoothing: true, bias_correction: true };
        let [mut improved, mut plainly] = [plan.clone(), plan.clone()];
        prepared.improve(&mut improved, &seen, wanted);
        assert_ne!(improved, plan);
        crate::improve(&model(), &mut plainly, &seen, wanted);
        assert_eq!(improved, plainly);
    }
}
