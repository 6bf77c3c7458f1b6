//! Where models ran, and how long they took.

use modelopt::report::{Run, RuntimeUsed, SampleKind, Samples};
use modelopt::validate::{Reason, Verdict};

use super::notes::Notes;
use super::{bytes, cell, decibels, indented, milliseconds, name, plural, table, wrapped};

/// Times in each runtime, where they were measured.
pub(super) fn latency(runs: &[Run]) -> String {
    if runs.iter().all(|run| run.latency.is_none() && run.failure.is_none()) && runs.len() < 2 {
        return String::new();
    }
    let mut rows =
        table(&["runtime", "time", "", "", "ratio", "interval", "load", "peak memory", "SQNR"]);
    let mut notes = Notes::default();
    for run in runs {
        let mut cells = vec![name(&run.runtime)];
        if let Some(failure) = &run.failure {
            cells.push(notes.short("failed", failure));
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
        let floats = run.parity.iter().flat_map(modelopt::validate::Parity::judged);
        let worst = floats.filter_map(|output| output.float.as_ref()).map(|float| float.sqnr_db);
        cells.push(worst.min_by(f64::total_cmp).map_or_else(|| "-".to_owned(), decibels));
        rows.add_row(cells);
    }
    format!("\n{}{}", indented(rows, &[1, 3, 4, 5, 6, 7, 8]), notes.below())
}

/// Where and on what models ran.
pub(super) fn ran(runtime: &RuntimeUsed, samples: Samples) -> String {
    let threads = match runtime.threads {
        0 => "all threads".to_owned(),
        count => format!("{count} thread{}", plural(count)),
    };
    let kind = match samples.kind {
        SampleKind::Real => "real",
        SampleKind::Synthetic => "invented",
        SampleKind::Mixed => "real and invented",
    };
    let library = runtime.library.as_ref();
    let library = library.map_or(String::new(), |file| format!(" ({})", cell(file.as_str())));
    let how = runtime.how.as_ref().map_or(String::new(), |how| format!(", {}", cell(how)));
    let line = format!(
        "\n  ran in {}{library}{how} with {threads} on {} {kind} sample{}\n",
        name(runtime),
        samples.count,
        plural(samples.count),
    );
    line + &wrapped("", &format!("({})", cell(&runtime.reason))) + &split(samples)
}

/// How samples were split, where they were.
fn split(samples: Samples) -> String {
    let Some(others) = samples.calibrating else { return String::new() };
    let judged = match samples.count {
        1 => "1 other".to_owned(),
        count => format!("{count} others"),
    };
    format!("  calibrated on {others} sample{}, judged on {judged}\n", plural(others))
}

/// Says what to do about limits that were not judged, in flags.
pub(crate) fn say_reasons(verdict: &mut Verdict) {
    for left in &mut verdict.unjudged {
        if let Reason::NoTarget { .. } = left.reason {
            let said = format!("{}: --runtime says where the model will run", left.reason);
            left.reason = Reason::Said(said);
        }
    }
}

pub(super) fn unjudged(verdict: Option<&Verdict>) -> String {
    let left = verdict.iter().flat_map(|verdict| &verdict.unjudged);
    left.fold(String::new(), |text, left| {
        text + &wrapped("not judged: ", &format!("{} ({})", left.name, left.reason))
    })
}
