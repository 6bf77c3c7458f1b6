//! How close each output is.

use modelopt_validate::{OutputParity, Parity, Verdict};

use super::Plot;
use super::axis::Axis;
use super::bars::{Frame, Row, bars};
use super::canvas::{AFTER, BAD, LIMIT, TEXT};
use crate::wording;

/// Models with more outputs show those that are the furthest off.
const MOST_OUTPUTS: usize = 24;

/// SQNR of each output against its limit in the verdict, if there are outputs.
pub(crate) fn parity(parity: &Parity, verdict: Option<&Verdict>) -> Option<Plot> {
    let mut outputs: Vec<_> = parity.outputs.iter().collect();
    let count = outputs.len();
    if count > MOST_OUTPUTS {
        outputs.sort_by(|a, b| closeness(a).total_cmp(&closeness(b)));
        outputs.truncate(MOST_OUTPUTS);
    }
    let rows: Vec<_> = outputs.into_iter().map(|output| row(output, verdict)).collect();
    let finite = |x: &f64| x.is_finite();
    let ends = rows.iter().flat_map(|row| row.bars.iter().map(|bar| bar.0).chain(row.limit));
    let high = ends.filter(finite).max_by(f64::total_cmp);
    if rows.is_empty() {
        return None;
    }
    let limited = rows.iter().any(|row| row.limit.is_some_and(f64::is_finite));
    let legend = [(AFTER, "SQNR"), (LIMIT, "limit")];
    let drawing = bars(
        &rows,
        &Frame {
            legend: &legend[..=usize::from(limited)],
            axis: Axis::from_zero(high.unwrap_or(1.0)),
            title: "signal to quantization noise (dB)",
            figures: 84.0,
        },
    );
    let shown = if count > MOST_OUTPUTS {
        format!("The {MOST_OUTPUTS} of {count} outputs that are the furthest off")
    } else {
        wording::counted(count, "output")
    };
    let caption = format!("{shown}, on the worst sample of each; longer bars are closer.");
    Some(Plot::new("Parity", caption, drawing))
}

/// Orders outputs, the furthest off first.
fn closeness(output: &OutputParity) -> f64 {
    match (&output.float, output.mismatches) {
        (Some(float), _) if !float.sqnr_db.is_nan() => float.sqnr_db,
        (None, Some(0)) => f64::INFINITY,
        _ => f64::NEG_INFINITY,
    }
}

fn row(output: &OutputParity, verdict: Option<&Verdict>) -> Row {
    let limit = verdict.and_then(|verdict| {
        let mut checks = verdict.checks.iter();
        checks.find(|check| check.name == "sqnr" && check.subject == output.name)
    });
    let (sqnr, figure, bad) = match (&output.float, output.mismatches) {
        (Some(float), _) => {
            let bad = float.sqnr_db.is_nan() || limit.is_some_and(|check| !check.pass);
            (float.sqnr_db, wording::decibels(float.sqnr_db), bad)
        }
        (None, Some(0)) => (f64::INFINITY, "equal".to_owned(), false),
        (None, Some(count)) => (0.0, format!("{count} differ"), true),
        (None, None) => (0.0, "not compared".to_owned(), true),
    };
    let color = if bad { BAD } else { AFTER };
    Row {
        name: output.name.clone(),
        bars: vec![(sqnr, color)],
        limit: limit.map(|check| check.limit),
        figure,
        color: if bad { BAD } else { TEXT },
    }
}
