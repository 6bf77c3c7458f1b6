//! Types and shapes of values, derived from the operators.
//!
//! [`infer`] visits every node once in order (bodies of loops a bounded number of times) and
//! sets the type of every value; [`infer_node`] answers for one node. What a model declares of
//! values in between may be stale, so a declaration counts only where nothing can be derived;
//! the types of the main graph's inputs and of constants are facts.
//!
//! A size that is derived is true of every run of a valid model: symbols are kept only where
//! the operator leaves the size as it is, and everything else becomes [`Dim::Unknown`]. Nothing
//! here panics or takes more than linear time, whatever sizes, ranks and attributes a model has.
//!
//! `infer/` has one file per family of operators; each lists its rules in a function `rule`.

mod call;
mod contents;
mod contrib;
mod control;
mod conv;
mod dims;
mod elements;
mod elementwise;
mod layout;
mod matrix;
mod misc;
mod ml;
mod node;
mod recurrent;
mod reduce;
mod resize;
mod sequence;
#[cfg(test)]
mod testing;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::model::Constant;
use crate::{AttributeValue, Dim, GraphId, Model, Node, NodeId, Producer, Tensor, Type, ValueId};

/// Ranks above this are treated as unknown, so that shapes stay cheap to pass on.
const MAX_RANK: usize = 64;
/// Longer symbols are treated as unknown sizes, for the same reason.
const MAX_SYMBOL: usize = 256;
/// Names that exporters give to any size they do not know, so that equal names do not mean
/// equal sizes.
const NO_NAMES: [&str; 4] = ["", "?", "-1", "None"];
/// How deep sequences and optionals may nest before their type counts as unknown.
const MAX_WRAPS: usize = 8;
/// How deep graphs and calls may nest before their values keep the types they have.
const MAX_DEPTH: usize = 48;

/// Derives the type of every value of the model, in all graphs.
///
/// A value about which nothing can be derived gets its declared type, if it has one. Inputs of
/// the main graph keep theirs. Values of a function's body get what holds for all its calls.
/// Linear in the number of nodes, which must be in order (see [`crate::verify::sort`]).
pub fn infer(model: &mut Model) {
    let types = {
        let mut engine = Engine::whole(model);
        engine.graph(model.main(), 0);
        engine.finish()
    };
    for (value, ty) in types {
        if !matches!(model.value(value).producer(), Producer::Input(graph) if graph == model.main())
            || model.value(value).ty().is_none()
        {
            model.set_type(value, ty);
        }
    }
    let constants: Vec<ValueId> = model
        .values()
        .filter(|&value| {
            let known = model.value(value);
            // The default of an input gives its type only where none is declared.
            match known.producer() {
                Producer::Initializer(_) => true,
                Producer::Input(_) => known.ty().is_none() && known.constant().is_some(),
                _ => false,
            }
        })
        .collect();
    for value in constants {
        let ty = model.value(value).constant().map(constant_type);
        model.set_type(value, ty);
    }
}

/// Derives the types of a node's outputs from what the model says of its inputs, one entry per
/// output; `None` where nothing can be derived. Declared types of the outputs do not count.
///
/// Nested graphs are inferred along, and only read.
pub fn infer_node(model: &Model, node: NodeId) -> Vec<Option<Type>> {
    Engine::new(model).node(node, 0)
}

/// Like [`infer_node`], if some values had other types than the model says.
pub fn infer_node_if(
    model: &Model,
    node: NodeId,
    types: impl IntoIterator<Item = (ValueId, Type)>,
) -> Vec<Option<Type>> {
    let mut engine = Engine::new(model);
    engine.env.found.extend(types.into_iter().map(|(value, ty)| (value, Some(ty))));
    engine.node(node, 0)
}

/// What is known of the elements of a small integer tensor of rank 0 or 1, from the types that the
/// model says its values have: constants, sizes of shapes that are fixed, and arithmetic on them.
/// `None` if not even the number of elements is known.
pub fn known_integers(model: &Model, value: ValueId) -> Option<Vec<Option<i64>>> {
    let engine = Engine::new(model);
    let elements = contents::of(&engine.env, value)?;
    Some(elements.iter().map(contents::Int::known).collect())
}

