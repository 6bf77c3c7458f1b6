//! `quantize` and `convert --to fp16`, over the models that the `onnx` package ships beside its node
//! tests: light, simple, pytorch-converted and pytorch-operator, those that the installed onnxruntime
//! loads. Both must end well, with a model that the checker accepts where it accepts the original, and
//! that onnxruntime loads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use super::exceptions;
use crate::oracle::{self, Answer};
use crate::parallel::{cores, parallel};
use crate::program::path_with_python;
use crate::testdata;

/// What is run over all models; the names are those of the lists of exceptions.
const SUITES: [(&str, &[&str]); 2] =
    [("models-quantize", &["quantize"]), ("models-fp16", &["convert", "--to", "fp16"])];

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
    /// Why the program did not end with 0.
    failure: Option<String>,
    unchanged: bool,
}

/// Runs both suites and prints a table; gives what is not as the lists of exceptions say.
pub(super) fn run(program: &Path) -> Result<Vec<String>> {
    let cases = loadable()?;
    println!("models of the onnx package that onnxruntime loads: {}\n", cases.len());
    println!("{:<17}{:>8}{:>9}{:>11}{:>9}", "suite", "models", "ended 0", "unchanged", "sound");
    let mut complaints = Vec::new();
    for (suite, arguments) in SUITES {
        let (done, failures) = run_suite(suite, arguments, program, &cases)?;
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
    arguments: &[&str],
    program: &Path,
    cases: &[Case],
) -> Result<(Vec<Done>, BTreeMap<String, String>)> {
    let folder = testdata::target_dir().join("conformance").join(suite);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let done: Result<Vec<Done>> =
        parallel(cases, |case| make(arguments, program, case, &folder)).into_iter().collect();
    let done = done?;
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

/// Runs the program on one model, on the test's own inputs where it has some.
fn make(arguments: &[&str], program: &Path, case: &Case, folder: &Path) -> Result<Done> {
    let output = folder.join(format!("{}.onnx", case.name.replace('/', "-")));
    let mut command = Command::new(program);
    command.args(arguments).arg(&case.model).arg("-o").arg(&output).arg("--json");
    command.args(["--runtime", "onnxruntime", "--latency-seconds", "0.2"]);
    match &case.data {
        Some(data) => command.arg("--samples").arg(data),
        // These are whole networks, and take a second a run.
        None => command.args(["--sample-count", "1"]),
    };
    command.current_dir(folder).stdin(Stdio::null());
    command.env("PATH", path_with_python()?).env_remove("ORT_DYLIB_PATH");
    let ran = command.output().context("cannot start the program")?;
    let document: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
    let failure = (!ran.status.success()).then(|| {
        let stderr = String::from_utf8_lossy(&ran.stderr);
        format!("{}: {}", ran.status, why(&document).unwrap_or_else(|| first_line(&stderr)))
    });
    ensure!(failure.is_some() || output.exists(), "{}: nothing was written", case.name);
    let unchanged = failure.is_none() && document["verdict"].is_null();
    Ok(Done { output, failure, unchanged })
}

/// The limits that a verdict failed on, or the error.
fn why(document: &serde_json::Value) -> Option<String> {
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
