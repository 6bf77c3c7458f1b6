//! Every test model for every runtime that runs it: whatever the target, a run ends with an artifact
//! or a refusal, never with an error.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use crate::{program, testdata};

const RUNTIMES: [&str; 3] = ["onnxruntime", "rten", "tract"];

/// Commands with their arguments.
const WAYS: [(&str, &[&str]); 2] =
    [("quantize", &["quantize"]), ("fp16", &["convert", "--to", "fp16"])];

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Emitted,
    Refused,
    Failed,
    /// The runtime does not run the original.
    NotRun,
}

impl End {
    /// What an exit code means.
    fn of(code: Option<i32>) -> End {
        match code {
            Some(0) => End::Emitted,
            Some(3) => End::Refused,
            _ => End::Failed,
        }
    }
}

/// Runs all models for all runtimes and prints a table.
///
/// # Errors
/// If a runtime that runs the original ends in an error, or onnxruntime does not run one.
pub fn run() -> Result<()> {
    let program = program::program()?;
    let folder = testdata::target_dir().join("every-runtime");
    fs::create_dir_all(&folder)?;
    let mut failed = Vec::new();
    for (model, path) in testdata::models() {
        for runtime in RUNTIMES {
            let bench = ended(&program, &["bench"], &path, &["--runtime", runtime])?;
            let runs = bench == End::Emitted;
            for (way, arguments) in WAYS {
                let output = folder.join(format!("{model}.{runtime}.{way}.onnx"));
                let output = output.display().to_string();
                let samples = testdata::samples(model).display().to_string();
                let more = ["--runtime", runtime, "-o", &output, "--samples", &samples];
                let end =
                    if runs { ended(&program, arguments, &path, &more)? } else { End::NotRun };
                println!("{model:<22}{runtime:<13}{way:<10}{end:?}");
                if !is_right(runtime, end) {
                    failed.push(format!("{way} of {model} for {runtime}: {end:?}"));
                }
            }
        }
    }
    ensure!(failed.is_empty(), "not every run ended well:\n  {}", failed.join("\n  "));
    Ok(())
}

/// Whether a run may end so. onnxruntime runs every test model.
fn is_right(runtime: &str, end: End) -> bool {
    match end {
        End::Emitted | End::Refused => true,
        End::Failed => false,
        End::NotRun => runtime != "onnxruntime",
    }
}

fn ended(program: &Path, arguments: &[&str], model: &Path, more: &[&str]) -> Result<End> {
    let mut command = Command::new(program);
    command.args(arguments).arg(model).args(more).stdin(Stdio::null());
    command.env("PATH", program::path_with_python()?).env_remove("ORT_DYLIB_PATH");
    let output = command.output().context("cannot start the program")?;
    let end = End::of(output.status.code());
    if end == End::Failed {
        eprintln!("{}: {}", model.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::{End, is_right};

    #[test]
    fn a_refusal_is_an_end_and_an_error_is_not() {
        assert_eq!(
            [Some(0), Some(3), Some(1), None].map(End::of),
            [End::Emitted, End::Refused, End::Failed, End::Failed]
        );
        assert!(is_right("tract", End::Refused) && !is_right("tract", End::Failed));
        assert!(is_right("tract", End::NotRun) && !is_right("onnxruntime", End::NotRun));
    }
}
