//! Bias correction: what rounding the weights adds to the mean of each output is taken from the
//! bias (Nagel et al., "Data-free quantization through weight equalization and bias correction",
//! 2019, section 4.2).
//!
//! ```text
//! y = Conv(x, W, b)       =>   y = Conv(x, W, b + c)
//! y = Gemm(x, W, b)       =>   y = Gemm(x, W, b + c / beta)
//! y = Add(MatMul(x, W), b)  =>   y = Add(MatMul(x, W), b + c)
//! ```
//!
//! A convolution without a bias gets one; a product that no constant is added to stays as it is, and
//! so does one whose bias others share: a copy of it would make the file larger.

use std::sync::Arc;

use modelopt_graph::{DataType, Model, NodeId, Patch, Tensor};

use crate::engine::{self, BrokenRewrite};
use crate::layers;
use crate::plan::Plan;

/// Carries out the bias corrections of a plan.
pub(crate) fn apply(model: &mut Model, plan: &Plan) -> Result<(), BrokenRewrite> {
    let corrections = super::refinements(plan, |line| &line.bias_correction);
    if corrections.is_empty() {
        return Ok(());
    }
    let corrected: Vec<(NodeId, &[f32])> = layers::all(model)
        .into_iter()
        .filter_map(|layer| Some((layer.node, *corrections.get(layer.id.as_str())?)))
        .collect();
    engine::checked(model, "bias-correction", |model| {
        for &(node, correction) in &corrected {
            add(model, node, correction);
        }
        corrected.len()
    })?;
    Ok(())
}

/// Where a bias stands, or could.
struct Slot {
    node: NodeId,
    input: usize,
    /// What the operator multiplies it by.
    factor: f32,
}

/// Whether the output of a layer can be corrected for that many channels.
pub(crate) fn fits(model: &Model, id: NodeId, channels: usize) -> bool {
    let Some(slot) = slot(model, id) else { return false };
    if let Some(bias) = model.node(slot.node).input(slot.input) {
        let alone = model.value(model.resolve(bias)).uses().len() == 1;
        return alone && model.constant(bias).is_some_and(|bias| is_bias(&bias, channels));
    }
    // A new one is to be of the type of the weight.
    let weight = model.node(id).input(1).and_then(|weight| model.constant(weight));
    weight.is_some_and(|weight| weight.dtype() == DataType::FLOAT)
}

fn is_bias(bias: &Tensor, channels: usize) -> bool {
    bias.dtype() == DataType::FLOAT
        && bias.len() == channels
        && bias.shape().last().copied() == Some(channels)
}

fn slot(model: &Model, id: NodeId) -> Option<Slot> {
    let node = model.node(id);
    if !node.op.is_onnx() {
        return None;
    }
    match node.op.name.as_str() {
        "Conv" | "ConvTranspose" => Some(Slot { node: id, input: 2, factor: 1.0 }),
        "Gemm" => {
            let factor = node.float("beta", 1.0);
            (factor != 0.0).then_some(Slot { node: id, input: 2, factor })
        }
        "MatMul" => {
            let output = node.output(0)?;
            let mut readers = model.consumers(output);
            let (add, input) = readers.next().filter(|_| readers.next().is_none())?;
            let sums = model.node(add).op.is("Add") && !model.value(output).is_output();
            sums.then_some(Slot { node: add, input: 1 - input.min(1), factor: 1.0 })
        }
        _ => None,
    }
}

