//! One node: element types from the schema, shapes from the operator's rule.

use std::borrow::Cow;

use super::contents::{self, Int};
use super::{Env, contrib, conv, elements, elementwise, layout, matrix, misc, ml, without_shape};
use super::{recurrent, reduce, resize, sequence};
use crate::schema::{self, FormalOption, OpSchema, TypeRef};
use crate::{AttributeValue, DataType, Dim, Node, NodeId, Shape, Type, ValueId};

/// The shapes of a node's outputs, as far as they are known; missing ones are unknown.
pub(super) type Shapes = Vec<Option<Shape>>;

/// Derives the shapes of an operator's outputs; `None` where nothing can be said.
pub(super) type Rule = fn(&Context<'_>) -> Option<Shapes>;

/// The answer of a rule for an operator with one output.
#[allow(clippy::unnecessary_wraps)] // What a `Rule` returns.
pub(super) fn one(shape: Shape) -> Option<Shapes> {
    Some(vec![Some(shape)])
}

/// A node as its rule sees it.
pub(super) struct Context<'a> {
    env: &'a Env<'a>,
    node: &'a Node,
    /// Version of the operator set.
    pub(super) version: i64,
    inputs: Vec<Option<Cow<'a, Type>>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(env: &'a Env<'a>, id: NodeId) -> Self {
        let node = env.model.node(id);
        // A model that leaves out an import means the newest version, if anything.
        let version = env.model.opset(node.graph(), &node.op.domain).unwrap_or(i64::MAX);
        let inputs = node.inputs().iter().map(|input| env.ty((*input)?)).collect();
        Context { env, node, version, inputs }
    }

    /// How many inputs are listed, left-out ones included.
    pub(super) fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// How many outputs are listed, left-out ones included.
    pub(super) fn output_count(&self) -> usize {
        self.node.outputs().len()
    }

    /// Name of the operator.
    pub(super) fn op(&self) -> &'a str {
        &self.node.op.name
    }

    /// Whether an input is given.
    pub(super) fn has(&self, index: usize) -> bool {
        self.node.input(index).is_some()
    }

    /// Type of an input.
    pub(super) fn ty(&self, index: usize) -> Option<&Type> {
        self.inputs.get(index)?.as_deref()
    }

    /// Element type of an input.
    pub(super) fn elem(&self, index: usize) -> Option<DataType> {
        self.ty(index)?.elem()
    }

    /// Shape of an input.
    pub(super) fn shape(&self, index: usize) -> Option<&Shape> {
        self.ty(index)?.shape()
    }

    /// One size of an input; unknown where the shape is, or where it has no such axis.
    pub(super) fn dim(&self, index: usize, axis: usize) -> Dim {
        self.shape(index).and_then(|shape| shape.get(axis)).cloned().unwrap_or(Dim::Unknown)
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'a AttributeValue> {
        self.env.attribute(self.node, name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        match self.attribute(name) {
            Some(AttributeValue::Int(value)) => *value,
            _ => default,
        }
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        match self.attribute(name) {
            Some(AttributeValue::Ints(values)) => Some(values),
            _ => None,
        }
    }

    pub(super) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        match self.attribute(name) {
            Some(AttributeValue::Floats(values)) => Some(values),
            _ => None,
        }
    }

    pub(super) fn float(&self, name: &str) -> Option<f32> {
        match self.attribute(name) {
            Some(AttributeValue::Float(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn string(&self, name: &str) -> Option<&'a str> {
        match self.attribute(name) {
            Some(AttributeValue::String(value)) => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }

    /// An element type given as an integer attribute.
    pub(super) fn data_type(&self, name: &str) -> Option<DataType> {
        match self.attribute(name) {
            Some(AttributeValue::Int(number)) => {
                i32::try_from(*number).ok().filter(|n| *n != 0).map(DataType::from_number)
            }
            _ => None,
        }
    }

    fn value(&self, index: usize) -> Option<ValueId> {
        self.node.input(index)
    }

    /// What is known of the elements of a small integer input of rank 0 or 1.
    pub(super) fn contents(&self, index: usize) -> Option<Vec<Int>> {
        contents::of(self.env, self.value(index)?)
    }

    /// The elements of a small integer input of rank 0 or 1, if all are known.
    pub(super) fn constant_ints(&self, index: usize) -> Option<Vec<i64>> {
        self.contents(index)?.iter().map(Int::known).collect()
    }

    /// The only element of an integer input, if known.
    pub(super) fn constant_int(&self, index: usize) -> Option<i64> {
        match self.constant_ints(index)?.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// The elements of a constant float input.
    pub(super) fn constant_floats(&self, index: usize) -> Option<Vec<f32>> {
        if self.shape(index).is_some_and(|shape| !contents::few(shape)) {
            return None;
        }
        let tensor = self.env.constant(self.value(index)?)?;
        (tensor.len() <= contents::MOST).then(|| tensor.to_f32().map(Cow::into_owned))?
    }
}

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
