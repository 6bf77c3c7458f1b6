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
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Structure(problem) => problem.fmt(f),
            Broken::Interface => f.write_str("its inputs or outputs changed"),
        }
    }
}

/// Runs one rewrite over all nodes of the main graph and the graphs nested in it, in order, and
/// checks the model. Returns how often it applied.
pub fn run(model: &mut Model, rewrite: &dyn Rewrite) -> Result<usize, BrokenRewrite> {
    checked(model, rewrite.name(), |model| {
        let mut applied = 0;
        for node in model.walk() {
            if model.node(node).is_removed() {
                continue;
            }
            match rewrite.propose(model, node) {
                Ok(patch) => {
                    model.apply(patch);
                    applied += 1;
                }
                Err(Declined::NoMatch) => {}
                Err(declined) => {
                    tracing::trace!(rewrite = rewrite.name(), node = model.label(node), ?declined);
                }
            }
        }
        applied
    })
}

/// Runs a change that is not tied to single nodes, under the same checks.
pub(crate) fn checked(
    model: &mut Model,
    name: &'static str,
    change: impl FnOnce(&mut Model) -> usize,
) -> Result<usize, BrokenRewrite> {
    let interface = verify::interface(model);
    let applied = checked_inside(model, name, change)?;
    if applied > 0 && verify::interface(model) != interface {
        return Err(BrokenRewrite { rewrite: name, what: Broken::Interface });
    }
    Ok(applied)
}

/// Runs a change that may touch the model's inputs and outputs, because the user asked for it.
pub(crate) fn checked_inside(
    model: &mut Model,
    name: &'static str,
    change: impl FnOnce(&mut Model) -> usize,
) -> Result<usize, BrokenRewrite> {
    let applied = change(model);
    if applied == 0 {
        return Ok(0);
    }
    model.compact();
    verify::check(model)
        .map_err(|problem| BrokenRewrite { rewrite: name, what: Broken::Structure(problem) })?;
    tracing::debug!(rewrite = name, applied);
    Ok(applied)
}
