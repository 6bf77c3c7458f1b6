//! What a person reads.

mod advice;
mod bench;
mod calibration;
mod hint;
mod inspection;
mod notes;
mod outcome;
mod regions;
mod runs;
mod search;
pub(crate) mod serving;
mod step;
mod upgrade;
mod warning;

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use modelopt::report::{self, Region, RuntimeUsed};
use modelopt::rewrite::ExplainedPlan;

use crate::files;
use notes::Notes;

pub(crate) use bench::bench;
pub(crate) use calibration::{Calibrated, calibrated};
pub(crate) use hint::{hint, mistake};
pub(crate) use inspection::inspection;
pub(crate) use outcome::{compared, outcome};
pub(crate) use runs::say_reasons;
pub(crate) use search::{saved_plan, sensitivity};
pub(crate) use step::step;
pub(crate) use upgrade::upgraded;
pub(crate) use warning::warning;

/// A table without lines.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !header.is_empty() {
        table.set_header(header.iter().copied());
    }
    table
}

/// The finished table, the columns in `right` aligned to the right.
fn indented(mut table: Table, right: &[usize]) -> String {
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "  {}", line.trim_end());
        text
    })
}

/// The first of layers that share a weight, and how many others there are.
fn sharing(layers: &[String]) -> String {
    let first = cell(layers.first().map_or("", String::as_str));
    match layers.len() {
        0 | 1 => first,
        count => format!("{first} and {} more that share its weight", count - 1),
    }
}

/// Bytes as people write them: powers of 1000, three digits.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", units[unit])
}

/// The text without what a terminal would obey, since names in a model can hold anything, and
/// without paths of temporary files.
pub(crate) fn plain(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\n' { c.escape_default().collect() } else { c.to_string() }
    };
    files::without_temporary(text).chars().map(shown).collect()
}

/// The same on one line, for cells of a table.
fn cell(text: &str) -> String {
    plain(text).replace('\n', "\\n")
}

pub(crate) fn decibels(value: f64) -> String {
    if value == f64::INFINITY { "equal".to_owned() } else { format!("{value:.1} dB") }
}

fn name(runtime: &RuntimeUsed) -> String {
    format!("{} {}", runtime.name, runtime.version).trim_end().to_owned()
}

/// A time given in milliseconds: three digits, in the unit that shows them.
fn milliseconds(time: f64) -> String {
    let (value, unit) = match time {
        time if time < 0.9995 => (time * 1e3, "µs"),
        time if time < 9_995.0 => (time, "ms"),
        _ => (time / 1e3, "s"),
    };
    let decimals = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// How long lines of prose get, in characters.
const LINE: usize = 96;

/// Prose behind a mark, on lines of bearable length; the text starts at one column.
fn wrapped(mark: &str, text: &str) -> String {
    let indent = 2 + mark.chars().count();
    let mut lines = vec![format!("  {mark}")];
    let mut length = indent;
    for word in text.split_whitespace() {
        let more = word.chars().count() + 1;
        if length + more > LINE + 1 && length > indent {
            lines.push(" ".repeat(indent));
            length = indent;
        }
        if let Some(line) = lines.last_mut() {
            if length > indent {
                line.push(' ');
            }
            line.push_str(word);
        }
        length += more;
    }
    lines.iter().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// What `modelopt plan` and `--explain` print.
pub(crate) fn plan(plan: &ExplainedPlan, regions: &[Region]) -> String {
    let longest = |texts: &mut dyn Iterator<Item = &str>| {
        texts.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let names = longest(&mut plan.lines().map(|(layer, _)| layer.id.as_str()));
    let operators =
        longest(&mut plan.lines().map(|(_, why)| why.op.as_str())).max("operator".len());
    // Sizes, schemes and what stands between columns.
    let mut notes = Notes::beside(names + operators + 32);
    let mut titles = vec!["layer", "operator", "weights", "scheme"];
    titles.extend((!regions.is_empty()).then_some("region"));
    titles.push("because");
    let mut rows = table(&titles);
    let numbers = report::regions_by_layer(regions);
    for (layer, why) in plan.lines() {
        let mut cells =
            vec![cell(&layer.id), cell(&why.op), bytes(why.bytes), layer.scheme.to_string()];
        let number = numbers.get(layer.id.as_str()).map(usize::to_string);
        cells.extend((!regions.is_empty()).then(|| number.unwrap_or_default()));
        cells.push(notes.short("see", &why.reason));
        rows.add_row(cells);
    }
    let figures = [2, 4];
    let mut text = indented(rows, if regions.is_empty() { &figures[..1] } else { &figures });
    if !notes.is_empty() {
        text.push('\n');
        text += &notes.below();
    }
    text += &regions::regions(regions);
    let _ = writeln!(text, "\n  {} of {} layers are changed", plan.changed(), plan.layers.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_like_sizes() {
        let shown = [0, 999, 1000, 9_994, 12_345, 999_600, 85_000_000].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.00 kB", "9.99 kB", "12.3 kB", "1.00 MB", "85.0 MB"]);
    }

    #[test]
    fn times_have_three_digits() {
        let shown = [0.001_23, 0.0123, 0.999, 1.0, 42.16, 421.6, 12_345.0].map(milliseconds);
        let wanted = ["1.23 µs", "12.3 µs", "999 µs", "1.00 ms", "42.2 ms", "422 ms", "12.3 s"];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn prose_stays_within_its_lines() {
        let text = wrapped("[1] ", &"some words ".repeat(30));
        assert!(text.lines().all(|line| line.chars().count() <= LINE), "{text}");
        assert!(
            text.lines()
                .skip(1)
                .all(|line| line.starts_with("      some") || line.starts_with("      words")),
            "{text}"
        );
        assert_eq!(wrapped("- ", "a  b\nc"), "  - a b c\n");
    }
}
