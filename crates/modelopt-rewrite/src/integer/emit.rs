//! Quantizes the tensors of a table, so that what reads and makes them computes on integers.
//!
//! ```text
//! made on integers     t = Conv(x)     =>  t_float = Conv(x);  t = DQ(Q(t_float))
//! with what cuts off   t = Relu(Conv(x))  =>  t = DQ(Q(Conv(x)))    the range ends at 0
//! made as float        y = Add(t, u)   =>  y = Add(DQ(Q(t)), u)      for who computes on integers
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::{
    AttributeValue, Constant, DataType, Dim, Model, NodeId, Operand, Patch, Place, Producer,
    Tensor, Type, ValueId,
};

use super::affine::Affine;
use super::kernels::{Kernel, bounds, end, kernel, numbers};
use super::regions::Regions;

/// How much further than where numbers are cut off a range may end: rounding of its step.
const ROUNDING: f32 = 1e-5;

/// Quantizes tensors of the main graph. Weights of layers are integers already.
pub(crate) fn emit(model: &mut Model, regions: &Regions, table: &IndexMap<ValueId, Affine>) {
    let made = made(model, regions);
    for &node in &regions.nodes {
        quantize_constants(model, node);
    }
    for &tensor in &regions.tensors {
        let Some(&affine) = table.get(&tensor) else { continue };
        match made.get(&tensor) {
            Some(&maker) => after_integers(model, regions, (tensor, affine), maker),
            None => after_float(model, regions, tensor, affine),
        }
    }
}

/// What makes a tensor on integers.
#[derive(Clone, Copy)]
pub(super) struct Maker {
    /// The value before numbers are cut off.
    raw: ValueId,
    /// What cuts them off.
    cut: Option<NodeId>,
}

pub(super) fn made(model: &Model, regions: &Regions) -> HashMap<ValueId, Maker> {
    let mut made = HashMap::new();
    for &node in &regions.nodes {
        for &raw in model.node(node).outputs().iter().flatten() {
            let (tensor, cut) = end(model, raw);
            made.insert(tensor, Maker { raw, cut });
        }
    }
    made
}

/// The tensors that are made on integers.
pub(crate) fn made_inside(model: &Model, regions: &Regions) -> HashSet<ValueId> {
    made(model, regions).into_keys().collect()
}

/// A tensor that is made on integers: all who read it read what is left of it.
fn after_integers(
    model: &mut Model,
    regions: &Regions,
    (tensor, affine): (ValueId, Affine),
    Maker { raw, cut }: Maker,
) {
    let saturates = cut.filter(|&cut| {
        let beyond = affine.scale * 255.0 * ROUNDING;
        let within = |(low, high): (f32, f32)| {
            affine.low() >= low - beyond && affine.high() <= high + beyond
        };
        bounds(model, cut).is_some_and(within)
    });
    let source = match saturates {
        Some(cut) => {
            model.remove(cut);
            raw
        }
        None => set_apart(model, tensor),
    };
    let mut line = Line::behind(model, source);
    let constants = Line::constants(model, tensor, affine);
    let quantized = line.quantize(model, tensor, (source, constants));
    line.dequantize(model, (quantized, constants), Some(tensor));
    unfused(model, regions, (tensor, quantized), affine);
}

/// A tensor that is made as float: who computes on integers reads what is left of it.
fn after_float(model: &mut Model, regions: &Regions, tensor: ValueId, affine: Affine) {
    let readers = regions.readers(model, tensor);
    if readers.is_empty() {
        return;
    }
    let mut line = Line::behind(model, tensor);
    let constants = Line::constants(model, tensor, affine);
    let quantized = line.quantize(model, tensor, (tensor, constants));
    let back = line.dequantize(model, (quantized, constants), None);
    for (node, input) in readers {
        model.set_input(node, input, Some(back));
    }
}

/// Lets what makes a tensor make another value, so that the tensor can be made from it.
pub(super) fn set_apart(model: &mut Model, tensor: ValueId) -> ValueId {
    let fresh = model.fresh_name(&format!("{}_float", model.value(tensor).name()));
    let source = model.add_value(fresh);
    model.set_type(source, model.value(tensor).ty().cloned());
    if let Producer::Node(node, output) = model.value(tensor).producer() {
        model.set_output(node, output as usize, source);
    }
    source
}

/// Layers that stay float read a tensor channel by channel, which is the same numbers: onnxruntime takes a
/// convolution between a `DequantizeLinear` and a `QuantizeLinear` to be one of integers and rounds its
/// weights, all channels alike.
fn unfused(
    model: &mut Model,
    regions: &Regions,
    (tensor, quantized): (ValueId, ValueId),
    affine: Affine,
) {
    let is_float = |&(node, input): &(NodeId, usize)| {
        input == 0
            && kernel(model.node(node)) == Some(Kernel::Product)
            && !regions.nodes.contains(&node)
    };
    let readers: Vec<(NodeId, usize)> = model.consumers(tensor).filter(is_float).collect();
    let shape = model.value(tensor).ty().and_then(Type::shape);
    let Some(&Dim::Fixed(channels)) = shape.and_then(|shape| shape.get(1)) else { return };
    if readers.is_empty() {
        return;
    }
    let name = model.value(tensor).name().to_owned();
    let mut line = Line::behind(model, tensor);
    let [scales, zeros] = Line::by_channel(model, tensor, affine, channels);
    let inputs = [quantized, scales, zeros];
    let axis = [("axis", 1.into())];
    let back =
        line.node(model, ("DequantizeLinear", &format!("{name}_by_channel")), &inputs, &axis, None);
    for (node, input) in readers {
        model.set_input(node, input, Some(back));
    }
}

