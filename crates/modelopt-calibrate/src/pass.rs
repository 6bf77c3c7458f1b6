//! The pass over the original that feeds observers.

use std::collections::HashMap;
use std::ops::ControlFlow;

use modelopt_graph::{Model, ValueId};
use modelopt_runtime::{Outputs, Sample, Session};
use serde::{Deserialize, Serialize};

use crate::groups::{GROUP_BYTES, Sizes, groups};
use crate::observations::Observations;
use crate::observer::View;
use crate::pass_error::PassError;
use crate::samples::Samples;
use crate::session::OpenSession;
use crate::shown::expose;

/// How far a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Runs that were looked at.
    pub done: usize,
    /// Runs in all: samples times groups of values.
    pub total: usize,
}

/// Where a pass is: what another one needs to go on from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Names of the values of each round: inputs, which need no run, then one group of what nodes make
    /// for each other round.
    rounds: Vec<Vec<String>>,
    /// The round.
    round: usize,
    /// Samples that were seen in it.
    seen: usize,
}

impl Position {
    /// Names of all values, of all rounds.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.rounds.iter().flatten()
    }
}

/// A pass after one more sample.
#[derive(Debug)]
pub struct Moment<'a> {
    /// How far it is.
    pub step: Step,
    /// The same, to go on from.
    pub position: &'a Position,
    /// What was seen up to there.
    pub observations: &'a Observations,
}

/// Is told of every sample that was seen in a round, and may end the pass.
type Watch<'a> = dyn FnMut(&Moment<'_>) -> ControlFlow<()> + 'a;

/// A pass over samples.
///
/// Values become outputs of a copy of the model, in groups that fit into memory; the copy runs once
/// for each group and sample. Samples are taken one at a time, once for each group.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    model: &'a Model,
    samples: &'a dyn Samples,
    first: u64,
    group_bytes: u64,
    strict: bool,
}

impl<'a> Pass<'a> {
    /// A pass over all samples there are.
    pub fn new(model: &'a Model, samples: &'a dyn Samples) -> Self {
        Pass { model, samples, first: 0, group_bytes: GROUP_BYTES, strict: false }
    }

    /// These samples are a shard: before them there are `first` others.
    #[must_use]
    pub fn from(self, first: u64) -> Self {
        Pass { first, ..self }
    }

    /// The most that the values of one group take together, in bytes, as far as their sizes are known.
    #[must_use]
    pub fn within(self, group_bytes: u64) -> Self {
        Pass { group_bytes, ..self }
    }

    /// Ends the pass with the first error, and where an input or what is observed has elements that are
    /// NaN. All samples are read before any is run.
    #[must_use]
    pub fn strict(self) -> Self {
        Pass { strict: true, ..self }
    }

    /// The places of its samples.
    pub fn places(&self) -> impl Iterator<Item = u64> + use<> {
        self.first..self.first + self.samples.count() as u64
    }

