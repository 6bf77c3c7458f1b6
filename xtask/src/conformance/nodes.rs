//! Conversion to 16 bits, over the ONNX node tests: every test model with a float32 input that the
//! installed onnxruntime runs is converted, and what comes out is held against the
//! original by the checker and by onnxruntime.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{batch, exceptions};
use crate::parallel::{cores, parallel};
use crate::{oracle, testdata};

/// Relative and absolute tolerance alike.
const TOLERANCE: f64 = 2e-2;

/// What is run over all tests.
#[derive(Clone, Copy, Debug)]
struct Suite {
    /// Name of the list of exceptions.
    name: &'static str,
    /// What the models are converted to.
    scheme: &'static str,
    /// What becomes of their inputs and outputs.
    io: &'static str,
    /// Whether the models are run on the tests' inputs while they are converted.
    judged: bool,
    /// Whether onnxruntime must load what comes out.
    must_load: bool,
}

const SUITES: [Suite; 3] = [
    Suite { name: "fp16", scheme: "fp16", io: "float32", judged: true, must_load: true },
    Suite { name: "fp16-io", scheme: "fp16", io: "fp16", judged: true, must_load: true },
    // onnxruntime has bfloat16 kernels for few operators on CPUs.
    Suite { name: "bf16", scheme: "bf16", io: "float32", judged: false, must_load: false },
];

impl Suite {
    /// The settings of `modelopt convert --no-gate`. A cast makes a model of one node larger; what is
    /// asked here is whether it is the same.
    fn settings(self) -> String {
        let Suite { scheme, io, judged, .. } = self;
        let enforcement = if judged { "judge" } else { "none" };
        format!(
            "scheme = {scheme:?}\nio = {io:?}\nenforcement = {enforcement:?}\n\
             measure-latency = false\n[gate]\nmin-shrink = 0.0\n"
        )
    }
}

/// A node test to run and judge.
#[derive(Serialize)]
struct NodeRun {
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

/// What was said of one conversion.
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

/// Runs all suites and prints a table; gives what is not as the lists of exceptions say, and README's
/// table.
pub(super) fn run() -> Result<(Vec<String>, String)> {
    let cases = runnable()?;
    println!("node tests with a float32 input that onnxruntime runs: {}\n", cases.len());
    let mut complaints = Vec::new();
    let mut rows = Vec::new();
    for suite in SUITES {
        let (tally, found) = run_suite(suite, &cases)?;
        complaints.extend(found);
        rows.push((suite, tally));
    }
    println!(
        "{:<9}{:>8}{:>11}{:>8}{:>15}{:>13}{:>13}{:>9}",
        "suite", "models", "converted", "kept", "checker-clean", "loaded", "agree", "refused"
    );
    for (suite, tally) in &rows {
        let Tally { models, converted, kept_whole, checker_clean, checkable, .. } = *tally;
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
    Ok((complaints, table(&rows)))
}

/// README's table.
fn table(rows: &[(Suite, Tally)]) -> String {
    let mut table =
        "| `modelopt convert` | models | converted | checker-clean | onnxruntime loads | agree |\n\
                     |---|---|---|---|---|---|\n"
            .to_owned();
    for (Suite { scheme, io, .. }, tally) in rows {
        let io = if *io == "float32" { String::new() } else { format!(" --io {io}") };
        let figures = [tally.models, tally.converted, tally.loaded].map(thousands);
        let [models, converted, loaded] = figures;
        let of = |part: usize, whole: usize| format!("{} of {}", thousands(part), thousands(whole));
        let clean = of(tally.checker_clean, tally.checkable);
        let agree = of(tally.agreeing, tally.loaded);
        let _ = writeln!(
            table,
            "| `--to {scheme}{io}` | {models} | {converted} | {clean} | {loaded} | {agree} |"
        );
    }
    table
}

/// Such as `1,248`.
fn thousands(number: usize) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", thousands(number / 1000), number % 1000),
    }
}

/// The tests with a float32 input that onnxruntime runs.
fn runnable() -> Result<Vec<PathBuf>> {
    let cases = testdata::node_tests();
    let asked: Vec<NodeRun> = cases.iter().map(|case| node_run(case, None)).collect();
    let answers = judge(&asked)?;
    let runs = cases.into_iter().zip(answers).filter(|(_, answer)| answer.original_runs);
    Ok(runs.map(|(case, _)| case).collect())
}

fn node_run(case: &Path, candidate: Option<PathBuf>) -> NodeRun {
    NodeRun {
        model: case.join("model.onnx"),
        candidate,
        data: case.join("test_data_set_0"),
        tolerance: TOLERANCE,
    }
}

/// Asks as many interpreters as there are cores.
fn judge(runs: &[NodeRun]) -> Result<Vec<Answer>> {
    let parts: Vec<&[NodeRun]> = runs.chunks(runs.len().div_ceil(cores()).max(1)).collect();
    let answers: Result<Vec<Vec<Answer>>> =
        parallel(&parts, |part| oracle::ask("run_nodes.py", part)).into_iter().collect();
    Ok(answers?.into_iter().flatten().collect())
}

fn run_suite(suite: Suite, cases: &[PathBuf]) -> Result<(Tally, Vec<String>)> {
    let folder = testdata::target_dir().join("conformance").join(suite.name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let conversions = convert(suite, cases, &folder)?;
    let asked: Vec<NodeRun> = cases
        .iter()
        .zip(&conversions)
        .map(|(case, conversion)| node_run(case, Some(conversion.candidate.clone())))
        .collect();
    let answers = judge(&asked)?;
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
        if let Some(failure) = failure(suite, conversion, answer) {
            failures.insert(name(case), failure);
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

/// Converts the models of all tests.
fn convert(suite: Suite, cases: &[PathBuf], folder: &Path) -> Result<Vec<Conversion>> {
    let jobs: Vec<batch::Job> = cases
        .iter()
        .map(|case| batch::Job {
            model: case.join("model.onnx"),
            output: folder.join(format!("{}.onnx", name(case))),
            samples: suite.judged.then(|| case.clone()),
        })
        .collect();
    let documents = batch::run(&batch::settings(&suite.settings())?, &jobs)?;
    cases.iter().zip(jobs).zip(documents).map(|((case, job), d)| told(case, job, &d)).collect()
}

/// What a report says of the conversion of one test's model.
fn told(case: &Path, job: batch::Job, document: &Value) -> Result<Conversion> {
    let error = &document["error"];
    ensure!(error.is_null(), "{}: {error}", name(case));
    let empty = Vec::new();
    let plan = document["plan"].as_array().unwrap_or(&empty);
    let kept = |line: &&Value| line["scheme"] == "keep";
    Ok(Conversion {
        candidate: job.output,
        converted: plan.iter().filter(|line| !kept(line)).count(),
        unexplained: plan
            .iter()
            .filter(kept)
            .filter(|line| line["reason"].as_str().is_none_or(str::is_empty))
            .count(),
        passes: document["verdict"]["pass"].as_bool(),
    })
}

fn name(case: &Path) -> String {
    case.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
