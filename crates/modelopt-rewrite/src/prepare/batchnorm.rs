//! A BatchNormalization right after a convolution is part of the convolution:
//!
//! ```text
//! c = Conv(x, W, b); y = BatchNormalization(c, scale, B, mean, var)
//!   =>
//! y = Conv(x, W * k, (b - mean) * k + B)     with k = scale / sqrt(var + epsilon)
//! ```
//!
//! `k` runs along the output channels: axis 0 of a Conv's weight, axis 1 of a ConvTranspose's
//! with one group. Not done where something else reads `c` or `W`, in training mode, or where
//! a factor is not finite.

use std::sync::Arc;

use modelopt_graph::{AttributeValue, Model, NodeId, Operand, Patch, Place, Tensor, ValueId};

use crate::engine::{Declined, Rewrite};

pub(super) struct BatchNorm;

impl Rewrite for BatchNorm {
    fn name(&self) -> &'static str {
        "batchnorm"
    }

    fn propose(&self, model: &Model, id: NodeId) -> Result<Patch, Declined> {
        let node = model.node(id);
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else {
            return Err(Declined::NoMatch);
        };
        if !node.op.is("BatchNormalization") {
            return Err(Declined::NoMatch);
        }
        let conv_id = model.producer_node(input).ok_or(Declined::NoMatch)?;
        let conv = model.node(conv_id);
        let axis = match conv.op.name.as_str() {
            "Conv" if conv.op.is_onnx() => 0,
            "ConvTranspose" if conv.op.is_onnx() && conv.int("group", 1) == 1 => 1,
            _ => return Err(Declined::NoMatch),
        };
        if node.int("training_mode", 0) != 0 || node.outputs().iter().skip(1).any(Option::is_some) {
            return Err(Declined::Unsafe("it trains: its statistics are outputs"));
        }
        if node.int("spatial", 1) == 0 {
            return Err(Declined::Unsafe("it normalizes each position by itself"));
        }
        if conv.graph() != node.graph() || model.value(input).uses().len() != 1 {
            return Err(Declined::Unsafe("something else reads the convolution's result"));
        }
        let weight_value = conv.input(1).ok_or(Declined::NoMatch)?;
        let weight = float32(model, weight_value)?;
        if model.value(weight_value).uses().len() != 1 {
            return Err(Declined::NoGain("the weight is shared"));
        }
        let channels = *weight.shape().get(axis).ok_or(Declined::NoMatch)?;
        let statistics = |index: usize| -> Result<Vec<f32>, Declined> {
            let value = node.input(index).ok_or(Declined::NoMatch)?;
            let tensor = float32(model, value)?;
            let numbers = tensor.to_f32().ok_or(Declined::NoMatch)?;
            if numbers.len() == channels {
                Ok(numbers.into_owned())
            } else {
                Err(Declined::Unsafe("its statistics do not fit the weight"))
            }
        };
        let (scale, shift) = (statistics(1)?, statistics(2)?);
        let (mean, variance) = (statistics(3)?, statistics(4)?);
        let epsilon = f64::from(node.float("epsilon", 1e-5));
        let bias = match conv.input(2) {
            None => vec![0.0; channels],
            Some(value) => float32(model, value)?.to_f32().ok_or(Declined::NoMatch)?.into_owned(),
        };
        if bias.len() != channels {
            return Err(Declined::Unsafe("the bias does not fit the weight"));
        }
        let factor: Vec<f64> = scale
            .iter()
            .zip(&variance)
            .map(|(&scale, &variance)| f64::from(scale) / (f64::from(variance) + epsilon).sqrt())
            .collect();
        let folded_bias: Vec<f32> = (0..channels)
            .map(|c| {
                let centred = f64::from(bias[c]) - f64::from(mean[c]);
                (centred * factor[c] + f64::from(shift[c])) as f32
            })
            .collect();
        let folded = scaled(&weight, axis, &factor).ok_or(Declined::NoMatch)?;
        if folded.iter().chain(&folded_bias).any(|x| !x.is_finite()) {
            return Err(Declined::Unsafe("a factor is not finite"));
        }
        let tensor = |shape: &[usize], data: &[f32]| Tensor::of(shape.to_vec(), data).map(Arc::new);
        let (Ok(folded), Ok(folded_bias)) =
            (tensor(weight.shape(), &folded), tensor(&[channels], &folded_bias))
        else {
            return Err(Declined::NoMatch);
        };
        let home = model.home(weight_value).ok_or(Declined::NoMatch)?;
        Ok(replacement(model, conv_id, id, output, home, weight_value, folded, folded_bias))
    }
}

