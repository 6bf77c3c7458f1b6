//! The document in GitHub's Markdown.

use modelopt_validate::{Bound, Check, Culprit, FloatParity, OutputParity, Parity, Unit, Verdict};

use crate::{Document, PlanLine, SampleKind};

/// Plans beyond this many layers are folded away.
const LONG_PLAN: usize = 12;
/// Stands where an output has no such figure.
const NONE: &str = "–";

pub(crate) fn render(document: &Document) -> String {
    let mut out = Markdown(String::new());
    out.title(document);
    out.facts(document);
    for warning in &document.warnings {
        out.line(&format!("> **Warning:** {}\n", text(warning)));
    }
    if let Some(verdict) = &document.verdict {
        out.verdict(verdict);
    }
    out.culprits(&document.culprits);
    if let Some(parity) = &document.parity {
        out.parity(parity);
    }
    out.plan(&document.plan);
    let length = out.0.trim_end().len();
    out.0.truncate(length);
    out.0.push('\n');
    out.0
}

struct Markdown(String);

impl Markdown {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn table(&mut self, header: &str, rows: impl IntoIterator<Item = Vec<String>>) {
        self.line(&format!("| {} |", header.replace(',', " | ")));
        self.line(&format!("|{}", " --- |".repeat(header.split(',').count())));
        for row in rows {
            self.line(&format!("| {} |", row.join(" | ")));
        }
        self.line("");
    }

    fn title(&mut self, document: &Document) {
        let outcome = match document.verdict.as_ref().map(|verdict| verdict.pass) {
            Some(true) => ": passed",
            Some(false) => ": failed",
            None => "",
        };
        self.line(&format!("## modelopt {}{outcome}\n", text(&document.command)));
    }

    fn facts(&mut self, document: &Document) {
        let mut rows = vec![vec!["Original".to_owned(), text(document.original.as_str())]];
        let mut fact = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        if let Some(candidate) = &document.candidate {
            fact("Candidate", text(candidate.as_str()));
        }
        if let Some(size) = &document.size {
            let (before, after) = (bytes(size.original_bytes), bytes(size.candidate_bytes));
            fact("Size", format!("{before} → {after} (ratio {})", number(size.ratio())));
        }
        if let Some(latency) = &document.latency {
            let median = number(latency.ratio_median);
            let (low, high) = (number(latency.ratio_low), number(latency.ratio_high));
            let pairs = latency.pairs;
            fact("Latency", format!("{median}x ({low}x to {high}x, {pairs} pairs)"));
        }
        if let Some(runtime) = &document.runtime {
            fact("Runtime", format!("{} ({})", text(&runtime.name), text(&runtime.reason)));
        }
        if let Some(samples) = &document.samples {
            let kind = match samples.kind {
                SampleKind::Real => "real",
                SampleKind::Synthetic => "synthetic",
                SampleKind::Mixed => "real and synthetic",
            };
            fact("Samples", format!("{} {kind}", samples.count));
        }
        fact("Version", text(&document.tool_version));
        self.table("Model,", rows);
    }

    fn verdict(&mut self, verdict: &Verdict) {
        self.line("### Verdict\n");
        self.table("Check,Of,Figure,Limit,Result,Note", verdict.checks.iter().map(check_row));
        for left in &verdict.unjudged {
            self.line(&format!("Not judged: {} ({}).\n", text(&left.name), text(&left.reason)));
        }
    }

    fn culprits(&mut self, culprits: &[Culprit]) {
        if culprits.is_empty() {
            return;
        }
        self.line("### Worst layers, each changed alone\n");
        let rows = culprits.iter().take(LONG_PLAN).map(|culprit| {
            let layers = text(&culprit.layers.join(", "));
            vec![layers, text(&culprit.scheme), number(culprit.sqnr_db)]
        });
        self.table("Layers,Scheme,SQNR (dB)", rows);
    }

    fn parity(&mut self, parity: &Parity) {
        self.line("### Parity\n");
        self.table(
            "Output,Type,Elements,SQNR (dB),Max error,RMSE,Cosine,Outside tolerance,Top-1,Top-5,\
             New NaN/Inf,Mismatches",
            parity.outputs.iter().map(parity_row),
        );
    }

    fn plan(&mut self, plan: &[PlanLine]) {
        if plan.is_empty() {
            return;
        }
        self.line("### Plan\n");
        let folded = plan.len() > LONG_PLAN;
        if folded {
            self.line(&format!("<details><summary>{} layers</summary>\n", plan.len()));
        }
        let rows = plan.iter().map(|line| {
            let size = format!("{} → {}", bytes(line.bytes_before), bytes(line.bytes_after));
            vec![text(&line.layer), text(&line.op), text(&line.scheme), size, text(&line.reason)]
        });
        self.table("Layer,Operator,Scheme,Size,Reason", rows);
        if folded {
            self.line("</details>");
        }
    }
}

