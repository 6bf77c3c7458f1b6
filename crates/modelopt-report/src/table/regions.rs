//! The tables of regions on integers and of the tensors in them.

use super::{Cell, Kind, NONE, Table, number_of, table};
use crate::{PredictedTime, QuantizedTensor, Region, RegionEdge, wording};

/// How many tensors that a region ends at for the same reason are named.
const MOST_NAMES: usize = 3;

pub(crate) fn regions(regions: &[Region]) -> Table {
    let columns = [
        ("#", Kind::Figure),
        ("Layers", Kind::Figure),
        ("Between them", Kind::Prose),
        ("Tensors", Kind::Figure),
        ("Predicted share", Kind::Figure),
        ("Predicted time", Kind::Figure),
        ("Predicted borders", Kind::Figure),
    ];
    let row = |(at, region): (usize, &Region)| {
        let between = region.operators.iter().map(|(op, count)| format!("{count} {op}"));
        let between = between.collect::<Vec<_>>().join(", ");
        let told = region.predicted;
        let figure = |x: Option<f64>, write: fn(f64) -> String| {
            Cell::from(x.map_or_else(|| NONE.to_owned(), write)).key(x.unwrap_or(f64::NAN))
        };
        vec![
            number_of(Some(at + 1)),
            Cell::from(region.layers.len().to_string()),
            if between.is_empty() { NONE.into() } else { between.into() },
            Cell::from(region.tensors.len().to_string()),
            figure(told.map(|told| told.share), wording::rough_percent),
            time(told),
            figure(told.map(|told| told.border_ms), wording::milliseconds),
        ]
    };
    table(&columns, regions.iter().enumerate().map(row))
}

/// In float32 and on integers.
fn time(told: Option<PredictedTime>) -> Cell {
    let text = told.map(|told| [told.float_ms, told.integer_ms].map(wording::milliseconds));
    let text = text.map_or_else(|| NONE.to_owned(), |both| both.join(" → "));
    Cell::from(text).key(told.map_or(f64::NAN, |told| told.float_ms))
}

/// Where regions begin and end; tensors with the same reason together.
pub(crate) fn region_ends(regions: &[Region]) -> Table {
    let columns = [
        ("Region", Kind::Figure),
        ("Edge", Kind::Word),
        ("Tensors", Kind::Name),
        ("Reason", Kind::Prose),
    ];
    let rows = regions.iter().enumerate().flat_map(|(at, region)| {
        let together = region.ends_by_reason().into_iter();
        together.map(move |(edge, reason, tensors)| {
            let edge = match edge {
                RegionEdge::Begin => "begins",
                RegionEdge::End => "ends",
            };
            vec![number_of(Some(at + 1)), edge.into(), names(&tensors).into(), reason.into()]
        })
    });
    table(&columns, rows)
}

/// The first of several names, and how many more there are.
fn names(all: &[&str]) -> String {
    let shown = all.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

pub(crate) fn ranges(tensors: &[QuantizedTensor]) -> Table {
    let columns = [
        ("Tensor", Kind::Name),
        ("Region", Kind::Figure),
        ("Range", Kind::Figure),
        ("Observed", Kind::Figure),
        ("Clipped", Kind::Figure),
        ("SQNR", Kind::Figure),
    ];
    let row = |tensor: &QuantizedTensor| {
        let seen = tensor.observed.as_ref();
        let figure = |x: Option<f64>, write: fn(f64) -> String| {
            Cell::from(x.map_or_else(|| NONE.to_owned(), write)).key(x.unwrap_or(f64::NAN))
        };
        vec![
            (&tensor.tensor).into(),
            number_of(tensor.region),
            span(tensor.min, tensor.max),
            seen.map_or_else(|| NONE.into(), |seen| span(seen.min, seen.max)),
            figure(seen.map(|seen| seen.clipped), wording::percent),
            figure(seen.map(|seen| seen.sqnr_db), wording::decibels),
        ]
    };
    table(&columns, tensors.iter().map(row))
}

fn span(low: f32, high: f32) -> Cell {
    let [from, to] = [low, high].map(|x| wording::number(f64::from(x)));
    Cell::from(format!("{from} to {to}")).key(f64::from(high) - f64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RegionEnd;

    #[test]
    fn tensors_that_end_for_the_same_reason_stand_together() {
        let end = |tensor: &str, edge, reason: &str| RegionEnd {
            tensor: tensor.to_owned(),
            edge,
            kind: "no_kernel".to_owned(),
            reason: reason.to_owned(),
        };
        let mut ends: Vec<RegionEnd> =
            "abcde".chars().map(|c| end(&c.to_string(), RegionEdge::End, "Softmax")).collect();
        ends.insert(0, end("x", RegionEdge::Begin, "Softmax"));
        ends.insert(3, end("y", RegionEdge::End, "Elu"));
        let table = region_ends(&[Region::default(), Region { ends, ..Region::default() }]);
        let texts: Vec<Vec<&str>> = table
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| cell.text.as_str()).collect())
            .collect();
        assert_eq!(
            texts,
            [
                ["2", "begins", "x", "Softmax"],
                ["2", "ends", "a, b, c and 2 more", "Softmax"],
                ["2", "ends", "y", "Elu"],
            ]
        );
    }
}
