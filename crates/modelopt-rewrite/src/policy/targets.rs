//! Which scheme pays where.

use modelopt_graph::{Model, Node, NodeId, ValueId};

use crate::plan::Scheme;

/// Where a model is going to run, as far as the default rules care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Target {
    /// Nobody said: what pays in most places.
    #[default]
    Anywhere,
    /// ONNX Runtime.
    Onnxruntime,
    /// tract.
    Tract,
    /// rten.
    Rten,
}

use Scheme::{Int8Dynamic, Int8Weights};

/// The first scheme to try for an operator, by target: anywhere, onnxruntime, tract, rten.
///
/// Measured on one thread of an x86-64 processor with VNNI, as ratio of float32's time:
///
/// | | onnxruntime 1.32 | tract 0.23 | rten 0.27 |
/// |---|---|---|---|
/// | `MatMul`, `Gemm` as int8-dynamic | 0.43 | 1.2 to 1.4 | 0.67 to 0.87 |
/// | `Conv` as int8-dynamic, of high intensity | 3.3 to 6 | 1.8 to 14 | 0.4 to 0.9 |
/// | `Conv` as int8-dynamic, others | 3.3 to 6 | 1.8 to 14 | 1.0 to 3.0 |
/// | anything as int8-weights | 1.0 | 1.0 | 1.0 |
///
/// Operators that are not listed are stored as int8 and computed in float everywhere.
const TABLE: [(&str, [Scheme; 4]); 3] = [
    ("MatMul", [Int8Dynamic, Int8Dynamic, Int8Weights, Int8Dynamic]),
    ("Gemm", [Int8Dynamic, Int8Dynamic, Int8Weights, Int8Dynamic]),
    ("Conv", [Int8Weights, Int8Weights, Int8Weights, Int8Dynamic]),
];

/// Multiplications for each number that goes in or out, at each place, from which on integer
/// convolutions pay: below it, quantizing the activation costs more than the product saves.
const HIGH_INTENSITY: usize = 64;

/// Whether filters `[O, I / groups, ..]` are those of an ungrouped convolution in at least two
/// dimensions with [`HIGH_INTENSITY`]. In one dimension signals are mostly too short for it to pay.
fn is_intense(filters: &[usize], groups: i64) -> bool {
    let [outputs, inputs, kernel @ ..] = filters else { return false };
    let products = outputs * inputs * kernel.iter().product::<usize>();
    groups == 1 && kernel.len() >= 2 && products >= HIGH_INTENSITY * (outputs + inputs)
}

/// Operators that move the numbers of a weight; runtimes do their work once, while they load.
const TAKING_APART: &[&str] =
    &["Concat", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"];

impl Target {
    /// What the table says of a node with a weight of this shape.
    pub(crate) fn scheme(self, node: &Node, weight: &[usize]) -> Scheme {
        let operator = node.op.name.as_str();
        if operator == "Conv" && !is_intense(weight, node.int("group", 1)) {
            return Int8Weights;
        }
        let column = match self {
            Target::Anywhere => 0,
            Target::Onnxruntime => 1,
            Target::Tract => 2,
            Target::Rten => 3,
        };
        let row = TABLE.iter().find(|(listed, _)| *listed == operator);
        row.map_or(Int8Weights, |(_, schemes)| schemes[column])
    }

    /// Why a product should not be computed with an int8 weight of this shape there, if it should not.
    ///
    /// rten 0.27 gives wrong products of batches of int8 matrices, and where nobody says where the
    /// model will run it may be rten.
    pub(crate) fn refuses_dynamic(self, node: &Node, weight: &[usize]) -> Option<&'static str> {
        let [batch @ .., _, _] = weight else { return None };
        let batched = node.op.is("MatMul") && batch.iter().any(|&size| size > 1);
        (matches!(self, Target::Rten | Target::Anywhere) && batched)
            .then_some("rten multiplies batches of int8 matrices wrongly")
    }

    /// Why a weight that a node reads should not be stored as int8 there, if it should not.
    ///
    /// In a branch rten folds what is done to constants, but not to what the graph around it folds:
    /// weights that are taken apart there would be computed and taken apart in every run.
    pub(crate) fn refuses_stored(
        self,
        model: &Model,
        id: NodeId,
        weight: ValueId,
    ) -> Option<&'static str> {
        let node = model.node(id);
        let takes_apart = TAKING_APART.contains(&node.op.name.as_str());
        let outside = model.home(weight) != Some(node.graph());
        let shared =
            model.consumers(weight).any(|(other, _)| model.node(other).graph() != node.graph());
        (self == Target::Rten && takes_apart && outside && shared)
            .then_some("rten would take it apart in every run: branches share it")
    }

    /// Its name, with "on" before it; empty where nobody said.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Target::Anywhere => "",
            Target::Onnxruntime => " on onnxruntime",
            Target::Tract => " on tract",
            Target::Rten => " on rten",
        }
    }
}
