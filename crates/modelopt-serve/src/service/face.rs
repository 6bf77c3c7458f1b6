//! What is counted and logged for each version of a model: handles that are made once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::engine::{Repository, ServedModel};
use crate::observe::{Live, LoggedModel, Metrics, ModelFacts, ModelMetrics};

/// What is counted and logged for one version of a model.
pub struct Face {
    /// Metrics.
    pub metrics: Arc<ModelMetrics>,
    /// How it is called in the log.
    pub logged: Arc<LoggedModel>,
    /// Its last minute.
    pub live: Live,
    /// Runs by their number of rows that the metrics know of.
    runs: Mutex<BTreeMap<usize, u64>>,
}

type ByVersion = HashMap<String, Arc<Face>>;

/// All of them, by name and version.
#[derive(Default)]
pub(super) struct Faces {
    known: ArcSwap<HashMap<String, ByVersion>>,
    changing: Mutex<()>,
}

impl Faces {
    /// That of a model; a new one where another file is loaded under the same version.
    pub(super) fn of(&self, model: &ServedModel, metrics: &Metrics) -> Arc<Face> {
        let identity = model.identity();
        let find = |known: &HashMap<String, ByVersion>| {
            let face = known.get(&identity.name)?.get(&identity.version)?;
            (face.logged.blake3 == identity.digest).then(|| Arc::clone(face))
        };
        if let Some(face) = find(&self.known.load()) {
            return face;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = HashMap::clone(&self.known.load());
        if let Some(face) = find(&known) {
            return face;
        }
        let facts = ModelFacts { blake3: identity.digest.clone(), precision: "unknown".to_owned() };
        let face = Arc::new(Face {
            metrics: metrics.model(&identity.name, &identity.version, &facts),
            logged: Arc::new(LoggedModel {
                name: identity.name.clone(),
                version: identity.version.clone(),
                blake3: identity.digest.clone(),
            }),
            live: Live::default(),
            runs: Mutex::default(),
        });
        let versions = known.entry(identity.name.clone()).or_default();
        versions.insert(identity.version.clone(), Arc::clone(&face));
        self.known.store(Arc::new(known));
        face
    }

    /// Brings the metrics up to what models have counted, and ends those of models that are gone.
    pub(super) fn settle(&self, repository: &Repository, metrics: &Metrics) {
        let models = repository.models();
        for model in &models {
            let face = self.of(model, metrics);
            face.metrics.set_queue_length(model.waiting());
            let mut runs = face.runs.lock().unwrap_or_else(PoisonError::into_inner);
            for (rows, tally) in model.statistics().batches {
                let known = runs.entry(rows).or_default();
                for _ in *known..tally.compute_infer.count {
                    face.metrics.executed(rows);
                }
                *known = tally.compute_infer.count.max(*known);
            }
        }
        let is_there = |name: &str, version: &str| {
            models.iter().any(|model| {
                let identity = model.identity();
                identity.name == name && identity.version == version
            })
        };
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = HashMap::clone(&self.known.load());
        for (name, versions) in &mut known {
            versions.retain(|version, _| {
                let stays = is_there(name, version);
                if !stays {
                    metrics.forget(name, version);
                }
                stays
            });
        }
        self.known.store(Arc::new(known));
    }
}
