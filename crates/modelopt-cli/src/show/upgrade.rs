//! What an upgrade did, for people.

use std::fmt::Write;
use std::path::Path;

use modelopt::UpgradeOutcome;
use modelopt::rewrite::upgrade::{Change, Upgraded, steps};

use super::{indented, table};

pub(crate) fn upgraded(outcome: &UpgradeOutcome, input: &Path, target: &Path) -> String {
    let upgraded = &outcome.upgraded;
    let mut text = versions(upgraded);
    text += &adapted(upgraded);
    if let Some(compared) = &outcome.compared {
        text.push('\n');
        text += &super::compared(compared);
    } else if upgraded.changed {
        text += "\nnothing was run: the result is unproven\n";
    }
    let (input, target) = (input.display(), target.display());
    match outcome {
        outcome if outcome.refused => {
            let _ = writeln!(text, "\nnothing was written to {target}");
        }
        outcome if outcome.emitted && !upgraded.changed => {
            let _ = writeln!(text, "\n{target} is a copy of {input}");
        }
        outcome if outcome.emitted => {
            let _ = writeln!(text, "\nwrote {target}");
        }
        _ => text += "\nnothing to write\n",
    }
    text
}

fn versions(upgraded: &Upgraded) -> String {
    let Upgraded { from, to, ir_version: (before, after), changed, .. } = upgraded;
    if !changed {
        return format!("operator set {to} already\n");
    }
    let mut text = format!("operator set {from} to {to}");
    if before != after {
        let _ = write!(text, ", IR version {before} to {after}");
    }
    text.push('\n');
    text
}

/// The operators that were rewritten, with what became of them.
fn adapted(upgraded: &Upgraded) -> String {
    if !upgraded.changed {
        return String::new();
    }
    if upgraded.adapted.is_empty() {
        return "no node had to be rewritten\n".to_owned();
    }
    let mut rows = table(&["operator", "at", "nodes", "what changed"]);
    for adapted in &upgraded.adapted {
        let mut all = steps();
        let step = all.find(|s| s.operator == adapted.operator && s.version == adapted.version);
        let what = match step.map(|step| step.change) {
            Some(Change::Adapted(what)) => what.replace('`', ""),
            _ => String::new(),
        };
        rows.add_row([
            adapted.operator.to_owned(),
            adapted.version.to_string(),
            adapted.nodes.to_string(),
            what,
        ]);
    }
    format!("\n{}", indented(rows, &[1, 2]))
}
