//! How figures and facts are put into words, the same in every kind of report.

use modelopt_validate::{
    Bound, Check, Footprint, LatencyComparison, OutputParity, SizeChange, Unit, Verdict,
};

use crate::{Document, Machine, Run, RuntimeUsed, SampleKind, Samples};

/// Stands where there is no such figure.
pub(crate) const NONE: &str = "–";

/// At most four significant digits, whatever the size.
pub(crate) fn number(x: f64) -> String {
    let size = x.abs();
    if x.is_nan() {
        "none".to_owned()
    } else if x.is_infinite() {
        if x > 0.0 { "∞" } else { "−∞" }.to_owned()
    } else if x.fract() == 0.0 && size < 1e15 {
        format!("{x:.0}")
    } else if !(1e-3..1e4).contains(&size) {
        format!("{x:.2e}")
    } else {
        let decimals = 3 - size.log10().floor() as i32;
        let digits = format!("{x:.*}", usize::try_from(decimals).unwrap_or(0));
        digits.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

pub(crate) fn percent(share: f64) -> String {
    if share.is_nan() { "none".to_owned() } else { format!("{:.2} %", share * 100.0) }
}

pub(crate) fn bytes(count: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|&(size, _)| count >= size) {
        Some((size, unit)) => format!("{:.1} {unit}", count as f64 / size as f64),
        None => format!("{count} B"),
    }
}

/// A time given in milliseconds, in the unit that reads best, to three digits.
pub(crate) fn milliseconds(time: f64) -> String {
    if time.is_nan() {
        return number(time);
    }
    let (factor, unit) = time_unit(time);
    let scaled = time * factor;
    if scaled != 0.0 && !(0.01..1e5).contains(&scaled.abs()) {
        return format!("{} {unit}", number(scaled));
    }
    let decimals = usize::from(scaled.abs() < 100.0) + usize::from(scaled.abs() < 10.0);
    format!("{scaled:.decimals$} {unit}")
}

/// What milliseconds are to be multiplied with, and the unit that this gives, for times up to
/// `longest`.
pub(crate) fn time_unit(longest: f64) -> (f64, &'static str) {
    match longest.abs() {
        size if size >= 1e4 => (1e-3, "s"),
        size if size < 0.9995 && size > 0.0 => (1e3, "µs"),
        _ => (1.0, "ms"),
    }
}

pub(crate) fn decibels(x: f64) -> String {
    match x {
        f64::INFINITY => "exact".to_owned(),
        _ if x.is_nan() => number(x),
        _ => format!("{} dB", number(x)),
    }
}

pub(crate) fn times(x: f64) -> String {
    if x.is_nan() { number(x) } else { format!("{}x", number(x)) }
}

pub(crate) fn figure(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Decibels => decibels(value),
        Unit::Times => times(value),
        Unit::Share => percent(value),
        Unit::Count | Unit::Output | Unit::Metric => number(value),
        Unit::Flag => if value >= 1.0 { "yes" } else { "no" }.to_owned(),
    }
}

pub(crate) fn limit(check: &Check) -> String {
    let sign = match check.bound {
        Bound::AtLeast => "≥",
        Bound::AtMost => "≤",
    };
    match check.unit {
        Unit::Flag => "yes".to_owned(),
        Unit::Decibels => format!("{sign} {} dB", number(check.limit)),
        unit => format!("{sign} {}", figure(check.limit, unit)),
    }
}

/// The verdict in one or two words.
pub(crate) fn outcome(verdict: Option<&Verdict>) -> &'static str {
    match verdict.map(|verdict| verdict.pass) {
        Some(true) => "passed",
        Some(false) => "refused",
        None => "not judged",
    }
}

/// The verdict in a sentence.
pub(crate) fn outcome_sentence(verdict: Option<&Verdict>) -> String {
    let Some(verdict) = verdict else {
        return "No figure was held against a limit.".to_owned();
    };
    let count = counted(verdict.checks.len(), "check");
    match verdict.failures().count() {
        0 if verdict.pass => format!("{count} passed."),
        0 => "Refused, although no check failed.".to_owned(),
        failed => format!("{failed} of {count} failed."),
    }
}

