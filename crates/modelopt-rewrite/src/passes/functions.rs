//! A call of a model-local function becomes the function's nodes:
//!
//! ```text
//! function linear(x, W) { y = MatMul(x, W) }
//! graph { h = linear(a, weight) }
//!   =>
//! graph { h = MatMul(a, weight) }
//! ```
//!
//! Only then is it seen that `weight` is a MatMul's. Done where a weight is passed to a function or
//! lies in one, or where all are to be seen; other functions stay as they are. A call stays where inlining could change its
//! meaning: attributes with defaults, bodies with nested graphs, operators that mean something else
//! at the model's opset, recursion.

use std::collections::{HashMap, HashSet};

use modelopt_graph::{
    Attribute, AttributeValue, GraphId, Model, NewNode, NodeId, Operator, OpsetImport, Origin,
    Place, ValueId, schema,
};

use crate::pass::{Changed, Pass, PassContext, PassError};

/// Calls in calls multiply; no real model comes near this many nodes.
const MOST_NODES: usize = 200_000;

pub(crate) struct Functions;

impl Pass for Functions {
    fn name(&self) -> &'static str {
        "functions"
    }

    fn run(&self, model: &mut Model, context: &mut PassContext) -> Result<Changed, PassError> {
        Ok(Changed(inline_calls(model, context.inline_functions)))
    }
}

/// Inlines calls: all, or those of functions that see weights. Returns how many.
pub(crate) fn inline_calls(model: &mut Model, all: bool) -> usize {
    if model.functions.is_empty() || !(all || functions_see_weights(model)) {
        return 0;
    }
    let inlinable: HashSet<GraphId> = model
        .functions
        .iter()
        .map(|function| function.body)
        .filter(|&body| can_inline(model, body))
        .collect();
    let mut open: Vec<NodeId> = model.walk();
    let (mut inlined, mut made) = (0, 0);
    while let Some(call) = open.pop() {
        let body = model.called_function(call).map(|function| function.body);
        if let Some(body) = body.filter(|body| inlinable.contains(body)) {
            let nodes = inline(model, call, body);
            made += nodes.len();
            inlined += 1;
            open.extend(nodes);
        }
        if made > MOST_NODES {
            break;
        }
    }
    if !model.walk().into_iter().any(|node| model.called_function(node).is_some()) {
        model.functions.clear();
    }
    inlined
}

/// Whether a float constant is passed to a function or lies in one.
fn functions_see_weights(model: &Model) -> bool {
    let is_weight = |value: ValueId| {
        model.constant(model.resolve(value)).is_some_and(|t| t.dtype().is_float() && t.len() > 1)
    };
    let passed = model.walk().into_iter().any(|node| {
        model.called_function(node).is_some()
            && model.node(node).inputs().iter().flatten().any(|&value| is_weight(value))
    });
    passed
        || model.functions.iter().any(|function| {
            let nodes = model.nodes_of(function.body);
            nodes.into_iter().any(|n| model.node(n).output(0).is_some_and(is_weight))
        })
}

fn can_inline(model: &Model, body: GraphId) -> bool {
    let Some(function) = model.function_of(body) else { return false };
    if function.has_attribute_defaults || calls_itself(model, body) {
        return false;
    }
    let version = |domain: &str| model.opset(model.main(), domain);
    model.nodes_of(body).all(|id| {
        let node = model.node(id);
        let op = &node.op;
        let same_meaning = match (model.opset(body, &op.domain), version(&op.domain)) {
            (Some(here), Some(there)) if here != there => {
                let since = |version| schema::lookup(&op.domain, &op.name, version);
                match (since(here), since(there)) {
                    (Some(a), Some(b)) => a.since_version == b.since_version,
                    _ => false,
                }
            }
            _ => true,
        };
        same_meaning && node.bodies().next().is_none()
    })
}

/// Whether a function calls itself, directly or through others.
fn calls_itself(model: &Model, body: GraphId) -> bool {
    let mut open = vec![body];
    let mut seen = HashSet::new();
    while let Some(current) = open.pop() {
        for node in model.nodes_of(current) {
            if let Some(function) = model.called_function(node) {
                if function.body == body {
                    return true;
                }
                if seen.insert(function.body) {
                    open.push(function.body);
                }
            }
        }
    }
    false
}

/// Puts a function's nodes in place of a call. Returns the new nodes.
fn inline(model: &mut Model, call: NodeId, body: GraphId) -> Vec<NodeId> {
    import_opsets(model, body);
    let caller = model.node(call).clone();
    let prefix = if caller.name.is_empty() { caller.op.name.clone() } else { caller.name.clone() };
    let (mut values, passed_through) = bound(model, &caller, body);
    let mut made = Vec::new();
    for id in model.nodes_of(body).collect::<Vec<_>>() {
        let node = model.node(id).clone();
        let outputs = node.outputs().iter().flatten().copied();
        for output in outputs {
            values.entry(output).or_insert_with(|| {
                let name = format!("{prefix}/{}", model.value(output).name());
                let name = model.fresh_name(&name);
                let value = model.add_value(name);
                Some(value)
            });
        }
        let mapped =
            |value: &Option<ValueId>| value.and_then(|v| values.get(&v).copied().flatten());
        let own = if node.name.is_empty() { node.op.name.clone() } else { node.name.clone() };
        let name = model.fresh_name(&format!("{prefix}/{own}"));
        let new = NewNode {
            name,
            op: node.op.clone(),
            inputs: node.inputs().iter().map(mapped).collect(),
            outputs: node.outputs().iter().map(mapped).collect(),
            attributes: node.attributes.iter().filter_map(|a| resolved(a, &caller)).collect(),
            origin: Origin::NONE,
        };
        made.push(model.insert(new, Place::Before(call)));
    }
    for (source, wanted) in passed_through {
        let name = model.fresh_name(&format!("{prefix}/Identity"));
        let new = NewNode {
            name,
            op: Operator::onnx("Identity"),
            inputs: vec![Some(source)],
            outputs: vec![Some(wanted)],
            attributes: Vec::new(),
            origin: Origin::NONE,
        };
        made.push(model.insert(new, Place::Before(call)));
    }
    model.remove(call);
    made
}

