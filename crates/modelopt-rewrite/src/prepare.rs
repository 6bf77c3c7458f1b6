//! Preparation: what is done to every model before any scheme, so that schemes see each weight
//! as one plain constant.
//!
//! [`Pipeline::preparation`] has the passes with their reasons. Every pass keeps the outputs equal
//! within float rounding.

use modelopt_graph::Model;

use crate::engine::{self, BrokenRewrite};
use crate::pass::{Changed, EveryNode, PassContext, PassError};
use crate::passes::{self, dead, functions};
use crate::pipeline::{Entry, Pipeline};

impl Pipeline {
    /// What is done to every model before it is planned.
    ///
    /// Registered but off, to be switched on by [`Pipeline::enable`]: `layer-norm`, because what is
    /// spelled out keeps its sums in float32 when a model is converted to float16, and the operator
    /// does not; `gelu`, because runtimes find the common spelling themselves; `scale-in-front`, because
    /// it changes what the weights of a layer are quantized to.
    pub fn preparation() -> Self {
        let mut passes = Pipeline::new();
        clean(&mut passes);
        fuse(&mut passes);
        passes.push(passes::Dead, "last: removes what the others left unused");
        passes
    }
}

/// Passes that make every weight a plain constant.
fn clean(to: &mut Pipeline) {
    to.push(passes::Sort, "first: everything after relies on nodes coming after what they read");
    to.push(passes::FreezeInputs, "before anything asks what is constant");
    to.push(
        passes::Functions,
        "before all that looks for weights: inside a function they are parameters",
    );
    to.push(
        EveryNode(passes::Aliases),
        "before constants: an Identity of a Constant becomes the Constant itself",
    );
    to.push(EveryNode(passes::Constants), "before folding, which looks at initializers");
    to.push(EveryNode(passes::Fold), "before batchnorm, whose weights may be computed");
}

/// Passes that make one node of several.
fn fuse(to: &mut Pipeline) {
    to.push(
        EveryNode(passes::BatchNorm),
        "after folding, before quantization: scales must cover the folded weights",
    );
    to.push(
        passes::Types,
        "before what asks for shapes; after folding, which makes more of them known",
    );
    to.push_off(
        EveryNode(passes::LayerNorm),
        "before scales are taken into layers: this one takes its own",
    );
    to.push_off(EveryNode(passes::Gelu), "before scales, which may be parts of it");
    to.push(EveryNode(passes::HardSwish), "before scales, which may be parts of it");
    to.push(
        EveryNode(passes::ScaleShift),
        "after batchnorm, which leaves convolutions that take scales and shifts as well",
    );
    to.push_off(
        EveryNode(passes::ScaleInFront),
        "after scale-shift: between two layers, the first takes the factor without conditions",
    );
}

/// Names of the passes of the preparation that are on, in order.
pub fn steps() -> impl Iterator<Item = &'static str> {
    let pipeline = Pipeline::preparation();
    let names: Vec<_> =
        pipeline.entries().iter().filter(|entry| entry.is_on()).map(Entry::name).collect();
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
