//! README's tables of what comes of the real models.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};

use super::{Results, Row};
use crate::readme::replaced;

/// README with its tables written anew.
pub(super) fn put(readme: &str, results: &Results) -> Result<String> {
    let rows = |way: &str| results.ways.get(way).with_context(|| format!("{way} was not measured"));
    let machine = &results.machine;
    let measured = format!(
        "Measured with modelopt {} and {} on {} with {} threads.\n",
        results.modelopt, results.runtime, machine.cpu, machine.threads
    );
    let readme = replaced(readme, "measured", &measured)?;
    let readme = replaced(&readme, "quantize", &quantized(rows("quantize")?))?;
    replaced(&readme, "convert", &converted(rows("fp16")?, rows("fp16-weights")?)?)
}

fn quantized(rows: &[Row]) -> String {
    let mut table =
        "| model | size | | static / dynamic / int8 / 16 bits / kept | SQNR | held out | time | trials |\n\
                     |---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in rows {
        let count = |scheme: &str| row.schemes.get(scheme).copied().unwrap_or(0);
        let named = ["int8-static", "int8-dynamic", "int8-weights", "keep"].map(count);
        let others = row.schemes.values().sum::<usize>() - named.iter().sum::<usize>();
        let [by_ranges, dynamic, int8, kept] = named;
        let _ = writeln!(
            table,
            "| {} | {} | {} | {by_ranges} / {dynamic} / {int8} / {others} / {kept} | {} | {} | {} | {} |",
            title(&row.model),
            sizes(row),
            shrink(row),
            decibels(row.sqnr_db),
            decibels(row.heldout_sqnr_db),
            ratio(row.time_ratio),
            row.trials,
        );
    }
    table
}

/// Both ways of 16 bits beside each other.
fn converted(computed: &[Row], stored: &[Row]) -> Result<String> {
    let mut table = "| model | fp16 | | float16 / only weights / float32 | SQNR | held out | time | fp16-weights | SQNR | time |\n\
                     |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    ensure!(computed.len() == stored.len(), "both ways have the same models");
    for (row, weights) in computed.iter().zip(stored) {
        ensure!(row.model == weights.model, "both ways have the same models");
        let count = |scheme: &str| row.schemes.get(scheme).copied().unwrap_or(0);
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} / {} / {} | {} | {} | {} | {}, {} | {} | {} |",
            title(&row.model),
            sizes(row),
            shrink(row),
            count("fp16"),
            count("fp16-weights"),
            count("keep"),
            decibels(row.sqnr_db),
            decibels(row.heldout_sqnr_db),
            ratio(row.time_ratio),
            bytes(weights.candidate_bytes),
            shrink(weights),
            decibels(weights.sqnr_db),
            ratio(weights.time_ratio),
        );
    }
    Ok(table)
}

/// What a test model is.
pub(crate) fn title(model: &str) -> &str {
    match model {
        "cls" => "PaddleOCR direction classifier",
        "silero_vad_16k_op15" => "Silero VAD, 16 kHz, opset 15",
        "silero_vad" => "Silero VAD",
        "magika" => "Magika 3.3",
        "det" => "PP-OCRv4 text detector",
        "rec" => "PP-OCRv4 text recogniser",
        "nudenet" => "NudeNet (detector of the YOLO class)",
        "rxnmap" => "rxnmap (transformer)",
        other => other,
    }
}

fn sizes(row: &Row) -> String {
    format!("{} → {}", bytes(row.original_bytes), bytes(row.candidate_bytes))
}

/// Three digits, in kB below a megabyte.
pub(crate) fn bytes(bytes: u64) -> String {
    let (value, unit) =
        if bytes < 1_000_000 { (bytes as f64 / 1e3, "kB") } else { (bytes as f64 / 1e6, "MB") };
    let decimals = match value {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

fn shrink(row: &Row) -> String {
    format!("{:.2}x", row.original_bytes as f64 / row.candidate_bytes.max(1) as f64)
}

fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}x")
}

fn decibels(db: Option<f64>) -> String {
    db.map_or_else(|| "equal".to_owned(), |db| format!("{db:.1} dB"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Machine, Results, Row};
    use super::{bytes, put};

    const README: &str = "# x\n<!-- results: measured --><!-- end: measured -->\n\
        <!-- results: quantize -->old<!-- end: quantize -->\ntext\n\
        <!-- results: convert --><!-- end: convert -->\nrest\n";

    fn results() -> Results {
        let row = Row {
            model: "det".into(),
            original_bytes: 4_750_000,
            candidate_bytes: 1_330_000,
            schemes: [
                ("keep", 3),
                ("fp16", 2),
                ("int8-static", 6),
                ("int8-weights", 4),
                ("fp16-weights", 1),
            ]
            .map(|(scheme, count)| (scheme.to_owned(), count))
            .into(),
            sqnr_db: Some(20.84),
            heldout_sqnr_db: None,
            time_ratio: 0.217,
            trials: 5,
        };
        let ways = ["quantize", "fp16", "fp16-weights"];
        Results {
            modelopt: "1.2.3".into(),
            runtime: "onnxruntime 9".into(),
            machine: Machine { cpu: "a CPU".into(), threads: 2, platform: "p".into() },
            ways: ways.map(|way| (way.to_owned(), vec![row.clone()])).into(),
        }
    }

    #[test]
    fn tables_take_the_place_of_old_ones_and_the_text_stays() {
        let readme = put(README, &results()).unwrap();
        assert!(readme.contains("modelopt 1.2.3 and onnxruntime 9 on a CPU with 2 threads."));
        let row = "| PP-OCRv4 text detector | 4.75 MB → 1.33 MB | 3.57x | 6 / 0 / 4 / 3 / 3 | 20.8 dB \
                   | equal | 0.22x | 5 |";
        assert!(readme.contains(row), "{readme}");
        assert!(readme.contains("| 2 / 1 / 3 | 20.8 dB | equal | 0.22x | 1.33 MB, 3.57x |"));
        assert!(!readme.contains("old") && readme.contains("\ntext\n"));
        assert!(readme.ends_with("<!-- end: convert -->\nrest\n"));
        assert_eq!(put(&readme, &results()).unwrap(), readme, "writing again changes nothing");
    }

    #[test]
    fn a_figure_that_was_changed_by_hand_is_seen() {
        let readme = put(README, &results()).unwrap();
        let touched = readme.replace("20.8 dB", "30.8 dB");
        assert_ne!(put(&touched, &results()).unwrap(), touched);
    }

    #[test]
    fn what_has_no_place_or_was_not_measured_is_an_error() {
        assert!(put("# no marks", &results()).is_err());
        let empty = Results { ways: BTreeMap::new(), ..results() };
        assert!(put(README, &empty).is_err());
    }

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!([586_123, 4_751_000, 84_800_000].map(bytes), ["586 kB", "4.75 MB", "84.8 MB"]);
    }
}
