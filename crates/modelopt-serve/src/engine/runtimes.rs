//! What runs models: in this process, or in worker processes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use modelopt_runtime::worker::WorkerPool;
use modelopt_runtime::{Runtime, RuntimeError, RuntimeKind, runtime};

use super::error::LoadError;

/// What runs models. In a worker process a crash of the runtime costs the requests in it and nothing
/// else.
#[derive(Clone)]
pub struct Runtimes {
    inside: Option<Arc<dyn Runtime>>,
    isolated: Option<Arc<dyn Runtime>>,
}

impl Runtimes {
    /// A runtime of this process.
    pub fn inside(runtime: Arc<dyn Runtime>) -> Self {
        Runtimes { inside: Some(runtime), isolated: None }
    }

    /// A runtime of a kind, in this process and, where there are workers, in those. `library` is its
    /// library, if it needs one.
    ///
    /// # Errors
    /// If it cannot be loaded, or no worker can be started.
    pub fn open(
        kind: RuntimeKind,
        library: Option<&Path>,
        workers: Option<&WorkerPool>,
    ) -> Result<Self, RuntimeError> {
        let inside = Some(runtime(kind, library)?.into());
        Ok(Runtimes { inside, isolated: isolated(kind, library, workers)? })
    }

    /// The same in workers only: nothing of its library is loaded in this process.
    ///
    /// # Errors
    /// If no worker can be started, or does not survive the library.
    pub fn open_isolated(
        kind: RuntimeKind,
        library: Option<&Path>,
        workers: &WorkerPool,
    ) -> Result<Self, RuntimeError> {
        Ok(Runtimes { inside: None, isolated: isolated(kind, library, Some(workers))? })
    }

    /// The one that a model runs in.
    pub(crate) fn choose(&self, isolate: bool) -> Result<Arc<dyn Runtime>, LoadError> {
        let chosen = if isolate {
            self.isolated.as_ref()
        } else {
            self.inside.as_ref().or(self.isolated.as_ref())
        };
        chosen.cloned().ok_or(LoadError::NoWorker)
    }
}

impl fmt::Debug for Runtimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |runtime: &Option<Arc<dyn Runtime>>| runtime.as_ref().map(|one| one.name());
        f.debug_struct("Runtimes")
            .field("inside", &name(&self.inside))
            .field("isolated", &name(&self.isolated))
            .finish()
    }
}

fn isolated(
    kind: RuntimeKind,
    library: Option<&Path>,
    workers: Option<&WorkerPool>,
) -> Result<Option<Arc<dyn Runtime>>, RuntimeError> {
    let opened = workers.map(|pool| pool.runtime(kind, library)).transpose()?;
    Ok(opened.map(Into::into))
}

