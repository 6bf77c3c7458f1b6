//! Parts of the sentences of warnings.

use std::fmt::Display;

use modelopt_rewrite::{RandomOperator, Randomness};
use modelopt_runtime::RuntimeKind;

use crate::found_inputs::FoundInputs;

/// How many operators a sentence names.
const MOST_NAMED: usize = 3;

/// Sizes and values, such as `batch=2 sr=16000`.
pub(super) fn found(found: &FoundInputs) -> String {
    let sizes = found.dims.iter().map(|(name, size)| format!("{name}={size}"));
    let values = found.inputs.iter().map(|(name, value)| format!("{name}={value}"));
    sizes.chain(values).collect::<Vec<_>>().join(" ")
}

/// What the operators do, those that do the same together.
pub(super) fn random(operators: &[RandomOperator]) -> String {
    let verb = |one: &str, more: &str, count: usize| match count {
        1 => one.to_owned(),
        _ => more.to_owned(),
    };
    let (draws, drops): (Vec<_>, Vec<_>) =
        operators.iter().partition(|operator| operator.kind == Randomness::Draws);
    let mut parts = Vec::new();
    if !draws.is_empty() {
        let names = named(draws.iter().map(|operator| operator.label.as_str()));
        parts.push(format!("{names} {} random numbers", verb("draws", "draw", draws.len())));
    }
    if let [only] = &drops[..] {
        parts.push(only.to_string());
    } else if !drops.is_empty() {
        let names = named(drops.iter().map(|operator| operator.label.as_str()));
        parts.push(format!("{names} are in training mode: they drop elements at random"));
    }
    parts.join("; ")
}

/// What to do about operators that are in training mode, if some are.
pub(super) fn evaluation(operators: &[RandomOperator]) -> &'static str {
    let drops = operators.iter().any(|operator| operator.kind != Randomness::Draws);
    if drops { "; export in evaluation mode if it is not meant to" } else { "" }
}

/// Normalizations that are in training mode, and what to do about it.
pub(super) fn in_training(operators: &[RandomOperator]) -> String {
    if let [only] = operators {
        return format!("{only}; export in evaluation mode if it is not meant to");
    }
    let names = named(operators.iter().map(|operator| operator.label.as_str()));
    format!(
        "{names} are in training mode: they normalize by the batch at hand, not by what was learnt; \
         export in evaluation mode if they are not meant to"
    )
}

/// The first of some names, and how many there are besides.
pub(super) fn named<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let others = names.len().saturating_sub(MOST_NAMED);
    let first: Vec<&str> = names.take(MOST_NAMED).collect();
    match others {
        0 => first.join(", "),
        count => format!("{} and {count} more", first.join(", ")),
    }
}

/// Outputs with their ratio to themselves.
pub(super) fn ratios(outputs: &[(String, f64)]) -> String {
    let outputs = outputs.iter().map(|(name, db)| format!("{name} ({db:.1} dB)"));
    outputs.collect::<Vec<_>>().join(", ")
}

/// Things with commas between them.
pub(super) fn joined<T: Display>(things: &[T]) -> String {
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Where else to go, if there is somewhere.
pub(super) fn elsewhere(runtime: Option<RuntimeKind>) -> String {
    runtime.map(|runtime| format!("; {runtime} may return more")).unwrap_or_default()
}

/// Why there is nothing to do, and what is emitted.
pub(super) fn nothing_to_do(layers: usize, narrow_already: bool) -> String {
    const AS_IT_IS: &str = "the model is emitted as it is";
    match layers {
        _ if narrow_already => format!("the weights are 16-bit already; {AS_IT_IS}"),
        0 => "the model has no float weights; it is emitted as it is".to_owned(),
        1 => format!("the only layer is kept; {AS_IT_IS}"),
        _ => format!("all {layers} layers are kept; {AS_IT_IS}"),
    }
}

/// What became of a model that was to compute in 16 bits.
pub(super) fn instead(stored: bool) -> &'static str {
    if stored {
        "so weights are only stored in it"
    } else {
        "and it has no weights to store in fewer bits; it is emitted as it is"
    }
}
