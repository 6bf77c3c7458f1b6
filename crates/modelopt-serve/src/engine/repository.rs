//! The models that are served: loaded, replaced and taken away while requests come.
//!
//! A request takes the model that is there when it comes and keeps it until it is answered. A new one is
//! warm before it takes over, and where it cannot be loaded the old one stays.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex as Turn;
use tokio::task::{JoinSet, spawn_blocking};

use super::error::LoadError;
use super::folder::Source;
use super::loader::{Describe, Loader};
use super::model::ServedModel;
use super::runtimes::Runtimes;
use super::settings::EngineSettings;
use super::table::{IndexEntry, Slot, Table, Versions};
use crate::ServeError;

/// A model that could not be loaded.
#[derive(Debug)]
pub struct Failed {
    /// Its name.
    pub name: String,
    /// Why.
    pub error: LoadError,
}

/// The models that are served.
#[derive(Debug)]
pub struct Repository {
    source: Source,
    loader: Arc<Loader>,
    table: ArcSwap<Table>,
    /// Held while the table is changed.
    changing: Mutex<()>,
    /// One load at a time for each name.
    turns: Mutex<HashMap<String, Arc<Turn<()>>>>,
    /// Whether all models were tried once.
    is_complete: AtomicBool,
    is_stopping: AtomicBool,
}

impl Repository {
    /// A repository of which nothing is loaded yet.
    pub fn new(
        source: Source,
        runtimes: Runtimes,
        settings: EngineSettings,
        describe: Describe,
    ) -> Arc<Self> {
        Arc::new(Repository {
            source,
            loader: Arc::new(Loader { runtimes, settings, describe }),
            table: ArcSwap::default(),
            changing: Mutex::new(()),
            turns: Mutex::default(),
            is_complete: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        })
    }

