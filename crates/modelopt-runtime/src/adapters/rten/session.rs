//! Models in rten.
//!
//! rten knows float32, int32, int8 and uint8. Everything else is converted on the way in, and on
//! the way out back to the element type that the model declares.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::{DataType, Tensor, Type};
use rten::{LoadErrorKind, Model, ModelOptions, NodeId, RunOptions, ThreadPool};

use super::super::cpu::only_cpu;
use super::{NAME, value};
use crate::binding::bind;
use crate::guard::{Shielded, guarded};
use crate::interface::Interface;
use crate::outputs::Kept;
use crate::{LeftOut, Outputs, Runtime, RuntimeError, Session, SessionOptions, Stage};

const VERSION: &str = "0.27.0";

/// The embedded `rten` runtime.
///
/// It computes in float32 whatever is float16 or float64, and in 32 bits whatever is a wider
/// integer; it has no strings, no maps and no optionals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rten;

impl Runtime for Rten {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        VERSION.to_owned()
    }

    fn prepare(
        &self,
        path: &Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        only_cpu(NAME, options)?;
        let original = modelopt_onnx::load(path)?;
        let interface = Interface::of(&original);
        let kept = Kept::of(&interface.outputs, returns);
        kept.check(NAME)?;
        guarded(NAME, Stage::Loading, path, || {
            let model = if kept.left_out.is_empty() {
                load(path, &original)?
            } else {
                load_bytes(path, &kept.only(&original))?
            };
            let input_ids = input_ids(&model, &interface, path)?;
            let output_ids = model.output_ids().to_vec();
            if output_ids.len() != kept.places.len() {
                return Err(RuntimeError::load(NAME, path, "it has other outputs than declared"));
            }
            let pool = Arc::new(ThreadPool::with_num_threads(options.threads));
            let session = RtenSession {
                path: path.to_owned(),
                interface,
                kept,
                input_ids,
                output_ids,
                model: Shielded::new(model),
                options: RunOptions::default().with_thread_pool(Some(pool)),
            };
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

/// rten reads files only if they are called `.onnx`, and external data only if its file lies right
/// beside the model and has one of a few extensions. Everything else it gets as one piece.
fn load(path: &Path, original: &modelopt_graph::Model) -> Result<Model, RuntimeError> {
    let mut options = ModelOptions::with_all_ops();
    // As whoever serves a model would have it; rten panics where it packs nothing.
    options.prepack_weights(!has_empty_constant(original));
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx")) {
        match options.load_file(path) {
            Err(error) if error.kind() == LoadErrorKind::ExternalDataError => {
                tracing::warn!(%error, "rten would refuse this file; its external data is given inline");
            }
            result => return result.map_err(|error| RuntimeError::load(NAME, path, error)),
        }
    }
    load_bytes(path, original)
}

fn load_bytes(path: &Path, original: &modelopt_graph::Model) -> Result<Model, RuntimeError> {
    let mut options = ModelOptions::with_all_ops();
    options.prepack_weights(!has_empty_constant(original));
    let bytes =
        modelopt_onnx::to_bytes(original).map_err(|error| RuntimeError::load(NAME, path, error))?;
    options.load(bytes).map_err(|error| RuntimeError::load(NAME, path, error))
}

/// Whether rten can return values of a type: numbers, and lists of them.
fn returns(ty: &Type) -> bool {
    match ty {
        Type::Tensor { elem, .. } => *elem != DataType::STRING,
        Type::Sequence(of) => {
            matches!(&**of, Type::Tensor { elem, .. } if *elem != DataType::STRING)
        }
        Type::Other => true,
        _ => false,
    }
}

fn has_empty_constant(model: &modelopt_graph::Model) -> bool {
    model.values().any(|value| model.constant(value).is_some_and(|tensor| tensor.is_empty()))
}

fn input_ids(
    model: &Model,
    interface: &Interface,
    path: &Path,
) -> Result<Vec<NodeId>, RuntimeError> {
    interface
        .inputs
        .iter()
        .map(|input| model.node_id(&input.name))
        .collect::<Result<_, _>>()
        .map_err(|error| RuntimeError::load(NAME, path, error))
}

struct RtenSession {
    path: PathBuf,
    interface: Interface,
    kept: Kept,
    input_ids: Vec<NodeId>,
    output_ids: Vec<NodeId>,
    model: Shielded<Model>,
    options: RunOptions,
}

impl Session for RtenSession {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        let bound = bind(NAME, &self.interface.inputs, inputs)?;
        let path = self.path.clone();
        guarded(NAME, Stage::Running, &path, || self.run_bound(&bound))
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.kept.left_out
    }
}

impl RtenSession {
    fn run_bound(&mut self, bound: &[&Tensor]) -> Result<Outputs, RuntimeError> {
        let Some(model) = self.model.get_mut() else {
            return Err(RuntimeError::run(NAME, &self.path, "the model is gone"));
        };
        let inputs = self
            .input_ids
            .iter()
            .zip(&self.interface.inputs)
            .zip(bound)
            .map(|((&id, spec), tensor)| Ok((id, value::to_rten(&spec.name, tensor)?.into())))
            .collect::<Result<Vec<_>, RuntimeError>>()?;
        let outputs = model
            .run(inputs, &self.output_ids, Some(self.options.clone()))
            .map_err(|error| RuntimeError::run(NAME, &self.path, error))?;
        let mut named = Outputs::new();
        let specs = self.kept.places.iter().filter_map(|&at| self.interface.outputs.get(at));
        for (spec, output) in specs.zip(outputs) {
            value::from_rten(&spec.name, output, &spec.ty)?.flatten(&spec.name, &mut named);
        }
        Ok(named)
    }
}
