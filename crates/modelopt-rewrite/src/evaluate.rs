//! The results of nodes whose inputs are all constant.
//!
//! [`evaluate`] computes what a node of `ai.onnx` yields, or says why it does not. It never
//! guesses: where the ONNX operator's text leaves a result open, or where implementations are
//! known to differ (NaN in `Max`, integers that overflow, floats that do not fit the integer they
//! are cast to), the node stays as it is. **No input makes it panic**, and nothing larger than
//! the caller's limit is allocated for a result.
//!
//! | family | operators |
//! |---|---|
//! | `reshape` | Identity Reshape Flatten Squeeze Unsqueeze Shape Size |
//! | `movement` | Transpose Concat Split Slice Gather Expand Tile Pad Where |
//! | `generate` | `ConstantOfShape` Range |
//! | `cast` | Cast |
//! | `arithmetic` | Add Sub Mul Div Mod Pow Min Max Neg Abs Sign Sqrt Reciprocal Exp Log Sin Cos Tanh Sigmoid Floor Ceil Round Relu Clip |
//! | `logic` | Equal Greater Less `GreaterOrEqual` `LessOrEqual` And Or Xor Not |
//! | `reduce` | `ReduceSum` `ReduceMean` `ReduceProd` `ReduceMax` `ReduceMin` `ReduceL1` `ReduceL2` `ReduceSumSquare` |
//! | `matmul` | `MatMul` |
//!
//! Absent on purpose: `QuantizeLinear` and `DequantizeLinear`, since quantized parts of a model
//! are left alone; anything random or with a body; strings and sub-byte types wherever elements
//! move or are computed with.

mod arithmetic;
mod call;
mod cast;
mod generate;
mod logic;
mod matmul;
mod movement;
mod number;
mod reduce;
mod reshape;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use modelopt_graph::{Node, Tensor};

pub use call::NotFolded;
use call::{Call, Folded, MAX_RANK};

/// The newest `ai.onnx` version whose operators were read for this module.
const NEWEST: i64 = 28;

/// The outputs of a node, as many as it names, from constant `inputs`.
///
/// `version` is the version of `ai.onnx` that the node's graph imports. `inputs` has one entry
/// for each input of the node; `None` is one that the node leaves out. An input that the node
/// does have but that is `None` here is not constant, and the node is not evaluated.
///
/// `max_bytes` limits the size of the outputs together; it is checked before anything of that
/// size is allocated. Scratch memory stays within a small multiple of inputs and outputs.
/// Results that only change the shape share the payload of their input.
pub fn evaluate(
    node: &Node,
    version: i64,
    inputs: &[Option<Arc<Tensor>>],
    max_bytes: usize,
) -> Result<Vec<Tensor>, NotFolded> {
    let count = inputs.len().max(node.inputs().len());
    let all_constant =
        (0..count).all(|i| node.input(i).is_some() == inputs.get(i).is_some_and(Option::is_some));
    if !node.op.is_onnx() || !(1..=NEWEST).contains(&version) || !all_constant {
        return Err(NotFolded::Unsupported);
    }
    if inputs.iter().flatten().any(|tensor| tensor.shape().len() > MAX_RANK) {
        return Err(NotFolded::Unsupported);
    }
    let outputs = dispatch(&Call { node, version, inputs, max_bytes })?;
    if node.outputs().len() > outputs.len() {
        return Err(NotFolded::Invalid("more outputs than the operator has"));
    }
    Ok(outputs)
}

fn dispatch(call: &Call<'_>) -> Folded<Vec<Tensor>> {
    let output = match call.node.op.name.as_str() {
        "Split" => return movement::split(call),
        "Identity" => reshape::identity(call),
        "Reshape" => reshape::reshape(call),
        "Flatten" => reshape::flatten(call),
        "Squeeze" => reshape::squeeze(call),
        "Unsqueeze" => reshape::unsqueeze(call),
        "Shape" => reshape::shape(call),
        "Size" => reshape::size(call),
        "Transpose" => movement::transpose(call),
        "Concat" => movement::concat(call),
        "Slice" => movement::slice(call),
        "Gather" => movement::gather(call),
        "Expand" => movement::expand(call),
        "Tile" => movement::tile(call),
        "Pad" => movement::pad(call),
        "Where" => movement::choose(call),
        "ConstantOfShape" => generate::constant_of_shape(call),
        "Range" => generate::range(call),
        "Cast" => cast::cast(call),
        "Add" | "Sub" | "Mul" | "Div" | "Mod" => arithmetic::binary(call),
        "Pow" => arithmetic::power(call),
        "Min" | "Max" => arithmetic::extreme(call),
        "Neg" | "Abs" | "Sign" | "Relu" => arithmetic::unary(call),
        "Sqrt" | "Reciprocal" | "Exp" | "Log" | "Sin" | "Cos" | "Tanh" | "Sigmoid" | "Floor"
        | "Ceil" | "Round" => arithmetic::function(call),
        "Clip" => arithmetic::clip(call),
        "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" => logic::compare(call),
        "And" | "Or" | "Xor" => logic::binary(call),
        "Not" => logic::not(call),
        "ReduceSum" | "ReduceMean" | "ReduceProd" | "ReduceMax" | "ReduceMin" | "ReduceL1"
        | "ReduceL2" | "ReduceSumSquare" => reduce::reduce(call),
        "MatMul" => matmul::matmul(call),
        _ => Err(NotFolded::Unsupported),
    };
    Ok(vec![output?])
}

