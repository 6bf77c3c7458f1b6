//! What the program makes of the real models: measured, kept as `docs/results.json`, and shown in
//! README's tables, where no figure is written by hand.
//!
//! Candidates are made from the realistic samples and judged on the held-out ones as well, which no
//! search saw. Times are ratios of candidate to original, measured in turn on one machine, which the
//! file names by its processor.

pub(crate) mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{program, readme, testdata};

/// The ways that are measured, with their arguments. What float16 costs is shown, not judged.
const WAYS: [(&str, &[&str]); 3] = [
    ("quantize", &["quantize"]),
    ("fp16", &["convert", "--to", "fp16", "--max-slowdown", "1000"]),
    ("fp16-weights", &["convert", "--to", "fp16-weights"]),
];

/// Everything that was measured in one go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Results {
    modelopt: String,
    runtime: String,
    machine: Machine,
    /// By way, then in the order of the test models.
    ways: BTreeMap<String, Vec<Row>>,
}

/// Where it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) threads: usize,
    pub(crate) platform: String,
}

/// What came of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    /// Name of the test model.
    model: String,
    original_bytes: u64,
    candidate_bytes: u64,
    /// How many lines of the plan have each scheme.
    schemes: BTreeMap<String, usize>,
    /// The worst part of the worst output on the worst sample, in dB; none where nothing differs.
    sqnr_db: Option<f64>,
    /// The same on the samples that nothing was tuned on.
    heldout_sqnr_db: Option<f64>,
    /// Candidate to original; below 1 it is faster.
    time_ratio: f64,
    /// Plans that were run and judged.
    trials: usize,
}

/// Measures everything, writes the file and README's tables.
///
/// # Errors
/// If the program refuses a model, or README has no place for a table.
pub fn measure() -> Result<()> {
    let program = program::program()?;
    let folder = testdata::target_dir().join("results");
    fs::create_dir_all(&folder)?;
    let mut ways = BTreeMap::new();
    let mut last = None;
    for (way, arguments) in WAYS {
        let mut rows = Vec::new();
        for model in testdata::MODELS {
            eprintln!("{way}: {model}");
            let output = folder.join(format!("{model}.{way}.onnx"));
            let document = made(&program, arguments, model, &output)?;
            rows.push(row(model, &document, &compared(&program, model, &output)?)?);
            last = Some(document);
        }
        ways.insert(way.to_owned(), rows);
    }
    let document = last.context("there are no models")?;
    let results = Results {
        modelopt: text(&document["tool_version"])?,
        runtime: format!("onnxruntime {}", text(&document["runs"][0]["runtime"]["version"])?),
        machine: serde_json::from_value(document["machine"].clone())?,
        ways,
    };
    fs::write(file(), serde_json::to_string_pretty(&results)? + "\n")?;
    let readme = fs::read_to_string(readme::path())?;
    fs::write(readme::path(), tables::put(&readme, &results)?)?;
    eprintln!("written: docs/results.json and the tables of README.md");
    Ok(())
}

/// Holds README's tables against the file.
///
/// # Errors
/// If they are not what `cargo xtask results` would write.
pub fn check() -> Result<()> {
    let results: Results = serde_json::from_str(&fs::read_to_string(file())?)?;
    let readme = fs::read_to_string(readme::path())?;
    let same = tables::put(&readme, &results)? == readme;
    ensure!(same, "README's tables are not those of docs/results.json; run `cargo xtask results`");
    eprintln!("results: README says what docs/results.json does");
    Ok(())
}

fn file() -> PathBuf {
    testdata::workspace_root().join("docs/results.json")
}

/// The report on making a candidate.
fn made(program: &Path, arguments: &[&str], model: &str, output: &Path) -> Result<Value> {
    let mut command = Command::new(program);
    command.args(arguments).arg(testdata::model(model)).arg("-o").arg(output);
    command.arg("--samples").arg(testdata::samples(model));
    let document = report(command).with_context(|| model.to_owned())?;
    ensure!(document["candidate"].is_object(), "{model} is refused: {}", document["verdict"]);
    Ok(document)
}

