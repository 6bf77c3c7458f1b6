//! A change to a model as data: what a rewrite proposes and [`Model::apply`] carries out.

use std::sync::Arc;

use crate::model::Constant;
use crate::{
    Attribute, AttributeValue, GraphId, Model, NewNode, NodeId, Operator, Origin, Place, Tensor,
    ValueId,
};

/// An input of a node that a patch adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A value of the model.
    Value(ValueId),
    /// A value that the patch itself makes.
    New(usize),
    /// An optional input left out.
    Missing,
}

impl From<ValueId> for Operand {
    fn from(value: ValueId) -> Self {
        Operand::Value(value)
    }
}

/// A node that a patch adds.
#[derive(Clone, Debug)]
pub struct NodeDraft {
    place: Place,
    op: Operator,
    name: String,
    inputs: Vec<Operand>,
    outputs: Vec<Operand>,
    attributes: Vec<Attribute>,
}

/// A value that a patch makes: its name, and its constant if it is an initializer.
type NewValue = (String, Option<(GraphId, Arc<Tensor>)>);

/// A change to a model: nodes to remove, constants and nodes to add.
///
/// New nodes may take over outputs of removed nodes and the values of freed constants, so that
/// everything that reads those values, in any graph, stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    removed: Vec<NodeId>,
    freed: Vec<ValueId>,
    settled: Vec<(ValueId, GraphId, Arc<Tensor>)>,
    redirected: Vec<(ValueId, ValueId)>,
    made: Vec<NewValue>,
    nodes: Vec<NodeDraft>,
}

impl Patch {
    /// A patch that changes nothing yet.
    pub fn new() -> Self {
        Patch::default()
    }

    /// Removes a node. Its outputs must be taken over or be unused.
    pub fn remove(&mut self, node: NodeId) {
        self.removed.push(node);
    }

    /// Takes the constant away from an initializer, so that a node can produce the value.
    pub fn free(&mut self, initializer: ValueId) {
        self.freed.push(initializer);
    }

    /// Makes a value whose node is removed an initializer under its own name.
    pub fn settle(&mut self, value: ValueId, graph: GraphId, tensor: Arc<Tensor>) {
        self.settled.push((value, graph, tensor));
    }

    /// Lets all nodes that read `old` read `new`.
    pub fn redirect(&mut self, old: ValueId, new: ValueId) {
        self.redirected.push((old, new));
    }

    /// Adds an initializer; `name` is made unique.
    pub fn constant(
        &mut self,
        graph: GraphId,
        name: impl Into<String>,
        tensor: Arc<Tensor>,
    ) -> Operand {
        self.made.push((name.into(), Some((graph, tensor))));
        Operand::New(self.made.len() - 1)
    }

    /// Adds an `ai.onnx` node with one new output; `name` is made unique and serves for both.
    /// Nodes that one patch puts to the front of a graph come in the order they were added.
    pub fn node(
        &mut self,
        place: Place,
        op: &str,
        name: impl Into<String>,
        inputs: &[Operand],
        attributes: &[(&str, AttributeValue)],
    ) -> Operand {
        let [output] = self.node_with(place, op, name, inputs, attributes);
        output
    }

    /// Adds an `ai.onnx` node with `N` new outputs.
    pub fn node_with<const N: usize>(
        &mut self,
        place: Place,
        op: &str,
        name: impl Into<String>,
        inputs: &[Operand],
        attributes: &[(&str, AttributeValue)],
    ) -> [Operand; N] {
        let name = name.into();
        let first = self.made.len();
        for index in 0..N {
            let name = if N == 1 { name.clone() } else { format!("{name}_{index}") };
            self.made.push((name, None));
        }
        let outputs = std::array::from_fn(|index| Operand::New(first + index));
        self.draft(place, op, name, inputs, outputs.to_vec(), attributes);
        outputs
    }

    /// Adds an `ai.onnx` node that takes over an existing value as its only output.
    pub fn node_into(
        &mut self,
        place: Place,
        op: &str,
        name: impl Into<String>,
        inputs: &[Operand],
        attributes: &[(&str, AttributeValue)],
        output: ValueId,
    ) {
        self.draft(place, op, name.into(), inputs, vec![output.into()], attributes);
    }

