//! The lists of what is known to fail, in `xtask/conformance/*.txt`, each with its reason.
//!
//! They can only shrink: what is not listed must pass, and what is listed must still fail.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};
use fs_err as fs;

/// Holds failures against the checked-in list: what is not in it, and what no longer fails.
pub(super) fn against(suite: &str, failures: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let file = file.join(format!("{suite}.txt"));
    let text = fs::read_to_string(&file)?;
    let listed: BTreeMap<&str, &str> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split_once(':').unwrap_or((line, "")))
        .collect();
    for (name, reason) in &listed {
        ensure!(!reason.trim().is_empty(), "{}: '{name}' has no reason", file.display());
    }
    let new = failures
        .iter()
        .filter(|(name, _)| !listed.contains_key(name.as_str()))
        .map(|(name, failure)| format!("{suite} {name}: {failure}"));
    let gone = listed
        .keys()
        .filter(|name| !failures.contains_key(**name))
        .map(|name| format!("{suite} {name}: passes now; take it off the list"));
    Ok(new.chain(gone).collect())
}
