//! How sessions run.

use serde::{Deserialize, Serialize};

/// How a session runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionOptions {
    /// Threads that one operator may use; 0 for as many as the machine has.
    pub threads: usize,
    /// How far graphs are optimised, where a runtime has a choice.
    pub optimization: Optimization,
    /// Where operators run: `cpu`, and whatever else a runtime has.
    pub provider: String,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            threads: 1,
            optimization: Optimization::default(),
            provider: "cpu".to_owned(),
        }
    }
}

/// How far a runtime optimises graphs when it loads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimization {
    /// Not at all.
    Off,
    /// What keeps the graph's operators.
    Basic,
    /// Fusions into operators of the runtime's own.
    Extended,
    /// Layouts for this processor, too.
    #[default]
    All,
}

impl Optimization {
    /// All of them.
    pub const ALL: [Optimization; 4] =
        [Optimization::Off, Optimization::Basic, Optimization::Extended, Optimization::All];

    /// Name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Optimization::Off => "off",
            Optimization::Basic => "basic",
            Optimization::Extended => "extended",
            Optimization::All => "all",
        }
    }
}
