//! What a person reads.

use std::cmp::Ordering;
use std::fmt::Write;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use modelopt::report::{Run, RuntimeUsed, SampleKind, Samples};
use modelopt::rewrite::{Plan, Scheme};
use modelopt::validate::{Bound, Check, OutputParity, Parity, SizeChange, Unit, Verdict};
use modelopt::{BenchRow, Compared, Inspection, Outcome};

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
    if let (Some(parity), Some(verdict)) = (outcome.parity(), &outcome.verdict) {
        text.push('\n');
        text += &parity_table(parity, verdict);
    }
    if let (Some(target), Some(samples)) = (outcome.runs.first(), outcome.samples) {
        text += &latency(&outcome.runs);
        text += &ran(target, samples);
    }
    text += &unjudged(outcome.verdict.as_ref());
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

/// Times in each runtime, where they were measured.
fn latency(runs: &[Run]) -> String {
    if runs.iter().all(|run| run.latency.is_none() && run.failure.is_none()) && runs.len() < 2 {
        return String::new();
    }
    let mut rows =
        table(&["runtime", "time", "", "", "ratio", "interval", "load", "peak memory", "SQNR"]);
    for run in runs {
        let mut cells = vec![name(&run.runtime)];
        if let Some(failure) = &run.failure {
            cells.push(cell(failure));
            rows.add_row(cells);
            continue;
        }
        cells.extend(match &run.latency {
            Some(latency) => [
                milliseconds(latency.original.p50_ms),
                "->".to_owned(),
                milliseconds(latency.candidate.p50_ms),
                format!("{:.2}x", latency.ratio_median),
                format!("{:.2} to {:.2}", latency.ratio_low, latency.ratio_high),
            ],
            None => ["-", "", "", "-", "-"].map(str::to_owned),
        });
        cells.extend(match (&run.original, &run.candidate) {
            (Some(original), Some(candidate)) => [
                format!(
                    "{} -> {}",
                    milliseconds(original.load_ms),
                    milliseconds(candidate.load_ms)
                ),
                format!("{} -> {}", bytes(original.peak_bytes), bytes(candidate.peak_bytes)),
            ],
            _ => ["-", "-"].map(str::to_owned),
        });
        let floats = run.parity.iter().flat_map(|parity| &parity.outputs);
        let worst = floats.filter_map(|output| output.float.as_ref()).map(|float| float.sqnr_db);
        cells.push(worst.min_by(f64::total_cmp).map_or_else(|| "-".to_owned(), decibels));
        rows.add_row(cells);
    }
    format!("\n{}", indented(rows, &[1, 3, 4, 5, 6, 7, 8]))
}

fn name(runtime: &RuntimeUsed) -> String {
    format!("{} {}", runtime.name, runtime.version).trim_end().to_owned()
}

fn milliseconds(time: f64) -> String {
    let decimals = match time {
        time if time < 10.0 => 2,
        time if time < 100.0 => 1,
        _ => 0,
    };
    format!("{time:.decimals$} ms")
}

/// Where and on what models ran.
fn ran(target: &Run, samples: Samples) -> String {
    let threads = match target.runtime.threads {
        0 => "all threads".to_owned(),
        count => format!("{count} thread{}", plural(count)),
    };
    let kind = match samples.kind {
        SampleKind::Real => "real",
        SampleKind::Synthetic => "invented",
        SampleKind::Mixed => "real and invented",
    };
    let library = target.runtime.library.as_ref();
    let library = library.map_or(String::new(), |file| format!(" ({})", cell(file.as_str())));
    format!(
        "\n  ran in {}{library} with {threads} on {} {kind} sample{}\n  ({})\n",
        name(&target.runtime),
        samples.count,
        plural(samples.count),
        cell(&target.runtime.reason),
    )
}

fn unjudged(verdict: Option<&Verdict>) -> String {
    let left = verdict.iter().flat_map(|verdict| &verdict.unjudged);
    left.fold(String::new(), |text, left| {
        text + &format!("  not judged: {} ({})\n", left.name, left.reason)
    })
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
    text + &slow_layers(outcome)
}

/// The layers that a failed limit of latency is due to.
fn slow_layers(outcome: &Outcome) -> String {
    if outcome.slow_layers.is_empty() {
        return String::new();
    }
    let mut rows = table(&["slowdown", "time", "scheme", "layer"]);
    for slow in outcome.slow_layers.iter().take(NAMED) {
        rows.add_row([
            format!("{:.2}x", slow.slowdown),
            milliseconds(slow.original_ms * slow.slowdown),
            slow.scheme.clone(),
            cell(&slow.layer),
        ]);
    }
    let mut text = format!("\n  layers that became slower:\n{}", indented(rows, &[0, 1]));
    let more = outcome.slow_layers.len().saturating_sub(NAMED);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
    text += "  try: --measure, which leaves out what does not pay, or --scheme int8-weights\n";
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
    if let (Some(parity), Some(target)) = (compared.parity(), compared.runs.first()) {
        text += &parity_table(parity, &compared.verdict);
        text += &latency(&compared.runs);
        text += &ran(target, compared.samples);
    }
    text += &unjudged(Some(&compared.verdict));
    if compared.verdict.pass {
        text += "\npassed\n";
    } else {
        text += &failed_checks(&compared.verdict);
        text += "\nfailed\n";
    }
    text
}

/// What `modelopt bench` prints.
pub(crate) fn bench(rows: &[BenchRow]) -> String {
    let sizes = rows.iter().any(|row| !row.dims.is_empty());
    let mut header = vec!["model", "runtime", "threads"];
    header.extend(sizes.then_some("sizes"));
    header.extend(["p50", "p90", "p99", "per second", "load", "peak memory"]);
    let mut shown = table(&header);
    for row in rows {
        let threads = match row.runtime.threads {
            0 => "all".to_owned(),
            count => count.to_string(),
        };
        let mut cells = vec![cell(row.model.as_str()), name(&row.runtime), threads];
        if sizes {
            let sizes = row.dims.iter().map(|(name, size)| format!("{name}={size}"));
            cells.push(cell(&sizes.collect::<Vec<_>>().join(" ")));
        }
        let dash = || "-".to_owned();
        match &row.latency {
            Some(times) => cells.extend([
                milliseconds(times.p50_ms),
                milliseconds(times.p90_ms),
                milliseconds(times.p99_ms),
                format!("{:.1}", times.throughput_per_s),
                row.load_ms.map_or_else(dash, milliseconds),
                row.peak_bytes.map_or_else(dash, bytes),
            ]),
            None => cells.push(cell(row.failure.as_deref().unwrap_or("-"))),
        }
        shown.add_row(cells);
    }
    let first = header.len() - 6;
    indented(shown, &(first..header.len()).collect::<Vec<_>>())
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
