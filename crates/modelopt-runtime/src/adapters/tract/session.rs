//! Models in tract.
//!
//! tract optimises for concrete input shapes, so a session keeps the parsed model and builds one
//! plan per combination of input shapes, the first time it meets it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::{Tensor, Type};
use tract_linalg::multithread::Executor;
use tract_onnx::prelude::{
    Framework, InferenceFact, InferenceModel, InferenceModelExt, TypedRunnableModel,
};

use super::super::cpu::only_cpu;
use super::plans::Plans;
use super::{NAME, hazards, tensor};
use crate::binding::bind;
use crate::guard::{Shielded, guarded};
use crate::interface::Interface;
use crate::outputs::Kept;
use crate::{LeftOut, Outputs, Runtime, RuntimeError, Session, SessionOptions, Stage};

const VERSION: &str = "0.23.9";

/// The embedded `tract` runtime.
///
/// It cannot run models in which the value (not the shape) of an input decides about types or
/// shapes, most contrib operators, nor inputs and outputs that are not tensors.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tract;

impl Runtime for Tract {
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
        let model = modelopt_onnx::load(path)?;
        if let Some(hazard) = hazards::find(&model) {
            return Err(RuntimeError::load(NAME, path, hazard));
        }
        let interface = Interface::of(&model);
        let kept =
            Kept::of(&interface.outputs, |ty| matches!(ty, Type::Tensor { .. } | Type::Other));
        kept.check(NAME)?;
        guarded(NAME, Stage::Loading, path, || {
            // Declared types in between may be stale, and tract would believe them.
            let framework = tract_onnx::onnx().with_ignore_value_info(true);
            let failed = |error: &dyn std::fmt::Display| {
                RuntimeError::load(NAME, path, format!("{error:#}"))
            };
            let model = if kept.left_out.is_empty() {
                framework.model_for_path(path).map_err(|error| failed(&error))?
            } else {
                // It cannot even read other types.
                let bytes = modelopt_onnx::to_bytes(&kept.only(&model));
                let bytes = bytes.map_err(|error| failed(&error))?;
                let read = framework.model_for_read(&mut bytes.as_slice());
                read.map_err(|error| failed(&error))?
            };
            let order = input_order(&model, &interface, path)?;
            let session = TractSession {
                path: path.to_owned(),
                interface,
                kept,
                order,
                model: Shielded::new(model),
                plans: Shielded::new(Plans::default()),
                executor: executor(options.threads),
            };
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

fn executor(threads: usize) -> Executor {
    if threads == 1 { Executor::SingleThread } else { Executor::multithread(threads) }
}

/// For each input of tract's model, its place in the interface.
fn input_order(
    model: &InferenceModel,
    interface: &Interface,
    path: &Path,
) -> Result<Vec<usize>, RuntimeError> {
    model
        .inputs
        .iter()
        .map(|outlet| {
            let name = model.nodes.get(outlet.node).map_or("", |node| node.name.as_str());
            interface.inputs.iter().position(|input| input.name == name).ok_or_else(|| {
                RuntimeError::load(NAME, path, format!("it takes '{name}' for an input"))
            })
        })
        .collect()
}

struct TractSession {
    path: PathBuf,
    interface: Interface,
    kept: Kept,
    order: Vec<usize>,
    model: Shielded<InferenceModel>,
    plans: Shielded<Plans>,
    executor: Executor,
}

impl Session for TractSession {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        let bound = bind(NAME, &self.interface.inputs, inputs)?;
        let path = self.path.clone();
        guarded(NAME, Stage::Running, &path, || self.run_bound(&bound))
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.kept.left_out
    }
}

impl TractSession {
    fn run_bound(&mut self, bound: &[&Tensor]) -> Result<Outputs, RuntimeError> {
        let plan = self.plan(bound)?;
        let inputs = self
            .order
            .iter()
            .filter_map(|&at| Some((self.interface.inputs.get(at)?, bound.get(at)?)))
            .map(|(spec, tensor)| Ok(tensor::to_tract(&spec.name, tensor)?.into()))
            .collect::<Result<_, RuntimeError>>()?;
        let outputs = plan.run(inputs).map_err(|error| self.failed(&error))?;
        let places = &self.kept.places;
        if outputs.len() != places.len() {
            let message = format!("{} outputs instead of {}", outputs.len(), places.len());
            return Err(RuntimeError::run(NAME, &self.path, message));
        }
        let declared = places.iter().filter_map(|&at| self.interface.outputs.get(at));
        declared
            .zip(outputs)
            .map(|(spec, value)| Ok((spec.name.clone(), tensor::from_tract(&spec.name, &value)?)))
            .collect()
    }

    /// The plan for these input shapes, built if there is none yet.
    fn plan(&mut self, bound: &[&Tensor]) -> Result<Arc<TypedRunnableModel>, RuntimeError> {
        let shapes: Vec<_> = bound.iter().map(|tensor| tensor.shape().to_vec()).collect();
        if let Some(plan) = self.plans.get_mut().and_then(|plans| plans.find(&shapes)) {
            return Ok(plan);
        }
        let plan = self.build(bound)?;
        if let Some(plans) = self.plans.get_mut() {
            plans.insert(shapes, plan.clone());
        }
        Ok(plan)
    }

    fn build(&mut self, bound: &[&Tensor]) -> Result<Arc<TypedRunnableModel>, RuntimeError> {
        let Some(model) = self.model.get_mut() else {
            return Err(RuntimeError::run(NAME, &self.path, "the model is gone"));
        };
        let mut model = model.clone();
        for (index, &at) in self.order.iter().enumerate() {
            let (Some(spec), Some(tensor)) = (self.interface.inputs.get(at), bound.get(at)) else {
                continue;
            };
            let datum = tensor::datum_type(&spec.name, tensor.dtype())?;
            let fact = InferenceFact::dt_shape(datum, tensor.shape());
            model.set_input_fact(index, fact).map_err(|error| self.failed(&error))?;
        }
        let options = tract_onnx::prelude::RunOptions {
            executor: Some(self.executor.clone()),
            ..Default::default()
        };
        model
            .into_optimized()
            .and_then(|model| model.into_runnable_with_options(&options))
            .map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &tract_onnx::prelude::TractError) -> RuntimeError {
        RuntimeError::run(NAME, &self.path, format!("{error:#}"))
    }
}
