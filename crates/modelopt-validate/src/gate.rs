//! The gate: limits, and the verdict on what was measured.

mod limits;
mod verdict;

use limits::is_of;
pub use limits::{Limits, OutputLimits};
pub use verdict::{Bound, Check, Reason, Unit, Unjudged, Verdict};

use crate::parity::{Decisions, FloatParity, OutputParity, Parity};
use crate::profile::margin;
use crate::{LatencyComparison, SizeChange};

/// What there is to judge.
#[derive(Clone, Copy, Debug)]
pub struct Measurements<'a> {
    /// Parity, if models were run.
    pub parity: Option<&'a Parity>,
    /// Sizes of the two models.
    pub size: SizeChange,
    /// Latency, if it was measured.
    pub latency: Option<&'a LatencyComparison>,
}

/// The subject of checks that are not about one output.
const MODEL: &str = "model";

/// Holds what was measured against the limits.
pub fn judge(limits: &Limits, measured: &Measurements<'_>) -> Verdict {
    let mut judge = Judge::default();
    judge.size(limits, measured.size);
    judge.latency(limits, measured.latency);
    match measured.parity {
        Some(parity) => judge.parity(limits, parity),
        None => judge.leave_out("parity", "the models were not run"),
    }
    Verdict {
        pass: judge.checks.iter().all(|check| check.pass),
        checks: judge.checks,
        unjudged: judge.unjudged,
    }
}

#[derive(Default)]
struct Judge {
    checks: Vec<Check>,
    unjudged: Vec<Unjudged>,
}

impl Judge {
    fn size(&mut self, limits: &Limits, size: SizeChange) {
        let Some(limit) = limits.min_shrink else { return };
        // Whoever asks for a smaller model gets one.
        if limit <= 1.0 && size.ratio() < limit && size.is_slight(limit) {
            let allowed = (size.original_bytes as f64 / limit) as u64;
            let more = size.candidate_bytes.saturating_sub(allowed);
            let reason = format!("{more} bytes too many, which casts and metadata may take");
            return self.leave_out("shrink", &reason);
        }
        self.at_least(("shrink", MODEL), size.ratio(), limit, Unit::Times);
    }

    fn latency(&mut self, limits: &Limits, latency: Option<&LatencyComparison>) {
        match (limits.max_slowdown, latency) {
            (None, _) => {}
            (Some(_), None) => self.leave_out("slowdown", "latency was not measured"),
            // Whoever asks for a faster model gets one.
            (Some(limit), Some(latency))
                if limit >= 1.0 && latency.ratio_low > limit && !latency.is_told() =>
            {
                self.leave_out(
                    "slowdown",
                    &format!(
                        "{:.2}x, but {:.1} µs are less than clock and call can tell ({:.1} µs)",
                        latency.ratio_median,
                        latency.lost_ms() * 1e3,
                        latency.floor_ms() * 1e3
                    ),
                );
            }
            (Some(limit), Some(latency)) => {
                let note = format!(
                    "the lower end of the interval {:.3} to {:.3}; median {:.3} of {} pairs",
                    latency.ratio_low, latency.ratio_high, latency.ratio_median, latency.pairs
                );
                self.at_most(("slowdown", MODEL), latency.ratio_low, limit, Unit::Times).note(note);
            }
        }
    }

    fn parity(&mut self, limits: &Limits, parity: &Parity) {
        self.at_least(("samples", MODEL), parity.samples as f64, 1.0, Unit::Count);
        self.at_least(("outputs", MODEL), parity.outputs.len() as f64, 1.0, Unit::Count);
        for name in limits.per_output.keys() {
            if !parity.outputs.iter().any(|output| is_of(&output.name, name)) {
                self.flag(("known_output", name), false)
                    .note("limits name an output that the original does not have");
            }
        }
        let scores =
            |output: &OutputParity| output.float.as_ref()?.top1.filter(|_| !output.witness);
        if let Some(limit) = limits.min_top1
            && parity.outputs.iter().all(|output| scores(output).is_none())
        {
            self.at_least(("top1", MODEL), f64::NAN, limit, Unit::Share)
                .note("no output looks like scores");
        }
        for output in &parity.outputs {
            match rechosen(parity, output) {
                Some(reason) => self.leave_out(&output.name, &reason),
                None => self.output(limits, output),
            }
        }
        for name in &parity.extra_outputs {
            self.flag(("extra_output", name), false).note("only the candidate has it");
        }
    }

