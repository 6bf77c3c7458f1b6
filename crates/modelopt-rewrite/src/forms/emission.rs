//! What forms share when they are carried out: weights that several layers read, quantized
//! activations, and the pieces of graph that compute weights.

use std::collections::HashSet;
use std::sync::Arc;

use modelopt_graph::{
    DataType, GraphId, Model, NodeId, Operand, Owner, Patch, Place, Tensor, ValueId,
};

use indexmap::IndexMap;

use super::activations::QuantizedActivations;
use super::form::Form;
use crate::choices::Numerics;
use crate::integer::Affine;
use crate::layers::{Role, WeightUse};
use crate::memo::Memo;
use crate::quantize::{Channels, StoredWeight};

/// One layer that reads a weight.
pub(crate) struct Use<'a> {
    pub(crate) node: NodeId,
    /// The layer's id.
    pub(crate) id: &'a str,
    pub(crate) weight: &'a WeightUse,
    pub(crate) form: &'static dyn Form,
}

/// A weight that is to be stored in another type, and all layers that will read it so.
pub(crate) struct SharedWeight<'a> {
    pub(crate) tensor: Arc<Tensor>,
    /// Element type in which layers read it.
    pub(crate) elem: DataType,
    /// Where the constant lives.
    pub(crate) home: GraphId,
    /// How it is turned into integers: the same for all layers.
    pub(crate) numerics: Numerics,
    /// The layers that read it, with their forms.
    pub(crate) uses: Vec<Use<'a>>,
}

impl SharedWeight<'_> {
    /// What the layers do with it.
    pub(crate) fn roles(&self) -> impl Iterator<Item = Role> {
        self.uses.iter().map(|layer| layer.weight.role)
    }

    /// Along which indices it has scales of its own, where one of the layers says so.
    pub(crate) fn channels(&self) -> Option<Channels> {
        self.roles().find_map(|role| role.channels(self.tensor.shape()))
    }

    /// The form that it is stored by: the one that has a layout of its own, or the first.
    fn form(&self) -> Option<&'static dyn Form> {
        let forms = || self.uses.iter().map(|layer| layer.form);
        forms().find(|form| form.has_own_layout()).or_else(|| forms().next())
    }

    /// What it turns into.
    pub(crate) fn stored(&self, memo: &Memo) -> Option<StoredWeight> {
        memo.stored(&self.tensor, self.form()?.recipe(self)?)
    }

    /// Whether a layer reads it transposed.
    fn is_transposed(&self) -> bool {
        self.uses.iter().any(|layer| layer.form.transposes(layer.weight.role))
    }

    /// Puts what is stored beside the constant.
    pub(crate) fn emit(
        &self,
        model: &mut Model,
        value: ValueId,
        stored: StoredWeight,
    ) -> Option<Emitted> {
        let values = if self.is_transposed() { transpose(&stored.values) } else { stored.values };
        let name = model.value(value).name().to_owned();
        let kind = self.form()?.sides().weights.name;
        let mut patch = Patch::new();
        patch.constant(self.home, format!("{name}_{kind}"), Arc::new(values));
        for (suffix, tensor) in [("scale", &stored.scales), ("input_scale", &stored.input_scales)] {
            if let Some(tensor) = tensor {
                patch.constant(self.home, format!("{name}_{suffix}"), Arc::new(tensor.clone()));
            }
        }
        let mut made = model.apply(patch).into_iter();
        Some(Emitted {
            values: made.next()?,
            scales: made.next(),
            input_scales: made.next(),
            scale_tensor: stored.scales.unwrap_or_else(|| Tensor::scalar(1f32)),
            home: self.home,
        })
    }
}

/// A stored weight in the model: what patterns build on.
pub(crate) struct Emitted {
    pub(crate) values: ValueId,
    pub(crate) scales: Option<ValueId>,
    pub(crate) input_scales: Option<ValueId>,
    pub(crate) scale_tensor: Tensor,
    pub(crate) home: GraphId,
}

/// What layers share while they are rewritten.
#[derive(Default)]
pub(crate) struct Emission<'a> {
    pub(crate) activations: QuantizedActivations,
    /// How tensors of the plan's table are quantized.
    pub(crate) ranges: IndexMap<ValueId, Affine>,
    /// Ids of the layers whose weights turn into float while the model loads.
    at_load: HashSet<&'a str>,
}

impl<'a> Emission<'a> {
    pub(crate) fn new(
        ranges: IndexMap<ValueId, Affine>,
        at_load: impl Iterator<Item = &'a str>,
    ) -> Self {
        let activations = QuantizedActivations::default();
        Emission { activations, ranges, at_load: at_load.collect() }
    }

    pub(crate) fn is_at_load(&self, layer: &str) -> bool {
        self.at_load.contains(layer)
    }
}

