//! What the user should know of a candidate before it is run.

use modelopt_rewrite::Precision;

use crate::transform::{self, Transformed};

/// What everybody expects of 16 bits and processors do not give.
pub(super) fn cpu_warning(to: Precision) -> String {
    let name = to.name();
    format!(
        "{} is not computed faster on CPUs, where runtimes cast or emulate it; --to {name}-weights halves the file at no cost",
        to.dtype()
    )
}

/// What an original that differs from run to run leaves of a plan that depends on what it computes.
pub(super) fn kept_unproven(transformed: &Transformed) -> Option<String> {
    transformed.unchanged.then(|| {
        format!(
            "all {} layers are kept: outputs that differ from run to run prove nothing; the model is emitted as it is",
            transformed.plan.layers.len()
        )
    })
}

pub(super) fn unchanged_warning(transformed: &Transformed) -> Option<String> {
    let layers = transformed.plan.layers.len();
    transformed.unchanged.then(|| match layers {
        _ if transformed.plan.lines().any(|(_, why)| why.reason == transform::NARROW_ALREADY) => {
            let why = transform::NARROW_ALREADY;
            format!("nothing to do: {why}; the model is emitted as it is")
        }
        0 => "nothing to do: the model has no float weights; it is emitted as it is".to_owned(),
        1 => "nothing to do: the only layer is kept; the model is emitted as it is".to_owned(),
        _ => format!("nothing to do: all {layers} layers are kept; the model is emitted as it is"),
    })
}
