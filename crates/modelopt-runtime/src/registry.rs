//! All runtimes there are, by name.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;

use modelopt_graph::Model;
use modelopt_rewrite::{Capabilities, Known};
use serde::{Deserialize, Serialize};

use crate::adapters::{LibrarySearch, RUNTIMES};
use crate::descriptor::{RuntimeDescriptor, Source};
use crate::error::and;
use crate::guard;
use crate::{Runtime, RuntimeError};

/// Which runtime.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuntimeKind(&'static RuntimeDescriptor);

impl RuntimeKind {
    /// All of them, whether part of this build or not.
    pub fn all() -> impl Iterator<Item = RuntimeKind> {
        RUNTIMES.iter().map(|descriptor| RuntimeKind(descriptor))
    }

    /// Those that are part of this build.
    pub fn embedded() -> impl Iterator<Item = RuntimeKind> {
        RuntimeKind::all().filter(|kind| kind.is_embedded() && kind.is_built())
    }

    /// The same in the order in which a model of so many bytes is tried in them.
    pub fn embedded_for(bytes: u64) -> Vec<RuntimeKind> {
        let (mut first, mut others): (Vec<_>, Vec<_>) =
            RuntimeKind::embedded().partition(|kind| kind.first_from_bytes() <= bytes);
        // The one that is made for the largest comes first.
        first.sort_by_key(|kind| std::cmp::Reverse(kind.first_from_bytes()));
        others.sort_by_key(|kind| kind.first_from_bytes());
        first.extend(others);
        first
    }

    /// Those that are built and come as a shared library of the user.
    pub fn by_library() -> impl Iterator<Item = RuntimeKind> {
        RuntimeKind::all().filter(|kind| !kind.is_embedded() && kind.is_built())
    }

    /// The one that runs more models than the others.
    pub fn broadest() -> Option<RuntimeKind> {
        RuntimeKind::all().find(|kind| kind.0.is_broadest && kind.is_built())
    }

    /// The names of all of them, as a sentence lists them.
    pub fn names() -> String {
        and(&RuntimeKind::all().map(RuntimeKind::name).collect::<Vec<_>>())
    }

    /// Name, as on the command line.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether it is part of this build.
    pub fn is_built(self) -> bool {
        self.0.open.is_some()
    }

    /// Whether it needs nothing but this program.
    pub fn is_embedded(self) -> bool {
        matches!(self.0.source, Source::Embedded { .. })
    }

    /// Whether it has execution providers and levels of optimisation to choose from.
    pub fn has_choices(self) -> bool {
        self.0.has_choices
    }

    /// What it does with quantized operators.
    pub fn capabilities(self) -> Capabilities {
        self.0.capabilities
    }

    /// The 16-bit types that it knows.
    pub fn sixteen_bits(self) -> Known<'static> {
        self.0.sixteen_bits
    }

    /// The newest operator set of `ai.onnx` in which it runs what it runs in older ones, but for
    /// operators that [`RuntimeKind::newest_opset_for`] knows.
    pub fn newest_opset(self) -> i64 {
        self.0.opsets.newest
    }

    /// The newest operator set of `ai.onnx` in which it has all operators of a model.
    pub fn newest_opset_for(self, model: &Model) -> i64 {
        let nodes = model.all_graphs().into_iter().flat_map(|graph| model.nodes_of(graph));
        let ends = nodes.filter_map(|node| {
            let op = &model.node(node).op;
            let mut without = self.0.opsets.without.iter();
            let (_, version) = without.find(|(name, _)| op.is(name))?;
            Some(version - 1)
        });
        ends.min().map_or(self.newest_opset(), |end| end.min(self.newest_opset()))
    }

    /// A command that installs its library, if it needs one.
    pub fn install(self) -> Option<&'static str> {
        match self.0.source {
            Source::Library { install, .. } => Some(install),
            Source::Embedded { .. } => None,
        }
    }

    /// The file of its library; none if it needs none.
    ///
    /// # Errors
    /// If it needs one and there is none, or what was named is none.
    pub fn find_library(self, search: &LibrarySearch) -> Result<Option<PathBuf>, RuntimeError> {
        match self.0.source {
            Source::Library { find, .. } => find(search).map(Some),
            Source::Embedded { .. } => Ok(None),
        }
    }

    fn first_from_bytes(self) -> u64 {
        match self.0.source {
            Source::Embedded { first_from_bytes } => first_from_bytes,
            Source::Library { .. } => u64::MAX,
        }
    }
}

impl PartialEq for RuntimeKind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for RuntimeKind {}

impl Hash for RuntimeKind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
        RuntimeKind::all().find(|kind| kind.name() == name).ok_or_else(|| {
            let known = RuntimeKind::all().map(RuntimeKind::name).collect();
            RuntimeError::Unknown { name: name.to_owned(), known }
        })
    }
}

