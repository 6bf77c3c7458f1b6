//! Preparation: what is done to every model before any scheme, so that schemes see each weight
//! as one plain constant.
//!
//! [`ORDER`] is the pipeline as data. Every step keeps the outputs equal within float rounding.

mod aliases;
mod batchnorm;
mod constants;
mod dead;
mod fold;
mod functions;
mod inputs;

use modelopt_graph::{Model, verify};

use crate::engine::{self, BrokenRewrite};

/// One step of the preparation.
struct Step {
    name: &'static str,
    /// Why it stands where it does.
    #[allow(dead_code)] // For the reader; printed by nothing.
    place: &'static str,
    run: fn(&mut Model, Preparation<'_>) -> Result<usize, BrokenRewrite>,
}

/// The steps, in order.
const ORDER: &[Step] = &[
    Step {
        name: "sort",
        place: "first: everything after relies on nodes coming after what they read",
        run: |model, _| {
            engine::checked(model, "sort", |model| {
                // The loader refuses cycles, so sorting cannot fail on a loaded model.
                usize::from(verify::sort(model).unwrap_or(false))
            })
        },
    },
    Step {
        name: "freeze-inputs",
        place: "before anything asks what is constant",
        run: |model, _| inputs::run(model),
    },
    Step {
        name: "functions",
        place: "before all that looks for weights: inside a function they are parameters",
        run: |model, how| functions::run(model, how.inline_functions),
    },
    Step {
        name: "aliases",
        place: "before constants: an Identity of a Constant becomes the Constant itself",
        run: |model, _| engine::run(model, &aliases::Aliases),
    },
    Step {
        name: "constants",
        place: "before folding, which looks at initializers",
        run: |model, _| engine::run(model, &constants::Constants),
    },
    Step {
        name: "fold",
        place: "before batchnorm, whose weights may be computed",
        run: |model, _| engine::run(model, &fold::Fold),
    },
    Step {
        name: "batchnorm",
        place: "after folding, before quantization: scales must cover the folded weights",
        run: |model, _| engine::run(model, &batchnorm::BatchNorm),
    },
    Step {
        name: "dead",
        place: "last: removes what the others left unused",
        run: |model, _| dead::run(model),
    },
];

/// Names of the preparation steps, in order.
pub fn steps() -> impl Iterator<Item = &'static str> {
    ORDER.iter().map(|step| step.name)
}

/// How a model is prepared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Preparation<'a> {
    /// Names of steps to leave out.
    pub skip: &'a [String],
    /// Put functions in place of all their calls, not only of those that see weights: for schemes
    /// that change what nodes compute in.
    pub inline_functions: bool,
}

/// Runs the preparation. Returns how often each step applied.
pub fn prepare(
    model: &mut Model,
    how: Preparation<'_>,
) -> Result<Vec<(&'static str, usize)>, BrokenRewrite> {
    let mut applied = Vec::new();
    for step in ORDER {
        if !how.skip.iter().any(|name| name == step.name) {
            applied.push((step.name, (step.run)(model, how)?));
        }
    }
    Ok(applied)
}

/// Puts functions in place of all their calls.
pub(crate) fn inline_functions(model: &mut Model) -> Result<usize, BrokenRewrite> {
    functions::run(model, true)
}

/// Removes what nothing uses any more; to be run after a scheme as well.
pub(crate) fn remove_dead(model: &mut Model) -> Result<usize, BrokenRewrite> {
    dead::run(model)
}
