//! Models in ONNX Runtime.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use indexmap::IndexMap;
use modelopt_graph::{Tensor, Type};
use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::Session as OrtSession;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions};

use super::{NAME, library, value};
use crate::binding::bind;
use crate::guard::{Shielded, guarded};
use crate::interface::Interface;
use crate::optionals::{self, Opened};
use crate::outputs::{Kept, Returned};
use crate::{
    LeftOut, Optimization, Outputs, ProviderProblem, Runtime, RuntimeError, Session,
    SessionOptions, Stage,
};

/// The user's ONNX Runtime.
///
/// A process can load one library; asking for another one later is an error.
#[derive(Clone, Debug)]
pub(super) struct Onnxruntime {
    library: PathBuf,
    version: String,
    environment: ort::environment::Environment,
}

/// What this process loaded, if anything.
static LOADED: Mutex<Option<Onnxruntime>> = Mutex::new(None);

impl Onnxruntime {
    /// Loads the library at a path, unless it is loaded already. Telemetry is off.
    pub(super) fn load(library: &Path) -> Result<Self, RuntimeError> {
        let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(loaded) = &*loaded {
            if loaded.library == library {
                return Ok(loaded.clone());
            }
            let message = format!("{} is loaded already", loaded.library.display());
            return Err(RuntimeError::library(library, message));
        }
        let version = library::version(library)?;
        let environment = guarded(NAME, Stage::Loading, library, || {
            ort::init_from(library)
                .map_err(|error| RuntimeError::library(library, error))?
                .with_name("modelopt")
                .with_telemetry(false)
                .build()
                .map_err(|error| RuntimeError::library(library, error))
        })?;
        let runtime = Onnxruntime { library: library.to_owned(), version, environment };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    fn builder(&self, options: &SessionOptions) -> ort::Result<SessionBuilder> {
        let level = match options.optimization {
            Optimization::Off => GraphOptimizationLevel::Disable,
            Optimization::Basic => GraphOptimizationLevel::Level1,
            Optimization::Extended => GraphOptimizationLevel::Level2,
            Optimization::All => GraphOptimizationLevel::All,
        };
        let mut builder = OrtSession::builder(&self.environment)?;
        builder = builder.with_optimization_level(level).map_err(ort::Error::<()>::from)?;
        builder = builder.with_intra_threads(options.threads).map_err(ort::Error::<()>::from)?;
        builder = builder.with_inter_threads(1).map_err(ort::Error::<()>::from)?;
        match provider(&options.provider) {
            Some(Provider { registration: Some(registration), .. }) => Ok(builder
                .with_execution_providers([registration.error_on_failure()])
                .map_err(ort::Error::<()>::from)?),
            _ => Ok(builder),
        }
    }
}

impl Runtime for Onnxruntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn library(&self) -> Option<&Path> {
        Some(&self.library)
    }

    fn prepare(
        &self,
        path: &Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        check_provider(&options.provider)?;
        let model = modelopt_onnx::load(path)?;
        let interface = Interface::of(&model);
        let kept = Kept::of(&interface.outputs, value::returns);
        kept.check(NAME)?;
        guarded(NAME, Stage::Loading, path, || {
            let failed = |error: &dyn std::fmt::Display| RuntimeError::load(NAME, path, error);
            let mut builder = self.builder(options).map_err(|error| failed(&error))?;
            let (session, opened) = match optionals::opened(&model) {
                None => (builder.commit_from_file(path), Vec::new()),
                Some((model, opened)) => {
                    let bytes = modelopt_onnx::to_bytes(&model).map_err(|error| failed(&error))?;
                    (builder.commit_from_memory(&bytes), opened)
                }
            };
            let session = session.map_err(|error| failed(&error))?;
            Ok(Box::new(OnnxruntimeSession {
                path: path.to_owned(),
                options: run_options(&interface, &kept, &opened).map_err(|error| failed(&error))?,
                interface,
                kept,
                opened,
                session: Shielded::new(session),
            }) as Box<dyn Session>)
        })
    }
}

/// A place where operators can run.
struct Provider {
    available: ort::Result<bool>,
    /// None for the processor, which is always there.
    registration: Option<ExecutionProviderDispatch>,
}

