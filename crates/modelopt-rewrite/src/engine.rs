//! The engine: it asks rewrites for proposals, applies them and checks the result.

use std::fmt;

use modelopt_graph::verify::{self, Problem};
use modelopt_graph::{Model, NodeId, Patch};

/// One graph-to-graph change, tried at every node.
pub trait Rewrite: Sync {
    /// Name, as in `--skip-rewrite` and in messages.
    fn name(&self) -> &'static str;

    /// The change at this node, or why there is none.
    fn propose(&self, model: &Model, node: NodeId) -> Result<Patch, Declined>;

    /// Names of passes that must stand before it in a pipeline.
    fn requires(&self) -> &[&'static str] {
        &[]
    }

    /// Whether nodes are tried from the last to the first: for what may end at one of several nodes
    /// in a row, and is to be found at the last of them.
    fn backwards(&self) -> bool {
        false
    }
}

/// Why a rewrite does not apply at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// The node is not of the kind the rewrite is about.
    NoMatch,
    /// It is, but the rewrite would change nothing for the better.
    NoGain(&'static str),
    /// It is, but a condition that keeps the rewrite exact does not hold.
    Unsafe(&'static str),
}

/// A rewrite broke the model: a defect of modelopt, not of the input.
#[derive(Debug, thiserror::Error)]
#[error("the rewrite '{rewrite}' broke the model: {what}")]
pub struct BrokenRewrite {
    /// Name of the rewrite.
    pub rewrite: &'static str,
    /// What is broken.
    pub what: Broken,
}

/// What a rewrite broke.
#[derive(Debug)]
pub enum Broken {
    /// Links, scopes, order or names.
    Structure(Problem),
    /// The names or types of graph inputs and outputs.
    Interface,
    /// An operator set that was taken to be within reach is not.
    OperatorSet(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Structure(problem) => problem.fmt(f),
            Broken::Interface => f.write_str("its inputs or outputs changed"),
            Broken::OperatorSet(why) => f.write_str(why),
        }
    }
}

/// Runs one rewrite over all nodes of the main graph and the graphs nested in it, in order, and
/// checks the model. Returns how often it applied.
pub fn run(model: &mut Model, rewrite: &dyn Rewrite) -> Result<usize, BrokenRewrite> {
    checked(model, rewrite.name(), |model| sweep(model, rewrite))
}

/// How often a rewrite is tried again at what it made, so that one that always applies ends.
const MOST_REPEATS: usize = 64;

/// Tries a rewrite at every node, in its order, unchecked. Where it applies, it is tried again at the
/// node that makes the same value now. Returns how often it applied.
pub(crate) fn sweep(model: &mut Model, rewrite: &dyn Rewrite) -> usize {
    let mut applied = 0;
    let mut nodes = model.walk();
    if rewrite.backwards() {
        nodes.reverse();
    }
    for node in nodes {
        let mut next = Some(node);
        for _ in 0..MOST_REPEATS {
            let Some(node) = next.filter(|&node| !model.node(node).is_removed()) else { break };
            let output = model.node(node).output(0);
            match rewrite.propose(model, node) {
                Ok(patch) => {
                    model.apply(patch);
                    applied += 1;
                    next = output.and_then(|output| model.producer_node(output));
                    if next == Some(node) {
                        break;
                    }
                }
                Err(Declined::NoMatch) => break,
                Err(declined) => {
                    let node = model.label(node);
                    tracing::trace!(rewrite = rewrite.name(), node, ?declined);
                    break;
                }
            }
        }
    }
    applied
}

/// Runs a change that is not tied to single nodes, under the same checks.
pub(crate) fn checked(
    model: &mut Model,
    name: &'static str,
    change: impl FnOnce(&mut Model) -> usize,
) -> Result<usize, BrokenRewrite> {
    let interface = verify::interface(model);
    let applied = checked_inside(model, name, change)?;
    check_interface(model, name, applied, &interface)?;
    Ok(applied)
}

/// Whether inputs and outputs are what they were before something was applied so often.
pub(crate) fn check_interface(
    model: &Model,
    name: &'static str,
    applied: usize,
    before: &[String],
) -> Result<(), BrokenRewrite> {
    if applied > 0 && verify::interface(model) != before {
        return Err(BrokenRewrite { rewrite: name, what: Broken::Interface });
    }
    Ok(())
}

/// Runs a change that may touch the model's inputs and outputs, because the user asked for it.
pub(crate) fn checked_inside(
    model: &mut Model,
    name: &'static str,
    change: impl FnOnce(&mut Model) -> usize,
) -> Result<usize, BrokenRewrite> {
    let applied = change(model);
    check_structure(model, name, applied)?;
    Ok(applied)
}

/// Tidies up and checks links, scopes, order and names after something was applied so often.
pub(crate) fn check_structure(
    model: &mut Model,
    name: &'static str,
    applied: usize,
) -> Result<(), BrokenRewrite> {
    if applied > 0 {
        model.compact();
        verify::check(model)
            .map_err(|problem| BrokenRewrite { rewrite: name, what: Broken::Structure(problem) })?;
        tracing::debug!(rewrite = name, applied);
    }
    Ok(())
}
