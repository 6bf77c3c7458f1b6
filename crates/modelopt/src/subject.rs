//! What is run for a model: its file, or a copy that gives the same results in every run.
//!
//! A model with random operators differs from itself. Original and candidate are run as copies then,
//! which share their noise: see [`modelopt_rewrite::Noise`]. All copies are made here, so that what
//! is judged, searched and measured runs alike; what is emitted is never one of them.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::{Model, Tensor};
use modelopt_onnx as onnx;
use modelopt_rewrite::{Noise, RandomOperator, random_operators};
use modelopt_runtime::worker::{Remote, Seat};
use modelopt_runtime::{LeftOut, Outputs, RuntimeError, Session};

use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::scratch::Scratch;
use crate::warning::Warning;

/// The original as it is run, and how other models are run beside it.
pub(crate) struct Subject {
    /// Where the user has it.
    file: PathBuf,
    copy: Option<Copy>,
    copies: Copies,
    /// Whether it gives other results in every run.
    pub(crate) is_unsteady: bool,
    /// What the user should know of it.
    pub(crate) warnings: Vec<Warning>,
}

/// A file that is run in place of another.
pub(crate) struct Copy {
    path: PathBuf,
    bytes: u64,
    _scratch: Scratch,
}

/// Makes the copies of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copies {
    noise: Option<Arc<Noise>>,
    /// By how much files grow.
    growth: u64,
}

impl Subject {
    /// A model as it is, whatever is in it.
    pub(crate) fn as_it_is(file: &Path) -> Self {
        let copies = Copies::default();
        let file = file.to_owned();
        Subject { file, copy: None, copies, is_unsteady: false, warnings: Vec::new() }
    }

    /// A model that others are held against: with the same noise for all, where the settings say so
    /// or one of them is random.
    pub(crate) fn new(
        file: &Path,
        model: &Model,
        others: &[&Model],
        config: &Config,
    ) -> Result<Self, Error> {
        let mut subject = Subject::as_it_is(file);
        let mut found = random_operators(model);
        for operator in others.iter().flat_map(|other| random_operators(other)) {
            if !found.iter().any(|known| known.op == operator.op) {
                found.push(operator);
            }
        }
        let (random, training): (Vec<_>, Vec<_>) =
            found.into_iter().partition(RandomOperator::is_random);
        if !training.is_empty() {
            subject.warnings.push(Warning::InTraining { operators: training });
        }
        if random.is_empty() {
            return Ok(subject);
        }
        if config.same_noise == Some(false) {
            subject.is_unsteady = true;
            subject.warnings.push(Warning::RandomOriginal { operators: random });
            return Ok(subject);
        }
        let noise = Noise::of(model);
        let same = noise.given_to(model);
        if let (Some(true), Some((label, why))) = (config.same_noise, same.left.first()) {
            let message = format!("{label} cannot be given the same noise: {why}");
            return Err(ErrorKind::Config(message).into());
        }
        subject.is_unsteady = !same.left.is_empty();
        if same.replaced == 0 && others.is_empty() {
            subject.warnings.extend(left_random(same.left));
            subject.warnings.push(Warning::RandomOriginal { operators: random });
            return Ok(subject);
        }
        subject.copies.noise = Some(Arc::new(noise));
        if same.replaced > 0 {
            let copy = Copy::write(&same.model)?;
            let bytes = onnx::stored_size(file, model)?;
            subject.copies.growth = copy.bytes.saturating_sub(bytes);
            subject.copy = Some(copy);
        }
        subject.warnings.push(Warning::SameNoise { operators: random });
        subject.warnings.extend(left_random(same.left));
        Ok(subject)
    }

    /// The file to run.
    pub(crate) fn path(&self) -> &Path {
        self.copy.as_ref().map_or(&self.file, |copy| &copy.path)
    }

    /// A session of the file that is run, whose errors are about the file of the user.
    pub(crate) fn named(&self, session: Box<dyn Session>) -> Box<dyn Session> {
        match &self.copy {
            Some(_) => Box::new(StandIn { session, file: self.file.clone() }),
            None => session,
        }
    }

    /// Where the user has it.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// How other models are run beside it.
    pub(crate) fn copies(&self) -> &Copies {
        &self.copies
    }
}

/// A copy that runs in place of a file.
struct StandIn {
    session: Box<dyn Session>,
    file: PathBuf,
}

impl Session for StandIn {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        self.session.run(inputs).map_err(|error| error.about(&self.file))
    }

    fn left_out(&self) -> &[LeftOut] {
        self.session.left_out()
    }

    fn seat(&self) -> Option<Seat> {
        self.session.seat()
    }

    fn remote<'s>(&'s mut self, inputs: &'s IndexMap<String, Tensor>) -> Option<Remote<'s>> {
        self.session.remote(inputs)
    }
}

impl Copies {
    /// A model as it is to be run.
    pub(crate) fn of<'a>(&self, model: &'a Model) -> Cow<'a, Model> {
        match &self.noise {
            Some(noise) => Cow::Owned(noise.given_to(model).model),
            None => Cow::Borrowed(model),
        }
    }

    /// The file to run for another one; none where that is run itself.
    pub(crate) fn of_file(&self, file: &Path) -> Result<Option<Copy>, Error> {
        let Some(noise) = &self.noise else { return Ok(None) };
        let same = noise.given_to(&onnx::load(file)?);
        (same.replaced > 0).then(|| Copy::write(&same.model)).transpose()
    }

    /// The size of a model of which the copy has so many bytes.
    pub(crate) fn size_without(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.growth)
    }
}

impl Copy {
    /// Writes a model to be run.
    pub(crate) fn write(model: &Model) -> Result<Self, Error> {
        let scratch = Scratch::new()?;
        let path = scratch.keep(model, "model.onnx")?;
        let bytes = fs_err::metadata(&path)?.len();
        Ok(Copy { path, bytes, _scratch: scratch })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// What is said of operators that cannot be given the same noise, with the reason for each.
fn left_random(left: Vec<(String, String)>) -> Option<Warning> {
    let reason = left.first()?.1.clone();
    let labels = left.into_iter().map(|(label, _)| label).collect();
    Some(Warning::LeftRandom { labels, reason })
}

#[cfg(test)]
mod tests;
