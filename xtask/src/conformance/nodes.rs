//! Conversion to 16 bits, over the ONNX node tests: every test model with a float32 input that the
//! installed onnxruntime runs is converted by the program, and what comes out is held against the
//! original by the checker and by onnxruntime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::exceptions;
use crate::parallel::{cores, parallel};
use crate::program::path_with_python;
use crate::{oracle, testdata};

/// Relative and absolute tolerance alike.
const TOLERANCE: f64 = 2e-2;

/// What is run over all tests.
#[derive(Clone, Copy, Debug)]
struct Suite {
    /// Name of the list of exceptions.
    name: &'static str,
    /// Arguments of `modelopt convert`.
    arguments: &'static [&'static str],
    /// Whether the models are run on the tests' inputs while they are converted.
    judged: bool,
    /// Whether onnxruntime must load what comes out.
    must_load: bool,
}

const SUITES: [Suite; 3] = [
    Suite { name: "fp16", arguments: &["--to", "fp16"], judged: true, must_load: true },
    Suite {
        name: "fp16-io",
        arguments: &["--to", "fp16", "--io", "fp16"],
        judged: true,
        must_load: true,
    },
    // onnxruntime has bfloat16 kernels for few operators on CPUs.
    Suite { name: "bf16", arguments: &["--to", "bf16"], judged: false, must_load: false },
];

