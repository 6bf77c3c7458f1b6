//! What is done to each layer by default, or because a plan says so.

mod capabilities;
mod decision;
mod options;
mod sharing;

use std::collections::{HashMap, HashSet};

use modelopt_graph::{Model, ValueId};

use crate::eligibility::{Candidate, Look, candidates};
use crate::forms::Scheme;
use crate::layers::{self, Layer};
use crate::plan::{Numerics, Plan, PlanError, PlannedLayer};
use crate::precision;
use crate::refine;
use crate::select;

pub use capabilities::Capabilities;
use decision::{Decision, default_decision, rungs};
pub use options::{MeasuredLayer, PlanOptions};
use sharing::harmonise;

/// The plan by the default rules: the wanted scheme wherever it is possible, else the next one
/// down; weights that several layers share are treated alike.
pub fn plan(model: &Model, options: &PlanOptions) -> Result<Plan, PlanError> {
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
    Ok(assemble(model, &candidates, decisions, options.numerics))
}

/// The plan that a file asks for. Layers that it does not name are kept.
pub fn plan_from(model: &Model, wanted: &Plan) -> Result<Plan, PlanError> {
    let mut asked: HashMap<&str, &PlannedLayer> = HashMap::new();
    for layer in &wanted.layers {
        if asked.insert(&layer.name, layer).is_some() {
            return Err(PlanError::Twice(layer.name.clone()));
        }
    }
    let candidates = candidates(model, &Look::at(wanted));
    let mut decisions = Vec::with_capacity(candidates.len());
    // Whole nodes that compute in 16 bits; their weights are no concern of other schemes.
    let nodes = precision::lines_from(model, wanted)?;
    for candidate in &candidates {
        decisions.push(match asked.remove(candidate.layer.name.as_str()) {
            Some(layer) if layer.scheme.computes_in().is_some() => {
                Decision { scheme: layer.scheme, reason: layer.reason.clone() }
            }
            Some(layer) => {
                candidate.possible(layer.scheme).map_err(|why| PlanError::Impossible {
                    layer: layer.name.clone(),
                    scheme: layer.scheme,
                    why,
                })?;
                Decision { scheme: layer.scheme, reason: layer.reason.clone() }
            }
            None => Decision { scheme: Scheme::default(), reason: "not in the plan".to_owned() },
        });
    }
    let known: HashSet<&str> = nodes.iter().map(|(_, line)| line.name.as_str()).collect();
    if let Some(layer) = wanted.layers.iter().find(|layer| !known.contains(layer.name.as_str())) {
        return Err(PlanError::UnknownLayer(layer.name.clone()));
    }
    let weightless =
        |layer: &&PlannedLayer| layer.scheme.is_int8() || layer.scheme.stores_in().is_some();
    if let Some(layer) = asked.into_values().find(weightless) {
        return Err(PlanError::Impossible {
            layer: layer.name.clone(),
            scheme: layer.scheme,
            why: "it reads no weight".to_owned(),
        });
    }
    harmonise(model, &candidates, &mut decisions);
    let by_weight = assemble(model, &candidates, decisions, wanted.numerics);
    let plan = joined(wanted, nodes.into_iter().map(|(_, line)| line), by_weight);
    refine::check(model, &plan)?;
    Ok(plan)
}

/// The plan of nodes that are named, with what was decided for those that have weights: without a
/// threshold every small constant is a candidate, and only what is named gets a line.
fn joined(wanted: &Plan, nodes: impl Iterator<Item = PlannedLayer>, by_weight: Plan) -> Plan {
    let mut by_weight: HashMap<String, PlannedLayer> =
        by_weight.layers.into_iter().map(|line| (line.name.clone(), line)).collect();
    let mut plan = Plan { io: wanted.io, ..Plan::new(wanted.numerics) };
    for line in nodes {
        let (smoothing, bias_correction) = (line.smoothing.clone(), line.bias_correction.clone());
        let at_load = line.at_load;
        let line = match by_weight.remove(&line.name) {
            Some(planned) if line.scheme.computes_in().is_none() => planned,
            _ => line,
        };
        plan.layers.push(PlannedLayer { smoothing, bias_correction, at_load, ..line });
    }
    plan
}

/// Names of the layers that can have a scheme, each by itself.
pub fn possible(model: &Model, scheme: Scheme) -> HashSet<String> {
    let look = Look::new([scheme], 0, f64::NEG_INFINITY);
    candidates(model, &look)
        .into_iter()
        .filter(|candidate| candidate.possible(scheme).is_ok())
        .map(|candidate| candidate.layer.name)
        .collect()
}

