//! Types and shapes of values, derived from the operators.
//!
//! [`infer`] visits every node once in order (bodies of loops a bounded number of times) and
//! sets the type of every value; [`infer_node`] answers for one node. What a model declares of
//! values in between may be stale, so a declaration counts only where nothing can be derived;
//! the types of the main graph's inputs and of constants are facts.
//!
//! A size that is derived is true of every run of a valid model: symbols are kept only where
//! the operator leaves the size as it is, and everything else becomes
//! [`Dim::Unknown`](crate::Dim::Unknown). Nothing here panics or takes more than linear time,
//! whatever sizes, ranks and attributes a model has.
//!
//! `infer/` has one file per family of operators; each lists its rules in a function `rule`.

mod call;
mod contents;
mod context;
mod contrib;
mod control;
mod conv;
mod dims;
mod elements;
mod elementwise;
mod engine;
mod env;
mod layout;
mod matrix;
mod misc;
mod ml;
mod node;
mod recurrent;
mod reduce;
mod resize;
mod rule;
mod sequence;
#[cfg(test)]
mod testing;
mod types;

use engine::Engine;
use types::constant_type;

use crate::{Model, NodeId, Producer, Type, ValueId};

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