impl TryFrom<String> for RuntimeKind {
    type Error = RuntimeError;

    fn try_from(name: String) -> Result<Self, RuntimeError> {
        name.parse()
    }
}

impl From<RuntimeKind> for String {
    fn from(kind: RuntimeKind) -> Self {
        kind.name().to_owned()
    }
}

/// The runtime of a kind, if it is part of this build. `library` is the file of its library, for one
/// that needs it.
pub fn runtime(
    kind: RuntimeKind,
    library: Option<&Path>,
) -> Result<Box<dyn Runtime>, RuntimeError> {
    let open = kind.0.open.ok_or(RuntimeError::NotBuilt { runtime: kind.name() })?;
    open(library)
}

/// What pays on most runtimes, and is wrong on none: what to go by where nobody says where a model
/// will run.
pub fn anywhere() -> Capabilities {
    static OPERATORS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let mut found: Vec<&'static str> = Vec::new();
        for operator in all_capabilities().flat_map(|runtime| runtime.integer_operators) {
            let pays = |runtime: &Capabilities| runtime.integer_operators.contains(operator);
            if is_most(pays) && !found.contains(operator) {
                found.push(operator);
            }
        }
        found
    });
    let shared = all_capabilities().find_map(|runtime| runtime.no_shared_parts);
    Capabilities {
        runtime: None,
        integer_operators: &OPERATORS,
        static_operators: &[],
        static_costs: None,
        no_integer_batches: all_capabilities().find_map(|runtime| runtime.no_integer_batches),
        no_shared_parts: shared.filter(|_| is_most(|runtime| runtime.no_shared_parts.is_some())),
    }
}

/// Whether something is true of more than half of all runtimes.
fn is_most(is_true: impl Fn(&Capabilities) -> bool) -> bool {
    all_capabilities().filter(is_true).count() * 2 > RUNTIMES.len()
}

fn all_capabilities() -> impl Iterator<Item = Capabilities> {
    RuntimeKind::all().map(RuntimeKind::capabilities)
}

/// Makes the process's panic hook silent about panics inside runtimes, which come back as
/// [`RuntimeError::Panicked`] anyway. For binaries, once, before the first model is run; other
/// panics reach the hook that was there before.
pub fn silence_runtime_panics() {
    guard::silence(|thread| {
        let of = |kind: RuntimeKind| thread.strip_prefix(kind.name());
        RuntimeKind::all().filter_map(of).any(|rest| rest.starts_with('-'))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> RuntimeKind {
        name.parse().unwrap()
    }

    #[test]
    fn names_round_trip() {
        for kind in RuntimeKind::all() {
            assert_eq!(kind.name().parse::<RuntimeKind>().unwrap(), kind);
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(text, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<RuntimeKind>(&text).unwrap(), kind);
            let made = runtime(kind, None);
            assert_eq!(made.is_ok(), kind.is_built() && kind.is_embedded());
        }
        let error = "torch".parse::<RuntimeKind>().unwrap_err().to_string();
        assert_eq!(error, "no runtime is called 'torch'; there are tract, rten and onnxruntime");
    }

    #[test]
    fn what_holds_anywhere_is_what_most_do_and_none_gets_wrong() {
        let anywhere = anywhere();
        assert_eq!(anywhere.runtime, None);
        assert_eq!(anywhere.integer_operators, ["MatMul", "Gemm"]);
        let wrong = kind("rten").capabilities().no_integer_batches;
        assert!(wrong.is_some());
        assert_eq!((anywhere.no_integer_batches, anywhere.no_shared_parts), (wrong, None));
        // Nothing that plans without runtimes decides otherwise.
        let default = Capabilities::default();
        assert_eq!(default.integer_operators, anywhere.integer_operators);
        assert_eq!(default.no_integer_batches.is_some(), wrong.is_some());
        assert_eq!(default.no_shared_parts, None);
    }

    #[test]
    #[cfg(all(feature = "tract", feature = "rten"))]
    fn large_models_are_tried_elsewhere_first() {
        let names = |bytes| -> Vec<&str> {
            RuntimeKind::embedded_for(bytes).into_iter().map(RuntimeKind::name).collect()
        };
        assert_eq!(names(1000), ["tract", "rten"]);
        assert_eq!(names((2 << 20) - 1), ["tract", "rten"]);
        assert_eq!(names(2 << 20), ["rten", "tract"]);
    }

    /// The crates do not tell their versions, so their constants are held against the lock file.
    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));
        let lock = lock.unwrap();
        for (name, package) in [("tract", "tract-onnx"), ("rten", "rten")] {
            let Ok(runtime) = runtime(kind(name), None) else { continue };
            let entry = format!("name = \"{package}\"\nversion = \"{}\"", runtime.version());
            assert!(lock.contains(&entry), "{package} in Cargo.lock is not {}", runtime.version());
        }
    }
}
