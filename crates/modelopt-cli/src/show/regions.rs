//! What a plan computes on integers by ranges, and why that ends where it does.

use std::fmt::Write;

use modelopt::report::{PredictedTime, Region, RegionEdge};

use super::{cell, milliseconds, plural, wrapped};

/// How many tensors that a region ends at for the same reason are named.
const MOST_NAMES: usize = 3;

/// Regions by their numbers; nothing where there are none.
pub(super) fn regions(regions: &[Region]) -> String {
    let mut text = String::new();
    for (at, region) in regions.iter().enumerate() {
        text.push('\n');
        text += &wrapped(&format!("region {}: ", at + 1), &members(region));
        if let Some(time) = region.predicted {
            let _ = writeln!(text, "    {}", predicted(time));
        }
        for (edge, reason, tensors) in region.ends_by_reason() {
            let edge = match edge {
                RegionEdge::Begin => "begins at",
                RegionEdge::End => "ends at",
            };
            let line = format!("{}: {}", names(&tensors), cell(reason));
            text += &wrapped(&format!("  {edge} "), &line);
        }
    }
    text
}

/// What belongs to a region, counted.
fn members(region: &Region) -> String {
    let layers = region.layers.len();
    let mut parts = vec![format!("{layers} layer{}", plural(layers))];
    parts.extend(region.operators.iter().map(|(op, count)| format!("{count} {}", cell(op))));
    let tensors = region.tensors.len();
    format!("{}; {tensors} tensor{}", parts.join(", "), plural(tensors))
}

fn predicted(time: PredictedTime) -> String {
    let [before, after, borders] =
        [time.float_ms, time.integer_ms, time.border_ms].map(milliseconds);
    let share = time.share * 100.0;
    format!(
        "predicted: {before} -> {after} and {borders} for its borders; {share:.0} % of the model"
    )
}

/// The first of several tensors, and how many more there are.
fn names(all: &[&str]) -> String {
    let shown: Vec<String> =
        all.iter().take(MOST_NAMES).map(|name| format!("'{}'", cell(name))).collect();
    match all.len().saturating_sub(MOST_NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use modelopt::report::RegionEnd;

    use super::*;

    fn end(edge: RegionEdge, tensor: &str, reason: &str) -> RegionEnd {
        let kind = "no_kernel".to_owned();
        RegionEnd { tensor: tensor.to_owned(), edge, kind, reason: reason.to_owned() }
    }

    #[test]
    fn regions_say_what_they_hold_and_why_they_end() {
        let mut region = Region {
            layers: vec!["conv".to_owned()],
            operators: [("Add".to_owned(), 2)].into(),
            tensors: vec!["x".to_owned(), "y".to_owned()],
            ends: vec![end(RegionEdge::Begin, "x", "it is an input of the model")],
            predicted: None,
        };
        region.ends.extend(["a", "b", "c", "d"].map(|t| end(RegionEdge::End, t, "Elu\u{1b}")));
        assert_eq!(
            regions(&[region.clone()]),
            "\n  region 1: 1 layer, 2 Add; 2 tensors\n    begins at 'x': it is an input of the \
             model\n    ends at 'a', 'b', 'c' and 1 more: Elu\\u{1b}\n"
        );
        region.predicted =
            Some(PredictedTime { float_ms: 1.5, integer_ms: 0.5, border_ms: 0.05, share: 0.25 });
        let text = regions(&[Region::default(), region]);
        let told =
            "    predicted: 1.50 ms -> 500 µs and 50.0 µs for its borders; 25 % of the model\n";
        assert!(text.contains("region 1: 0 layers; 0 tensors") && text.contains(told), "{text}");
        assert_eq!(regions(&[]), "");
    }
}
