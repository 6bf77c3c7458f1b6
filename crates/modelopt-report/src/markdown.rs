//! The document in GitHub's Markdown.

use std::fmt::Write as _;

use crate::table::{Cell, Column, Kind, Table};
use crate::{Document, table, wording};

/// Tables beyond this many rows are folded away.
const LONG: usize = 12;
/// Longest text of one table, in bytes: GitHub drops step summaries above 1 MiB.
const TABLE_BYTES: usize = 90_000;
/// Longest text of one cell, in characters.
const CELL_CHARS: usize = 300;
/// Longest prose in a cell of a table with several columns, in characters; longer goes below.
const LONGEST_PROSE: usize = 90;
/// Most warnings, and most limits that were not judged.
const MOST_LINES: usize = 20;

pub(crate) fn render(document: &Document) -> String {
    let mut out = Markdown::default();
    out.title(document);
    out.table(&table::facts(document));
    let warnings = document.warnings.iter();
    out.lines(warnings.map(|warning| format!("> **Warning:** {}\n", text(warning))));
    out.verdict(document);
    out.metric(document);
    out.section("Worst layers, each changed alone", &table::culprits(&document.culprits));
    out.section("Layers that became slower", &table::slow_layers(&document.slow_layers));
    out.section("Runtimes", &table::runs(&document.runs));
    if let Some(parity) = document.runs.first().and_then(|run| run.parity.as_ref()) {
        out.section("Parity", &table::parity(parity));
        for (title, table) in
            [("Parts", table::parts(parity)), ("Choices", table::decisions(parity))]
        {
            if let Some(table) = &table {
                out.section(title, table);
            }
        }
    }
    out.search(document);
    out.regions(document);
    out.plan(document);
    out.section("Provenance", &table::provenance(document, wording::short_digest));
    out.finish()
}

#[derive(Default)]
pub(crate) struct Markdown(String);

impl Markdown {
    /// All that was written, with one newline at the end.
    pub(crate) fn finish(mut self) -> String {
        let length = self.0.trim_end().len();
        self.0.truncate(length);
        self.0.push('\n');
        self.0
    }

    pub(crate) fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    pub(crate) fn lines(&mut self, lines: impl ExactSizeIterator<Item = String>) {
        let left_out = lines.len().saturating_sub(MOST_LINES);
        for line in lines.take(MOST_LINES) {
            self.line(&line);
        }
        if left_out > 0 {
            self.line(&format!("{left_out} more in the JSON report.\n"));
        }
    }

    fn title(&mut self, document: &Document) {
        let outcome = match &document.verdict {
            None => String::new(),
            verdict => format!(": {}", wording::outcome(verdict.as_ref())),
        };
        self.line(&format!("## modelopt {}{outcome}\n", text(&document.command)));
    }

    fn verdict(&mut self, document: &Document) {
        let Some(verdict) = &document.verdict else { return };
        self.line("### Verdict\n");
        self.line(&format!("{}\n", wording::outcome_sentence(Some(verdict))));
        let (shown, folded) = table::checks(verdict);
        if !shown.rows.is_empty() {
            self.table(&shown);
        }
        if let Some(folded) = folded {
            let count = wording::counted(folded.rows.len(), "check");
            self.folded(&format!("{count} passed"), &folded);
        }
        let left = verdict.unjudged.iter();
        self.lines(left.map(|left| {
            format!("Not judged: {} ({}).\n", text(&left.name), text(&left.reason.to_string()))
        }));
    }

    fn metric(&mut self, document: &Document) {
        if let Some(change) = &document.metric {
            self.section("Metric", &table::metric(change));
        }
    }

    fn search(&mut self, document: &Document) {
        let trials = table::trials(&document.trials);
        if let Some(sentence) = wording::search_end(document) {
            self.line("### Search\n");
            self.line(&format!("{sentence}\n"));
            self.table(&trials);
        }
        let sensitivity = table::sensitivity(&document.sensitivity);
        if !sensitivity.rows.is_empty() {
            self.line("### Sensitivity\n");
            self.folded(&wording::counted(sensitivity.rows.len(), "layer"), &sensitivity);
        }
    }

    /// What computes on integers by ranges.
    fn regions(&mut self, document: &Document) {
        self.section("Regions on integers", &table::regions(&document.regions));
        let ends = table::region_ends(&document.regions);
        if !ends.rows.is_empty() {
            self.folded("Where they begin and end, and why", &ends);
        }
        self.long("Ranges of tensors", &table::ranges(&document.ranges), "tensor");
    }

    fn plan(&mut self, document: &Document) {
        self.long("Plan", &table::plan(&document.plan), "layer");
    }

    /// A section, folded away where it is long.
    fn long(&mut self, title: &str, table: &Table, noun: &str) {
        if table.rows.len() <= LONG {
            return self.section(title, table);
        }
        self.line(&format!("### {title}\n"));
        self.folded(&wording::counted(table.rows.len(), noun), table);
    }

    pub(crate) fn section(&mut self, title: &str, table: &Table) {
        if !table.rows.is_empty() {
            self.line(&format!("### {title}\n"));
            self.table(table);
        }
    }

    pub(crate) fn folded(&mut self, summary: &str, table: &Table) {
        self.line(&format!("<details><summary>{summary}</summary>\n"));
        self.table(table);
        self.line("</details>\n");
    }

    fn table(&mut self, table: &Table) {
        let titles: Vec<_> = table.columns.iter().map(|column| column.title).collect();
        self.line(&format!("| {} |", titles.join(" | ")));
        let rules = table.columns.iter().map(|column| match column.kind {
            Kind::Figure => " ---: |",
            _ => " --- |",
        });
        self.line(&format!("|{}", rules.collect::<String>()));
        let end = self.0.len() + TABLE_BYTES;
        let mut notes: Vec<&str> = Vec::new();
        for (at, row) in table.rows.iter().enumerate() {
            if self.0.len() + notes.iter().map(|note| note.len()).sum::<usize>() > end {
                let left_out = table.rows.len() - at;
                self.line(&format!("\n{left_out} more rows are in the JSON report."));
                break;
            }
            self.row(row, &table.columns, &mut notes);
        }
        self.line("");
        if !notes.is_empty() {
            for (at, note) in notes.iter().enumerate() {
                self.line(&format!("{}. {}", at + 1, text(note)));
            }
            self.line("");
        }
    }

    /// Long prose goes to the notes below the table, and its number to the cell.
    fn row<'a>(&mut self, row: &'a [Cell], columns: &[Column], notes: &mut Vec<&'a str>) {
        self.0.push('|');
        for (cell, column) in row.iter().zip(columns) {
            let prose = matches!(column.kind, Kind::Prose | Kind::Mark) && columns.len() > 2;
            let text = if prose && cell.text.chars().count() > LONGEST_PROSE {
                let known = notes.iter().position(|note| *note == cell.text);
                let at = known.unwrap_or_else(|| {
                    notes.push(&cell.text);
                    notes.len() - 1
                });
                format!("see {} below", at + 1)
            } else {
                text(&cell.text)
            };
            let marked = if cell.good == Some(false) { format!("**{text}**") } else { text };
            // Writing to a string cannot fail.
            let _ = write!(self.0, " {marked} |");
        }
        self.line("");
    }
}

/// Any text as one line that is no markup and stays inside its table cell.
///
/// Underscores within words, of which names are full, are no markup and stay legible.
pub(crate) fn text(raw: &str) -> String {
    let raw = wording::shortened(raw, CELL_CHARS);
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
}
