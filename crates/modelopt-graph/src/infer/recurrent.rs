//! Recurrent layers.

#![allow(clippy::unnecessary_wraps)] // A `Rule` may have no answer, even if this one has.

use super::context::Context;
use super::dims;
use super::rule::{Rule, Shapes};
use crate::Dim;

pub(super) fn rule(op: &str) -> Option<Rule> {
    match op {
        "LSTM" | "GRU" | "RNN" => Some(recurrent),
        _ => None,
    }
}

/// All states, the last state and, for an LSTM, the last cell state.
pub(super) fn recurrent(context: &Context<'_>) -> Option<Shapes> {
    let batch_first = context.int("layout", 0) != 0;
    let [length, batch] = if batch_first { [1, 0] } else { [0, 1] };
    let (length, batch) = (context.dim(0, length), context.dim(0, batch));
    let directions = match context.string("direction") {
        Some("bidirectional") => Dim::Fixed(2),
        Some("forward" | "reverse") => Dim::Fixed(1),
        None if context.attribute("direction").is_none() => Dim::Fixed(1),
        _ => Dim::Unknown,
    };
    let hidden = match context.int("hidden_size", 0) {
        size if size > 0 => dims::dim(size),
        // R is [directions, gates * hidden, hidden] for the plain operators only.
        _ if context.op().starts_with("DynamicQuantize") => Dim::Unknown,
        _ => context.dim(2, 2),
    };
    let (all, last) = if batch_first {
        (
            vec![batch.clone(), length, directions.clone(), hidden.clone()],
            vec![batch, directions, hidden],
        )
    } else {
        (
            vec![length, directions.clone(), batch.clone(), hidden.clone()],
            vec![directions, batch, hidden],
        )
    };
    Some(vec![Some(all), Some(last.clone()), Some(last)])
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn states_have_directions() {
        check(
            "LSTM hidden_size=i5 direction=sbidirectional",
            "float[t,n,3]; float[2,20,3]; float[2,20,5]",
            "float[t, 2, n, 5]; float[2, n, 5]; float[2, n, 5]",
        );
        check(
            "GRU layout=i1",
            "float[n,t,3]; float[1,15,3]; float[1,15,5]",
            "float[n, t, 1, 5]; float[n, 1, 5]",
        );
        check("RNN hidden_size=i5", "float[..]; float[..]; float[..]", "float[?, 1, ?, 5]");
    }
}
