//! What a person reads.

use std::cmp::Ordering;
use std::fmt::Write;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use modelopt::report::{SampleKind, Samples};
use modelopt::rewrite::{Plan, Scheme};
use modelopt::validate::{Bound, Check, OutputParity, Parity, SizeChange, Unit, Verdict};
use modelopt::{Compared, Inspection, Outcome, Ran};

/// How many of the worst layers are named.
const NAMED: usize = 8;

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

/// The text without what a terminal would obey: names in a model can hold anything.
pub(crate) fn plain(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\n' { c.escape_default().collect() } else { c.to_string() }
    };
    text.chars().map(shown).collect()
}

/// The same on one line, for cells of a table.
fn cell(text: &str) -> String {
    plain(text).replace('\n', "\\n")
}

pub(crate) fn decibels(value: f64) -> String {
    if value == f64::INFINITY { "equal".to_owned() } else { format!("{value:.1} dB") }
}

/// What `modelopt quantize` prints.
pub(crate) fn outcome(outcome: &Outcome, input: &Path, output: &Path) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "\n{} -> {}\n", input.display(), output.display());
    text += &size(outcome.size);
    if !outcome.unchanged {
        text.push('\n');
        text += &schemes(outcome);
    }
    if let (Some(parity), Some(verdict)) = (&outcome.parity, &outcome.verdict) {
        text.push('\n');
        text += &parity_table(parity, verdict);
    }
    if let (Some(runtime), Some(samples)) = (&outcome.ran, outcome.samples) {
        text += &ran(runtime, samples);
    }
    text += &failures(outcome);
    let verdict = outcome.verdict.as_ref().map(|verdict| verdict.pass);
    let _ = match (verdict, outcome.emitted) {
        (Some(true), _) => writeln!(text, "\npassed: wrote {}", output.display()),
        (Some(false), true) => {
            writeln!(text, "\nfailed, but the gate is off: wrote {} all the same", output.display())
        }
        (Some(false), false) => writeln!(text, "\nrefused: nothing was written"),
        (None, _) if outcome.unchanged => writeln!(text, "\nwrote {} unchanged", output.display()),
        (None, _) => writeln!(text, "\nwrote {} without proof", output.display()),
    };
    text
}

