//! Key and value caches: what was read before, what comes now, and the mask over both.

use std::collections::HashMap;

use crate::InputSpec;

/// The size of a symbol that counts past and present together: `total_sequence_length`, or the
/// last axis of a mask beside a cache, where that has a name of its own.
pub(super) fn total(
    symbol: &str,
    specs: &[InputSpec],
    sizes: &HashMap<String, usize>,
) -> Option<usize> {
    if symbol.contains('+') || !counts_all(symbol, specs) {
        return None;
    }
    let past = names(specs).find(|name| is_past(name) && *name != symbol && is_alone(name))?;
    let present = specs.iter().filter(|spec| !is_mask(spec)).flat_map(named).find(|name| {
        let lower = name.to_lowercase();
        let counts = ["seq", "len", "token", "time"].iter().any(|word| lower.contains(word));
        counts && is_alone(name) && !is_past(name) && !lower.contains("total") && *name != symbol
    })?;
    sizes.get(past)?.checked_add(*sizes.get(present)?)
}

fn counts_all(symbol: &str, specs: &[InputSpec]) -> bool {
    let lower = symbol.to_lowercase();
    if lower.contains("total") {
        return true;
    }
    let last_of_mask = |spec: &InputSpec| {
        is_mask(spec) && named(spec).last() == Some(symbol) && named(spec).count() > 1
    };
    let elsewhere = specs.iter().any(|spec| !is_mask(spec) && named(spec).any(|n| n == symbol));
    specs.iter().any(last_of_mask) && !elsewhere
}

fn is_mask(spec: &InputSpec) -> bool {
    spec.name.to_lowercase().contains("mask")
}

fn is_past(name: &str) -> bool {
    name.to_lowercase().contains("past")
}

/// Whether it is no sum.
fn is_alone(name: &str) -> bool {
    !name.contains('+')
}

fn names(specs: &[InputSpec]) -> impl Iterator<Item = &str> {
    specs.iter().flat_map(named)
}

/// The symbols of an input, in order.
fn named(spec: &InputSpec) -> impl Iterator<Item = &str> {
    let dims = spec.ty.shape().map_or(&[][..], Vec::as_slice);
    dims.iter().filter_map(|dim| match dim {
        modelopt_graph::Dim::Symbol(name) => Some(name.as_str()),
        _ => None,
    })
}
