//! What the toolkit does with other people's tests: conversion of the ONNX node tests
//! (`nodes`), both commands on the models that the `onnx` package ships beside them
//! (`models`), and upgrades of old models (`upgrades`).
//!
//! Exceptions are listed in `xtask/conformance/*.txt` with their reasons. The lists can only
//! shrink: what is not listed must pass, and what is listed must still fail.

mod batch;
mod exceptions;
mod models;
mod nodes;
mod steps;
mod upgrades;

use std::env;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;

use crate::{readme, testdata};

/// Builds the program and what runs the suites.
///
/// # Errors
/// If it does not build.
pub fn build() -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--workspace"])
        .current_dir(testdata::workspace_root())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "cargo build failed, {status}");
    Ok(())
}

/// Runs all suites with what was built last, and prints tables. README's table is written, or held
/// against what was found.
///
/// # Errors
/// If something is worse than the lists of exceptions say, or better, or README says something else.
pub fn run(writes: bool) -> Result<()> {
    let (mut complaints, table) = nodes::run()?;
    complaints.extend(models::run()?);
    // What is worse must not be lost for a README that cannot be read, nor written into it.
    let is_written = writes && complaints.is_empty();
    complaints.extend(in_readme(&table, is_written).err().map(|error| format!("{error:#}")));
    if complaints.is_empty() {
        println!("conformance: as README and the lists of exceptions say");
        return Ok(());
    }
    bail!("conformance is not what it should be:\n  {}", complaints.join("\n  "))
}

/// Upgrades old models with what was built last, and prints a table. Those of `docs/upgrade.md` are
/// written, or held against what was found.
///
/// # Errors
/// If a model is not the same afterwards, or an operator changes without an adapter or a reason.
pub fn upgrades(writes: bool) -> Result<()> {
    let complaints = upgrades::run(writes)?;
    if complaints.is_empty() {
        println!("upgrades: as docs/upgrade.md says");
        return Ok(());
    }
    bail!("upgrades are not what they should be:\n  {}", complaints.join("\n  "))
}

/// Writes README's table, or holds it against one.
fn in_readme(table: &str, writes: bool) -> Result<()> {
    let before = fs::read_to_string(readme::path())?;
    let after = readme::replaced(&before, "conformance", table)?;
    if writes {
        fs::write(readme::path(), &after)?;
    } else {
        ensure!(after == before, "README has other figures: `cargo xtask conformance --write`");
    }
    Ok(())
}