/// The report on a candidate and the held-out samples, whatever its verdict.
fn compared(program: &Path, model: &str, candidate: &Path) -> Result<Value> {
    let mut command = Command::new(program);
    command.arg("compare").arg(testdata::model(model)).arg(candidate).arg("--no-latency");
    command.arg("--samples").arg(testdata::heldout(model));
    report(command).with_context(|| model.to_owned())
}

/// The program's report in JSON, on what it did in onnxruntime.
pub(crate) fn report(mut command: Command) -> Result<Value> {
    command.args(["--json", "--runtime", "onnxruntime"]).stdin(Stdio::null());
    command.env("PATH", program::path_with_python()?).env_remove("ORT_DYLIB_PATH");
    let output = command.output().context("cannot start the program")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // A verdict that failed is a report too.
    ensure!(matches!(output.status.code(), Some(0 | 3)), "{}: {stderr}", output.status);
    serde_json::from_slice(&output.stdout).context("no report")
}

fn row(model: &str, made: &Value, compared: &Value) -> Result<Row> {
    let bytes = |name: &str| made["size"][name].as_u64().context("no size");
    let mut schemes = BTreeMap::new();
    for line in made["plan"].as_array().context("no plan")? {
        *schemes.entry(text(&line["scheme"])?).or_insert(0) += 1;
    }
    Ok(Row {
        model: model.to_owned(),
        original_bytes: bytes("original_bytes")?,
        candidate_bytes: bytes("candidate_bytes")?,
        schemes,
        sqnr_db: worst_sqnr_db(made)?,
        heldout_sqnr_db: worst_sqnr_db(compared)?,
        time_ratio: made["runs"][0]["latency"]["ratio_median"].as_f64().context("no latency")?,
        trials: made["trials"].as_array().map_or(0, Vec::len),
    })
}

/// The lowest SQNR that was judged; none where all were infinite, which JSON has no number for.
pub(crate) fn worst_sqnr_db(document: &Value) -> Result<Option<f64>> {
    let checks = document["verdict"]["checks"].as_array().context("nothing was judged")?;
    let judged: Vec<&Value> = checks.iter().filter(|check| check["name"] == "sqnr").collect();
    ensure!(!judged.is_empty(), "no SQNR was judged");
    Ok(judged.iter().filter_map(|check| check["value"].as_f64()).reduce(f64::min))
}

pub(crate) fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().context("a text is missing in the report")?.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{row, worst_sqnr_db};

    #[test]
    fn a_row_is_what_the_reports_say() {
        let made = json!({
            "size": { "original_bytes": 400, "candidate_bytes": 100 },
            "plan": [{ "scheme": "keep" }, { "scheme": "fp16" }, { "scheme": "keep" }],
            "verdict": { "checks": [
                { "name": "sqnr", "value": 31.0 },
                { "name": "slowdown", "value": 1.0 },
                { "name": "sqnr", "value": 25.0 },
            ] },
            "runs": [{ "latency": { "ratio_median": 0.5 } }],
            "trials": [{}, {}],
        });
        let compared = json!({ "verdict": { "checks": [{ "name": "sqnr", "value": 22.0 }] } });
        let row = row("det", &made, &compared).unwrap();
        assert_eq!((row.original_bytes, row.candidate_bytes, row.trials), (400, 100, 2));
        assert_eq!((row.sqnr_db, row.heldout_sqnr_db), (Some(25.0), Some(22.0)));
        assert_eq!((row.schemes["keep"], row.schemes["fp16"]), (2, 1));
    }

    #[test]
    fn a_report_without_a_judgement_is_no_result() {
        assert!(worst_sqnr_db(&json!({ "verdict": null })).is_err());
        assert!(worst_sqnr_db(&json!({ "verdict": { "checks": [] } })).is_err());
        let equal = json!({ "verdict": { "checks": [{ "name": "sqnr", "value": "Infinity" }] } });
        assert_eq!(worst_sqnr_db(&equal).unwrap(), None);
    }
}
