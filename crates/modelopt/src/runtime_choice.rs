//! Which runtimes run the models.

use std::fmt;
use std::str::FromStr;

use modelopt_rewrite::Capabilities;
use modelopt_runtime::worker::WorkerPool;
use modelopt_runtime::{
    CustomRuntime, LibrarySearch, Runtime, RuntimeError, RuntimeKind, anywhere, runtime,
};
use serde::{Deserialize, Serialize};

/// Which runtimes run the models; written as names with commas between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum RuntimeChoice {
    /// The first of the embedded ones that runs the original. This proves that the model is still
    /// the same, but says nothing of where it will run.
    #[default]
    Auto,
    /// These. The first is the target, which default rules and verdict follow.
    Named(Vec<RuntimeKind>),
    /// The caller's own, which no file can name.
    Custom(CustomRuntime),
}

impl RuntimeChoice {
    /// Where the default rules think the model will run.
    pub(crate) fn target(&self) -> Capabilities {
        self.engines().first().map_or_else(anywhere, Engine::capabilities)
    }

    /// The runtimes that somebody asked for; the first is the target.
    pub(crate) fn engines(&self) -> Vec<Engine> {
        match self {
            RuntimeChoice::Auto => Vec::new(),
            RuntimeChoice::Named(kinds) => kinds.iter().copied().map(Engine::Registered).collect(),
            RuntimeChoice::Custom(custom) => vec![Engine::Custom(custom.clone())],
        }
    }
}

impl From<Engine> for RuntimeChoice {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Registered(kind) => RuntimeChoice::Named(vec![kind]),
            Engine::Custom(custom) => RuntimeChoice::Custom(custom),
        }
    }
}

impl FromStr for RuntimeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(RuntimeChoice::Auto);
        }
        let mut kinds: Vec<RuntimeKind> = Vec::new();
        for name in text.split(',') {
            let kind = name.trim().parse().map_err(|_| {
                format!("'{name}' is no runtime; there are auto, {}", RuntimeKind::names())
            })?;
            if kinds.contains(&kind) {
                return Err(format!("'{name}' is named twice"));
            }
            kinds.push(kind);
        }
        Ok(RuntimeChoice::Named(kinds))
    }
}

impl fmt::Display for RuntimeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuntimeChoice::Auto => f.write_str("auto"),
            RuntimeChoice::Named(kinds) => {
                let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                f.write_str(&names.join(","))
            }
            RuntimeChoice::Custom(custom) => f.write_str(custom.name()),
        }
    }
}

impl TryFrom<String> for RuntimeChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RuntimeChoice> for String {
    fn from(choice: RuntimeChoice) -> Self {
        choice.to_string()
    }
}

/// A runtime before it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Registered(RuntimeKind),
    Custom(CustomRuntime),
}

impl Engine {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Engine::Registered(kind) => kind.name(),
            Engine::Custom(custom) => custom.name(),
        }
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        match self {
            Engine::Registered(kind) => kind.capabilities(),
            Engine::Custom(custom) => custom.capabilities(),
        }
    }

    /// Its place in the registry, if it has one.
    pub(crate) fn kind(&self) -> Option<RuntimeKind> {
        match self {
            Engine::Registered(kind) => Some(*kind),
            Engine::Custom(_) => None,
        }
    }

    /// Whether it needs nothing but this program, so that models are run in it by default.
    pub(crate) fn is_embedded(&self) -> bool {
        self.kind().is_some_and(RuntimeKind::is_embedded)
    }

    /// Whether there are execution providers and levels of optimisation to tell of.
    pub(crate) fn has_choices(&self) -> bool {
        self.kind().is_some_and(RuntimeKind::has_choices)
    }

    /// Opens it. What is foreign is loaded by workers, where there are any; they do not know what is
    /// the caller's own.
    pub(crate) fn open(
        &self,
        search: &LibrarySearch,
        workers: Option<&WorkerPool>,
    ) -> Result<Box<dyn Runtime>, RuntimeError> {
        match self {
            Engine::Custom(custom) => Ok(Box::new(custom.clone())),
            Engine::Registered(kind) => {
                let library = kind.find_library(search)?;
                match workers {
                    Some(workers) => workers.runtime(*kind, library.as_deref()),
                    None => runtime(*kind, library.as_deref()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use modelopt_runtime::SessionOptions;

    use super::*;

    #[test]
    fn what_is_the_callers_own_runs_here_whether_there_are_workers_or_not() {
        let embedded = RuntimeKind::embedded().next().unwrap();
        let own = Arc::<dyn Runtime>::from(runtime(embedded, None).unwrap());
        let choice = RuntimeChoice::Custom(own.into());
        assert_eq!(choice.to_string(), embedded.name());
        assert!(choice.target().integer_operators.is_empty());
        let [engine] = choice.engines().try_into().unwrap();
        assert_eq!((engine.kind(), engine.is_embedded()), (None, false));
        let nowhere = WorkerPool::new("/nowhere/worker".into(), Vec::new(), Duration::ZERO);
        let opened = engine.open(&LibrarySearch::default(), Some(&nowhere)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let refused = opened.prepare(&folder.path().join("m.onnx"), &SessionOptions::default());
        assert!(matches!(refused, Err(RuntimeError::Model(_))));
    }

    #[test]
    fn runtimes_are_named_once_and_known() {
        let error = |text: &str| text.parse::<RuntimeChoice>().unwrap_err();
        assert!(error("onnx").contains("there are auto, tract, rten and onnxruntime"));
        assert!(error("rten,rten").contains("named twice"));
        assert!(error("auto,rten").contains("'auto' is no runtime"));
        let choice: RuntimeChoice = "rten, tract".parse().unwrap();
        assert_eq!(
            (choice.to_string().as_str(), choice.target().runtime),
            ("rten,tract", Some("rten"))
        );
    }
}

#[cfg(test)]
mod edges;
