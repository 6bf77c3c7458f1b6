//! Values of arguments, and what is said where they cannot be meant.

use modelopt::rewrite::{self, Scheme};

/// One scheme for all layers, or a search; not `Option`, which means that nothing was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Auto,
    Scheme(Scheme),
}

/// Whether `quantize` knows a scheme.
pub(super) fn of_quantize(scheme: Scheme) -> bool {
    scheme.is_int8() || scheme.is_keep()
}

/// Whether `convert` does.
pub(super) fn of_convert(scheme: Scheme) -> bool {
    scheme.is_sixteen()
}

/// A scheme that `quantize` knows.
pub(super) fn scheme(text: &str) -> Result<Wanted, String> {
    if text == "auto" {
        return Ok(Wanted::Auto);
    }
    among(text, of_quantize).map(Wanted::Scheme).map_err(|others| format!("{others}, auto"))
}

/// A length of time, in seconds.
pub(super) fn time(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.chars().last().unwrap_or('s')),
        None => (text, 's'),
    };
    let factor = match unit {
        'm' => 60.0,
        'h' => 3600.0,
        _ => 1.0,
    };
    limit(number)
        .ok()
        .map(|number| number * factor)
        .filter(|seconds| *seconds > 0.0 && *seconds <= 1e6)
        .ok_or_else(|| "it must be above 0, such as 60s or 5m".to_owned())
}

/// A scheme that `convert` knows.
pub(super) fn sixteen(text: &str) -> Result<Scheme, String> {
    among(text, of_convert)
}

fn among(text: &str, fits: impl Fn(Scheme) -> bool) -> Result<Scheme, String> {
    let fitting: Vec<Scheme> = Scheme::all().filter(|&scheme| fits(scheme)).collect();
    let named = fitting.iter().copied().find(|scheme| scheme.name() == text);
    named.ok_or_else(|| {
        let names: Vec<&str> = fitting.iter().map(|scheme| scheme.name()).collect();
        format!("there are {}", names.join(", "))
    })
}

pub(super) fn step(text: &str) -> Result<String, String> {
    if rewrite::steps().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    let known = rewrite::steps().collect::<Vec<_>>().join(", ");
    Err(format!("'{text}' is not a preparation step; there are {known}"))
}

/// The most samples that are invented: they are all kept in memory.
const MOST_SAMPLES: usize = 10_000;

pub(super) fn sample_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=MOST_SAMPLES).contains(&count) => Ok(count),
        _ => Err(format!("it must be a number from 1 to {MOST_SAMPLES}")),
    }
}

pub(super) fn limit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if !number.is_nan() => Ok(number),
        _ => Err("it must be a number".to_owned()),
    }
}

/// A ratio that a limit can be, or `off`.
pub(super) fn ratio(text: &str) -> Result<f64, String> {
    if text == "off" {
        return Ok(f64::INFINITY);
    }
    limit(text)
        .ok()
        .filter(|&ratio| ratio > 0.0)
        .ok_or_else(|| "it must be above 0, such as 1.05, or off".to_owned())
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    limit(text)
        .ok()
        .filter(|seconds| (0.0..=3600.0).contains(seconds))
        .ok_or_else(|| "it must be from 0 to 3600".to_owned())
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    limit(text)
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "it must be from 0 to 1".to_owned())
}
