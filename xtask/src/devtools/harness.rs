//! Checks in a browser as a test of their own harness. They are ignored unless `--include-ignored` is given,
//! and say so where there is no Chromium on PATH, or fail if `MODELOPT_REQUIRE_BROWSER` is 1; the usual
//! harness would keep that to itself.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use fs_err as fs;

use super::find;

/// Runs checks, each on what `start` made of the browser's program and of a fresh `folder`. Pages and
/// screenshots stay in the folder.
///
/// # Panics
/// Where a check does, or the folder cannot be made.
pub fn run<C, T>(
    folder: &Path,
    checks: &[(&'static str, C)],
    start: impl FnOnce(&Path, &Path) -> T,
    check: impl Fn(&C, &mut T),
) -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let filters = filters(&arguments);
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|part| name.contains(*part));
    let checks: Vec<_> = checks.iter().filter(|(name, _)| wanted(name)).collect();
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
    let Some(program) = find() else {
        eprintln!("\nBROWSER CHECK NOT RUN: neither chromium nor google-chrome is on PATH\n");
        if env::var("MODELOPT_REQUIRE_BROWSER").is_ok_and(|value| value == "1") {
            eprintln!("that is a failure, because MODELOPT_REQUIRE_BROWSER is 1");
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    };
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).unwrap();
    let mut browser = start(&program, folder);
    for (name, wanted) in checks {
        eprint!("browser check {name} ... ");
        check(wanted, &mut browser);
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
