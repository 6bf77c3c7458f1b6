//! What is known while inferring.

use std::borrow::Cow;
use std::collections::HashMap;

use super::types::{constant_type, tame};
use crate::{AttributeValue, Model, Node, Producer, Tensor, Type, ValueId};

/// How deep graphs and calls may nest before their values keep the types they have.
pub(super) const MAX_DEPTH: usize = 48;

/// What is known while inferring: the model, and on top of it the types found so far.
pub(super) struct Env<'a> {
    pub(super) model: &'a Model,
    /// Types found; `None` inside where a visit found nothing.
    pub(super) found: HashMap<ValueId, Option<Type>>,
    /// The nodes whose functions are being inferred, outermost first, and whether the function
    /// has default values for attributes.
    pub(super) callers: Vec<(&'a Node, bool)>,
    /// What the inputs of those functions stand for.
    pub(super) arguments: HashMap<ValueId, ValueId>,
}

impl<'a> Env<'a> {
    /// The type of a value, cut to what means something and is cheap to pass on.
    pub(super) fn ty(&self, value: ValueId) -> Option<Cow<'_, Type>> {
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
    pub(super) fn constant(&self, value: ValueId) -> Option<std::sync::Arc<Tensor>> {
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
    pub(super) fn attribute(&self, node: &'a Node, name: &str) -> Option<&'a AttributeValue> {
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
    pub(super) fn has_open_reference(&self, node: &'a Node) -> bool {
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
