//! What a search tried, and what layers cost.

use std::fmt::Write;
use std::path::Path;

use modelopt::report::{SearchEnd, Trial};
use modelopt::{Outcome, Ranked};

use super::notes::Notes;
use super::outcome::plain_number;
use super::runs::ran;
use super::{bytes, cell, decibels, indented, sharing, table, wrapped};

/// The trials of a search, where it took more than running the default plan and judging it.
pub(super) fn trials(outcome: &Outcome) -> String {
    let Some(end) = outcome.search_end else { return String::new() };
    if outcome.trials.len() <= 2 && end == SearchEnd::Found {
        return String::new();
    }
    let mut notes = Notes::default();
    // The verdict, which is the last, has a time where that was measured.
    let before = outcome.trials.split_last().map_or(&[][..], |(_, before)| before);
    let has_times = before.iter().any(|trial| trial.slowdown.is_some());
    let has_metric = outcome.trials.iter().any(|trial| trial.metric.is_some());
    let mut titles = vec!["trial", "SQNR", "size"];
    titles.extend(has_times.then_some("time"));
    titles.extend(has_metric.then_some("metric"));
    titles.extend(["result", "what was tried"]);
    let mut rows = table(&titles);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for (at, trial) in outcome.trials.iter().enumerate() {
        let mut cells =
            vec![(at + 1).to_string(), or_dash(trial.sqnr_db.map(decibels)), bytes(trial.bytes)];
        cells.extend(has_times.then(|| or_dash(trial.slowdown.map(|x| format!("{x:.2}x")))));
        cells.extend(has_metric.then(|| or_dash(trial.metric.map(plain_number))));
        cells.extend([result(trial, &mut notes), cell(&trial.what)]);
        rows.add_row(cells);
    }
    let figures: Vec<usize> = (0..titles.len() - 2).collect();
    let said = end.sentence(outcome.verdict.as_ref().is_none_or(|verdict| verdict.pass));
    format!("\n{}{}{}", indented(rows, &figures), notes.below(), wrapped("", said))
}

fn result(trial: &Trial, notes: &mut Notes) -> String {
    match &trial.failure {
        Some(failure) => notes.short("failed", failure),
        None if trial.pass => "pass".to_owned(),
        None => "fail".to_owned(),
    }
}

/// Where the best plan is, when nothing was written.
pub(crate) fn saved_plan(path: &Path) -> String {
    let path = path.display();
    format!("best plan: {path}; --plan {path} --no-gate carries it out all the same\n")
}

/// What `modelopt plan --sensitivity` prints.
pub(crate) fn sensitivity(ranked: &Ranked) -> String {
    let mut rows =
        table(&["gained without", "alone", "weights", "activation", "bytes", "scheme", "layer"]);
    let figure = |db: Option<f64>| db.map_or_else(|| "-".to_owned(), decibels);
    for entry in &ranked.layers {
        rows.add_row([
            figure(entry.gained_db),
            figure(entry.alone_db),
            figure(entry.layer_weights_db),
            figure(entry.layer_activation_db),
            bytes(entry.bytes),
            entry.scheme.clone(),
            sharing(&entry.layers),
        ]);
    }
    let mut text = String::new();
    if ranked.layers.is_empty() {
        text += "no layer is quantized under this plan\n";
        return text;
    }
    text += &indented(rows, &[0, 1, 2, 3, 4]);
    let _ = writeln!(
        text,
        "\n  SQNR: gained at the outputs when the layer is left out; at the outputs when it alone is\n  \
         quantized; at its own output with rounded weights, and with a rounded activation"
    );
    text + &ran(&ranked.runtime, ranked.samples)
}
