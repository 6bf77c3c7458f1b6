//! The operator table of `modelopt-graph`, generated from the onnx and onnxruntime packages.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;

use crate::{oracle, testdata};

/// The checked-in table.
pub fn path() -> PathBuf {
    testdata::workspace_root().join("crates/modelopt-graph/data/operators.txt")
}

/// The table as the pinned packages have it.
pub fn generate() -> Result<String> {
    let output = Command::new(testdata::python())
        .arg(oracle::script("make_schema.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .context("cannot start make_schema.py")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "make_schema.py failed:\n{stderr}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Writes the table; says whether it changed.
pub fn write() -> Result<bool> {
    let text = generate()?;
    let path = path();
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    fs::create_dir_all(path.parent().context("the table lies in a folder")?)?;
    fs::write(path, text)?;
    Ok(true)
}

/// Fails where the checked-in table is not what the pinned packages give.
pub fn check() -> Result<()> {
    let fresh = generate()?;
    let path = path();
    let old = fs::read_to_string(&path)?;
    if old == fresh {
        return Ok(());
    }
    bail!(
        "{} is not what the pinned packages give: run `cargo xtask schema`\n{}",
        path.display(),
        first_difference(&old, &fresh)
    );
}

/// The first line that differs, from both sides, with its number.
fn first_difference(old: &str, fresh: &str) -> String {
    let (mut old, mut fresh) = (old.lines(), fresh.lines());
    let mut number = 1;
    loop {
        match (old.next(), fresh.next()) {
            (Some(a), Some(b)) if a == b => number += 1,
            (None, None) => return "only the line ends differ".to_owned(),
            (a, b) => {
                let [a, b] = [a, b].map(|line| line.unwrap_or("(end of file)"));
                return format!("line {number}:\n- {a}\n+ {b}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_difference_is_shown_with_its_line() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), "line 2:\n- b\n+ c");
        assert_eq!(first_difference("a\n", "a\nc\n"), "line 2:\n- (end of file)\n+ c");
        assert_eq!(first_difference("a\n", "a"), "only the line ends differ");
    }
}
