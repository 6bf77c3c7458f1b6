//! What can be computed from constants alone is computed now:
//!
//! ```text
//! Wt = Transpose(W); y = MatMul(x, Wt)
//!   =>
//! y = MatMul(x, Wt')        with initializer Wt'
//! ```
//!
//! Bounded: the result may be no larger than the constants that only this node used (plus what a
//! node costs in the file), so folding never makes the model larger. Quantized weights behind
//! `Cast` or `DequantizeLinear` stay quantized for the same reason.

use modelopt_graph::{DataType, Model, NodeId, Patch, Tensor};

use crate::engine::{Declined, Rewrite};
use crate::evaluate::{self, NotFolded};

/// What a node with its names takes in the file, roughly.
const NODE_BYTES: usize = 128;

pub(crate) struct Fold;

impl Rewrite for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }

    fn propose(&self, model: &Model, id: NodeId) -> Result<Patch, Declined> {
        let node = model.node(id);
        if node.inputs().is_empty() || !node.op.is_onnx() {
            return Err(Declined::NoMatch);
        }
        let mut inputs = Vec::with_capacity(node.inputs().len());
        let mut freed = NODE_BYTES;
        for input in node.inputs() {
            let Some(value) = *input else {
                inputs.push(None);
                continue;
            };
            let tensor = model.constant(value).ok_or(Declined::NoMatch)?;
            if model.value(value).uses().len() == 1 {
                freed += tensor.byte_len();
            }
            inputs.push(Some(tensor));
        }
        if node.op.is("Cast") && inputs.iter().flatten().any(|tensor| is_stored_small(tensor)) {
            return Err(Declined::NoGain("a weight is stored in 16 bits"));
        }
        let outputs = node.outputs().iter().flatten();
        if outputs.clone().any(|&output| model.value(output).is_output()) {
            return Err(Declined::Unsafe("it makes a graph output"));
        }
        let version = model.opset(node.graph(), "").ok_or(Declined::Unsafe("no opset"))?;
        let results =
            evaluate::evaluate(node, version, &inputs, freed).map_err(|error| match error {
                NotFolded::Unsupported => Declined::NoMatch,
                NotFolded::TooLarge => Declined::NoGain("the result is larger than its inputs"),
                NotFolded::Invalid(why) => Declined::Unsafe(why),
            })?;
        if results.iter().map(modelopt_graph::Tensor::byte_len).sum::<usize>() > freed {
            return Err(Declined::NoGain("the result is larger than its inputs"));
        }
        let mut patch = Patch::new();
        patch.remove(id);
        for (output, tensor) in node.outputs().iter().zip(results) {
            if let Some(output) = *output {
                patch.settle(output, node.graph(), tensor.into());
            }
        }
        Ok(patch)
    }
}

/// Whether a constant was put into 16 bits to make the file smaller: it would become larger again
/// by little, and be converted again.
fn is_stored_small(tensor: &Tensor) -> bool {
    matches!(tensor.dtype(), DataType::FLOAT16 | DataType::BFLOAT16) && tensor.byte_len() >= 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::run;
    use crate::testing::{Build, float};

    #[test]
    fn a_chain_of_constants_folds_in_one_go() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[1, 3]));
        let w = b.weight("W", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let t = b.node("Transpose", &[w], &[]);
        let n = b.node("Neg", &[t], &[]);
        let y = b.node("MatMul", &[x, n], &[]);
        b.output(y, float(&[1, 2]));
        assert_eq!(run(&mut b.model, &Fold).unwrap(), 2);
        assert_eq!(b.ops(), ["MatMul"]);
        let folded = b.model.constant(n).unwrap();
        assert_eq!(folded.shape(), [3, 2]);
        assert_eq!(*folded.to_f32().unwrap(), [-1.0, -4.0, -2.0, -5.0, -3.0, -6.0]);
    }

    #[test]
    fn a_shared_weight_is_not_doubled() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[1, 64]));
        let w = b.weight("W", &[64, 64], &[0.5; 4096]);
        let t = b.node("Transpose", &[w], &[]);
        let h = b.node("MatMul", &[x, w], &[]);
        let y = b.node("MatMul", &[h, t], &[]);
        b.output(y, float(&[1, 64]));
        assert_eq!(run(&mut b.model, &Fold).unwrap(), 0);
    }

    #[test]
    fn quantized_weights_stay_small() {
        let mut b = Build::new(17);
        let q = b.int8_weight("W", &[64, 64], &[3; 4096]);
        let f = b.node("Cast", &[q], &[("to", 1.into())]);
        b.output(f, float(&[64, 64]));
        let x = b.node("Neg", &[f], &[]);
        b.output(x, float(&[64, 64]));
        assert_eq!(run(&mut b.model, &Fold).unwrap(), 0);
    }
}