#[derive(Serialize)]
struct Job {
    model: PathBuf,
    candidate: Option<PathBuf>,
    data: PathBuf,
    tolerance: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct Answer {
    original_runs: bool,
    original_checks: bool,
    checker_error: Option<String>,
    load_error: Option<String>,
    run_error: Option<String>,
    disagreement: Option<String>,
}

/// What the program said of one conversion.
struct Conversion {
    candidate: PathBuf,
    /// Layers that are of 16 bits.
    converted: usize,
    /// Layers that are left alone without a reason.
    unexplained: usize,
    /// Whether the gate would let it pass; none where nothing was judged.
    passes: Option<bool>,
}

/// How one suite went.
#[derive(Debug, Default)]
struct Tally {
    models: usize,
    converted: usize,
    kept_whole: usize,
    checker_clean: usize,
    checkable: usize,
    loaded: usize,
    agreeing: usize,
    refused: usize,
}

/// Runs all suites and prints a table; gives what is not as the lists of exceptions say.
pub(super) fn run(program: &Path) -> Result<Vec<String>> {
    let cases = runnable()?;
    println!("node tests with a float32 input that onnxruntime runs: {}\n", cases.len());
    let mut complaints = Vec::new();
    let mut rows = Vec::new();
    for suite in SUITES {
        let (tally, found) = run_suite(suite, program, &cases)?;
        complaints.extend(found);
        rows.push((suite, tally));
    }
    println!(
        "{:<9}{:>8}{:>11}{:>8}{:>15}{:>13}{:>13}{:>9}",
        "suite", "models", "converted", "kept", "checker-clean", "loaded", "agree", "refused"
    );
    for (suite, tally) in rows {
        let Tally { models, converted, kept_whole, checker_clean, checkable, .. } = tally;
        let refused = if suite.judged { tally.refused.to_string() } else { "-".to_owned() };
        println!(
            "{:<9}{models:>8}{converted:>11}{kept_whole:>8}{:>15}{:>13}{:>13}{refused:>9}",
            suite.name,
            format!("{checker_clean} of {checkable}"),
            format!("{} of {models}", tally.loaded),
            format!("{} of {}", tally.agreeing, tally.loaded),
        );
    }
    println!();
    Ok(complaints)
}

/// The tests with a float32 input that onnxruntime runs.
fn runnable() -> Result<Vec<PathBuf>> {
    let cases = testdata::node_tests();
    let jobs: Vec<Job> = cases.iter().map(|case| job(case, None)).collect();
    let answers = judge(&jobs)?;
    let runs = cases.into_iter().zip(answers).filter(|(_, answer)| answer.original_runs);
    Ok(runs.map(|(case, _)| case).collect())
}

fn job(case: &Path, candidate: Option<PathBuf>) -> Job {
    Job {
        model: case.join("model.onnx"),
        candidate,
        data: case.join("test_data_set_0"),
        tolerance: TOLERANCE,
    }
}

/// Asks as many interpreters as there are cores.
fn judge(jobs: &[Job]) -> Result<Vec<Answer>> {
    let parts: Vec<&[Job]> = jobs.chunks(jobs.len().div_ceil(cores()).max(1)).collect();
    let answers: Result<Vec<Vec<Answer>>> =
        parallel(&parts, |part| oracle::ask("run_nodes.py", part)).into_iter().collect();
    Ok(answers?.into_iter().flatten().collect())
}

fn run_suite(suite: Suite, program: &Path, cases: &[PathBuf]) -> Result<(Tally, Vec<String>)> {
    let folder = testdata::target_dir().join("conformance").join(suite.name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let conversions: Result<Vec<Conversion>> =
        parallel(cases, |case| convert(suite, program, case, &folder)).into_iter().collect();
    let conversions = conversions?;
    let jobs: Vec<Job> = cases
        .iter()
        .zip(&conversions)
        .map(|(case, conversion)| job(case, Some(conversion.candidate.clone())))
        .collect();
    let answers = judge(&jobs)?;
    let mut tally = Tally { models: cases.len(), ..Tally::default() };
    let mut failures: BTreeMap<String, String> = BTreeMap::new();
    for ((case, conversion), answer) in cases.iter().zip(&conversions).zip(&answers) {
        tally.converted += usize::from(conversion.converted > 0);
        tally.kept_whole += usize::from(conversion.converted == 0);
        tally.checkable += usize::from(answer.original_checks);
        let clean = answer.original_checks && answer.checker_error.is_none();
        tally.checker_clean += usize::from(clean);
        tally.loaded += usize::from(answer.load_error.is_none());
        let agrees = [&answer.load_error, &answer.run_error, &answer.disagreement]
            .iter()
            .all(|e| e.is_none());
        tally.agreeing += usize::from(agrees);
        tally.refused += usize::from(conversion.passes == Some(false));
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(failure) = failure(suite, conversion, answer) {
            failures.insert(name, failure);
        }
    }
    Ok((tally, exceptions::against(suite.name, &failures)?))
}

/// What is wrong with one conversion, if anything is.
fn failure(suite: Suite, conversion: &Conversion, answer: &Answer) -> Option<String> {
    if let Some(error) = answer.checker_error.as_ref().filter(|_| answer.original_checks) {
        return Some(format!("the checker refuses it: {error}"));
    }
    if conversion.unexplained > 0 {
        return Some("a layer is left alone without a reason".to_owned());
    }
    if let Some(error) = &answer.load_error {
        return suite.must_load.then(|| format!("onnxruntime does not load it: {error}"));
    }
    let wrong = answer.run_error.as_ref().or(answer.disagreement.as_ref())?;
    let told = if conversion.passes == Some(true) { ", and the gate lets it pass" } else { "" };
    Some(format!("{wrong}{told}"))
}

/// Converts one test's model.
fn convert(suite: Suite, program: &Path, case: &Path, folder: &Path) -> Result<Conversion> {
    let name = case.file_name().unwrap_or_default().to_string_lossy();
    let candidate = folder.join(format!("{name}.onnx"));
    let mut command = Command::new(program);
    command.arg("convert").arg(case.join("model.onnx")).arg("-o").arg(&candidate).arg("--json");
    command.args(suite.arguments).current_dir(folder).stdin(Stdio::null());
    command.env("PATH", path_with_python()?).env_remove("ORT_DYLIB_PATH");
    if suite.judged {
        // A cast makes a model of one node larger; what is asked here is whether it is the same.
        command.args(["--no-gate", "--min-shrink", "0", "--no-latency"]);
        command.args(["--runtime", "onnxruntime", "--samples"]).arg(case);
    } else {
        command.arg("--no-validate");
    }
    let output = command.output().context("cannot start the program")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}: {stderr}", output.status);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let empty = Vec::new();
    let plan = document["plan"].as_array().unwrap_or(&empty);
    let kept = |line: &&serde_json::Value| line["scheme"] == "keep";
    Ok(Conversion {
        candidate,
        converted: plan.iter().filter(|line| !kept(line)).count(),
        unexplained: plan
            .iter()
            .filter(kept)
            .filter(|line| line["reason"].as_str().is_none_or(str::is_empty))
            .count(),
        passes: document["verdict"]["pass"].as_bool(),
    })
}
