//! What an adapter sees of the node it rewrites, and the changes it may make around it.

use bytes::Bytes;
use modelopt_graph::{
    Attribute, AttributeValue, Constant, DataType, Model, NewNode, Node, NodeId, Operator, Origin,
    Place, Producer, Shape, Tensor, Type, ValueId,
};

/// Rewrites one node from the form of the version before to that of its own version. Says whether
/// anything had to be done.
pub(super) type Adapter = fn(&mut Site<'_>) -> Result<bool, Obstacle>;

/// Why a node has no equivalent at a newer version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// The operator is not one of `ai.onnx` at the model's version.
    #[error("there is no such operator in operator set {version}")]
    NoOperator {
        /// The model's version.
        version: i64,
    },
    /// The operator ends, and nothing takes its place.
    #[error("the operator was withdrawn, and nothing takes its place")]
    Withdrawn,
    /// What it computes cannot be said with newer operators.
    #[error("{0}")]
    NoEquivalent(&'static str),
    /// An element type that it has is no longer allowed.
    #[error("{elem} is no longer allowed")]
    LostType {
        /// Element type.
        elem: DataType,
    },
    /// A constant has to be made of a type that is not known.
    #[error("the element type of '{value}' is not known")]
    UnknownType {
        /// Name of the value.
        value: String,
    },
    /// An attribute that becomes an input is taken from the caller of a function.
    #[error("the attribute '{name}' is given by the callers of a function, and has to be an input")]
    CallersAttribute {
        /// Name of the attribute.
        name: String,
    },
    /// An attribute has another kind of value than the operator allows.
    #[error("its attribute '{name}' is not what the operator takes")]
    Malformed {
        /// Name of the attribute.
        name: &'static str,
    },
}

/// A node, and where the whole model is going.
pub(super) struct Site<'a> {
    pub(super) model: &'a mut Model,
    pub(super) node: NodeId,
    /// The operator set that the model ends at: what is inserted need not be valid before.
    pub(super) to: i64,
    /// The last node that was put behind this one.
    last: NodeId,
}

impl<'a> Site<'a> {
    pub(super) fn new(model: &'a mut Model, node: NodeId, to: i64) -> Self {
        Site { model, node, to, last: node }
    }

    pub(super) fn node(&self) -> &Node {
        self.model.node(self.node)
    }

    pub(super) fn input(&self, index: usize) -> Option<ValueId> {
        self.node().input(index)
    }

    pub(super) fn has_attribute(&self, name: &str) -> bool {
        self.node().attribute(name).is_some()
    }

    /// The element type of an input.
    pub(super) fn elem(&self, index: usize) -> Result<DataType, Obstacle> {
        let value = self.input(index).map(|value| self.model.value(value));
        value.and_then(modelopt_graph::Value::elem).ok_or_else(|| Obstacle::UnknownType {
            value: value.map_or_else(String::new, |value| value.name().to_owned()),
        })
    }

    pub(super) fn shape(&self, index: usize) -> Option<Shape> {
        let value = self.model.value(self.input(index)?);
        match value.constant() {
            Some(Constant::Dense(tensor)) => {
                Some(tensor.shape().iter().map(|&size| modelopt_graph::Dim::Fixed(size)).collect())
            }
            _ => value.ty().and_then(Type::shape).cloned(),
        }
    }

    /// Whether anything uses an output.
    pub(super) fn is_read(&self, output: usize) -> bool {
        self.node().output(output).is_some_and(|value| !self.model.value(value).uses().is_empty())
    }

    pub(super) fn rename(&mut self, op: &str) {
        op.clone_into(&mut self.model.node_mut(self.node).op.name);
    }

    pub(super) fn set_attribute(&mut self, name: &str, value: impl Into<AttributeValue>) {
        self.take_attribute(name);
        self.model.node_mut(self.node).attributes.push(Attribute::new(name, value));
    }

    pub(super) fn take_attribute(&mut self, name: &str) -> Option<Attribute> {
        let attributes = &mut self.model.node_mut(self.node).attributes;
        let place = attributes.iter().position(|attribute| attribute.name == name)?;
        Some(attributes.remove(place))
    }

    /// The value of an attribute that must be known now.
    pub(super) fn int(&self, name: &'static str) -> Result<Option<i64>, Obstacle> {
        match self.node().attribute(name) {
            None => Ok(None),
            Some(AttributeValue::Int(value)) => Ok(Some(*value)),
            Some(other) => Err(unreadable(name, other)),
        }
    }

