//! Smoothing: the range of an activation moves into the weights that read it.
//!
//! ```text
//! y = MatMul(x, W)
//!   =>
//! y = MatMul(Mul(x, 1 / s), W * s)              s: one number for each input channel
//! ```
//!
//! The function stays the same; what changes is what quantizing costs: a few large channels no
//! longer set the step for all others (Xiao et al., "`SmoothQuant`: Accurate and efficient
//! post-training quantization for large language models", 2022). Where `1 / s` can be taken into
//! what makes `x` (constants of a `LayerNormalization`, `Mul`, `Add` or matrix product that nothing
//! else reads), it costs nothing; otherwise it is one `Mul` for all layers that share it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::{
    DataType, GraphId, Model, NodeId, Patch, Place, Producer, Tensor, Use, ValueId,
};

use crate::engine::{self, BrokenRewrite};
use crate::layers::{self, Role, WeightUse};
use crate::plan::Plan;

/// How far to look for constants to take the divisors into.
const DEPTH: usize = 8;

/// Carries out the smoothing of a plan. The model computes the same, up to float rounding.
pub(crate) fn apply(model: &mut Model, plan: &Plan) -> Result<(), BrokenRewrite> {
    let factors = super::refinements(plan, |line| &line.smoothing);
    if factors.is_empty() {
        return Ok(());
    }
    let smoothed: Vec<(NodeId, WeightUse, &[f32])> = layers::find(model, 0)
        .into_iter()
        .filter_map(|layer| {
            let factors = *factors.get(layer.id.as_str())?;
            let weight = smoothable(model, &layer)?.clone();
            (depth(&weight) == Some(factors.len())).then_some((layer.node, weight, factors))
        })
        .collect();
    engine::checked(model, "smoothing", |model| {
        let mut scaled: HashSet<ValueId> = HashSet::new();
        for (_, weight, factors) in &smoothed {
            if scaled.insert(weight.value) {
                scale_weight(model, weight, factors);
            }
        }
        // All that read one activation in one graph share a division.
        let mut readers: IndexMap<(ValueId, GraphId), Vec<NodeId>> = IndexMap::new();
        let mut divisors: HashMap<ValueId, &[f32]> = HashMap::new();
        for &(node, _, factors) in &smoothed {
            let Some(x) = model.node(node).input(0) else { continue };
            readers.entry((x, model.node(node).graph())).or_default().push(node);
            divisors.insert(x, factors);
        }
        for ((x, _), nodes) in readers {
            if let Some(factors) = divisors.get(&x) {
                divide(model, x, &nodes, factors);
            }
        }
        smoothed.len()
    })?;
    Ok(())
}

/// The weight of a layer that can be smoothed: a matrix of floats on the right of a product, that is
/// an initializer.
pub(crate) fn smoothable<'a>(model: &Model, layer: &'a layers::Layer) -> Option<&'a WeightUse> {
    let fits = |weight: &&WeightUse| {
        weight.input == 1
            && weight.tensor.shape().len() == 2
            && weight.tensor.dtype() == DataType::FLOAT
            && matches!(model.value(weight.value).producer(), Producer::Initializer(_))
            && matches!(weight.role, Role::MatMulRight | Role::GemmB { .. })
    };
    layer.weights.iter().find(fits)
}

/// How many channels are summed over.
pub(crate) fn depth(weight: &WeightUse) -> Option<usize> {
    let [rows, columns] = *weight.tensor.shape() else { return None };
    Some(if is_transposed(weight) { columns } else { rows })
}

/// Whether the weight is `[N, K]` rather than `[K, N]`.
pub(crate) fn is_transposed(weight: &WeightUse) -> bool {
    weight.role == Role::GemmB { transposed: true }
}

fn scale_weight(model: &mut Model, weight: &WeightUse, factors: &[f32]) {
    let Some(scaled) = along(&weight.tensor, usize::from(is_transposed(weight)), factors) else {
        return;
    };
    model.replace_constant(weight.value, Arc::new(scaled));
}

/// A matrix with each index along an axis multiplied by a factor of its own.
fn along(matrix: &Tensor, axis: usize, factors: &[f32]) -> Option<Tensor> {
    let numbers = matrix.to_f32()?;
    let columns = *matrix.shape().get(1)?;
    let factor = |index: usize| factors[if axis == 0 { index / columns } else { index % columns }];
    let scaled: Vec<f32> =
        numbers.iter().enumerate().map(|(index, &x)| x * factor(index)).collect();
    Tensor::of(matrix.shape().to_vec(), &scaled).ok()
}

