//! Error and bytes of each changed layer.

use plotters::style::RGBColor;

use super::Plot;
use super::axis::Axis;
use super::bars::{Frame, Row, bars};
use super::canvas::{AFTER, BEFORE, TEXT};
use super::columns::{self, Mark, columns};
use crate::{PlanLine, wording};

/// As many rows with names are still read.
const MOST_ROWS: usize = 24;
/// As many columns can be told apart.
const MOST_COLUMNS: usize = 120;
const SIZES: [(RGBColor, &str); 2] = [(BEFORE, "before"), (AFTER, "after")];

/// Weight SQNR, and bytes before and after, of the layers that were changed; none without any.
pub(crate) fn layers(plan: &[PlanLine]) -> Vec<Plot> {
    let changed: Vec<_> = plan.iter().enumerate().filter(|(_, line)| is_changed(line)).collect();
    if changed.is_empty() {
        return Vec::new();
    }
    let (errors, sizes) = if changed.len() <= MOST_ROWS {
        (error_rows(&changed), size_rows(&changed))
    } else {
        let groups: Vec<_> = changed.chunks(changed.len().div_ceil(MOST_COLUMNS)).collect();
        (error_columns(&groups), size_columns(&groups))
    };
    let count = wording::counted(changed.len(), "changed layer");
    let [before, after] = [|line: &PlanLine| line.bytes_before, |line: &PlanLine| line.bytes_after]
        .map(|of| {
            wording::bytes(changed.iter().map(|(_, line)| of(line)).fold(0, u64::saturating_add))
        });
    vec![
        Plot::new(
            "Error per layer",
            format!("{count}: noise in the weights alone; longer or higher is closer."),
            errors,
        ),
        Plot::new("Bytes per layer", format!("{count}: {before} before, {after} after."), sizes),
    ]
}

type Numbered<'a> = (usize, &'a PlanLine);

fn is_changed(line: &PlanLine) -> bool {
    line.sqnr_db.is_some() || line.bytes_before != line.bytes_after
}

/// Names may be shortened until they look alike; the number in the plan tells them apart.
fn label(at: usize, line: &PlanLine) -> String {
    format!("#{} {}", at + 1, line.layer)
}

fn highest(figures: impl Iterator<Item = f64>) -> f64 {
    figures.filter(|x| x.is_finite()).fold(0.0, f64::max)
}

fn error_rows(changed: &[Numbered<'_>]) -> String {
    let rows: Vec<_> = changed
        .iter()
        .map(|(at, line)| Row {
            name: label(*at, line),
            bars: line.sqnr_db.into_iter().map(|sqnr| (sqnr, AFTER)).collect(),
            limit: None,
            figure: line.sqnr_db.map_or_else(|| wording::NONE.to_owned(), wording::decibels),
            color: TEXT,
        })
        .collect();
    let axis = Axis::from_zero(highest(changed.iter().filter_map(|(_, line)| line.sqnr_db)));
    let title = "SQNR of the weights (dB)";
    bars(&rows, &Frame { legend: &[(AFTER, "SQNR")], axis, title, figures: 70.0 })
}

fn size_rows(changed: &[Numbered<'_>]) -> String {
    let (scale, unit) =
        unit(changed.iter().map(|(_, line)| line.bytes_before.max(line.bytes_after)));
    let rows: Vec<_> = changed
        .iter()
        .map(|(at, line)| Row {
            name: label(*at, line),
            bars: sizes(line.bytes_before as f64 / scale, line.bytes_after as f64 / scale),
            limit: None,
            figure: [line.bytes_before, line.bytes_after].map(wording::bytes).join(" → "),
            color: TEXT,
        })
        .collect();
    let axis = Axis::from_zero(highest(rows.iter().flat_map(|row| &row.bars).map(|bar| bar.0)));
    let title = format!("size ({unit})");
    bars(&rows, &Frame { legend: &SIZES, axis, title: &title, figures: 130.0 })
}

/// Both bars, the longer behind.
fn sizes(before: f64, after: f64) -> Vec<(f64, RGBColor)> {
    let mut bars = vec![(before, BEFORE), (after, AFTER)];
    bars.sort_by(|a, b| b.0.total_cmp(&a.0));
    bars
}

fn unit(sizes: impl Iterator<Item = u64>) -> (f64, &'static str) {
    match sizes.max().unwrap_or(0) {
        1_000_000_000.. => (1e9, "GB"),
        1_000_000.. => (1e6, "MB"),
        1_000.. => (1e3, "kB"),
        _ => (1.0, "B"),
    }
}

fn error_columns(groups: &[&[Numbered<'_>]]) -> String {
    let worst: Vec<_> = groups
        .iter()
        .map(|group| {
            let figures = group.iter().filter_map(|(_, line)| line.sqnr_db);
            figures.filter(|x| !x.is_nan()).min_by(f64::total_cmp)
        })
        .collect();
    let mark = |sqnr: Option<f64>| match sqnr {
        Some(sqnr) => Mark::Dot(sqnr, AFTER),
        None => Mark::Stack(Vec::new()),
    };
    let marks: Vec<_> = worst.iter().copied().map(mark).collect();
    let axis = Axis::from_zero(highest(worst.into_iter().flatten()));
    let each = if groups[0].len() > 1 { "worst layer of a column" } else { "one layer" };
    frame_columns(&marks, groups, &[(AFTER, each)], axis, "SQNR of the weights (dB)")
}

fn size_columns(groups: &[&[Numbered<'_>]]) -> String {
    let sum = |group: &[Numbered<'_>], of: fn(&PlanLine) -> u64| {
        group.iter().map(|(_, line)| of(line)).fold(0, u64::saturating_add)
    };
    let sums: Vec<_> = groups
        .iter()
        .map(|group| (sum(group, |line| line.bytes_before), sum(group, |line| line.bytes_after)))
        .collect();
    let (scale, unit) = unit(sums.iter().map(|&(before, after)| before.max(after)));
    let scaled =
        sums.iter().map(|&(before, after)| sizes(before as f64 / scale, after as f64 / scale));
    let stacks: Vec<_> = scaled.collect();
    let axis = Axis::from_zero(highest(stacks.iter().flatten().map(|bar| bar.0)));
    let marks: Vec<_> = stacks.into_iter().map(Mark::Stack).collect();
    frame_columns(&marks, groups, &SIZES, axis, &format!("size ({unit})"))
}

fn frame_columns(
    marks: &[Mark],
    groups: &[&[Numbered<'_>]],
    legend: &[(RGBColor, &str)],
    axis: Axis,
    title: &str,
) -> String {
    let number = |layer: Option<&Numbered<'_>>| {
        layer.map_or_else(String::new, |(at, _)| format!("#{}", at + 1))
    };
    let ends = [
        number(groups.first().and_then(|group| group.first())),
        number(groups.last().and_then(|group| group.last())),
    ];
    let under = match groups[0].len() {
        1 => "changed layers, numbered as in the plan".to_owned(),
        each => format!("changed layers in the order of the plan, {each} in a column"),
    };
    columns(marks, &columns::Frame { legend, axis, title, under: &under, ends })
}
