//! A model that answers requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use modelopt_runtime::{Runtime, SessionOptions};

use super::batcher::Batcher;
use super::entry::{Entry, Reply};
use super::error::LoadError;
use super::held::{Failure, Held, Maker};
use super::proof::{Evidence, Objection, ProofOptions, prove, row_batches};
use super::queue::Queue;
use super::rows::Tensors;
use super::sessions::Sessions;
use super::settings::ModelSettings;
use super::statistics::{Counters, Statistics};
use super::warm_up::{Samples, find};
use crate::{Answer, Inference, ServeError, Signature};

/// How long a session is run on batches of all sizes before it answers: some runtimes prepare for each
/// size when they first meet it, and small models are made ready for all of them in less time.
const REHEARSAL: Duration = Duration::from_secs(1);

/// What is known of a model before it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// Version: a number.
    pub version: String,
    /// BLAKE3 of what it is made of, in hexadecimal.
    pub digest: String,
    /// Inputs and outputs.
    pub signature: Signature,
}

/// Where a model is run.
#[derive(Clone)]
pub struct Placement {
    /// What runs it.
    pub runtime: Arc<dyn Runtime>,
    /// Its file.
    pub path: std::path::PathBuf,
}

/// Whether requests share runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Batching {
    /// They do.
    On(Evidence),
    /// They do not.
    Off(Objection),
    /// They did, until an output had no row for each row.
    Stopped,
}

/// A model that answers requests. Dropped, it answers what waits and lets go of its sessions, in their own
/// threads.
#[derive(Debug)]
pub struct ServedModel {
    identity: Identity,
    settings: ModelSettings,
    batching: Result<Evidence, Objection>,
    tried_on: Tensors,
    batcher: Arc<Batcher>,
    sessions: Sessions,
}

impl ServedModel {
    /// Loads a model, tries it, finds out whether it may be batched, and starts its sessions. This takes as
    /// long as it takes: not for an async executor.
    ///
    /// # Errors
    /// If it cannot be loaded, or does not run on samples that are given.
    pub fn start(
        identity: Identity,
        placement: Placement,
        settings: &ModelSettings,
        samples: Samples<'_>,
    ) -> Result<Self, LoadError> {
        settings.check()?;
        let options = SessionOptions {
            threads: settings.session_threads(),
            provider: settings.provider.clone(),
            ..SessionOptions::default()
        };
        let Placement { runtime, path } = placement;
        let maker = Arc::new(Maker { runtime, path, options });
        let mut first = Held::new(Arc::clone(&maker));
        first.restore().map_err(LoadError::Runtime)?;
        let samples = warmed_up(&mut first, &identity.name, samples)?;
        let batching = batching(&mut first, &identity.signature, &samples, settings);
        let held = all_sessions(first, &maker, settings, &samples, batching.is_ok())?;
        let model = identity.name.clone();
        let queue = Arc::new(Queue::new(&model, settings));
        if batching.is_err() {
            queue.stop_batching();
        }
        let outputs = &identity.signature.outputs;
        let outputs = outputs.iter().map(|output| output.name.clone()).collect();
        let counters = Arc::new(Counters::default());
        let batcher = Arc::new(Batcher { model, outputs, queue, counters });
        let sessions = Sessions::start(&batcher, held).map_err(LoadError::Thread)?;
        let (settings, tried_on) = (settings.clone(), samples.into_iter().next());
        let tried_on = tried_on.unwrap_or_default();
        Ok(ServedModel { identity, settings, batching, tried_on, batcher, sessions })
    }

