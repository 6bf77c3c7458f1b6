//! A factor and an offset for each channel, taken into the weight and bias of a layer: what fusions of
//! a BatchNormalization, a scale or a shift have in common.

use std::sync::Arc;

use modelopt_graph::{
    AttributeValue, DataType, Model, Node, NodeId, Operand, Patch, Place, Tensor, ValueId,
};

use crate::engine::Declined;

/// `y * factor + offset`, channel by channel.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    pub(super) factor: Vec<f64>,
    pub(super) offset: Vec<f64>,
}

impl Affine {
    /// Whether a factor is not one.
    pub(super) fn scales(&self) -> bool {
        self.factor.iter().any(|&k| (k - 1.0).abs() > 0.0)
    }

    /// Whether an offset is not zero.
    pub(super) fn shifts(&self) -> bool {
        self.offset.iter().any(|&s| s.abs() > 0.0)
    }
}

/// A layer whose result gets a factor and an offset for each of its output channels.
pub(super) struct Layer {
    pub(super) id: NodeId,
    weight: ValueId,
    /// Where the weight's output channels lie.
    axis: usize,
    pub(super) channels: usize,
    /// Dimensions of the result behind the channels.
    pub(super) inner: usize,
}

impl Layer {
    /// A `Conv`, `ConvTranspose` of one group, `Gemm`, or `MatMul` with a matrix.
    pub(super) fn of(model: &Model, id: NodeId) -> Result<Self, Declined> {
        let node = model.node(id);
        let weight = node.input(1).ok_or(Declined::NoMatch)?;
        let tensor =
            model.constant(weight).ok_or(Declined::Unsafe("the weight is not constant"))?;
        let rank = tensor.shape().len();
        let axis = match node.op.name.as_str() {
            "Conv" => 0,
            "ConvTranspose" if node.int("group", 1) == 1 => 1,
            "Gemm" => usize::from(node.int("transB", 0) == 0),
            "MatMul" if rank == 2 => 1,
            _ => return Err(Declined::NoMatch),
        };
        let is_matrix = matches!(node.op.name.as_str(), "Gemm" | "MatMul");
        let inner = if is_matrix { 0 } else { rank.saturating_sub(2) };
        let channels = *tensor.shape().get(axis).ok_or(Declined::NoMatch)?;
        Ok(Layer { id, weight, axis, channels, inner })
    }

    /// Takes the factor and the offset of its result in. `last` makes the scaled result; `removed`
    /// are the nodes in between and `last` itself.
    pub(super) fn absorb(
        &self,
        model: &Model,
        affine: &Affine,
        removed: &[NodeId],
        last: NodeId,
        suffix: &str,
    ) -> Result<Patch, Declined> {
        let node = model.node(self.id);
        let output = model.node(last).output(0).ok_or(Declined::NoMatch)?;
        let mut patch = Patch::new();
        let weight = if affine.scales() {
            self.scaled_weight(model, affine, &mut patch, suffix)?
        } else {
            Operand::Value(self.weight)
        };
        let mut inputs = vec![node.input(0).map_or(Operand::Missing, Operand::Value), weight];
        if affine.shifts() || node.input(2).is_some() {
            let bias = self.moved_bias(model, affine)?;
            let name = format!("{}_{suffix}_bias", model.value(self.weight).name());
            inputs.push(patch.constant(node.graph(), name, bias));
        }
        for &id in removed {
            patch.remove(id);
        }
        patch.node_into(
            Place::Before(last),
            &node.op.name,
            node.name.clone(),
            &inputs,
            &attributes(node),
            output,
        );
        Ok(patch)
    }

    /// The weight times the factors, as a constant of the patch.
    pub(super) fn scaled_weight(
        &self,
        model: &Model,
        affine: &Affine,
        patch: &mut Patch,
        suffix: &str,
    ) -> Result<Operand, Declined> {
        let channels = self.channels.max(1);
        let tensor = float32(model, self.weight)?;
        let inner: usize = tensor.shape().iter().skip(self.axis + 1).product();
        let scaled = rescaled(&tensor, inner, |block| affine.factor[block % channels])?;
        replacement(model, self.weight, scaled, patch, suffix)
    }

    /// The bias times the factors plus the offsets, as a vector.
    fn moved_bias(&self, model: &Model, affine: &Affine) -> Result<Arc<Tensor>, Declined> {
        let node = model.node(self.id);
        // A Gemm multiplies its bias once more.
        let beta = if node.op.is("Gemm") { f64::from(node.float("beta", 1.0)) } else { 1.0 };
        let bias = match node.input(2) {
            None => vec![0.0; self.channels],
            Some(value) => {
                let tensor = float32(model, value)?;
                per_channel(&tensor, self.channels, 0, 2)
                    .ok_or(Declined::Unsafe("the bias does not fit the weight"))?
            }
        };
        let moved: Vec<f32> = bias
            .iter()
            .zip(affine.factor.iter().zip(&affine.offset))
            .map(|(&b, (&k, &s))| (b * k + s / beta) as f32)
            .collect();
        finite(vec![self.channels], &moved)
    }
}