    fn output(&mut self, limits: &Limits, output: &OutputParity) {
        self.form(output);
        let name = output.name.as_str();
        let own = limits.of(name);
        let float = output.float.as_ref();

        let sqnr = float.map(|float| float.sqnr_db);
        let attainable = |limit: Option<f64>| limit.map(|limit| output.attainable_db(limit));
        let limit =
            Limit { own: attainable(own.min_sqnr_db), common: attainable(limits.min_sqnr_db) };
        if let Some(check) =
            self.figure(("sqnr", name), sqnr, limit, Bound::AtLeast, Unit::Decibels)
            && let Some(float) = float
        {
            let part = output.worst_part().map_or(String::new(), |part| format!(", {}", part.name));
            let itself = output.itself_db.map_or(String::new(), |itself| {
                format!("; the original agrees with itself to {itself:.1} dB")
            });
            check.note(format!("worst on sample {}{part}{itself}", float.worst_sample));
        }
        let limit = Limit { own: own.max_abs_error, common: limits.max_abs_error };
        let error = float.map(|float| float.max_abs_error);
        self.figure(("max_abs_error", name), error, limit, Bound::AtMost, Unit::Output);
        let limit = Limit { own: own.min_top1, common: limits.min_top1 };
        let top1 = float.and_then(|float| float.top1);
        self.figure(("top1", name), top1, limit, Bound::AtLeast, Unit::Share);
        for sentinel in &output.sentinels {
            let check =
                self.at_most(("sentinels", name), sentinel.changed as f64, 0.0, Unit::Count);
            check.note(format!(
                "of {} elements that are {:.4e}, which stands for something else than a quantity",
                sentinel.elements, sentinel.value
            ));
        }
        self.decisions(limits, &own, output);
        if let Some(float) = float
            && !own.allow_new_non_finite.unwrap_or(limits.allow_new_non_finite)
        {
            self.non_finite(name, float);
        }
        self.integers(limits, output);
    }

    /// Choices that errors within the limit could not have changed.
    fn decisions(&mut self, limits: &Limits, own: &OutputLimits, output: &OutputParity) {
        let common = limits.min_sqnr_db;
        let limit = own.min_sqnr_db.or(common).filter(|limit| *limit > f64::NEG_INFINITY);
        if let (Some(decisions), Some(limit)) = (&output.decisions, limit) {
            let limit = margin(Some(limit));
            let name = output.name.as_str();
            let lost = decisions.lost_margin;
            let check = self.at_most(("decisions", name), lost, limit, Unit::Share);
            let Decisions { rows, decided, kept, worst_sample, .. } = decisions;
            let worst = if lost > 0.0 {
                format!("; the most was lost on sample {worst_sample}")
            } else {
                String::new()
            };
            check
                .note(format!("{kept} of {decided} clear choices kept, {rows} rows in all{worst}"));
        }
    }

    fn integers(&mut self, limits: &Limits, output: &OutputParity) {
        let Some(mismatches) = output.mismatches else { return };
        let name = output.name.as_str();
        if output.decisions.is_some() {
            // Judged by what is chosen among.
            return;
        }
        match (output.agreement, limits.min_agreement) {
            (Some(agreement), Some(limit)) => {
                let check = self.at_least(("agreement", name), agreement, limit, Unit::Share);
                check.note(format!("{mismatches} of {} elements differ", output.elements));
            }
            (Some(_), None) => {}
            (None, _) => {
                self.at_most(("mismatches", name), mismatches as f64, 0.0, Unit::Count);
            }
        }
    }

    /// What must be right before figures mean anything.
    fn form(&mut self, output: &OutputParity) {
        let name = output.name.as_str();
        let check = self.flag(("present", name), output.present);
        if !output.present {
            check.note("the candidate has no such output");
        }
        let forms = || match &output.candidate {
            Some(candidate) => format!("{} became {candidate}", output.original),
            None => format!("{} is missing", output.original),
        };
        // What is seen inside of a model may be of another float type.
        let type_equal = output.type_equal || (output.witness && output.float.is_some());
        for (check, equal) in [("type", type_equal), ("shape", output.shape_equal)] {
            let check = self.flag((check, name), equal);
            if equal {
                check.note(output.original.to_string());
            } else {
                check.note(forms());
            }
        }
        if output.float.is_none() && output.mismatches.is_none() {
            self.flag(("compared", name), false).note("in no sample could the values be compared");
        }
    }

