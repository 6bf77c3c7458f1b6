//! Which operators runtimes compute on integers between `DequantizeLinear` and `QuantizeLinear`.

use modelopt_graph::{Model, Node, NodeId, ValueId};

/// How an operator takes integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// It multiplies by weights, and is a layer of the plan.
    Product,
    /// It computes: what it makes has a range of its own.
    Combining,
    /// It moves or picks numbers: what it makes has the range of what it reads.
    Moving,
    /// It cuts numbers off, as quantizing what it makes does by itself.
    Clipping,
}

/// How a node takes integers, if it does in some runtime.
pub(crate) fn kernel(node: &Node) -> Option<Kernel> {
    if !node.op.is_onnx() || node.bodies().next().is_some() {
        return None;
    }
    let outputs = node.outputs().iter().flatten().count();
    Some(match node.op.name.as_str() {
        "Conv" | "MatMul" | "Gemm" => Kernel::Product,
        "Add" | "Mul" | "Concat" | "Sigmoid" | "LeakyRelu" | "Softmax" | "AveragePool"
        | "GlobalAveragePool" | "ReduceMean" => Kernel::Combining,
        "Relu" | "Clip" => Kernel::Clipping,
        "MaxPool" if outputs > 1 => return None,
        "MaxPool" | "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Flatten" | "Slice"
        | "Split" | "Gather" | "Resize" | "Expand" => Kernel::Moving,
        _ => return None,
    })
}

/// The inputs of a node that are numbers to compute with, by place; of a layer, its activation.
pub(crate) fn numbers(node: &Node) -> std::ops::Range<usize> {
    match node.op.name.as_str() {
        "Add" | "Mul" => 0..2,
        "Concat" => 0..node.inputs().len(),
        _ => 0..1,
    }
}

/// What a node makes once all that only cuts off its numbers is done: the value to quantize. With it,
/// the node that cuts off.
///
/// `y = Conv(x); z = Relu(y)` makes `z` where nobody else reads `y`.
pub(crate) fn end(model: &Model, made: ValueId) -> (ValueId, Option<NodeId>) {
    let value = model.value(made);
    let graph = model.home(made);
    let mut readers = model.consumers(made);
    let (Some((reader, 0)), None, false) = (readers.next(), readers.next(), value.is_output())
    else {
        return (made, None);
    };
    let node = model.node(reader);
    let cuts = kernel(node) == Some(Kernel::Clipping) && Some(node.graph()) == graph;
    match node.output(0).filter(|_| cuts && bounds(model, reader).is_some()) {
        Some(cut) => (cut, Some(reader)),
        None => (made, None),
    }
}

/// The least and the largest number that a node lets through, where it cuts off and these are known.
pub(crate) fn bounds(model: &Model, id: NodeId) -> Option<(f32, f32)> {
    let node = model.node(id);
    if node.op.is("Relu") {
        return Some((0.0, f32::INFINITY));
    }
    let bound = |place: usize, name: &str, open: f32| match node.input(place) {
        Some(value) => model.constant(value)?.to_f32()?.first().copied(),
        None => Some(node.float(name, open)),
    };
    let low = bound(1, "min", f32::NEG_INFINITY)?;
    let high = bound(2, "max", f32::INFINITY)?;
    (low <= 0.0 && high >= 0.0).then_some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Build, float};

    #[test]
    fn what_cuts_off_belongs_to_what_it_reads() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[1, 4]));
        let y = b.node("Sigmoid", &[x], &[]);
        let z = b.node("Relu", &[y], &[]);
        b.output(z, float(&[1, 4]));
        assert_eq!(end(&b.model, y), (z, b.model.producer_node(z)));
        assert_eq!(end(&b.model, z), (z, None));
        // Somebody reads it before it is cut off.
        let other = b.node("Sigmoid", &[y], &[]);
        b.output(other, float(&[1, 4]));
        assert_eq!(end(&b.model, y), (y, None));
    }

    #[test]
    fn bounds_must_be_known_and_have_zero_between_them() {
        let clip = |low: &[f32], computed: bool| {
            let mut b = Build::new(13);
            let x = b.input("x", float(&[1, 4]));
            let low = if computed { b.input("low", float(&[])) } else { b.weight("low", &[], low) };
            let high = b.weight("high", &[], &[6.0]);
            let y = b.node("Clip", &[x, low, high], &[]);
            bounds(&b.model, b.model.producer_node(y).unwrap())
        };
        assert_eq!(clip(&[0.0], false), Some((0.0, 6.0)));
        assert_eq!(clip(&[1.0], false), None);
        assert_eq!(clip(&[], true), None);
        let mut b = Build::new(6);
        let x = b.input("x", float(&[1, 4]));
        let y = b.node("Clip", &[x], &[("min", (-1f32).into())]);
        let found = bounds(&b.model, b.model.producer_node(y).unwrap());
        assert_eq!(found, Some((-1.0, f32::INFINITY)));
    }

    #[test]
    fn foreign_operators_and_indices_of_maxima_have_no_kernel() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[1, 4]));
        let y = b.node("Add", &[x, x], &[]);
        let node = b.model.producer_node(y).unwrap();
        assert_eq!(kernel(b.model.node(node)), Some(Kernel::Combining));
        "somebody".clone_into(&mut b.model.node_mut(node).op.domain);
        assert_eq!(kernel(b.model.node(node)), None);
    }
}
