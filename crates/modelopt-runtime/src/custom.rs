//! A runtime of the caller's own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::Tensor;
use modelopt_rewrite::Capabilities;

use crate::guard::{Shielded, guarded};
use crate::{LeftOut, Outputs, Runtime, RuntimeError, Session, SessionOptions, Stage};

/// What any runtime can do: nothing is known to be faster on integers, and what some runtimes get
/// wrong is left alone.
const CAUTIOUS: Capabilities = Capabilities {
    runtime: None,
    integer_operators: &[],
    static_operators: &[],
    static_costs: None,
    no_integer_batches: Some("some runtimes multiply batches of int8 matrices wrongly"),
    no_shared_parts: Some("some runtimes take it apart in every run: branches share it"),
};

/// A runtime that is not in the registry. It is used in this process, because no worker program
/// knows it; its panics become [`RuntimeError::Panicked`] like those of others. Of its methods
/// [`Runtime::prepare`] is called to load a model, and no other one.
#[derive(Clone)]
pub struct CustomRuntime {
    runtime: Arc<dyn Runtime>,
    capabilities: Capabilities,
}

impl CustomRuntime {
    /// A runtime of which nothing is known but that it runs models.
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        let capabilities = Capabilities { runtime: Some(runtime.name()), ..CAUTIOUS };
        CustomRuntime { runtime, capabilities }
    }

    /// The same with what it does with quantized operators: default rules follow that.
    #[must_use]
    pub fn with_capabilities(self, capabilities: Capabilities) -> Self {
        let runtime = Some(self.runtime.name());
        CustomRuntime { capabilities: Capabilities { runtime, ..capabilities }, ..self }
    }

    /// What it does with quantized operators.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }
}

impl From<Arc<dyn Runtime>> for CustomRuntime {
    fn from(runtime: Arc<dyn Runtime>) -> Self {
        CustomRuntime::new(runtime)
    }
}

impl fmt::Debug for CustomRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomRuntime").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl PartialEq for CustomRuntime {
    /// Whether it is the same one, with the same capabilities.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.runtime, &other.runtime) && self.capabilities == other.capabilities
    }
}

impl Eq for CustomRuntime {}

impl Runtime for CustomRuntime {
    fn name(&self) -> &'static str {
        self.runtime.name()
    }

    fn version(&self) -> String {
        self.runtime.version()
    }

    fn library(&self) -> Option<&Path> {
        self.runtime.library()
    }

    fn prepare(
        &self,
        model: &Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        guarded(self.name(), Stage::Loading, model, || {
            let session = self.runtime.prepare(model, options)?;
            let left_out = session.left_out().to_vec();
            let session = Shielded::new(session);
            let (runtime, model) = (self.name(), model.to_owned());
            Ok(Box::new(Guarded { runtime, model, session, left_out }) as Box<dyn Session>)
        })
    }
}

/// A session of a custom runtime.
struct Guarded {
    runtime: &'static str,
    model: PathBuf,
    session: Shielded<Box<dyn Session>>,
    left_out: Vec<LeftOut>,
}

impl Session for Guarded {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        let Some(session) = self.session.get_mut() else {
            return Err(RuntimeError::run(self.runtime, &self.model, "the model is gone"));
        };
        guarded(self.runtime, Stage::Running, &self.model, || session.run(inputs))
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics where the model, or an input, is called so.
    struct Jumpy;

    impl Runtime for Jumpy {
        fn name(&self) -> &'static str {
            "jumpy"
        }

        fn version(&self) -> String {
            "1".to_owned()
        }

        fn prepare(
            &self,
            model: &Path,
            _: &SessionOptions,
        ) -> Result<Box<dyn Session>, RuntimeError> {
            assert!(!model.ends_with("panic.onnx"), "a bad file");
            Ok(Box::new(Jumpy))
        }
    }

    impl Session for Jumpy {
        fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
            assert!(!inputs.contains_key("panic"), "a bad input");
            Ok(inputs.clone())
        }
    }

    #[test]
    fn panics_of_a_custom_runtime_are_errors() {
        crate::silence_runtime_panics();
        let runtime = CustomRuntime::new(Arc::new(Jumpy));
        let options = SessionOptions::default();
        let error = runtime.prepare(Path::new("panic.onnx"), &options).err().unwrap();
        assert_eq!(error.to_string(), "jumpy panicked while loading panic.onnx: a bad file");
        let mut session = runtime.prepare(Path::new("m.onnx"), &options).unwrap();
        let input = |name: &str| IndexMap::from([(name.to_owned(), Tensor::scalar(1f32))]);
        let error = session.run(&input("panic")).unwrap_err();
        assert_eq!(error.to_string(), "jumpy panicked while running m.onnx: a bad input");
        assert_eq!(session.run(&input("x")).unwrap(), input("x"));
    }

    #[test]
    fn without_capabilities_nothing_is_known_to_pay() {
        let runtime = CustomRuntime::new(Arc::new(Jumpy));
        let capabilities = runtime.capabilities();
        assert_eq!(capabilities.runtime, Some("jumpy"));
        for kind in crate::RuntimeKind::all() {
            let known = kind.capabilities();
            let pays = |operator| known.integer_operators.contains(operator);
            assert!(capabilities.integer_operators.iter().all(pays), "{kind}");
            let may =
                |of: &Capabilities| (of.no_integer_batches.is_none(), of.no_shared_parts.is_none());
            assert!(may(&capabilities) <= may(&known), "{kind}");
        }
        let told = runtime.clone().with_capabilities(crate::anywhere());
        assert_eq!(told.capabilities().integer_operators, crate::anywhere().integer_operators);
        assert_eq!(told.capabilities().runtime, Some("jumpy"));
        assert_ne!(told, runtime);
        assert_eq!(runtime.clone(), runtime);
    }
}
