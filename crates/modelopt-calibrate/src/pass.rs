//! The pass over the original that feeds observers.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use modelopt_graph::{Model, ValueId};
use modelopt_runtime::{Outputs, RuntimeError, Sample, Session};

use crate::groups::{GROUP_BYTES, groups};
use crate::observations::Observations;
use crate::observer::View;
use crate::shown::expose;

/// Something that makes sessions of models that were made from the original.
///
/// A session may come from a worker process; what it needs to live stays with it.
pub trait OpenSession {
    /// A model ready to run, or why it cannot be.
    fn open(&self, model: &Model) -> Result<Box<dyn Session + '_>, RuntimeError>;
}

impl<F: Fn(&Model) -> Result<Box<dyn Session>, RuntimeError>> OpenSession for F {
    fn open(&self, model: &Model) -> Result<Box<dyn Session + '_>, RuntimeError> {
        self(model)
    }
}

/// How far a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Runs that were looked at.
    pub done: usize,
    /// Runs in all: samples times groups of values.
    pub total: usize,
}

/// Values that could not be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// The model could not be loaded with these values as outputs.
    #[error("{} cannot be shown: {source}", list(.values))]
    Open {
        /// Names of the values.
        values: Vec<String>,
        /// What the runtime said.
        source: Box<RuntimeError>,
    },
    /// The model did not run with these values as outputs.
    #[error("{} cannot be shown on sample {sample}: {source}", list(.values))]
    Run {
        /// Names of the values.
        values: Vec<String>,
        /// Name of the sample.
        sample: String,
        /// What the runtime said.
        source: Box<RuntimeError>,
    },
    /// The caller ended the pass.
    #[error("the samples were not all looked at")]
    Stopped,
}

fn list(values: &[String]) -> String {
    match values {
        [] => "nothing".to_owned(),
        [only] => format!("'{only}'"),
        [first, rest @ ..] => format!("'{first}' and {} more", rest.len()),
    }
}

impl PassError {
    /// What the runtime said, where it did not do its part.
    pub fn runtime_error(&self) -> Option<&RuntimeError> {
        match self {
            PassError::Open { source, .. } | PassError::Run { source, .. } => Some(source),
            PassError::Stopped => None,
        }
    }

    /// The same about a file that the caller knows: see [`RuntimeError::about`].
    #[must_use]
    pub fn about(self, file: &Path) -> Self {
        match self {
            PassError::Open { values, source } => {
                PassError::Open { values, source: Box::new(source.about(file)) }
            }
            PassError::Run { values, sample, source } => {
                PassError::Run { values, sample, source: Box::new(source.about(file)) }
            }
            PassError::Stopped => self,
        }
    }

    /// The same in words, with what a runtime said told by `say`.
    pub fn told(&self, say: impl Fn(&RuntimeError) -> String) -> String {
        match self {
            PassError::Open { values, source } => {
                format!("{} cannot be shown: {}", list(values), say(source))
            }
            PassError::Run { values, sample, source } => {
                format!("{} cannot be shown on sample {sample}: {}", list(values), say(source))
            }
            PassError::Stopped => self.to_string(),
        }
    }
}

/// Takes one run: the place of the sample, the names of the values that are shown, and all outputs.
type See<'a> = dyn FnMut(usize, &[String], &Outputs) -> ControlFlow<()> + 'a;

/// A pass over samples.
///
/// Values become outputs of a copy of the model, in groups that fit into memory; the copy runs once
/// for each group and sample.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    model: &'a Model,
    samples: &'a [Sample],
    first: u64,
    group_bytes: u64,
}