    /// The value of an attribute that must be known now.
    pub(super) fn float(&self, name: &'static str) -> Result<Option<f32>, Obstacle> {
        match self.node().attribute(name) {
            None => Ok(None),
            Some(AttributeValue::Float(value)) => Ok(Some(*value)),
            Some(other) => Err(unreadable(name, other)),
        }
    }

    /// The value of an attribute that must be known now.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<&str>, Obstacle> {
        match self.node().attribute(name) {
            None => Ok(None),
            Some(AttributeValue::String(text)) => {
                std::str::from_utf8(text).map(Some).map_err(|_| Obstacle::Malformed { name })
            }
            Some(other) => Err(unreadable(name, other)),
        }
    }

    pub(super) fn set_input(&mut self, index: usize, value: ValueId) {
        self.model.set_input(self.node, index, Some(value));
    }

    /// Leaves an input out, and a constant that nothing else reads.
    pub(super) fn drop_input(&mut self, index: usize) {
        let Some(value) = self.input(index) else { return };
        self.model.set_input(self.node, index, None);
        let left = self.model.value(value);
        match left.producer() {
            _ if !left.uses().is_empty() => {}
            Producer::Initializer(_) => self.model.clear_constant(value),
            Producer::Node(node, 0) if self.model.node(node).op.is("Constant") => {
                self.model.remove(node);
            }
            _ => {}
        }
    }

    /// Turns a list of integers from an attribute into an input; `None` where it has none or, for what
    /// may be left out, an empty one.
    pub(super) fn list_to_input(
        &mut self,
        name: &'static str,
        index: usize,
        needed: Needed,
    ) -> Result<(), Obstacle> {
        let value = match self.node().attribute(name) {
            None if needed == Needed::Yes => return Err(Obstacle::Malformed { name }),
            None => return Ok(()),
            Some(AttributeValue::Ints(list)) if list.is_empty() && needed == Needed::No => {
                self.take_attribute(name);
                return Ok(());
            }
            Some(AttributeValue::Ints(list)) => {
                let list = tensor(vec![list.len()], list);
                self.constant(name, list)
            }
            Some(AttributeValue::Reference(_)) => self.callers_list(name)?,
            Some(_) => return Err(Obstacle::Malformed { name }),
        };
        self.take_attribute(name);
        self.set_input(index, value);
        Ok(())
    }

    /// A list that callers of the function give, as a value: a `Constant` takes it from them.
    fn callers_list(&mut self, name: &'static str) -> Result<ValueId, Obstacle> {
        // What `Constant` takes lists since.
        const LISTS: i64 = 12;
        let given = self.node().attributes.iter().find(|attribute| attribute.name == name);
        let given = given.filter(|given| self.to >= LISTS && self.is_always_given(given));
        let Some(given) = given else {
            return Err(Obstacle::CallersAttribute { name: name.to_owned() });
        };
        let list = Attribute { name: "value_ints".to_owned(), ..given.clone() };
        Ok(self.insert_before("Constant", name, Vec::new(), vec![list]))
    }

    /// Whether every call of the function gives what an attribute refers to.
    fn is_always_given(&self, reference: &Attribute) -> bool {
        let AttributeValue::Reference(outer) = &reference.value else { return false };
        let Some(function) = self.model.function_of(self.node().graph()) else { return false };
        let is_call = |id: &NodeId| {
            self.model.called_function(*id).is_some_and(|called| called.body == function.body)
        };
        let graphs = std::iter::once(self.model.main());
        let graphs = graphs.chain(self.model.functions.iter().map(|function| function.body));
        let mut calls = graphs.flat_map(|graph| self.model.walk_graph(graph)).filter(is_call);
        calls.all(|call| self.model.node(call).attribute(outer).is_some())
    }

    /// A new constant for the use of this node. Bodies of functions hold no initializers.
    pub(super) fn constant(&mut self, what: &str, tensor: Tensor) -> ValueId {
        let graph = self.node().graph();
        if self.model.function_of(graph).is_some() {
            let value = Attribute::new("value", tensor);
            return self.insert_before("Constant", what, Vec::new(), vec![value]);
        }
        let name = self.fresh_name(what);
        let value = self.model.add_value(name);
        self.model.set_constant(graph, value, Constant::Dense(tensor.into()));
        value
    }

    /// A new node in front of this one, which makes a new value.
    pub(super) fn before<I: Into<Option<ValueId>> + Copy>(
        &mut self,
        op: &str,
        what: &str,
        inputs: &[I],
        attributes: &[(&str, AttributeValue)],
    ) -> ValueId {
        let inputs = inputs.iter().map(|input| (*input).into()).collect();
        self.insert_before(op, what, inputs, listed(attributes))
    }

    fn insert_before(
        &mut self,
        op: &str,
        what: &str,
        inputs: Vec<Option<ValueId>>,
        attributes: Vec<Attribute>,
    ) -> ValueId {
        let name = self.fresh_name(what);
        let output = self.model.add_value(name.clone());
        let outputs = vec![Some(output)];
        let op = Operator::onnx(op);
        let node = NewNode { name, op, inputs, outputs, attributes, origin: Origin::NONE };
        self.model.insert(node, Place::Before(self.node));
        output
    }

    /// Lets this node make a new value; what it made until now is to be made by a node behind it.
    pub(super) fn give_up_output(&mut self, index: usize, what: &str) -> Option<Given> {
        let old = self.node().output(index)?;
        let name = self.fresh_name(what);
        let new = self.model.add_value(name);
        self.model.set_output(self.node, index, new);
        Some(Given { old, new })
    }

    /// A new node behind this one and those that were put there before.
    pub(super) fn after(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attributes: &[(&str, AttributeValue)],
        output: ValueId,
    ) {
        let name = self.fresh_name(&op.to_lowercase());
        let node = NewNode::onnx(name, op, inputs, output, listed(attributes));
        self.last = self.model.insert(node, Place::After(self.last));
    }

    /// Puts another node of the same name in the place of this one. What is nested in this one stays, for
    /// the attributes of another node.
    pub(super) fn replace(
        &mut self,
        op: &str,
        inputs: Vec<Option<ValueId>>,
        outputs: Vec<Option<ValueId>>,
        attributes: Vec<Attribute>,
    ) {
        let name = self.node().name.clone();
        let op = Operator::onnx(op);
        let new = NewNode { name, op, inputs, outputs, attributes, origin: Origin::NONE };
        let new = self.model.insert(new, Place::Before(self.node));
        self.model.node_mut(self.node).attributes.clear();
        self.model.remove(self.node);
        (self.node, self.last) = (new, new);
    }

    /// A name that nothing has, after what the node makes.
    pub(super) fn fresh_name(&mut self, what: &str) -> String {
        let node = self.node();
        let base = match node.outputs().iter().flatten().next() {
            Some(&output) => self.model.value(output).name().to_owned(),
            None => node.name.clone(),
        };
        self.model.fresh_name(&format!("{base}_{what}"))
    }
}

