//! What may come in from outside: cargo-deny holds `Cargo.lock` to `deny.toml`.
//!
//! cargo-deny is put under `target/tools` where it is not installed. Advisories are looked up where
//! their database can be reached; where it cannot, that is said.

use std::env;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::testdata;

/// The version of cargo-deny that is installed.
const VERSION: &str = "0.20.2";

/// Holds the packages of the workspace to `deny.toml`.
///
/// # Errors
/// If something may not come in, or cargo-deny cannot be had.
pub fn check() -> Result<()> {
    if !succeeds(&["deny", "--version"]) {
        let root = testdata::workspace_root().join("target/tools");
        // It is small, and runs for a second: what counts is how long it takes to build.
        let version = ["--version", VERSION];
        let mut install = cargo(&["install", "cargo-deny", "--locked", "--debug", "--quiet"]);
        run(install.args(version).arg("--root").arg(root))?;
    }
    run(&mut cargo(&["deny", "check", "licenses", "bans", "sources"]))?;
    if !succeeds(&["deny", "fetch", "db"]) {
        println!("ADVISORIES NOT CHECKED: their database cannot be reached");
        return Ok(());
    }
    run(&mut cargo(&["deny", "check", "advisories"]))
}

/// Cargo in the workspace, which finds what was installed before.
fn cargo(arguments: &[&str]) -> Command {
    let root = testdata::workspace_root();
    let own = root.join("target/tools/bin");
    let known = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(own).chain(env::split_paths(&known)));
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root).env("PATH", path.unwrap_or(known));
    command
}

fn succeeds(arguments: &[&str]) -> bool {
    cargo(arguments).output().is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed, {status}");
    Ok(())
}
