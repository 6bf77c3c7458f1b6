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

use std::sync::LazyLock;

use modelopt_graph::{Model, Node, NodeId, Patch, ValueId};

use super::affine::{Affine, Layer, float32};
use crate::engine::{Declined, Rewrite};
use crate::pattern::{Expr, any, one_of, op, optional};

pub(crate) struct BatchNorm;

static PATTERN: LazyLock<Expr> = LazyLock::new(|| {
    let conv = one_of(&["Conv", "ConvTranspose"], [any("x"), any("W"), optional(any("b"))]);
    let parameters = [any("scale"), any("B"), any("mean"), any("var")];
    let [scale, shift, mean, variance] = parameters;
    op("BatchNormalization", [conv.named("conv"), scale, shift, mean, variance])
});

impl Rewrite for BatchNorm {
    fn name(&self) -> &'static str {
        "batchnorm"
    }

    fn propose(&self, model: &Model, id: NodeId) -> Result<Patch, Declined> {
        let found = PATTERN.find(model, id)?;
        let node = model.node(id);
        if node.int("training_mode", 0) != 0 || node.outputs().iter().skip(1).any(Option::is_some) {
            return Err(Declined::Unsafe("it trains: its statistics are outputs"));
        }
        if node.int("spatial", 1) == 0 {
            return Err(Declined::Unsafe("it normalizes each position by itself"));
        }
        let conv = Layer::of(model, found.node("conv").ok_or(Declined::NoMatch)?)?;
        if model.value(found.required("W")?).uses().len() != 1 {
            return Err(Declined::NoGain("the weight is shared"));
        }
        let parameter = |name: &str| statistics(model, found.required(name)?, conv.channels);
        let affine = normalization(
            node,
            [parameter("scale")?, parameter("B")?, parameter("mean")?, parameter("var")?],
        );
        conv.absorb(model, &affine, found.nodes(), id, "bn")
    }

    fn requires(&self) -> &[&'static str] {
        &["sort", "constants", "fold"]
    }
}

/// The statistics that lie in `value`, one for each channel.
fn statistics(model: &Model, value: ValueId, channels: usize) -> Result<Vec<f64>, Declined> {
    let tensor = float32(model, value)?;
    let numbers = tensor.to_f32().ok_or(Declined::NoMatch)?;
    if numbers.len() == channels {
        Ok(numbers.iter().map(|&x| f64::from(x)).collect())
    } else {
        Err(Declined::Unsafe("its statistics do not fit the weight"))
    }
}

/// What the node does to each channel, from scale, shift, mean and variance.
fn normalization(node: &Node, [scale, shift, mean, variance]: [Vec<f64>; 4]) -> Affine {
    let epsilon = f64::from(node.float("epsilon", 1e-5));
    let factor: Vec<f64> =
        scale.iter().zip(&variance).map(|(scale, var)| scale / (var + epsilon).sqrt()).collect();
    let offset = shift
        .iter()
        .zip(mean.iter().zip(&factor))
        .map(|(shift, (mean, k))| shift - mean * k)
        .collect();
    Affine { factor, offset }
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
