//! What is done to each layer by default, or because a plan says so.

mod capabilities;
mod decision;
mod options;
mod ranges;
mod sharing;

use std::collections::{HashMap, HashSet};

use modelopt_graph::{Model, ValueId};

use crate::eligibility::{Candidate, Look, candidates};
use crate::forms::Scheme;
use crate::layers::{self, Layer};
use crate::plan::{ExplainedPlan, Explanation, Numerics, Plan, PlanError, PlannedLayer};
use crate::precision;
use crate::refine;
use crate::select;

pub use capabilities::Capabilities;
use decision::{Decision, default_decision, rungs};
pub use options::{MeasuredLayer, ObservedTensor, PlanOptions};
pub(crate) use ranges::{OnIntegers, divided, elements, gains, opset};
pub use ranges::{set_ranges, settle, to_observe};
use sharing::harmonise;

/// The plan by the default rules: the wanted scheme wherever it is possible, else the next one
/// down; weights that several layers share are treated alike.
pub fn plan(model: &Model, options: &PlanOptions) -> Result<ExplainedPlan, PlanError> {
    if let Some(to) = options.scheme.and_then(Scheme::computes_in) {
        // Chosen node by node, not weight by weight.
        return precision::plan(model, to, options);
    }
    let look =
        Look::new(rungs(options), options.min_weight_bytes, options.precision.min_rounding_sqnr_db);
    let candidates = candidates(model, &look);
    let layers: Vec<Layer> = candidates.iter().map(|candidate| candidate.layer.clone()).collect();
    let selected = select::selected(model, &layers, &options.include, &options.exclude)?;
    let mut decisions: Vec<Decision> = candidates
        .iter()
        .zip(selected)
        .map(|(candidate, selected)| match selected {
            Ok(()) => default_decision(model, candidate, options),
            Err(reason) => Decision { scheme: Scheme::default(), reason },
        })
        .collect();
    harmonise(model, &candidates, &mut decisions);
    let tensors = ranges::choose(model, &candidates, &mut decisions, options);
    let mut plan = assemble(model, &candidates, decisions, options.numerics);
    if !tensors.is_empty() {
        plan.format = options.format;
    }
    plan.tensors = tensors;
    Ok(plan)
}

/// The plan that a file asks for. Layers that it does not name are kept.
pub fn plan_from(model: &Model, wanted: &Plan) -> Result<ExplainedPlan, PlanError> {
    let mut asked: HashMap<&str, &PlannedLayer> = HashMap::new();
    for layer in &wanted.layers {
        if asked.insert(&layer.id, layer).is_some() {
            return Err(PlanError::Twice(layer.id.clone()));
        }
    }
    let candidates = candidates(model, &Look::at(wanted));
    let mut decisions = Vec::with_capacity(candidates.len());
    // Whole nodes that compute in 16 bits; their weights are no concern of other schemes.
    let nodes = precision::lines_from(model, wanted)?;
    for candidate in &candidates {
        decisions.push(match asked.remove(candidate.layer.id.as_str()) {
            Some(layer) => {
                if layer.scheme.computes_in().is_none() {
                    candidate
                        .possible(layer.scheme)
                        .map_err(|why| impossible(&layer.id, layer.scheme, why))?;
                }
                Decision { scheme: layer.scheme, reason: precision::GIVEN.to_owned() }
            }
            None => Decision { scheme: Scheme::default(), reason: "not in the plan".to_owned() },
        });
    }
    let known: HashSet<&str> = nodes.iter().map(|(layer, _)| layer.id.as_str()).collect();
    if let Some(layer) = wanted.layers.iter().find(|layer| !known.contains(layer.id.as_str())) {
        return Err(PlanError::UnknownLayer(layer.id.clone()));
    }
    let weightless =
        |layer: &&PlannedLayer| layer.scheme.is_int8() || layer.scheme.stores_in().is_some();
    if let Some(layer) = asked.into_values().find(weightless) {
        return Err(impossible(&layer.id, layer.scheme, "it reads no weight".to_owned()));
    }
    ranges::check(model, wanted, &candidates)?;
    let pointless = |layer: &&PlannedLayer| layer.numerics.is_some() && !layer.scheme.is_int8();
    if let Some(layer) = wanted.layers.iter().find(pointless) {
        let why = "it has numerics, which are those of int8".to_owned();
        return Err(impossible(&layer.id, layer.scheme, why));
    }
    harmonise(model, &candidates, &mut decisions);
    check_numerics(model, wanted, &candidates, &decisions)?;
    let by_weight = assemble(model, &candidates, decisions, wanted.numerics);
    let mut plan = joined(wanted, nodes, by_weight);
    settle(model, &mut plan);
    refine::check(model, &plan)?;
    Ok(plan)
}