/// What stands for the values of a function where it is called; `None` for what is left out.
type Bound = HashMap<ValueId, Option<ValueId>>;

/// What stands for each parameter and result of a function where it is called, and pairs of a value and
/// the result that it is under another name: the function returns a parameter, or one result twice.
fn bound(
    model: &Model,
    caller: &modelopt_graph::Node,
    body: GraphId,
) -> (Bound, Vec<(ValueId, ValueId)>) {
    let mut values = Bound::new();
    for (index, input) in model.graph(body).inputs.iter().enumerate() {
        values.insert(input.value, caller.input(index));
    }
    let mut passed_through = Vec::new();
    for (index, output) in model.graph(body).outputs.iter().enumerate() {
        let Some(wanted) = caller.output(index) else { continue };
        match values.get(&output.value) {
            Some(&Some(source)) => passed_through.push((source, wanted)),
            Some(None) => {}
            None => {
                values.insert(output.value, Some(wanted));
            }
        }
    }
    (values, passed_through)
}

/// An attribute of a function's node, with a reference replaced by what the caller gives; none
/// where the caller gives nothing.
fn resolved(attribute: &Attribute, caller: &modelopt_graph::Node) -> Option<Attribute> {
    match &attribute.value {
        AttributeValue::Reference(name) => {
            let given = caller.attribute(name)?;
            Some(Attribute::new(attribute.name.clone(), given.clone()))
        }
        _ => Some(attribute.clone()),
    }
}

/// Imports what the function imports and the model does not.
fn import_opsets(model: &mut Model, body: GraphId) {
    let imports = model.function_of(body).map(|f| f.opsets.clone()).unwrap_or_default();
    for OpsetImport { domain, version, .. } in imports {
        if model.opset(model.main(), &domain).is_none() {
            model.info.opsets.push(OpsetImport { domain, version, origin: Origin::NONE });
        }
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{Function, Owner, ValueInfo};

    use super::*;
    use crate::testing::{Build, float};

    /// `linear(x, W) { y = MatMul(x, W) }`, called once.
    fn called(extra: impl FnOnce(&mut Build, GraphId, ValueId) -> ValueId) -> Build {
        let mut b = Build::new(17);
        let body = b.model.add_graph(Owner::Function(0));
        let info = |value| ValueInfo { value, ty: None, origin: Origin::NONE };
        let [x, w] = ["x", "W"].map(|name| b.model.add_value(name));
        b.model.add_input(body, info(x));
        b.model.add_input(body, info(w));
        let product = b.named_node_in(body, "MatMul", &[x, w], "product");
        let y = extra(&mut b, body, product);
        b.model.add_output(body, info(y));
        b.model.functions.push(Function {
            domain: "local".into(),
            name: "linear".into(),
            overload: String::new(),
            opsets: b.model.info.opsets.clone(),
            body,
            has_attribute_defaults: false,
            origin: Origin::NONE,
        });
        let a = b.input("a", float(&[1, 4]));
        let weight = b.weight("weight", &[4, 4], &[0.5; 16]);
        let h = b.node("linear", &[a, weight], &[]);
        let call = b.model.producer_node(h).unwrap();
        b.model.node_mut(call).op.domain = "local".into();
        b.output(h, float(&[1, 4]));
        b
    }

    #[test]
    fn a_call_becomes_the_functions_nodes() {
        let mut b = called(|b, body, product| b.named_node_in(body, "Relu", &[product], "y"));
        assert_eq!(inline_calls(&mut b.model, false), 1);
        assert_eq!(b.ops(), ["MatMul", "Relu"]);
        assert!(b.model.functions.is_empty());
        let matmul = b.model.node(b.model.walk()[0]);
        assert_eq!(b.model.value(matmul.input(1).unwrap()).name(), "weight");
    }

    #[test]
    fn attributes_with_defaults_keep_the_call() {
        let mut b = called(|_, _, product| product);
        b.model.functions[0].has_attribute_defaults = true;
        assert_eq!(inline_calls(&mut b.model, false), 0);
        assert_eq!(b.ops(), ["linear"]);
    }

    #[test]
    fn a_function_that_calls_itself_stays() {
        let mut b = called(|b, body, product| {
            let again = b.named_node_in(body, "linear", &[product, product], "again");
            let node = b.model.producer_node(again).unwrap();
            b.model.node_mut(node).op.domain = "local".into();
            again
        });
        assert_eq!(inline_calls(&mut b.model, false), 0);
    }
}