    /// Shows values to their observers. Where one group cannot be shown the others are, and an error
    /// says which it was; `progress` is told of every run, and may end the pass.
    pub fn run(
        &self,
        observations: &mut Observations,
        sessions: &dyn OpenSession,
        progress: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<(), PassError> {
        let start = self.start(observations, sessions)?;
        self.go_on(start, observations, sessions, &mut |moment| progress(moment.step))
    }

    /// Where a pass begins. A strict one runs the model once for the sizes of its values, where those are
    /// not known.
    pub fn start(
        &self,
        observations: &Observations,
        sessions: &dyn OpenSession,
    ) -> Result<Position, PassError> {
        let (inputs, inner) = self.values(observations);
        let largest = self.samples.largest()?;
        let mut sizes = Sizes::inferred(self.model, &inner, largest.as_ref());
        if let Some(largest) = largest.filter(|_| self.strict) {
            sizes.ask(self.model, &inner, &largest, sessions);
        }
        let groups = groups(&inner, &sizes, self.group_bytes);
        let name = |value: &ValueId| self.model.value(*value).name().to_owned();
        let groups = groups.iter().map(|group| group.iter().map(name).collect());
        Ok(Position { rounds: std::iter::once(inputs).chain(groups).collect(), round: 0, seen: 0 })
    }

    /// Goes on from where another pass over the same samples was, with what it had seen.
    pub fn go_on(
        &self,
        mut position: Position,
        observations: &mut Observations,
        sessions: &dyn OpenSession,
        watch: &mut Watch<'_>,
    ) -> Result<(), PassError> {
        let mut failed = None;
        while position.round < position.rounds.len() {
            let looked = if position.round == 0 {
                self.inputs(&mut position, observations, watch)
            } else {
                self.group(&mut position, observations, sessions, watch)
            };
            match looked {
                Err(error) if self.strict || matches!(error, PassError::Stopped) => {
                    return Err(error);
                }
                looked => failed = looked.err().or(failed),
            }
            position.round += 1;
            position.seen = 0;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Names of the model's inputs among what is observed, and what nodes make.
    fn values(&self, observations: &Observations) -> (Vec<String>, Vec<ValueId>) {
        let by_name = self.made();
        let mut inputs = Vec::new();
        let mut inner = Vec::new();
        for name in observations.values() {
            match by_name.get(name) {
                Some(&value) => inner.push(value),
                None => inputs.push(name.to_owned()),
            }
        }
        (inputs, inner)
    }

    /// What nodes of the main graph make, by name.
    fn made(&self) -> HashMap<&'a str, ValueId> {
        let nodes = self.model.nodes_of(self.model.main());
        let outputs = nodes.flat_map(|id| self.model.node(id).outputs().iter().flatten());
        outputs.map(|&value| (self.model.value(value).name(), value)).collect()
    }

    /// The round of inputs: they are known without a run.
    fn inputs(
        &self,
        position: &mut Position,
        observations: &mut Observations,
        watch: &mut Watch<'_>,
    ) -> Result<(), PassError> {
        let names = position.rounds.first().cloned().unwrap_or_default();
        if names.is_empty() && !self.strict {
            return Ok(());
        }
        for place in position.seen..self.samples.count() {
            let sample = self.samples.get(place)?;
            for (value, tensor) in &sample.inputs {
                let view = View::new(tensor, self.first + place as u64);
                if self.strict && view.extent().nans > 0 {
                    let (value, sample) = (value.clone(), sample.name);
                    return Err(PassError::NanInput { value, sample });
                }
                if names.contains(value) {
                    observations.see(value, &view);
                }
            }
            position.seen = place + 1;
            if self.strict {
                self.told(position, observations, watch)?;
            }
        }
        Ok(())
    }

    /// One of the other rounds: runs the model on all samples with some values as outputs.
    fn group(
        &self,
        position: &mut Position,
        observations: &mut Observations,
        sessions: &dyn OpenSession,
        watch: &mut Watch<'_>,
    ) -> Result<(), PassError> {
        let names = position.rounds.get(position.round).cloned().unwrap_or_default();
        let mut session = self.open(&names, sessions)?;
        for place in position.seen..self.samples.count() {
            let sample = self.samples.get(place)?;
            let outputs = session.run(&sample.inputs).map_err(|source| PassError::Run {
                values: names.clone(),
                sample: sample.name.clone(),
                source: Box::new(source),
            })?;
            self.see(&names, (&sample, place), &outputs, observations)?;
            position.seen = place + 1;
            self.told(position, observations, watch)?;
        }
        Ok(())
    }

    fn open<'s>(
        &self,
        names: &[String],
        sessions: &'s dyn OpenSession,
    ) -> Result<Box<dyn Session + 's>, PassError> {
        let by_name = self.made();
        let values: Vec<ValueId> =
            names.iter().filter_map(|name| by_name.get(name.as_str()).copied()).collect();
        let mut model = self.model.clone();
        expose(&mut model, &values);
        sessions.open(&model).map_err(|source| {
            let (values, source) = (names.to_vec(), Box::new(source));
            PassError::Open { values, source }
        })
    }

    fn see(
        &self,
        names: &[String],
        (sample, place): (&Sample, usize),
        outputs: &Outputs,
        observations: &mut Observations,
    ) -> Result<(), PassError> {
        let nan = observations.see_outputs(names, outputs, self.first + place as u64);
        match nan.filter(|_| self.strict) {
            Some(value) => Err(PassError::NanMade { value, sample: sample.name.clone() }),
            None => Ok(()),
        }
    }

    fn told(
        &self,
        position: &Position,
        observations: &Observations,
        watch: &mut Watch<'_>,
    ) -> Result<(), PassError> {
        // Reading inputs counts only where all samples are read for it.
        let uncounted = usize::from(!self.strict);
        let samples = self.samples.count();
        let step = Step {
            done: (position.round - uncounted) * samples + position.seen,
            total: (position.rounds.len() - uncounted) * samples,
        };
        match watch(&Moment { step, position, observations }) {
            ControlFlow::Break(()) => Err(PassError::Stopped),
            ControlFlow::Continue(()) => Ok(()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "numbers are exact here")]
mod tests;