/// A plan of which layers that share a weight agree, explained as it was where nothing changed.
///
/// # Errors
/// As [`plan_from`].
pub fn agreed(model: &Model, wanted: &ExplainedPlan) -> Result<ExplainedPlan, PlanError> {
    let mut settled = wanted.clone();
    settle(model, &mut settled);
    let mut plan = plan_from(model, &settled)?;
    let places = wanted.places();
    for (layer, why) in plan.lines_mut() {
        let Some(&place) = places.get(layer.id.as_str()) else { continue };
        if wanted.layers[place].scheme == layer.scheme {
            why.reason.clone_from(&wanted.why(place).reason);
        }
    }
    Ok(plan)
}

/// The plan of nodes that are named, with what was decided for those that have weights: without a
/// threshold every small constant is a candidate, and only what is named gets a line.
fn joined(
    wanted: &Plan,
    nodes: Vec<(PlannedLayer, Explanation)>,
    by_weight: ExplainedPlan,
) -> ExplainedPlan {
    let mut by_weight: HashMap<String, (Scheme, Explanation)> =
        by_weight.into_lines().map(|(layer, why)| (layer.id, (layer.scheme, why))).collect();
    let tensors = wanted.tensors.clone();
    let mut plan = ExplainedPlan::from(Plan {
        format: wanted.format,
        io: wanted.io,
        tensors,
        ..Plan::new(wanted.numerics)
    });
    for (layer, why) in nodes {
        let (scheme, why) = match by_weight.remove(&layer.id) {
            Some(planned) if layer.scheme.computes_in().is_none() => planned,
            _ => (layer.scheme, why),
        };
        // What shares a weight that stays float is not int8 any more.
        let numerics = layer.numerics.filter(|_| scheme.is_int8());
        plan.push(PlannedLayer { scheme, numerics, ..layer }, why);
    }
    plan
}

fn impossible(layer: &str, scheme: Scheme, why: String) -> PlanError {
    PlanError::Impossible { layer: layer.to_owned(), scheme, why }
}

/// A weight is stored once, so layers that share it have the same numerics; what does not become int8 has
/// none.
fn check_numerics(
    model: &Model,
    wanted: &Plan,
    candidates: &[Candidate],
    decisions: &[Decision],
) -> Result<(), PlanError> {
    if wanted.layers.iter().all(|layer| layer.numerics.is_none()) {
        return Ok(());
    }
    let decided = wanted.decided();
    let mut first: HashMap<ValueId, (&str, Numerics)> = HashMap::new();
    for (candidate, decision) in candidates.iter().zip(decisions) {
        let id = candidate.layer.id.as_str();
        if !decision.scheme.is_int8() {
            continue;
        }
        let (_, numerics) = decided(id);
        for weight in candidate.weights(decision.scheme).map(|weight| weight.value) {
            let &mut (other, known) = first.entry(weight).or_insert((id, numerics));
            if known != numerics {
                let name = model.value(weight).name();
                let why = format!("it shares '{name}' with '{other}', which has other numerics");
                return Err(impossible(id, decision.scheme, why));
            }
        }
    }
    Ok(())
}

