//! How models are served, by the names that Triton's users know.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quota::usable_processors;

/// Most rows of a batch where nobody says. Most models on processors gain no more beyond it, and some
/// runtimes keep no more than so many prepared sizes.
const MAX_BATCH_SIZE: usize = 8;

/// Requests that wait where nobody says how many may.
const MAX_QUEUE_SIZE: usize = 256;

/// Nobody waits for an hour to share a run.
const LONGEST_DELAY: usize = 3_600_000_000;

/// More levels than this are a mistake: each has a queue of its own.
const MOST_LEVELS: u32 = 64;

/// More sessions than this are a mistake: each has threads and memory of its own.
const MOST_SESSIONS: usize = 256;

/// How one model is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// Runtime sessions, each on a thread of its own; 1 by default.
    pub sessions: usize,
    /// Threads of each session; 0, the default, shares the processors that the process may keep busy
    /// among the sessions.
    pub threads: usize,
    /// Where operators run: `cpu`, or what else the runtime has.
    pub provider: String,
    /// Whether sessions live in worker processes, so that a crash of the runtime costs the requests in
    /// it and nothing else.
    pub isolate: bool,
    /// Real inputs, by which the model is warmed up and its batches are checked; invented ones where
    /// there are none.
    pub samples: Option<PathBuf>,
    /// Most rows that run at once, not requests: a request's rows are the first dimension of its inputs.
    /// 0 or 1 switches batching off.
    pub max_batch_size: usize,
    /// Sizes of which a batch runs as soon as it can be formed, the largest first; otherwise what there is
    /// runs when the oldest has waited long enough.
    pub preferred_batch_size: Vec<usize>,
    /// How long the oldest request is held for others to come. 0, the default, takes what waits when a
    /// session becomes free.
    pub max_queue_delay_microseconds: u64,
    /// How far a row answered in a batch may be from the same row answered alone, relative to the root
    /// mean square of the output.
    pub batch_tolerance: f64,
    /// Requests that may wait; more are refused at once.
    pub max_queue_size: usize,
    /// Levels of priority, of which 1 is answered first; 0, the default, for none.
    pub priority_levels: u32,
    /// The level of requests that name none or one that is not there; 0 for the last.
    pub default_priority_level: u32,
    /// How long a request may take from its arrival; 0, the default, for no limit. A client may ask for
    /// less, never for more.
    pub default_timeout_microseconds: u64,
}

impl Default for ModelSettings {
    fn default() -> Self {
        ModelSettings {
            sessions: 1,
            threads: 0,
            provider: "cpu".to_owned(),
            isolate: false,
            samples: None,
            max_batch_size: MAX_BATCH_SIZE,
            preferred_batch_size: Vec::new(),
            max_queue_delay_microseconds: 0,
            batch_tolerance: 1e-4,
            max_queue_size: MAX_QUEUE_SIZE,
            priority_levels: 0,
            default_priority_level: 0,
            default_timeout_microseconds: 0,
        }
    }
}

/// How models are served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// All that are not named below.
    pub default: ModelSettings,
    /// Models by name.
    pub models: BTreeMap<String, ModelSettings>,
}

impl EngineSettings {
    /// How the model of this name is served.
    pub fn of(&self, name: &str) -> &ModelSettings {
        self.models.get(name).unwrap_or(&self.default)
    }
}

/// Settings that contradict themselves.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A number is outside of its range.
    #[error("{name} is {value}, but must be from {least} to {most}")]
    Range {
        /// The setting.
        name: &'static str,
        /// What it is.
        value: u64,
        /// The least it may be.
        least: u64,
        /// The most it may be.
        most: u64,
    },
    /// It is no difference that anything could keep.
    #[error("batch_tolerance is {0}, but must be a number of at least 0")]
    Tolerance(f64),
}

