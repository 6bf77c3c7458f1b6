//! The gate against random small models with planted structure: a damaged copy of each must be
//! refused, and one that is only rounded otherwise must pass.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use serde::Deserialize;

use crate::parallel::parallel;
use crate::{oracle, program, testdata};

/// More than this share of either may not go wrong.
const MOST_WRONG: f64 = 0.01;

/// A model, as `make_sweep.py` tells of it.
#[derive(Debug, Deserialize)]
struct Case {
    folder: String,
    kind: String,
    damage: String,
}

/// Makes `count` models from a seed and holds the gate to them.
///
/// # Errors
/// If one in a hundred damages passes, or one in a hundred sound models is refused.
pub fn run(seed: u64, count: usize) -> Result<()> {
    let folder = testdata::target_dir().join("sweep");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let status = Command::new(testdata::python())
        .arg(oracle::script("make_sweep.py"))
        .arg(&folder)
        .args([seed.to_string(), count.to_string()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status()
        .context("cannot start Python")?;
    ensure!(status.success(), "make_sweep.py failed, {status}");
    let cases: Vec<Case> = serde_json::from_str(&fs::read_to_string(folder.join("cases.json"))?)?;
    let answers: Result<Vec<(bool, bool)>> = parallel(&cases, |case| {
        let folder = folder.join(&case.folder);
        Ok((passes(&folder, "damaged.onnx")?, passes(&folder, "rounded.onnx")?))
    })
    .into_iter()
    .collect();
    let mut missed = Vec::new();
    let mut refused = Vec::new();
    for (case, (damaged, rounded)) in cases.iter().zip(answers?) {
        if damaged {
            missed.push(format!("{} {}: {}", case.folder, case.kind, case.damage));
        }
        if !rounded {
            refused.push(format!("{} {}", case.folder, case.kind));
        }
    }
    let share = |wrong: &[String]| wrong.len() as f64 / cases.len().max(1) as f64;
    println!(
        "sweep with seed {seed}: {} of {} damages pass, {} of {} sound models are refused",
        missed.len(),
        cases.len(),
        refused.len(),
        cases.len()
    );
    if share(&missed) >= MOST_WRONG || share(&refused) >= MOST_WRONG {
        let list = |title: &str, names: &[String]| format!("{title}:\n  {}", names.join("\n  "));
        bail!("{}\n{}", list("damages that pass", &missed), list("sound models refused", &refused));
    }
    Ok(())
}

/// Whether `modelopt compare` lets a model pass with its default limits.
fn passes(folder: &Path, candidate: &str) -> Result<bool> {
    let mut command = Command::new(program::program()?);
    command.arg("compare").arg("model.onnx").arg(candidate);
    command.args(["--samples", "samples", "--runtime", "onnxruntime", "--no-latency"]);
    command.current_dir(folder).stdin(Stdio::null());
    command.env("PATH", program::path_with_python()?).env_remove("ORT_DYLIB_PATH");
    let output = command.output().context("cannot start the program")?;
    match output.status.code() {
        Some(0) => Ok(true),
        // A candidate that cannot be compared is refused as well.
        Some(1 | 3) => Ok(false),
        _ => bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
    }
}
