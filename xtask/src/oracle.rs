//! Second opinions on models: the onnx checker, onnxruntime, and protobuf equality, asked
//! of the Python scripts in `xtask/python`. One call starts one interpreter, so ask about
//! many models at once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::testdata;

/// Whether two files hold the same model, by [`same_models`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Comparison {
    /// All fields present in one are present in the other with the same value, unknown
    /// fields and payload bytes included.
    pub equal: bool,
    /// Where they first differ, or why one could not be read.
    pub reason: Option<String>,
}

/// What a tool said to one model file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// Why it was refused; none where it was accepted.
    pub error: Option<String>,
}

impl Answer {
    /// Whether the model was accepted.
    pub fn is_ok(&self) -> bool {
        self.error.is_none()
    }
}

/// Two models to run on the same samples.
#[derive(Debug, Clone, Serialize)]
pub struct RunJob {
    /// The reference.
    pub original: PathBuf,
    /// What is compared with it.
    pub candidate: PathBuf,
    /// Files with one array per input name, and the true classes as `label` where known.
    pub samples: Vec<PathBuf>,
    /// Measure the latency of both, on the first sample.
    pub time: bool,
}

/// How a candidate did against its original.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RunResult {
    /// Why one of them could not be loaded or run.
    pub error: Option<String>,
    /// One entry per output, in the order of the original; empty after an error.
    pub outputs: Vec<OutputParity>,
    /// Latency, where it was asked for.
    pub timing: Option<Timing>,
}

impl RunResult {
    /// The lowest SQNR of all outputs, in dB; -999 after an error.
    pub fn worst_sqnr_db(&self) -> f64 {
        let worst = self.outputs.iter().map(|output| output.sqnr_db).reduce(f64::min);
        worst.filter(|_| self.error.is_none()).unwrap_or(-999.0)
    }
}

/// How close one output of a candidate is to the original's, over all samples.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OutputParity {
    /// The output's name.
    pub name: String,
    /// The element type is the same on every sample.
    pub same_type: bool,
    /// The shape is the same on every sample.
    pub same_shape: bool,
    /// The output is the same bit for bit on every sample.
    pub equal: bool,
    /// The worst sample's signal to quantization noise ratio in dB, within ±999. 999 means
    /// no difference; -999 a difference without a ratio: another type, another shape, a
    /// NaN or infinity on one side only, or a reference that is all zero.
    pub sqnr_db: f64,
    /// The largest absolute error; none where types, shapes or finiteness differ.
    pub max_abs_error: Option<f64>,
    /// Top-1 accuracy of both, where the samples have labels and the output is [N, classes].
    pub top1: Option<Top1>,
}

/// Shares of correct answers, each 0 to 1.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Top1 {
    /// The original's share.
    pub original: f64,
    /// The candidate's share.
    pub candidate: f64,
    /// How many answers were judged.
    pub count: usize,
}

/// Latency of two models that ran in turn, one thread.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Timing {
    /// Median over pairs of candidate time / original time; below 1 the candidate is faster.
    pub ratio: f64,
    /// The original's median in milliseconds.
    pub original_ms: f64,
    /// The candidate's median in milliseconds.
    pub candidate_ms: f64,
    /// How many pairs were measured.
    pub pairs: usize,
}

/// Compares pairs of model files as protobuf messages, unknown fields included; payloads
/// in external files are compared as if they were inline. Answers come in order.
pub fn same_models(pairs: &[(PathBuf, PathBuf)]) -> Result<Vec<Comparison>> {
    ask("same_model.py", pairs)
}

/// Asks `onnx.checker.check_model` with full shape inference. Answers come in order.
pub fn check_models(models: &[PathBuf]) -> Result<Vec<Answer>> {
    ask("check_model.py", models)
}

/// Asks whether onnxruntime loads the models, on one CPU thread. Answers come in order.
pub fn load_models(models: &[PathBuf]) -> Result<Vec<Answer>> {
    ask("load_model.py", models)
}

/// Runs candidates and originals in onnxruntime, on one CPU thread. Answers come in order.
pub fn run_models(jobs: &[RunJob]) -> Result<Vec<RunResult>> {
    ask("run_models.py", jobs)
}

/// A script of `xtask/python`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}

/// Gives the jobs to a script as JSON and reads its answers, one per job.
pub(crate) fn ask<J: Serialize, A: DeserializeOwned>(name: &str, jobs: &[J]) -> Result<Vec<A>> {
    ask_in(&testdata::python(), name, jobs)
}

/// The same of a script that runs in another Python environment.
pub(crate) fn ask_in<J: Serialize, A: DeserializeOwned>(
    python: &Path,
    name: &str,
    jobs: &[J],
) -> Result<Vec<A>> {
    let mut child = Command::new(python)
        .args(["-W", "ignore"])
        .arg(script(name))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    // The scripts read all of their input before they write, so this cannot block for long.
    // A script that ended early says why below.
    let input = serde_json::to_vec(jobs)?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(&input));
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed, {}:\n{stderr}", output.status);
    written.transpose().with_context(|| format!("cannot give {name} its jobs"))?;
    let answers: Vec<A> = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{name} answered something else:\n{stderr}"))?;
    ensure!(answers.len() == jobs.len(), "{name} gave {} answers", answers.len());
    Ok(answers)
}