impl ModelSettings {
    /// An error where a setting makes no sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        within("sessions", self.sessions, 1, MOST_SESSIONS)?;
        within("max_queue_size", self.max_queue_size, 1, usize::MAX)?;
        for &size in &self.preferred_batch_size {
            within("preferred_batch_size", size, 1, self.max_batch_size.max(1))?;
        }
        let delay = usize::try_from(self.max_queue_delay_microseconds).unwrap_or(usize::MAX);
        within("max_queue_delay_microseconds", delay, 0, LONGEST_DELAY)?;
        let levels = self.priority_levels as usize;
        within("priority_levels", levels, 0, MOST_LEVELS as usize)?;
        within("default_priority_level", self.default_priority_level as usize, 0, levels)?;
        if self.batch_tolerance.is_nan() || self.batch_tolerance < 0.0 {
            return Err(SettingsError::Tolerance(self.batch_tolerance));
        }
        Ok(())
    }

    /// Threads of each session.
    pub fn session_threads(&self) -> usize {
        match self.threads {
            0 => usable_processors().div_ceil(self.sessions.max(1)).max(1),
            threads => threads,
        }
    }

    /// How long the oldest request is held.
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_micros(self.max_queue_delay_microseconds)
    }

    /// How many queues there are.
    pub(crate) fn levels(&self) -> usize {
        self.priority_levels.clamp(1, MOST_LEVELS) as usize
    }

    /// The queue of a priority, from 0.
    pub(crate) fn level(&self, priority: u32) -> usize {
        let last = self.levels();
        let default = if self.default_priority_level == 0 {
            last
        } else {
            self.default_priority_level as usize
        };
        let named = priority as usize;
        let level = if (1..=last).contains(&named) { named } else { default };
        level.clamp(1, last) - 1
    }

    /// How long a request may take that asks for so long.
    pub(crate) fn timeout(&self, asked: Option<Duration>) -> Option<Duration> {
        let most = Duration::from_micros(self.default_timeout_microseconds);
        let most = (!most.is_zero()).then_some(most);
        match (asked, most) {
            (Some(asked), Some(most)) => Some(asked.min(most)),
            (asked, most) => asked.or(most),
        }
    }
}

fn within(
    name: &'static str,
    value: usize,
    least: usize,
    most: usize,
) -> Result<(), SettingsError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let [value, least, most] = [value, least, most].map(|number| number as u64);
    Err(SettingsError::Range { name, value, least, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_by_name_and_unknown_ones_refused() {
        let text = r#"{"max_batch_size": 4, "preferred_batch_size": [2, 4], "isolate": true}"#;
        let settings: ModelSettings = serde_json::from_str(text).unwrap();
        settings.check().unwrap();
        assert_eq!((settings.max_batch_size, settings.max_queue_delay_microseconds), (4, 0));
        assert!(settings.isolate);
        let error = serde_json::from_str::<ModelSettings>(r#"{"max_batch_sise": 4}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `max_batch_sise`"), "{error}");
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<ModelSettings>(&text).unwrap(), settings);
    }

    #[test]
    fn a_model_may_have_settings_of_its_own() {
        let text = r#"{"default": {"sessions": 2}, "models": {"m": {"sessions": 3}}}"#;
        let settings: EngineSettings = serde_json::from_str(text).unwrap();
        assert_eq!((settings.of("m").sessions, settings.of("n").sessions), (3, 2));
        assert!(serde_json::from_str::<EngineSettings>(r#"{"defaults": {}}"#).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let changed = |change: fn(&mut ModelSettings)| {
            let mut settings = ModelSettings::default();
            change(&mut settings);
            settings.check()
        };
        assert_eq!(changed(|_| ()), Ok(()));
        let error = changed(|settings| settings.preferred_batch_size = vec![9]).unwrap_err();
        assert_eq!(error.to_string(), "preferred_batch_size is 9, but must be from 1 to 8");
        assert!(changed(|settings| settings.sessions = 0).is_err());
        assert!(changed(|settings| settings.max_queue_size = 0).is_err());
        assert!(changed(|settings| settings.max_queue_delay_microseconds = u64::MAX).is_err());
        assert!(changed(|settings| settings.default_priority_level = 1).is_err());
        assert!(changed(|settings| settings.batch_tolerance = f64::NAN).is_err());
    }

    #[test]
    fn priorities_fall_into_levels() {
        let settings = ModelSettings::default();
        assert_eq!([0, 1, 7].map(|priority| settings.level(priority)), [0, 0, 0]);
        let settings = ModelSettings { priority_levels: 3, ..settings };
        assert_eq!([0, 1, 2, 3, 9].map(|priority| settings.level(priority)), [2, 0, 1, 2, 2]);
        let settings = ModelSettings { default_priority_level: 2, ..settings };
        assert_eq!([0, 1, 9].map(|priority| settings.level(priority)), [1, 0, 1]);
    }

    #[test]
    fn a_client_may_wait_less_long_and_never_longer() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let settings = ModelSettings::default();
        assert_eq!((settings.timeout(None), settings.timeout(ms(5))), (None, ms(5)));
        let settings = ModelSettings { default_timeout_microseconds: 3000, ..settings };
        assert_eq!(
            [None, ms(5), ms(1)].map(|asked| settings.timeout(asked)),
            [ms(3), ms(3), ms(1)]
        );
    }

    #[test]
    fn sessions_share_the_processors() {
        let settings = ModelSettings { threads: 3, ..ModelSettings::default() };
        assert_eq!(settings.session_threads(), 3);
        let settings = ModelSettings { sessions: 200, ..ModelSettings::default() };
        assert_eq!(settings.session_threads(), usable_processors().div_ceil(200));
    }
}
