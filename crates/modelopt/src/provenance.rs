//! Where an artifact comes from: digests and versions; never names of hosts, users or folders.
//!
//! What is true of the place (the machine, the runtime that proved it) stands in the report, so that
//! the same plan gives the same bytes anywhere.

use std::path::Path;

use modelopt_graph::{Metadata, Model, Origin};
use modelopt_onnx as onnx;
use modelopt_report as report;
use modelopt_rewrite::Plan;

/// A model file as reports name it.
pub(crate) fn model_file(name: &Path, contents: &Path) -> report::ModelFile {
    report::ModelFile { name: report::FileName::from(name), blake3: onnx::digest(contents).ok() }
}

/// BLAKE3 of a plan's decisions: what tells models apart that plans make of the same one.
pub(crate) fn plan_digest(plan: &Plan) -> String {
    onnx::digest_of(plan.to_toml().as_bytes())
}

/// The machine this runs on.
pub(crate) fn machine() -> report::Machine {
    report::Machine {
        cpu: cpu().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        threads: std::thread::available_parallelism().map_or(1, Into::into),
        platform: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
    }
}

fn cpu() -> Option<String> {
    let text = fs_err::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Entries of earlier versions, which said where an artifact was proven.
const FORMER_KEYS: [&str; 2] = ["modelopt.runtime", "modelopt.cpu"];

/// Writes into the model's metadata what it was made from and by what version of modelopt.
/// Its own digest cannot stand in it; the report has that.
pub(crate) fn stamp(model: &mut Model, input: Option<String>, plan: &Plan) {
    let entries = [
        ("modelopt.version", Some(crate::VERSION.to_owned())),
        ("modelopt.input_blake3", input),
        ("modelopt.plan_blake3", Some(plan_digest(plan))),
    ];
    let is_own =
        |key: &str| FORMER_KEYS.contains(&key) || entries.iter().any(|(own, _)| *own == key);
    model.info.metadata.retain(|entry| !is_own(&entry.key));
    model.info.metadata.extend(entries.into_iter().filter_map(|(key, value)| {
        Some(Metadata { key: key.to_owned(), value: value?, origin: Origin::NONE })
    }));
}

#[cfg(test)]
mod tests {
    use modelopt_graph::ModelInfo;
    use modelopt_rewrite::Numerics;

    use super::*;

    #[test]
    fn a_stamp_replaces_an_earlier_one_and_nothing_else() {
        let entry = |key: &str, value: &str| Metadata {
            key: key.into(),
            value: value.into(),
            origin: Origin::NONE,
        };
        let mut model = Model::new(ModelInfo::default());
        model.info.metadata = vec![entry("author", "x"), entry("modelopt.cpu", "some processor")];
        let plan = Plan::new(Numerics::default());
        stamp(&mut model, Some("aa".into()), &plan);
        stamp(&mut model, Some("bb".into()), &plan);
        let entries: Vec<_> =
            model.info.metadata.iter().map(|m| (m.key.as_str(), m.value.as_str())).collect();
        let digest = plan_digest(&plan);
        assert_eq!(
            entries,
            [
                ("author", "x"),
                ("modelopt.version", crate::VERSION),
                ("modelopt.input_blake3", "bb"),
                ("modelopt.plan_blake3", digest.as_str()),
            ]
        );
    }

    #[test]
    fn the_machine_has_no_name() {
        let machine = machine();
        assert!(machine.threads > 0 && !machine.cpu.is_empty(), "{machine:?}");
        assert!(machine.platform.contains(std::env::consts::OS));
    }
}