/// An initializer of the main graph.
fn constant(model: &mut Model, name: &str, tensor: Tensor) -> ValueId {
    let value = model.fresh_name(name);
    let value = model.add_value(value);
    model.set_constant(model.main(), value, Constant::Dense(Arc::new(tensor)));
    value
}

/// Nodes in a row, each behind the one before.
pub(super) struct Line {
    place: Place,
}

impl Line {
    /// Behind what makes a value.
    pub(super) fn behind(model: &Model, value: ValueId) -> Self {
        let place = model.producer_node(value).map_or(Place::Front(model.main()), Place::After);
        Line { place }
    }

    /// Adds a node that makes a new value, or one that nothing makes.
    pub(super) fn node(
        &mut self,
        model: &mut Model,
        (op, name): (&str, &str),
        inputs: &[ValueId],
        attributes: &[(&str, AttributeValue)],
        output: Option<ValueId>,
    ) -> ValueId {
        let operands: Vec<Operand> = inputs.iter().copied().map(Operand::from).collect();
        let mut patch = Patch::new();
        let made = if let Some(output) = output {
            patch.node_into(self.place, op, name, &operands, attributes, output);
            model.apply(patch);
            output
        } else {
            patch.node(self.place, op, name, &operands, attributes);
            model.apply(patch).last().copied().unwrap_or(inputs[0])
        };
        self.place = model.producer_node(made).map_or(self.place, Place::After);
        made
    }

    /// Scale and zero point of a tensor.
    pub(super) fn constants(model: &mut Model, tensor: ValueId, affine: Affine) -> [ValueId; 2] {
        let name = model.value(tensor).name().to_owned();
        [
            constant(model, &format!("{name}_scale"), Tensor::scalar(affine.scale)),
            constant(model, &format!("{name}_zero_point"), Tensor::scalar(affine.zero)),
        ]
    }

    /// The same for each channel.
    fn by_channel(
        model: &mut Model,
        tensor: ValueId,
        affine: Affine,
        channels: usize,
    ) -> [ValueId; 2] {
        let name = model.value(tensor).name().to_owned();
        let scales = Tensor::of(vec![channels], &vec![affine.scale; channels]);
        let zeros = Tensor::of(vec![channels], &vec![affine.zero; channels]);
        let scales = scales.unwrap_or(Tensor::scalar(affine.scale));
        let zeros = zeros.unwrap_or(Tensor::scalar(affine.zero));
        [
            constant(model, &format!("{name}_scales"), scales),
            constant(model, &format!("{name}_zero_points"), zeros),
        ]
    }

    /// `QuantizeLinear` of a source of a tensor.
    pub(super) fn quantize(
        &mut self,
        model: &mut Model,
        tensor: ValueId,
        (source, [scale, zero]): (ValueId, [ValueId; 2]),
    ) -> ValueId {
        let name = format!("{}_quantized", model.value(tensor).name());
        self.node(model, ("QuantizeLinear", &name), &[source, scale, zero], &[], None)
    }

    /// `DequantizeLinear` of what was quantized.
    pub(super) fn dequantize(
        &mut self,
        model: &mut Model,
        (quantized, [scale, zero]): (ValueId, [ValueId; 2]),
        output: Option<ValueId>,
    ) -> ValueId {
        let base = model.value(output.unwrap_or(quantized)).name();
        let name = format!("{}_dequantized", base.trim_end_matches("_quantized"));
        let inputs = [quantized, scale, zero];
        self.node(model, ("DequantizeLinear", &name), &inputs, &[], output)
    }
}

/// Quantizes what a node computes with that is constant: `Add(x, c)` becomes `Add(x, DQ(c_uint8))`.
fn quantize_constants(model: &mut Model, id: NodeId) {
    let node = model.node(id);
    if kernel(node) == Some(Kernel::Product) {
        return;
    }
    for place in numbers(node) {
        let Some(value) = model.node(id).input(place) else { continue };
        let Some(tensor) = model.constant(value).filter(|t| t.dtype() == DataType::FLOAT) else {
            continue;
        };
        let Some(numbers) = tensor.to_f32() else { continue };
        let Some(affine) = Affine::of_numbers(&numbers) else { continue };
        let values: Vec<u8> = numbers.iter().map(|&x| affine.quantize(x)).collect();
        let Ok(values) = Tensor::of(tensor.shape().to_vec(), &values) else { continue };
        let name = model.value(value).name().to_owned();
        let values = constant(model, &format!("{name}_uint8"), values);
        let mut line = Line { place: Place::Before(id) };
        let constants = Line::constants(model, value, affine);
        let back = line.dequantize(model, (values, constants), None);
        model.set_input(id, place, Some(back));
    }
}