/// Why a search ended, and what came of it.
pub(crate) fn search_end(document: &Document) -> Option<&'static str> {
    let passed = document.verdict.as_ref().is_none_or(|verdict| verdict.pass);
    document.search_end.map(|end| end.sentence(passed))
}

pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

pub(crate) fn sample_kind(kind: SampleKind) -> &'static str {
    match kind {
        SampleKind::Real => "real",
        SampleKind::Synthetic => "synthetic",
        SampleKind::Mixed => "real and synthetic",
    }
}

fn other_samples(count: usize) -> String {
    if count == 1 { "1 other".to_owned() } else { format!("{count} others") }
}

/// What is to be said of samples besides how many there are.
pub(crate) fn sample_note(samples: &Samples) -> String {
    let kind = sample_kind(samples.kind);
    let others = samples.calibrating.map(other_samples);
    others.map_or_else(|| kind.to_owned(), |others| format!("{kind}; calibrated on {others}"))
}

pub(crate) fn samples(samples: &Samples) -> String {
    let kind = sample_kind(samples.kind);
    match samples.calibrating {
        None => format!("{} {kind}", samples.count),
        Some(others) => {
            format!("judged on {} {kind}, calibrated on {}", samples.count, other_samples(others))
        }
    }
}

pub(crate) fn size_change(size: &SizeChange) -> String {
    format!("{} → {}", bytes(size.original_bytes), bytes(size.candidate_bytes))
}

/// How much smaller or larger.
pub(crate) fn shrink(size: &SizeChange) -> String {
    match size.ratio() {
        ratio if ratio > 1.0 => format!("{} smaller", times(ratio)),
        ratio if ratio < 1.0 => format!("{} larger", times(ratio.recip())),
        _ => "same size".to_owned(),
    }
}

/// Like `0.5x (0.45x to 0.625x)`.
pub(crate) fn ratio(latency: &LatencyComparison) -> String {
    format!("{} ({})", times(latency.ratio_median), interval(latency))
}

pub(crate) fn interval(latency: &LatencyComparison) -> String {
    format!("{} to {}", times(latency.ratio_low), times(latency.ratio_high))
}

/// Share as a whole percentage.
pub(crate) fn rough_percent(share: f64) -> String {
    if share.is_finite() { format!("{:.0} %", share * 100.0) } else { number(share) }
}

/// Load time and peak memory of both, as far as they were measured.
pub(crate) fn footprint(run: &Run, of: impl Fn(&Footprint) -> String) -> String {
    let side = |side: Option<&Footprint>| side.map_or_else(|| NONE.to_owned(), &of);
    match (&run.original, &run.candidate) {
        (None, None) => NONE.to_owned(),
        (original, candidate) => {
            format!("{} → {}", side(original.as_ref()), side(candidate.as_ref()))
        }
    }
}

/// Lowest SQNR of the run's outputs, in dB, and the output; NaN is the lowest of all.
pub(crate) fn worst_sqnr(run: &Run) -> Option<(f64, &OutputParity)> {
    let outputs = run.parity.iter().flat_map(modelopt_validate::Parity::judged);
    let figures = outputs.filter_map(|output| Some((output.float.as_ref()?.sqnr_db, output)));
    let rank = |x: f64| if x.is_nan() { f64::NEG_INFINITY } else { x };
    figures.min_by(|(a, _), (b, _)| rank(*a).total_cmp(&rank(*b)))
}

/// Like `tract 0.23.9`.
pub(crate) fn runtime(runtime: &RuntimeUsed) -> String {
    format!("{} {}", runtime.name, runtime.version).trim().to_owned()
}

