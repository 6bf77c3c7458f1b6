//! What `modelopt calibrate` came to.

use std::fmt::Write;
use std::path::Path;

use modelopt::calibration::{Calibration, Method, TensorRanges};
use modelopt::report::RuntimeUsed;

use super::{cell, indented, name, table};

/// How many tensors are named where some are odd.
const MOST_NAMED: usize = 3;

/// A calibration and how it came about.
pub(crate) struct Calibrated<'a> {
    pub(crate) calibration: &'a Calibration,
    /// Where the model ran, if it did.
    pub(crate) runtime: Option<&'a RuntimeUsed>,
    pub(crate) resumed: bool,
    pub(crate) seconds: f64,
    pub(crate) output: &'a Path,
}

/// What `modelopt calibrate` prints.
pub(crate) fn calibrated(calibrated: &Calibrated<'_>, ranges: &[TensorRanges]) -> String {
    let Calibrated { calibration, runtime, resumed, seconds, output } = calibrated;
    let (seen, tensors) = (calibration.samples().len(), ranges.len());
    let mut text = format!("{}: {tensors} tensors seen on {}", output.display(), samples(seen));
    if let Some(all) = calibration.list().map(modelopt::calibration::SampleList::count)
        && all > seen as u64
    {
        let _ = write!(text, " of {all}");
    }
    let how = match runtime {
        Some(runtime) => format!("in {}", name(runtime)),
        None => "put together".to_owned(),
    };
    let again = if *resumed { ", gone on with what was there" } else { "" };
    let _ = writeln!(text, ", {how}, {seconds:.1} s{again}\n");
    text += &methods(ranges);
    text += &odd(ranges);
    text
}

fn samples(count: usize) -> String {
    if count == 1 { "1 sample".to_owned() } else { format!("{count} samples") }
}

/// How much of what was seen each method keeps, on 8 bits.
fn methods(ranges: &[TensorRanges]) -> String {
    let mut shown = table(&["range on 8 bits", "median", "narrowest", "tensor"]);
    for method in Method::ALL {
        let shares = ranges.iter().filter_map(|tensor| Some((tensor.share(method)?, tensor)));
        let mut shares: Vec<(f64, &TensorRanges)> = shares.collect();
        shares.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (Some(first), Some(middle)) = (shares.first(), shares.get(shares.len() / 2)) else {
            continue;
        };
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let narrowest = if method == Method::MinMax { "-" } else { first.1.name.as_str() };
        let cells = [method.to_string(), percent(middle.0), percent(first.0), cell(narrowest)];
        shown.add_row(cells);
    }
    let text = indented(shown, &[1, 2]);
    if ranges.iter().all(|tensor| tensor.share(Method::MinMax).is_none()) {
        return String::new();
    }
    text + "  (of the range from least to largest)\n"
}

/// Tensors of which there is more to say than a range.
fn odd(ranges: &[TensorRanges]) -> String {
    let infinite = |tensor: &&TensorRanges| tensor.extremes.other > 0;
    let unseen = |tensor: &&TensorRanges| tensor.extremes.range.is_none();
    let zero = |tensor: &&TensorRanges| {
        tensor.extremes.range.is_some() && tensor.share(Method::MinMax).is_none()
    };
    let mut text = String::new();
    for (what, odd) in [
        (
            "with infinite elements, which no range has in it",
            ranges.iter().filter(infinite).collect(),
        ),
        ("without a finite element", ranges.iter().filter(unseen).collect()),
        ("that are 0 throughout", ranges.iter().filter(zero).collect::<Vec<_>>()),
    ] {
        if odd.is_empty() {
            continue;
        }
        let names = odd.iter().take(MOST_NAMED).map(|tensor| cell(&tensor.name));
        let names = names.collect::<Vec<_>>().join(", ");
        let more = odd.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(text, "  tensors {what}: {names}{more}");
    }
    text
}
