//! What every runtime can do.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use indexmap::IndexMap;
use modelopt_graph::Tensor;
use serde::{Deserialize, Serialize};

use crate::worker::{Cost, Remote, Seat};
use crate::{LeftOut, RuntimeError};

/// Named outputs, in the order of the graph's outputs. Those that are no tensors are several
/// entries:
///
/// - a sequence `ys`: `ys.length` (int64 scalar), then `ys[0]`, `ys[1]` and so on, or, where there
///   are more than 16 of one type and shape, `ys[..]`, in which they lie one behind the other;
/// - a map `m`: `m.keys` (int64 or string, ascending) and `m.values`;
/// - a sequence `p` of maps that have the same keys: `p.keys` `[k]` and `p.values` `[n, k]`;
/// - an optional `o`: `o.present` (bool scalar), then its value under `o`, if there is one.
pub type Outputs = IndexMap<String, Tensor>;

/// Something that runs ONNX models.
pub trait Runtime: Send + Sync {
    /// Its name, as in [`RuntimeKind`].
    fn name(&self) -> &'static str;

    /// Its version.
    fn version(&self) -> String;

    /// The file it was loaded from, if it is not part of this program.
    fn library(&self) -> Option<&Path> {
        None
    }

    /// Loads the model at a path; external data is found beside it.
    fn prepare(
        &self,
        model: &Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, RuntimeError>;

    /// The same where another session is, so that both run under the same conditions.
    fn prepare_beside(
        &self,
        _other: &dyn Session,
        model: &Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        self.prepare(model, options)
    }

    /// Loads a model of which nobody knows whether it runs, and runs it once if there are inputs.
    fn attempt(
        &self,
        model: &Path,
        options: &SessionOptions,
        inputs: Option<&IndexMap<String, Tensor>>,
    ) -> Result<Attempt, RuntimeError> {
        let mut session = self.prepare(model, options)?;
        if let Some(inputs) = inputs {
            session.run(inputs)?;
        }
        Ok(Attempt { session, cost: None })
    }
}

/// A model that ran, or was loaded at least.
pub struct Attempt {
    /// It, ready to run.
    pub session: Box<dyn Session>,
    /// What it costs a process of its own, if it was loaded by one.
    pub cost: Option<Cost>,
}

/// A model ready to run.
pub trait Session: Send {
    /// Runs the model on one set of inputs, by name.
    ///
    /// Names that are not inputs of the model are ignored, and so are values for inputs that have
    /// a default: the default counts. Element types must be those the model declares; shapes must
    /// fit its fixed dimensions. Outputs have the element types the model declares.
    /// Outputs of [`Session::left_out`] are missing.
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError>;

    /// The outputs that [`Session::run`] leaves out, because the runtime cannot return values of
    /// their types.
    fn left_out(&self) -> &[LeftOut] {
        &[]
    }

    /// The worker that it is in, if it is in one.
    fn seat(&self) -> Option<Seat> {
        None
    }

    /// Itself and its inputs, to be timed in the worker that it is in, if it is in one. A session
    /// around another one passes that on.
    fn remote<'s>(&'s mut self, _inputs: &'s IndexMap<String, Tensor>) -> Option<Remote<'s>> {
        None
    }
}

impl<S: Session + ?Sized> Session for Box<S> {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        (**self).run(inputs)
    }

    fn left_out(&self) -> &[LeftOut] {
        (**self).left_out()
    }

    fn seat(&self) -> Option<Seat> {
        (**self).seat()
    }

    fn remote<'s>(&'s mut self, inputs: &'s IndexMap<String, Tensor>) -> Option<Remote<'s>> {
        (**self).remote(inputs)
    }
}

impl<S: Session + ?Sized> Session for &mut S {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        (**self).run(inputs)
    }

    fn left_out(&self) -> &[LeftOut] {
        (**self).left_out()
    }

    fn seat(&self) -> Option<Seat> {
        (**self).seat()
    }

    fn remote<'s>(&'s mut self, inputs: &'s IndexMap<String, Tensor>) -> Option<Remote<'s>> {
        (**self).remote(inputs)
    }
}

