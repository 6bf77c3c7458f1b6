//! Where validation starts: a runtime with the original running in it, on samples that it runs on.
//!
//! Invented samples may have sizes that the model refuses. What suits best is tried in every
//! runtime that comes into question; only then other sizes are, and only in runtimes that failed
//! while running, so that a cause that is not their fault is not met over and over again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelopt_graph::Model;
use modelopt_runtime::{FittingSamples, Proposals, RuntimeError, Stage, synthesize};

use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::found_inputs::FoundInputs;
use crate::subject::Subject;
use crate::target::{self, Ground};
use crate::warning::Warning;

/// How many sizes are tried.
const MOST_TRIES: usize = 24;

/// No further sizes are tried after this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime that says the same for so many sizes is not asked again.
const SAME_ANSWERS: usize = 6;

/// What is to be told of the samples.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// What invented inputs had to be.
    pub(crate) found: Option<FoundInputs>,
    /// That, and what is odd about the user's samples.
    pub(crate) warnings: Vec<Warning>,
}

impl From<Option<FoundInputs>> for Told {
    fn from(found: Option<FoundInputs>) -> Self {
        Told { warnings: found.iter().cloned().map(Warning::FoundInputs).collect(), found }
    }
}

/// The original running in the target, on the user's samples, or on invented ones that it runs on.
pub(crate) fn ground<'a>(
    original: &Arc<Subject>,
    model: &Model,
    config: &'a Config,
) -> Result<(Ground<'a>, Told), Error> {
    if config.samples.is_some() || config.given_samples.is_some() {
        let FittingSamples { samples, oddities } = target::samples(model, config)?;
        let rig = target::target(original, &samples, config, &[])?;
        let warnings = oddities.into_iter().map(Warning::OddInput).collect();
        return Ok((
            Ground { rig, samples, calibrating: Vec::new() },
            Told { found: None, warnings },
        ));
    }
    let options = config.synthesis()?;
    let mut proposals = Proposals::new(model, &options);
    let mut trying = Trying::default();
    while let Some(proposal) = proposals.next(&trying.said) {
        let samples = match synthesize(model, &proposal.options(&options)) {
            Ok(samples) => samples,
            Err(error) if proposal.is_first_guess() => return Err(error.into()),
            Err(_) => continue,
        };
        match target::target(original, &samples, config, &trying.left_out) {
            Ok(rig) => {
                let found = FoundInputs::of(proposal, trying.tries);
                return Ok((Ground { rig, samples, calibrating: Vec::new() }, found.into()));
            }
            Err(error) => {
                tracing::debug!(?proposal, %error, "the original does not run");
                trying.learn(error);
            }
        }
        if trying.is_over() {
            break;
        }
    }
    Err(trying.first.unwrap_or_else(|| ErrorKind::NoRuntime(Vec::new()).into()))
}

/// What was learnt from tries that failed.
struct Trying {
    started: Instant,
    tries: usize,
    /// Why the first guess failed.
    first: Option<Error>,
    /// What runtimes said last.
    said: Vec<String>,
    /// Runtimes in which other sizes would not help.
    left_out: Vec<&'static str>,
    /// What each runtime says, and how often it said so.
    answers: HashMap<&'static str, (String, usize)>,
    /// Whether the last error leaves room for hope.
    hope: bool,
}

impl Default for Trying {
    fn default() -> Self {
        Trying {
            started: Instant::now(),
            tries: 0,
            first: None,
            said: Vec::new(),
            left_out: Vec::new(),
            answers: HashMap::new(),
            hope: true,
        }
    }
}

impl Trying {
    fn learn(&mut self, error: Error) {
        self.tries += 1;
        let failures: &[RuntimeError] = match error.kind() {
            ErrorKind::NoRuntime(failures) => failures,
            ErrorKind::Runtime(failure) => std::slice::from_ref(failure),
            _ => &[],
        };
        self.said = failures.iter().map(RuntimeError::without_path).collect();
        self.hope = false;
        for failure in failures {
            match refusal(failure) {
                Some((runtime, said)) if !self.is_stubborn(runtime, &said) => self.hope = true,
                Some((runtime, _)) => self.left_out.push(runtime),
                None => self.left_out.extend(name(failure)),
            }
        }
        self.first.get_or_insert(error);
    }

    /// Whether a runtime says the same again and again.
    fn is_stubborn(&mut self, runtime: &'static str, message: &str) -> bool {
        let (last, count) = self.answers.entry(runtime).or_default();
        *count = if last == message { *count + 1 } else { 1 };
        message.clone_into(last);
        *count >= SAME_ANSWERS
    }

    fn is_over(&self) -> bool {
        !self.hope || self.tries >= MOST_TRIES || self.started.elapsed() > PATIENCE
    }
}

/// The runtime and what it said, if it may say otherwise of other inputs.
fn refusal(error: &RuntimeError) -> Option<(&'static str, String)> {
    match error {
        RuntimeError::Run { runtime, message, .. }
        | RuntimeError::Panicked { runtime, stage: Stage::Running, message, .. } => {
            Some((runtime, message.clone()))
        }
        RuntimeError::Died { runtime, end, .. } => Some((runtime, end.to_string())),
        _ => None,
    }
}

/// The runtime that failed, if the error is of one.
fn name(error: &RuntimeError) -> Option<&'static str> {
    match error {
        RuntimeError::Load { runtime, .. }
        | RuntimeError::NotBuilt { runtime }
        | RuntimeError::Provider { runtime, .. }
        | RuntimeError::Panicked { runtime, .. }
        | RuntimeError::Unsupported { runtime, .. }
        | RuntimeError::Range { runtime, .. } => Some(runtime),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
