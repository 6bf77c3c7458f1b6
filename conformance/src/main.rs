//! Optimises thousands of small models in one process: `cargo xtask conformance` gives it a batch and
//! judges what comes out. A process for each would spend most of its time on starting.
//!
//! Standard input is one [`Batch`] as JSON; standard output a line of JSON for each of its jobs as it
//! ends, `{"job": 3, "document": {...}}`, or with an `error` in place of the document.
//!
//! `modelopt-conformance steps` prints what an upgrade does at each version of each operator instead.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use modelopt::rewrite::upgrade::{Change, UpgradeError, Upgraded, steps, upgrade};
use modelopt::{Config, ErrorKind, Stop, onnx, optimize};
use serde::Deserialize;
use serde_json::{Value, json};
use xtask::parallel::parallel;

/// Models that are optimised with the same settings.
#[derive(Debug, Deserialize)]
struct Batch {
    /// The text of a `modelopt.toml`.
    settings: String,
    /// Models are brought to the newest operator set that ONNX Runtime runs rather than optimised.
    #[serde(default)]
    upgrade: bool,
    jobs: Vec<Job>,
}

#[derive(Debug, Deserialize)]
struct Job {
    model: PathBuf,
    output: PathBuf,
    /// Where real inputs are, if there are any.
    samples: Option<PathBuf>,
}

fn main() -> Result<()> {
    if std::env::args().nth(1).is_some_and(|argument| argument == "steps") {
        println!("{}", known_steps());
        return Ok(());
    }
    modelopt::runtime::silence_runtime_panics();
    let batch: Batch = serde_json::from_reader(std::io::stdin().lock()).context("no batch")?;
    let config = if batch.upgrade {
        Config::upgrading().with_toml(&batch.settings)?
    } else {
        settings(&batch.settings)?
    };
    let jobs: Vec<(usize, &Job)> = batch.jobs.iter().enumerate().collect();
    let told: Result<Vec<()>> =
        parallel(&jobs, |&(place, job)| tell(place, &answer(&config, batch.upgrade, job)))
            .into_iter()
            .collect();
    told.map(drop)
}

/// The settings of a batch, over the defaults that the program has for its scheme. The limit of SQNR
/// is one of them: a limit that somebody sets is kept more strictly.
fn settings(text: &str) -> Result<Config> {
    let defaults = Config::from_toml(text)?.scheme.map_or_else(Config::default, Config::converting);
    Ok(defaults.with_toml(text)?)
}

/// What came of a job: the report document, or why there is none.
fn answer(config: &Config, upgrade: bool, job: &Job) -> Value {
    let config = Config { samples: job.samples.clone(), ..config.clone() };
    let document = if upgrade {
        raise(&config, &job.model, &job.output)
    } else {
        run(&config, &job.model, &job.output)
    };
    document.unwrap_or_else(
        |error| json!({ "error": format!("{error:#}"), "adapted": refused(&error) }),
    )
}

/// The operator and the version at which an upgrade ended.
fn refused(error: &anyhow::Error) -> Option<[(&str, i64); 1]> {
    match error.downcast_ref::<modelopt::Error>()?.kind() {
        ErrorKind::Upgrade(UpgradeError::Node { operator, version, .. }) => {
            Some([(operator, *version)])
        }
        _ => None,
    }
}

fn run(config: &Config, model: &Path, output: &Path) -> Result<Value> {
    let outcome = optimize(model, output, config, &mut |_| {})?;
    Ok(serde_json::from_str(
        &outcome.document("conformance", modelopt::Warning::to_string).to_json(),
    )?)
}

/// An upgrade, and whether a second one leaves every byte as it is.
fn raise(config: &Config, model: &Path, output: &Path) -> Result<Value> {
    let stop = Stop::default();
    let outcome = modelopt::upgrade(model, output, None, config, &stop, &mut |_| {})?;
    let Upgraded { to, adapted, .. } = &outcome.upgraded;
    let stays = outcome.emitted && is_left_alone(output, *to)?;
    let adapted: Vec<_> = adapted.iter().map(|a| (a.operator, a.version)).collect();
    Ok(json!({ "opset": to, "adapted": adapted, "stays": stays }))
}

fn is_left_alone(file: &Path, to: i64) -> Result<bool> {
    let mut model = onnx::load(file)?;
    let before = onnx::to_bytes(&model)?;
    let again = upgrade(&mut model, to)?;
    Ok(!again.changed && onnx::to_bytes(&model)? == before && std::fs::read(file)? == before)
}

/// What the library says of each version at which an operator changes.
fn known_steps() -> Value {
    let told = steps().map(|step| {
        let (kind, what) = match step.change {
            Change::Wider => ("wider", ""),
            Change::Unchanged(why) => ("unchanged", why),
            Change::Adapted(what) => ("adapted", what),
            Change::Refused => ("refused", "the operator was withdrawn"),
            _ => ("open", ""),
        };
        json!({ "operator": step.operator, "version": step.version, "kind": kind, "what": what })
    });
    told.collect()
}

fn tell(place: usize, document: &Value) -> Result<()> {
    let line = json!({ "job": place, "document": document }).to_string() + "\n";
    // One write for each line: answers of two threads do not mix.
    std::io::stdout().lock().write_all(line.as_bytes()).context("nobody listens")
}

#[cfg(test)]
mod tests {
    use super::settings;

    #[test]
    fn a_conversion_has_the_limit_of_conversions_and_nobody_set_it() {
        let half = settings("scheme = \"fp16\"\n[gate]\nmin-shrink = 0.0\n").unwrap();
        assert_eq!((half.gate.min_sqnr_db, half.gate.min_shrink), (Some(40.0), Some(0.0)));
        assert!(!half.sqnr_limit_given);
        assert_eq!(settings("sample-count = 1\n").unwrap().gate.min_sqnr_db, Some(20.0));
    }
}