/// The type that a constant has.
fn constant_type(constant: &Constant) -> Type {
    match constant {
        Constant::Dense(tensor) => tensor_type(tensor),
        Constant::Sparse(tensor) => Type::SparseTensor {
            elem: tensor.values.dtype(),
            shape: Some(tensor.shape.iter().map(|&size| Dim::Fixed(size)).collect()),
        },
    }
}

fn tensor_type(tensor: &Tensor) -> Type {
    Type::Tensor {
        elem: tensor.dtype(),
        shape: Some(tensor.shape().iter().map(|&size| Dim::Fixed(size)).collect()),
    }
}

/// What is known while inferring: the model, and on top of it the types found so far.
struct Env<'a> {
    model: &'a Model,
    /// Types found; `None` inside where a visit found nothing.
    found: HashMap<ValueId, Option<Type>>,
    /// The nodes whose functions are being inferred, outermost first, and whether the function
    /// has default values for attributes.
    callers: Vec<(&'a Node, bool)>,
    /// What the inputs of those functions stand for.
    arguments: HashMap<ValueId, ValueId>,
}

impl<'a> Env<'a> {
    /// The type of a value, cut to what means something and is cheap to pass on.
    fn ty(&self, value: ValueId) -> Option<Cow<'_, Type>> {
        if let Some(found) = self.found.get(&value) {
            return found.as_ref().map(Cow::Borrowed);
        }
        let known = self.model.value(value);
        match (known.producer(), known.constant(), known.ty()) {
            (Producer::Input(_), _, Some(ty)) => tame(Cow::Borrowed(ty)),
            (Producer::Input(_) | Producer::Initializer(_), Some(constant), _) => {
                tame(Cow::Owned(constant_type(constant)))
            }
            (_, _, ty) => tame(Cow::Borrowed(ty?)),
        }
    }

    /// The constant that a value is, also through the input of a function that is being called.
    fn constant(&self, value: ValueId) -> Option<std::sync::Arc<Tensor>> {
        let mut value = value;
        for _ in 0..MAX_DEPTH {
            match self.arguments.get(&value) {
                Some(&argument) => value = argument,
                None => return self.model.constant(value),
            }
        }
        None
    }

    /// An attribute of a node, looked up on the caller where it refers to one.
    fn attribute(&self, node: &'a Node, name: &str) -> Option<&'a AttributeValue> {
        self.resolve(node.attribute(name)?).ok()?
    }

    /// The value behind a reference to an attribute of the caller: `Ok(None)` where the caller
    /// leaves it out, an error where that does not settle it.
    fn resolve(&self, value: &'a AttributeValue) -> Result<Option<&'a AttributeValue>, Open> {
        let mut found = value;
        let mut callers = self.callers.iter().rev();
        while let AttributeValue::Reference(outer) = found {
            let (caller, has_defaults) = callers.next().ok_or(Open)?;
            match caller.attribute(outer) {
                Some(value) => found = value,
                None if *has_defaults => return Err(Open),
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// Whether an attribute refers to one whose value is not known, so that nothing may be
    /// derived from the node's attributes.
    fn has_open_reference(&self, node: &'a Node) -> bool {
        const MOST_REFERENCES: usize = 64;
        let is_reference = |value: &&AttributeValue| matches!(value, AttributeValue::Reference(_));
        let mut references =
            node.attributes.iter().map(|attribute| &attribute.value).filter(is_reference);
        references.by_ref().take(MOST_REFERENCES).any(|value| self.resolve(value).is_err())
            || references.next().is_some()
    }
}

/// The value of an attribute is not known.
struct Open;

fn is_unusable(dim: &Dim) -> bool {
    match dim {
        Dim::Symbol(name) => name.len() > MAX_SYMBOL || NO_NAMES.contains(&name.as_str()),
        _ => false,
    }
}

/// A type without symbols that mean nothing and parts that would be expensive to pass on.
fn tame(ty: Cow<'_, Type>) -> Option<Cow<'_, Type>> {
    fn cheap(ty: &Type, wraps: usize) -> Option<bool> {
        match ty {
            Type::Tensor { shape, .. } | Type::SparseTensor { shape, .. } => Some(
                shape
                    .as_ref()
                    .is_none_or(|shape| shape.len() <= MAX_RANK && !shape.iter().any(is_unusable)),
            ),
            Type::Sequence(inner) | Type::Optional(inner) | Type::Map { value: inner, .. } => {
                if wraps == MAX_WRAPS {
                    None
                } else {
                    cheap(inner, wraps + 1)
                }
            }
            Type::Other => Some(true),
        }
    }
    fn cut(ty: &mut Type) {
        match ty {
            Type::Tensor { shape, .. } | Type::SparseTensor { shape, .. } => {
                if shape.as_ref().is_some_and(|shape| shape.len() > MAX_RANK) {
                    *shape = None;
                }
                for dim in shape.iter_mut().flatten() {
                    if is_unusable(dim) {
                        *dim = Dim::Unknown;
                    }
                }
            }
            Type::Sequence(inner) | Type::Optional(inner) | Type::Map { value: inner, .. } => {
                cut(inner);
            }
            Type::Other => {}
        }
    }
    if cheap(&ty, 0)? {
        return Some(ty);
    }
    let mut ty = ty.into_owned();
    cut(&mut ty);
    Some(Cow::Owned(ty))
}

/// What holds of a value that has one of two types: the parts in which they agree.
fn join(a: &Type, b: &Type) -> Option<Type> {
    fn shapes(a: Option<&Vec<Dim>>, b: Option<&Vec<Dim>>) -> Option<Vec<Dim>> {
        let (a, b) = (a?, b?);
        (a.len() == b.len()).then(|| a.iter().zip(b).map(|(a, b)| dims::join(a, b)).collect())
    }
    let (a, b) = match (a, b) {
        (Type::Tensor { elem, shape }, Type::Tensor { elem: other, shape: with }) => {
            let shape = shapes(shape.as_ref(), with.as_ref());
            return (elem == other).then_some(Type::Tensor { elem: *elem, shape });
        }
        (Type::SparseTensor { elem, shape }, Type::SparseTensor { elem: other, shape: with }) => {
            let shape = shapes(shape.as_ref(), with.as_ref());
            return (elem == other).then_some(Type::SparseTensor { elem: *elem, shape });
        }
        (Type::Sequence(a), Type::Sequence(b)) => {
            return Some(Type::Sequence(join(a, b)?.into()));
        }
        (Type::Optional(a), Type::Optional(b)) => {
            return Some(Type::Optional(join(a, b)?.into()));
        }
        other => other,
    };
    (a == b).then(|| a.clone())
}

/// The same type with no shapes known.
fn without_shape(ty: &Type) -> Type {
    match ty {
        Type::Tensor { elem, .. } => Type::tensor(*elem),
        Type::SparseTensor { elem, .. } => Type::SparseTensor { elem: *elem, shape: None },
        Type::Sequence(inner) => Type::Sequence(without_shape(inner).into()),
        Type::Optional(inner) => Type::Optional(without_shape(inner).into()),
        Type::Map { key, value } => Type::Map { key: *key, value: without_shape(value).into() },
        Type::Other => Type::Other,
    }
}

fn join_known(a: Option<&Type>, b: Option<&Type>) -> Option<Type> {
    join(a?, b?)
}

/// What was derived, completed by what is declared where nothing was derived.
fn complete(found: Option<Type>, declared: Option<&Type>) -> Option<Type> {
    match (found, declared) {
        (None, declared) => {
            tame(Cow::Borrowed(declared?)).map(Cow::into_owned).filter(|ty| *ty != Type::Other)
        }
        (Some(Type::Tensor { elem, shape: None }), Some(Type::Tensor { elem: same, shape }))
            if elem == *same =>
        {
            tame(Cow::Owned(Type::Tensor { elem, shape: shape.clone() })).map(Cow::into_owned)
        }
        (found, _) => found,
    }
}

/// Visits graphs and nodes and keeps what it finds.
struct Engine<'a> {
    env: Env<'a>,
    /// Types declared for values that nodes make; empty when one node is asked about.
    declared: HashMap<ValueId, &'a Type>,
    /// Place of each function in the model.
    functions: HashMap<(&'a str, &'a str, &'a str), usize>,
    /// Functions being inferred.
    active: Vec<usize>,
    /// Functions with a call that could not be followed.
    unfollowed: HashSet<usize>,
    /// What all calls so far agree on, for values in bodies of functions.
    agreed: HashMap<ValueId, Option<Type>>,
    /// How many more nodes may be visited by following calls.
    fuel: usize,
}

impl<'a> Engine<'a> {
    fn new(model: &'a Model) -> Self {
        let functions = model.functions.iter().enumerate().map(|(index, function)| {
            ((function.domain.as_str(), function.name.as_str(), function.overload.as_str()), index)
        });
        Engine {
            env: Env {
                model,
                found: HashMap::new(),
                callers: Vec::new(),
                arguments: HashMap::new(),
            },
            declared: HashMap::new(),
            functions: functions.collect(),
            active: Vec::new(),
            unfollowed: HashSet::new(),
            agreed: HashMap::new(),
            fuel: model.node_capacity().saturating_mul(8).saturating_add(1000),
        }
    }

    fn whole(model: &'a Model) -> Self {
        let mut engine = Engine::new(model);
        for graph in model.all_graphs() {
            let graph = model.graph(graph);
            for info in graph.outputs.iter().chain(&graph.declared).chain(&graph.inputs) {
                if let Some(declared) = &info.ty {
                    engine.declared.entry(info.value).or_insert(&declared.ty);
                }
            }
        }
        engine
    }

    /// Infers the nodes of a graph in order.
    fn graph(&mut self, graph: GraphId, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        let model = self.env.model;
        for node in model.nodes_of(graph) {
            let types = self.node(node, depth);
            for (output, ty) in model.node(node).outputs().iter().zip(types) {
                if let Some(value) = *output {
                    self.set(value, ty);
                }
            }
        }
    }

    /// Keeps what was found of a value, or what is declared where nothing was.
    fn set(&mut self, value: ValueId, ty: Option<Type>) {
        let ty = complete(ty, self.declared.get(&value).copied());
        self.env.found.insert(value, ty);
    }

    /// The types of a node's outputs.
    fn node(&mut self, id: NodeId, depth: usize) -> Vec<Option<Type>> {
        let node = self.env.model.node(id);
        let mut types = match (node.op.is_onnx(), node.op.name.as_str()) {
            (true, "If") => self.branches(id, depth),
            (true, "Loop") => self.repeat(id, depth),
            (true, "Scan") => self.scan(id, depth),
            (true, "SequenceMap") => self.sequence_map(id, depth),
            _ => {
                if let Some(function) = self.called(node) {
                    self.call(id, function, depth)
                } else {
                    // Bodies of operators that are not known here have declared inputs at best.
                    for body in node.bodies() {
                        self.graph(body, depth + 1);
                    }
                    node::types(&self.env, id)
                }
            }
        };
        types.resize(node.outputs().len(), None);
        for ty in &mut types {
            *ty = ty.take().and_then(|ty| tame(Cow::Owned(ty)).map(Cow::into_owned));
        }
        types
    }

    /// Completes functions, and hands out what was found.
    fn finish(mut self) -> HashMap<ValueId, Option<Type>> {
        self.visit_uncalled();
        let Engine { env, agreed, .. } = self;
        let mut found = env.found;
        found.extend(agreed);
        found
    }
}
