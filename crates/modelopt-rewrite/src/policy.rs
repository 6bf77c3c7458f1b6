//! What is done to each layer by default, or because a plan says so.

mod capabilities;
mod options;

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use modelopt_graph::{Model, ValueId};

use crate::eligibility::{Candidate, Look, candidates};
use crate::forms::{Objection, Scheme};
use crate::layers::{self, Layer, Role, WeightUse};
use crate::plan::{Numerics, Plan, PlanError, PlannedLayer};
use crate::precision;
use crate::refine;
use crate::select;
use crate::site::Site;

pub use capabilities::Capabilities;
pub use options::{MeasuredLayer, PlanOptions};

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
            Ok(()) => default_decision(&look.site(model, &candidate.layer), candidate, options),
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
    let mut by_weight: HashMap<String, PlannedLayer> =
        assemble(model, &candidates, decisions, wanted.numerics)
            .layers
            .into_iter()
            .map(|line| (line.name.clone(), line))
            .collect();
    let mut plan = Plan { io: wanted.io, ..Plan::new(wanted.numerics) };
    // With no threshold every small constant is a candidate; only what is named gets a line.
    for (_, line) in nodes {
        let (smoothing, bias_correction) = (line.smoothing.clone(), line.bias_correction.clone());
        let at_load = line.at_load;
        let line = match by_weight.remove(&line.name) {
            Some(planned) if line.scheme.computes_in().is_none() => planned,
            _ => line,
        };
        plan.layers.push(PlannedLayer { smoothing, bias_correction, at_load, ..line });
    }
    refine::check(model, &plan)?;
    Ok(plan)
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

struct Decision {
    scheme: Scheme,
    reason: String,
}

/// The schemes to try, the first that is possible and pays.
fn rungs(options: &PlanOptions) -> Vec<Scheme> {
    options.scheme.map_or_else(Scheme::default_ladder, Scheme::rungs)
}

fn default_decision(site: &Site<'_>, candidate: &Candidate, options: &PlanOptions) -> Decision {
    if options.scheme.is_some_and(Scheme::is_keep) {
        return Decision { scheme: Scheme::default(), reason: "as asked".to_owned() };
    }
    let rungs = rungs(options);
    let objection = |scheme: Scheme| {
        scheme.form().objection(site, &options.target, options.scheme == Some(scheme))
    };
    let is_wrong = |&scheme: &Scheme| matches!(objection(scheme), Some(Objection::Wrong(_)));
    if let (None, Some(measured)) = (options.scheme, options.measured.get(&candidate.layer.name))
        && !rungs.iter().any(is_wrong)
        && let Some(decision) = measured.decision(candidate, &rungs)
    {
        return decision;
    }
    let mut reasons: Vec<String> = Vec::new();
    // Why nothing is possible is told only where nothing else is to be said.
    let mut impossible = String::new();
    for scheme in rungs {
        match (candidate.possible(scheme), objection(scheme)) {
            (Ok(()), None) if reasons.is_empty() => {
                let reason = scheme.form().reason(site.model.node(site.layer.node));
                return Decision { scheme, reason: reason.to_owned() };
            }
            (Ok(()), None) => return Decision { scheme, reason: reasons.join("; ") },
            (Ok(()), Some(Objection::DoesNotPay)) => {
                let (op, place) =
                    (&site.model.node(site.layer.node).op.name, options.target.place());
                reasons.push(format!("{scheme} does not pay for {op}{place}"));
            }
            (Ok(()), Some(Objection::Slow(why) | Objection::Wrong(why))) => reasons.push(why),
            (Err(why), None) if !reasons.contains(&why) => reasons.push(why),
            (Err(_), None) => {}
            (Err(why), Some(_)) => impossible = why,
        }
    }
    // The last step's reason is why nothing at all is done.
    let reason = reasons.pop().unwrap_or(impossible);
    Decision { scheme: Scheme::default(), reason }
}

/// A scheme must be faster than another by this much to be chosen for its speed; below it, the
/// smaller file counts.
const NOTICEABLE: f64 = 0.97;

