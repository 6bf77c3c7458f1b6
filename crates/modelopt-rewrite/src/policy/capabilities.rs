//! What a runtime does with quantized operators: data, from which the default rules tell what pays.

use modelopt_graph::{Model, Node, NodeId, ValueId};

use crate::integer::IntegerCosts;

/// What a runtime does with quantized operators, as far as the choice of forms goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capabilities {
    /// Name of the runtime; none where nobody said where the model will run.
    pub runtime: Option<&'static str>,
    /// Operators that are faster on integers, their activation quantized at run time, than on
    /// float32; convolutions only where they are intense.
    pub integer_operators: &'static [&'static str],
    /// Operators that it computes on integers between `DequantizeLinear` and `QuantizeLinear`, where that
    /// pays; none where layers are no faster for it.
    pub static_operators: &'static [&'static str],
    /// What that takes, where it is known.
    pub static_costs: Option<&'static IntegerCosts>,
    /// Why batches of int8 matrices must not be multiplied, if they must not.
    pub no_integer_batches: Option<&'static str>,
    /// Why weights that branches share and take apart must not be computed, if they must not.
    pub no_shared_parts: Option<&'static str>,
}

/// What pays in most places, and is wrong in none. Ratios of float32's time, measured on one thread
/// of an x86-64 processor with VNNI in three runtimes, are 0.43 to 1.4 for `MatMul` and `Gemm`, 0.4
/// to 14 for convolutions, and 1.0 for anything that is only stored as int8.
const CAUTIOUS: Capabilities = Capabilities {
    runtime: None,
    integer_operators: &["MatMul", "Gemm"],
    static_operators: &[],
    static_costs: None,
    no_integer_batches: Some("some runtimes multiply batches of int8 matrices wrongly"),
    no_shared_parts: None,
};

impl Default for Capabilities {
    fn default() -> Self {
        CAUTIOUS
    }
}

/// Runtimes of different kinds, for tests of the rules.
#[cfg(test)]
impl Capabilities {
    pub(crate) const ANYWHERE: Capabilities = CAUTIOUS;
    pub(crate) const ONNXRUNTIME: Capabilities =
        Capabilities { runtime: Some("onnxruntime"), no_integer_batches: None, ..CAUTIOUS };
    pub(crate) const TRACT: Capabilities =
        Capabilities { runtime: Some("tract"), integer_operators: &[], ..Self::ONNXRUNTIME };
    pub(crate) const RTEN: Capabilities = Capabilities {
        runtime: Some("rten"),
        integer_operators: &["MatMul", "Gemm", "Conv"],
        no_shared_parts: Some("it would be taken apart in every run: branches share it"),
        ..CAUTIOUS
    };
}

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

impl Capabilities {
    /// Whether a node with a weight of this shape is faster on integers.
    pub(crate) fn integer_pays(&self, node: &Node, weight: &[usize]) -> bool {
        let operator = node.op.name.as_str();
        self.integer_operators.contains(&operator)
            && (operator != "Conv" || is_intense(weight, node.int("group", 1)))
    }

    /// Whether a node is faster on integers whose ranges are known beforehand.
    pub(crate) fn static_pays(&self, node: &Node) -> bool {
        self.fuses(node) && !self.integer_operators.contains(&node.op.name.as_str())
    }

    /// Whether a node computes on integers between what quantizes and what dequantizes.
    pub(crate) fn fuses(&self, node: &Node) -> bool {
        self.static_operators.contains(&node.op.name.as_str())
            // Other ways of resizing are computed in float.
            && (!node.op.is("Resize") || node.string("mode").is_none_or(|mode| mode == "nearest"))
    }

    /// Why a product should not be computed with an int8 weight of this shape there, if it should not.
    pub(crate) fn refuses_integer(&self, node: &Node, weight: &[usize]) -> Option<&'static str> {
        let [batch @ .., _, _] = weight else { return None };
        let batched = node.op.is("MatMul") && batch.iter().any(|&size| size > 1);
        self.no_integer_batches.filter(|_| batched)
    }

    /// Why a weight that a node reads should not be stored as int8 there, if it should not.
    pub(crate) fn refuses_stored(
        &self,
        model: &Model,
        id: NodeId,
        weight: ValueId,
    ) -> Option<&'static str> {
        let why = self.no_shared_parts?;
        let node = model.node(id);
        let takes_apart = TAKING_APART.contains(&node.op.name.as_str());
        let outside = model.home(weight) != Some(node.graph());
        let shared =
            model.consumers(weight).any(|(other, _)| model.node(other).graph() != node.graph());
        (takes_apart && outside && shared).then_some(why)
    }

    /// Its name, with "on" before it; empty where nobody said.
    pub(crate) fn place(&self) -> String {
        self.runtime.map(|name| format!(" on {name}")).unwrap_or_default()
    }
}