/// Lets these nodes read `x` divided by the factors.
fn divide(model: &mut Model, x: ValueId, readers: &[NodeId], factors: &[f32]) {
    let inverse: Vec<f32> = factors.iter().map(|factor| 1.0 / factor).collect();
    let own = |at: &Use| matches!(at, Use::Node(node, 0) if readers.contains(node));
    if model.value(x).uses().iter().all(own) {
        let mut edits = Vec::new();
        if fold(model, x, &inverse, DEPTH, &mut edits).is_some() {
            for edit in edits {
                edit.apply(model);
            }
            return;
        }
    }
    let Some(&first) = readers.first() else { return };
    let Ok(tensor) = Tensor::of(vec![inverse.len()], &inverse) else { return };
    let name = model.value(x).name().to_owned();
    let mut patch = Patch::new();
    let constant = patch.constant(model.main(), format!("{name}_smoothing"), Arc::new(tensor));
    let place = Place::Before(first);
    patch.node(place, "Mul", format!("{name}_smoothed"), &[x.into(), constant], &[]);
    let made = model.apply(patch);
    if let Some(&smoothed) = made.last() {
        for &reader in readers {
            model.set_input(reader, 0, Some(smoothed));
        }
    }
}

/// A constant that changes for one node that reads it.
struct Edit {
    node: NodeId,
    input: usize,
    tensor: Tensor,
}

impl Edit {
    fn apply(self, model: &mut Model) {
        let Some(old) = model.node(self.node).input(self.input) else { return };
        let alone = model.value(old).uses().len() == 1;
        if alone && model.producer_node(old).is_none() {
            model.replace_constant(old, Arc::new(self.tensor));
            return;
        }
        let home = model.home(model.resolve(old)).unwrap_or(model.node(self.node).graph());
        let mut patch = Patch::new();
        let name = format!("{}_smoothed", model.value(old).name());
        patch.constant(home, name, Arc::new(self.tensor));
        if let Some(&new) = model.apply(patch).last() {
            model.set_input(self.node, self.input, Some(new));
        }
    }
}

/// Collects the edits that multiply a value, along its last axis, by `factors`. None where that
/// would change anything else, or cannot be done with constants.
fn fold(
    model: &Model,
    value: ValueId,
    factors: &[f32],
    depth: usize,
    edits: &mut Vec<Edit>,
) -> Option<()> {
    let id = model.producer_node(value)?;
    let node = model.node(id);
    let depth = depth.checked_sub(1)?;
    if !node.op.is_onnx() || model.value(value).is_output() {
        return None;
    }
    let only_reader = |input: usize| {
        let read = node.input(input)?;
        (model.value(read).uses().len() == 1 && !model.value(read).is_output()).then_some(read)
    };
    let vector = |input: usize| {
        let tensor = model.constant(node.input(input)?)?;
        Some(Edit { node: id, input, tensor: broadcast(&tensor, factors)? })
    };
    match node.op.name.as_str() {
        "LayerNormalization" if matches!(node.int("axis", -1), -1) => {
            edits.push(vector(1)?);
            if node.input(2).is_some() {
                edits.push(vector(2)?);
            }
        }
        "Mul" => edits.push(vector(1).or_else(|| vector(0))?),
        "Add" | "Sub" => {
            let (constant, other) = match vector(1) {
                Some(edit) => (edit, 0),
                None => (vector(0)?, 1),
            };
            fold(model, only_reader(other)?, factors, depth, edits)?;
            edits.push(constant);
        }
        // Positive factors pass.
        "Relu" => fold(model, only_reader(0)?, factors, depth, edits)?,
        "MatMul" | "Gemm" => {
            let weight = model.resolve(node.input(1)?);
            let tensor = model.constant(weight)?;
            let transposed = node.op.is("Gemm") && node.int("transB", 0) != 0;
            let axis = usize::from(!transposed);
            let shared = model.value(weight).uses().len() > 1 || Some(weight) != node.input(1);
            if shared || tensor.shape().len() != 2 || tensor.shape()[axis] != factors.len() {
                return None;
            }
            edits.push(Edit { node: id, input: 1, tensor: along(&tensor, axis, factors)? });
            if node.op.is("Gemm") && node.input(2).is_some() {
                edits.push(vector(2)?);
            }
        }
        _ => return None,
    }
    Some(())
}

