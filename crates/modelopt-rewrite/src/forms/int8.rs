//! What forms share that store weights as int8.

use modelopt_graph::{DataType, Model, Operand, Patch, ValueId};

use super::emission::{self, Dequantized, Emitted, SharedWeight, dequantize};
use crate::layers::{Role, WeightUse};
use crate::quantize::{Channels, Granularity, Recipe, SMALLEST};
use crate::site::{Site, storable};

/// What the nodes and initializers add to the file, roughly.
const PATTERN_BYTES: usize = 300;

/// The first version of `ai.onnx` whose `Mul` broadcasts as numpy does. Before, it does so by
/// attributes, and not along two axes at once; onnxruntime has no kernel for those versions.
const BROADCASTS_SINCE: i64 = 7;

/// The weights of a layer that can be stored as int8, by place, or why none can.
pub(super) fn eligible(site: &Site<'_>) -> Result<Vec<usize>, String> {
    site.int8.get_or_init(|| storable(site, |weight| fits(site, weight))).clone()
}

fn fits(site: &Site<'_>, weight: &WeightUse) -> Result<(), String> {
    let &Site { model, layer, .. } = site;
    match model.opset(model.main(), "") {
        None => return Err("the model imports no operators of ai.onnx, and so no Mul".to_owned()),
        Some(version) if version < BROADCASTS_SINCE => {
            return Err(format!(
                "opset {version} has no Mul that broadcasts (it came with {BROADCASTS_SINCE})"
            ));
        }
        Some(_) => {}
    }
    let tensor = &weight.tensor;
    // Biases and peepholes; directions and gates make them look like matrices.
    let recurrent = matches!(model.node(layer.node).op.name.as_str(), "LSTM" | "GRU" | "RNN");
    let is_bias = recurrent && weight.role == Role::Other;
    if is_bias || tensor.shape().iter().filter(|&&dim| dim > 1).count() < 2 {
        return Err("a vector: it needs its precision, and there is little to gain".to_owned());
    }
    let scales = weight.role.channels(tensor.shape()).map_or(1, |channels| channels.count());
    if tensor.len() + 4 * scales + PATTERN_BYTES >= tensor.byte_len() {
        return Err("int8 with its scales would save nothing".to_owned());
    }
    let Some(numbers) = tensor.to_f32() else {
        return Err("not of a float type".to_owned());
    };
    if numbers.iter().any(|x| !x.is_finite()) {
        return Err("the weight holds NaN or infinity".to_owned());
    }
    if numbers.iter().all(|&x| x.abs() < SMALLEST) {
        return Err("the weight is all zero, or next to it".to_owned());
    }
    Ok(())
}

/// How a weight is stored that is multiplied as integers: one scale for each output channel, or one in all.
pub(super) fn multiplied(weight: &SharedWeight<'_>) -> Option<Recipe> {
    let numerics = weight.numerics;
    let whole = numerics.granularity == Granularity::PerTensor;
    let shape = weight.tensor.shape();
    let channels = if whole { Channels::whole(shape) } else { weight.channels()? };
    Some(Recipe::best_of(shape, vec![channels], numerics.limit()))
}

/// `W = Mul(Cast<to = float>(W_int8), W_scale)`, with another `Mul` for the second set of scales.
pub(super) fn restore(model: &mut Model, weight: ValueId, stored: &Emitted, elem: DataType) {
    let Some(scales) = stored.scales else { return };
    let name = model.value(weight).name().to_owned();
    let mut patch = Patch::new();
    let place = emission::take_over(model, &mut patch, weight, stored.home);
    let factors: Vec<Operand> =
        [Some(scales), stored.input_scales].into_iter().flatten().map(Operand::from).collect();
    let values = stored.values.into();
    let stored = Dequantized { name: &name, values, scales: &factors, elem };
    dequantize(&mut patch, place, &stored, weight);
    model.apply(patch);
}
