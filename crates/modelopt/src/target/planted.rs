//! A runtime that answers as it is told to: models that are noisy, refused, that crash, or that differ
//! from run to run, without a model that really does.
//!
//! Models are told apart by the names of their files: the original is `model.onnx`, and what is made
//! of it has names of its own, such as `trial.onnx`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use indexmap::IndexMap;
use modelopt_graph::{DataType, Model, Producer, Tensor, ValueId};
use modelopt_onnx as onnx;
use modelopt_runtime::worker::Cost;
use modelopt_runtime::{
    Attempt, End, LeftOut, Outputs, Runtime, RuntimeError, RuntimeKind, Sample, SampleKind,
    Session, SessionOptions, Stage,
};

use super::{Ground, Host, Ready, Rig};
use crate::Progress;
use crate::budget::{Budget, Stop};
use crate::config::Config;
use crate::error::Error;
use crate::evaluator::Prover;
use crate::meter::Meter;
use crate::runtime_choice::{Engine, RuntimeChoice};
use crate::search::{Court, Trials};
use crate::subject::{Copies, Subject};
use crate::testing::Bed;

/// What the runtime is called in its errors.
pub(crate) const NAME: &str = "planted";

/// The file of the original.
pub(crate) const ORIGINAL: &str = "model.onnx";

/// The file of a candidate that a search makes.
pub(crate) const TRIAL: &str = "trial.onnx";

/// The file of a model under switches.
pub(crate) const SWITCHES: &str = "switches.onnx";

/// One run of a model.
pub(crate) struct Run<'a> {
    /// Name of the model's file.
    pub(crate) model: &'a str,
    /// How many runs of models of this name began before it.
    pub(crate) before: usize,
    pub(crate) inputs: &'a IndexMap<String, Tensor>,
    /// How each weight of a network is stored, where models are looked at: see [`Planted::looking`].
    pub(crate) stored: &'a [DataType],
}

impl Run<'_> {
    pub(crate) fn is_original(&self) -> bool {
        self.model == ORIGINAL
    }

    /// The numbers of the input.
    pub(crate) fn numbers(&self) -> Vec<f32> {
        self.inputs["x"].to_f32().unwrap().into_owned()
    }

    /// How strong each switch is; nothing where there are none.
    pub(crate) fn switches(&self) -> Vec<f32> {
        let settings = self.inputs.iter().find(|(name, _)| *name != "x");
        settings.map_or(Vec::new(), |(_, tensor)| tensor.to_f32().unwrap().into_owned())
    }

    /// The numbers of the input as an output, each times `factor`.
    pub(crate) fn times(&self, factor: f32) -> Outputs {
        outputs(&self.numbers().iter().map(|x| x * factor).collect::<Vec<_>>())
    }
}

type Answer = dyn Fn(&Run<'_>) -> Result<Outputs, RuntimeError> + Send + Sync;
type Price = dyn Fn(&str) -> Option<Cost> + Send + Sync;
type Refusal = dyn Fn(&str, usize) -> Option<RuntimeError> + Send + Sync;

/// How the runtime behaves, and what was asked of it. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Planted {
    answer: Arc<Answer>,
    refuses: Arc<Refusal>,
    cost: Arc<Price>,
    left_out: Arc<Vec<LeftOut>>,
    looks: bool,
    loaded: Arc<Mutex<Counts>>,
    ran: Arc<Mutex<Counts>>,
}