/// Names of [`provider`].
const PROVIDERS: [&str; 9] =
    ["cpu", "cuda", "tensorrt", "openvino", "onednn", "xnnpack", "coreml", "directml", "migraphx"];

fn provider(name: &str) -> Option<Provider> {
    fn of<P: ExecutionProvider + 'static>(provider: P) -> Provider
    where
        ExecutionProviderDispatch: From<P>,
    {
        Provider { available: P::is_available(), registration: Some(provider.into()) }
    }
    Some(match name {
        "cpu" => Provider { available: Ok(true), registration: None },
        "cuda" => of(ep::CUDA::default()),
        "tensorrt" => of(ep::TensorRT::default()),
        "openvino" => of(ep::OpenVINO::default()),
        "onednn" => of(ep::OneDNN::default()),
        "xnnpack" => of(ep::XNNPACK::default()),
        "coreml" => of(ep::CoreML::default()),
        "directml" => of(ep::DirectML::default()),
        "migraphx" => of(ep::MIGraphX::default()),
        _ => return None,
    })
}

fn check_provider(name: &str) -> Result<(), RuntimeError> {
    let problem = match provider(name).map(|provider| provider.available) {
        Some(Ok(true)) => return Ok(()),
        Some(Ok(false)) => ProviderProblem::NotInLibrary,
        Some(Err(error)) => ProviderProblem::Failed(error.to_string()),
        None => ProviderProblem::Unknown { known: PROVIDERS.map(str::to_owned).to_vec() },
    };
    Err(RuntimeError::Provider { runtime: NAME, provider: name.to_owned(), problem })
}

/// Asks for those outputs that can be returned.
fn run_options(
    interface: &Interface,
    kept: &Kept,
    opened: &[Opened],
) -> ort::Result<RunOptions<HasSelectedOutputs>> {
    let wanted = kept.places.iter().filter_map(|&at| interface.outputs.get(at));
    let selected = wanted.fold(OutputSelector::no_default(), |selector, spec| {
        match opened.iter().find(|opened| opened.output == spec.name) {
            Some(opened) => selector.with(&opened.present).with(&opened.value),
            None => selector.with(&spec.name),
        }
    });
    Ok(RunOptions::new()?.with_outputs(selected))
}

struct OnnxruntimeSession {
    path: PathBuf,
    interface: Interface,
    kept: Kept,
    opened: Vec<Opened>,
    options: RunOptions<HasSelectedOutputs>,
    session: Shielded<OrtSession>,
}

impl Session for OnnxruntimeSession {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        let bound = bind(NAME, &self.interface.inputs, inputs)?;
        let values = self
            .interface
            .inputs
            .iter()
            .zip(bound)
            .map(|(spec, tensor)| Ok((spec.name.as_str(), value::to_ort(&spec.name, tensor)?)))
            .collect::<Result<Vec<_>, RuntimeError>>()?;
        let path = &self.path;
        let Some(session) = self.session.get_mut() else {
            return Err(RuntimeError::run(NAME, path, "the model is gone"));
        };
        guarded(NAME, Stage::Running, path, || {
            let outputs = session
                .run_with_options(values, &self.options)
                .map_err(|error| RuntimeError::run(NAME, path, error))?;
            let mut named = Outputs::new();
            for spec in self.kept.places.iter().filter_map(|&at| self.interface.outputs.get(at)) {
                let get = |name: &str| {
                    outputs.get(name).ok_or_else(|| {
                        RuntimeError::run(NAME, path, format!("no output is called '{name}'"))
                    })
                };
                let opened = self.opened.iter().find(|opened| opened.output == spec.name);
                let value = match (opened, &spec.ty) {
                    (Some(opened), Type::Optional(of)) => {
                        let present = value::is_true(&spec.name, get(&opened.present)?)?;
                        let value = get(&opened.value)?;
                        let value = present.then(|| value::from_ort(&spec.name, value, of));
                        Returned::Optional(value.transpose()?.map(Box::new))
                    }
                    _ => value::from_ort(&spec.name, get(&spec.name)?, &spec.ty)?,
                };
                value.flatten(&spec.name, &mut named);
            }
            Ok(named)
        })
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.kept.left_out
    }
}
