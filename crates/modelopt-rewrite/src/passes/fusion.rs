//! What fusions into one operator have in common.

use modelopt_graph::{AttributeValue, DataType, Model, Operand, Patch, Place, ValueId};

use crate::engine::Declined;
use crate::pattern::Match;

/// Whether the graph of the match has an operator that `ai.onnx` has from `since` on.
pub(super) fn has_opset(model: &Model, found: &Match, since: i64) -> Result<(), Declined> {
    match model.opset(model.node(found.root()).graph(), "") {
        Some(version) if version >= since => Ok(()),
        _ => Err(Declined::Unsafe("the model's opset does not have the operator yet")),
    }
}

/// Whether the pattern computes in float32: the fused operators would round 16-bit numbers at other
/// places, and integers are not theirs.
pub(super) fn is_float32(model: &Model, value: ValueId) -> Result<(), Declined> {
    if model.value(value).elem() == Some(DataType::FLOAT) {
        Ok(())
    } else {
        Err(Declined::Unsafe("it is not known to compute in float32"))
    }
}

/// One operator in place of everything that was matched; `patch` has the constants it reads.
pub(super) fn replace(
    model: &Model,
    found: &Match,
    mut patch: Patch,
    op: &str,
    inputs: &[Operand],
    attributes: &[(&str, AttributeValue)],
) -> Result<Patch, Declined> {
    let output = model.node(found.root()).output(0).ok_or(Declined::NoMatch)?;
    for &node in found.nodes() {
        patch.remove(node);
    }
    let name = format!("{}/{op}", model.value(output).name());
    patch.node_into(Place::Before(found.root()), op, name, inputs, attributes, output);
    Ok(patch)
}
