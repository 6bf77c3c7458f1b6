//! What may come in from outside: `deny.toml` held against `Cargo.lock`.
//!
//! cargo-deny takes longer to build than the rest of a check of one commit. What can be said
//! without a network is said here, from the same file; where cargo-deny is installed, it has the
//! last word, and looks up advisories where it reaches their database.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde::Deserialize;

use crate::{licence, testdata};

/// The parts of `deny.toml` that are held against the packages here.
#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Banned>,
    skip: Vec<Skipped>,
}

#[derive(Debug, Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Debug, Deserialize)]
struct Skipped {
    /// `name@version`, where the version may be the first part of one.
    #[serde(rename = "crate")]
    spec: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Clone, Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for what lies in this workspace.
    source: Option<String>,
}

/// Holds the packages of the workspace to `deny.toml`, then has cargo-deny do so.
///
/// # Errors
/// If something may not come in.
pub fn check() -> Result<()> {
    let root = testdata::workspace_root();
    let policy: Policy = toml::from_str(&fs::read_to_string(root.join("deny.toml"))?)
        .context("deny.toml is not as expected")?;
    let metadata: Metadata = serde_json::from_slice(&output(&["metadata", "--format-version=1"])?)?;
    let complaints = complaints(&policy, &metadata.packages)?;
    ensure!(complaints.is_empty(), "deny.toml does not let in:\n  {}", complaints.join("\n  "));
    println!(
        "dependencies: licences, bans and sources of {} packages are as deny.toml says",
        metadata.packages.len()
    );
    if output(&["deny", "--version"]).is_err() {
        println!("ADVISORIES NOT CHECKED: cargo-deny is not installed");
        return Ok(());
    }
    cargo(&["deny", "check", "licenses", "bans", "sources"])?;
    if output(&["deny", "fetch", "db"]).is_err() {
        println!("ADVISORIES NOT CHECKED: their database cannot be reached");
        return Ok(());
    }
    cargo(&["deny", "check", "advisories"])
}

fn cargo_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(testdata::workspace_root());
    command
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let status = cargo_command(arguments).status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo {} failed, {status}", arguments.join(" "));
    Ok(())
}

fn output(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = cargo_command(arguments).output().context("cannot start cargo")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {} failed: {stderr}", arguments.join(" "));
    Ok(output.stdout)
}

/// Everything that the policy refuses, and what it permits in vain.
fn complaints(policy: &Policy, packages: &[Package]) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for package in packages {
        let Package { name, version, license, source } = package;
        let allowed = |licence: &str| {
            let exceptions = policy.licenses.exceptions.iter().filter(|e| e.name == *name);
            let mut lists = vec![&policy.licenses.allow];
            lists.extend(exceptions.map(|exception| &exception.allow));
            lists.into_iter().flatten().any(|known| known == licence)
        };
        let Some(expression) = license else {
            complaints.push(format!("{name} {version}: no licence is named"));
            continue;
        };
        let met = licence::is_met(expression, &allowed).with_context(|| name.clone())?;
        if !met {
            complaints.push(format!("{name} {version}: licence {expression}"));
        }
        if policy.bans.deny.iter().any(|banned| banned.name == *name) {
            complaints.push(format!("{name} {version}: banned"));
        }
        let registry = source.as_deref().map(|source| source.trim_start_matches("registry+"));
        if let Some(from) = registry
            && !policy.sources.allow_registry.iter().any(|known| known == from)
        {
            complaints.push(format!("{name} {version}: from {from}"));
        }
    }
    complaints.extend(duplicates(&policy.bans.skip, packages));
    Ok(complaints)
}

/// Crates that come in several versions, but for those that are to be skipped; and what is to be
/// skipped but does not come in.
fn duplicates(skipped: &[Skipped], packages: &[Package]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for Package { name, version, .. } in packages {
        match skipped.iter().find(|skipped| matches(&skipped.spec, name, version)) {
            Some(skipped) => _ = used.insert(&skipped.spec),
            None => _ = versions.entry(name).or_default().insert(version),
        }
    }
    let several = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    let several = several.map(|(name, versions)| {
        let versions: Vec<&str> = versions.into_iter().collect();
        format!("{name} in versions {}", versions.join(" and "))
    });
    let unused = skipped.iter().filter(|skipped| !used.contains(skipped.spec.as_str()));
    let unused = unused.map(|skipped| format!("{} is skipped, but not there", skipped.spec));
    several.chain(unused).collect()
}

/// Whether `name@0.8` is this package.
fn matches(spec: &str, name: &str, version: &str) -> bool {
    let Some((wanted, prefix)) = spec.split_once('@') else { return spec == name };
    let rest = version.strip_prefix(prefix);
    wanted == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::{Package, Policy, complaints};

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT"]
        exceptions = [{ crate = "by-file", allow = ["MPL-2.0"] }]
        [bans]
        deny = [{ crate = "evil" }]
        skip = [{ crate = "twice@0.1" }]
        [sources]
        allow-registry = ["https://good"]
    "#;

    fn package(name: &str, version: &str, license: &str, source: Option<&str>) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            license: (!license.is_empty()).then(|| license.into()),
            source: source.map(Into::into),
        }
    }

    /// The complaints about what is right and one package more.
    fn with(package_too: Package) -> Vec<String> {
        let policy: Policy = toml::from_str(POLICY).unwrap();
        let packages = [
            package("own", "1.0.0", "MIT", None),
            package("by-file", "1.0.0", "MPL-2.0", Some("registry+https://good")),
            package("twice", "0.1.9", "MIT", Some("registry+https://good")),
            package("twice", "0.2.0", "MIT", Some("registry+https://good")),
            package_too,
        ];
        complaints(&policy, &packages).unwrap()
    }

    #[test]
    fn what_the_policy_permits_comes_in() {
        assert!(with(package("own", "1.0.0", "MIT", None)).is_empty());
    }

    #[test]
    fn each_kind_of_stranger_is_named() {
        let good = Some("registry+https://good");
        for (stranger, words) in [
            (package("a", "1.0.0", "MPL-2.0", good), "a 1.0.0: licence MPL-2.0"),
            (package("a", "1.0.0", "", good), "a 1.0.0: no licence is named"),
            (package("evil", "1.0.0", "MIT", good), "evil 1.0.0: banned"),
            (package("a", "1.0.0", "MIT", Some("git+https://x")), "a 1.0.0: from git+https://x"),
            (package("twice", "0.10.0", "MIT", good), "twice in versions 0.10.0 and 0.2.0"),
        ] {
            assert_eq!(with(stranger), [words]);
        }
    }

    #[test]
    fn a_skip_that_is_not_needed_is_refused() {
        let policy: Policy = toml::from_str(POLICY).unwrap();
        let only = [package("twice", "0.2.0", "MIT", None)];
        assert_eq!(complaints(&policy, &only).unwrap(), ["twice@0.1 is skipped, but not there"]);
    }
}
