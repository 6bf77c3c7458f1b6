//! Static int8 by other tools beside the program: onnxruntime's quantizer and NNCF, in an
//! environment of their own, on the same models with the same samples, in one run.
//!
//! What was made is timed in turn by a script that knows onnxruntime and nothing of the program,
//! and judged as the program judges, on samples that no tool was given. What was found is kept as
//! `docs/peers.json` and shown in README's table.

mod makers;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::results::Machine;
use crate::{oracle, readme, setup, testdata};

/// How long the models of one row are timed for at least.
const SECONDS: f64 = 8.0;
/// What a candidate's time may be of the original's, as the program's gate has it.
const MAX_SLOWDOWN: f64 = 1.05;
/// The small trained fixture beside the test models; its samples are batches of 64.
const DIGITS: &str = "digits";

/// Everything that was measured in one go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Peers {
    modelopt: String,
    onnxruntime: String,
    nncf: String,
    machine: Machine,
    rows: Vec<Row>,
}

/// One model and what the tools made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    model: String,
    original_ms: f64,
    original_bytes: u64,
    /// Samples that tools were given.
    given: usize,
    /// Samples that they were measured on.
    heldout: usize,
    /// In the order of [`makers::WAYS`].
    candidates: Vec<Candidate>,
}

/// What one tool made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Candidate {
    way: String,
    /// What had to be done to the model by hand.
    notes: Vec<String>,
    /// How long the tool took.
    seconds: f64,
    outcome: Outcome,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// The tool gave up.
    NotMade(String),
    /// onnxruntime does not load or run what it made.
    NotRun(String),
    Measured(Figures),
}

/// What was measured of a model that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Figures {
    bytes: u64,
    /// Original time / candidate time, above 1 where it is faster: median over rounds.
    speed: f64,
    /// The interval that holds the true median in 99 of 100 cases.
    speed_low: f64,
    speed_high: f64,
    rounds: usize,
    /// The worst output as a whole, by numpy; ±999 where there is no ratio.
    whole_sqnr_db: f64,
    /// The worst part of the worst output, as the program judges; none where nothing differs.
    part_sqnr_db: Option<f64>,
    /// The checks of the gate that it fails.
    failed: Vec<String>,
}

/// What a model is measured with.
#[derive(Debug)]
struct Subject {
    name: &'static str,
    model: PathBuf,
    given: PathBuf,
    heldout: PathBuf,
}

#[derive(Serialize)]
struct TimingJob<'a> {
    original: &'a Path,
    candidates: Vec<&'a Path>,
    samples: Vec<PathBuf>,
    seconds: f64,
}

#[derive(Deserialize)]
struct TimingAnswer {
    original_ms: f64,
    candidates: Vec<TimedCandidate>,
}

#[derive(Deserialize)]
struct TimedCandidate {
    error: Option<String>,
    sqnr_db: Option<f64>,
    ratio: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    rounds: Option<usize>,
}

/// Measures everything, writes the file and README's table.
///
/// # Errors
/// If an environment cannot be made, a script breaks, or README has no place for the table.
pub fn measure() -> Result<()> {
    let peers = measured()?;
    fs::write(file(), serde_json::to_string_pretty(&peers)? + "\n")?;
    let readme = fs::read_to_string(readme::path())?;
    fs::write(readme::path(), table::put(&readme, &peers)?)?;
    eprintln!("written: docs/peers.json and the table of README.md");
    Ok(())
}

/// Measures everything, writes nothing, and prints the table.
///
/// # Errors
/// If the program emits what is slower than its original, or a script breaks.
pub fn hold() -> Result<()> {
    let peers = measured()?;
    println!("{}", table::of(&peers)?);
    let slower = slower(&peers);
    ensure!(slower.is_empty(), "slower than the original: {}", slower.join(", "));
    Ok(())
}