impl Planted {
    /// One that loads everything, and answers each run.
    pub(crate) fn new(
        answer: impl Fn(&Run<'_>) -> Result<Outputs, RuntimeError> + Send + Sync + 'static,
    ) -> Self {
        Planted {
            answer: Arc::new(answer),
            refuses: Arc::new(|_, _| None),
            cost: Arc::new(|_| None),
            left_out: Arc::default(),
            looks: false,
            loaded: Arc::default(),
            ran: Arc::default(),
        }
    }

    /// One whose original gives back its input, and everything else this part of it too much.
    pub(crate) fn noisy(error: f32) -> Self {
        Planted::new(move |run| Ok(run.times(if run.is_original() { 1.0 } else { 1.0 + error })))
    }

    /// One in which switch `n` adds `errors[n]` of the input, times its strength, and where everything
    /// else gives back its input.
    pub(crate) fn switched(errors: &'static [f32]) -> Self {
        Planted::new(move |run| Ok(run.times(1.0 + sum(errors, &run.switches()))))
    }

    /// The same, refusing to load models by the name of their file and by how many of that name were
    /// loaded before.
    pub(crate) fn refusing(
        self,
        refuses: impl Fn(&str, usize) -> Option<RuntimeError> + Send + Sync + 'static,
    ) -> Self {
        Planted { refuses: Arc::new(refuses), ..self }
    }

    /// The same, which reads from the file of each model how its weights are stored.
    pub(crate) fn looking(self) -> Self {
        Planted { looks: true, ..self }
    }

    /// The same in a process of its own, which costs something.
    pub(crate) fn costing(
        self,
        cost: impl Fn(&str) -> Option<Cost> + Send + Sync + 'static,
    ) -> Self {
        Planted { cost: Arc::new(cost), ..self }
    }

    /// The same without one of its outputs.
    pub(crate) fn leaving_out(self, output: &str) -> Self {
        let left_out = LeftOut { output: output.to_owned(), ty: "sequence".to_owned() };
        Planted { left_out: Arc::new(vec![left_out]), ..self }
    }

    /// How many models of this name were loaded.
    pub(crate) fn loaded(&self, model: &str) -> usize {
        count(&self.loaded, model)
    }

    /// How often models of this name ran.
    pub(crate) fn ran(&self, model: &str) -> usize {
        count(&self.ran, model)
    }

    /// Where models are loaded into it.
    pub(crate) fn host<'a>(&self, config: &'a Config) -> Host<'a> {
        Host {
            engine: Engine::Registered(kind()),
            runtime: Box::new(self.clone()),
            options: config.session(),
            copies: Copies::default(),
            config,
            emulates: false,
            took: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// The original running in it.
    pub(crate) fn rig<'a>(
        &self,
        original: &Arc<Subject>,
        samples: &[Sample],
        config: &'a Config,
    ) -> Result<Rig<'a>, Error> {
        let host = self.host(config);
        let Ready { session, cost, .. } = host.ready(original.path(), samples)?;
        Ok(Rig {
            original: original.named(session),
            watched: None,
            kept: modelopt_validate::Kept::default(),
            profile: Arc::default(),
            watching: None,
            used: host.used("as asked".to_owned()),
            cost,
            host,
            subject: Arc::clone(original),
            tried: vec![kind()],
        })
    }
}

/// The name that a file has, or will have: those that are not there yet are `.NAME.RANDOM` until then.
fn name_of(model: &Path) -> String {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    let end = name.find(".onnx").map_or(name.len(), |end| end + ".onnx".len());
    name[..end].trim_start_matches('.').to_owned()
}

/// How often something happened to models, by their names.
type Counts = HashMap<String, usize>;

fn count(counts: &Mutex<Counts>, model: &str) -> usize {
    counts.lock().unwrap().get(model).copied().unwrap_or(0)
}

/// Counts a model, and says how often it was counted before.
fn note(counts: &Mutex<Counts>, model: &str) -> usize {
    let mut counts = counts.lock().unwrap();
    let count = counts.entry(model.to_owned()).or_default();
    *count += 1;
    *count - 1
}

/// What errors under switches add up to.
pub(crate) fn sum(errors: &[f32], strengths: &[f32]) -> f32 {
    errors.iter().zip(strengths).map(|(error, strength)| error * strength).sum()
}

/// A kind that the rest can ask for its table; nothing runs in it.
pub(crate) fn kind() -> RuntimeKind {
    RuntimeKind::embedded().next().unwrap()
}

/// Settings for a target that was named, so that nothing else is tried where it fails, and that takes
/// all cores, so that no model is loaded twice.
pub(crate) fn named(bed: &Bed) -> Config {
    let runtime = RuntimeChoice::Named(vec![kind()]);
    Config { runtime, threads: 0, ..bed.config.clone() }
}

impl Runtime for Planted {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        "0".to_owned()
    }

    fn prepare(&self, model: &Path, _: &SessionOptions) -> Result<Box<dyn Session>, RuntimeError> {
        let name = name_of(model);
        let before = note(&self.loaded, &name);
        if let Some(error) = (self.refuses)(&name, before) {
            return Err(error);
        }
        let stored = if self.looks { stored(&onnx::load(model)?) } else { Vec::new() };
        Ok(Box::new(Loaded { name, stored, runtime: self.clone() }))
    }

    fn attempt(
        &self,
        model: &Path,
        options: &SessionOptions,
        inputs: Option<&IndexMap<String, Tensor>>,
    ) -> Result<Attempt, RuntimeError> {
        let mut session = self.prepare(model, options)?;
        inputs.map(|inputs| session.run(inputs)).transpose()?;
        Ok(Attempt { session, cost: (self.cost)(&name_of(model)) })
    }
}

/// A model that is not looked at.
struct Loaded {
    name: String,
    stored: Vec<DataType>,
    runtime: Planted,
}

impl Session for Loaded {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        let before = note(&self.runtime.ran, &self.name);
        let (model, stored) = (&self.name, &self.stored);
        (self.runtime.answer)(&Run { model, before, inputs, stored })
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.runtime.left_out
    }
}

/// The types that weights `W0`, `W1` and so on come from.
fn stored(model: &Model) -> Vec<DataType> {
    let weight = |at: usize| model.values().find(|&id| model.value(id).name() == format!("W{at}"));
    (0..).map_while(weight).filter_map(|weight| source(model, weight)).collect()
}