#[cfg(test)]
mod tests {
    use modelopt_graph::DataType;

    use super::testing::{Case, ints};
    use super::*;

    #[test]
    fn unknown_operators_versions_and_open_inputs_are_left_alone() {
        let one = Tensor::scalar(1f32);
        assert_eq!(Case::new("RandomUniform").run(17), Err(NotFolded::Unsupported));
        for version in [i64::MIN, 0, 29, i64::MAX] {
            let case = Case::new("Identity").input(one.clone());
            assert_eq!(case.run(version), Err(NotFolded::Unsupported));
        }
        assert_eq!(Case::new("Neg").open_input().run(17), Err(NotFolded::Unsupported));
        let twice = Case::new("Neg").input(one).outputs(2);
        assert!(matches!(twice.run(17), Err(NotFolded::Invalid(_))));
    }

    /// Every operator, fed with inputs it is not made for, must answer rather than panic.
    #[test]
    fn no_input_makes_it_panic() {
        const OPERATORS: &str = "Identity Reshape Flatten Squeeze Unsqueeze Shape Size Transpose \
            Concat Split Slice Gather Expand Tile Pad Where ConstantOfShape Range Cast Add Sub Mul \
            Div Mod Pow Min Max Neg Abs Sign Relu Sqrt Reciprocal Exp Log Sin Cos Tanh Sigmoid \
            Floor Ceil Round Clip Equal Greater Less GreaterOrEqual LessOrEqual And Or Xor Not \
            ReduceSum ReduceMean ReduceProd ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare \
            MatMul";
        let extremes = [i64::MIN, i64::MIN + 1, -5, -1, 0, 1, 2, 3, 1 << 31, i64::MAX];
        let huge = 1 << 62;
        let empty = |shape: Vec<usize>| Tensor::of::<i64>(shape, &[]).unwrap();
        let tensors = [
            Tensor::scalar(i64::MIN),
            Tensor::scalar(f64::NAN),
            ints(&extremes),
            ints(&[-1, i64::MAX]),
            ints(&[0, 0, 1]),
            ints(&[2]),
            empty(vec![0]),
            empty(vec![0, huge, 1]),
            empty(vec![huge, 0]),
            empty(vec![3, 0]),
            Tensor::of(vec![2, 3], &[f32::INFINITY, -0.0, f32::NAN, 1e30, -7.5, 3.0]).unwrap(),
            Tensor::of(vec![3], &[u64::MAX, 0, 7]).unwrap(),
            Tensor::of(vec![2, 1], &[i8::MIN, -1]).unwrap(),
            Tensor::dense(DataType::BOOL, vec![2], vec![1, 7]).unwrap(),
            Tensor::dense(DataType::INT4, vec![3], vec![0x21, 0x03]).unwrap(),
            Tensor::dense(DataType::from_number(999), vec![3, 4], vec![1]).unwrap(),
            Tensor::of(vec![1; 65], &[1f32]).unwrap(),
        ];
        let attributes: [&[(&str, i64)]; 3] = [
            &[],
            &[("axis", i64::MIN), ("to", 7), ("start", i64::MIN), ("end", i64::MAX)],
            &[
                ("axis", -1),
                ("to", 5),
                ("fmod", 1),
                ("num_outputs", i64::MAX),
                ("allowzero", 1),
                ("keepdims", 0),
                ("noop_with_empty_axes", 1),
            ],
        ];
        let lists = ["axes", "pads", "starts", "ends", "perm", "shape", "split"];
        for op in OPERATORS.split_whitespace() {
            for version in [1, 8, 12, 17, 18, 28] {
                for (attributes, a) in product(&attributes, &tensors) {
                    let case = || {
                        attributes
                            .iter()
                            .fold(Case::new(op).limit(1 << 12), |case, &(name, value)| {
                                case.attribute(name, value)
                            })
                            .input(a.clone())
                    };
                    let listed = lists
                        .iter()
                        .fold(case(), |case, name| case.attribute(name, extremes.to_vec()));
                    let _ = listed.run(version);
                    for (index, b) in tensors.iter().enumerate() {
                        let c = &tensors[(index * 5 + version as usize) % tensors.len()];
                        let two = case().input(b.clone());
                        let rest = (0..3).fold(case().skip(), |case, _| case.input(b.clone()));
                        let four =
                            (0..3).fold(case().input(b.clone()), |case, _| case.input(c.clone()));
                        for case in [two, rest, four] {
                            let size = case.run(version).map_or(0, |outputs| {
                                outputs.iter().map(Tensor::byte_len).sum::<usize>()
                            });
                            assert!(size <= 1 << 12, "{op} makes {size} bytes");
                        }
                    }
                }
            }
        }
    }

    fn product<'t, A, B>(a: &'t [A], b: &'t [B]) -> impl Iterator<Item = (&'t A, &'t B)> {
        a.iter().flat_map(move |x| b.iter().map(move |y| (x, y)))
    }
}
