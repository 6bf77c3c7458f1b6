//! `cargo xtask`: set-up, generated files and the whole test run.

use std::env;
use std::ops::RangeInclusive;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use xtask::{
    clients, conformance, dependencies, every_runtime, features, peers, results, schema, setup,
    sweep, testdata,
};

/// The sweep of the tests; `cargo xtask sweep` takes others.
const SWEEP_SEED: u64 = 1;
const SWEEP_COUNT: usize = 220;
/// The sweeps of a night.
const NIGHTLY_SEEDS: RangeInclusive<u64> = 2..=9;

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
    /// Hold what comes in from outside to deny.toml, and see that all builds share it
    Dependencies,
    /// Convert the models of the node tests to 16 bits and hold them against their originals
    Conformance {
        /// Write README's table rather than hold it against what is found
        #[arg(long)]
        write: bool,
    },
    /// Bring models of old operator sets to the newest and hold them against their originals
    Upgrades {
        /// Write the tables of docs/upgrade.md rather than hold them against what is found
        #[arg(long)]
        write: bool,
    },
    /// Hold the gate to random small models with planted structure and planted damages
    Sweep {
        /// Seed of the models
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many there are; each has one damaged copy and one that is only rounded otherwise
        #[arg(long, default_value_t = 220)]
        count: usize,
    },
    /// Measure the real models and write README's tables
    Results {
        /// Measure nothing; fail if README is not what docs/results.json says
        #[arg(long)]
        check: bool,
    },
    /// Measure the program beside other tools for static int8 and write README's table
    Peers {
        /// Measure nothing; fail if README is not what docs/peers.json says
        #[arg(long)]
        check: bool,
    },
    /// Ask a server by clients that others wrote
    Clients,
    /// What takes too long for every commit: sweeps with other seeds, all models in all runtimes,
    /// other tools beside the program
    Nightly,
    /// Set up, check generated files, run all tests, the conformance suites, upgrades, a sweep and the
    /// clients of servers
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
    let reads_only = matches!(
        task,
        Task::Dependencies | Task::Results { check: true } | Task::Peers { check: true }
    );
    if !reads_only {
        setup::run()?;
    }
    match task {
        Task::Setup => Ok(()),
        Task::Dependencies => dependencies::check().and(features::check()),
        Task::Results { check: true } => results::check(),
        Task::Schema { check: true } => check_schema(),
        Task::Schema { check: false } => write_schema(),
        Task::Conformance { write } => conformance::build().and_then(|()| conformance::run(write)),
        Task::Upgrades { write } => {
            conformance::build().and_then(|()| conformance::upgrades(write))
        }
        Task::Sweep { seed, count } => conformance::build().and_then(|()| sweep::run(seed, count)),
        Task::Results { .. } => conformance::build().and_then(|()| results::measure()),
        Task::Peers { check: true } => peers::check(),
        Task::Peers { .. } => conformance::build().and_then(|()| peers::measure()),
        Task::Clients => conformance::build().and_then(|()| clients::run()),
        Task::Nightly => run_all(&[
            ("program", &conformance::build),
            ("sweeps", &sweeps),
            ("every runtime", &every_runtime::run),
            ("other tools", &peers::hold),
        ]),
        Task::Test { arguments } => run_all(&[
            ("generated files", &|| check_schema().and(results::check()).and(peers::check())),
            ("tests", &|| run_tests(&arguments)),
            ("program", &conformance::build),
            ("conformance", &|| conformance::run(false)),
            ("upgrades", &|| conformance::upgrades(false)),
            ("sweep", &|| sweep::run(SWEEP_SEED, SWEEP_COUNT)),
            ("clients", &clients::run),
        ]),
    }
}

/// All sweeps of a night, the rest too where one fails.
fn sweeps() -> Result<()> {
    // Collected first, so that all are made.
    let swept: Vec<Result<()>> = NIGHTLY_SEEDS.map(|seed| sweep::run(seed, SWEEP_COUNT)).collect();
    swept.into_iter().collect()
}

type Step<'a> = (&'static str, &'a dyn Fn() -> Result<()>);

/// Takes every step, whatever became of those before, so that one run tells all; sums up at the end.
fn run_all(steps: &[Step<'_>]) -> Result<()> {
    let mut outcomes = Vec::new();
    for (name, step) in steps {
        let outcome = step();
        if let Err(error) = &outcome {
            eprintln!("{name}: {error:#}");
        }
        outcomes.push((name, outcome.is_ok()));
    }
    println!();
    for (name, passed) in &outcomes {
        println!("  {name}: {}", if *passed { "passed" } else { "FAILED" });
    }
    let failed: Vec<&str> = outcomes.iter().filter(|(_, ok)| !ok).map(|(name, _)| **name).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
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

/// All tests of the workspace, documentation examples and those that `cargo test` leaves out
/// included, the rest too where one fails.
fn run_tests(arguments: &[String]) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let (own, of_tests) = split(arguments);
    let status = Command::new(cargo)
        .args(["test", "--release", "--workspace", "--no-fail-fast"])
        .args(own)
        .args(["--", "--include-ignored"])
        .args(of_tests)
        .current_dir(testdata::workspace_root())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "cargo test failed, {status}");
    Ok(())
}

/// Arguments of cargo, and those of the tests behind `--`.
fn split(arguments: &[String]) -> (&[String], &[String]) {
    match arguments.iter().position(|argument| argument == "--") {
        Some(place) => (&arguments[..place], &arguments[place + 1..]),
        None => (arguments, &[]),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::bail;

    use super::{run_all, split};

    #[test]
    fn every_step_is_taken_and_the_failed_ones_are_named() {
        let taken = Cell::new(0);
        let count = || {
            taken.set(taken.get() + 1);
            Ok(())
        };
        let fails = || {
            count()?;
            bail!("no")
        };
        let error = run_all(&[("one", &fails), ("two", &count), ("three", &fails)]).unwrap_err();
        assert_eq!((taken.get(), error.to_string().as_str()), (3, "failed: one, three"));
        run_all(&[("two", &count)]).unwrap();
    }

    #[test]
    fn arguments_of_the_tests_stand_behind_two_dashes() {
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let all = list(&["-p", "x", "--", "name"]);
        assert_eq!(split(&all), (&all[..2], &all[3..]));
        assert_eq!(split(&all[..2]), (&all[..2], &all[4..]));
    }
}
