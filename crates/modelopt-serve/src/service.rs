//! What all protocols share: who may ask, which model answers, what is kept, counted and logged.
//!
//! ```text
//! bytes ─▶ protocol ─▶ Service::admit ─▶ Service::model ─▶ Service::infer ─▶ protocol ─▶ bytes
//!                      who asks          name, version     validate, cache,
//!                                                          queue, session
//! ```

mod face;

use std::sync::Arc;

use crate::cache::{Cache, CacheKey, CacheOutcome, InputDigest};
use crate::engine::{Repository, ServedModel};
use crate::observe::{Metrics, Outside, RequestLog};
use crate::protocol::{ClassNames, Limits, Policy, validate};
use crate::security::{Client, Credentials, Guard};
use crate::{Answer, Inference, ServeError};

pub use face::Face;
use face::Faces;

/// What a service is made of.
pub struct Parts {
    /// The models.
    pub repository: Arc<Repository>,
    /// Answers that are kept.
    pub cache: Cache,
    /// Who may ask.
    pub guard: Guard,
    /// Where requests are logged, if they are.
    pub log: Option<RequestLog>,
    /// How it behaves.
    pub settings: ServiceSettings,
}

/// How a service behaves towards its clients.
#[derive(Clone, Debug, Default)]
pub struct ServiceSettings {
    /// How much a request may have of what costs memory.
    pub limits: Limits,
    /// What inputs are held to beyond types and shapes.
    pub policy: Policy,
    /// Names of the classes that models tell apart, for `/predict`.
    pub classes: Option<ClassNames>,
    /// Whether clients may load and unload models.
    pub model_control: bool,
    /// The model that answers where a route names none; the only one where there is one only.
    pub default_model: Option<String>,
}

/// A request that was looked at: what is to be logged of it.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// Where the answer came from.
    pub cache: Option<CacheOutcome>,
    /// The digest of the inputs, where it was needed.
    pub inputs: Option<InputDigest>,
}

/// A model, and what is counted for it.
#[derive(Clone)]
pub struct Chosen {
    /// The model.
    pub model: Arc<ServedModel>,
    /// What is counted and logged for it.
    pub face: Arc<Face>,
}

/// Answers requests, in no protocol's words.
pub struct Service {
    repository: Arc<Repository>,
    cache: Cache,
    guard: Guard,
    metrics: Metrics,
    log: Option<RequestLog>,
    settings: ServiceSettings,
    faces: Faces,
}

impl Service {
    /// A service of these parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { repository, cache, guard, log, settings } = parts;
        let (metrics, faces) = (Metrics::default(), Faces::default());
        Arc::new(Service { repository, cache, guard, metrics, log, settings, faces })
    }

    /// The models.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// How it behaves.
    pub fn settings(&self) -> &ServiceSettings {
        &self.settings
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where requests are logged.
    pub fn log(&self) -> Option<&RequestLog> {
        self.log.as_ref()
    }

    /// Who asks, if they may.
    ///
    /// # Errors
    /// If they may not, or ask too often.
    pub fn admit(&self, credentials: &Credentials<'_>) -> Result<Client, ServeError> {
        self.guard.admit(credentials)
    }

    /// The model of a name and version; the newest version where none is asked for.
    ///
    /// # Errors
    /// If there is none, or none that is ready.
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<Chosen, ServeError> {
        let model = self.repository.get(name, version)?;
        let face = self.faces.of(&model, &self.metrics);
        Ok(Chosen { model, face })
    }

    /// The model that answers where nobody names one.
    ///
    /// # Errors
    /// If it is not clear which one that is, or it is not ready.
    pub fn default_model(&self) -> Result<Chosen, ServeError> {
        if let Some(name) = &self.settings.default_model {
            return self.model(name, None);
        }
        match self.repository.names().as_slice() {
            [only] => self.model(only, None),
            [] => Err(ServeError::NotReady("no model is loaded".to_owned())),
            several => Err(ServeError::NotFound(format!(
                "there are {} models and this route names none of them: ask for /v2/models/NAME/infer, \
                 or have the server told which is meant",
                several.len()
            ))),
        }
    }

    /// Answers what a model is asked.
    ///
    /// # Errors
    /// If inputs do not fit the model, or it does not answer.
    pub async fn infer(
        &self,
        chosen: &Chosen,
        inference: Inference,
        looked: &mut Looked,
    ) -> Result<Arc<Answer>, ServeError> {
        let Chosen { model, face } = chosen;
        let identity = model.identity();
        validate(&inference, &identity.signature, &self.settings.policy)?;
        if !self.cache.is_on() {
            if self.log.is_some() {
                looked.inputs = Some(InputDigest::of(&inference));
            }
            let answer = model.infer(inference).await?;
            face.metrics.computed(&answer.timing);
            return Ok(Arc::new(answer));
        }
        let inputs = InputDigest::of(&inference);
        looked.inputs = Some(inputs);
        let key = CacheKey::of(&identity.digest, inputs, &inference.outputs);
        let timeout = model.settings().timeout(inference.timeout);
        let kept = self.cache.answer(key, model.infer(inference));
        // Who waits for the computation of another request has a deadline of its own.
        let (answer, outcome) = match timeout {
            None => kept.await,
            Some(timeout) => tokio::time::timeout(timeout, kept)
                .await
                .unwrap_or((Err(ServeError::DeadlineExceeded(timeout)), CacheOutcome::Miss)),
        };
        looked.cache = Some(outcome);
        face.metrics.cached(outcome);
        if let (Ok(answer), CacheOutcome::Miss) = (&answer, outcome) {
            face.metrics.computed(&answer.timing);
        }
        answer
    }

    /// Why the server should not be sent requests, if it should not.
    pub fn not_ready(&self) -> Option<ServeError> {
        self.repository.not_all_ready()
    }

    /// Says that nothing is ready any more, while requests are still answered.
    pub fn drain(&self) {
        self.repository.retire();
    }

    /// Whether the server is about to end.
    pub fn is_draining(&self) -> bool {
        self.repository.is_retired()
    }

    /// What is counted, in the text format of Prometheus.
    pub fn metrics_text(&self) -> String {
        self.faces.settle(&self.repository, &self.metrics);
        let log_lines_dropped = self.log.as_ref().map_or(0, RequestLog::dropped);
        self.metrics.text(&Outside { cache_errors: self.cache.failures(), log_lines_dropped })
    }

    /// The same under the names that Triton has for it.
    pub fn triton_metrics_text(&self) -> String {
        self.faces.settle(&self.repository, &self.metrics);
        self.metrics.triton_text()
    }

    /// The models that answer, with what is counted for each.
    pub fn models(&self) -> Vec<Chosen> {
        let models = self.repository.models().into_iter();
        models.map(|model| Chosen { face: self.faces.of(&model, &self.metrics), model }).collect()
    }

    /// Files of keys that changed into something that cannot be used.
    pub fn troubles(&self) -> Vec<String> {
        self.guard.troubles()
    }
}
