//! Who makes candidates, and who judges them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Subject;
use crate::{oracle, program, results, testdata};

/// The way of the program itself.
pub(super) const PROGRAM: &str = "modelopt";

/// A tool with its settings.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) name: &'static str,
    maker: Maker,
}

#[derive(Debug)]
enum Maker {
    /// onnxruntime's static quantizer, with the operators that it is told to quantize; all that it
    /// knows where there are none.
    Onnxruntime(Option<&'static [&'static str]>),
    /// NNCF with a preset.
    Nncf(&'static str),
    Program,
}

/// Each tool as it comes, with the setting of it that a user would try next, and the program.
pub(super) const WAYS: [Way; 5] = [
    Way { name: "onnxruntime", maker: Maker::Onnxruntime(None) },
    Way {
        name: "onnxruntime, products",
        maker: Maker::Onnxruntime(Some(&["Conv", "MatMul", "Gemm"])),
    },
    Way { name: "NNCF", maker: Maker::Nncf("PERFORMANCE") },
    Way { name: "NNCF, mixed", maker: Maker::Nncf("MIXED") },
    Way { name: PROGRAM, maker: Maker::Program },
];

/// What a tool was asked for.
#[derive(Debug)]
pub(super) struct Made {
    /// Where the candidate is, if there is no error.
    pub(super) output: PathBuf,
    pub(super) error: Option<String>,
    pub(super) notes: Vec<String>,
    pub(super) seconds: f64,
    /// The report, where the program made it.
    report: Option<Value>,
}

#[derive(Serialize)]
struct Job<'a> {
    model: &'a Path,
    samples: Vec<PathBuf>,
    output: &'a Path,
    operators: Option<&'a [&'a str]>,
    preset: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    error: Option<String>,
    notes: Vec<String>,
    seconds: f64,
}

impl Way {
    /// Has the tool make its candidate from the samples that are given.
    ///
    /// # Errors
    /// If a script breaks or the program ends in an error; not if the tool gives up.
    pub(super) fn make(&self, subject: &Subject) -> Result<Made> {
        let folder = testdata::peers().join("models");
        fs::create_dir_all(&folder)?;
        let output = folder.join(file_name(subject.name, self.name));
        match self.maker {
            Maker::Onnxruntime(operators) => {
                scripted("quantize_static.py", subject, output, operators, None)
            }
            Maker::Nncf(preset) => {
                scripted("quantize_nncf.py", subject, output, None, Some(preset))
            }
            Maker::Program => programmed(subject, output),
        }
    }
}

fn file_name(model: &str, way: &str) -> String {
    let way: String = way.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{model}.{way}.onnx")
}

/// By a script in the tools' own environment.
fn scripted(
    script: &str,
    subject: &Subject,
    output: PathBuf,
    operators: Option<&[&str]>,
    preset: Option<&str>,
) -> Result<Made> {
    let python = testdata::interpreter(&testdata::peers().join("python"));
    let samples = testdata::npz_files(&subject.given);
    let job = Job { model: &subject.model, samples, output: &output, operators, preset };
    let answers: Vec<Answer> = oracle::ask_in(&python, script, &[job])?;
    let answer = answers.into_iter().next().context("there is one answer per job")?;
    let Answer { error, notes, seconds } = answer;
    Ok(Made { output, error, notes, seconds, report: None })
}

fn programmed(subject: &Subject, output: PathBuf) -> Result<Made> {
    let mut command = Command::new(program::program()?);
    command.arg("quantize").arg(&subject.model).arg("-o").arg(&output).args(["--threads", "1"]);
    command.arg("--samples").arg(&subject.given);
    let start = Instant::now();
    let report = results::report(command)?;
    let seconds = start.elapsed().as_secs_f64();
    let error = (!report["candidate"].is_object()).then(|| "refused by its own gate".to_owned());
    Ok(Made { output, error, notes: Vec::new(), seconds, report: Some(report) })
}

/// The report of the program among what was made.
///
/// # Errors
/// If the program is not among the ways.
pub(super) fn program_report(made: &[Made]) -> Result<Value> {
    made.iter().find_map(|made| made.report.clone()).context("the program was not run")
}

/// The worst part's SQNR on the held-out samples, as the program judges, and the checks that fail.
///
/// # Errors
/// If the program cannot compare the models.
pub(super) fn judged(subject: &Subject, candidate: &Path) -> Result<(Option<f64>, Vec<String>)> {
    let mut command = Command::new(program::program()?);
    command.arg("compare").arg(&subject.model).arg(candidate);
    command.args(["--no-latency", "--threads", "1", "--samples"]).arg(&subject.heldout);
    let document = results::report(command)?;
    Ok((results::worst_sqnr_db(&document)?, failed(&document)?))
}

/// The names of failed checks, each once, in order.
fn failed(document: &Value) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for check in document["verdict"]["checks"].as_array().context("nothing was judged")? {
        let name = results::text(&check["name"])?;
        if check["pass"] != true && !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{WAYS, failed, file_name};

    #[test]
    fn a_check_that_fails_for_two_outputs_is_named_once() {
        let document = json!({ "verdict": { "checks": [
            { "name": "shrink", "pass": true },
            { "name": "sqnr", "pass": false },
            { "name": "sqnr", "pass": false },
            { "name": "decisions", "pass": false },
        ] } });
        assert_eq!(failed(&document).unwrap(), ["sqnr", "decisions"]);
        assert!(failed(&json!({ "verdict": null })).is_err());
    }

    #[test]
    fn every_way_has_a_file_of_its_own() {
        let mut names: Vec<String> = WAYS.iter().map(|way| file_name("det", way.name)).collect();
        assert_eq!(names[1], "det.onnxruntimeproducts.onnx");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), WAYS.len());
    }
}
