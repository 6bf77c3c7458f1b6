//! Loads models at the start, when told so, and when their files change.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::changes::Stamp;
use super::{Event, ServerError};
use crate::engine::{Failed, LoadError, Source};
use crate::service::Service;

/// What became of a load.
pub(super) type Loaded = Result<Vec<Failed>, LoadError>;

/// Loads models, once at a time.
pub(super) struct Loading {
    service: Arc<Service>,
    source: Source,
    /// What is being loaded, and what the files were like before.
    running: Option<JoinHandle<(Stamp, Loaded)>>,
    /// Whether to load once more after that.
    again: bool,
    is_started: bool,
    /// Digests of what was told, by name and version.
    told: HashSet<(String, String, String)>,
    poll: Option<Interval>,
    /// The files when they were last loaded.
    loaded: Stamp,
    /// The files when they were last looked at.
    seen: Stamp,
}

impl Loading {
    /// Begins to load.
    pub(super) fn start(service: Arc<Service>, source: Source, poll: Option<Duration>) -> Self {
        let poll = poll.map(|every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let mut loading = Loading {
            service,
            source,
            running: None,
            again: false,
            is_started: false,
            told: HashSet::new(),
            poll,
            loaded: Stamp::default(),
            seen: Stamp::default(),
        };
        loading.begin();
        loading
    }

    /// Loads once more, after what is being loaded.
    pub(super) fn again(&mut self) {
        if self.running.is_some() {
            self.again = true;
        } else {
            self.begin();
        }
    }

    fn begin(&mut self) {
        let repository = Arc::clone(self.service.repository());
        let source = self.poll.is_some().then(|| self.source.clone());
        self.running = Some(tokio::spawn(async move {
            let stamp = match source {
                Some(source) => stamp(source).await,
                None => Stamp::default(),
            };
            (stamp, repository.load_all().await)
        }));
    }

    /// The next load that ends. Nothing is lost where this is not waited for to its end.
    pub(super) async fn next(&mut self) -> Loaded {
        loop {
            if let Some(running) = &mut self.running {
                let broken_off = (Stamp::default(), Err(LoadError::BrokenOff));
                let (stamp, result) = running.await.unwrap_or(broken_off);
                (self.loaded, self.running) = (stamp, None);
                return result;
            }
            let Some(poll) = &mut self.poll else { return std::future::pending().await };
            poll.tick().await;
            let now = stamp(self.source.clone()).await;
            // Files that are still being written change from one look to the next.
            let is_settled = now == self.seen;
            self.seen = now;
            if is_settled && self.seen != self.loaded {
                self.begin();
            }
        }
    }

    /// Tells what became of a load.
    ///
    /// # Errors
    /// If there is nothing to serve at the start, and nothing will come.
    pub(super) fn settle(
        &mut self,
        loaded: Loaded,
        tell: &mut (dyn FnMut(Event) + Send),
    ) -> Result<(), ServerError> {
        let models = self.service.repository().models();
        let mut present = HashSet::new();
        for model in models {
            let identity = model.identity();
            let key = (identity.name.clone(), identity.version.clone(), identity.digest.clone());
            if !self.told.contains(&key) {
                tell(Event::Loaded(model));
            }
            present.insert(key);
        }
        self.told = present;
        match loaded {
            Ok(failed) => failed.into_iter().for_each(|failed| tell(Event::Failed(failed))),
            Err(error) => tell(Event::Unreadable(error)),
        }
        if self.again {
            self.again = false;
            self.begin();
        }
        if self.is_started {
            tell(Event::Reloaded);
            return Ok(());
        }
        self.is_started = true;
        if self.told.is_empty() && self.poll.is_none() && !self.service.settings().model_control {
            let none = self.service.repository().index().is_empty();
            return Err(if none { ServerError::Empty } else { ServerError::NoModel });
        }
        let not_ready = self.service.not_ready().map(|error| error.to_string());
        tell(Event::Started { not_ready });
        Ok(())
    }
}

async fn stamp(source: Source) -> Stamp {
    spawn_blocking(move || Stamp::of(&source)).await.unwrap_or_default()
}
