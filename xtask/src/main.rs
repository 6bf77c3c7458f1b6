//! `cargo xtask`: set-up, generated files and the whole test run.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use xtask::{conformance, schema, setup, testdata};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, generated files and the whole test run")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make the Python environment, test models, node tests and samples under target/
    Setup,
    /// Generate the operator table of modelopt-graph
    Schema {
        /// Write nothing; fail if the checked-in table is not up to date
        #[arg(long)]
        check: bool,
    },
    /// Convert the models of the node tests to 16 bits and hold them against their originals
    Conformance,
    /// Set up, check generated files, run all tests and the conformance suites
    Test {
        /// Arguments for `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup => setup::run(),
        Task::Schema { check } => {
            setup::run()?;
            if check { check_schema() } else { write_schema() }
        }
        Task::Conformance => {
            setup::run()?;
            conformance::build()?;
            conformance::run()
        }
        Task::Test { arguments } => {
            setup::run()?;
            check_schema()?;
            run_tests(&arguments)?;
            // The tests ran the program, so it is built.
            conformance::run()?;
            println!("xtask test: set-up, generated files, all tests and conformance passed");
            Ok(())
        }
    }
}

fn write_schema() -> Result<()> {
    let outcome = if schema::write()? { "written" } else { "already up to date" };
    eprintln!("schema: {outcome}");
    Ok(())
}

fn check_schema() -> Result<()> {
    schema::check()?;
    eprintln!("schema: up to date");
    Ok(())
}

/// All tests of the workspace, documentation examples included.
fn run_tests(arguments: &[String]) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--release", "--workspace"])
        .args(arguments)
        .current_dir(testdata::workspace_root())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "cargo test failed, {status}");
    Ok(())
}