/// Holds README's table against the file.
///
/// # Errors
/// If it is not what `cargo xtask peers` would write.
pub fn check() -> Result<()> {
    let peers: Peers = serde_json::from_str(&fs::read_to_string(file())?)?;
    let readme = fs::read_to_string(readme::path())?;
    let same = table::put(&readme, &peers)? == readme;
    ensure!(same, "README's table is not that of docs/peers.json; run `cargo xtask peers`");
    eprintln!("peers: README says what docs/peers.json does");
    Ok(())
}

fn file() -> PathBuf {
    testdata::workspace_root().join("docs/peers.json")
}

fn measured() -> Result<Peers> {
    setup::peers()?;
    let mut rows = Vec::new();
    let mut report = None;
    for name in testdata::MODELS.into_iter().chain([DIGITS]) {
        let (row, made) = row(&Subject::of(name)).with_context(|| name.to_owned())?;
        rows.push(row);
        report = Some(made);
    }
    let report = report.context("there are no models")?;
    Ok(Peers {
        modelopt: crate::results::text(&report["tool_version"])?,
        onnxruntime: pinned("onnxruntime")?,
        nncf: pinned("nncf")?,
        machine: serde_json::from_value(report["machine"].clone())?,
        rows,
    })
}

/// All candidates of a model, made, timed together and judged; and the program's report.
fn row(subject: &Subject) -> Result<(Row, serde_json::Value)> {
    let mut made = Vec::new();
    for way in &makers::WAYS {
        eprintln!("{}: {}", subject.name, way.name);
        made.push(way.make(subject)?);
    }
    let outputs: Vec<&Path> =
        made.iter().filter(|made| made.error.is_none()).map(|made| made.output.as_path()).collect();
    let job = TimingJob {
        original: &subject.model,
        candidates: outputs,
        samples: testdata::npz_files(&subject.heldout),
        seconds: SECONDS,
    };
    let answer: TimingAnswer =
        oracle::ask("interleave.py", &[job])?.pop().context("there is one answer per job")?;
    let report = makers::program_report(&made)?;
    let mut timed = answer.candidates.into_iter();
    let mut candidates = Vec::new();
    for (way, made) in makers::WAYS.iter().zip(made) {
        let outcome = match made.error {
            Some(error) => Outcome::NotMade(error),
            None => {
                outcome(subject, &made.output, timed.next().context("a candidate is missing")?)?
            }
        };
        let (notes, seconds) = (made.notes, made.seconds);
        candidates.push(Candidate { way: way.name.to_owned(), notes, seconds, outcome });
    }
    let row = Row {
        model: subject.name.to_owned(),
        original_ms: answer.original_ms,
        original_bytes: fs::metadata(&subject.model)?.len(),
        given: testdata::npz_files(&subject.given).len(),
        heldout: testdata::npz_files(&subject.heldout).len(),
        candidates,
    };
    Ok((row, report))
}

fn outcome(subject: &Subject, output: &Path, timed: TimedCandidate) -> Result<Outcome> {
    if let Some(error) = timed.error {
        return Ok(Outcome::NotRun(error));
    }
    let missing = "a candidate that runs was not timed";
    let ratio = timed.ratio.context(missing)?;
    let low = timed.low.context(missing)?;
    let high = timed.high.context(missing)?;
    let (part_sqnr_db, mut failed) = makers::judged(subject, output)?;
    if low > MAX_SLOWDOWN {
        failed.push("slowdown".to_owned());
    }
    Ok(Outcome::Measured(Figures {
        bytes: fs::metadata(output)?.len(),
        speed: 1.0 / ratio,
        speed_low: 1.0 / high,
        speed_high: 1.0 / low,
        rounds: timed.rounds.context(missing)?,
        whole_sqnr_db: timed.sqnr_db.context(missing)?,
        part_sqnr_db,
        failed,
    }))
}

/// Models of which the program emitted something slower.
fn slower(peers: &Peers) -> Vec<&str> {
    let is_slower = |candidate: &Candidate| match &candidate.outcome {
        Outcome::Measured(figures) if candidate.way == makers::PROGRAM => {
            figures.speed_high * MAX_SLOWDOWN < 1.0
        }
        _ => false,
    };
    let rows = peers.rows.iter().filter(|row| row.candidates.iter().any(is_slower));
    rows.map(|row| row.model.as_str()).collect()
}

