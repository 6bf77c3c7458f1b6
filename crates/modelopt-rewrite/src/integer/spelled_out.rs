//! What dequantizes by channel, for models whose `DequantizeLinear` has one scale.
//!
//! ```text
//! w = DequantizeLinear<axis>(q, scales)   =>   w = Mul(Cast(q), scales)
//! x = DequantizeLinear<axis>(q, s, z)     =>   x = Mul(Sub(Cast(q), z), s)    all channels alike
//! ```

use std::sync::Arc;

use modelopt_graph::{DataType, Model, NodeId, Operand, Patch, Place, Tensor};

/// The first version of `ai.onnx` whose `DequantizeLinear` has scales by channel.
const BY_CHANNEL_SINCE: i64 = 13;

/// Spells out what the model's version of the operator cannot express.
pub(super) fn by_channel(model: &mut Model) {
    let version = model.opset(model.main(), "").unwrap_or_default();
    if version >= BY_CHANNEL_SINCE {
        return;
    }
    let nodes: Vec<NodeId> = model.nodes_of(model.main()).collect();
    for id in nodes {
        let node = model.node(id);
        if node.op.is("DequantizeLinear") && node.attribute("axis").is_some() {
            // What it is made of was made beside it, so that there is nothing that does not fit.
            spell_out(model, id).unwrap_or_default();
        }
    }
}

fn spell_out(model: &mut Model, id: NodeId) -> Option<()> {
    let node = model.node(id);
    let (integers, output) = (node.input(0)?, node.output(0)?);
    let axis = usize::try_from(node.int("axis", 1)).ok()?;
    let scales = model.constant(node.input(1)?)?.to_f32()?.into_owned();
    let zeros = match node.input(2) {
        Some(zeros) => model.constant(zeros)?.to_i64()?.into_iter().map(|z| z as f32).collect(),
        None => Vec::new(),
    };
    let rank = model.constant(integers).map(|tensor| tensor.shape().len());
    let name = model.value(output).name().to_owned();
    let (home, before) = (model.main(), Place::Before(id));
    let mut patch = Patch::new();
    patch.remove(id);
    let to = [("to", i64::from(DataType::FLOAT.number()).into())];
    let mut float: Operand =
        patch.node(before, "Cast", format!("{name}_cast"), &[integers.into()], &to);
    if zeros.iter().any(|&zero| zero != 0.0) {
        let zeros = along(&zeros, axis, rank)?;
        let zeros = patch.constant(home, format!("{name}_zeros"), Arc::new(zeros));
        float = patch.node(before, "Sub", format!("{name}_sub"), &[float, zeros], &[]);
    }
    let scales = along(&scales, axis, rank)?;
    let scales = patch.constant(home, format!("{name}_scales"), Arc::new(scales));
    patch.node_into(before, "Mul", format!("{name}_mul"), &[float, scales], &[], output);
    model.apply(patch);
    Some(())
}

/// Numbers that broadcast along an axis: one where all are alike.
fn along(numbers: &[f32], axis: usize, rank: Option<usize>) -> Option<Tensor> {
    let first = *numbers.first()?;
    if numbers.iter().all(|number| number.to_bits() == first.to_bits()) {
        return Some(Tensor::scalar(first));
    }
    let behind = rank?.checked_sub(axis + 1)?;
    let shape: Vec<usize> = std::iter::once(numbers.len()).chain(vec![1; behind]).collect();
    Tensor::of(shape, numbers).ok()
}