/// Ids of the layers that can have a scheme, each by itself.
pub fn possible(model: &Model, scheme: Scheme) -> HashSet<String> {
    let look = Look::new([scheme], 0, f64::NEG_INFINITY);
    candidates(model, &look)
        .into_iter()
        .filter(|candidate| candidate.possible(scheme).is_ok())
        .map(|candidate| candidate.layer.id)
        .collect()
}

fn assemble(
    model: &Model,
    candidates: &[Candidate],
    decisions: Vec<Decision>,
    numerics: Numerics,
) -> ExplainedPlan {
    let mut plan = ExplainedPlan::new(numerics);
    for (candidate, decision) in candidates.iter().zip(decisions) {
        let layer = &candidate.layer;
        let dense = layer.weights.iter();
        let dense = dense.map(|weight| (weight.value, weight.tensor.byte_len() as u64));
        let weights: Vec<(ValueId, u64)> =
            dense.chain(layers::sparse_weights(model, layer.node)).collect();
        plan.push(
            PlannedLayer::new(layer.id.clone(), decision.scheme),
            Explanation::of(model, layer.node, &weights, decision.reason),
        );
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use modelopt_graph::{Constant, Origin, SparseTensor, Tensor};

    use super::*;
    use crate::plan::TensorRange;
    use crate::select::Pattern;
    use crate::testing::{Build, float, noise, options};

    /// Two products with one weight and one with another.
    fn shared() -> Build {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 64]));
        let w = b.weight("W", &[64, 64], &noise(4096, 1));
        let other = b.weight("V", &[64, 64], &noise(4096, 2));
        let a = b.node("MatMul", &[x, w], &[]);
        let c = b.node("MatMul", &[a, w], &[]);
        let y = b.node("MatMul", &[c, other], &[]);
        b.output(y, float(&[2, 64]));
        b
    }

    fn schemes(plan: &Plan) -> Vec<Scheme> {
        plan.layers.iter().map(|layer| layer.scheme).collect()
    }

    #[test]
    fn layers_that_share_a_weight_are_kept_together() {
        let b = shared();
        let exclude = vec![Pattern::new("matmul_out_node").unwrap()];
        let options = PlanOptions { exclude, ..options(Scheme::INT8_DYNAMIC) };
        let plan = plan(&b.model, &options).unwrap();
        assert_eq!(schemes(&plan), [Scheme::KEEP, Scheme::KEEP, Scheme::INT8_DYNAMIC]);
        assert_eq!(plan.why(0).reason, "excluded by 'matmul_out_node'");
        assert!(plan.why(1).reason.contains("needs it in float"), "{:?}", plan.layers[1]);
    }

    #[test]
    fn a_pattern_that_fits_nothing_is_an_error() {
        let include = vec![Pattern::new("Conv*").unwrap()];
        let options = PlanOptions { include, ..options(Scheme::INT8_WEIGHTS) };
        let error = plan(&shared().model, &options).unwrap_err().to_string();
        assert!(error.contains("'Conv*' fits no weight layer"), "{error}");
    }

    #[test]
    fn batches_of_int8_matrices_are_not_multiplied_where_that_goes_wrong() {
        let planned = |shape: &[usize], target| {
            let mut b = Build::new(13);
            let x = b.input("x", float(&[1, 4, 2, 64]));
            let w = b.weight("W", shape, &noise(shape.iter().product(), 1));
            let y = b.node("MatMul", &[x, w], &[]);
            b.output(y, float(&[1, 4, 2, 64]));
            let options = PlanOptions { target, ..PlanOptions::default() };
            plan(&b.model, &options).unwrap()
        };
        let (one, four) = ([1, 1, 64, 64], [4, 64, 64]);
        assert_eq!(schemes(&planned(&one, Capabilities::RTEN)), [Scheme::INT8_DYNAMIC]);
        assert_eq!(schemes(&planned(&four, Capabilities::ONNXRUNTIME)), [Scheme::INT8_DYNAMIC]);
        for target in [Capabilities::RTEN, Capabilities::ANYWHERE] {
            let plan = planned(&four, target);
            assert_eq!(schemes(&plan), [Scheme::INT8_WEIGHTS]);
            assert!(plan.why(0).reason.contains("batches of int8 matrices wrongly"), "{plan:?}");
        }
    }

    #[test]
    fn below_opset_7_there_is_no_int8() {
        let weights = |opset| {
            let mut b = Build::new(opset);
            let x = b.input("x", float(&[2, 64]));
            let w = b.weight("W", &[64, 64], &noise(4096, 1));
            let y = b.node("MatMul", &[x, w], &[]);
            b.output(y, float(&[2, 64]));
            plan(&b.model, &options(Scheme::INT8_DYNAMIC)).unwrap()
        };
        assert_eq!(schemes(&weights(7)), [Scheme::INT8_WEIGHTS]);
        let old = weights(6);
        assert_eq!(schemes(&old), [Scheme::KEEP]);
        assert!(old.why(0).reason.contains("opset 6 has no Mul that broadcasts"), "{old:?}");
    }

    #[test]
    fn sparse_weights_are_listed_and_kept() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[2, 4]));
        let w = b.model.add_value("W");
        let sparse = SparseTensor {
            values: Tensor::of(vec![2], &[1.0f32, 2.0]).unwrap(),
            indices: Tensor::of(vec![2], &[0i64, 5]).unwrap(),
            shape: vec![4, 4],
            origin: Origin::NONE,
        };
        b.model.set_constant(b.model.main(), w, Constant::Sparse(Arc::new(sparse)));
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, float(&[2, 4]));
        let plan = plan(&b.model, &options(Scheme::INT8_DYNAMIC)).unwrap();
        assert_eq!((plan.why(0).weights[0].as_str(), plan.why(0).bytes), ("W", 24));
        assert_eq!(plan.layers[0].scheme, Scheme::KEEP);
        assert!(plan.why(0).reason.contains("sparse"), "{}", plan.why(0).reason);
    }

    #[test]
    fn a_plan_given_back_is_the_plan_carried_out() {
        let b = shared();
        let first = plan(&b.model, &options(Scheme::INT8_DYNAMIC)).unwrap();
        let again = plan_from(&b.model, &Plan::from_toml(&first.to_toml()).unwrap()).unwrap();
        assert_eq!(*first, *again);
        let before: Vec<&str> = first.lines().map(|(_, why)| why.op.as_str()).collect();
        let after: Vec<&str> = again.lines().map(|(_, why)| why.op.as_str()).collect();
        assert_eq!(before, after);
        assert!(again.lines().all(|(_, why)| why.reason == "as the plan says"));
        assert_eq!(agreed(&b.model, &first).unwrap(), first);
    }

    #[test]
    fn what_had_to_change_for_layers_to_agree_is_told() {
        let b = shared();
        let mut wanted = plan(&b.model, &options(Scheme::INT8_WEIGHTS)).unwrap();
        wanted.layers[0].scheme = Scheme::KEEP;
        let reason = wanted.why(2).reason.clone();
        let plan = agreed(&b.model, &wanted).unwrap();
        assert_eq!(schemes(&plan), [Scheme::KEEP, Scheme::KEEP, Scheme::INT8_WEIGHTS]);
        assert!(plan.why(1).reason.contains("needs it in float"), "{plan:?}");
        assert_eq!(plan.why(2).reason, reason);
    }

    #[test]
    fn ranges_are_of_tensors_that_are_there() {
        let b = shared();
        let with = |name: &str, min: f32, max: f32| {
            let mut wanted = Plan::new(Numerics::default());
            wanted.tensors = vec![TensorRange::new(name, min, max)];
            plan_from(&b.model, &wanted).map_err(|error| error.to_string())
        };
        assert!(with("x", -1.0, 1.0).unwrap_err().contains("'x', which no form"));
        assert!(with("nowhere", -1.0, 1.0).unwrap_err().contains("'nowhere', which the model"));
        for (min, max) in [(1.0, -1.0), (f32::NAN, 1.0), (0.0, f32::INFINITY)] {
            assert!(with("x", min, max).unwrap_err().contains("'x', which is empty or not finite"));
        }
        let range = TensorRange::new("x", 0.0, 1.0);
        let mut twice = Plan::new(Numerics::default());
        twice.tensors = vec![range.clone(), range];
        assert!(plan_from(&b.model, &twice).unwrap_err().to_string().contains("has one already"));
    }

    #[test]
    fn a_layer_may_have_numerics_of_its_own_unless_it_shares_its_weight() {
        let b = shared();
        let mut wanted = plan(&b.model, &options(Scheme::INT8_WEIGHTS)).unwrap().into_plan();
        let narrow = Numerics { reduce_range: true, ..Numerics::default() };
        wanted.layers[2].numerics = Some(narrow);
        let planned = plan_from(&b.model, &wanted).unwrap();
        let mut model = b.model.clone();
        crate::apply(&mut model, &planned).unwrap();
        let largest = |name: &str| {
            let id = model.values().find(|&id| model.value(id).name() == name).unwrap();
            let bytes = model.constant(id).unwrap().bytes().unwrap().to_vec();
            bytes.iter().map(|&byte| byte.cast_signed().unsigned_abs()).max().unwrap()
        };
        assert_eq!((largest("W_int8"), largest("V_int8")), (127, 63));
        wanted.layers[0].numerics = Some(narrow);
        let error = plan_from(&b.model, &wanted).unwrap_err().to_string();
        assert!(error.contains("it shares 'W' with 'matmul_out_node', which has other"), "{error}");
        wanted.layers[1].numerics = Some(narrow);
        assert!(plan_from(&b.model, &wanted).is_ok());
        // A layer that has to be kept has none any more, so that the plan can be given back.
        let mut kept = wanted.clone();
        (kept.layers[0].scheme, kept.layers[0].numerics) = (Scheme::KEEP, None);
        let kept = plan_from(&b.model, &kept).unwrap();
        assert_eq!((kept.layers[1].scheme, kept.layers[1].numerics), (Scheme::KEEP, None));
        assert!(plan_from(&b.model, &kept).is_ok());
        wanted.layers[2].scheme = Scheme::KEEP;
        let error = plan_from(&b.model, &wanted).unwrap_err().to_string();
        assert!(error.contains("which are those of int8"), "{error}");
    }

    #[test]
    fn a_plan_that_cannot_be_carried_out_is_an_error() {
        let b = shared();
        let asked = |name: &str, scheme| {
            let mut wanted = plan(&b.model, &options(Scheme::INT8_WEIGHTS)).unwrap();
            wanted.layers.truncate(1);
            wanted.layers[0].id = name.to_owned();
            wanted.layers[0].scheme = scheme;
            plan_from(&b.model, &wanted).map_err(|error| error.to_string())
        };
        assert!(asked("nowhere", Scheme::KEEP).unwrap_err().contains("'nowhere'"));
        assert!(asked("matmul_out_node", Scheme::INT8_DYNAMIC).is_ok());
        let mut conv = Build::new(17);
        let x = conv.input("x", float(&[1, 16, 4, 4]));
        let w = conv.weight("W", &[16, 8, 3, 3], &noise(1152, 1));
        let y = conv.node("ConvTranspose", &[x, w], &[]);
        conv.output(y, float(&[1, 8, 6, 6]));
        let mut wanted = plan(&conv.model, &options(Scheme::INT8_WEIGHTS)).unwrap();
        wanted.layers[0].scheme = Scheme::INT8_DYNAMIC;
        let error = plan_from(&conv.model, &wanted).unwrap_err().to_string();
        assert!(error.contains("ConvTranspose has no dynamic int8 form"), "{error}");
    }

    /// A convolution and a product behind it.
    fn convolution_and_product() -> Build {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[1, 16, 8, 64]));
        let w = b.weight("W", &[64, 16, 3, 3], &noise(9216, 1));
        let v = b.weight("V", &[62, 64], &noise(62 * 64, 2));
        let c = b.node("Conv", &[x, w], &[]);
        let y = b.node("MatMul", &[c, v], &[]);
        b.output(y, float(&[1, 64, 6, 64]));
        b
    }

    #[test]
    fn the_target_decides_what_pays() {
        let (d, w) = (Scheme::INT8_DYNAMIC, Scheme::INT8_WEIGHTS);
        let planned = |target, scheme| {
            let options = PlanOptions { target, scheme, min_weight_bytes: 0, ..Default::default() };
            plan(&convolution_and_product().model, &options).unwrap()
        };
        for (target, expected) in [
            (Capabilities::ANYWHERE, [w, d]),
            (Capabilities::ONNXRUNTIME, [w, d]),
            (Capabilities::TRACT, [w, w]),
            (Capabilities::RTEN, [d, d]),
        ] {
            assert_eq!(schemes(&planned(target, None)), expected, "{target:?}");
        }
        assert_eq!(schemes(&planned(Capabilities::TRACT, Some(d))), [w, d]);
        assert_eq!(schemes(&planned(Capabilities::RTEN, Some(w))), [w, w]);
        let mut depthwise = Build::new(17);
        let x = depthwise.input("x", float(&[1, 64, 8, 8]));
        let filters = depthwise.weight("W", &[64, 1, 5, 5], &noise(1600, 1));
        let y = depthwise.node("Conv", &[x, filters], &[("group", 64.into())]);
        depthwise.output(y, float(&[1, 64, 4, 4]));
        let options =
            PlanOptions { target: Capabilities::RTEN, min_weight_bytes: 0, ..Default::default() };
        assert_eq!(schemes(&plan(&depthwise.model, &options).unwrap()), [w]);
        let reason = planned(Capabilities::ONNXRUNTIME, None).why(0).reason.clone();
        assert_eq!(reason, "int8-dynamic does not pay for Conv on onnxruntime");
    }

    #[test]
    fn what_was_measured_counts_more_than_the_table() {
        let decided = |stored: f64, dynamic: f64| {
            let ratios = vec![(Scheme::INT8_WEIGHTS, stored), (Scheme::INT8_DYNAMIC, dynamic)];
            let measured = MeasuredLayer { ratios, place: "rten 0.27.0".into() };
            let options = PlanOptions {
                measured: HashMap::from([("conv_out_node".to_owned(), measured)]),
                ..PlanOptions { min_weight_bytes: 0, ..Default::default() }
            };
            let plan = plan(&convolution_and_product().model, &options).unwrap();
            (plan.layers[0].scheme, plan.why(0).reason.clone())
        };
        let (scheme, reason) = decided(1.0, 0.5);
        assert_eq!(scheme, Scheme::INT8_DYNAMIC);
        let figures = "int8-weights 1.00x, int8-dynamic 0.50x of float32's time";
        assert_eq!(reason, format!("measured on rten 0.27.0: {figures}"));
        assert_eq!(decided(1.02, 0.99).0, Scheme::INT8_WEIGHTS);
        assert_eq!(decided(1.3, 1.1).0, Scheme::KEEP);
    }

    #[test]
    fn vectors_small_weights_and_hostile_numbers_are_left_alone() {
        let reason = |shape: &[usize], data: &[f32], min: usize| {
            let mut b = Build::new(17);
            let x = b.input("x", float(shape));
            let w = b.weight("W", shape, data);
            let y = b.node("Add", &[x, w], &[]);
            b.output(y, float(shape));
            let options = PlanOptions { min_weight_bytes: min, ..PlanOptions::default() };
            let plan = plan(&b.model, &options).unwrap();
            assert_eq!(schemes(&plan), [Scheme::KEEP]);
            plan.why(0).reason.clone()
        };
        assert!(reason(&[1, 2048], &noise(2048, 1), 1024).contains("a vector"));
        let mut broken = noise(4096, 1);
        broken[7] = f32::NAN;
        assert!(reason(&[64, 64], &broken, 1024).contains("NaN"));
        assert!(reason(&[64, 64], &[0.0; 4096], 1024).contains("all zero"));
        assert!(reason(&[4, 4], &noise(16, 1), 0).contains("save nothing"));
    }
}
