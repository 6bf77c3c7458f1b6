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

use modelopt_graph::{AttributeValue, DataType, Node, Tensor, element_count};

/// The newest `ai.onnx` version whose operators were read for this module.
const NEWEST: i64 = 28;

/// More dimensions than any model has; keeps work that is quadratic in the rank small.
const MAX_RANK: usize = 64;

/// Why a node was not evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFolded {
    /// The operator, its version, an element type or a case of it is outside this module.
    #[error("not supported by constant folding")]
    Unsupported,
    /// The result, or the work for it, is over the limit.
    #[error("the result would be too large")]
    TooLarge,
    /// The inputs or attributes break the operator's rules.
    #[error("invalid: {0}")]
    Invalid(&'static str),
}

/// A result, or why there is none.
type Folded<T> = Result<T, NotFolded>;

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

/// A node with what is needed to evaluate it.
struct Call<'a> {
    node: &'a Node,
    version: i64,
    inputs: &'a [Option<Arc<Tensor>>],
    max_bytes: usize,
}

impl<'a> Call<'a> {
    fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index)?.as_deref()
    }

    fn input(&self, index: usize) -> Folded<&'a Tensor> {
        self.optional(index).ok_or(NotFolded::Invalid("a required input is missing"))
    }

    /// A list of integers, such as axes, given as an input of rank 0 or 1.
    fn ints_input(&self, index: usize) -> Folded<Option<Vec<i64>>> {
        self.optional(index).map(ints_of).transpose()
    }

    fn attribute(&self, name: &str) -> Folded<Option<&'a AttributeValue>> {
        match self.node.attribute(name) {
            Some(AttributeValue::Reference(_) | AttributeValue::Other) => {
                Err(NotFolded::Unsupported)
            }
            value => Ok(value),
        }
    }

    fn int(&self, name: &str) -> Folded<Option<i64>> {
        match self.attribute(name)? {
            None => Ok(None),
            Some(AttributeValue::Int(value)) => Ok(Some(*value)),
            Some(_) => Err(NotFolded::Invalid("an attribute is not an integer")),
        }
    }

    /// An integer attribute that says yes or no, from operator version `since` on.
    fn flag(&self, name: &str, default: bool, since: i64) -> Folded<bool> {
        if self.version < since {
            return Ok(default);
        }
        Ok(self.int(name)?.map_or(default, |value| value != 0))
    }

    fn float(&self, name: &str) -> Folded<Option<f32>> {
        match self.attribute(name)? {
            None => Ok(None),
            Some(AttributeValue::Float(value)) => Ok(Some(*value)),
            Some(_) => Err(NotFolded::Invalid("an attribute is not a float")),
        }
    }

    fn ints(&self, name: &str) -> Folded<Option<Vec<i64>>> {
        match self.attribute(name)? {
            None => Ok(None),
            Some(AttributeValue::Ints(values)) => Ok(Some(values.clone())),
            Some(_) => Err(NotFolded::Invalid("an attribute is not a list of integers")),
        }
    }

    /// A list that is an attribute before `version`, and the input at `index` from it on.
    fn list(&self, name: &str, index: usize, version: i64) -> Folded<Option<Vec<i64>>> {
        if self.version < version { self.ints(name) } else { self.ints_input(index) }
    }

    /// The place of `axis` among `rank` axes. Negative ones count from the back, which most
    /// operators allow from version 11 on.
    fn axis(&self, axis: i64, rank: usize) -> Folded<usize> {
        if axis < 0 && self.version < 11 {
            return Err(NotFolded::Unsupported);
        }
        let from_front = if axis < 0 { axis.checked_add_unsigned(rank as u64) } else { Some(axis) };
        from_front
            .and_then(|axis| usize::try_from(axis).ok())
            .filter(|&axis| axis < rank)
            .ok_or(NotFolded::Invalid("an axis or index is out of range"))
    }

    /// The places of `axes` as a mask over `rank` axes; an axis given twice is an error.
    fn axes(&self, axes: &[i64], rank: usize) -> Folded<Vec<bool>> {
        let mut mask = vec![false; rank];
        for &axis in axes {
            let place = self.axis(axis, rank)?;
            match mask.get_mut(place) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(NotFolded::Invalid("an axis is given twice")),
            }
        }
        Ok(mask)
    }

    /// The number of elements of a result, if a tensor of it is within the limit.
    fn room(&self, dtype: DataType, shape: &[usize]) -> Folded<usize> {
        if shape.len() > MAX_RANK {
            return Err(NotFolded::Unsupported);
        }
        let count = element_count(shape).ok_or(NotFolded::TooLarge)?;
        let bytes = count.checked_mul(width(dtype)?).ok_or(NotFolded::TooLarge)?;
        if bytes > self.max_bytes { Err(NotFolded::TooLarge) } else { Ok(count) }
    }
}

/// Bytes per element; strings and sub-byte types are not supported.
fn width(dtype: DataType) -> Folded<usize> {
    match dtype.bits() {
        Some(bits) if bits.is_multiple_of(8) => Ok(bits as usize / 8),
        _ => Err(NotFolded::Unsupported),
    }
}

fn bytes(tensor: &Tensor) -> Folded<&[u8]> {
    width(tensor.dtype())?;
    tensor.bytes().map(AsRef::as_ref).ok_or(NotFolded::Unsupported)
}

/// The elements of an int32 or int64 tensor of rank 0 or 1.
fn ints_of(tensor: &Tensor) -> Folded<Vec<i64>> {
    if tensor.shape().len() > 1 || !matches!(tensor.dtype(), DataType::INT32 | DataType::INT64) {
        return Err(NotFolded::Invalid("a list of integers is not an integer tensor of rank 1"));
    }
    tensor.to_i64().ok_or(NotFolded::Unsupported)
}

/// Dimensions, none of them negative.
fn dims_of(values: &[i64]) -> Folded<Vec<usize>> {
    values
        .iter()
        .map(|&dim| usize::try_from(dim).map_err(|_| NotFolded::Invalid("a dimension is negative")))
        .collect()
}

fn dense(dtype: DataType, shape: Vec<usize>, bytes: Vec<u8>) -> Folded<Tensor> {
    Tensor::dense(dtype, shape, bytes).map_err(|_| NotFolded::Unsupported)
}

/// The shape that all of `shapes` broadcast to, by the rule of numpy.
fn broadcast<'s>(shapes: impl IntoIterator<Item = &'s [usize]>) -> Folded<Vec<usize>> {
    let mut result: Vec<usize> = Vec::new();
    for shape in shapes {
        if shape.len() > result.len() {
            let missing = shape.len() - result.len();
            result.splice(0..0, std::iter::repeat_n(1, missing));
        }
        for (have, &dim) in result.iter_mut().rev().zip(shape.iter().rev()) {
            if *have == 1 {
                *have = dim;
            } else if dim != 1 && dim != *have {
                return Err(NotFolded::Invalid("shapes do not broadcast"));
            }
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::testing::{Case, ints};
    use super::*;

    #[test]
    fn shapes_broadcast_as_in_numpy() {
        let of = |shapes: &[&[usize]]| broadcast(shapes.iter().copied());
        assert_eq!(of(&[&[3, 1], &[4]]), Ok(vec![3, 4]));
        assert_eq!(of(&[&[], &[2, 0], &[1]]), Ok(vec![2, 0]));
        assert!(of(&[&[2], &[3]]).is_err());
        assert!(of(&[&[0], &[3]]).is_err());
    }

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