    /// Answers a request. Inputs are taken to fit the signature.
    ///
    /// Needs a tokio runtime with time where there is a deadline.
    ///
    /// # Errors
    /// If it asks for outputs that are not there, is not taken, is not answered in time, or the runtime
    /// fails on it.
    pub async fn infer(&self, asked: Inference) -> Result<Answer, ServeError> {
        let since = Instant::now();
        let timeout = self.settings.timeout(asked.timeout);
        let deadline = timeout.and_then(|timeout| since.checked_add(timeout));
        let reply = self.enter(asked, since, deadline).inspect_err(|error| {
            self.batcher.counters.failed(error, since.elapsed());
        })?;
        let mut ticket = Ticket { batcher: &self.batcher, since, is_settled: false };
        let answer = match deadline {
            None => reply.await.ok(),
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), reply).await {
                Ok(answer) => answer.ok(),
                Err(_) => None,
            },
        };
        if let Some(result) = answer {
            ticket.is_settled = true;
            return result;
        }
        let error = match timeout {
            Some(timeout) => ServeError::DeadlineExceeded(timeout),
            None => ServeError::Runtime("the session ended without an answer".to_owned()),
        };
        ticket.give_up(&error);
        Err(error)
    }

    fn enter(
        &self,
        asked: Inference,
        since: Instant,
        deadline: Option<Instant>,
    ) -> Result<Reply, ServeError> {
        let known = |wanted: &String| {
            self.identity.signature.outputs.iter().any(|output| output.name == *wanted)
        };
        if let Some(unknown) = asked.outputs.iter().find(|wanted| !known(wanted)) {
            let name = &self.identity.name;
            return Err(ServeError::NotFound(format!("model '{name}' has no output '{unknown}'")));
        }
        let (entry, reply) = Entry::new(asked.inputs, asked.outputs, since, deadline);
        self.batcher.queue.push(entry, self.settings.level(asked.priority))?;
        Ok(reply)
    }

    /// Takes no more requests, and answers what waits within a time; what is left then is refused.
    /// Whether all was answered.
    pub async fn stop(&self, within: Duration) -> bool {
        self.sessions.stop(within).await
    }

    /// Name, version, digest and signature.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How it is served.
    pub fn settings(&self) -> &ModelSettings {
        &self.settings
    }

    /// Whether requests share runs, and why not.
    pub fn batching(&self) -> Batching {
        match &self.batching {
            Err(objection) => Batching::Off(objection.clone()),
            Ok(_) if !self.batcher.queue.is_batching() => Batching::Stopped,
            Ok(evidence) => Batching::On(evidence.clone()),
        }
    }

    /// Inputs that it ran on before it answered anybody; none where none could be invented.
    pub fn tried_on(&self) -> &indexmap::IndexMap<String, modelopt_graph::Tensor> {
        &self.tried_on
    }

    /// What it has done.
    pub fn statistics(&self) -> Statistics {
        self.batcher.counters.snapshot()
    }

    /// Requests that wait for a session.
    pub fn waiting(&self) -> usize {
        self.batcher.queue.waiting()
    }

    /// Why it takes no requests, if it takes none.
    pub fn not_ready(&self) -> Option<String> {
        self.batcher.queue.closed()
    }
}

/// A request whose answer is awaited.
struct Ticket<'a> {
    batcher: &'a Batcher,
    since: Instant,
    is_settled: bool,
}

impl Ticket<'_> {
    fn give_up(&mut self, error: &ServeError) {
        self.is_settled = true;
        self.batcher.queue.abandon();
        self.batcher.counters.failed(error, self.since.elapsed());
    }
}

impl Drop for Ticket<'_> {
    /// Nobody waits any more: the client is gone.
    fn drop(&mut self) {
        if !self.is_settled {
            self.batcher.queue.abandon();
            self.batcher.counters.cancelled(self.since.elapsed());
        }
    }
}

/// Inputs that the session ran on. That none can be invented is no reason not to serve a model.
fn warmed_up(
    held: &mut Held,
    model: &str,
    samples: Samples<'_>,
) -> Result<Vec<Tensors>, LoadError> {
    match (find(held, samples), samples) {
        (Ok(samples), _) => Ok(samples),
        (Err(said), Samples::Given(_)) => Err(LoadError::Samples(said)),
        (Err(said), Samples::Invented(_)) => {
            tracing::warn!(
                model,
                said,
                "the model could not be tried: it ran on no invented input"
            );
            Ok(Vec::new())
        }
    }
}

/// As many sessions as are wanted, each of which ran.
fn all_sessions(
    first: Held,
    maker: &Arc<Maker>,
    settings: &ModelSettings,
    samples: &[Tensors],
    batches: bool,
) -> Result<Vec<Held>, LoadError> {
    // Of a model that is not batched nothing is known but that it ran on its samples.
    let most = if batches { settings.max_batch_size } else { 0 };
    let rehearsed = row_batches(samples, most);
    let mut all = vec![first];
    all.extend((1..settings.sessions).map(|_| Held::new(Arc::clone(maker))));
    for held in &mut all {
        held.warm_up_on(samples.first().cloned());
        held.restore().map_err(LoadError::Runtime)?;
        let started = Instant::now();
        for batch in &rehearsed {
            if started.elapsed() > REHEARSAL {
                break;
            }
            held.run(batch).map_err(|failure| LoadError::Runtime(failure.said()))?;
        }
    }
    Ok(all)
}

fn batching(
    held: &mut Held,
    signature: &Signature,
    samples: &[Tensors],
    settings: &ModelSettings,
) -> Result<Evidence, Objection> {
    if settings.max_batch_size < 2 {
        return Err(Objection::SwitchedOff);
    }
    let options = ProofOptions::up_to(settings.max_batch_size, settings.batch_tolerance);
    let mut run = |inputs: &Tensors| held.run(inputs).map_err(Failure::said);
    prove(&mut run, signature, samples, &options)
}

