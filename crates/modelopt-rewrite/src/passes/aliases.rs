//! A value behind `Identity` is the value itself:
//!
//! ```text
//! W2 = Identity(W); y = MatMul(x, W2)
//!   =>
//! y = MatMul(x, W)
//! ```
//!
//! So that a weight used in many places stays one weight. An `Identity` that makes a graph
//! output stays, because the output's name must.

use modelopt_graph::{Model, NodeId, Patch};

use crate::engine::{Declined, Rewrite};

pub(crate) struct Aliases;

impl Rewrite for Aliases {
    fn name(&self) -> &'static str {
        "aliases"
    }

    fn propose(&self, model: &Model, id: NodeId) -> Result<Patch, Declined> {
        let node = model.node(id);
        if !node.op.is("Identity") {
            return Err(Declined::NoMatch);
        }
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else {
            return Err(Declined::NoMatch);
        };
        if hidden_from_a_reader(model, input, output) {
            return Err(Declined::Unsafe("a nested graph has another value of that name"));
        }
        let mut patch = Patch::new();
        let is_output = model.value(output).is_output();
        if is_output && model.consumers(output).next().is_none() {
            return Err(Declined::NoGain("it only gives a graph output its name"));
        }
        patch.redirect(output, input);
        if !is_output {
            patch.remove(id);
        }
        Ok(patch)
    }
}

/// Whether some reader of `output` would find another value under the name of `input`: possible
/// only where a graph between the reader and the input's home defines that name, too.
fn hidden_from_a_reader(
    model: &Model,
    input: modelopt_graph::ValueId,
    output: modelopt_graph::ValueId,
) -> bool {
    let Some(home) = model.home(input) else { return true };
    let name = model.value(input).name();
    model.consumers(output).any(|(reader, _)| {
        let mut graph = model.node(reader).graph();
        while graph != home {
            if defines(model, graph, name) {
                return true;
            }
            match model.parent(graph) {
                Some(parent) => graph = parent,
                None => return true,
            }
        }
        false
    })
}

fn defines(model: &Model, graph: modelopt_graph::GraphId, name: &str) -> bool {
    let named = |value: modelopt_graph::ValueId| model.value(value).name() == name;
    model.graph(graph).inputs.iter().any(|info| named(info.value))
        || model.initializers_of(graph).iter().any(|&value| named(value))
        || model
            .nodes_of(graph)
            .any(|node| model.node(node).outputs().iter().flatten().any(|&value| named(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::run;
    use crate::testing::{Build, float};

    #[test]
    fn chains_of_identities_vanish_and_the_weight_is_shared() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 2]));
        let w = b.weight("W", &[2, 2], &[1.0; 4]);
        let a = b.node("Identity", &[w], &[]);
        let c = b.node("Identity", &[a], &[]);
        let h = b.node("MatMul", &[x, a], &[]);
        let y = b.node("MatMul", &[h, c], &[]);
        b.output(y, float(&[2, 2]));
        assert_eq!(run(&mut b.model, &Aliases).unwrap(), 2);
        assert_eq!(b.ops(), ["MatMul", "MatMul"]);
        assert_eq!(b.model.consumers(w).count(), 2);
    }

    #[test]
    fn an_identity_that_names_an_output_stays() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 2]));
        let y = b.node("Identity", &[x], &[]);
        b.output(y, float(&[2, 2]));
        assert_eq!(run(&mut b.model, &Aliases).unwrap(), 0);
        assert_eq!(b.ops(), ["Identity"]);
    }

    #[test]
    fn a_name_hidden_in_a_branch_keeps_its_alias() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 2]));
        let condition = b.input("c", crate::testing::boolean());
        let alias = b.node("Identity", &[x], &[]);
        let (then_body, inner) = b.body(|b, graph| {
            let hidden = b.named_node_in(graph, "Neg", &[alias], "x");
            (hidden, hidden)
        });
        let (else_body, _) = b.body(|b, graph| {
            let out = b.named_node_in(graph, "Abs", &[alias], "z");
            (out, out)
        });
        let y = b.if_node(condition, then_body, else_body);
        b.output(y, float(&[2, 2]));
        assert_eq!(run(&mut b.model, &Aliases).unwrap(), 0);
        assert_eq!(b.model.value(inner).name(), "x");
    }
}
