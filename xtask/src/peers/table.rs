//! README's table of the program beside other tools.

use std::fmt::Write;

use anyhow::{Result, ensure};

use super::{Candidate, DIGITS, Figures, Outcome, Peers, Row, makers};
use crate::readme::replaced;
use crate::results::tables;

/// README with its table written anew.
pub(super) fn put(readme: &str, peers: &Peers) -> Result<String> {
    replaced(readme, "peers", &of(peers)?)
}

/// What was measured, in Markdown: where, the table, and how many pass by way.
pub(super) fn of(peers: &Peers) -> Result<String> {
    let mut text = format!(
        "Measured with modelopt {}, onnxruntime {} and NNCF {} on {}.\n\n",
        peers.modelopt, peers.onnxruntime, peers.nncf, peers.machine.cpu
    );
    text += "| model |";
    for way in &makers::WAYS {
        let _ = write!(text, " {} |", way.name);
    }
    let _ = writeln!(text, "\n|---{}|", "|---".repeat(makers::WAYS.len()));
    for row in &peers.rows {
        ensure!(has_all_ways(row), "{} was not measured in all ways", row.model);
        let size = tables::bytes(row.original_bytes);
        let _ =
            write!(text, "| {}, {}, {size} |", title(&row.model), milliseconds(row.original_ms));
        for candidate in &row.candidates {
            let _ = write!(text, " {} |", cell(candidate));
        }
        text.push('\n');
    }
    text += "| pass |";
    for place in 0..makers::WAYS.len() {
        let passing = peers.rows.iter().filter(|row| passes(&row.candidates[place])).count();
        let _ = write!(text, " {passing} of {} |", peers.rows.len());
    }
    text.push('\n');
    Ok(text)
}

fn has_all_ways(row: &Row) -> bool {
    row.candidates.iter().map(|one| one.way.as_str()).eq(makers::WAYS.iter().map(|way| way.name))
}

/// Whether a user could ship it.
fn passes(candidate: &Candidate) -> bool {
    matches!(&candidate.outcome, Outcome::Measured(figures) if figures.failed.is_empty())
}

/// Speed, closeness, size; a cross where the gate fails.
fn cell(candidate: &Candidate) -> String {
    match &candidate.outcome {
        Outcome::NotMade(_) => "✗ not made".to_owned(),
        Outcome::NotRun(_) => "✗ does not run".to_owned(),
        Outcome::Measured(figures) => {
            let mark = if figures.failed.is_empty() { "" } else { "✗ " };
            let size = tables::bytes(figures.bytes);
            format!("{mark}{:.2}x, {}, {size}", figures.speed, decibels(figures))
        }
    }
}

/// The worst part, rounded down, so that what misses a limit does not look as if it met it; a ratio
/// below 0 says no more than that nothing is left of the signal.
fn decibels(figures: &Figures) -> String {
    match figures.part_sqnr_db {
        None => "equal".to_owned(),
        Some(db) if db < 0.0 => "< 0 dB".to_owned(),
        Some(db) => format!("{:.1} dB", (db * 10.0).floor() / 10.0),
    }
}

fn title(model: &str) -> &str {
    if model == DIGITS { "Digits (batch of 64)" } else { tables::title(model) }
}

fn milliseconds(time: f64) -> String {
    let decimals = if time < 10.0 { 2 } else { 1 };
    format!("{time:.decimals$} ms")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{figures, planted};
    use super::super::{Candidate, Peers};
    use super::{cell, milliseconds, of, put};

    const README: &str = "# x\n<!-- results: peers -->old<!-- end: peers -->\nrest\n";

    #[test]
    fn the_table_says_what_was_measured() {
        let text = of(&planted()).unwrap();
        assert!(
            text.starts_with(
                "Measured with modelopt 1.2.3, onnxruntime 9.1 and NNCF 8.2 on a CPU."
            )
        );
        let theirs = "✗ 1.70x, 19.9 dB, 1.50 MB";
        let det = format!(
            "| PP-OCRv4 text detector, 17.6 ms, 12.2 MB | {theirs} | {theirs} | {theirs} | {theirs} \
             | 1.50x, 21.0 dB, 1.50 MB |\n"
        );
        assert!(text.contains(&det), "{text}");
        assert!(text.contains("| ✗ does not run | ✗ 0.90x, equal, 1.50 MB |\n"), "{text}");
        assert!(text.contains("| 1.20x, 34.5 dB, 1.50 MB | ✗ not made |\n"), "{text}");
        assert!(text.ends_with("| pass | 1 of 3 | 1 of 3 | 1 of 3 | 1 of 3 | 1 of 3 |\n"));
    }

    #[test]
    fn a_table_takes_the_place_of_the_old_one_and_a_touched_figure_is_seen() {
        let readme = put(README, &planted()).unwrap();
        assert!(!readme.contains("old") && readme.ends_with("<!-- end: peers -->\nrest\n"));
        assert_eq!(put(&readme, &planted()).unwrap(), readme);
        let touched = readme.replace("21.0 dB", "31.0 dB");
        assert_ne!(put(&touched, &planted()).unwrap(), touched);
        assert!(put("# no place", &planted()).is_err());
    }

    #[test]
    fn a_row_that_lacks_a_tool_is_no_table() {
        let mut peers: Peers = planted();
        peers.rows[0].candidates.remove(1);
        assert!(of(&peers).unwrap_err().to_string().contains("det"));
    }

    #[test]
    fn a_destroyed_model_has_no_ratio() {
        let outcome = figures(1.3, Some(-15.0), &["sqnr"]);
        let way = String::new();
        let candidate = Candidate { way, notes: Vec::new(), seconds: 1.0, outcome };
        assert_eq!(cell(&candidate), "✗ 1.30x, < 0 dB, 1.50 MB");
        assert_eq!([0.0661, 132.41].map(milliseconds), ["0.07 ms", "132.4 ms"]);
    }
}