    fn non_finite(&mut self, name: &str, float: &FloatParity) {
        for (check, count) in [
            ("new_non_finite", float.new_non_finite),
            ("changed_non_finite", float.changed_non_finite),
        ] {
            self.at_most((check, name), count as f64, 0.0, Unit::Count);
        }
    }

    /// Judges a figure that not every output has.
    fn figure(
        &mut self,
        what: (&str, &str),
        value: Option<f64>,
        limit: Limit,
        bound: Bound,
        unit: Unit,
    ) -> Option<&mut Check> {
        match (value, limit.own, limit.own.or(limit.common)) {
            (Some(value), _, Some(limit)) => Some(self.check(what, value, limit, bound, unit)),
            (None, Some(limit), _) => {
                let check = self.check(what, f64::NAN, limit, bound, unit);
                check.note("the output has no such figure");
                None
            }
            _ => None,
        }
    }

    fn at_least(&mut self, what: (&str, &str), value: f64, limit: f64, unit: Unit) -> &mut Check {
        self.check(what, value, limit, Bound::AtLeast, unit)
    }

    fn at_most(&mut self, what: (&str, &str), value: f64, limit: f64, unit: Unit) -> &mut Check {
        self.check(what, value, limit, Bound::AtMost, unit)
    }

    fn flag(&mut self, what: (&str, &str), good: bool) -> &mut Check {
        self.check(what, f64::from(u8::from(good)), 1.0, Bound::AtLeast, Unit::Flag)
    }

    fn check(
        &mut self,
        (name, subject): (&str, &str),
        value: f64,
        limit: f64,
        bound: Bound,
        unit: Unit,
    ) -> &mut Check {
        // Comparisons with NaN are false, so NaN never passes.
        let pass = match bound {
            Bound::AtLeast => value >= limit,
            Bound::AtMost => value <= limit,
        };
        let at = self.checks.len();
        self.checks.push(Check {
            name: name.to_owned(),
            subject: subject.to_owned(),
            value,
            limit,
            bound,
            unit,
            pass,
            note: None,
        });
        &mut self.checks[at]
    }

    fn leave_out(&mut self, name: &str, reason: &str) {
        self.unjudged.push(Unjudged { name: name.to_owned(), reason: reason.to_owned().into() });
    }
}

/// Why an output whose rows are chosen is judged by what they are chosen by: because another choice
/// changed it.
fn rechosen(parity: &Parity, output: &OutputParity) -> Option<String> {
    let selected = output.selected.as_ref()?;
    let read = |name: &&String| parity.outputs.iter().find(|other| other.name == **name);
    let reads: Option<Vec<&OutputParity>> = selected.reads.iter().map(|name| read(&name)).collect();
    let reads = reads?;
    let changed = |float: &FloatParity| float.sqnr_db < f64::INFINITY;
    let differs = reads.iter().any(|read| read.float.as_ref().is_some_and(changed));
    let comparable = output.present && output.type_equal;
    let same = output.shape_equal
        && output.float.as_ref().is_none_or(|float| float.sqnr_db >= SAME_DB)
        && output.mismatches.is_none_or(|count| count == 0);
    (comparable && differs && !same).then(|| {
        format!(
            "{} chooses other rows here; judged is what they are chosen by: {}",
            selected.by,
            selected.reads.join(", ")
        )
    })
}

impl Parity {
    /// The outputs that are judged: all but those whose rows are chosen, where another choice changed
    /// them.
    pub fn judged(&self) -> impl Iterator<Item = &OutputParity> {
        self.outputs.iter().filter(|output| rechosen(self, output).is_none())
    }
}

/// From here on two outputs have the same rows.
const SAME_DB: f64 = 20.0;

/// The limit of one output and the one for all.
#[derive(Clone, Copy)]
struct Limit {
    own: Option<f64>,
    common: Option<f64>,
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use modelopt_graph::{Element, Tensor};
    use proptest::prelude::*;

    use std::sync::Arc;