    fn draft(
        &mut self,
        place: Place,
        op: &str,
        name: String,
        inputs: &[Operand],
        outputs: Vec<Operand>,
        attributes: &[(&str, AttributeValue)],
    ) {
        self.nodes.push(NodeDraft {
            place,
            op: Operator::onnx(op),
            name,
            inputs: inputs.to_vec(),
            outputs,
            attributes: attributes
                .iter()
                .map(|(name, value)| Attribute::new(*name, value.clone()))
                .collect(),
        });
    }
}

impl Model {
    /// Carries out a patch. Returns the values it made, in the order it made them. After a series
    /// of patches, call [`Model::compact`].
    pub fn apply(&mut self, patch: Patch) -> Vec<ValueId> {
        for value in patch.freed {
            self.clear_constant(value);
        }
        let mut made = Vec::with_capacity(patch.made.len());
        for (name, constant) in patch.made {
            let name = self.fresh_name(&name);
            let value = self.add_value(name);
            if let Some((graph, tensor)) = constant {
                self.set_constant(graph, value, Constant::Dense(tensor));
            }
            made.push(value);
        }
        let value = |operand: &Operand| match *operand {
            Operand::Value(value) => Some(value),
            Operand::New(index) => made.get(index).copied(),
            Operand::Missing => None,
        };
        // The last node that this patch put to the front of a graph: the next one goes after it.
        let mut front: Option<(GraphId, NodeId)> = None;
        for draft in patch.nodes {
            let name = self.fresh_name(&draft.name);
            let place = match (draft.place, front) {
                (Place::Front(graph), Some((same, last))) if graph == same => Place::After(last),
                (place, _) => place,
            };
            let node = self.insert(
                NewNode {
                    name,
                    op: draft.op,
                    inputs: draft.inputs.iter().map(value).collect(),
                    outputs: draft.outputs.iter().map(value).collect(),
                    attributes: draft.attributes,
                    origin: Origin::NONE,
                },
                place,
            );
            if let Place::Front(graph) = draft.place {
                front = Some((graph, node));
            }
        }
        for (old, new) in patch.redirected {
            self.replace_reads(old, new);
        }
        for node in patch.removed {
            self.remove(node);
        }
        for (value, graph, tensor) in patch.settled {
            self.set_constant(graph, value, Constant::Dense(tensor));
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::linear;
    use crate::verify;

    #[test]
    fn a_new_node_takes_over_a_value() {
        let (mut model, weight) = linear();
        let mut patch = Patch::new();
        patch.free(weight);
        let main = model.main();
        let half =
            patch.constant(main, "W_half", Arc::new(Tensor::of(vec![2, 2], &[1f32; 4]).unwrap()));
        let two = patch.constant(main, "two", Arc::new(Tensor::scalar(2f32)));
        patch.node_into(Place::Front(main), "Mul", "W_mul", &[half, two], &[], weight);
        model.apply(patch);
        model.compact();
        verify::check(&model).unwrap();
        let ops: Vec<_> = model.walk().into_iter().map(|n| model.node(n).op.name.clone()).collect();
        assert_eq!(ops, ["Mul", "MatMul"]);
        assert_eq!(model.initializers_of(main).len(), 2);
        assert_eq!(model.value(weight).name(), "W");
    }

    #[test]
    fn a_replaced_node_leaves_no_trace() {
        let (mut model, weight) = linear();
        let old = model.walk()[0];
        let (x, y) = (model.node(old).input(0).unwrap(), model.node(old).output(0).unwrap());
        let mut patch = Patch::new();
        patch.node_into(Place::Before(old), "Gemm", "gemm", &[x.into(), weight.into()], &[], y);
        patch.remove(old);
        model.apply(patch);
        model.compact();
        verify::check(&model).unwrap();
        assert_eq!(model.value(weight).uses().len(), 1);
        assert_eq!(model.walk().len(), 1);
        assert_eq!(model.label(model.walk()[0]), "Gemm 'gemm'");
    }
}