/// The type of the constant that a value is made from in the first place.
fn source(model: &Model, value: ValueId) -> Option<DataType> {
    match model.value(value).producer() {
        Producer::Node(node, _) => source(model, model.node(node).input(0)?),
        _ => model.constant(value).map(|constant| constant.dtype()),
    }
}

/// One output of these numbers, `y`.
pub(crate) fn outputs(numbers: &[f32]) -> Outputs {
    [("y".to_owned(), Tensor::of(vec![numbers.len()], numbers).unwrap())].into()
}

/// So many real samples of numbers of both signs, no two of them alike.
pub(crate) fn samples(count: usize) -> Vec<Sample> {
    let sample = |at: usize| {
        let numbers = [3.0f32, -5.0, 7.0, -2.0, 4.0, -6.0, 8.0, -1.0].map(|x| x + at as f32 * 0.1);
        let x = Tensor::of(vec![numbers.len()], &numbers).unwrap();
        let inputs = [("x".to_owned(), x)].into();
        Sample { name: format!("s{at}"), inputs, kind: SampleKind::Real }
    };
    (0..count).map(sample).collect()
}

/// A refusal of a model or its inputs.
pub(crate) fn refusal() -> RuntimeError {
    let message = "no kernel for it".to_owned();
    RuntimeError::Run { runtime: NAME, path: PathBuf::from("/somewhere/x.onnx"), message }
}

/// The end of the process that the model was in.
pub(crate) fn crash() -> RuntimeError {
    RuntimeError::Died { runtime: NAME, path: PathBuf::from("/somewhere/x.onnx"), end: End::Gone }
}

/// A panic that was caught.
pub(crate) fn panicked() -> RuntimeError {
    let (stage, message) = (Stage::Running, "index out of bounds".to_owned());
    let path = PathBuf::from("/somewhere/x.onnx");
    RuntimeError::Panicked { runtime: NAME, stage, path, message }
}

/// What is nobody's fault but the machine's.
pub(crate) fn no_memory() -> RuntimeError {
    RuntimeError::NoMemory
}

impl Bed {
    /// The original in a planted runtime, looked at as before a search.
    pub(crate) fn planted<'a>(
        &self,
        runtime: &Planted,
        samples: Vec<Sample>,
        config: &'a Config,
    ) -> Result<Ground<'a>, Error> {
        let subject = Arc::new(Subject::as_it_is(&self.path()));
        let mut rig = runtime.rig(&subject, &samples, config)?;
        rig.watch(&self.prepared, &samples)?;
        Ok(Ground { rig, samples, calibrating: Vec::new() })
    }

    /// Lets something be done with what runs plans there.
    pub(crate) fn prove_in<T>(
        &self,
        runtime: &Planted,
        samples: Vec<Sample>,
        use_it: impl FnOnce(Prover<'_, '_>) -> T,
    ) -> T {
        let config = named(self);
        let Ground { mut rig, samples, .. } = self.planted(runtime, samples, &config).unwrap();
        use_it(Prover::new(&self.prepared, &samples, &mut rig, None))
    }

    /// Lets something be done with what runs and judges plans there.
    pub(crate) fn judge_in<T>(
        &self,
        runtime: &Planted,
        samples: Vec<Sample>,
        stop: &Stop,
        use_it: impl FnOnce(Trials<'_, '_, '_>) -> T,
    ) -> T {
        let terms = Terms { stop: stop.clone(), ..self.terms() };
        self.judge_by(terms, runtime, samples, use_it)
    }

    /// The settings of this network, on a target that was named, with nothing that ends it.
    pub(crate) fn terms<'m, 'p>(&self) -> Terms<'m, 'p> {
        let (config, stop) = (named(self), Stop::default());
        Terms { config, stop, seconds: None, meter: None, progress: None }
    }

    /// The same as [`Bed::judge_in`] on other terms.
    pub(crate) fn judge_by<T>(
        &self,
        terms: Terms<'_, '_>,
        runtime: &Planted,
        samples: Vec<Sample>,
        use_it: impl FnOnce(Trials<'_, '_, '_>) -> T,
    ) -> T {
        let Terms { config, stop, seconds, meter, progress } = terms;
        let Ground { mut rig, samples, .. } = self.planted(runtime, samples, &config).unwrap();
        let budget = Budget::new(Instant::now(), seconds, stop);
        let prover = Prover::new(&self.prepared, &samples, &mut rig, None);
        let mut silent = |_| {};
        let court = Court {
            config: &config,
            limits: &config.gate,
            budget: &budget,
            original_bytes: std::fs::metadata(self.path()).unwrap().len(),
            meter,
            progress: progress.unwrap_or(&mut silent),
        };
        use_it(Trials::new(prover, court))
    }
}

/// What plans are judged by.
pub(crate) struct Terms<'m, 'p> {
    pub(crate) config: Config,
    pub(crate) stop: Stop,
    /// How long it may take.
    pub(crate) seconds: Option<f64>,
    pub(crate) meter: Option<&'p mut Meter<'m>>,
    pub(crate) progress: Option<&'p mut dyn FnMut(Progress)>,
}