/// All about a runtime but its name and version.
pub(crate) fn settings(runtime: &RuntimeUsed) -> String {
    let mut parts = vec![threads(runtime.threads)];
    parts.extend(runtime.provider.as_ref().map(|provider| format!("on {provider}")));
    parts.extend(runtime.optimization.as_ref().map(|level| format!("optimization {level}")));
    parts.extend(runtime.library.as_ref().map(|library| format!("library {}", library.as_str())));
    parts.extend(runtime.how.clone());
    parts.extend((!runtime.reason.is_empty()).then(|| runtime.reason.clone()));
    parts.join(", ")
}

fn threads(count: usize) -> String {
    if count == 0 { "all threads".to_owned() } else { counted(count, "thread") }
}

pub(crate) fn machine(machine: &Machine) -> String {
    let cpu = if machine.cpu.is_empty() { "unknown processor" } else { &machine.cpu };
    format!("{cpu}, {}, {}", counted(machine.threads, "logical processor"), machine.platform)
}

/// The start of a digest, enough to tell files apart by eye.
pub(crate) fn short_digest(digest: &str) -> String {
    let mut short: String = digest.chars().take(16).collect();
    if short.len() < digest.len() {
        short.push('…');
    }
    short
}

/// `a → b`, or the one there is.
pub(crate) fn models(document: &Document) -> String {
    let original = document.original.name.as_str();
    match &document.candidate {
        Some(candidate) => format!("{original} → {}", candidate.name.as_str()),
        None => original.to_owned(),
    }
}

/// At most `most` characters; what is left out is the middle, because names differ at the ends.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let tail = most / 2;
    let head = most - tail - 1;
    text.chars().take(head).chain(['…']).chain(text.chars().skip(count - tail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers =
            [0.0, 40.0, 41.234_56, 9.999_96, 1.05, -0.001_25, 1.23e-5, 1e20, f64::NEG_INFINITY];
        let written: Vec<_> = numbers.into_iter().map(number).collect();
        assert_eq!(
            written,
            ["0", "40", "41.23", "10", "1.05", "-0.00125", "1.23e-5", "1.00e20", "−∞"]
        );
        assert_eq!([number, percent, decibels, times].map(|write| write(f64::NAN)), ["none"; 4]);
        assert_eq!(decibels(f64::INFINITY), "exact");
        assert_eq!(
            [0, 999, 1_000, 98_700_000, 2_500_000_000].map(bytes).join(", "),
            "0 B, 999 B, 1.0 kB, 98.7 MB, 2.5 GB"
        );
    }

    #[test]
    fn times_have_the_unit_that_reads_best() {
        assert_eq!(
            [0.0, 0.012_34, 0.5, 0.9996, 4.216, 42.16, 421.6, 12_345.0]
                .map(milliseconds)
                .join(", "),
            "0.00 ms, 12.3 µs, 500 µs, 1.00 ms, 4.22 ms, 42.2 ms, 422 ms, 12.3 s"
        );
        assert_eq!(
            [1e-300, 1e300, f64::INFINITY, f64::NAN].map(milliseconds).join(", "),
            "1.00e-297 µs, 1.00e297 s, ∞ s, none"
        );
    }

    #[test]
    fn growth_and_shrinkage_are_told_apart() {
        let change = |original_bytes, candidate_bytes| {
            shrink(&SizeChange { original_bytes, candidate_bytes })
        };
        assert_eq!(change(400, 100), "4x smaller");
        assert_eq!(change(100, 125), "1.25x larger");
        assert_eq!((change(7, 7), change(0, 0)), ("same size".into(), "same size".into()));
        assert_eq!((change(1, 0), change(0, 1)), ("∞x smaller".into(), "∞x larger".into()));
    }

    #[test]
    fn long_names_keep_their_ends() {
        assert_eq!(shortened("/encoder/layer_17/MatMul", 11), "/enco…atMul");
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("ééééé", 4), "é…éé");
        assert_eq!(short_digest("0123456789abcdef01"), "0123456789abcdef…");
        assert_eq!(short_digest("é"), "é");
    }
}