    use super::*;
    use crate::profile::testing::profile_of;
    use crate::{Accumulator, Distribution, Tolerance};

    const SIZE: SizeChange = SizeChange { original_bytes: 400, candidate_bytes: 100 };
    const NAN: f64 = f64::NAN;

    fn row<T: Element>(elements: &[T]) -> Tensor {
        Tensor::of(vec![1, elements.len()], elements).unwrap()
    }

    fn parity<const N: usize>(outputs: [(&str, Tensor, Option<Tensor>); N]) -> Parity {
        let (mut original, mut candidate) = (IndexMap::new(), IndexMap::new());
        for (name, ours, theirs) in outputs {
            original.insert(name.to_owned(), ours);
            candidate.extend(theirs.map(|tensor| (name.to_owned(), tensor)));
        }
        let profile = Arc::new(profile_of(std::slice::from_ref(&original)));
        let mut accumulator = Accumulator::new(profile, Tolerance::default());
        accumulator.add("first", false, &original, &candidate);
        accumulator.finish()
    }

    fn good() -> Parity {
        let scores = row(&[0.0f32, 1.0]);
        let labels = row(&[1i64]);
        parity([("scores", scores.clone(), Some(scores)), ("label", labels.clone(), Some(labels))])
    }

    fn verdict(limits: &Limits, parity: &Parity) -> Verdict {
        judge(limits, &Measurements { parity: Some(parity), size: SIZE, latency: None })
    }

    fn failures(verdict: &Verdict) -> Vec<(&str, &str)> {
        assert_eq!(verdict.pass, verdict.failures().next().is_none());
        verdict.failures().map(|check| (check.name.as_str(), check.subject.as_str())).collect()
    }

    fn times() -> Distribution {
        Distribution {
            runs: 20,
            mean_ms: 1.0,
            p50_ms: 1.0,
            p90_ms: 1.0,
            p99_ms: 1.0,
            throughput_per_s: 1000.0,
            quantiles_ms: vec![1.0],
        }
    }

    fn latency(ratio_low: f64, ratio_high: f64) -> LatencyComparison {
        LatencyComparison {
            ratio_median: f64::midpoint(ratio_low, ratio_high),
            ratio_low,
            ratio_high,
            confidence: 0.95,
            pairs: 20,
            noise: 0.01,
            original: times(),
            candidate: times(),
            threads: 1,
            call_ms: None,
        }
    }

    /// A model that takes so long and becomes so much slower.
    fn slower(original_ms: f64, ratio: f64) -> LatencyComparison {
        let mut latency = latency(ratio, ratio);
        latency.original.p50_ms = original_ms;
        latency.candidate.p50_ms = original_ms * ratio;
        latency
    }

    #[test]
    fn every_figure_is_listed_with_its_limit() {
        let verdict = verdict(&Limits::default(), &good());
        let listed: Vec<_> = verdict
            .checks
            .iter()
            .map(|check| (check.subject.as_str(), check.name.as_str(), check.value, check.limit))
            .collect();
        assert_eq!(
            listed,
            [
                ("model", "shrink", 4.0, 1.0),
                ("model", "samples", 1.0, 1.0),
                ("model", "outputs", 2.0, 1.0),
                ("scores", "present", 1.0, 1.0),
                ("scores", "type", 1.0, 1.0),
                ("scores", "shape", 1.0, 1.0),
                ("scores", "sqnr", f64::INFINITY, 20.0),
                ("scores", "decisions", 0.0, 0.4),
                ("scores", "new_non_finite", 0.0, 0.0),
                ("scores", "changed_non_finite", 0.0, 0.0),
                ("label", "present", 1.0, 1.0),
                ("label", "type", 1.0, 1.0),
                ("label", "shape", 1.0, 1.0),
                ("label", "mismatches", 0.0, 0.0),
            ]
        );
        assert!(verdict.pass);
        assert_eq!(verdict.unjudged[0].name, "slowdown");
    }

    #[test]
    fn a_noisy_output_fails_and_the_sample_is_named() {
        let noisy = parity([("y", row(&[1.0f32]), Some(row(&[1.5f32])))]);
        let verdict = verdict(&Limits::default(), &noisy);
        assert_eq!(failures(&verdict), [("sqnr", "y")]);
        let note = verdict.failures().next().and_then(|check| check.note.clone());
        assert_eq!(note.as_deref(), Some("worst on sample first"));
    }