#[allow(clippy::too_many_arguments)] // The parts of one patch.
fn replacement(
    model: &Model,
    conv_id: NodeId,
    norm: NodeId,
    output: ValueId,
    home: modelopt_graph::GraphId,
    weight_value: ValueId,
    weight: Arc<Tensor>,
    bias: Arc<Tensor>,
) -> Patch {
    let conv = model.node(conv_id);
    let mut patch = Patch::new();
    let name = model.value(weight_value).name();
    let folded = patch.constant(home, format!("{name}_bn"), weight);
    let bias = patch.constant(home, format!("{name}_bn_bias"), bias);
    let x = conv.input(0).map_or(Operand::Missing, Operand::Value);
    let attributes: Vec<(&str, AttributeValue)> = conv
        .attributes
        .iter()
        .map(|attribute| (attribute.name.as_str(), attribute.value.clone()))
        .collect();
    patch.remove(conv_id);
    patch.remove(norm);
    patch.node_into(
        Place::Before(norm),
        &conv.op.name,
        conv.name.clone(),
        &[x, folded, bias],
        &attributes,
        output,
    );
    patch
}

fn float32(model: &Model, value: ValueId) -> Result<Arc<Tensor>, Declined> {
    let tensor = model.constant(value).ok_or(Declined::Unsafe("a parameter is not constant"))?;
    if tensor.dtype() == modelopt_graph::DataType::FLOAT {
        Ok(tensor)
    } else {
        Err(Declined::Unsafe("a parameter is not float32"))
    }
}

/// The weight with every slice along `axis` multiplied by its factor.
fn scaled(weight: &Tensor, axis: usize, factor: &[f64]) -> Option<Vec<f32>> {
    let inner: usize = weight.shape().iter().skip(axis + 1).product();
    let data = weight.to_f32()?;
    let mut out = Vec::with_capacity(data.len());
    for (block, chunk) in data.chunks_exact(inner.max(1)).enumerate() {
        let k = factor[block % factor.len()];
        out.extend(chunk.iter().map(|&x| (f64::from(x) * k) as f32));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;
    use crate::engine::run;
    use crate::testing::{Build, float};

    fn conv_norm(b: &mut Build) -> (ValueId, ValueId) {
        let x = b.input("x", float(&[1, 1, 4, 4]));
        let w = b.weight("W", &[2, 1, 1, 1], &[1.0, 2.0]);
        let bias = b.weight("b", &[2], &[0.5, -0.5]);
        let c = b.node("Conv", &[x, w, bias], &[]);
        let [scale, shift, mean, variance] =
            [("s", [2.0, 3.0]), ("B", [1.0, 0.0]), ("m", [0.5, 0.5]), ("v", [4.0, 1.0])]
                .map(|(name, data)| b.weight(name, &[2], &data));
        let attributes = [("epsilon", 0f32.into())];
        let y = b.node("BatchNormalization", &[c, scale, shift, mean, variance], &attributes);
        b.output(y, float(&[1, 2, 4, 4]));
        (c, y)
    }

    #[test]
    fn weight_and_bias_take_the_normalization_in() {
        let mut b = Build::new(15);
        let (_, y) = conv_norm(&mut b);
        assert_eq!(run(&mut b.model, &BatchNorm).unwrap(), 1);
        assert_eq!(b.ops(), ["Conv"]);
        let conv = b.model.node(b.model.producer_node(y).unwrap());
        let constant = |index| b.model.constant(conv.input(index).unwrap()).unwrap();
        // k = [2 / 2, 3 / 1]
        assert_relative_eq!(&*constant(1).to_f32().unwrap(), [1.0, 6.0].as_slice());
        assert_relative_eq!(&*constant(2).to_f32().unwrap(), [1.0, -3.0].as_slice());
    }

    #[test]
    fn a_convolution_that_is_read_twice_stays() {
        let mut b = Build::new(15);
        let (c, _) = conv_norm(&mut b);
        let z = b.node("Relu", &[c], &[]);
        b.output(z, float(&[1, 2, 4, 4]));
        assert_eq!(run(&mut b.model, &BatchNorm).unwrap(), 0);
    }
}
