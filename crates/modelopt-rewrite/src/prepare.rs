//! Preparation: what is done to every model before any scheme, so that schemes see each weight
//! as one plain constant.
//!
//! [`Pipeline::preparation`] has the passes with their reasons. Every pass keeps the outputs equal
//! within float rounding.

use modelopt_graph::Model;

use crate::engine::{self, BrokenRewrite};
use crate::pass::{Changed, EveryNode, PassContext, PassError};
use crate::passes::{self, dead, functions};
use crate::pipeline::Pipeline;

impl Pipeline {
    /// What is done to every model before it is planned.
    pub fn preparation() -> Self {
        let mut passes = Pipeline::new();
        passes.push(
            passes::Sort,
            "first: everything after relies on nodes coming after what they read",
        );
        passes.push(passes::FreezeInputs, "before anything asks what is constant");
        passes.push(
            passes::Functions,
            "before all that looks for weights: inside a function they are parameters",
        );
        passes.push(
            EveryNode(passes::Aliases),
            "before constants: an Identity of a Constant becomes the Constant itself",
        );
        passes.push(
            EveryNode(passes::Constants),
            "before folding, which looks at initializers",
        );
        passes.push(EveryNode(passes::Fold), "before batchnorm, whose weights may be computed");
        passes.push(
            EveryNode(passes::BatchNorm),
            "after folding, before quantization: scales must cover the folded weights",
        );
        passes.push(
            EveryNode(passes::ScaleShift),
            "after batchnorm, which leaves convolutions that take scales and shifts as well",
        );
        passes.push_off(
            passes::Types,
            "before what asks for shapes; after folding, which makes more of them known",
        );
        passes.push_off(
            EveryNode(passes::ScaleInFront),
            "after scale-shift: between two layers, the first takes the factor without a condition",
        );
        passes.push_off(
            EveryNode(passes::LayerNorm),
            "after scale-shift, which would not find the scale of a fused node",
        );
        passes.push_off(EveryNode(passes::Gelu), "anywhere after types");
        passes.push_off(EveryNode(passes::HardSwish), "anywhere after types");
        passes.push(passes::Dead, "last: removes what the others left unused");
        passes
    }
}

/// Names of the passes of the preparation that are on, in order.
pub fn steps() -> impl Iterator<Item = &'static str> {
    let pipeline = Pipeline::preparation();
    let names: Vec<_> =
        pipeline.entries().iter().filter(|entry| entry.is_on()).map(|entry| entry.name()).collect();
    names.into_iter()
}

/// How a model is prepared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Preparation<'a> {
    /// Names of passes to leave out; names that there are not are passed over.
    pub skip: &'a [String],
    /// Put functions in place of all their calls, not only of those that see weights: for schemes
    /// that change what nodes compute in.
    pub inline_functions: bool,
}

/// Runs the preparation. Returns how often each pass applied.
pub fn prepare(
    model: &mut Model,
    how: Preparation<'_>,
) -> Result<Vec<(&'static str, Changed)>, PassError> {
    let mut pipeline = Pipeline::preparation();
    for name in how.skip {
        if let Err(unknown) = pipeline.skip(name) {
            tracing::debug!(%unknown);
        }
    }
    let mut context = PassContext { inline_functions: how.inline_functions };
    pipeline.run(model, &mut context)
}

/// Puts functions in place of all their calls.
pub(crate) fn inline_functions(model: &mut Model) -> Result<usize, BrokenRewrite> {
    engine::checked(model, "functions", |model| functions::inline_calls(model, true))
}

/// Removes what nothing uses any more; to be run after a scheme as well.
pub(crate) fn remove_dead(model: &mut Model) -> Result<usize, BrokenRewrite> {
    engine::checked(model, "dead", dead::remove_unread)
}
