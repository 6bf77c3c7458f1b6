//! What stays float32 in a model that computes in 16 bits still has its weights stored in them:
//!
//! ```text
//! y = Attention(x, W)      com.microsoft
//!   =>
//! y = Attention(x, Cast<to = float>(W_fp16))
//! ```
//!
//! as `fp16-weights` and `bf16-weights` do, which cost no time.

use std::collections::{HashMap, HashSet};

use modelopt_graph::{Model, NodeId, ValueId};

use crate::eligibility::{Candidate, Look, candidates};
use crate::forms::Scheme;
use crate::layers::Layer;
use crate::plan::{ExplainedPlan, Precision};
use crate::policy::PlanOptions;

/// Lets the lines that are kept store their weights in 16 bits, where that is possible and everybody
/// else who reads them agrees. What the user left out is left alone.
pub(super) fn store(
    model: &Model,
    plan: &mut ExplainedPlan,
    refused: &HashMap<NodeId, String>,
    named: &[Layer],
    to: Precision,
    options: &PlanOptions,
) {
    let scheme = Scheme::storing_in(to);
    let kept: HashSet<&str> = plan
        .lines()
        .filter(|(layer, why)| layer.scheme.is_keep() && why.bytes > 0)
        .map(|(layer, _)| layer.id.as_str())
        .collect();
    if kept.is_empty() {
        return;
    }
    let refused: HashSet<&str> = named
        .iter()
        .filter(|layer| refused.contains_key(&layer.node))
        .map(|layer| layer.id.as_str())
        .collect();
    let look =
        Look::new([scheme], options.min_weight_bytes, options.precision.min_rounding_sqnr_db);
    let candidates = candidates(model, &look);
    let computing: HashSet<&str> = plan
        .layers
        .iter()
        .filter(|line| line.scheme.computes_in() == Some(to))
        .map(|line| line.id.as_str())
        .collect();
    let mut storing: HashSet<usize> = (0..candidates.len())
        .filter(|&at| {
            let id = candidates[at].layer.id.as_str();
            kept.contains(id) && !refused.contains(id) && candidates[at].possible(scheme).is_ok()
        })
        .collect();
    drop_disagreeing(&mut storing, &candidates, scheme, &computing);
    let stored: HashSet<String> =
        storing.into_iter().map(|at| candidates[at].layer.id.clone()).collect();
    for (layer, why) in plan.lines_mut().filter(|(layer, _)| stored.contains(&layer.id)) {
        layer.scheme = scheme;
        why.reason = format!("{}; its weights are stored in {}", why.reason, to.dtype());
    }
}

/// Leaves out the candidates whose weights others need in float32.
fn drop_disagreeing(
    storing: &mut HashSet<usize>,
    candidates: &[Candidate],
    scheme: Scheme,
    computing: &HashSet<&str>,
) {
    // A layer that drops out may take others with it, so this goes on until none does.
    loop {
        let needed = needed_in_float(candidates, scheme, storing, computing);
        let disagrees = |at: &usize| {
            candidates[*at].weights(scheme).any(|weight| needed.contains(&weight.value))
        };
        let out: Vec<usize> = storing.iter().copied().filter(disagrees).collect();
        if out.is_empty() {
            break;
        }
        for at in out {
            storing.remove(&at);
        }
    }
}

/// The weights that somebody reads who neither stores nor computes in 16 bits.
fn needed_in_float(
    candidates: &[Candidate],
    scheme: Scheme,
    storing: &HashSet<usize>,
    computing: &HashSet<&str>,
) -> HashSet<ValueId> {
    let mut needed = HashSet::new();
    for (at, candidate) in candidates.iter().enumerate() {
        if computing.contains(candidate.layer.id.as_str()) {
            continue;
        }
        let stores = |value: ValueId| {
            storing.contains(&at) && candidate.weights(scheme).any(|weight| weight.value == value)
        };
        let read = candidate.layer.weights.iter().map(|weight| weight.value);
        needed.extend(read.filter(|&value| !stores(value)));
    }
    needed
}

#[cfg(test)]
mod tests {
    use modelopt_graph::DataType;

    use super::*;
    use crate::select::Pattern;
    use crate::testing::{Build, float, noise, options};

    /// A power of a table, which has the range of exponents, and a product beside it.
    fn held_back() -> (Build, ValueId, ValueId) {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[1, 64]));
        let table = b.weight("table", &[64, 64], &noise(4096, 1));
        let w = b.weight("W", &[64, 64], &noise(4096, 2));
        let power = b.node("Pow", &[table, x], &[]);
        let product = b.node("MatMul", &[x, w], &[]);
        b.output(power, float(&[64, 64]));
        b.output(product, float(&[1, 64]));
        (b, table, w)
    }

    #[test]
    fn what_stays_float32_stores_its_weights() {
        let (mut b, table, w) = held_back();
        let plan = b.quantized(&options(Scheme::FP16));
        let (layer, why) = plan.lines().find(|(_, why)| why.op == "Pow").unwrap();
        assert_eq!(layer.scheme, Scheme::FP16_WEIGHTS);
        assert!(why.reason.ends_with("its weights are stored in float16"), "{why:?}");
        assert!(b.maker(table).op.is("Cast"));
        assert_eq!(b.model.value(w).elem(), Some(DataType::FLOAT16));
    }

    #[test]
    fn what_the_user_leaves_out_is_left_alone() {
        let (mut b, table, _) = held_back();
        let exclude = vec![Pattern::new("Pow").unwrap()];
        let plan = b.quantized(&PlanOptions { exclude, ..options(Scheme::FP16) });
        let (layer, _) = plan.lines().find(|(_, why)| why.op == "Pow").unwrap();
        assert_eq!(layer.scheme, Scheme::KEEP);
        assert_eq!(b.model.constant(table).unwrap().dtype(), DataType::FLOAT);
    }

    #[test]
    fn a_weight_that_is_needed_in_float_elsewhere_stays() {
        let (mut b, table, _) = held_back();
        let other = b.node("Exp", &[table], &[]);
        b.output(other, float(&[64, 64]));
        let exclude = vec![Pattern::new("Exp").unwrap()];
        let plan = b.quantized(&PlanOptions { exclude, ..options(Scheme::FP16) });
        assert!(plan.layers.iter().all(|line| line.scheme != Scheme::FP16_WEIGHTS), "{plan:?}");
        assert_eq!(b.model.constant(table).unwrap().dtype(), DataType::FLOAT);
    }
}
