//! The comparison in GitHub's Markdown.

use std::cmp::Ordering;

use modelopt_validate::Bound;

use super::{Change, ChangeUnit, Outcome, Regression};
use crate::markdown::{Markdown, text};
use crate::table::{Cell, Column, Kind, Table};
use crate::wording::{self, NONE};

/// With more figures than this, those that are no regression are folded away.
const LONG: usize = 24;

impl Regression {
    /// The comparison for people, in GitHub's Markdown.
    pub fn to_markdown(&self) -> String {
        let mut out = Markdown::default();
        let failed = self.failures().count();
        let outcome = if self.pass { "no regression" } else { "regression" };
        out.line(&format!("## modelopt report: {outcome}\n"));
        let count = wording::counted(self.changes.len(), "figure");
        out.line(&match failed {
            0 => format!("{count} compared with the baseline.\n"),
            _ => format!("{failed} of {count} worse than the baseline allows.\n"),
        });
        let notes = self.notes.iter();
        out.lines(notes.map(|note| format!("> **Not quite comparable:** {}\n", text(note))));
        if self.changes.len() <= LONG {
            out.section("Figures", &table(self.changes.iter()));
        } else {
            out.section("Worse", &table(self.failures()));
            let fine = self.changes.iter().filter(|change| change.outcome != Outcome::Fail);
            out.folded("Other figures", &table(fine));
        }
        out.finish()
    }
}

fn table<'a>(changes: impl Iterator<Item = &'a Change>) -> Table {
    let columns = [
        ("Figure", Kind::Word),
        ("Of", Kind::Name),
        ("Baseline", Kind::Figure),
        ("Now", Kind::Figure),
        ("Limit", Kind::Figure),
        ("Result", Kind::Mark),
        ("Note", Kind::Prose),
    ];
    let columns = columns.map(|(title, kind)| Column { title, kind });
    Table { columns: columns.to_vec(), rows: changes.map(row).collect() }
}

fn row(change: &Change) -> Vec<Cell> {
    let of = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), |x| figure(x, change.unit));
    let (result, good) = match change.outcome {
        Outcome::Pass => ("pass", Some(true)),
        Outcome::Fail => ("FAIL", Some(false)),
        Outcome::NotJudged => (NONE, None),
    };
    vec![
        (&change.name).into(),
        (&change.subject).into(),
        of(change.old).into(),
        format!("{}{}", of(change.new), growth(change, change.new)).into(),
        limit(change).into(),
        Cell { good, ..Cell::from(result) },
        change.note.as_deref().unwrap_or_default().into(),
    ]
}

fn limit(change: &Change) -> String {
    let sign = match change.bound {
        Bound::AtLeast => "≥",
        Bound::AtMost => "≤",
    };
    match (change.limit, change.unit) {
        (None, _) => NONE.to_owned(),
        (Some(limit), ChangeUnit::Flag) => figure(limit, ChangeUnit::Flag),
        (Some(limit), unit) => {
            format!("{sign} {}{}", figure(limit, unit), growth(change, change.limit))
        }
    }
}

fn figure(value: f64, unit: ChangeUnit) -> String {
    match unit {
        ChangeUnit::Bytes => wording::bytes(value as u64),
        ChangeUnit::Milliseconds => wording::milliseconds(value),
        ChangeUnit::Decibels => wording::decibels(value),
        ChangeUnit::Times => wording::times(value),
        ChangeUnit::Share => wording::percent(value),
        ChangeUnit::Count | ChangeUnit::Output => wording::number(value),
        ChangeUnit::Flag => if value >= 1.0 { "yes" } else { "no" }.to_owned(),
    }
}

/// Like ` (+1.25 %)`, for figures too round to show so little.
fn growth(change: &Change, value: Option<f64>) -> String {
    let (Some(old), Some(value)) = (change.old, value) else { return String::new() };
    let sign = match value.total_cmp(&old) {
        Ordering::Less => "",
        Ordering::Equal => return String::new(),
        Ordering::Greater => "+",
    };
    match change.unit {
        ChangeUnit::Bytes | ChangeUnit::Milliseconds if old > 0.0 => {
            format!(" ({sign}{})", wording::percent(value / old - 1.0))
        }
        _ => String::new(),
    }
}