/// The workers here are this test program itself, called with the name of one test that serves.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use modelopt_graph::{DataType, Tensor};
    use xtask::testdata::fixture;

    use super::super::model::{Identity, Placement, ServedModel};
    use super::super::planted::Planted;
    use super::super::rows::Tensors;
    use super::super::settings::ModelSettings;
    use super::super::warm_up::Samples;
    use super::*;
    use crate::{Dimension, Inference, ServeError, Signature, TensorSpec};

    const MARK: &str = "SERVES_AS_WORKER_OF";

    #[test]
    fn serves_as_a_worker_of_other_tests() {
        if std::env::var_os(MARK).is_some() {
            modelopt_runtime::worker::serve().unwrap();
        }
    }

    fn pool(tag: &str, patience: Duration) -> WorkerPool {
        let program = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let test = "engine::runtimes::tests::serves_as_a_worker_of_other_tests";
        let mark = format!("{MARK}={tag}");
        let arguments = [&mark, &program, "--exact", test, "--nocapture"].map(str::to_owned);
        WorkerPool::new("/usr/bin/env".into(), arguments.to_vec(), patience)
    }

    /// The workers of a test.
    fn workers(tag: &str) -> Vec<u32> {
        let mark = format!("{MARK}={tag}").into_bytes();
        let is_marked = |id: &u32| {
            let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark)
        };
        let names = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        let ids = names.filter_map(|name| name.to_str()?.parse().ok());
        ids.filter(is_marked).collect()
    }

    fn kill(signal: &str, id: u32) {
        let id = id.to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Sends a signal to the workers of a test; how many there were.
    fn signal(tag: &str, signal: &str) -> usize {
        let ids = workers(tag);
        for &id in &ids {
            kill(signal, id);
        }
        ids.len()
    }

    fn image() -> Tensors {
        let pixels: Vec<f32> = (0..64).map(|at| at as f32 / 64.0).collect();
        Tensors::from([("image".to_owned(), Tensor::of(vec![1, 1, 8, 8], &pixels).unwrap())])
    }

    fn digits(pool: &WorkerPool) -> ServedModel {
        let spec = |name: &str, rest: &[usize]| {
            let batch = std::iter::once(Dimension::Named("batch".to_owned()));
            let shape = batch.chain(rest.iter().copied().map(Dimension::Fixed)).collect();
            TensorSpec { name: name.to_owned(), dtype: DataType::FLOAT, shape: Some(shape) }
        };
        let signature = Signature {
            inputs: vec![spec("image", &[1, 8, 8])],
            outputs: vec![spec("scores", &[10])],
        };
        let identity = Identity {
            name: "digits".to_owned(),
            version: "1".to_owned(),
            digest: String::new(),
            signature,
        };
        let kind = "tract".parse().unwrap();
        let runtimes = Runtimes::open_isolated(kind, None, pool).unwrap();
        let runtime = runtimes.choose(true).unwrap();
        let placement = Placement { runtime, path: fixture("digits/mlp.onnx") };
        let samples = [image()];
        let settings = ModelSettings { isolate: true, ..ModelSettings::default() };
        ServedModel::start(identity, placement, &settings, Samples::Given(&samples)).unwrap()
    }

    fn asking() -> Inference {
        Inference { inputs: image(), ..Inference::default() }
    }

    #[tokio::test]
    async fn a_worker_that_dies_costs_the_request_in_it_and_is_started_again() {
        let pool = pool("dies", Duration::from_secs(60));
        let model = digits(&pool);
        let before = model.infer(asking()).await.unwrap().outputs;
        assert_eq!(signal("dies", "-KILL"), 1);
        let error = model.infer(asking()).await.unwrap_err();
        let ServeError::Runtime(said) = &error else { panic!("{error:?}") };
        assert!(said.starts_with("tract does not survive it: "), "{said}");
        let after = model.infer(asking()).await.unwrap().outputs;
        assert_eq!(before, after);
        assert_eq!(signal("dies", "-0"), 1);
        assert_eq!(model.not_ready(), None);
    }

    #[tokio::test]
    async fn a_worker_that_dies_is_of_one_model_only() {
        let pool = pool("apart", Duration::from_secs(60));
        let models = [digits(&pool), digits(&pool)];
        assert_eq!(signal("apart", "-0"), 2);
        let first = workers("apart").into_iter().min().unwrap();
        kill("-KILL", first);
        let mut failed = 0;
        for model in &models {
            failed += usize::from(model.infer(asking()).await.is_err());
            model.infer(asking()).await.unwrap();
        }
        assert_eq!(failed, 1);
    }

    #[tokio::test]
    async fn a_worker_that_hangs_is_ended_and_started_again() {
        let pool = pool("hangs", Duration::from_secs(3));
        let model = digits(&pool);
        model.infer(asking()).await.unwrap();
        assert_eq!(signal("hangs", "-STOP"), 1);
        let asked = Instant::now();
        let error = model.infer(asking()).await.unwrap_err().to_string();
        assert_eq!(error, "tract does not survive it: it was not done after 3 s");
        assert!(asked.elapsed() < Duration::from_secs(20));
        model.infer(asking()).await.unwrap();
    }

    #[test]
    fn who_asks_for_a_worker_gets_no_less() {
        let runtimes = Runtimes::inside(Planted::doubling().runtime());
        assert!(matches!(runtimes.choose(true), Err(LoadError::NoWorker)));
        assert_eq!(runtimes.choose(false).unwrap().name(), "planted");
        assert!(format!("{runtimes:?}").contains("planted"));
        let nowhere = WorkerPool::new("/nowhere/worker".into(), Vec::new(), Duration::ZERO);
        let runtimes = Runtimes::open("tract".parse().unwrap(), None, Some(&nowhere)).unwrap();
        assert!(
            runtimes
                .choose(true)
                .unwrap()
                .prepare(&fixture("digits/mlp.onnx"), &modelopt_runtime::SessionOptions::default())
                .is_err()
        );
    }
}