    /// The model that answers for a name: its newest version, or the one that is asked for.
    ///
    /// # Errors
    /// If there is none, or none that is ready.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<ServedModel>, ServeError> {
        self.table.load().find(name, version).cloned()
    }

    /// Why a model does not answer, if it does not.
    pub fn not_ready(&self, name: &str, version: Option<&str>) -> Option<ServeError> {
        self.table.load().refusal(name, version)
    }

    /// Why not every model answers that should: none is while models are loaded for the first time, nor
    /// when all are being stopped. Models that were unloaded need not answer.
    pub fn not_all_ready(&self) -> Option<ServeError> {
        if self.is_retired() {
            return Some(ServeError::NotReady("the server is being stopped".to_owned()));
        }
        if !self.is_complete.load(Ordering::Acquire) {
            return Some(ServeError::NotReady("models are being loaded".to_owned()));
        }
        self.table.load().not_ready()
    }

    /// Names of the models that were tried, in their order.
    pub fn names(&self) -> Vec<String> {
        self.table.load().0.keys().cloned().collect()
    }

    /// Every version of every model that was tried, and its state.
    pub fn index(&self) -> Vec<IndexEntry> {
        self.table.load().index()
    }

    /// Every version that answers.
    pub fn models(&self) -> Vec<Arc<ServedModel>> {
        self.table.load().models()
    }

    /// Loads what is new or changed, and forgets what is gone. What cannot be loaded is told, and what
    /// was there before stays.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub async fn load_all(self: &Arc<Self>) -> Result<Vec<Failed>, LoadError> {
        let repository = Arc::clone(self);
        let names = blocking(move || repository.source.names()).await?;
        let mut failed = Vec::new();
        for name in &names {
            let is_unloaded = self.table.load().0.get(name).is_some_and(|known| known.is_unloaded);
            if !is_unloaded && let Err(error) = self.load(name).await {
                failed.push(Failed { name: name.clone(), error });
            }
        }
        self.change(|table| table.0.retain(|name, _| names.contains(name)));
        self.is_complete.store(true, Ordering::Release);
        Ok(failed)
    }

    /// Loads the versions of a model that are new or changed, and forgets those that are gone. Goes on when
    /// nobody waits for it.
    ///
    /// # Errors
    /// For the newest version that cannot be loaded; the others are loaded nevertheless, and what was there
    /// before stays.
    pub async fn load(self: &Arc<Self>, name: &str) -> Result<(), LoadError> {
        let (repository, name) = (Arc::clone(self), name.to_owned());
        let task = tokio::spawn(async move { repository.load_in_turn(&name).await });
        task.await.unwrap_or(Err(LoadError::BrokenOff))
    }

    async fn load_in_turn(self: Arc<Self>, name: &str) -> Result<(), LoadError> {
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        if self.is_retired() {
            return Err(LoadError::BrokenOff);
        }
        let (repository, own) = (Arc::clone(&self), name.to_owned());
        let versions = match blocking(move || repository.source.versions(&own)).await {
            Ok(versions) => versions,
            Err(error) => {
                // Names that lead nowhere come from clients, and are not kept.
                if !matches!(error, LoadError::NoModel(_)) {
                    self.change_versions(name, |known| known.problem = Some(error.to_string()));
                }
                return Err(error);
            }
        };
        self.change_versions(name, |known| {
            known.slots.retain(|version, _| versions.contains(version));
            known.problem = versions.is_empty().then(|| "it has no version".to_owned());
            known.is_unloaded = false;
        });
        let mut result = if versions.is_empty() {
            let (name, version) = (name.to_owned(), "1".to_owned());
            Err(LoadError::NoVersion { name, version })
        } else {
            Ok(())
        };
        // The newest is what most requests want.
        for version in versions.into_iter().rev() {
            result = result.and(self.load_version(name, version).await);
        }
        result
    }

    async fn load_version(self: &Arc<Self>, name: &str, version: u64) -> Result<(), LoadError> {
        self.change_slot(name, version, |slot| slot.is_loading = true);
        let old = self.get(name, Some(&version.to_string())).ok();
        let known = old.filter(|model| model.not_ready().is_none());
        let known = known.map(|model| model.identity().digest.clone());
        let (repository, own) = (Arc::clone(self), name.to_owned());
        let loaded = blocking(move || {
            let path = repository.source.locate(&own, version)?;
            repository.loader.load(&own, version, &path, known.as_deref())
        });
        let loaded = loaded.await;
        if let Ok(Some(model)) = &loaded {
            tracing::info!(name, version, digest = model.identity().digest, "a model is ready");
        }
        let mut result = Ok(());
        self.change_slot(name, version, |slot| {
            slot.is_loading = false;
            slot.problem = loaded.as_ref().err().map(ToString::to_string);
            match loaded {
                // From here on requests get the new one.
                Ok(Some(model)) => slot.model = Some(Arc::new(model)),
                Ok(None) => {}
                Err(error) => result = Err(error),
            }
        });
        result
    }

    /// Takes a model away. Requests that have it are answered.
    ///
    /// # Errors
    /// If there is none of this name.
    pub async fn unload(&self, name: &str) -> Result<(), LoadError> {
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        if !self.table.load().0.contains_key(name) {
            return Err(LoadError::NoModel(name.to_owned()));
        }
        self.change_versions(name, |versions| {
            versions.is_unloaded = true;
            for slot in versions.slots.values_mut() {
                *slot = Slot { problem: Some("it was unloaded".to_owned()), ..Slot::default() };
            }
        });
        Ok(())
    }

    /// Says that nothing is ready any more, while requests are still answered: for whoever sends them to
    /// send them elsewhere.
    pub fn retire(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Whether nothing is ready any more.
    pub fn is_retired(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Takes no more requests, and answers what waits within a time; what is left then is refused. Whether
    /// all was answered.
    pub async fn stop(&self, within: Duration) -> bool {
        self.retire();
        let mut stopping = JoinSet::new();
        for model in self.models() {
            stopping.spawn(async move { model.stop(within).await });
        }
        let mut all = true;
        while let Some(stopped) = stopping.join_next().await {
            all &= stopped.unwrap_or(false);
        }
        all
    }

    fn turn(&self, name: &str) -> Arc<Turn<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Names come from clients: only those that are in use are kept.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(name.to_owned()).or_default())
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        change(&mut table);
        self.table.store(Arc::new(table));
    }

    fn change_versions(&self, name: &str, change: impl FnOnce(&mut Versions)) {
        self.change(|table| change(table.0.entry(name.to_owned()).or_default()));
    }

    fn change_slot(&self, name: &str, version: u64, change: impl FnOnce(&mut Slot)) {
        self.change_versions(name, |versions| change(versions.slots.entry(version).or_default()));
    }
}

