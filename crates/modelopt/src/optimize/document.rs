//! What came of a run as a report, and as the last trial of its search.

use modelopt_report as report;
use modelopt_rewrite::{Explanation, PlannedLayer, QuantizedWeight};
use modelopt_validate::{Parity, Verdict};

use super::Outcome;
use crate::evaluator;
use crate::provenance;
use crate::search;
use crate::warning::Warning;

impl Outcome {
    /// The run that the verdict is about, as the last trial of a search.
    pub(super) fn as_trial(&self, verdict: &Verdict) -> report::Trial {
        let run = self.runs.first();
        let worst = self.parity().and_then(evaluator::worst_sqnr);
        report::Trial {
            what: "the verdict".to_owned(),
            schemes: search::schemes(&self.plan),
            bytes: self.size.candidate_bytes,
            sqnr_db: worst.map(|(sqnr_db, _)| sqnr_db),
            slowdown: run.and_then(|run| run.latency.as_ref()).map(|latency| latency.ratio_median),
            metric: self.metric.as_ref().map(|change| change.candidate),
            pass: verdict.pass,
            failure: run.and_then(|run| run.failure.clone()),
            blake3: self.candidate.blake3.clone(),
        }
    }

    /// Whether the verdict failed, and on nothing but these checks.
    pub(super) fn fails_on(&self, names: &[&str]) -> bool {
        let only = |verdict: &Verdict| {
            verdict.failures().all(|check| names.contains(&check.name.as_str()))
        };
        let ran = self.runs.first().is_none_or(|run| run.failure.is_none());
        ran && self.verdict.as_ref().is_some_and(|verdict| !verdict.pass && only(verdict))
    }

    /// How close the outputs are on the target, if the models ran.
    pub fn parity(&self) -> Option<&Parity> {
        self.runs.first()?.parity.as_ref()
    }

    /// The outcome as a report document of a command. `say` words warnings: `Warning::to_string`
    /// does, and a program that has settings may name them.
    pub fn document(&self, command: &str, say: impl Fn(&Warning) -> String) -> report::Document {
        report::Document {
            tool_version: crate::VERSION.to_owned(),
            command: command.to_owned(),
            original: self.original.clone(),
            candidate: self.emitted.then(|| self.candidate.clone()),
            size: Some(self.size),
            samples: self.samples,
            runs: self.runs.clone(),
            metric: self.metric.clone(),
            verdict: self.verdict.clone(),
            culprits: self.culprits.clone(),
            slow_layers: self.slow_layers.clone(),
            plan: self.plan_lines(),
            regions: self.regions.clone(),
            ranges: self.ranges.clone(),
            trials: self.trials.clone(),
            search_end: self.search_end,
            sensitivity: self.sensitivity.clone(),
            plan_digest: Some(provenance::plan_digest(&self.plan)),
            machine: (!self.runs.is_empty()).then(provenance::machine),
            warnings: self.warnings.iter().map(say).collect(),
            ..report::Document::default()
        }
    }

    fn plan_lines(&self) -> Vec<report::PlanLine> {
        let weights: std::collections::HashMap<&str, &QuantizedWeight> =
            self.weights.iter().map(|weight| (weight.name.as_str(), weight)).collect();
        let regions = report::regions_by_layer(&self.regions);
        let line = |(layer, why): (&PlannedLayer, &Explanation)| {
            let own = || why.weights.iter().filter_map(|name| weights.get(name.as_str()));
            let changed = !layer.scheme.is_keep();
            report::PlanLine {
                layer: layer.id.clone(),
                op: why.op.clone(),
                scheme: layer.scheme.to_string(),
                region: regions.get(layer.id.as_str()).copied(),
                reason: why.reason.clone(),
                bytes_before: why.bytes,
                bytes_after: if changed {
                    own().map(|weight| weight.bytes_after).sum()
                } else {
                    why.bytes
                },
                sqnr_db: own().map(|w| w.sqnr_db).min_by(f64::total_cmp).filter(|_| changed),
            }
        };
        self.plan.lines().map(line).collect()
    }
}
