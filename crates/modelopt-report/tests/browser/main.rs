//! Reports in a real browser: Chromium opens them without an error in its console and without a
//! network request, the plan can be sorted and filtered, and no label of a plot is cut off.
//!
//! Like other tests that need more than a compiler, these are ignored unless `--include-ignored` is
//! given. They say so where there is no Chromium on PATH, or fail if `MODELOPT_REQUIRE_BROWSER` is 1; the
//! usual test harness would keep that to itself. Pages and screenshots stay in
//! `target/tmp/report-browser`.

mod browser;
mod checks;
#[path = "../common/mod.rs"]
mod common;

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use browser::Browser;
use xtask::devtools;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let filters = filters(&arguments);
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|part| name.contains(*part));
    let checks: Vec<_> = checks::ALL.iter().filter(|(name, _)| wanted(name)).collect();
    if has("--list") {
        for (name, _) in checks {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if checks.is_empty() {
        return ExitCode::SUCCESS;
    }
    if !has("--include-ignored") && !has("--ignored") {
        for (name, _) in checks {
            eprintln!("browser check {name} ... ignored, needs a browser: cargo xtask test");
        }
        return ExitCode::SUCCESS;
    }
    let Some(program) = devtools::find() else {
        eprintln!("\nBROWSER CHECK NOT RUN: neither chromium nor google-chrome is on PATH\n");
        if env::var("MODELOPT_REQUIRE_BROWSER").is_ok_and(|value| value == "1") {
            eprintln!("that is a failure, because MODELOPT_REQUIRE_BROWSER is 1");
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-browser");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let mut browser = Browser::start(&program, folder.clone());
    for (name, check) in checks {
        eprint!("browser check {name} ... ");
        check(&mut browser);
        eprintln!("ok");
    }
    drop(browser);
    let _ = fs::remove_dir_all(folder.join("profile"));
    eprintln!("pages and screenshots are in {}", folder.display());
    ExitCode::SUCCESS
}

/// Parts of names among the arguments that the usual harness knows.
fn filters(arguments: &[String]) -> Vec<&str> {
    const WITH_VALUE: [&str; 5] = ["--test-threads", "--skip", "--format", "--color", "--logfile"];
    let mut filters = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if WITH_VALUE.contains(&argument.as_str()) {
            rest.next();
        } else if !argument.starts_with('-') {
            filters.push(argument.as_str());
        }
    }
    filters
}
