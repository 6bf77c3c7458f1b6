//! One node: element types from the schema, shapes from the operator's rule.

use super::context::Context;
use super::env::Env;
use super::rule::Rule;
use super::types::without_shape;
use super::{contrib, conv, elements, elementwise, layout, matrix, misc, ml};
use super::{recurrent, reduce, resize, sequence};
use crate::schema::{self, FormalOption, OpSchema, TypeRef};
use crate::{NodeId, Type};

/// Types of a node's outputs.
pub(super) fn types(env: &Env<'_>, id: NodeId) -> Vec<Option<Type>> {
    let context = Context::new(env, id);
    let node = context.node;
    let open = env.has_open_reference(node);
    let domain = if node.op.is_onnx() { "" } else { node.op.domain.as_str() };
    let schema = schema::lookup(domain, &node.op.name, context.version);
    let mut types = match schema {
        Some(schema) => by_schema(&context, schema, open),
        None => vec![None; node.outputs().len()],
    };
    if open {
        return types;
    }
    if domain.is_empty()
        && let Some(derived) = sequence::types(&context)
    {
        return derived;
    }
    let shapes = rule(domain, &node.op.name).and_then(|rule| rule(&context)).unwrap_or_default();
    for (ty, found) in types.iter_mut().zip(shapes) {
        if let Some(Type::Tensor { shape, .. }) = ty {
            *shape = found;
        }
    }
    types
}

fn rule(domain: &str, op: &str) -> Option<Rule> {
    const ONNX: &[fn(&str) -> Option<Rule>] = &[
        elementwise::rule,
        matrix::rule,
        conv::rule,
        layout::rule,
        resize::rule,
        reduce::rule,
        recurrent::rule,
        misc::rule,
    ];
    match domain {
        "" => ONNX.iter().find_map(|family| family(op)),
        "ai.onnx.ml" => ml::rule(op),
        "ai.onnx.preview" => misc::preview_rule(op),
        "com.microsoft" => contrib::rule(op),
        _ => None,
    }
}

/// Types without shapes: variables are bound by the inputs, then read by the outputs.
fn by_schema(context: &Context<'_>, schema: &OpSchema, open: bool) -> Vec<Option<Type>> {
    let mut bound: Vec<Option<Type>> = vec![None; schema.type_variables.len()];
    for index in 0..context.input_count() {
        if let (Some(formal), Some(ty)) = (schema.formal_input(index), context.ty(index))
            && formal.homogeneous
            && let TypeRef::Variable(variable) = formal.ty
            && let Some(slot @ None) = bound.get_mut(variable)
        {
            *slot = Some(without_shape(ty));
        }
    }
    (0..context.output_count())
        .map(|index| {
            let formal = schema.formal_output(index)?;
            let by_attribute = if open { None } else { elements::output(context, schema, index) };
            if by_attribute.is_some() {
                return by_attribute;
            }
            if formal.option == FormalOption::Variadic && !formal.homogeneous {
                return None;
            }
            match formal.ty {
                TypeRef::Concrete(ty) => Some(ty.to_type()),
                TypeRef::Variable(variable) => bound.get(variable)?.clone().or_else(|| {
                    match &*schema.type_variables.get(variable)?.allowed {
                        [only] => Some(only.to_type()),
                        _ => None,
                    }
                }),
            }
        })
        .collect()
}
