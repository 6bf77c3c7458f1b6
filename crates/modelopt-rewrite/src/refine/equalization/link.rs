//! Layers with a tensor between them whose channels can be divided by factors.

use std::collections::HashSet;
use std::sync::Arc;

use modelopt_graph::{DataType, Model, Node, NodeId, Producer, Tensor, ValueId};

use crate::statistics::ChannelAxis;

/// The layer that makes a tensor, those that read it or what is made of it channel by channel, and all
/// tensors between them.
pub(super) struct Link {
    pub(super) maker: NodeId,
    /// What the maker makes.
    pub(super) made: ValueId,
    /// How many channels the tensors between have.
    pub(super) channels: usize,
    /// What is made of `made` on the way, each with the node that makes it and what that reads; nothing
    /// comes before what it is made of.
    pub(super) steps: Vec<Step>,
    /// The layers that read, with what each reads.
    pub(super) readers: Vec<Reading>,
}

/// A layer, and what it reads.
type Reading = (NodeId, ValueId);

/// A tensor made channel by channel of another.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) from: ValueId,
    pub(super) by: NodeId,
    pub(super) to: ValueId,
}

/// How the numbers of a weight belong to input and output channels.
pub(super) struct Layout {
    axis: ChannelAxis,
    /// The first two dimensions.
    rows: usize,
    columns: usize,
    /// Numbers of one row and column.
    pub(super) taps: usize,
    groups: usize,
    /// Whether rows are input channels.
    by_input: bool,
}

impl Layout {
    /// That of a layer's weight, where it is constant and nobody else reads it.
    pub(super) fn of(model: &Model, id: NodeId) -> Option<(Self, Arc<Tensor>)> {
        let node = model.node(id);
        let tensor = own(model, node.input(1)?)?;
        let (&[rows, columns], taps) = tensor.shape().split_first_chunk::<2>()?;
        let (axis, by_input) = match node.op.name.as_str() {
            _ if !node.op.is_onnx() || node.graph() != model.main() => return None,
            "Conv" => (ChannelAxis::Second, false),
            "ConvTranspose" => (ChannelAxis::Second, true),
            "Gemm" if node.int("transA", 0) == 0 && taps.is_empty() => {
                (ChannelAxis::Last, node.int("transB", 0) == 0)
            }
            "MatMul" if taps.is_empty() => (ChannelAxis::Last, true),
            _ => return None,
        };
        let groups = if axis == ChannelAxis::Second { node.int("group", 1) } else { 1 };
        let groups = usize::try_from(groups).ok().filter(|&groups| groups > 0)?;
        let fits = rows > 0 && columns > 0 && rows % groups == 0 && !tensor.is_empty();
        let taps = taps.iter().product();
        fits.then_some((Layout { axis, rows, columns, taps, groups, by_input }, tensor))
    }

    pub(super) fn inputs(&self) -> usize {
        if self.by_input { self.rows } else { self.columns * self.groups }
    }

    pub(super) fn outputs(&self) -> usize {
        if self.by_input { self.columns * self.groups } else { self.rows }
    }

    /// The input and the output channel of the numbers at a row and column.
    pub(super) fn channels(&self, block: usize) -> (usize, usize) {
        let (row, column) = (block / self.columns, block % self.columns);
        let group = row / (self.rows / self.groups);
        let other = group * self.columns + column;
        if self.by_input { (row, other) } else { (other, row) }
    }
}

/// A float32 initializer that is no output, and that one node reads, once.
fn own(model: &Model, value: ValueId) -> Option<Arc<Tensor>> {
    let found = model.value(value);
    let is_own = matches!(found.producer(), Producer::Initializer(_)) && found.uses().len() == 1;
    model.constant(value).filter(|tensor| is_own && tensor.dtype() == DataType::FLOAT)
}

/// Whether an operator computes each channel by itself, and its result is multiplied by a positive factor
/// where its input is.
fn passes(model: &Model, node: &Node, axis: ChannelAxis) -> bool {
    let is_plain = node.op.is_onnx()
        && node.graph() == model.main()
        && node.outputs().iter().flatten().count() == 1;
    is_plain
        && match node.op.name.as_str() {
            "Relu" | "LeakyRelu" | "PRelu" | "Identity" => true,
            // Others train, or have trained by default once.
            "Dropout" => {
                let version = model.opset(node.graph(), "").unwrap_or_default();
                version >= 7 && node.input(2).is_none()
            }
            "MaxPool" | "AveragePool" | "GlobalMaxPool" | "GlobalAveragePool" => {
                axis == ChannelAxis::Second
            }
            _ => false,
        }
}