/// An output that changed hands.
pub(super) struct Given {
    /// The value that others read.
    pub(super) old: ValueId,
    /// What the node makes instead.
    pub(super) new: ValueId,
}

/// Whether an input must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    Yes,
    No,
}

fn unreadable(name: &'static str, value: &AttributeValue) -> Obstacle {
    match value {
        AttributeValue::Reference(_) => Obstacle::CallersAttribute { name: name.to_owned() },
        _ => Obstacle::Malformed { name },
    }
}

fn listed(attributes: &[(&str, AttributeValue)]) -> Vec<Attribute> {
    attributes.iter().map(|(name, value)| Attribute::new(*name, value.clone())).collect()
}

/// A small tensor of integers.
pub(super) fn tensor(shape: Vec<usize>, elements: &[i64]) -> Tensor {
    small(DataType::INT64, shape, elements.iter().flat_map(|x| x.to_le_bytes()).collect())
}

/// A small tensor of float32.
pub(super) fn floats(elements: &[f32]) -> Tensor {
    let bytes = elements.iter().flat_map(|x| x.to_le_bytes()).collect();
    small(DataType::FLOAT, vec![elements.len()], bytes)
}

/// A number as a tensor without dimensions, of a float type.
pub(super) fn scalar(elem: DataType, number: f32) -> Option<Tensor> {
    match elem {
        DataType::FLOAT => Some(Tensor::scalar(number)),
        DataType::DOUBLE => Some(Tensor::scalar(f64::from(number))),
        DataType::FLOAT16 => Some(Tensor::scalar(half::f16::from_f32(number))),
        DataType::BFLOAT16 => Some(Tensor::scalar(half::bf16::from_f32(number))),
        _ => None,
    }
}

/// The caller gives as many bytes as the shape asks for.
fn small(elem: DataType, shape: Vec<usize>, bytes: Vec<u8>) -> Tensor {
    match Tensor::dense(elem, shape, Bytes::from(bytes)) {
        Ok(tensor) => tensor,
        Err(error) => unreachable!("{error}"),
    }
}