    #[test]
    fn a_missing_output_fails() {
        let missing = parity([("y", row(&[1.0f32]), None)]);
        let verdict = verdict(&Limits::default(), &missing);
        assert_eq!(failures(&verdict), [("present", "y"), ("compared", "y")]);
    }

    #[test]
    fn an_extra_output_fails() {
        let mut parity = good();
        parity.extra_outputs.push("debug".to_owned());
        let verdict = verdict(&Limits::default(), &parity);
        assert_eq!(failures(&verdict), [("extra_output", "debug")]);
    }

    #[test]
    fn other_types_and_shapes_fail_and_are_named() {
        let changed = parity([
            ("shape", row(&[1.0f32, 2.0]), Some(row(&[1.0f32]))),
            ("type", row(&[1.0f32]), Some(row(&[1.0f64]))),
        ]);
        let verdict = verdict(&Limits::default(), &changed);
        assert_eq!(
            failures(&verdict),
            [("shape", "shape"), ("compared", "shape"), ("type", "type")]
        );
        let notes: Vec<_> = verdict.failures().filter_map(|check| check.note.as_deref()).collect();
        assert_eq!(notes[0], "float[1, 2] became float[1, 1]");
        assert_eq!(notes[2], "float[1, 1] became double[1, 1]");
    }

    #[test]
    fn integer_outputs_must_be_equal() {
        let changed = parity([("y", row(&[1i64, 2]), Some(row(&[1i64, 3])))]);
        assert_eq!(failures(&verdict(&Limits::default(), &changed)), [("mismatches", "y")]);
    }

    #[test]
    fn non_finite_values_fail_unless_allowed() {
        let inf = f32::INFINITY;
        let parity = parity([("y", row(&[1.0, 2.0, inf]), Some(row(&[1.0, inf, -inf])))]);
        let mut limits = Limits::default();
        assert_eq!(
            failures(&verdict(&limits, &parity)),
            [("new_non_finite", "y"), ("changed_non_finite", "y")]
        );
        limits.allow_new_non_finite = true;
        assert!(verdict(&limits, &parity).pass);
        let strict = OutputLimits { allow_new_non_finite: Some(false), ..OutputLimits::default() };
        limits.per_output.insert("y".to_owned(), strict);
        assert!(!verdict(&limits, &parity).pass);
    }

    #[test]
    fn a_candidate_of_nan_fails_even_where_nan_is_allowed() {
        let parity = parity([("y", row(&[1.0f32, 2.0]), Some(row(&[f32::NAN; 2])))]);
        let limits = Limits { allow_new_non_finite: true, ..Limits::default() };
        assert_eq!(failures(&verdict(&limits, &parity)), [("sqnr", "y")]);
    }

    #[test]
    fn nothing_compared_fails() {
        let verdict = verdict(&Limits::default(), &Parity::default());
        assert_eq!(failures(&verdict), [("samples", "model"), ("outputs", "model")]);
    }

    #[test]
    fn a_larger_model_fails() {
        let size = SizeChange { original_bytes: 100_000, candidate_bytes: 105_000 };
        let measured = Measurements { parity: Some(&good()), size, latency: None };
        assert_eq!(failures(&judge(&Limits::default(), &measured)), [("shrink", "model")]);
        let limits = Limits { min_shrink: None, ..Limits::default() };
        assert!(judge(&limits, &measured).pass);
    }

    #[test]
    fn latency_fails_only_beyond_its_noise() {
        for (low, high, pass) in [(1.06, 1.2, false), (1.04, 1.5, true), (1.05, 1.1, true)] {
            let latency = LatencyComparison {
                ratio_low: low,
                ratio_high: high,
                ..slower(1.0, f64::midpoint(low, high))
            };
            let measured =
                Measurements { parity: Some(&good()), size: SIZE, latency: Some(&latency) };
            let verdict = judge(&Limits::default(), &measured);
            assert_eq!(verdict.pass, pass, "{low} to {high}");
            assert!(verdict.unjudged.is_empty());
        }
        let broken = latency(NAN, NAN);
        let measured = Measurements { parity: None, size: SIZE, latency: Some(&broken) };
        assert_eq!(failures(&judge(&Limits::default(), &measured)), [("slowdown", "model")]);
    }

