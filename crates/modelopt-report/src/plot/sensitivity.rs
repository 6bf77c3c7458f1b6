//! What each layer costs at the outputs.

use super::Plot;
use super::axis::Axis;
use super::bars::{Frame, Row, bars};
use super::canvas::{AFTER, TEXT};
use crate::{Sensitivity, wording};

/// As many rows are shown: the worst come first.
const MOST_ROWS: usize = 24;

/// SQNR at the outputs with each layer quantized alone; none where that was not measured.
pub(crate) fn sensitivity(layers: &[Sensitivity]) -> Option<Plot> {
    let measured: Vec<(&Sensitivity, f64)> =
        layers.iter().filter_map(|layer| Some((layer, layer.alone_db?))).collect();
    if measured.is_empty() {
        return None;
    }
    let rows: Vec<Row> = measured
        .iter()
        .take(MOST_ROWS)
        .map(|(layer, alone)| Row {
            name: layer.layers.first().cloned().unwrap_or_default(),
            bars: vec![(alone.max(0.0), AFTER)],
            limit: None,
            figure: wording::decibels(*alone),
            color: TEXT,
        })
        .collect();
    let finite = measured.iter().map(|(_, alone)| *alone).filter(|alone| alone.is_finite());
    let axis = Axis::from_zero(finite.fold(0.0, f64::max));
    let title = "SQNR at the outputs, quantized alone (dB)";
    let svg = bars(&rows, &Frame { legend: &[(AFTER, "SQNR")], axis, title, figures: 70.0 });
    let count = wording::counted(measured.len(), "layer");
    let shown = rows.len();
    let caption = format!("{count}, the {shown} that cost most shown; shorter costs more.");
    Some(Plot::new("Sensitivity", caption, svg))
}