/// A small constant times factors along its last axis.
fn broadcast(tensor: &Tensor, factors: &[f32]) -> Option<Tensor> {
    let numbers = tensor.to_f32()?;
    let mut shape = tensor.shape().to_vec();
    let last = shape.last().copied().unwrap_or(1);
    if tensor.dtype() != DataType::FLOAT || (last != 1 && last != factors.len()) {
        return None;
    }
    let wide: Vec<f32> = if last == factors.len() {
        numbers.iter().enumerate().map(|(index, x)| x * factors[index % last]).collect()
    } else {
        numbers.iter().flat_map(|x| factors.iter().map(move |factor| x * factor)).collect()
    };
    match shape.last_mut() {
        Some(last) => *last = factors.len(),
        None => shape.push(factors.len()),
    }
    Tensor::of(shape, &wide).ok()
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;
    use crate::testing::{Build, float, noise, options};
    use crate::{Scheme, apply as carry_out};

    const FACTORS: [f32; 4] = [2.0, 0.5, 1.0, 4.0];

    /// A product that reads what `make` makes of the input.
    fn product(make: impl FnOnce(&mut Build, ValueId) -> ValueId) -> (Build, ValueId, ValueId) {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 4]));
        let made = make(&mut b, x);
        let w = b.weight("W", &[4, 8], &noise(32, 1));
        let y = b.node("MatMul", &[made, w], &[]);
        b.output(y, float(&[2, 8]));
        (b, made, w)
    }

    fn smooth(b: &mut Build) {
        modelopt_graph::infer::infer(&mut b.model);
        let mut plan = crate::plan(&b.model, &options(Scheme::KEEP)).unwrap();
        let last = plan.layers.last_mut().unwrap();
        last.smoothing = FACTORS.to_vec();
        apply(&mut b.model, &plan).unwrap();
    }

    #[test]
    fn an_input_is_divided_and_the_weight_multiplied() {
        let (mut b, x, w) = product(|_, x| x);
        let before = b.model.constant(w).unwrap().to_f32().unwrap().into_owned();
        smooth(&mut b);
        assert_eq!(b.ops(), ["Mul", "MatMul"]);
        let after = b.model.constant(w).unwrap().to_f32().unwrap().into_owned();
        for (index, (a, b)) in before.iter().zip(&after).enumerate() {
            assert_relative_eq!(a * FACTORS[index / 8], b);
        }
        let consumers: Vec<NodeId> = b.model.consumers(x).map(|(node, _)| node).collect();
        let divisors = b.model.node(consumers[0]).input(1).unwrap();
        assert_eq!(*b.model.constant(divisors).unwrap().to_f32().unwrap(), [0.5, 2.0, 1.0, 0.25]);
    }

    #[test]
    fn a_normalization_takes_the_divisors_into_its_constants() {
        let (mut b, made, _) = product(|b, x| {
            let scale = b.weight("gamma", &[4], &[1.0; 4]);
            let bias = b.weight("beta", &[4], &[2.0; 4]);
            b.node("LayerNormalization", &[x, scale, bias], &[])
        });
        smooth(&mut b);
        assert_eq!(b.ops(), ["LayerNormalization", "MatMul"]);
        let constant = |input| {
            let value = b.maker(made).input(input).unwrap();
            b.model.constant(value).unwrap().to_f32().unwrap().into_owned()
        };
        assert_eq!(constant(1), [0.5, 2.0, 1.0, 0.25]);
        assert_eq!(constant(2), [1.0, 4.0, 2.0, 0.5]);
    }

    #[test]
    fn a_product_with_bias_takes_them_into_weight_and_bias_behind_a_relu() {
        let (mut b, _, _) = product(|b, x| {
            let v = b.weight("V", &[4, 4], &noise(16, 2));
            let bias = b.weight("bias", &[4], &noise(4, 3));
            let h = b.node("MatMul", &[x, v], &[]);
            let h = b.node("Add", &[bias, h], &[]);
            b.node("Relu", &[h], &[])
        });
        smooth(&mut b);
        assert_eq!(b.ops(), ["MatMul", "Add", "Relu", "MatMul"]);
    }

    #[test]
    fn what_others_read_is_not_changed() {
        let (mut b, made, _) = product(|b, x| {
            let scale = b.weight("gamma", &[4], &[1.0; 4]);
            b.node("Mul", &[x, scale], &[])
        });
        b.output(made, float(&[2, 4]));
        smooth(&mut b);
        assert_eq!(b.ops(), ["Mul", "Mul", "MatMul"]);
        // Nor is a sum of two activations, or a constant that another node shares.
        let (mut b, _, _) = product(|b, x| b.node("Add", &[x, x], &[]));
        smooth(&mut b);
        assert_eq!(b.ops(), ["Add", "Mul", "MatMul"]);
        let (mut b, made, _) = product(|b, x| {
            let scale = b.weight("gamma", &[4], &[1.0; 4]);
            let shared = b.node("Mul", &[x, scale], &[]);
            b.output(shared, float(&[2, 4]));
            b.node("Mul", &[x, scale], &[])
        });
        let scale = b.maker(made).input(1).unwrap();
        smooth(&mut b);
        assert_eq!(b.ops(), ["Mul", "Mul", "MatMul"]);
        assert_eq!(*b.model.constant(scale).unwrap().to_f32().unwrap(), [1.0; 4]);
    }

    #[test]
    fn layers_that_share_an_activation_share_one_division() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 4]));
        for seed in 1..3 {
            let w = b.weight(&format!("W{seed}"), &[4, 8], &noise(32, seed));
            let y = b.node("MatMul", &[x, w], &[]);
            b.output(y, float(&[2, 8]));
        }
        modelopt_graph::infer::infer(&mut b.model);
        let mut plan = crate::plan(&b.model, &options(Scheme::INT8_DYNAMIC)).unwrap();
        plan.layers.iter_mut().for_each(|layer| layer.smoothing = FACTORS.to_vec());
        for layer in &mut plan.layers {
            layer.scheme = Scheme::KEEP;
        }
        carry_out(&mut b.model, &plan).unwrap();
        assert_eq!(b.ops(), ["Mul", "MatMul", "MatMul"]);
    }
}