fn assemble(
    model: &Model,
    candidates: &[Candidate],
    decisions: Vec<Decision>,
    numerics: Numerics,
) -> Plan {
    let mut plan = Plan::new(numerics);
    for (candidate, decision) in candidates.iter().zip(decisions) {
        let layer = &candidate.layer;
        let dense = layer.weights.iter();
        let dense = dense.map(|weight| (weight.value, weight.tensor.byte_len() as u64));
        let weights: Vec<(ValueId, u64)> =
            dense.chain(layers::sparse_weights(model, layer.node)).collect();
        plan.layers.push(PlannedLayer {
            op: model.node(layer.node).op.to_string(),
            reason: decision.reason,
            weights: weights.iter().map(|&(v, _)| model.value(v).name().to_owned()).collect(),
            bytes: weights.iter().map(|(_, bytes)| bytes).sum(),
            ..PlannedLayer::new(layer.name.clone(), decision.scheme)
        });
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use modelopt_graph::{Constant, Origin, SparseTensor, Tensor};

    use super::*;
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
        assert_eq!(plan.layers[0].reason, "excluded by 'matmul_out_node'");
        assert!(plan.layers[1].reason.contains("needs it in float"), "{:?}", plan.layers[1]);
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
        let scheme = |shape: &[usize], target| {
            let mut b = Build::new(13);
            let x = b.input("x", float(&[1, 4, 2, 64]));
            let w = b.weight("W", shape, &noise(shape.iter().product(), 1));
            let y = b.node("MatMul", &[x, w], &[]);
            b.output(y, float(&[1, 4, 2, 64]));
            let options = PlanOptions { target, ..PlanOptions::default() };
            plan(&b.model, &options).unwrap().layers.remove(0)
        };
        let (one, four) = ([1, 1, 64, 64], [4, 64, 64]);
        assert_eq!(scheme(&one, Capabilities::RTEN).scheme, Scheme::INT8_DYNAMIC);
        assert_eq!(scheme(&four, Capabilities::ONNXRUNTIME).scheme, Scheme::INT8_DYNAMIC);
        for target in [Capabilities::RTEN, Capabilities::ANYWHERE] {
            let layer = scheme(&four, target);
            assert_eq!(layer.scheme, Scheme::INT8_WEIGHTS);
            assert!(layer.reason.contains("batches of int8 matrices wrongly"), "{}", layer.reason);
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
            plan(&b.model, &options(Scheme::INT8_DYNAMIC)).unwrap().layers.remove(0)
        };
        assert_eq!(weights(7).scheme, Scheme::INT8_WEIGHTS);
        let old = weights(6);
        assert_eq!(old.scheme, Scheme::KEEP);
        assert!(old.reason.contains("opset 6 has no Mul that broadcasts"), "{}", old.reason);
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
        assert_eq!((plan.layers[0].weights[0].as_str(), plan.layers[0].bytes), ("W", 24));
        assert_eq!(plan.layers[0].scheme, Scheme::KEEP);
        assert!(plan.layers[0].reason.contains("sparse"), "{}", plan.layers[0].reason);
    }

    #[test]
    fn a_plan_given_back_is_the_plan_carried_out() {
        let b = shared();
        let first = plan(&b.model, &options(Scheme::INT8_DYNAMIC)).unwrap();
        let again = plan_from(&b.model, &Plan::from_toml(&first.to_toml()).unwrap()).unwrap();
        assert_eq!(first, again);
    }

    #[test]
    fn a_plan_that_cannot_be_carried_out_is_an_error() {
        let b = shared();
        let asked = |name: &str, scheme| {
            let mut wanted = plan(&b.model, &options(Scheme::INT8_WEIGHTS)).unwrap();
            wanted.layers.truncate(1);
            wanted.layers[0].name = name.to_owned();
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
        let reason = &planned(Capabilities::ONNXRUNTIME, None).layers[0].reason;
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
            (plan.layers[0].scheme, plan.layers[0].reason.clone())
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
            plan.layers[0].reason.clone()
        };
        assert!(reason(&[1, 2048], &noise(2048, 1), 1024).contains("a vector"));
        let mut broken = noise(4096, 1);
        broken[7] = f32::NAN;
        assert!(reason(&[64, 64], &broken, 1024).contains("NaN"));
        assert!(reason(&[64, 64], &[0.0; 4096], 1024).contains("all zero"));
        assert!(reason(&[4, 4], &noise(16, 1), 0).contains("save nothing"));
    }
}