/// Where and on what models ran.
fn ran(ran: &Ran, samples: Samples) -> String {
    let threads = match ran.threads {
        0 => "all threads".to_owned(),
        count => format!("{count} thread{}", plural(count)),
    };
    let kind = match samples.kind {
        SampleKind::Real => "real",
        SampleKind::Synthetic => "invented",
        SampleKind::Mixed => "real and invented",
    };
    format!(
        "\n  ran in {} {} with {threads} on {} {kind} sample{}\n  ({})\n",
        ran.runtime,
        ran.version,
        samples.count,
        plural(samples.count),
        ran.reason,
    )
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn size(size: SizeChange) -> String {
    let ratio = size.ratio();
    let change = match size.original_bytes.cmp(&size.candidate_bytes) {
        Ordering::Greater => format!("{ratio:.2}x smaller"),
        Ordering::Equal => "the same size".to_owned(),
        Ordering::Less => format!("{:.2}x larger", 1.0 / ratio),
    };
    format!("  size  {} -> {}  {change}\n", bytes(size.original_bytes), bytes(size.candidate_bytes))
}

fn schemes(outcome: &Outcome) -> String {
    let mut rows = table(&["scheme", "layers", "weights"]);
    for scheme in Scheme::ALL {
        let layers = outcome.plan.layers.iter().filter(|layer| layer.scheme == scheme);
        let count = layers.clone().count();
        if count > 0 {
            // A weight that several layers share counts once.
            let mut seen = std::collections::HashSet::new();
            let total: u64 = layers
                .filter(|layer| layer.weights.iter().any(|name| seen.insert(name.as_str())))
                .map(|layer| layer.bytes)
                .sum();
            rows.add_row([scheme.to_string(), count.to_string(), bytes(total)]);
        }
    }
    indented(rows, &[1, 2])
}

/// One line per output: its figures, the limit of its SQNR, and whether it passes.
fn parity_table(parity: &Parity, verdict: &Verdict) -> String {
    let mut rows = table(&["output", "type", "SQNR", "limit", "max error", "cosine", "verdict"]);
    for output in &parity.outputs {
        let checks: Vec<&Check> =
            verdict.checks.iter().filter(|check| check.subject == output.name).collect();
        let limit = checks
            .iter()
            .find(|check| check.name == "sqnr")
            .map_or_else(|| "-".to_owned(), |check| format!("{} dB", check.limit));
        let pass = if checks.iter().all(|check| check.pass) { "pass" } else { "FAIL" };
        let [sqnr, error, cosine] = figures(output);
        rows.add_row([
            cell(&output.name),
            output.original.to_string(),
            sqnr,
            limit,
            error,
            cosine,
            pass.to_owned(),
        ]);
    }
    indented(rows, &[2, 3, 4, 5])
}

fn figures(output: &OutputParity) -> [String; 3] {
    let dash = || "-".to_owned();
    match (&output.float, output.mismatches) {
        (Some(float), _) => [
            decibels(float.sqnr_db),
            format!("{:.2e}", float.max_abs_error),
            format!("{:.6}", float.cosine),
        ],
        (None, Some(0)) => ["equal".to_owned(), dash(), dash()],
        (None, Some(count)) => [format!("{count} differ"), dash(), dash()],
        (None, None) => [dash(), dash(), dash()],
    }
}

fn failures(outcome: &Outcome) -> String {
    let mut text = String::new();
    let Some(verdict) = outcome.verdict.as_ref().filter(|verdict| !verdict.pass) else {
        return text;
    };
    text += &failed_checks(verdict);
    if !outcome.culprits.is_empty() {
        text += "\n  worst layers, each changed alone:\n";
        let mut rows = table(&["SQNR", "scheme", "layer"]);
        for culprit in outcome.culprits.iter().take(NAMED) {
            let shared = match culprit.layers.len() {
                1 => String::new(),
                count => format!(" and {} more that share its weight", count - 1),
            };
            let first = cell(culprit.layers.first().map_or("", String::as_str));
            rows.add_row([
                decibels(culprit.sqnr_db),
                culprit.scheme.clone(),
                format!("{first}{shared}"),
            ]);
        }
        text += &indented(rows, &[0]);
        if let Some(culprit) = outcome.culprits.first()
            && let Some(first) = culprit.layers.first()
        {
            let dynamic = culprit.scheme == Scheme::Int8Dynamic.name();
            let gentler = if dynamic { ", or --scheme int8-weights" } else { "" };
            let _ = writeln!(text, "  try: --exclude '{first}'{gentler}");
        }
    }
    text
}

fn failed_checks(verdict: &Verdict) -> String {
    let mut text = String::from("\n");
    for check in verdict.failures() {
        let side = match check.bound {
            Bound::AtLeast => "at least",
            Bound::AtMost => "at most",
        };
        let figure = |value: f64| match check.unit {
            Unit::Decibels => decibels(value),
            Unit::Times => format!("{value:.3}x"),
            Unit::Share => format!("{:.1} %", value * 100.0),
            Unit::Count | Unit::Flag => format!("{value}"),
            Unit::Output => format!("{value:.3e}"),
        };
        let note = check.note.as_ref().map_or(String::new(), |note| format!(" ({note})"));
        let _ = writeln!(
            text,
            "  FAIL {} of {}: {}, must be {side} {}{note}",
            check.name,
            check.subject,
            figure(check.value),
            figure(check.limit),
        );
    }
    text
}

/// What `modelopt plan` and `--explain` print.
pub(crate) fn plan(plan: &Plan) -> String {
    let mut rows = table(&["layer", "operator", "weights", "scheme", "because"]);
    for layer in &plan.layers {
        rows.add_row([
            cell(&layer.name),
            cell(&layer.op),
            bytes(layer.bytes),
            layer.scheme.to_string(),
            cell(&layer.reason),
        ]);
    }
    let mut text = indented(rows, &[2]);
    let _ = writeln!(text, "\n  {} of {} layers are changed", plan.changed(), plan.layers.len());
    text
}

/// What `modelopt compare` prints.
pub(crate) fn compared(compared: &Compared) -> String {
    let mut text = size(compared.size);
    text.push('\n');
    text += &parity_table(&compared.parity, &compared.verdict);
    text += &ran(&compared.ran, compared.samples);
    if compared.verdict.pass {
        text += "\npassed\n";
    } else {
        text += &failed_checks(&compared.verdict);
        text += "\nfailed\n";
    }
    text
}

/// What `modelopt inspect` prints.
pub(crate) fn inspection(model: &Inspection, path: &Path) -> String {
    let mut text = format!("{}  {}\n", path.display(), bytes(model.bytes));
    let opsets: Vec<String> =
        model.opsets.iter().map(|(domain, version)| format!("{domain} {version}")).collect();
    let _ = writeln!(text, "  ir {}  opset {}", model.ir_version, opsets.join(", "));
    if !model.producer.is_empty() {
        let _ = writeln!(text, "  made by {}", model.producer);
    }
    for (key, value) in &model.metadata {
        let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = line.chars().take(60).collect();
        let _ = writeln!(text, "  {}", format!("{key}: {short}").trim_end());
    }
    for (title, ports) in [("inputs", &model.inputs), ("outputs", &model.outputs)] {
        let _ = writeln!(text, "\n  {title}");
        let mut rows = table(&[]);
        for port in ports {
            let default = if port.has_default { "has a default" } else { "" };
            rows.add_row([&cell(&port.name), &cell(&port.ty), default]);
        }
        text += &indented(rows, &[]);
    }
    let operators: Vec<String> =
        model.operators.iter().map(|entry| format!("{} {}", entry.count, entry.operator)).collect();
    let _ = writeln!(text, "\n  operators\n  {}", operators.join(", "));
    if model.nested_graphs > 0 {
        let _ = writeln!(text, "  in {} nested graphs and the main one", model.nested_graphs);
    }
    if model.functions > 0 {
        let _ = writeln!(text, "  {} model-local functions", model.functions);
    }
    text += "\n  weights\n";
    let mut rows = table(&[]);
    for entry in &model.weights {
        let tensors = format!("{} tensor{}", entry.tensors, plural(entry.tensors));
        rows.add_row([bytes(entry.bytes), entry.ty.clone(), tensors]);
    }
    text += &indented(rows, &[0, 2]);
    let _ = writeln!(
        text,
        "\n  {} of {} weight layers can be quantized; `modelopt plan` shows them",
        model.plan.changed(),
        model.plan.layers.len()
    );
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
}
