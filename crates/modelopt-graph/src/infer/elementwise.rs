//! Operators that work element by element: the result has the shape of the operand, or of the
//! operands broadcast against each other.

#![allow(clippy::unnecessary_wraps)] // A `Rule` may have no answer, even if this one has.

use super::context::Context;
use super::dims;
use super::rule::{Rule, Shapes, one};
use crate::Shape;

/// Operators whose result has the shape of their first input.
const AS_INPUT: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Affine",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Bernoulli",
    "BitCast",
    "BitwiseNot",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "CumProd",
    "CumSum",
    "DequantizeLinear",
    "Elu",
    "Erf",
    "Exp",
    "EyeLike",
    "Floor",
    "Gelu",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "ImageScaler",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LRN",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MeanVarianceNormalization",
    "Mish",
    "Neg",
    "Not",
    "PRelu",
    "ParametricSoftplus",
    "QuantizeLinear",
    "RandomNormalLike",
    "RandomUniformLike",
    "Reciprocal",
    "RegexFullMatch",
    "Relu",
    "ReverseSequence",
    "RMSNormalization",
    "RotaryEmbedding",
    "Round",
    "Scale",
    "ScaledTanh",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "TensorScatter",
    "ThresholdedRelu",
    "Trilu",
];

pub(super) fn rule(op: &str) -> Option<Rule> {
    if AS_INPUT.contains(&op) {
        return Some(as_input);
    }
    let rule: Rule = match op {
        "Add" | "And" | "Div" | "Equal" | "Greater" | "Less" | "Mul" | "Or" | "Pow" | "Sub"
        | "Xor" => binary,
        "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "GreaterOrEqual"
        | "LessOrEqual" | "Max" | "Mean" | "Min" | "Mod" | "StringConcat" | "Sum" | "SwiGLU"
        | "Where" => broadcast,
        "Dropout" => all_as_input,
        "BatchNormalization" => batch_normalization,
        "LayerNormalization" | "SimplifiedLayerNormalization" => layer_normalization,
        "DynamicQuantizeLinear" => dynamic_quantize,
        _ => return None,
    };
    Some(rule)
}

/// The first output has the shape of the first input.
pub(super) fn as_input(context: &Context<'_>) -> Option<Shapes> {
    one(context.shape(0)?.clone())
}

/// Every output has the shape of the first input.
pub(super) fn all_as_input(context: &Context<'_>) -> Option<Shapes> {
    Some(vec![Some(context.shape(0)?.clone()); context.output_count().min(2)])
}

/// The inputs, broadcast against each other.
pub(super) fn broadcast(context: &Context<'_>) -> Option<Shapes> {
    let mut shape: Shape = context.shape(0)?.clone();
    for index in 1..context.input_count() {
        shape = dims::broadcast(&shape, context.shape(index)?)?;
    }
    one(shape)
}

/// Before version 7, the second operand was stretched to the first one.
fn binary(context: &Context<'_>) -> Option<Shapes> {
    if context.version < 7 { as_input(context) } else { broadcast(context) }
}

fn batch_normalization(context: &Context<'_>) -> Option<Shapes> {
    let channels = context.shape(1).or_else(|| context.shape(3)).cloned();
    let mut shapes = vec![channels; context.output_count().clamp(1, 5)];
    shapes[0] = context.shape(0).cloned();
    Some(shapes)
}

/// The statistics have size 1 along the normalized axes.
pub(super) fn layer_normalization(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    let axis = dims::axis(context.int("axis", -1), shape.len())?;
    let mut statistics = shape.clone();
    for size in statistics.iter_mut().skip(axis) {
        *size = crate::Dim::Fixed(1);
    }
    Some(vec![Some(shape.clone()), Some(statistics.clone()), Some(statistics)])
}

fn dynamic_quantize(context: &Context<'_>) -> Option<Shapes> {
    Some(vec![context.shape(0).cloned(), Some(Vec::new()), Some(Vec::new())])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, check};

    #[test]
    fn one_operand_keeps_its_shape() {
        check("Relu", "float[n,3,?]", "float[n, 3, ?]");
        check("Softmax axis=i-1", "float[..]", "float[..]");
        check("Dropout", "float[n,3]", "float[n, 3]; bool[n, 3]");
        check("QuantizeLinear", "float[n,3]; float[]; uint8[]", "uint8[n, 3]");
    }

    #[test]
    fn operands_are_broadcast() {
        check("Add", "float[n,1,4]; float[3,1]", "float[n, 3, 4]");
        check("Mul", "float[n]; float[m]", "float[?]");
        check("Sub", "float[2]; float[3]", "float[..]");
        check("Where", "bool[n,1]; float[1,3]; float[]", "float[n, 3]");
        check("Sum", "float[2,1]; float[1,3]; float[2,3]", "float[2, 3]");
        at(6, "Add broadcast=i1 axis=i1", "float[2,3,4]; float[3]", "float[2, 3, 4]");
    }

    #[test]
    fn normalizations_return_statistics() {
        check(
            "LayerNormalization axis=i1",
            "float[n,3,4]; float[3,4]",
            "float[n, 3, 4]; float[n, 1, 1]; float[n, 1, 1]",
        );
        check("LayerNormalization axis=i7", "float[n,3]; float[3]", "float[..]");
        at(
            15,
            "BatchNormalization training_mode=i1",
            "float[n,3,8]; float[3]; float[3]; float[3]; float[3]",
            "float[n, 3, 8]; float[3]; float[3]",
        );
    }
}
