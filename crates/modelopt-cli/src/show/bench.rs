//! Times of `modelopt bench`.

use modelopt::BenchRow;

use super::notes::Notes;
use super::{bytes, cell, indented, milliseconds, name, table};

/// What `modelopt bench` prints.
pub(crate) fn bench(rows: &[BenchRow]) -> String {
    let sizes = rows.iter().any(|row| !row.dims.is_empty());
    let mut header = vec!["model", "runtime", "threads"];
    header.extend(sizes.then_some("sizes"));
    header.extend(["p50", "p90", "p99", "per second", "load", "peak memory"]);
    let mut shown = table(&header);
    let mut notes = Notes::default();
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
            None => cells.push(notes.short("failed", row.failure.as_deref().unwrap_or("-"))),
        }
        shown.add_row(cells);
    }
    let first = header.len() - 6;
    indented(shown, &(first..header.len()).collect::<Vec<_>>()) + &notes.below()
}
