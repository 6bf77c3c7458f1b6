//! Puts the parts together, and runs until it is told to stop.
//!
//! ```text
//! sockets ─▶ models are loaded ─▶ ready ─▶ not ready, still answering ─▶ no more connections ─▶ models end
//!   live          503                200    (drain)                        (what is left of grace)
//! ```

mod changes;
mod error;
mod example;
mod loading;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Signature;
use crate::cache::{Cache, CacheLimits};
use crate::engine::{EngineSettings, Failed, LoadError, Repository, Runtimes, ServedModel, Source};
use crate::http::{Control, HttpSettings, Listener, ListenerSettings, metrics_router, router};
use crate::observe::RequestLog;
use crate::security::{Guard, GuardSettings};
use crate::service::{Parts, Service, ServiceSettings};

pub use error::ServerError;
pub use example::Example;
use loading::Loading;

/// How a server is made.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where requests come in.
    pub listener: ListenerSettings,
    /// Where metrics are told, if that is on a socket of its own.
    pub metrics: Option<SocketAddr>,
    /// How it is reached.
    pub http: HttpSettings,
    /// The models.
    pub source: Source,
    /// How they are run.
    pub engine: EngineSettings,
    /// How it behaves.
    pub service: ServiceSettings,
    /// Where answers are kept.
    pub cache: CacheSettings,
    /// Who may ask.
    pub guard: GuardSettings,
    /// How it begins and ends.
    pub life: Life,
}

/// Where answers are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CacheSettings {
    /// Nowhere.
    #[default]
    Off,
    /// In this process.
    Embedded(CacheLimits),
    /// In a Redis at an address.
    Redis(String, CacheLimits),
}

/// How a server begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// How long it still answers when it is to end, so that whoever sends requests sees that it is not
    /// ready.
    pub drain: Duration,
    /// When it has ended at the latest, from being told so.
    pub grace: Duration,
    /// How often files of models are looked at, if they are.
    pub poll: Option<Duration>,
}

impl Default for Life {
    /// Kubernetes waits for 30 seconds.
    fn default() -> Self {
        Life { drain: Duration::from_secs(5), grace: Duration::from_secs(25), poll: None }
    }
}

/// What a server is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read models and the certificate again.
    Reload,
    /// Answer what is there, and end.
    Stop,
}

/// What a server tells while it runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A model answers.
    Loaded(Arc<ServedModel>),
    /// A model cannot be loaded; what was there before stays.
    Failed(Failed),
    /// The folder of models cannot be read.
    Unreadable(LoadError),
    /// All that should answer was loaded once: whether all of it does.
    Started {
        /// Why it is not ready, if it is not.
        not_ready: Option<String>,
    },
    /// Everything was read again.
    Reloaded,
    /// A file that was to be read again cannot be used; what was read before is.
    Trouble(String),
    /// It is about to end.
    Draining,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether all requests that it had taken were answered.
    pub all_answered: bool,
}

/// A server whose sockets are open, before it answers.
pub struct Server {
    listener: Listener,
    metrics: Option<Listener>,
    http: HttpSettings,
    service: Arc<Service>,
    source: Source,
    life: Life,
}

impl Server {
    /// Opens sockets and reads keys. Models are loaded when it runs.
    ///
    /// # Errors
    /// If anything but a model cannot be had.
    pub async fn open(
        settings: ServerSettings,
        runtimes: Runtimes,
        log: Option<RequestLog>,
    ) -> Result<Self, ServerError> {
        let ServerSettings { listener, metrics, http, source, engine, .. } = settings;
        for model in std::iter::once(&engine.default).chain(engine.models.values()) {
            model.check()?;
        }
        let http = HttpSettings { metrics_elsewhere: metrics.is_some(), ..http };
        let guard = Guard::new(&settings.guard)?;
        let cache = match settings.cache {
            CacheSettings::Off => Cache::off(),
            CacheSettings::Embedded(limits) => Cache::embedded(limits),
            CacheSettings::Redis(url, limits) => Cache::redis(&url, limits).await?,
        };
        let header_time = listener.header_time;
        let listener = Listener::open(listener).await?;
        let metrics = match metrics {
            None => None,
            Some(address) => {
                let settings = ListenerSettings { address, header_time, tls: None };
                Some(Listener::open(settings).await?)
            }
        };
        let describe = |model: &_| Signature::of(model).map_err(|error| error.to_string());
        let repository = Repository::new(source.clone(), runtimes, engine, describe);
        let parts = Parts { repository, cache, guard, log, settings: settings.service };
        let service = Service::new(parts);
        Ok(Server { listener, metrics, http, service, source, life: settings.life })
    }

    /// Where requests come in.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Where metrics are told, if that is elsewhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Listener::address)
    }

    /// What answers.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Loads the models and answers until it is told to stop, or nobody is left to tell it.
    ///
    /// # Errors
    /// If nothing can be served, or connections cannot be taken any more.
    pub async fn run(
        self,
        mut orders: UnboundedReceiver<Order>,
        tell: &mut (dyn FnMut(Event) + Send),
    ) -> Result<Ended, ServerError> {
        let Server { listener, metrics, http, service, source, life } = self;
        let mut controls = vec![listener.control()];
        let mut listening = JoinSet::new();
        listening.spawn(listener.serve(router(Arc::clone(&service), &http)));
        if let Some(metrics) = metrics {
            controls.push(metrics.control());
            listening.spawn(metrics.serve(metrics_router(Arc::clone(&service))));
        }
        let mut loading = Loading::start(Arc::clone(&service), source, life.poll);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Reload) => reload(&service, &controls, &mut loading, tell).await,
                    Some(Order::Stop) | None => break,
                },
                loaded = loading.next() => loading.settle(loaded, tell)?,
                Some(ended) = listening.join_next() => return Err(ServerError::ended(ended)),
            }
        }
        tell(Event::Draining);
        Ok(end(&service, &controls, listening, life).await)
    }
}

/// Reads everything again. Keys are read by themselves when their files change.
async fn reload(
    service: &Service,
    controls: &[Control],
    loading: &mut Loading,
    tell: &mut (dyn FnMut(Event) + Send),
) {
    for control in controls {
        if let Err(error) = control.reload().await {
            tell(Event::Trouble(error.to_string()));
        }
    }
    for trouble in service.troubles() {
        tell(Event::Trouble(trouble));
    }
    loading.again();
}

/// Says that it is not ready, answers for a while nevertheless, then takes no more connections, answers
/// what it has, and lets go of the models.
async fn end(
    service: &Service,
    controls: &[Control],
    mut listening: JoinSet<std::io::Result<()>>,
    life: Life,
) -> Ended {
    let deadline = Instant::now() + life.grace;
    service.drain();
    tokio::time::sleep(life.drain.min(life.grace)).await;
    for control in controls {
        control.end(deadline.saturating_duration_since(Instant::now()));
    }
    let closed = async { while listening.join_next().await.is_some() {} };
    let closed = tokio::time::timeout_at(deadline, closed).await.is_ok();
    let left = deadline.saturating_duration_since(Instant::now());
    let stopped = service.repository().stop(left).await;
    Ended { all_answered: closed && stopped }
}
