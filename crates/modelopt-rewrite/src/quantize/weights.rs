//! `int8-weights`: stored as int8, computed in float.
//!
//! ```text
//! initializer W: float[..]
//!   =>
//! initializer W_int8: int8[..], W_scale: float[broadcastable]
//! W = Mul(Cast<to = float>(W_int8), W_scale)
//! ```
//!
//! with a second `Mul` where filters have scales per input channel, too.
//!
//! `W` keeps its name, so nothing that reads it changes, in any graph. Runtimes fold the two
//! nodes when they load the model; `DequantizeLinear` would keep some from using their fast
//! layout, and cannot be per-channel below opset 13. A float16, bfloat16 or double weight is
//! computed in float and cast at the end.

use modelopt_graph::{DataType, GraphId, Model, Operand, Owner, Patch, Place, ValueId};

use super::Stored;

pub(super) fn rewrite(model: &mut Model, weight: ValueId, stored: &Stored, dtype: DataType) {
    let name = model.value(weight).name().to_owned();
    let mut patch = Patch::new();
    let place = take_over(model, &mut patch, weight, stored.home);
    let mut scales: Vec<Operand> = vec![stored.scales.into()];
    scales.extend(stored.input_scales.map(Operand::from));
    dequantize(&mut patch, place, &name, stored.values.into(), &scales, dtype, weight);
    model.apply(patch);
}

/// Takes the constant away from a weight. Returns where the nodes that compute it go.
pub(super) fn take_over(model: &Model, patch: &mut Patch, weight: ValueId, home: GraphId) -> Place {
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

/// `output = Mul(Cast<to = float>(values), scales)`, one `Mul` for each of the scales, cast to
/// `dtype` where that is not float.
pub(super) fn dequantize(
    patch: &mut Patch,
    place: Place,
    name: &str,
    values: Operand,
    scales: &[Operand],
    dtype: DataType,
    output: ValueId,
) {
    let to = |dtype: DataType| [("to", i64::from(dtype.number()).into())];
    let mut steps: Vec<(&str, String, Vec<Operand>, _)> =
        vec![("Cast", format!("{name}_float"), Vec::new(), to(DataType::FLOAT).to_vec())];
    for (index, &scale) in scales.iter().enumerate() {
        let suffix = if index == 0 { "mul" } else { "mul_input" };
        steps.push(("Mul", format!("{name}_{suffix}"), vec![scale], Vec::new()));
    }
    if dtype != DataType::FLOAT {
        steps.push(("Cast", format!("{name}_cast"), Vec::new(), to(dtype).to_vec()));
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

#[cfg(test)]
mod tests {
    use modelopt_graph::Tensor;

    use super::*;
    use crate::Scheme;
    use crate::testing::{Build, boolean, float, noise, options};

    #[test]
    fn a_convolution_reads_the_same_value_computed() {
        let mut b = Build::new(7);
        let x = b.input("x", float(&[1, 8, 4, 4]));
        let w = b.weight("W", &[16, 8, 3, 3], &noise(1152, 1));
        let y = b.node("Conv", &[x, w], &[]);
        b.output(y, float(&[1, 16, 2, 2]));
        b.quantized(&options(Scheme::Int8Weights));
        assert_eq!(b.ops(), ["Cast", "Mul", "Mul", "Conv"]);
        assert_eq!(b.maker(y).input(1), Some(w));
        assert_eq!(b.model.value(w).name(), "W");
        let factors = b.model.constant(b.maker(w).input(1).unwrap()).unwrap();
        assert_eq!(factors.shape(), [1, 8, 1, 1]);
        let inner = b.maker(b.maker(w).input(0).unwrap());
        let scales = b.model.constant(inner.input(1).unwrap()).unwrap();
        assert_eq!(scales.shape(), [16, 1, 1, 1]);
        let cast = b.maker(inner.input(0).unwrap());
        let stored = b.model.constant(cast.input(0).unwrap()).unwrap();
        assert_eq!((stored.dtype(), stored.shape()), (DataType::INT8, [16, 8, 3, 3].as_slice()));
    }

    #[test]
    fn one_weight_in_two_branches_is_stored_once() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let condition = b.input("c", boolean());
        let w = b.weight("W", &[32, 32], &noise(1024, 2));
        let (then_body, ()) =
            b.body(|b, graph| (b.named_node_in(graph, "MatMul", &[x, w], "t"), ()));
        let (else_body, ()) =
            b.body(|b, graph| (b.named_node_in(graph, "MatMul", &[x, w], "e"), ()));
        let y = b.if_node(condition, then_body, else_body);
        b.output(y, float(&[4, 32]));
        b.quantized(&options(Scheme::Int8Weights));
        assert_eq!(b.ops(), ["Cast", "Mul", "If", "MatMul", "MatMul"]);
        assert_eq!(b.model.initializers_of(b.model.main()).len(), 2);
    }

    #[test]
    fn a_weight_of_one_branch_is_computed_there() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let condition = b.input("c", boolean());
        let w = b.weight("W", &[32, 32], &noise(1024, 2));
        let (then_body, ()) =
            b.body(|b, graph| (b.named_node_in(graph, "MatMul", &[x, w], "t"), ()));
        let (else_body, ()) = b.body(|b, graph| (b.named_node_in(graph, "Relu", &[x], "e"), ()));
        let y = b.if_node(condition, then_body, else_body);
        b.output(y, float(&[4, 32]));
        b.quantized(&options(Scheme::Int8Weights));
        assert_eq!(b.ops(), ["If", "Cast", "Mul", "MatMul", "Relu"]);
        assert_eq!(b.model.initializers_of(b.model.main()).len(), 2);
    }

    #[test]
    fn half_precision_weights_are_cast_back() {
        let mut b = Build::new(17);
        let half: Vec<half::f16> = noise(1024, 3).into_iter().map(half::f16::from_f32).collect();
        let ty = modelopt_graph::Type::tensor(DataType::FLOAT16);
        let x = b.input("x", ty.clone());
        let w = b.model.add_value("W");
        let tensor = Tensor::of(vec![32, 32], &half).unwrap();
        let constant = modelopt_graph::Constant::Dense(tensor.into());
        b.model.set_constant(b.model.main(), w, constant);
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, ty);
        b.quantized(&options(Scheme::Int8Weights));
        assert_eq!(b.ops(), ["Cast", "Mul", "Cast", "MatMul"]);
        assert_eq!(b.maker(w).int("to", 0), i64::from(DataType::FLOAT16.number()));
    }

    #[test]
    fn a_weight_that_is_an_output_stays() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let w = b.weight("W", &[32, 32], &noise(1024, 4));
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, float(&[4, 32]));
        b.output(w, float(&[32, 32]));
        let plan = b.quantized(&options(Scheme::Int8Dynamic));
        assert_eq!(b.ops(), ["MatMul"]);
        assert_eq!(plan.layers[0].reason, "the weight is also an output of the graph");
    }
}