#[cfg(test)]
mod tests {
    use super::super::planted::{Planted, first, row, signature};
    use super::*;

    fn served(planted: &Planted, settings: &ModelSettings) -> Arc<ServedModel> {
        let identity = Identity {
            name: "m".to_owned(),
            version: "1".to_owned(),
            digest: "d".to_owned(),
            signature: signature(),
        };
        let placement = Placement { runtime: planted.runtime(), path: "planted.onnx".into() };
        let samples = [row(&[1.0]), row(&[-2.0])];
        let started = ServedModel::start(identity, placement, settings, Samples::Given(&samples));
        Arc::new(started.unwrap())
    }

    fn asking(value: f32) -> Inference {
        Inference { inputs: row(&[value]), ..Inference::default() }
    }

    fn timed(value: f32, ms: u64) -> Inference {
        Inference { timeout: Some(Duration::from_millis(ms)), ..asking(value) }
    }

    /// In thousandths.
    fn y(answer: &Answer) -> i64 {
        first(&answer.outputs)
    }

    /// All of these, asked at once.
    async fn ask_all(model: &Arc<ServedModel>, values: &[f32]) -> Vec<Result<Answer, ServeError>> {
        let tasks: Vec<_> = values
            .iter()
            .map(|&value| {
                let model = Arc::clone(model);
                tokio::spawn(async move { model.infer(asking(value)).await })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        answers
    }

    #[tokio::test]
    async fn clients_that_ask_at_once_share_runs_and_get_their_own_answers() {
        let planted = Planted::doubling().taking(Duration::from_millis(2));
        let model = served(&planted, &ModelSettings::default());
        assert!(matches!(model.batching(), Batching::On(_)));
        let values: Vec<f32> = (0..64).map(|value| value as f32).collect();
        let answers = ask_all(&model, &values).await;
        assert!(
            answers
                .iter()
                .zip(&values)
                .all(|(answer, value)| y(answer.as_ref().unwrap()) == *value as i64 * 2000)
        );
        let counts = model.statistics();
        assert_eq!((counts.success.count, counts.inference_count), (64, 64));
        assert!(counts.execution_count < 20, "{counts:?}");
    }

    #[tokio::test]
    async fn of_many_clients_only_the_one_at_fault_fails() {
        let planted = Planted::doubling().panicking_at(13.0).taking(Duration::from_millis(1));
        let settings = ModelSettings { max_batch_size: 32, ..ModelSettings::default() };
        let model = served(&planted, &settings);
        let values: Vec<f32> = (0..32).map(|value| value as f32).collect();
        let answers = ask_all(&model, &values).await;
        let failed: Vec<usize> = (0..32).filter(|&at| answers[at].is_err()).collect();
        assert_eq!(failed, [13]);
        assert_eq!(model.infer(asking(4.0)).await.map(|answer| y(&answer)), Ok(8000));
    }

    #[test]
    fn sessions_are_warm_for_all_sizes_of_batches() {
        let planted = Planted::doubling();
        let settings = ModelSettings { sessions: 2, max_batch_size: 3, ..ModelSettings::default() };
        served(&planted, &settings);
        // The first sample, the proof, what is rehearsed; the first sample, what is rehearsed.
        assert_eq!(planted.runs(), [1, 1, 1, 2, 3, 1, 2, 3, 1, 1, 2, 3]);
        assert_eq!(planted.loads(), 2);
    }

    #[tokio::test]
    async fn a_model_that_mixes_rows_is_not_batched() {
        let planted = Planted::mixing().taking(Duration::from_millis(1));
        let model = served(&planted, &ModelSettings::default());
        assert!(matches!(model.batching(), Batching::Off(Objection::Mixes { .. })));
        let before = planted.runs().len();
        // The first sample, two rows alone, both together, and one among others.
        assert_eq!(planted.runs(), [1, 1, 1, 2, 2]);
        let answers = ask_all(&model, &[1.0, 2.0, 3.0, 4.0]).await;
        assert!(answers.iter().all(|answer| y(answer.as_ref().unwrap()) == 0));
        assert_eq!(planted.runs()[before..], [1; 4]);
    }

    #[tokio::test]
    async fn who_waits_beyond_the_deadline_is_told_then_and_not_run() {
        let planted = Planted::doubling().taking(Duration::from_millis(500));
        let settings = ModelSettings { max_batch_size: 0, ..ModelSettings::default() };
        let model = served(&planted, &settings);
        let before = planted.runs().len();
        let busy = tokio::spawn({
            let model = Arc::clone(&model);
            async move { model.infer(asking(1.0)).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let asked = Instant::now();
        let error = model.infer(timed(2.0, 30)).await.unwrap_err();
        assert_eq!(error, ServeError::DeadlineExceeded(Duration::from_millis(30)));
        let waited = asked.elapsed();
        assert!(
            waited >= Duration::from_millis(30) && waited < Duration::from_millis(250),
            "{waited:?}"
        );
        assert!(busy.await.unwrap().is_ok());
        assert_eq!(model.infer(asking(3.0)).await.map(|answer| y(&answer)), Ok(6000));
        assert_eq!(planted.runs().len() - before, 2);
        assert_eq!(model.statistics().failures.late, 1);
    }

    #[tokio::test]
    async fn who_goes_away_is_not_run_and_keeps_nobody_out() {
        let planted = Planted::doubling().taking(Duration::from_millis(500));
        let settings =
            ModelSettings { max_batch_size: 0, max_queue_size: 1, ..ModelSettings::default() };
        let model = served(&planted, &settings);
        let before = planted.runs().len();
        let ask = |value: f32| {
            let model = Arc::clone(&model);
            tokio::spawn(async move { model.infer(asking(value)).await })
        };
        let busy = ask(1.0);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let gone = ask(2.0);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let asked = Instant::now();
        let refused = model.infer(asking(3.0)).await.unwrap_err();
        assert_eq!(refused, ServeError::QueueFull { model: "m".to_owned(), waiting: 1 });
        assert!(asked.elapsed() < Duration::from_millis(250));
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        let last = model.infer(asking(4.0)).await.unwrap();
        assert_eq!(y(&last), 8000);
        assert!(busy.await.unwrap().is_ok());
        assert_eq!(planted.runs().len() - before, 2);
        let failures = model.statistics().failures;
        assert_eq!((failures.cancelled, failures.rejected), (1, 1));
    }

    #[tokio::test]
    async fn outputs_that_are_not_there_are_named() {
        let model = served(&Planted::doubling(), &ModelSettings::default());
        let asked = Inference { outputs: vec!["z".to_owned()], ..asking(1.0) };
        let error = model.infer(asked).await.unwrap_err();
        assert_eq!(error, ServeError::NotFound("model 'm' has no output 'z'".to_owned()));
        let asked = Inference { outputs: vec!["y".to_owned()], ..asking(1.0) };
        assert_eq!(y(&model.infer(asked).await.unwrap()), 2000);
    }

    #[tokio::test]
    async fn stopping_refuses_what_comes_and_says_so() {
        let model = served(&Planted::doubling(), &ModelSettings::default());
        assert_eq!(model.not_ready(), None);
        assert!(model.stop(Duration::from_secs(5)).await);
        assert_eq!(model.infer(asking(1.0)).await.unwrap_err().status(), 503);
        assert_eq!(model.not_ready().as_deref(), Some("it is being stopped"));
    }

    #[test]
    fn a_model_that_fails_on_its_own_samples_is_not_loaded() {
        let identity = Identity {
            name: "m".to_owned(),
            version: "1".to_owned(),
            digest: String::new(),
            signature: signature(),
        };
        let start = |planted: &Planted, settings: &ModelSettings| {
            let placement = Placement { runtime: planted.runtime(), path: "planted.onnx".into() };
            let samples = [row(&[7.0])];
            let samples = Samples::Given(&samples);
            ServedModel::start(identity.clone(), placement, settings, samples).unwrap_err()
        };
        let settings = ModelSettings::default();
        let error = start(&Planted::doubling().refusing(7.0), &settings);
        assert!(matches!(error, LoadError::Samples(_)), "{error}");
        let planted = Planted::doubling();
        planted.load_no_more("no such operator");
        let error = start(&planted, &settings);
        assert_eq!(error.to_string(), "planted cannot load it: no such operator");
        let wrong = ModelSettings { sessions: 0, ..settings };
        assert!(matches!(start(&Planted::doubling(), &wrong), LoadError::Settings(_)));
    }

    /// A thread for each request, or a timer in the way of each, would be far below this.
    #[test]
    fn a_tiny_model_answers_many_thousands_of_requests_a_second() {
        const TASKS: usize = 16;
        const EACH: usize = 3000;
        let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        let executor = executor.unwrap();
        let model = served(&Planted::doubling(), &ModelSettings::default());
        let started = Instant::now();
        executor.block_on(async {
            let tasks: Vec<_> = (0..TASKS)
                .map(|_| {
                    let model = Arc::clone(&model);
                    tokio::spawn(async move {
                        for _ in 0..EACH {
                            model.infer(asking(1.0)).await.unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        let rate = (TASKS * EACH) as f64 / started.elapsed().as_secs_f64();
        let runs = model.statistics().execution_count;
        println!("{rate:.0} requests a second in {runs} runs");
        assert!(rate > 5000.0, "{rate}");
    }
}
