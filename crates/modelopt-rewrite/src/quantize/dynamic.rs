//! `int8-dynamic`: activations are quantized at run time, the product is of integers.
//!
//! ```text
//! y = MatMul(x, W)
//!   =>
//! x_int8, x_scale, x_zero = DynamicQuantizeLinear(x)          one for all that read x
//! p = Cast<to = float>(MatMulInteger(x_int8, W_int8, x_zero))
//! y = Mul(p, Mul(x_scale, W_scale))
//! ```
//!
//! and for `y = Gemm(x, W, b)`, with `alpha` taken into the scale, `beta` into the bias, and a
//! transposed `W` stored untransposed:
//!
//! ```text
//! y = Add(Mul(p, Mul(x_scale, W_scale)), b)
//! ```
//!
//! In this arrangement onnxruntime fuses all of it into one kernel; the weights are signed,
//! which is what its and rten's fast kernels want.

use std::collections::HashMap;
use std::sync::Arc;

use modelopt_graph::{DataType, GraphId, Model, NodeId, Operand, Patch, Place, Tensor, ValueId};

use super::{Stored, base_name, operand};
use crate::layers::WeightUse;

/// The quantized form of activations, by value and the graph that reads it there.
#[derive(Default)]
pub(super) struct Activations {
    made: HashMap<(ValueId, GraphId, bool), QuantizedActivation>,
}

#[derive(Clone, Copy)]
struct QuantizedActivation {
    values: ValueId,
    scale: ValueId,
    zero: ValueId,
}

pub(super) fn rewrite(
    model: &mut Model,
    id: NodeId,
    weight: &WeightUse,
    stored: &Stored,
    activations: &Activations,
) {
    let node = model.node(id);
    let (Some(x), Some(output)) = (activations.of(model, id), node.output(0)) else { return };
    let gemm = node.op.is("Gemm").then(|| Gemm {
        alpha: node.float("alpha", 1.0),
        beta: node.float("beta", 1.0),
        bias: node.input(2),
    });
    let name = base_name(model, id);
    let before = Place::Before(id);
    let mut patch = Patch::new();
    let scales = output_scales(&mut patch, &name, weight, stored, gemm.as_ref());
    let product = patch.node(
        before,
        "MatMulInteger",
        &name,
        &[x.values.into(), stored.values.into(), x.zero.into()],
        &[],
    );
    let to_float = [("to", i64::from(DataType::FLOAT.number()).into())];
    let float = patch.node(before, "Cast", format!("{name}_float"), &[product], &to_float);
    let scale = patch.node(before, "Mul", format!("{name}_scale"), &[x.scale.into(), scales], &[]);
    let bias = gemm.and_then(|gemm| gemm.scaled_bias(model, &mut patch, &name, id));
    match bias {
        None => patch.node_into(before, "Mul", format!("{name}_mul"), &[float, scale], &[], output),
        Some(bias) => {
            let scaled = patch.node(before, "Mul", format!("{name}_mul"), &[float, scale], &[]);
            patch.node_into(before, "Add", format!("{name}_bias"), &[scaled, bias], &[], output);
        }
    }
    patch.remove(id);
    model.apply(patch);
}

/// The weight's scales as they multiply the product: of rank 1 for a matrix, so that an
/// activation of any rank keeps its own.
fn output_scales(
    patch: &mut Patch,
    name: &str,
    weight: &WeightUse,
    stored: &Stored,
    gemm: Option<&Gemm>,
) -> Operand {
    let alpha = gemm.map_or(1.0, |gemm| gemm.alpha);
    let tensor = &stored.scale_tensor;
    let shape = match tensor.shape() {
        [] => Vec::new(),
        shape if weight.tensor.shape().len() == 2 => vec![shape.iter().product()],
        shape => shape.to_vec(),
    };
    #[allow(clippy::float_cmp)] // Only an exact 1 can be left out.
    if alpha == 1.0 && shape == tensor.shape() {
        return stored.scales.into();
    }
    let scaled: Vec<f32> =
        tensor.to_f32().unwrap_or_default().iter().map(|scale| scale * alpha).collect();
    match Tensor::of(shape, &scaled) {
        Ok(tensor) => patch.constant(stored.home, format!("{name}_scales"), Arc::new(tensor)),
        Err(_) => stored.scales.into(),
    }
}

/// What a Gemm has beyond a MatMul.
struct Gemm {
    alpha: f32,
    beta: f32,
    bias: Option<ValueId>,
}

impl Gemm {
    /// `beta * C`, computed now where `C` is constant.
    fn scaled_bias(
        &self,
        model: &Model,
        patch: &mut Patch,
        name: &str,
        id: NodeId,
    ) -> Option<Operand> {
        let bias = self.bias?;
        #[allow(clippy::float_cmp)] // Exactly 1 is the default.
        if self.beta == 1.0 {
            return Some(operand(Some(bias)));
        }
        if self.beta == 0.0 {
            return None;
        }
        if let Some(tensor) = model.constant(bias)
            && let Some(home) = model.home(bias)
            && let Some(numbers) = tensor.to_f32()
        {
            let scaled: Vec<f32> = numbers.iter().map(|x| x * self.beta).collect();
            let scaled = Tensor::of(tensor.shape().to_vec(), &scaled).ok()?;
            return Some(patch.constant(home, format!("{name}_beta_bias"), Arc::new(scaled)));
        }
        let beta = Arc::new(Tensor::scalar(self.beta));
        let beta = patch.constant(model.node(id).graph(), format!("{name}_beta"), beta);
        let name = format!("{name}_beta_bias");
        Some(patch.node(Place::Before(id), "Mul", name, &[bias.into(), beta], &[]))
    }
}

impl Activations {
    /// Quantizes the activation of a layer right before it, unless an earlier layer of the same
    /// graph did. To be called for all dynamic layers in model order, before any is rewritten.
    pub(super) fn quantize(&mut self, model: &mut Model, reader: NodeId) {
        let Some((value, transposed)) = activation(model, reader) else { return };
        let graph = model.node(reader).graph();
        if self.made.contains_key(&(value, graph, transposed)) {
            return;
        }
        let before = Place::Before(reader);
        let name = model.value(value).name().to_owned();
        let mut patch = Patch::new();
        let source = if transposed {
            let perm = [("perm", vec![1, 0].into())];
            patch.node(before, "Transpose", format!("{name}_transposed"), &[value.into()], &perm)
        } else {
            value.into()
        };
        let name = format!("{name}_quantized");
        let [_, _, _] = patch.node_with(before, "DynamicQuantizeLinear", name, &[source], &[]);
        if let [.., values, scale, zero] = model.apply(patch)[..] {
            let quantized = QuantizedActivation { values, scale, zero };
            self.made.insert((value, graph, transposed), quantized);
        }
    }

    fn of(&self, model: &Model, reader: NodeId) -> Option<QuantizedActivation> {
        let (value, transposed) = activation(model, reader)?;
        self.made.get(&(value, model.node(reader).graph(), transposed)).copied()
    }
}

/// The activation of a MatMul or Gemm, and whether it is read transposed.
fn activation(model: &Model, reader: NodeId) -> Option<(ValueId, bool)> {
    let node = model.node(reader);
    Some((node.input(0)?, node.op.is("Gemm") && node.int("transA", 0) != 0))
}
