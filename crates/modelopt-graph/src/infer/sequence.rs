//! Sequences, optionals and maps: operators whose whole types, not only shapes, follow from
//! their inputs.

use super::context::Context;
use super::dims;
use super::types::{join, without_shape};
use crate::{AttributeValue, DataType, Dim, Type};

/// Types of the outputs; `None` for an operator that is not of this family.
pub(super) fn types(context: &Context<'_>) -> Option<Vec<Option<Type>>> {
    let ty = match context.op() {
        "SequenceEmpty" => {
            let elem = context.data_type("dtype").unwrap_or(DataType::FLOAT);
            Some(Type::Sequence(Type::tensor(elem).into()))
        }
        "SequenceConstruct" => construct(context),
        "SequenceAt" => item(context),
        "SequenceErase" => context.ty(0).cloned(),
        "SequenceInsert" => insert(context),
        "SplitToSequence" => split(context),
        "ConcatFromSequence" => concat(context),
        "Optional" => match context.attribute("type") {
            Some(AttributeValue::Type(declared)) if !context.has(0) => {
                Some(Type::Optional(declared.ty.clone().into()))
            }
            _ => context.ty(0).map(|ty| Type::Optional(ty.clone().into())),
        },
        "OptionalGetElement" => match context.ty(0) {
            Some(Type::Optional(inner)) => Some((**inner).clone()),
            other => other.cloned(),
        },
        _ => return None,
    };
    Some(vec![ty])
}

fn item(context: &Context<'_>) -> Option<Type> {
    match context.ty(0)? {
        Type::Sequence(inner) => Some((**inner).clone()),
        _ => None,
    }
}

fn construct(context: &Context<'_>) -> Option<Type> {
    let first = context.ty(0)?.clone();
    let all =
        (1..context.input_count()).try_fold(first, |all, index| join(&all, context.ty(index)?))?;
    Some(Type::Sequence(all.into()))
}

fn insert(context: &Context<'_>) -> Option<Type> {
    let inner = item(context)?;
    // An empty sequence says nothing of shapes, and this cannot tell one from another.
    let with = context.ty(1).map_or_else(|| without_shape(&inner), Clone::clone);
    Some(Type::Sequence(join(&inner, &with)?.into()))
}

fn split(context: &Context<'_>) -> Option<Type> {
    let elem = context.elem(0)?;
    let shape = context.shape(0).and_then(|shape| {
        let mut shape = shape.clone();
        let axis = dims::axis(context.int("axis", 0), shape.len())?;
        if context.has(1) {
            // A scalar gives chunks of that size with a smaller last one, a list gives each size.
            shape[axis] = match context.constant_ints(1)?.as_slice() {
                [first, rest @ ..] if rest.iter().all(|size| size == first) => {
                    let even = match dims::fixed(&shape[axis]) {
                        Some(total) if *first > 0 => total % first == 0,
                        _ => false,
                    };
                    if even { dims::dim(*first) } else { Dim::Unknown }
                }
                _ => Dim::Unknown,
            };
        } else if context.int("keepdims", 1) == 0 {
            shape.remove(axis);
        } else {
            shape[axis] = Dim::Fixed(1);
        }
        Some(shape)
    });
    Some(Type::Sequence(Type::Tensor { elem, shape }.into()))
}

fn concat(context: &Context<'_>) -> Option<Type> {
    let inner = item(context)?;
    let elem = inner.elem()?;
    let shape = inner.shape().and_then(|shape| {
        let mut shape = shape.clone();
        if context.int("new_axis", 0) == 0 {
            let axis = dims::axis(context.int("axis", 0), shape.len())?;
            shape[axis] = Dim::Unknown;
        } else {
            let axis = dims::axis(context.int("axis", 0), shape.len() + 1)?;
            shape.insert(axis, Dim::Unknown);
        }
        Some(shape)
    });
    Some(Type::Tensor { elem, shape })
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn sequences_carry_the_type_of_their_items() {
        check("SequenceEmpty dtype=i7", "", "seq(int64[..])");
        check("SequenceConstruct", "float[2,3]; float[2,4]", "seq(float[2, ?])");
        check("SequenceConstruct", "float[2]; float[2,4]", "seq(float[..])");
        check("SequenceAt", "seq(float[2,3]); int64[]", "float[2, 3]");
        check("SequenceErase", "seq(float[2,3])", "seq(float[2, 3])");
        check("SequenceInsert", "seq(float[2,3]); float[2,5]", "seq(float[2, ?])");
        check("SequenceLength", "seq(float[2,3])", "int64[]");
        check("ConcatFromSequence axis=i1", "seq(float[2,3])", "float[2, ?]");
        check("ConcatFromSequence axis=i-1 new_axis=i1", "seq(float[2,3])", "float[2, 3, ?]");
    }

    #[test]
    fn splitting_needs_a_size_that_divides() {
        check("SplitToSequence axis=i1", "float[2,6]", "seq(float[2, 1])");
        check("SplitToSequence axis=i1 keepdims=i0", "float[2,6]", "seq(float[2])");
        check("SplitToSequence axis=i1", "float[2,6]; int64{3}", "seq(float[2, 3])");
        check("SplitToSequence axis=i1", "float[2,6]; int64{4}", "seq(float[2, ?])");
        check("SplitToSequence axis=i9", "float[2,6]", "seq(float[..])");
    }

    #[test]
    fn optionals_wrap_and_unwrap() {
        check("Optional", "float[2]", "optional(float[2])");
        check("OptionalGetElement", "optional(float[2])", "float[2]");
        check("OptionalGetElement", "float[2]", "float[2]");
        check("OptionalHasElement", "optional(float[2])", "bool[]");
    }
}
