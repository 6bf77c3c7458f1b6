//! What goes into a model and what comes out of it.

use std::fmt;

use modelopt_graph::{Model, Type, ValueInfo};
use serde::{Deserialize, Serialize};

/// An input that a caller must give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// Name.
    pub name: String,
    /// Type as declared; [`Type::Other`] where the model declares none.
    pub ty: Type,
}

/// The inputs of the main graph that have no default, in order.
///
/// Inputs that are also initializers are left out: before IR version 4 every weight is one, and
/// since then they mean optional inputs, for which the default counts.
pub fn graph_inputs(model: &Model) -> Vec<InputSpec> {
    let inputs = &model.graph(model.main()).inputs;
    inputs
        .iter()
        .filter(|info| model.value(info.value).constant().is_none())
        .map(|info| InputSpec { name: name(model, info), ty: declared(info) })
        .collect()
}

/// An output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// Name.
    pub name: String,
    /// Type as declared; [`Type::Other`] where the model declares none.
    pub ty: Type,
}

/// The outputs of the main graph, in order.
pub fn graph_outputs(model: &Model) -> Vec<OutputSpec> {
    let outputs = &model.graph(model.main()).outputs;
    outputs.iter().map(|info| OutputSpec { name: name(model, info), ty: declared(info) }).collect()
}

/// An output that a runtime leaves out, because it cannot return values of its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Name of the output.
    pub output: String,
    /// Its type, as declared.
    pub ty: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' ({})", self.output, self.ty)
    }
}

/// The inputs and outputs of a model file.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    /// Inputs that a caller must give, in order.
    pub(crate) inputs: Vec<InputSpec>,
    /// Outputs, in order.
    pub(crate) outputs: Vec<OutputSpec>,
}

impl Interface {
    /// Adapters take it from [`modelopt_onnx::load`], which refuses early what no runtime should
    /// see: malformed files and external data outside of the model's folder.
    pub(crate) fn of(model: &Model) -> Self {
        Interface { inputs: graph_inputs(model), outputs: graph_outputs(model) }
    }
}

fn name(model: &Model, info: &ValueInfo) -> String {
    model.value(info.value).name().to_owned()
}

fn declared(info: &ValueInfo) -> Type {
    info.ty.as_ref().map_or(Type::Other, |declared| declared.ty.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use modelopt_graph::{Constant, DataType, ModelInfo, Origin, Tensor};

    use super::*;

    #[test]
    fn inputs_with_defaults_need_no_value() {
        let mut model = Model::new(ModelInfo::default());
        let main = model.main();
        for name in ["x", "w"] {
            let value = model.add_value(name);
            let ty = Some(Type::tensor(DataType::FLOAT).into());
            model.add_input(main, ValueInfo { value, ty, origin: Origin::NONE });
            if name == "w" {
                model.set_constant(main, value, Constant::Dense(Arc::new(Tensor::scalar(1f32))));
            }
        }
        let interface = Interface::of(&model);
        let names: Vec<_> = interface.inputs.iter().map(|input| input.name.as_str()).collect();
        assert_eq!(names, ["x"]);
        assert_eq!(graph_inputs(&model)[0].ty, Type::tensor(DataType::FLOAT));
    }
}
