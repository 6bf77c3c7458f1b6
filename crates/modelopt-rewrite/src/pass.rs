//! What a pass is: one step of a [`Pipeline`](crate::Pipeline).
//!
//! A change at single nodes is written as a [`Rewrite`] and becomes a pass by [`EveryNode`]; what
//! looks at the model as a whole is a [`Pass`] of its own. Neither checks anything: the pipeline
//! does, after each.

use std::error::Error;

use modelopt_graph::Model;

use crate::engine::{self, BrokenRewrite, Rewrite};

/// One step that changes a model and keeps what it computes.
pub trait Pass: Send + Sync {
    /// Name, as in `--skip-rewrite` and in messages.
    fn name(&self) -> &'static str;

    /// Names of passes that must stand before it in a pipeline. One that is left out on purpose
    /// still stands there.
    fn requires(&self) -> &[&'static str] {
        &[]
    }

    /// Changes the model. Returns whether it changed anything, in which case the pipeline checks
    /// structure and interface.
    fn run(&self, model: &mut Model, context: &mut PassContext) -> Result<Changed, PassError>;
}

/// What passes are told besides the model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PassContext {
    /// Put functions in place of all their calls, not only of those that see weights.
    pub inline_functions: bool,
}

/// How often a pass changed something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed(pub usize);

impl Changed {
    /// It left the model as it was.
    pub const NOTHING: Changed = Changed(0);

    /// Whether anything was changed.
    pub fn any(self) -> bool {
        self.0 > 0
    }
}

/// Why a pipeline did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// A pass broke the model.
    #[error(transparent)]
    Broken(#[from] BrokenRewrite),
    /// A pass could not do what it is for.
    #[error("the pass '{pass}' failed: {source}")]
    Failed {
        /// Name of the pass.
        pass: &'static str,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A pass stands before one that it needs, or without it.
    #[error("the pass '{pass}' needs '{needs}' before it")]
    Order {
        /// Name of the pass.
        pass: &'static str,
        /// Name of what it needs.
        needs: &'static str,
    },
}

/// A rewrite as a pass: tried at every node of the main graph and the graphs nested in it, in order.
#[derive(Clone, Copy, Debug)]
pub struct EveryNode<R>(pub R);

impl<R: Rewrite + Send> Pass for EveryNode<R> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn requires(&self) -> &[&'static str] {
        self.0.requires()
    }

    fn run(&self, model: &mut Model, _: &mut PassContext) -> Result<Changed, PassError> {
        Ok(Changed(engine::sweep(model, &self.0)))
    }
}
