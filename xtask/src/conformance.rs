//! What the toolkit does with other people's tests: conversion of the ONNX node tests
//! (`nodes`), and both commands on the models that the `onnx` package ships beside them
//! (`models`).
//!
//! Exceptions are listed in `xtask/conformance/*.txt` with their reasons. The lists can only
//! shrink: what is not listed must pass, and what is listed must still fail.

mod batch;
mod exceptions;
mod models;
mod nodes;

use std::env;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::testdata;

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

/// Runs all suites with what was built last, and prints tables.
///
/// # Errors
/// If something is worse than the lists of exceptions say, or better.
pub fn run() -> Result<()> {
    let mut complaints = nodes::run()?;
    complaints.extend(models::run()?);
    if complaints.is_empty() {
        println!("conformance: as the lists of exceptions say");
        return Ok(());
    }
    bail!("conformance is not what the lists of exceptions say:\n  {}", complaints.join("\n  "))
}