    #[test]
    fn a_loss_of_microseconds_is_not_judged() {
        let judged = |latency: &LatencyComparison| {
            let measured =
                Measurements { parity: Some(&good()), size: SIZE, latency: Some(latency) };
            judge(&Limits::default(), &measured)
        };
        let left_out = |verdict: &Verdict| {
            verdict.pass && verdict.unjudged.iter().any(|left| left.name == "slowdown")
        };
        // 4 µs more are nothing, 6 µs are something.
        let verdict = judged(&slower(0.010, 1.4));
        assert!(left_out(&verdict), "{verdict:?}");
        let reason = verdict.unjudged[0].reason.to_string();
        assert_eq!(reason, "1.40x, but 4.0 µs are less than clock and call can tell (5.0 µs)");
        assert_eq!(failures(&judged(&slower(0.010, 1.6))), [("slowdown", "model")]);
        // Unless the call itself takes longer.
        let dear = |call_ms| LatencyComparison { call_ms: Some(call_ms), ..slower(0.040, 1.4) };
        assert!(left_out(&judged(&dear(0.020))));
        assert_eq!(failures(&judged(&dear(0.010))), [("slowdown", "model")]);
        let faster = Limits { max_slowdown: Some(0.9), ..Limits::default() };
        let same = slower(0.010, 1.0);
        let measured = Measurements { parity: Some(&good()), size: SIZE, latency: Some(&same) };
        assert!(!judge(&faster, &measured).pass, "whoever asks for a faster model gets one");
        // What meets the limit is listed as such.
        assert!(judged(&slower(0.010, 1.0)).unjudged.is_empty());
        // A figure that is none does not pass for a small one.
        let broken = LatencyComparison { ratio_low: f64::INFINITY, ..slower(NAN, 1.0) };
        assert_eq!(failures(&judged(&broken)), [("slowdown", "model")]);
    }

    #[test]
    fn growth_of_casts_and_metadata_is_not_judged() {
        let judged = |original_bytes, candidate_bytes, limit| {
            let size = SizeChange { original_bytes, candidate_bytes };
            let limits = Limits { min_shrink: Some(limit), ..Limits::default() };
            judge(&limits, &Measurements { parity: Some(&good()), size, latency: None })
        };
        let slight = judged(200, 200 + SizeChange::SLACK, 1.0);
        assert!(slight.pass && slight.unjudged.iter().any(|left| left.name == "shrink"));
        assert!(!judged(200, 201 + SizeChange::SLACK, 1.0).pass);
        assert!(!judged(200, 199, 1.01).pass, "whoever asks for a smaller model gets one");
        // A limit that allows growth has the same slack.
        assert!(judged(8000, 16_000 + SizeChange::SLACK, 0.5).pass);
        assert!(!judged(8000, 16_001 + SizeChange::SLACK, 0.5).pass);
    }

    #[test]
    fn what_was_not_run_is_listed_as_unjudged() {
        let measured = Measurements { parity: None, size: SIZE, latency: None };
        let verdict = judge(&Limits::default(), &measured);
        assert!(verdict.pass);
        let names: Vec<_> = verdict.unjudged.iter().map(|left| left.name.as_str()).collect();
        assert_eq!(names, ["slowdown", "parity"]);
    }

    #[test]
    fn a_limit_for_one_output_replaces_the_common_one() {
        let noisy = parity([
            ("a", row(&[1.0f32]), Some(row(&[1.5f32]))),
            ("b", row(&[1.0f32]), Some(row(&[1.5f32]))),
        ]);
        let mut limits = Limits::default();
        let lifted = OutputLimits { min_sqnr_db: Some(f64::NEG_INFINITY), ..Default::default() };
        limits.per_output.insert("a".to_owned(), lifted);
        assert_eq!(failures(&verdict(&limits, &noisy)), [("sqnr", "b")]);
        limits.min_sqnr_db = None;
        let strict = OutputLimits { min_sqnr_db: Some(7.0), ..Default::default() };
        limits.per_output.insert("a".to_owned(), strict);
        assert_eq!(failures(&verdict(&limits, &noisy)), [("sqnr", "a")]);
    }