impl MeasuredLayer {
    /// The fastest scheme of those that are possible: where activations are quantized it must be
    /// noticeably faster than without, where weights are only stored not noticeably slower.
    fn decision(&self, candidate: &Candidate, rungs: &[Scheme]) -> Option<Decision> {
        let ratio = |scheme: Scheme| {
            let found = self.ratios.iter().find(|(measured, _)| *measured == scheme);
            found.filter(|_| candidate.possible(scheme).is_ok()).map(|&(_, ratio)| ratio)
        };
        let (mut best, mut time) = (Scheme::default(), 1.0f64);
        for &scheme in rungs.iter().rev() {
            let Some(ratio) = ratio(scheme) else { continue };
            let chosen = if scheme.quantizes_activations() {
                ratio < NOTICEABLE * time.min(1.0)
            } else {
                ratio * NOTICEABLE <= 1.0
            };
            if chosen {
                (best, time) = (scheme, ratio);
            }
        }
        let figures = self.ratios.iter().map(|(scheme, ratio)| format!("{scheme} {ratio:.2}x"));
        let figures = figures.collect::<Vec<_>>().join(", ");
        (!self.ratios.is_empty()).then(|| Decision {
            scheme: best,
            reason: format!("measured on {}: {figures} of float32's time", self.place),
        })
    }
}

/// Makes layers that share a weight agree: a weight that one of them needs in float32 stays
/// float32 for all (anything else would store it twice), and a weight that a dynamic layer reads
/// in another layout than another layer does is stored once, for float computation.
fn harmonise(model: &Model, candidates: &[Candidate], decisions: &mut [Decision]) {
    let mut users: IndexMap<ValueId, Vec<(usize, &WeightUse)>> = IndexMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        for weight in &candidate.layer.weights {
            users.entry(weight.value).or_default().push((index, weight));
        }
    }
    users.retain(|_, users| users.len() > 1);
    // To a fixed point: a layer with two weights may pass a change on. Each change moves a layer
    // down, so this ends.
    let mut changed = true;
    while changed {
        changed = false;
        for (&weight, users) in &users {
            changed |= agree(model, candidates, decisions, weight, users);
        }
    }
}

/// Makes the users of one weight agree. Returns whether any decision changed.
fn agree(
    model: &Model,
    candidates: &[Candidate],
    decisions: &mut [Decision],
    weight: ValueId,
    users: &[(usize, &WeightUse)],
) -> bool {
    let stores = |index: usize, scheme: Scheme| {
        candidates[index].weights(scheme).any(|stored| stored.value == weight)
    };
    let storing: Vec<usize> = users
        .iter()
        .map(|&(index, _)| index)
        .filter(|&index| stores(index, decisions[index].scheme))
        .collect();
    // Who computes in 16 bits rounds the weight, however it is stored.
    let in_float = users.iter().find(|(index, _)| {
        storing.binary_search(index).is_err() && decisions[*index].scheme.computes_in().is_none()
    });
    if let (Some(&(holder, _)), false) = (in_float, storing.is_empty()) {
        let reason = format!(
            "shares '{}' with '{}', which needs it in float",
            model.value(weight).name(),
            candidates[holder].layer.name
        );
        for index in storing {
            decisions[index] = Decision { scheme: Scheme::default(), reason: reason.clone() };
        }
        return true;
    }
    // What is stored in more bits for some is stored so for all: it is the more precise.
    let storage = |index: usize| decisions[index].scheme.sides().weights;
    let precise =
        storing.iter().copied().max_by_key(|&index| (storage(index).bits, decisions[index].scheme));
    if let Some(precise) =
        precise.filter(|&one| storing.iter().any(|&index| storage(index) != storage(one)))
    {
        let scheme = decisions[precise].scheme;
        let mut changed = false;
        for &index in &storing {
            if decisions[index].scheme != scheme {
                let with = &candidates[precise].layer.name;
                decisions[index] =
                    Decision { scheme, reason: format!("shares its weight with '{with}'") };
                changed = true;
            }
        }
        return changed;
    }
    let Some(&(first, reference)) = users.first() else { return false };
    let other = users.iter().find(|(_, user)| !same_layout(reference, user));
    let Some(&(other, _)) = other else { return false };
    let mut changed = false;
    for &(index, _) in users {
        let scheme = decisions[index].scheme;
        if let Some(below) = scheme.down().filter(|_| scheme.form().has_own_layout())
            && stores(index, scheme)
        {
            let with = &candidates[if index == first { other } else { first }].layer.name;
            let reason = format!("shares its weight with '{with}', which reads it in another way");
            decisions[index] = Decision { scheme: below, reason };
            changed = true;
        }
    }
    changed
}

/// Whether two uses of a weight can share one int8 tensor and its scales.
fn same_layout(a: &WeightUse, b: &WeightUse) -> bool {
    let shape = a.tensor.shape();
    let transposed = |role| matches!(role, Role::GemmB { transposed: true });
    transposed(a.role) == transposed(b.role)
        && match (a.role.channels(shape), b.role.channels(shape)) {
            (Some(a), Some(b)) => a == b,
            // A role without channels of its own takes the other's.
            _ => true,
        }
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