impl<'a> Pass<'a> {
    /// A pass over all samples there are.
    pub fn new(model: &'a Model, samples: &'a [Sample]) -> Self {
        Pass { model, samples, first: 0, group_bytes: GROUP_BYTES }
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

    /// The places of its samples.
    pub fn places(&self) -> impl Iterator<Item = u64> + use<> {
        self.first..self.first + self.samples.len() as u64
    }

    /// Shows values to their observers. Where one group cannot be shown the others are, and an error
    /// says which it was; `progress` is told of every run, and may end the pass.
    pub fn run(
        &self,
        observations: &mut Observations,
        sessions: &dyn OpenSession,
        progress: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<(), PassError> {
        let (inputs, inner) = self.values(observations);
        for (place, sample) in self.places().zip(self.samples) {
            let given = inputs.iter().filter_map(|name| Some((name, sample.inputs.get(name)?)));
            given.for_each(|(name, tensor)| observations.see(name, &View::new(tensor, place)));
        }
        let groups = groups(self.model, &inner, self.samples, self.group_bytes);
        let total = groups.len() * self.samples.len();
        let mut failed = None;
        for (index, group) in groups.iter().enumerate() {
            let before = index * self.samples.len();
            let seen = self.look(group, sessions, &mut |sample, names, outputs| {
                observations.see_outputs(names, outputs, self.first + sample as u64);
                progress(Step { done: before + sample + 1, total })
            });
            match seen {
                Err(PassError::Stopped) => return Err(PassError::Stopped),
                seen => failed = seen.err().or(failed),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Names of the model's inputs among what is observed, and what nodes make.
    fn values(&self, observations: &Observations) -> (Vec<String>, Vec<ValueId>) {
        let mut by_name: HashMap<&str, ValueId> = HashMap::new();
        for id in self.model.nodes_of(self.model.main()) {
            for &value in self.model.node(id).outputs().iter().flatten() {
                by_name.insert(self.model.value(value).name(), value);
            }
        }
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

    /// Runs the model on all samples with values of its main graph as outputs.
    fn look(
        &self,
        group: &[ValueId],
        sessions: &dyn OpenSession,
        see: &mut See<'_>,
    ) -> Result<(), PassError> {
        let mut model = self.model.clone();
        expose(&mut model, group);
        let names: Vec<String> =
            group.iter().map(|&value| model.value(value).name().to_owned()).collect();
        let mut session = sessions.open(&model).map_err(|source| {
            let (values, source) = (names.clone(), Box::new(source));
            PassError::Open { values, source }
        })?;
        for (index, sample) in self.samples.iter().enumerate() {
            let outputs = session.run(&sample.inputs).map_err(|source| {
                let (values, sample) = (names.clone(), sample.name.clone());
                let source = Box::new(source);
                PassError::Run { values, sample, source }
            })?;
            if see(index, &names, &outputs).is_break() {
                return Err(PassError::Stopped);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "numbers are exact here")]
mod tests {
    use std::cell::RefCell;

    use indexmap::IndexMap;
    use modelopt_graph::Tensor;
    use modelopt_runtime::SampleKind;

    use super::*;
    use crate::observer::Observer;
    use crate::observers::MinMax;
    use crate::testing::{self, tensor};

    /// Gives each output of the model it was made for, but for `x`, one number: ten times that of
    /// the input, and the place of the output. It breaks at a number.
    struct Planted {
        outputs: Vec<String>,
        breaks_at: f32,
    }

    impl Session for Planted {
        fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
            let x = inputs.get("x").and_then(Tensor::to_f32).unwrap()[0];
            if x == self.breaks_at {
                return Err(RuntimeError::NoMemory);
            }
            let of = |place: usize| tensor(&[1], &[10.0 * x + place as f32]);
            Ok(self.outputs.iter().cloned().zip((0..).map(of)).collect())
        }
    }

    /// Opens planted sessions and remembers what each showed.
    #[derive(Default)]
    struct Opener {
        shown: RefCell<Vec<Vec<String>>>,
        breaks_at: f32,
        refuses: Option<&'static str>,
    }

    impl OpenSession for Opener {
        fn open(&self, model: &Model) -> Result<Box<dyn Session + '_>, RuntimeError> {
            let outputs = &model.graph(model.main()).outputs;
            let outputs: Vec<String> =
                outputs.iter().map(|info| model.value(info.value).name().to_owned()).collect();
            self.shown.borrow_mut().push(outputs.clone());
            if outputs.iter().any(|name| Some(name.as_str()) == self.refuses) {
                return Err(RuntimeError::NoLibrary);
            }
            Ok(Box::new(Planted { outputs, breaks_at: self.breaks_at }))
        }
    }

    fn samples(numbers: &[f32]) -> Vec<Sample> {
        let sample = |&x: &f32| Sample {
            name: format!("sample {x}"),
            inputs: [("x".to_owned(), tensor(&[1, 2], &[x, 0.0]))].into_iter().collect(),
            kind: SampleKind::Real,
        };
        numbers.iter().map(sample).collect()
    }

    fn watched(model: &Model, names: &[&str]) -> Observations {
        let mut all = Observations::default();
        for name in names {
            let value = model.values().find(|&value| model.value(value).name() == *name).unwrap();
            all.watch(model, value, MinMax::new()).unwrap();
        }
        all
    }

    fn range(all: &Observations, name: &str) -> Option<(f32, f32)> {
        all.of(name, &MinMax::new()).unwrap().statistic().range
    }

    fn go(_: Step) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn inputs_outputs_and_what_is_between_are_seen_in_one_run() {
        let (model, samples, opener) = (testing::model(), samples(&[1.0, 2.0]), Opener::default());
        let mut all = watched(&model, &["x", "y", "z"]);
        let mut steps = Vec::new();
        let pass = Pass::new(&model, &samples);
        pass.run(&mut all, &opener, &mut |step| {
            steps.push((step.done, step.total));
            ControlFlow::Continue(())
        })
        .unwrap();
        // `z` is an output already, and the input is known without a run.
        assert_eq!(*opener.shown.borrow(), [["z", "y"]]);
        assert_eq!(steps, [(1, 2), (2, 2)]);
        assert_eq!(range(&all, "x"), Some((0.0, 2.0)));
        assert_eq!(range(&all, "y"), Some((11.0, 21.0)));
        assert_eq!(range(&all, "z"), Some((10.0, 20.0)));
    }

    #[test]
    fn groups_bound_the_memory() {
        let (model, samples, opener) = (testing::model(), samples(&[1.0]), Opener::default());
        // Each value takes eight bytes.
        let pass = Pass::new(&model, &samples).within(8);
        let mut all = watched(&model, &["y", "z"]);
        pass.run(&mut all, &opener, &mut go).unwrap();
        assert_eq!(*opener.shown.borrow(), [vec!["z", "y"], vec!["z"]]);
        // What another group shows is not counted twice.
        assert_eq!(all.of("z", &MinMax::new()).unwrap().statistic().finite, 1);
    }

    #[test]
    fn an_error_says_which_value_and_the_others_are_seen() {
        let (model, samples) = (testing::model(), samples(&[1.0]));
        let opener = Opener { refuses: Some("y"), ..Opener::default() };
        let mut all = watched(&model, &["y", "z"]);
        let pass = Pass::new(&model, &samples).within(1);
        let error = pass.run(&mut all, &opener, &mut go).unwrap_err();
        assert_eq!(error.to_string(), "'y' cannot be shown: no library of ONNX Runtime was found");
        assert_eq!(range(&all, "z"), Some((10.0, 10.0)));
        assert_eq!(range(&all, "y"), None);
    }

    #[test]
    fn a_run_that_fails_says_on_which_sample() {
        let (model, samples) = (testing::model(), samples(&[1.0, 5.0]));
        let opener = Opener { breaks_at: 5.0, ..Opener::default() };
        let mut all = watched(&model, &["y", "z"]);
        let error = Pass::new(&model, &samples).run(&mut all, &opener, &mut go).unwrap_err();
        let told = error.told(|_| "planted".to_owned());
        assert_eq!(told, "'y' and 1 more cannot be shown on sample sample 5: planted");
    }

    #[test]
    fn a_pass_can_be_ended() {
        let (model, samples, opener) = (testing::model(), samples(&[1.0, 2.0]), Opener::default());
        let mut all = watched(&model, &["y"]);
        let mut runs = 0;
        let ended = Pass::new(&model, &samples).run(&mut all, &opener, &mut |_| {
            runs += 1;
            ControlFlow::Break(())
        });
        assert!(matches!(ended, Err(PassError::Stopped)));
        assert_eq!(runs, 1);
    }

    #[test]
    fn a_closure_can_make_sessions() {
        let (model, samples) = (testing::model(), samples(&[1.0]));
        let refuse =
            |_: &Model| -> Result<Box<dyn Session>, RuntimeError> { Err(RuntimeError::NoLibrary) };
        let mut all = watched(&model, &["y"]);
        assert!(Pass::new(&model, &samples).run(&mut all, &refuse, &mut go).is_err());
        // Inputs need none.
        let mut all = watched(&model, &["x"]);
        assert!(Pass::new(&model, &samples).run(&mut all, &refuse, &mut go).is_ok());
    }

    #[test]
    fn shards_have_places_of_their_own() {
        let (model, samples) = (testing::model(), samples(&[1.0, 2.0]));
        let places: Vec<u64> = Pass::new(&model, &samples).from(5).places().collect();
        assert_eq!(places, [5, 6]);
    }
}