/// How a session runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionOptions {
    /// Threads that one operator may use; 0 for as many as the machine has.
    pub threads: usize,
    /// How far `onnxruntime` optimises graphs; the embedded runtimes have no choice.
    pub optimization: Optimization,
    /// Where the operators of `onnxruntime` run: `cpu`, `cuda` and so on.
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

/// Which runtime.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// The `tract` crate, embedded.
    #[default]
    Tract,
    /// The `rten` crate, embedded.
    Rten,
    /// ONNX Runtime, by the user's shared library.
    Onnxruntime,
}

impl RuntimeKind {
    /// All of them, whether part of this build or not.
    pub const ALL: [RuntimeKind; 3] =
        [RuntimeKind::Tract, RuntimeKind::Rten, RuntimeKind::Onnxruntime];

    /// Name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            RuntimeKind::Tract => "tract",
            RuntimeKind::Rten => "rten",
            RuntimeKind::Onnxruntime => "onnxruntime",
        }
    }

    /// Whether it is part of this build.
    pub fn is_built(self) -> bool {
        match self {
            RuntimeKind::Tract => cfg!(feature = "tract"),
            RuntimeKind::Rten => cfg!(feature = "rten"),
            RuntimeKind::Onnxruntime => cfg!(feature = "onnxruntime"),
        }
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RuntimeKind {
    type Err = RuntimeError;

    fn from_str(name: &str) -> Result<Self, RuntimeError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| RuntimeError::Unknown(name.to_owned()))
    }
}

/// The runtime of a kind, if it is part of this build. `library` is the file of ONNX Runtime.
pub fn runtime(
    kind: RuntimeKind,
    library: Option<&Path>,
) -> Result<Box<dyn Runtime>, RuntimeError> {
    match kind {
        #[cfg(feature = "tract")]
        RuntimeKind::Tract => Ok(Box::new(crate::Tract)),
        #[cfg(feature = "rten")]
        RuntimeKind::Rten => Ok(Box::new(crate::Rten)),
        #[cfg(feature = "onnxruntime")]
        RuntimeKind::Onnxruntime => {
            let library = library.ok_or(RuntimeError::NoLibrary)?;
            Ok(Box::new(crate::Onnxruntime::load(library)?))
        }
        #[allow(unreachable_patterns)] // Reached when a feature is off.
        _ => Err(RuntimeError::NotBuilt { runtime: kind.name() }),
    }
}

/// For runtimes that compute on the processor and nowhere else.
#[cfg(any(feature = "tract", feature = "rten"))]
pub(crate) fn only_cpu(
    runtime: &'static str,
    options: &SessionOptions,
) -> Result<(), RuntimeError> {
    if options.provider == "cpu" {
        return Ok(());
    }
    Err(RuntimeError::Provider {
        runtime,
        provider: options.provider.clone(),
        message: "it computes on the cpu only".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in RuntimeKind::ALL {
            assert_eq!(kind.name().parse::<RuntimeKind>().unwrap(), kind);
            let made = runtime(kind, None);
            assert_eq!(made.is_ok(), kind.is_built() && kind != RuntimeKind::Onnxruntime);
        }
        let error = "torch".parse::<RuntimeKind>().unwrap_err().to_string();
        assert_eq!(error, "no runtime is called 'torch'; there are tract, rten and onnxruntime");
    }

    /// The crates do not tell their versions, so the constants here are held against the lock file.
    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));
        let lock = lock.unwrap();
        for (kind, package) in [(RuntimeKind::Tract, "tract-onnx"), (RuntimeKind::Rten, "rten")] {
            let Ok(runtime) = runtime(kind, None) else { continue };
            let entry = format!("name = \"{package}\"\nversion = \"{}\"", runtime.version());
            assert!(lock.contains(&entry), "{package} in Cargo.lock is not {}", runtime.version());
        }
    }
}