impl Link {
    /// The link that a tensor belongs to, if it can be divided.
    pub(super) fn around(model: &Model, tensor: ValueId) -> Option<Self> {
        let mut made = tensor;
        let (maker, layout) = loop {
            let id = model.producer_node(made)?;
            if let Some((layout, _)) = Layout::of(model, id) {
                break (id, layout);
            }
            let node = model.node(id);
            // Both kinds of channels pass where one does; which one it is, the maker tells.
            made = node.input(0).filter(|_| passes(model, node, ChannelAxis::Second))?;
        };
        let bias = model.node(maker).input(2).map(|bias| own(model, bias));
        let fits = bias.is_none_or(|bias| is_by_channel(bias.as_deref(), layout.outputs()));
        let (steps, readers) = fits.then(|| onwards(model, made, &layout)).flatten()?;
        let link = Link { maker, made, channels: layout.outputs(), steps, readers };
        let is_there = link.values().any(|value| value == tensor);
        is_there.then_some(link)
    }

    /// All tensors that are divided.
    pub(super) fn values(&self) -> impl Iterator<Item = ValueId> + '_ {
        std::iter::once(self.made).chain(self.steps.iter().map(|step| step.to))
    }

    /// All layers whose weights change.
    pub(super) fn layers(&self) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::once(self.maker).chain(self.readers.iter().map(|&(node, _)| node))
    }

    /// The weights and biases where the tensor is divided by factors, unless one of their numbers would
    /// lose digits, or be infinite.
    pub(super) fn scaled(&self, model: &Model, factors: &[f32]) -> Option<Vec<(ValueId, Tensor)>> {
        let inverse: Vec<f32> = factors.iter().map(|factor| 1.0 / factor).collect();
        let mut constants = Vec::new();
        let node = model.node(self.maker);
        let (layout, tensor) = Layout::of(model, self.maker)?;
        let factor = |block: usize| inverse.get(layout.channels(block).1).copied();
        constants.push((node.input(1)?, multiplied(&tensor, layout.taps, &factor)?));
        if let Some(value) = node.input(2) {
            let bias = own(model, value)?;
            constants.push((value, multiplied(&bias, 1, &|at| inverse.get(at).copied())?));
        }
        for &(reader, _) in &self.readers {
            let (layout, tensor) = Layout::of(model, reader)?;
            let factor = |block: usize| factors.get(layout.channels(block).0).copied();
            let scaled = multiplied(&tensor, layout.taps, &factor)?;
            constants.push((model.node(reader).input(1)?, scaled));
        }
        Some(constants)
    }
}

/// Whether a bias has one number for each channel, along its last dimension.
fn is_by_channel(bias: Option<&Tensor>, channels: usize) -> bool {
    let of = |bias: &Tensor| bias.len() == channels && bias.shape().last() == Some(&channels);
    bias.is_some_and(of)
}

/// What is made of a tensor channel by channel, up to the layers that read; none where something else reads.
fn onwards(model: &Model, made: ValueId, layout: &Layout) -> Option<(Vec<Step>, Vec<Reading>)> {
    let (mut steps, mut readers) = (Vec::new(), Vec::new());
    let mut known: HashSet<NodeId> = HashSet::new();
    let mut next = vec![made];
    while let Some(from) = next.pop() {
        let value = model.value(from);
        if value.is_output() || value.uses().is_empty() {
            return None;
        }
        for (by, input) in model.consumers(from) {
            let node = model.node(by);
            if input != 0 || !known.insert(by) {
                return None;
            }
            if passes(model, node, layout.axis) {
                let to = node.output(0)?;
                steps.push(Step { from, by, to });
                next.push(to);
                continue;
            }
            let (reader, _) = Layout::of(model, by)?;
            let fits = reader.axis == layout.axis && reader.inputs() == layout.outputs();
            readers.push(fits.then_some((by, from))?);
        }
    }
    Some((steps, readers))
}

/// Numbers with blocks of so many multiplied by factors, where that changes no digit of any.
fn multiplied(
    tensor: &Tensor,
    block: usize,
    factor: &dyn Fn(usize) -> Option<f32>,
) -> Option<Tensor> {
    let numbers = tensor.to_f32()?;
    let mut scaled = Vec::with_capacity(numbers.len());
    for (place, numbers) in numbers.chunks(block.max(1)).enumerate() {
        let factor = factor(place)?;
        for &x in numbers {
            let product = x * factor;
            scaled.push((x == 0.0 || product.is_normal()).then_some(product)?);
        }
    }
    Tensor::of(tensor.shape().to_vec(), &scaled).ok()
}