fn check_row(check: &Check) -> Vec<String> {
    let sign = match check.bound {
        Bound::AtLeast => "≥",
        Bound::AtMost => "≤",
    };
    let limit = match check.unit {
        Unit::Flag => "yes".to_owned(),
        unit => format!("{sign} {}", figure(check.limit, unit)),
    };
    vec![
        text(&check.name),
        text(&check.subject),
        figure(check.value, check.unit),
        limit,
        if check.pass { "pass" } else { "**FAIL**" }.to_owned(),
        text(check.note.as_deref().unwrap_or_default()),
    ]
}

fn parity_row(output: &OutputParity) -> Vec<String> {
    let of = |pick: &dyn Fn(&FloatParity) -> Option<String>| {
        output.float.as_ref().and_then(pick).unwrap_or_else(|| NONE.to_owned())
    };
    vec![
        text(&output.name),
        text(&output.original.to_string()),
        output.elements.to_string(),
        of(&|float| Some(number(float.sqnr_db))),
        of(&|float| Some(number(float.max_abs_error))),
        of(&|float| Some(number(float.rmse))),
        of(&|float| Some(format!("{:.6}", float.cosine))),
        of(&|float| Some(percent(float.outside_tolerance))),
        of(&|float| float.top1.map(percent)),
        of(&|float| float.top5.map(percent)),
        of(&|float| Some(float.new_non_finite.to_string())),
        output.mismatches.map_or_else(|| NONE.to_owned(), |count| count.to_string()),
    ]
}

fn figure(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Decibels => format!("{} dB", number(value)),
        Unit::Times => format!("{}x", number(value)),
        Unit::Share => percent(value),
        Unit::Count | Unit::Output => number(value),
        Unit::Flag => if value >= 1.0 { "yes" } else { "no" }.to_owned(),
    }
}

/// At most four significant digits, whatever the size.
fn number(x: f64) -> String {
    let size = x.abs();
    if x.is_nan() {
        "none".to_owned()
    } else if x.is_infinite() {
        if x > 0.0 { "∞" } else { "−∞" }.to_owned()
    } else if x.fract() == 0.0 && size < 1e15 {
        format!("{x:.0}")
    } else if !(1e-3..1e4).contains(&size) {
        format!("{x:.2e}")
    } else {
        let decimals = 3 - size.log10().floor() as i32;
        let digits = format!("{x:.*}", usize::try_from(decimals).unwrap_or(0));
        digits.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

fn percent(share: f64) -> String {
    if share.is_nan() { "none".to_owned() } else { format!("{:.2} %", share * 100.0) }
}

fn bytes(count: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|&(size, _)| count >= size) {
        Some((size, unit)) => format!("{:.1} {unit}", count as f64 / size as f64),
        None => format!("{count} B"),
    }
}

/// Any text as one line that is no markup and stays inside its table cell.
///
/// Underscores within words, of which names are full, are no markup and stay legible.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    let mut in_word = false;
    while let Some(c) = chars.next() {
        let within = in_word && chars.peek().is_some_and(|next| next.is_alphanumeric());
        match c {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            _ if c.is_control() => out.push(' '),
            '\\' | '|' | '`' | '*' | '[' | ']' | '~' | '#' => out.extend(['\\', c]),
            '_' if !within => out.extend(['\\', c]),
            _ => out.push(c),
        }
        in_word = c.is_alphanumeric();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_in_its_cell() {
        assert_eq!(text("a|b\nc"), r"a\|b c");
        assert_eq!(text(r"\|"), r"\\\|");
        assert_eq!(text("<img src=x> `*"), r"&lt;img src=x> \`\*");
        assert_eq!(text("MatMul_output_0 __init__"), r"MatMul_output_0 \_\_init\_\_");
    }

    #[test]
    fn numbers_are_short() {
        let numbers =
            [0.0, 40.0, 41.234_56, 9.999_96, 1.05, -0.001_25, 1.23e-5, 1e20, f64::NEG_INFINITY];
        let written: Vec<_> = numbers.into_iter().map(number).collect();
        assert_eq!(
            written,
            ["0", "40", "41.23", "10", "1.05", "-0.00125", "1.23e-5", "1.00e20", "−∞"]
        );
        assert_eq!((number(f64::NAN), percent(f64::NAN)), ("none".into(), "none".into()));
        assert_eq!(
            [0, 999, 1_000, 98_700_000, 2_500_000_000].map(bytes).join(", "),
            "0 B, 999 B, 1.0 kB, 98.7 MB, 2.5 GB"
        );
    }
}