/// Takes the constant away from a weight. Returns where the nodes that compute it go.
pub(crate) fn take_over(model: &Model, patch: &mut Patch, weight: ValueId, home: GraphId) -> Place {
    if let Some(constant) = model.producer_node(weight) {
        // Preparation was told to leave constants in their nodes.
        patch.remove(constant);
        Place::Before(constant)
    } else {
        patch.free(weight);
        Place::Front(innermost(model, weight, home))
    }
}

/// The innermost graph that holds all that read a weight, through branches of `If` alone.
///
/// Runtimes fold constants in a branch before, or without, looking at what the graph around it
/// folded; inside the branch they fold the weight together with what is done to it there. A body
/// of a loop would compute the weight in every turn where it is not folded.
fn innermost(model: &Model, weight: ValueId, home: GraphId) -> GraphId {
    let readers = model.consumers(weight).map(|(node, _)| model.node(node).graph());
    let common = readers.reduce(|a, b| {
        let mut common = a;
        while !(common == b || model.encloses(common, b)) {
            let Some(parent) = model.parent(common) else { return home };
            common = parent;
        }
        common
    });
    let mut innermost = common.unwrap_or(home);
    let mut graph = innermost;
    while graph != home {
        let Some(parent) = model.parent(graph) else { return home };
        let in_branch = match model.owner(graph) {
            Owner::Node(node) => model.node(node).op.is("If"),
            _ => false,
        };
        if !in_branch {
            innermost = parent;
        }
        graph = parent;
    }
    innermost
}

/// Stored values, their scales, and the type that they are read in.
pub(crate) struct Dequantized<'a> {
    /// What its nodes are called after.
    pub(crate) name: &'a str,
    pub(crate) values: Operand,
    pub(crate) scales: &'a [Operand],
    pub(crate) elem: DataType,
}

/// `output = Mul(Cast<to = float>(values), scales)`, one `Mul` for each of the scales, cast to the
/// type that is read where that is not float.
pub(crate) fn dequantize(
    patch: &mut Patch,
    place: Place,
    stored: &Dequantized<'_>,
    output: ValueId,
) {
    let Dequantized { name, values, scales, elem } = *stored;
    let to = |dtype: DataType| [("to", i64::from(dtype.number()).into())];
    let mut steps: Vec<(&str, String, Vec<Operand>, _)> =
        vec![("Cast", format!("{name}_float"), Vec::new(), to(DataType::FLOAT).to_vec())];
    for (index, &scale) in scales.iter().enumerate() {
        let suffix = if index == 0 { "mul" } else { "mul_input" };
        steps.push(("Mul", format!("{name}_{suffix}"), vec![scale], Vec::new()));
    }
    if elem != DataType::FLOAT {
        steps.push(("Cast", format!("{name}_cast"), Vec::new(), to(elem).to_vec()));
    }
    let mut current = values;
    let last = steps.len() - 1;
    for (index, (op, name, others, attributes)) in steps.into_iter().enumerate() {
        let inputs: Vec<Operand> = std::iter::once(current).chain(others).collect();
        if index == last {
            patch.node_into(place, op, name, &inputs, &attributes, output);
        } else {
            current = patch.node(place, op, name, &inputs, &attributes);
        }
    }
}

/// Transposed in blocks of this size, so that both sides stay in cache.
const BLOCK: usize = 64;

/// `[N, K]` to `[K, N]`.
fn transpose(values: &Tensor) -> Tensor {
    let (Some(data), [rows, columns]) = (values.bytes(), values.shape()) else {
        return values.clone();
    };
    let (rows, columns) = (*rows, *columns);
    let mut out = vec![0u8; data.len()];
    for row_block in (0..rows).step_by(BLOCK) {
        for column_block in (0..columns).step_by(BLOCK) {
            for row in row_block..(row_block + BLOCK).min(rows) {
                for column in column_block..(column_block + BLOCK).min(columns) {
                    out[column * rows + row] = data[row * columns + column];
                }
            }
        }
    }
    Tensor::dense(values.dtype(), vec![columns, rows], out).unwrap_or_else(|_| values.clone())
}

/// A name for the parts of a pattern: the node's, or its first output's.
pub(crate) fn base_name(model: &Model, node: modelopt_graph::NodeId) -> String {
    let node = model.node(node);
    if !node.name.is_empty() {
        return node.name.clone();
    }
    let output = node.outputs().iter().flatten().next();
    output.map_or_else(|| node.op.name.clone(), |&output| model.value(output).name().to_owned())
}

/// The operand for an optional input.
pub(crate) fn operand(input: Option<ValueId>) -> Operand {
    input.map_or(Operand::Missing, Operand::Value)
}