/// A constant of the patch that stands for a weight which only one node reads.
pub(super) fn replacement(
    model: &Model,
    weight: ValueId,
    changed: Arc<Tensor>,
    patch: &mut Patch,
    suffix: &str,
) -> Result<Operand, Declined> {
    if model.value(weight).uses().len() != 1 {
        return Err(Declined::NoGain("the weight is shared"));
    }
    let home = model.home(weight).ok_or(Declined::NoMatch)?;
    Ok(patch.constant(home, format!("{}_{suffix}", model.value(weight).name()), changed))
}

/// A tensor with each block of `inner` elements multiplied by a factor.
pub(super) fn rescaled(
    tensor: &Tensor,
    inner: usize,
    factor: impl Fn(usize) -> f64,
) -> Result<Arc<Tensor>, Declined> {
    let data = tensor.to_f32().ok_or(Declined::NoMatch)?;
    let mut out = Vec::with_capacity(data.len());
    for (block, chunk) in data.chunks_exact(inner.max(1)).enumerate() {
        let k = factor(block);
        out.extend(chunk.iter().map(|&x| (f64::from(x) * k) as f32));
    }
    finite(tensor.shape().to_vec(), &out)
}

/// A tensor of these numbers, if none is infinite or NaN.
pub(super) fn finite(shape: Vec<usize>, data: &[f32]) -> Result<Arc<Tensor>, Declined> {
    if data.iter().any(|x| !x.is_finite()) {
        return Err(Declined::Unsafe("a factor is not finite"));
    }
    Tensor::of(shape, data).map(Arc::new).map_err(|_| Declined::NoMatch)
}

/// A constant float32 tensor.
pub(super) fn float32(model: &Model, value: ValueId) -> Result<Arc<Tensor>, Declined> {
    let tensor = model.constant(value).ok_or(Declined::Unsafe("a parameter is not constant"))?;
    if tensor.dtype() == DataType::FLOAT {
        Ok(tensor)
    } else {
        Err(Declined::Unsafe("a parameter is not float32"))
    }
}

/// The number for each channel that a constant broadcasts to, along the axis that has `inner` others
/// behind it. `None` where it differs within a channel, or has more than `rank` dimensions and so would
/// add some.
pub(super) fn per_channel(
    tensor: &Tensor,
    channels: usize,
    inner: usize,
    rank: usize,
) -> Option<Vec<f64>> {
    let numbers = tensor.to_f32()?;
    let shape = tensor.shape();
    if shape.len() > rank {
        return None;
    }
    if let [number] = *numbers {
        return Some(vec![f64::from(number); channels]);
    }
    let axis = shape.len().checked_sub(inner + 1)?;
    let fits =
        shape.iter().enumerate().all(|(i, &size)| size == if i == axis { channels } else { 1 });
    fits.then(|| numbers.iter().map(|&x| f64::from(x)).collect())
}

/// The attributes of a node, for a node that takes its place.
pub(super) fn attributes(node: &Node) -> Vec<(&str, AttributeValue)> {
    node.attributes
        .iter()
        .map(|attribute| (attribute.name.as_str(), attribute.value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(shape: &[usize], inner: usize, rank: usize) -> Option<Vec<f64>> {
        let data: Vec<f32> = (0..shape.iter().product()).map(|x| x as f32).collect();
        per_channel(&Tensor::of(shape.to_vec(), &data).unwrap(), 3, inner, rank)
    }

    #[test]
    fn a_constant_broadcasts_to_channels_or_does_not() {
        assert_eq!(numbers(&[3, 1, 1], 2, 4), Some(vec![0.0, 1.0, 2.0]));
        assert_eq!(numbers(&[1, 3, 1, 1], 2, 4), Some(vec![0.0, 1.0, 2.0]));
        assert_eq!(numbers(&[1], 2, 4), Some(vec![0.0; 3]));
        assert_eq!(numbers(&[], 0, 2), Some(vec![0.0; 3]));
        // Along the last axis of an image, by batch, by element, and with one dimension too many.
        assert_eq!(numbers(&[3], 2, 4), None);
        assert_eq!(numbers(&[3, 1, 1, 1], 2, 4), None);
        assert_eq!(numbers(&[3, 2, 2], 2, 4), None);
        assert_eq!(numbers(&[1, 1, 3, 1, 1], 2, 4), None);
        assert_eq!(numbers(&[1, 1, 1, 1, 1], 2, 4), None);
    }
}