/// What blocks, where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    spawn_blocking(work).await.unwrap_or(Err(LoadError::BrokenOff))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use modelopt_graph::Tensor;
    use xtask::testdata::fixture;

    use super::super::planted::{Planted, describe};
    use super::super::rows::Tensors;
    use super::super::settings::ModelSettings;
    use super::*;
    use crate::Inference;
    use crate::protocol::ModelState;

    /// Puts a file where the other one was, as whoever deploys does.
    fn put(root: &Path, place: &str, from: &str) {
        let path = root.join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let fresh = path.with_extension("new");
        std::fs::copy(fixture(from), &fresh).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
    }

    fn repository(root: &Path) -> Arc<Repository> {
        let runtimes = Runtimes::open("tract".parse().unwrap(), None, None).unwrap();
        Repository::new(Source::at(root), runtimes, EngineSettings::default(), describe)
    }

    fn asking() -> Inference {
        let pixels: Vec<f32> = (0..64).map(|at| at as f32 / 64.0).collect();
        let image = Tensor::of(vec![1, 1, 8, 8], &pixels).unwrap();
        Inference { inputs: Tensors::from([("image".to_owned(), image)]), ..Inference::default() }
    }

    async fn scores(repository: &Repository, version: Option<&str>) -> Result<Tensor, ServeError> {
        let model = repository.get("digits", version)?;
        Ok(model.infer(asking()).await?.outputs["scores"].clone())
    }

    fn states(repository: &Repository) -> Vec<(String, Option<String>, ModelState)> {
        let index = repository.index().into_iter();
        index.map(|entry| (entry.name, entry.version, entry.state)).collect()
    }

    const MLP: &str = "digits/mlp.onnx";
    const CNN: &str = "digits/cnn.onnx";

    #[tokio::test]
    async fn all_versions_answer_and_the_newest_by_default() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "digits/9/model.onnx", MLP);
        put(root.path(), "digits/10/model.onnx", CNN);
        let repository = repository(root.path());
        let early = repository.not_all_ready().unwrap().to_string();
        assert_eq!(early, "models are being loaded");
        assert!(repository.load_all().await.unwrap().is_empty());
        assert_eq!(repository.not_all_ready(), None);
        let [newest, nine, ten] = [
            scores(&repository, None).await.unwrap(),
            scores(&repository, Some("9")).await.unwrap(),
            scores(&repository, Some("10")).await.unwrap(),
        ];
        assert_eq!(newest, ten);
        assert_ne!(nine, ten);
        let unknown = scores(&repository, Some("11")).await.unwrap_err();
        assert_eq!(unknown, ServeError::NotFound("model 'digits' has no version '11'".to_owned()));
        assert_eq!(repository.get("x", None).unwrap_err().status(), 404);
        std::fs::remove_dir_all(root.path().join("digits/10")).unwrap();
        repository.load_all().await.unwrap();
        assert_eq!(scores(&repository, None).await.unwrap(), nine);
        assert_eq!(repository.index().len(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_model_is_replaced_under_load_without_a_failure() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "digits/1/model.onnx", MLP);
        let repository = repository(root.path());
        repository.load_all().await.unwrap();
        let before = repository.get("digits", None).unwrap().identity().digest.clone();
        let swaps = Arc::new(AtomicBool::new(true));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (repository, swaps) = (Arc::clone(&repository), Arc::clone(&swaps));
                tokio::spawn(async move {
                    let mut answers = 0;
                    while swaps.load(Ordering::Acquire) {
                        scores(&repository, None).await.unwrap();
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        for file in [CNN, MLP, CNN] {
            put(root.path(), "digits/1/model.onnx", file);
            repository.load("digits").await.unwrap();
        }
        swaps.store(false, Ordering::Release);
        let mut answers = 0;
        for client in clients {
            answers += client.await.unwrap();
        }
        assert!(answers > 20, "{answers}");
        assert_ne!(repository.get("digits", None).unwrap().identity().digest, before);
    }

    #[tokio::test]
    async fn whoever_holds_the_old_model_is_answered_by_it() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "digits/1/model.onnx", MLP);
        let repository = repository(root.path());
        repository.load_all().await.unwrap();
        let held = repository.get("digits", None).unwrap();
        let old = held.infer(asking()).await.unwrap().outputs;
        put(root.path(), "digits/1/model.onnx", CNN);
        repository.load("digits").await.unwrap();
        assert_eq!(held.infer(asking()).await.unwrap().outputs, old);
        assert_ne!(scores(&repository, None).await.unwrap(), old["scores"]);
        // The same file is not loaded again.
        let now = repository.get("digits", None).unwrap();
        repository.load("digits").await.unwrap();
        assert!(Arc::ptr_eq(&now, &repository.get("digits", None).unwrap()));
    }

    #[tokio::test]
    async fn what_cannot_be_loaded_leaves_the_old_one_and_says_why() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "digits/1/model.onnx", MLP);
        let repository = repository(root.path());
        repository.load_all().await.unwrap();
        let old = scores(&repository, None).await.unwrap();
        put(root.path(), "digits/1/model.onnx", "attacks/cycle.onnx");
        assert!(repository.load("digits").await.is_err());
        assert_eq!(scores(&repository, None).await.unwrap(), old);
        let entry = &repository.index()[0];
        assert_eq!(entry.state, ModelState::Ready);
        assert!(entry.reason.as_ref().unwrap().contains("cannot be read"), "{entry:?}");
        assert_eq!(repository.not_all_ready(), None);
    }

    #[tokio::test]
    async fn a_broken_model_is_not_ready_and_keeps_no_other_from_it() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "broken/1/model.onnx", "attacks/cycle.onnx");
        put(root.path(), "digits/1/model.onnx", MLP);
        std::fs::create_dir_all(root.path().join("empty")).unwrap();
        let repository = repository(root.path());
        let failed = repository.load_all().await.unwrap();
        let names: Vec<&str> = failed.iter().map(|failed| failed.name.as_str()).collect();
        assert_eq!(names, ["broken", "empty"]);
        assert!(scores(&repository, None).await.is_ok());
        let expected = [
            ("broken", Some("1"), ModelState::Unavailable),
            ("digits", Some("1"), ModelState::Ready),
            ("empty", None, ModelState::Unavailable),
        ];
        let expected = expected
            .map(|(name, version, state)| (name.to_owned(), version.map(str::to_owned), state));
        assert_eq!(states(&repository), expected);
        let error = repository.not_ready("broken", None).unwrap();
        assert_eq!(error.status(), 503);
        assert!(error.to_string().starts_with("model 'broken' is not ready: "), "{error}");
        assert!(repository.not_all_ready().is_some());
        assert_eq!(repository.not_ready("digits", Some("1")), None);
    }

    #[tokio::test]
    async fn models_are_taken_away_and_brought_back() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "digits/1/model.onnx", MLP);
        let repository = repository(root.path());
        repository.load_all().await.unwrap();
        repository.unload("digits").await.unwrap();
        let error = scores(&repository, None).await.unwrap_err();
        let said = "model 'digits' is not ready: it was unloaded";
        assert_eq!(error, ServeError::NotFound(said.to_owned()));
        // It stays away until somebody asks for it, and is missed by nobody.
        repository.load_all().await.unwrap();
        assert_eq!((repository.models().len(), repository.not_all_ready()), (0, None));
        repository.load("digits").await.unwrap();
        assert!(scores(&repository, None).await.is_ok());
        assert!(matches!(repository.unload("x").await, Err(LoadError::NoModel(_))));
    }

    #[tokio::test]
    async fn names_that_lead_nowhere_leave_no_trace() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "models/digits/1/model.onnx", MLP);
        put(root.path(), "secret/1/model.onnx", MLP);
        let repository = repository(&root.path().join("models"));
        for name in ["../secret", "nothing", ""] {
            let error = repository.load(name).await.unwrap_err();
            assert_eq!(error.into_serve_error().status(), 404, "{name}");
        }
        assert!(repository.index().is_empty() && repository.models().is_empty());
    }

    #[tokio::test]
    async fn loading_does_not_hold_up_the_executor() {
        let pause = Duration::from_millis(800);
        let planted = Planted::doubling().when_loading(move || std::thread::sleep(pause));
        let source = Source::at(&fixture(MLP));
        let settings = ModelSettings { max_batch_size: 0, ..ModelSettings::default() };
        let settings = EngineSettings { default: settings, ..EngineSettings::default() };
        let runtimes = Runtimes::inside(planted.runtime());
        let repository = Repository::new(source, runtimes, settings, describe);
        let loading = tokio::spawn({
            let repository = Arc::clone(&repository);
            async move { repository.load("mlp").await }
        });
        let started = Instant::now();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(started.elapsed() < pause, "{:?}", started.elapsed());
        assert_eq!(states(&repository)[0].2, ModelState::Loading);
        let error = repository.get("mlp", None).unwrap_err().to_string();
        assert_eq!(error, "model 'mlp' is not ready: it is being loaded");
        loading.await.unwrap().unwrap();
        assert!(repository.get("mlp", Some("1")).is_ok());
    }

    #[tokio::test]
    async fn stopping_is_seen_before_it_is_felt() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "digits/1/model.onnx", MLP);
        let repository = repository(root.path());
        repository.load_all().await.unwrap();
        repository.retire();
        assert!(repository.not_all_ready().is_some());
        assert!(scores(&repository, None).await.is_ok());
        assert!(repository.stop(Duration::from_secs(5)).await);
        assert_eq!(scores(&repository, None).await.unwrap_err().status(), 503);
        assert!(matches!(repository.load("digits").await, Err(LoadError::BrokenOff)));
    }
}
