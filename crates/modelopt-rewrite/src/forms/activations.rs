//! Activations that are quantized at run time, once for all layers of a graph that read them.

use std::collections::HashMap;
use std::sync::Arc;

use modelopt_graph::{GraphId, Model, NodeId, Patch, Place, Tensor, ValueId};

/// The quantized form of activations, by value and the graph that reads it there.
#[derive(Default)]
pub(crate) struct QuantizedActivations {
    made: HashMap<(ValueId, GraphId, bool), QuantizedActivation>,
    /// The zero point of all weights, by outermost graph.
    weight_zeros: HashMap<GraphId, ValueId>,
}

#[derive(Clone, Copy)]
pub(super) struct QuantizedActivation {
    pub(super) values: ValueId,
    pub(super) scale: ValueId,
    pub(super) zero: ValueId,
    pub(super) weight_zero: ValueId,
}

impl QuantizedActivations {
    /// Quantizes the activation of a layer right before it, unless an earlier layer of the same
    /// graph did. To be called for all dynamic layers in model order, before any is rewritten.
    pub(super) fn quantize(&mut self, model: &mut Model, reader: NodeId) {
        let Some((value, transposed)) = activation(model, reader) else { return };
        let graph = model.node(reader).graph();
        if self.made.contains_key(&(value, graph, transposed)) {
            return;
        }
        let Some(weight_zero) = self.weight_zero(model, graph) else { return };
        let before = Place::Before(reader);
        let name = model.value(value).name().to_owned();
        let mut patch = Patch::new();
        let source = if transposed {
            let perm = [("perm", vec![1, 0].into())];
            patch.node(before, "Transpose", format!("{name}_transposed"), &[value.into()], &perm)
        } else {
            value.into()
        };
        let name = format!("{name}_quantized");
        let [_, _, _] = patch.node_with(before, "DynamicQuantizeLinear", name, &[source], &[]);
        if let [.., values, scale, zero] = model.apply(patch)[..] {
            let quantized = QuantizedActivation { values, scale, zero, weight_zero };
            self.made.insert((value, graph, transposed), quantized);
        }
    }

    /// The zero point 0, once for a graph and all that are nested in it: rten fuses only integer
    /// operators that have both zero points.
    fn weight_zero(&mut self, model: &mut Model, graph: GraphId) -> Option<ValueId> {
        let outermost = std::iter::successors(Some(graph), |&graph| model.parent(graph)).last()?;
        if let Some(&zero) = self.weight_zeros.get(&outermost) {
            return Some(zero);
        }
        let mut patch = Patch::new();
        patch.constant(outermost, "weight_zero_point", Arc::new(Tensor::scalar(0i8)));
        let zero = *model.apply(patch).first()?;
        self.weight_zeros.insert(outermost, zero);
        Some(zero)
    }

    pub(super) fn of(&self, model: &Model, reader: NodeId) -> Option<QuantizedActivation> {
        let (value, transposed) = activation(model, reader)?;
        self.made.get(&(value, model.node(reader).graph(), transposed)).copied()
    }
}

/// The activation of a layer, and whether it is read transposed.
fn activation(model: &Model, reader: NodeId) -> Option<(ValueId, bool)> {
    let node = model.node(reader);
    Some((node.input(0)?, node.op.is("Gemm") && node.int("transA", 0) != 0))
}
