//! What each region takes in float32 and on integers, as predicted.

use plotters::style::RGBColor;

use super::Plot;
use super::axis::Axis;
use super::bars::{Frame, Row, bars};
use super::canvas::{AFTER, BEFORE, LIMIT, TEXT};
use crate::{PredictedTime, Region, wording};

/// As many rows are shown: those that take longest.
const MOST_ROWS: usize = 24;

const LEGEND: [(RGBColor, &str); 3] =
    [(BEFORE, "float32"), (AFTER, "integers"), (LIMIT, "borders")];

/// Predicted times by region; none where nothing is predicted.
pub(crate) fn regions(regions: &[Region]) -> Option<Plot> {
    let numbered = regions.iter().enumerate();
    let mut told: Vec<(usize, &Region, PredictedTime)> =
        numbered.filter_map(|(at, region)| Some((at, region, region.predicted?))).collect();
    told.sort_by(|a, b| b.2.float_ms.total_cmp(&a.2.float_ms));
    let count = told.len();
    told.truncate(MOST_ROWS);
    let all = told.iter().flat_map(|(.., time)| [time.float_ms, after(time)]);
    let longest = all.filter(|x| x.is_finite()).max_by(f64::total_cmp)?;
    let (factor, unit) = wording::time_unit(longest);
    let rows: Vec<Row> = told.iter().map(|told| row(told, factor)).collect();
    let axis = Axis::from_zero(longest * factor);
    let title = format!("predicted time on one thread ({unit})");
    let svg = bars(&rows, &Frame { legend: &LEGEND, axis, title: &title, figures: 130.0 });
    let shown = if count > MOST_ROWS {
        format!("The {MOST_ROWS} of {count} regions that take longest")
    } else {
        wording::counted(count, "region")
    };
    let caption = format!(
        "{shown}: predicted from the sizes of tensors and what kernels of the target take, not \
         measured; borders are quantizing what goes in and dequantizing what goes out."
    );
    Some(Plot::new("Time by region, predicted", caption, svg))
}

fn after(time: &PredictedTime) -> f64 {
    time.integer_ms + time.border_ms
}

fn row((at, region, time): &(usize, &Region, PredictedTime), factor: f64) -> Row {
    let mut bars = vec![(time.float_ms, BEFORE), (time.integer_ms, AFTER), (after(time), LIMIT)];
    // The longer ones behind.
    bars.sort_by(|a, b| b.0.total_cmp(&a.0));
    let first = region.layers.first().map_or("", String::as_str);
    Row {
        name: format!("#{} {first}", at + 1),
        bars: bars.into_iter().map(|(time, color)| (time * factor, color)).collect(),
        limit: None,
        figure: [time.float_ms, after(time)].map(wording::milliseconds).join(" → "),
        color: TEXT,
    }
}
