//! Whether every command builds the crates from outside with the same features, so that none is
//! built twice: the program alone, xtask, and the workspace with its tests.
//!
//! `features/Cargo.toml` makes it so.

use std::collections::BTreeSet;
use std::env;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::testdata;

/// What is built, as arguments of `cargo tree`: the program, xtask, the tests of what `cargo test`
/// takes, and of a crate that needs the runtimes.
const BUILDS: [&[&str]; 5] = [
    &["--edges", "normal,build"],
    &["--edges", "normal,build", "--package", "modelopt-cli"],
    &["--edges", "normal,build", "--package", "xtask"],
    &["--edges", "normal,build,dev"],
    &["--edges", "normal,build,dev", "--package", "modelopt-runtime"],
];

/// Compares the features of each build with those of all tests.
///
/// # Errors
/// If a crate would be built again, with the features that `features/Cargo.toml` has to name.
pub fn check() -> Result<()> {
    let tests = tree(&["--workspace", "--edges", "normal,build,dev"])?;
    let mut again = BTreeSet::new();
    for build in BUILDS {
        again.extend(differing(&tree(build)?, &tests));
    }
    let list: Vec<&str> = again.iter().map(String::as_str).collect();
    ensure!(list.is_empty(), "with tests these have more features:\n  {}", list.join("\n  "));
    println!("features: the same in all builds");
    Ok(())
}

/// The crates of `built` that are not in `tests` with the same features, with both lists.
fn differing(built: &BTreeSet<String>, tests: &BTreeSet<String>) -> Vec<String> {
    let describe = |line: &String| {
        let (package, features) = line.split_once('|')?;
        let same = |other: &&String| other.split_once('|').is_some_and(|(name, _)| name == package);
        let other: Vec<&str> =
            tests.iter().filter(same).filter_map(|l| Some(l.split_once('|')?.1)).collect();
        Some(format!("{package}: {features}; with tests: {}", other.join(" or ")))
    };
    built.difference(tests).filter_map(describe).collect()
}

/// The crates from outside that a command builds, a line each: `name version|feature,feature`.
fn tree(arguments: &[&str]) -> Result<BTreeSet<String>> {
    let root = testdata::workspace_root();
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--prefix", "none", "--format", "{p}|{f}"])
        .args(arguments)
        .current_dir(&root)
        .output()
        .context("cannot start cargo")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo tree failed: {stderr}");
    let own = root.display().to_string();
    let text = String::from_utf8(output.stdout)?;
    let outside = text.lines().filter(|line| !line.contains(&own));
    Ok(outside.map(|line| line.trim_end_matches(" (*)").to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::differing;

    #[test]
    fn only_what_has_other_features_is_named() {
        let set = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
        let tests = set(&["a v1|std", "b v1|alloc,std", "b v1|"]);
        assert!(differing(&set(&["a v1|std", "b v1|"]), &tests).is_empty());
        assert_eq!(
            differing(&set(&["a v1|std", "b v1|std"]), &tests),
            ["b v1: std; with tests:  or alloc,std"]
        );
    }
}
