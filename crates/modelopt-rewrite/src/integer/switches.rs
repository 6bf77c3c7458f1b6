//! The error of each quantized tensor under a switch of its own: see [`crate::switchboard`].
//!
//! ```text
//! t = Conv(x)   =>   t_float = Conv(x);  t = Add(t_float, Mul(Sub(DQ(Q(t_float)), t_float), s))
//! ```

use indexmap::IndexMap;
use modelopt_graph::{Model, Patch, ValueId};

use super::affine::Affine;
use super::emit::{Line, made, set_apart};
use super::regions::Regions;
use crate::error_switch;

/// Puts the errors of tensors under switches; says which have one, in the order of their switches.
pub(crate) fn disturb(
    model: &mut Model,
    regions: &Regions,
    table: &IndexMap<ValueId, Affine>,
    settings: ValueId,
    first: usize,
) -> Vec<ValueId> {
    let made = made(model, regions);
    let mut disturbed = Vec::new();
    for &tensor in &regions.tensors {
        let Some(&affine) = table.get(&tensor) else { continue };
        let readers = regions.readers(model, tensor);
        let for_all = made.contains_key(&tensor);
        if !for_all && readers.is_empty() {
            continue;
        }
        let source = if for_all { set_apart(model, tensor) } else { tensor };
        let at = (settings, first + disturbed.len());
        let output = for_all.then_some(tensor);
        let result = switched(model, tensor, (source, affine), at, output);
        if !for_all {
            for (node, input) in readers {
                model.set_input(node, input, Some(result));
            }
        }
        disturbed.push(tensor);
    }
    disturbed
}

/// What is left of a tensor as far as a switch is on.
fn switched(
    model: &mut Model,
    tensor: ValueId,
    (source, affine): (ValueId, Affine),
    at: (ValueId, usize),
    output: Option<ValueId>,
) -> ValueId {
    let name = model.value(tensor).name().to_owned();
    let mut patch = Patch::new();
    error_switch::switch(model, &mut patch, at);
    let Some(&switch) = model.apply(patch).last() else { return source };
    let mut line = Line::behind(model, source);
    if model.producer_node(source).is_none() {
        line = Line::behind(model, switch);
    }
    let constants = Line::constants(model, tensor, affine);
    let quantized = line.quantize(model, tensor, (source, constants));
    let back = line.dequantize(model, (quantized, constants), None);
    let mut node = |op: &str, inputs: [ValueId; 2], output| {
        line.node(model, (op, &format!("{name}_switched")), &inputs, &[], output)
    };
    let error = node("Sub", [back, source], None);
    let error = node("Mul", [error, switch], None);
    node("Add", [source, error], output)
}