fn add(model: &mut Model, id: NodeId, correction: &[f32]) {
    if !fits(model, id, correction.len()) {
        return;
    }
    let Some(slot) = slot(model, id) else { return };
    let old = model.node(slot.node).input(slot.input);
    let bias = old.and_then(|old| model.constant(old));
    let numbers = bias.as_ref().and_then(|bias| Some(bias.to_f32()?.into_owned()));
    let sums: Vec<f32> = correction
        .iter()
        .enumerate()
        .map(|(index, c)| numbers.as_ref().map_or(0.0, |bias| bias[index]) + c / slot.factor)
        .collect();
    let shape = bias.map_or(vec![sums.len()], |bias| bias.shape().to_vec());
    let Ok(tensor) = Tensor::of(shape, &sums) else { return };
    let home =
        old.and_then(|old| model.home(model.resolve(old))).unwrap_or(model.node(slot.node).graph());
    let base = old.map_or_else(
        || format!("{}_bias", model.node(slot.node).name),
        |old| format!("{}_corrected", model.value(old).name()),
    );
    let mut patch = Patch::new();
    patch.constant(home, base, Arc::new(tensor));
    if let Some(&new) = model.apply(patch).last() {
        model.set_input(slot.node, slot.input, Some(new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Build, float, noise};
    use crate::{Numerics, PlannedLayer, Scheme};

    fn corrected(b: &mut Build) {
        let mut plan = Plan::new(Numerics::default());
        for layer in layers::find(&b.model, 0) {
            let mut line = PlannedLayer::new(layer.id, Scheme::KEEP);
            if layer.weights.iter().any(|weight| weight.tensor.shape().len() > 1) {
                line.bias_correction = vec![0.5, -0.25];
            }
            plan.layers.push(line);
        }
        apply(&mut b.model, &plan).unwrap();
    }

    #[test]
    fn a_product_is_corrected_where_a_constant_is_added_to_it() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[3, 4]));
        let w = b.weight("W", &[4, 2], &noise(8, 1));
        let bias = b.weight("b", &[2], &[1.0, 2.0]);
        let p = b.node("MatMul", &[x, w], &[]);
        let y = b.node("Add", &[bias, p], &[]);
        b.output(y, float(&[3, 2]));
        corrected(&mut b);
        let new = b.maker(y).input(0).unwrap();
        assert_eq!(*b.model.constant(new).unwrap().to_f32().unwrap(), [1.5, 1.75]);
    }

    #[test]
    fn a_bias_that_others_read_is_left_alone() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[3, 4]));
        let w = b.weight("W", &[4, 2], &noise(8, 1));
        let bias = b.weight("b", &[2], &[1.0, 2.0]);
        let p = b.node("MatMul", &[x, w], &[]);
        let y = b.node("Add", &[bias, p], &[]);
        b.output(y, float(&[3, 2]));
        let z = b.node("Neg", &[bias], &[]);
        b.output(z, float(&[2]));
        corrected(&mut b);
        assert_eq!(b.maker(y).input(0), Some(bias));
        assert_eq!(*b.model.constant(bias).unwrap().to_f32().unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn a_convolution_without_a_bias_gets_one() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[1, 4, 3]));
        let w = b.weight("W", &[2, 4, 1], &noise(8, 1));
        let y = b.node("Conv", &[x, w], &[]);
        b.output(y, float(&[1, 2, 3]));
        corrected(&mut b);
        let new = b.maker(y).input(2).unwrap();
        assert_eq!(*b.model.constant(new).unwrap().to_f32().unwrap(), [0.5, -0.25]);
    }

    #[test]
    fn what_is_added_after_beta_is_divided_by_it() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[3, 4]));
        let w = b.weight("W", &[4, 2], &noise(8, 1));
        let bias = b.weight("b", &[2], &[1.0, 2.0]);
        let y = b.node("Gemm", &[x, w, bias], &[("beta", 2f32.into())]);
        b.output(y, float(&[3, 2]));
        corrected(&mut b);
        let new = b.maker(y).input(2).unwrap();
        assert_eq!(*b.model.constant(new).unwrap().to_f32().unwrap(), [1.25, 1.875]);
    }

    #[test]
    fn a_sum_with_an_activation_is_left_alone() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[3, 4]));
        let r = b.input("r", float(&[3, 2]));
        let w = b.weight("W", &[4, 2], &noise(8, 1));
        let p = b.node("MatMul", &[x, w], &[]);
        let y = b.node("Add", &[p, r], &[]);
        b.output(y, float(&[3, 2]));
        corrected(&mut b);
        assert_eq!(b.maker(y).input(1), Some(r));
    }
}