/// The version of a package in the tools' environment.
fn pinned(package: &str) -> Result<String> {
    let pins = fs::read_to_string(oracle::script("requirements-peers.txt"))?;
    version(&pins, package).with_context(|| format!("{package} is not pinned"))
}

fn version(pins: &str, package: &str) -> Option<String> {
    let mut lines = pins.lines().filter_map(|line| line.split_once("=="));
    lines.find(|(name, _)| *name == package).map(|(_, version)| version.to_owned())
}

impl Subject {
    fn of(name: &'static str) -> Subject {
        let model = if name == DIGITS {
            testdata::fixture("digits/cnn.onnx")
        } else {
            testdata::model(name)
        };
        let samples = testdata::peers().join("samples").join(name);
        Subject { name, model, given: samples.join("given"), heldout: samples.join("heldout") }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Candidate, Figures, Machine, Outcome, Peers, Row, makers, slower, version};

    pub(super) fn figures(speed: f64, db: Option<f64>, failed: &[&str]) -> Outcome {
        Outcome::Measured(Figures {
            bytes: 1_500_000,
            speed,
            speed_low: speed - 0.01,
            speed_high: speed + 0.01,
            rounds: 60,
            whole_sqnr_db: 30.0,
            part_sqnr_db: db,
            failed: failed.iter().map(|&check| check.to_owned()).collect(),
        })
    }

    /// Three models, planted: the program is slower on the second and gives up on the third.
    pub(super) fn planted() -> Peers {
        let row = |model: &str, ours: Outcome, theirs: Outcome| Row {
            model: model.to_owned(),
            original_ms: 17.58,
            original_bytes: 12_150_158,
            given: 6,
            heldout: 7,
            candidates: makers::WAYS
                .iter()
                .map(|way| Candidate {
                    way: way.name.to_owned(),
                    notes: Vec::new(),
                    seconds: 1.0,
                    outcome: if way.name == makers::PROGRAM {
                        ours.clone()
                    } else {
                        theirs.clone()
                    },
                })
                .collect(),
        };
        Peers {
            modelopt: "1.2.3".to_owned(),
            onnxruntime: "9.1".to_owned(),
            nncf: "8.2".to_owned(),
            machine: Machine { cpu: "a CPU".to_owned(), threads: 2, platform: "p".to_owned() },
            rows: vec![
                row("det", figures(1.5, Some(21.0), &[]), figures(1.7, Some(19.98), &["sqnr"])),
                row("cls", figures(0.9, None, &["slowdown"]), Outcome::NotRun("no".to_owned())),
                row(
                    "digits",
                    Outcome::NotMade("refused".to_owned()),
                    figures(1.2, Some(34.5), &[]),
                ),
            ],
        }
    }

    #[test]
    fn what_the_program_makes_slower_is_named_and_what_others_do_is_not() {
        assert_eq!(slower(&planted()), ["cls"]);
        let mut noisy = planted();
        for candidate in &mut noisy.rows[1].candidates {
            if candidate.way == makers::PROGRAM {
                candidate.outcome = figures(0.96, None, &[]);
            }
        }
        assert!(slower(&noisy).is_empty(), "within the limit");
    }

    #[test]
    fn versions_are_those_that_are_pinned() {
        let pins = "# onnx==1\nonnx==1.23.2\nonnxruntime==1.32.0\n";
        assert_eq!(version(pins, "onnxruntime").as_deref(), Some("1.32.0"));
        assert_eq!(version(pins, "onnx").as_deref(), Some("1.23.2"));
        assert_eq!(version(pins, "nncf"), None);
    }

    #[test]
    fn the_file_keeps_everything() {
        let peers = planted();
        let text = serde_json::to_string_pretty(&peers).unwrap();
        assert_eq!(serde_json::from_str::<Peers>(&text).unwrap(), peers);
        assert!(text.contains("not_made") && text.contains("part_sqnr_db"));
    }
}
