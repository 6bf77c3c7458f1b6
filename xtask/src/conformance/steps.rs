//! Versions at which operators change: what an upgrade does at each, held against the schemas of the
//! `onnx` package, which know default values as well.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::batch;
use crate::oracle;

/// Operator sets from the one after this on are upgraded to.
const OLDEST: i64 = 7;

/// What the library says of one version of one operator.
#[derive(Debug, Deserialize)]
pub(super) struct Step {
    operator: String,
    version: i64,
    /// `wider`, `unchanged`, `adapted`, `refused` or `open`.
    kind: String,
    /// Why, or what an adapter does.
    what: String,
}

/// What the schemas say of it.
#[derive(Debug, Deserialize)]
struct Changed {
    operator: String,
    version: i64,
    changes: Vec<String>,
}

/// What the library says of all versions.
pub(super) fn known() -> Result<Vec<Step>> {
    let output = Command::new(batch::program()).arg("steps").output();
    let output = output.context("cannot start the program of the suites")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Versions that change more than the library knows.
pub(super) fn complaints(known: &[Step]) -> Result<Vec<String>> {
    let changed: Vec<Vec<Changed>> = oracle::ask("operator_steps.py", &[OLDEST])?;
    let changed: Vec<Changed> = changed.into_iter().flatten().collect();
    // The table has operators of early versions that only onnxruntime knows as well.
    ensure!(changed.len() > 300, "the onnx package has {} steps only", changed.len());
    Ok(unknown(known, &changed))
}

fn unknown(known: &[Step], changed: &[Changed]) -> Vec<String> {
    let kinds: BTreeMap<(&str, i64), &str> = known
        .iter()
        .map(|step| ((step.operator.as_str(), step.version), step.kind.as_str()))
        .collect();
    let is_known = |step: &&Changed| match kinds.get(&(step.operator.as_str(), step.version)) {
        Some(&"wider") => step.changes.is_empty(),
        Some(&kind) => kind != "open",
        None => false,
    };
    let open = changed.iter().filter(|step| !is_known(step));
    open.map(|step| {
        let Changed { operator, version, changes } = step;
        format!("{operator} changes at {version} ({}): no adapter, no reason", changes.join(", "))
    })
    .collect()
}

/// Operators and versions with an adapter.
pub(super) fn adapted(known: &[Step]) -> impl Iterator<Item = (&str, i64)> {
    let adapted = known.iter().filter(|step| step.kind == "adapted");
    adapted.map(|step| (step.operator.as_str(), step.version))
}

/// The tables of adapters and of what needs none, for people.
pub(super) fn tables(known: &[Step]) -> String {
    let mut text = "| version | operators | what the adapter does |\n|---|---|---|\n".to_owned();
    rows(&mut text, known, "adapted");
    text += "\nVersions that change more than types, and need no adapter:\n\n\
             | version | operators | why |\n|---|---|---|\n";
    rows(&mut text, known, "unchanged");
    text += "\nOperators that end, and that nothing takes the place of; models that have them are \
             refused:\n\n| version | operators | why |\n|---|---|---|\n";
    rows(&mut text, known, "refused");
    let wider = known.iter().filter(|step| step.kind == "wider").count();
    let open = known.iter().filter(|step| step.kind == "open").count();
    let _ = writeln!(
        text,
        "\nThe other {wider} of {} versions only allow more types. Without an adapter or a reason: {}.",
        known.len(),
        if open == 0 { "none".to_owned() } else { open.to_string() }
    );
    text
}

/// A row for each version and reason.
fn rows(text: &mut String, known: &[Step], kind: &str) {
    let mut rows: BTreeMap<(i64, &str), Vec<&str>> = BTreeMap::new();
    for step in known.iter().filter(|step| step.kind == kind) {
        rows.entry((step.version, step.what.as_str())).or_default().push(step.operator.as_str());
    }
    for ((version, what), operators) in rows {
        let operators: Vec<String> = operators.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(text, "| {version} | {} | {what} |", operators.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(operator: &str, version: i64, kind: &str) -> Step {
        Step { operator: operator.into(), version, kind: kind.into(), what: "why".into() }
    }

    fn changed(operator: &str, version: i64, changes: &[&str]) -> Changed {
        let changes = changes.iter().map(|&change| change.to_owned()).collect();
        Changed { operator: operator.into(), version, changes }
    }

    #[test]
    fn what_changes_without_an_adapter_or_a_reason_is_told() {
        let known = [step("A", 9, "wider"), step("B", 9, "adapted"), step("C", 9, "unchanged")];
        let more = &["attribute axis"];
        let same = [changed("A", 9, &[]), changed("B", 9, more), changed("C", 9, more)];
        assert!(unknown(&known, &same).is_empty());
        let other = [changed("A", 9, more), changed("A", 11, &[])];
        let told = unknown(&known, &other);
        assert_eq!(told.len(), 2);
        assert_eq!(told[0], "A changes at 9 (attribute axis): no adapter, no reason");
        assert_eq!(unknown(&[step("A", 9, "open")], &same[..1]).len(), 1);
    }

    #[test]
    fn operators_with_one_reason_share_a_row() {
        let known = [step("A", 9, "adapted"), step("B", 9, "adapted"), step("C", 9, "wider")];
        let text = tables(&known);
        assert!(text.contains("| 9 | `A`, `B` | why |"), "{text}");
        assert!(text.contains("The other 1 of 3 versions only allow more types."), "{text}");
        assert!(text.contains("Without an adapter or a reason: none."), "{text}");
    }
}