    #[test]
    fn a_limit_that_nothing_can_meet_fails() {
        let limit = || OutputLimits { max_abs_error: Some(1.0), ..OutputLimits::default() };
        let mut limits = Limits::default();
        limits.per_output.insert("label".to_owned(), limit());
        limits.per_output.insert("typo".to_owned(), limit());
        assert_eq!(
            failures(&verdict(&limits, &good())),
            [("known_output", "typo"), ("max_abs_error", "label")]
        );
    }

    #[test]
    fn top1_needs_an_output_that_looks_like_scores() {
        let limits = Limits { min_top1: Some(0.99), ..Limits::default() };
        let agreeing = verdict(&limits, &good());
        assert!(agreeing.pass && agreeing.checks.iter().any(|check| check.name == "top1"));
        let flat = Tensor::of(vec![2], &[0.0f32, 1.0]).unwrap();
        let parity = parity([("y", flat.clone(), Some(flat))]);
        assert_eq!(failures(&verdict(&limits, &parity)), [("top1", "model")]);
    }

    #[test]
    fn nan_never_passes() {
        let mut parity = good();
        if let Some(float) = &mut parity.outputs[0].float {
            float.sqnr_db = NAN;
        }
        assert_eq!(failures(&verdict(&Limits::default(), &parity)), [("sqnr", "scores")]);
        let limits = Limits { min_sqnr_db: Some(NAN), ..Limits::default() };
        assert!(!verdict(&limits, &good()).pass);
    }

    #[test]
    fn figures_at_their_limit_pass_and_just_beyond_it_fail() {
        let mut parity = good();
        if let Some(float) = &mut parity.outputs[0].float {
            (float.sqnr_db, float.max_abs_error, float.top1) = (20.0, 0.5, Some(0.75));
        }
        let exact = Limits {
            min_sqnr_db: Some(20.0),
            min_shrink: Some(4.0),
            min_top1: Some(0.75),
            max_abs_error: Some(0.5),
            ..Limits::default()
        };
        assert!(verdict(&exact, &parity).pass);
        for (stricter, broken) in [
            (Limits { min_sqnr_db: Some(20.1), ..exact.clone() }, ("sqnr", "scores")),
            (Limits { min_shrink: Some(4.1), ..exact.clone() }, ("shrink", "model")),
            (Limits { min_top1: Some(0.76), ..exact.clone() }, ("top1", "scores")),
            (Limits { max_abs_error: Some(0.49), ..exact }, ("max_abs_error", "scores")),
        ] {
            assert_eq!(failures(&verdict(&stricter, &parity)), [broken]);
        }
    }

    #[test]
    fn limits_that_are_off_list_nothing() {
        let off = Limits {
            min_sqnr_db: None,
            max_slowdown: None,
            min_shrink: None,
            allow_new_non_finite: true,
            ..Limits::default()
        };
        let latency = latency(9.0, 9.0);
        let measured = Measurements { parity: Some(&good()), size: SIZE, latency: Some(&latency) };
        let verdict = judge(&off, &measured);
        let names: Vec<_> = verdict.checks.iter().map(|check| check.name.as_str()).collect();
        assert!(verdict.pass && verdict.unjudged.is_empty());
        assert_eq!(
            names,
            [
                "samples",
                "outputs",
                "present",
                "type",
                "shape",
                "present",
                "type",
                "shape",
                "mismatches"
            ]
        );
    }

    #[test]
    fn verdicts_read_back_what_they_write() {
        let before = verdict(&Limits::default(), &good());
        let json = serde_json::to_string(&before).unwrap();
        assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), before);
    }

    proptest! {
        #[test]
        fn a_stricter_limit_never_lets_more_pass(
            original in prop::collection::vec(-1e3f32..1e3, 1..20),
            error in -1.0f32..1.0,
            limits in (-20.0f64..80.0, 0.0f64..40.0),
        ) {
            let candidate: Vec<f32> = original.iter().map(|x| x + error).collect();
            let parity = parity([("y", row(&original), Some(row(&candidate)))]);
            let at = |limit| {
                let limits = Limits { min_sqnr_db: Some(limit), ..Limits::default() };
                verdict(&limits, &parity).pass
            };
            let (loose, stricter_by) = limits;
            prop_assert!(at(loose) || !at(loose + stricter_by));
        }
    }
}
