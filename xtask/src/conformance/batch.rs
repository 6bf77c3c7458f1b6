//! Many models through the library in one process, `modelopt-conformance`.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::testdata;

/// One model to optimise.
#[derive(Debug, Serialize)]
pub(super) struct Job {
    pub(super) model: PathBuf,
    pub(super) output: PathBuf,
    pub(super) samples: Option<PathBuf>,
}

#[derive(Serialize)]
struct Batch<'a> {
    settings: &'a str,
    /// Bring models to the newest operator set rather than optimise them.
    upgrade: bool,
    jobs: &'a [Job],
}

/// A line of what the process says.
#[derive(Deserialize)]
struct Line {
    job: usize,
    document: Value,
}

/// The settings of a suite as the text of a `modelopt.toml`, which name ONNX Runtime's library, so
/// that no Python is started to find it.
pub(super) fn settings(own: &str) -> Result<String> {
    let library = testdata::onnxruntime()?;
    Ok(format!("onnxruntime = {:?}\nruntime = \"onnxruntime\"\n{own}", library.display()))
}

/// Optimises all models with these settings; the documents come in the order of the jobs, each a
/// report or `{"error": text}`.
///
/// # Errors
/// If the process does not answer for every job; the error names those that it left.
pub(super) fn run(settings: &str, jobs: &[Job]) -> Result<Vec<Value>> {
    answers(&Batch { settings, upgrade: false, jobs })
}

/// Upgrades all models with these settings; the documents come in the order of the jobs, each what was
/// done or `{"error": text}`.
///
/// # Errors
/// As [`run`].
pub(super) fn upgrade(settings: &str, jobs: &[Job]) -> Result<Vec<Value>> {
    answers(&Batch { settings, upgrade: true, jobs })
}

/// The process.
pub(super) fn program() -> PathBuf {
    let name = format!("modelopt-conformance{}", env::consts::EXE_SUFFIX);
    testdata::target_dir().join("release").join(name)
}

fn answers(batch: &Batch<'_>) -> Result<Vec<Value>> {
    let (program, jobs) = (program(), batch.jobs);
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    // It reads all of its input before it answers; where it ended early, its answers are missing.
    let input = serde_json::to_vec(batch)?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(&input));
    let output = child.wait_with_output()?;
    let documents = in_order(&output.stdout, jobs)?;
    ensure!(output.status.success(), "the process failed, {}", output.status);
    written.transpose().context("cannot give the process its jobs")?;
    Ok(documents)
}

/// Puts the answers into the order of the jobs.
fn in_order(stdout: &[u8], jobs: &[Job]) -> Result<Vec<Value>> {
    let mut documents: Vec<Option<Value>> = jobs.iter().map(|_| None).collect();
    for line in String::from_utf8_lossy(stdout).lines() {
        let Line { job, document } =
            serde_json::from_str(line).with_context(|| format!("no answer: {line}"))?;
        *documents.get_mut(job).context("an answer to no job")? = Some(document);
    }
    let unanswered = jobs.iter().zip(&documents).filter(|(_, document)| document.is_none());
    let left: Vec<String> = unanswered.map(|(job, _)| shown(&job.model)).take(8).collect();
    ensure!(left.is_empty(), "the process ended before these, or in one: {}", left.join(", "));
    Ok(documents.into_iter().flatten().collect())
}

fn shown(model: &Path) -> String {
    model.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::{Job, in_order};

    fn jobs() -> Vec<Job> {
        ["a", "b"].map(|name| Job { model: name.into(), output: "o".into(), samples: None }).into()
    }

    #[test]
    fn answers_come_in_the_order_of_the_jobs() {
        let said = b"{\"job\": 1, \"document\": 11}\n{\"job\": 0, \"document\": 10}\n";
        assert_eq!(in_order(said, &jobs()).unwrap(), [10, 11]);
    }

    #[test]
    fn what_was_not_answered_is_named() {
        let error = in_order(b"{\"job\": 1, \"document\": 11}\n", &jobs()).unwrap_err();
        assert!(error.to_string().ends_with("or in one: a"), "{error}");
        assert!(in_order(b"{\"job\": 2, \"document\": 11}\n", &jobs()).is_err());
    }
}
