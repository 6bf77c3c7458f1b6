//! Models that tract runs but gets wrong, found before it sees them.
//!
//! In tract 0.23.9, an `If` whose then-branch makes a constant always returns that constant,
//! whatever the condition (`IfThenElse::output_facts` passes the branch's constant on as the
//! output's). A runtime that is silently wrong proves nothing, so such models are refused.

use std::collections::HashSet;

use modelopt_graph::{Model, Producer, ValueId};

/// What tract would get wrong, if anything.
pub(super) fn find(model: &Model) -> Option<String> {
    model.walk().into_iter().find_map(|id| {
        let node = model.node(id);
        if !node.op.is("If") {
            return None;
        }
        let then = node.attributes.iter().find(|attribute| attribute.name == "then_branch")?;
        let body = *then.graphs().first()?;
        let constant = |info: &modelopt_graph::ValueInfo| is_constant(model, info.value);
        model.graph(body).outputs.iter().any(constant).then(|| {
            format!("{}: it takes the constant that one branch makes for both", model.label(id))
        })
    })
}

/// Whether a value is computed from constants alone.
fn is_constant(model: &Model, value: ValueId) -> bool {
    let mut open = vec![value];
    let mut seen = HashSet::new();
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        match model.value(value).producer() {
            Producer::Initializer(_) => {}
            Producer::Node(id, _) => {
                let node = model.node(id);
                if node.bodies().next().is_some() || node.op.name.starts_with("Random") {
                    return false;
                }
                open.extend(node.inputs().iter().flatten());
            }
            Producer::Input(_) | Producer::None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use xtask::testdata::fixture;

    use super::*;

    #[test]
    fn a_branch_that_returns_a_weight_is_found() {
        let load = |name| modelopt_onnx::load(&fixture(name)).unwrap();
        let found = find(&load("graphs/if_returns_weight.onnx")).unwrap();
        assert!(found.contains("If"), "{found}");
        assert_eq!(find(&load("graphs/if_branches.onnx")), None);
    }
}
