//! `quantize` and `convert --to fp16`, over the models that the `onnx` package ships beside its node
//! tests: light, simple, pytorch-converted and pytorch-operator, those that the installed onnxruntime
//! loads. Both must end well, with a model that the checker accepts where it accepts the original, and
//! that onnxruntime loads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use fs_err as fs;
use serde_json::Value;

use super::{batch, exceptions};
use crate::oracle::{self, Answer};
use crate::parallel::{cores, parallel};
use crate::testdata;

/// What is run over all models, with its settings; the names are those of the lists of exceptions.
/// Some are whole networks, which take a second a run: one invented sample is enough.
const SUITES: [(&str, &str); 2] = [
    ("models-quantize", "sample-count = 1\n[latency]\nmin-seconds = 0.2\n"),
    ("models-fp16", "scheme = \"fp16\"\nsample-count = 1\n[latency]\nmin-seconds = 0.2\n"),
];

/// A model of the package.
struct Case {
    /// Such as `simple/test_expand_shape_model1`.
    name: String,
    model: PathBuf,
    /// A folder of `test_data_set_N`, if there is one.
    data: Option<PathBuf>,
}

/// What came of one run of the program.
struct Done {
    output: PathBuf,
    /// Why nothing was emitted.
    failure: Option<String>,
    unchanged: bool,
}

/// Runs both suites and prints a table; gives what is not as the lists of exceptions say.
pub(super) fn run() -> Result<Vec<String>> {
    let cases = loadable()?;
    println!("models of the onnx package that onnxruntime loads: {}\n", cases.len());
    println!("{:<17}{:>8}{:>9}{:>11}{:>9}", "suite", "models", "emitted", "unchanged", "sound");
    let mut complaints = Vec::new();
    for (suite, settings) in SUITES {
        let (done, failures) = run_suite(suite, settings, &cases)?;
        println!(
            "{suite:<17}{:>8}{:>9}{:>11}{:>9}",
            cases.len(),
            done.iter().filter(|done| done.failure.is_none()).count(),
            done.iter().filter(|done| done.unchanged).count(),
            cases.len() - failures.len(),
        );
        complaints.extend(exceptions::against(suite, &failures)?);
    }
    println!();
    Ok(complaints)
}

fn loadable() -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for folder in ["light", "simple", "pytorch-converted", "pytorch-operator"] {
        for path in testdata::entries(&testdata::backend_data()?.join(folder)) {
            let stem = path.file_stem().unwrap_or_default().display().to_string();
            let name = format!("{folder}/{stem}");
            if path.is_dir() {
                cases.push(Case { name, model: path.join("model.onnx"), data: Some(path) });
            } else if path.extension().is_some_and(|extension| extension == "onnx") {
                cases.push(Case { name, model: path, data: None });
            }
        }
    }
    let models: Vec<PathBuf> = cases.iter().map(|case| case.model.clone()).collect();
    let answers = asked(&models, oracle::load_models)?;
    Ok(cases
        .into_iter()
        .zip(answers)
        .filter(|(_, answer)| answer.is_ok())
        .map(|(c, _)| c)
        .collect())
}

/// Asks as many interpreters as there are cores.
fn asked(
    models: &[PathBuf],
    ask: impl Fn(&[PathBuf]) -> Result<Vec<Answer>> + Sync,
) -> Result<Vec<Answer>> {
    let parts: Vec<&[PathBuf]> = models.chunks(models.len().div_ceil(cores()).max(1)).collect();
    let answers: Result<Vec<Vec<Answer>>> =
        parallel(&parts, |part| ask(part)).into_iter().collect();
    Ok(answers?.into_iter().flatten().collect())
}

fn run_suite(
    suite: &str,
    settings: &str,
    cases: &[Case],
) -> Result<(Vec<Done>, BTreeMap<String, String>)> {
    let folder = testdata::target_dir().join("conformance").join(suite);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let jobs: Vec<batch::Job> = cases.iter().map(|case| job(case, &folder)).collect();
    let documents = batch::run(&batch::settings(settings)?, &jobs)?;
    let told = cases.iter().zip(jobs).zip(documents).map(|((case, job), d)| told(case, job, &d));
    let done = told.collect::<Result<Vec<Done>>>()?;
    let written = |done: &&Done| done.failure.is_none();
    let outputs: Vec<PathBuf> =
        done.iter().filter(written).map(|done| done.output.clone()).collect();
    let originals: Vec<PathBuf> = (cases.iter().zip(&done))
        .filter(|(_, done)| written(done))
        .map(|(case, _)| case.model.clone())
        .collect();
    let [checked, before] = [&outputs, &originals].map(|paths| asked(paths, oracle::check_models));
    let mut answers = checked?.into_iter().zip(before?).zip(asked(&outputs, oracle::load_models)?);
    let mut failures = BTreeMap::new();
    for (case, done) in cases.iter().zip(&done) {
        let failure = match &done.failure {
            Some(failure) => Some(failure.clone()),
            None => answers.next().and_then(|((checked, before), loaded)| {
                let refused = checked.error.filter(|_| before.is_ok());
                let refused = refused.map(|error| format!("the checker refuses it: {error}"));
                let load =
                    loaded.error.map(|error| format!("onnxruntime does not load it: {error}"));
                refused.or(load)
            }),
        };
        failures.extend(failure.map(|failure| (case.name.clone(), failure)));
    }
    Ok((done, failures))
}

/// What is asked about one model, on the test's own inputs where it has some.
fn job(case: &Case, folder: &Path) -> batch::Job {
    batch::Job {
        model: case.model.clone(),
        output: folder.join(format!("{}.onnx", case.name.replace('/', "-"))),
        samples: case.data.clone(),
    }
}

/// What a report says of one model.
fn told(case: &Case, job: batch::Job, document: &Value) -> Result<Done> {
    let output = job.output;
    let emitted = document["candidate"].is_object();
    let failure =
        (!emitted).then(|| why(document).unwrap_or_else(|| "nothing is emitted".to_owned()));
    ensure!(failure.is_some() || output.exists(), "{}: nothing was written", case.name);
    let unchanged = failure.is_none() && document["verdict"].is_null();
    Ok(Done { output, failure, unchanged })
}

/// The limits that a verdict failed on, or the error.
fn why(document: &Value) -> Option<String> {
    if let Some(error) = document["error"].as_str() {
        return Some(first_line(error));
    }
    let checks = document["verdict"]["checks"].as_array()?;
    let failed = checks.iter().filter(|check| check["pass"] == false);
    let texts: Vec<String> = failed
        .map(|check| format!("{} {} (limit {})", check["name"], check["value"], check["limit"]))
        .collect();
    (!texts.is_empty()).then(|| texts.join(", ").replace('"', ""))
}

fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.starts_with("warning")).unwrap_or_default().to_owned()
}
