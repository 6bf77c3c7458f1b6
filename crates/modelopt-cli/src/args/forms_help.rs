//! What help says of schemes and preparation steps, read from their registries.

use modelopt::rewrite::{self, Scheme, Storage};

use super::values::{of_convert, of_quantize};

/// Names and what they are, such as `keep: left as it is`.
fn explained(schemes: impl Iterator<Item = Scheme>) -> String {
    let each = schemes.map(|scheme| match scheme.sides().weights {
        Storage::UNCHANGED => format!("{scheme}: {}.", scheme.about()),
        weights => format!("{scheme}: weights in {}, {}.", weights.name, scheme.about()),
    });
    each.collect::<Vec<_>>().join(" ")
}

fn names(schemes: impl Iterator<Item = Scheme>) -> String {
    schemes.map(Scheme::name).collect::<Vec<_>>().join(", ")
}

/// `--scheme` of `modelopt quantize`.
pub(super) fn of_scheme() -> String {
    let first = Scheme::all().next();
    let ladder = names(std::iter::successors(first, |scheme| scheme.down()));
    format!(
        "What to do to layers [default: auto]\n\n\
         auto: search for the plan that meets the limits and gives up the least, from what pays on the \
         target (see --runtime) down the ladder {ladder}. The others are done wherever they are \
         possible, elsewhere the next one down. {} For 16 bits see `modelopt convert`.",
        explained(Scheme::all().filter(|&scheme| of_quantize(scheme)))
    )
}

/// `--scheme` of `modelopt plan`.
pub(super) fn of_planned_scheme() -> String {
    format!(
        "What to do wherever it is possible: {} [default: what pays on the target, see --runtime]",
        names(Scheme::all())
    )
}

/// `--to` of `modelopt convert`.
pub(super) fn of_to() -> String {
    format!(
        "What to convert to, wherever it is possible and safe\n\n\
         {} Casts stand where computing in 16 bits ends; storing alone halves the file at no cost.",
        explained(Scheme::all().filter(|&scheme| of_convert(scheme)))
    )
}

/// `--skip-rewrite`.
pub(super) fn of_steps() -> String {
    format!("Leave out a preparation step: {}", rewrite::steps().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_all_there_are() {
        for scheme in Scheme::all() {
            let name = scheme.name();
            assert!(of_planned_scheme().contains(name));
            assert!(
                of_scheme().contains(&format!("{name}: "))
                    || of_to().contains(&format!("{name}: ")),
                "{name}"
            );
        }
        assert!(rewrite::steps().all(|step| of_steps().contains(step)));
    }
}
