//! What came of `modelopt quantize` and `compare`: sizes, parity, verdict, and what failed.

use std::cmp::Ordering;
use std::fmt::Write;
use std::path::Path;

use modelopt::rewrite::{Explanation, PlannedLayer, Scheme};
use modelopt::validate::{
    Bound, Check, MetricChange, OutputParity, Parity, SizeChange, Unit, Verdict,
};
use modelopt::{Compared, Outcome};

use super::advice;
use super::runs::{latency, ran, unjudged};
use super::search::trials;
use super::{bytes, cell, decibels, indented, milliseconds, sharing, table, wrapped};

/// How many of the worst layers are named.
const NAMED: usize = 8;

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
        text += &ran(&target.runtime, samples);
    }
    text += &metric(outcome.metric.as_ref());
    text += &unjudged(outcome.verdict.as_ref());
    text += &trials(outcome);
    text += &failures(outcome);
    let verdict = outcome.verdict.as_ref().map(|verdict| verdict.pass);
    let stopped = outcome.search_end == Some(modelopt::report::SearchEnd::Stopped);
    let _ = match (verdict, outcome.emitted) {
        (_, false) if stopped => writeln!(text, "\nstopped: nothing was written"),
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
    for scheme in Scheme::all() {
        let of = |(layer, _): &(&PlannedLayer, &Explanation)| layer.scheme == scheme;
        let layers: Vec<_> = outcome.plan.lines().filter(of).collect();
        if !layers.is_empty() {
            // A weight that several layers share counts once.
            let mut seen = std::collections::HashSet::new();
            let total: u64 = layers
                .iter()
                .filter(|(_, why)| why.weights.iter().any(|name| seen.insert(name.as_str())))
                .map(|(_, why)| why.bytes)
                .sum();
            rows.add_row([scheme.to_string(), layers.len().to_string(), bytes(total)]);
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
        let pass = match checks.as_slice() {
            [] => "-",
            checks if checks.iter().all(|check| check.pass) => "pass",
            _ => "FAIL",
        };
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
        for part in &output.parts {
            let limit = checks.iter().find(|check| check.name == "sqnr").map(|check| check.limit);
            let verdict = match limit {
                Some(limit) if part.sqnr_db >= limit => "pass",
                Some(_) => "FAIL",
                None => "",
            };
            rows.add_row([
                format!("  {}", cell(&part.name)),
                if part.probability { "probabilities" } else { "" }.to_owned(),
                decibels(part.sqnr_db),
                String::new(),
                format!("{:.2e}", part.max_abs_error),
                String::new(),
                verdict.to_owned(),
            ]);
        }
    }
    indented(rows, &[2, 3, 4, 5]) + &choices(parity)
}

/// How choices came out, where there are clear ones.
fn choices(parity: &Parity) -> String {
    let mut text = String::new();
    for output in &parity.outputs {
        let decisions = output.decisions.iter().filter(|decisions| decisions.decided > 0);
        for decisions in decisions {
            let among = decisions.among.iter().map(|name| format!(" among {}", cell(name)));
            let line = format!(
                "{} of {} clear choices kept, {} rows in all{}",
                decisions.kept,
                decisions.decided,
                decisions.rows,
                among.collect::<String>()
            );
            text += &wrapped(&format!("{}: ", cell(&output.name)), &line);
        }
    }
    text
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
        (None, Some(_)) if output.agreement.is_some() => {
            let agreement = output.agreement.unwrap_or_default() * 100.0;
            [format!("{agreement:.1} % agree"), dash(), dash()]
        }
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
        let predicted = outcome.culprits.iter().any(|culprit| culprit.predicted);
        text += if predicted {
            "\n  worst layers, each changed alone as predicted from a search:\n"
        } else {
            "\n  worst layers, each changed alone:\n"
        };
        let mut rows = table(&["SQNR", "scheme", "layer"]);
        for culprit in outcome.culprits.iter().take(NAMED) {
            rows.add_row([
                decibels(culprit.sqnr_db),
                culprit.scheme.clone(),
                sharing(&culprit.layers),
            ]);
        }
        text += &indented(rows, &[0]);
    }
    if verdict.failures().any(|check| check.name == "sqnr")
        && let Some(advice) = advice::for_parity(outcome)
    {
        text += &wrapped("try: ", &advice);
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
    if let Some(scheme) = outcome.alternative {
        let flag = if scheme.is_int8() { "scheme" } else { "to" };
        text += &wrapped("try: ", &format!("--{flag} {scheme}, which passes"));
    } else if let Some(advice) = advice::for_latency(outcome) {
        text += &wrapped("try: ", &advice);
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
            Unit::Metric => plain_number(value),
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

/// The user's own metric of both models.
fn metric(change: Option<&MetricChange>) -> String {
    let Some(change) = change else { return String::new() };
    let [original, candidate] = [change.original, change.candidate].map(plain_number);
    let line = |name: &str, original: &str, candidate: &str| {
        format!("  {}  {original} -> {candidate}\n", cell(name))
    };
    let further = change.further.iter().map(|further| {
        line(&further.name, &plain_number(further.original), &plain_number(further.candidate))
    });
    format!("\n{}{}", line(&change.name, &original, &candidate), further.collect::<String>())
}

/// At most five decimals.
pub(super) fn plain_number(value: f64) -> String {
    if value.abs() >= 1e-3 || value == 0.0 {
        let digits = format!("{value:.5}");
        digits.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.3e}")
    }
}

/// What `modelopt compare` prints.
pub(crate) fn compared(compared: &Compared) -> String {
    let mut text = size(compared.size);
    text.push('\n');
    if let (Some(parity), Some(target)) = (compared.parity(), compared.runs.first()) {
        text += &parity_table(parity, &compared.verdict);
        text += &latency(&compared.runs);
        text += &ran(&target.runtime, compared.samples);
    }
    text += &metric(compared.metric.as_ref());
    text += &unjudged(Some(&compared.verdict));
    if compared.verdict.pass {
        text += "\npassed\n";
    } else {
        text += &failed_checks(&compared.verdict);
        text += "\nfailed\n";
    }
    text
}
