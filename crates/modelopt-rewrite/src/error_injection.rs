//! A model in which the error of each layer can be switched on alone: what quantizing a layer does
//! to the outputs is then told by one more run of a model that is loaded once.
//!
//! ```text
//! y = MatMul(x, W)
//!   =>
//! W' = Add(W, Mul(D, s_w))           D: dequantized minus original weights
//! x' = Add(x, Mul(Sub(dequantized(DynamicQuantizeLinear(x)), x), s_x))
//! y = MatMul(x', W')
//! ```
//!
//! The switches `s` are the elements of one more input of the model: 0 turns an error off, 1 on, and
//! more makes it larger.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;

use modelopt_graph::{
    DataType, Dim, Model, NodeId, Origin, Patch, Tensor, Type, ValueId, ValueInfo,
};

use crate::engine::{self, BrokenRewrite};
use crate::forms::take_over;
use crate::integer::{self, Affine};
use crate::memo::Memo;
use crate::plan::Plan;
use crate::policy::OnIntegers;
use crate::weight_errors::{WeightError, errors};

pub(crate) use crate::error_switch::switch;

/// A model with switches.
#[derive(Debug)]
pub struct Switchboard {
    /// The model.
    pub model: Model,
    /// Name of the input that the switches are in: float32, one element for each.
    pub input: String,
    /// What each switch is for.
    pub switches: Vec<Switch>,
}

/// What one switch turns on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// The error of an activation that one layer quantizes at run time.
    Activation {
        /// Place of the layer in the plan.
        layer: usize,
    },
    /// The error of a tensor that is quantized by a range.
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// Places in the plan of the layers because of which it is.
        layers: Vec<usize>,
    },
    /// The rounding to 16 bits of values that are rounded together: what is made from them without
    /// computing is of 16 bits as well.
    Rounding {
        /// Places in the plan of all layers that make or read them in 16 bits.
        layers: Vec<usize>,
    },
    /// The error of a weight that is stored in fewer bits.
    Weight {
        /// Name of the weight.
        weight: String,
        /// Places of all layers in the plan that read it.
        layers: Vec<usize>,
    },
}

impl Switchboard {
    /// The settings in which only some switches are on: 1 for errors as they are, more for larger
    /// ones.
    pub fn settings(&self, on: &[usize], strength: f32) -> Tensor {
        let count = self.switches.len();
        let mut numbers = vec![0f32; count];
        for &index in on.iter().filter(|&&index| index < count) {
            numbers[index] = strength;
        }
        Tensor::of(vec![count], &numbers).unwrap_or_else(|_| Tensor::scalar(0f32))
    }
}

/// Puts every int8 layer of a plan under switches.
pub fn switchboard(prepared: &Model, plan: &Plan) -> Result<Switchboard, BrokenRewrite> {
    switchboard_with(prepared, plan, &Memo::none())
}

/// The same with weights that may be quantized already.
pub(crate) fn switchboard_with(
    prepared: &Model,
    plan: &Plan,
    memo: &Memo,
) -> Result<Switchboard, BrokenRewrite> {
    let mut model = prepared.clone();
    crate::refine::apply(&mut model, plan)?;
    let errors = errors(&model, plan, memo);
    let dynamic = dynamic_layers(&model, plan);
    let ranges = Ranges::of(&model, plan);
    let count = errors.len() + dynamic.len() + ranges.0.table.len();
    let mut switches = Vec::with_capacity(count);
    let input = with_switches(&mut model, count, |model, settings| {
        for (layer, node) in dynamic {
            let form = plan.layers[layer].scheme.form();
            if form.disturb(model, node, (settings, switches.len())) {
                switches.push(Switch::Activation { layer });
            }
        }
        switches.extend(ranges.disturb(model, plan, (settings, switches.len())));
        for WeightError { value, tensor, error, layers } in errors {
            let switch = (settings, switches.len());
            let weight = model.value(value).name().to_owned();
            if disturb(model, value, &tensor, &error, switch).is_some() {
                switches.push(Switch::Weight { weight, layers });
            }
        }
    })?;
    Ok(Switchboard { model, input, switches })
}

/// What a plan quantizes by ranges.
struct Ranges(OnIntegers);

impl Ranges {
    fn of(model: &Model, plan: &Plan) -> Self {
        Ranges(OnIntegers::of(model, plan))
    }

    /// Each tensor, with the places in the plan of the layers because of which it is quantized.
    fn held(&self, model: &Model, plan: &Plan) -> impl Iterator<Item = (ValueId, Vec<usize>)> {
        let places = plan.places();
        let all = crate::layers::all(model).into_iter();
        let by_node: HashMap<NodeId, usize> =
            all.filter_map(|layer| Some((layer.node, *places.get(layer.id.as_str())?))).collect();
        let OnIntegers { layers, regions, .. } = &self.0;
        regions.tensors.iter().map(move |&tensor| {
            let holders = regions.holders(model, layers, tensor);
            let layers = holders.iter().filter_map(|node| by_node.get(node).copied());
            (tensor, layers.collect())
        })
    }

    /// Puts the errors of tensors under switches.
    fn disturb(
        &self,
        model: &mut Model,
        plan: &Plan,
        (settings, first): (ValueId, usize),
    ) -> Vec<Switch> {
        let OnIntegers { table, regions, .. } = &self.0;
        let of: HashMap<ValueId, Switch> = self
            .held(model, plan)
            .map(|(tensor, layers)| {
                let name = table.get(&tensor).map(|range| range.name.clone()).unwrap_or_default();
                (tensor, Switch::Tensor { tensor: name, layers })
            })
            .collect();
        let table: IndexMap<ValueId, Affine> =
            table.iter().map(|(&value, range)| (value, Affine::of_range(range))).collect();
        let disturbed = integer::disturb(model, regions, &table, settings, first);
        disturbed.into_iter().filter_map(|tensor| of.get(&tensor).cloned()).collect()
    }
}

/// The tensors that a plan quantizes by ranges, by name, with the places of the layers because of which they
/// are.
pub fn quantized_tensors(prepared: &Model, plan: &Plan) -> Vec<(String, Vec<usize>)> {
    let ranges = Ranges::of(prepared, plan);
    let held = ranges.held(prepared, plan);
    let named = |(tensor, layers)| (prepared.value(tensor).name().to_owned(), layers);
    held.map(named).collect()
}

/// The layers that quantize their activation, with their places in the plan.
fn dynamic_layers(model: &Model, plan: &Plan) -> Vec<(usize, NodeId)> {
    let places = plan.places();
    let all = crate::layers::all(model).into_iter();
    all.filter_map(|layer| Some((*places.get(layer.id.as_str())?, layer.node)))
        .filter(|&(place, _)| plan.layers[place].scheme.is_dynamic())
        .collect()
}

/// Gives a model the input that switches are in, and lets `build` put errors under them. Returns the
/// name of the input.
pub(crate) fn with_switches(
    model: &mut Model,
    count: usize,
    build: impl FnOnce(&mut Model, ValueId),
) -> Result<String, BrokenRewrite> {
    let input = model.fresh_name("error_switches");
    engine::checked_inside(model, "switches", |model| {
        let settings = model.add_value(&input);
        let shape = Some(vec![Dim::Fixed(count)]);
        let ty = Type::Tensor { elem: DataType::FLOAT, shape };
        let main = model.main();
        model.add_input(
            main,
            ValueInfo { value: settings, ty: Some(ty.into()), origin: Origin::NONE },
        );
        build(model, settings);
        count.max(1)
    })?;
    Ok(input)
}

/// Lets a weight be what it is and an error of it, where that is switched on.
pub(crate) fn disturb(
    model: &mut Model,
    weight: ValueId,
    tensor: &Arc<Tensor>,
    error: &[f32],
    at: (ValueId, usize),
) -> Option<()> {
    let home = model.home(weight)?;
    let error = Tensor::of(tensor.shape().to_vec(), error).ok()?;
    let name = model.value(weight).name().to_owned();
    let mut patch = Patch::new();
    let place = take_over(model, &mut patch, weight, home);
    let exact = patch.constant(home, format!("{name}_exact"), tensor.clone());
    let error = patch.constant(home, format!("{name}_error"), Arc::new(error));
    let switch = switch(model, &mut patch, at);
    let error = patch.node(place, "Mul", format!("{name}_switched"), &[error, switch], &[]);
    patch.node_into(place, "Add", format!("{name}_disturbed"), &[exact, error], &[], weight);
    model.apply(patch);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scheme;
    use crate::testing::{Build, float, noise, options};

    #[test]
    fn activations_and_weights_have_switches_of_their_own() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[2, 64]));
        let w = b.weight("W", &[64, 64], &noise(4096, 1));
        let h = b.node("MatMul", &[x, w], &[]);
        let y = b.node("MatMul", &[h, w], &[]);
        b.output(y, float(&[2, 64]));
        modelopt_graph::infer::infer(&mut b.model);
        let plan = crate::plan(&b.model, &options(Scheme::INT8_DYNAMIC)).unwrap();
        let board = switchboard(&b.model, &plan).unwrap();
        assert_eq!(
            board.switches,
            [
                Switch::Activation { layer: 0 },
                Switch::Activation { layer: 1 },
                Switch::Weight { weight: "W".into(), layers: vec![0, 1] },
            ]
        );
        assert_eq!(*board.settings(&[1], 2.0).to_f32().unwrap(), [0.0, 2.0, 0.0]);
        let inputs = &board.model.graph(board.model.main()).inputs;
        assert_eq!(board.model.value(inputs[1].value).name(), board.input);
    }

    #[test]
    fn weights_in_branches_are_switched_from_outside() {
        let mut b = Build::new(17);
        b.branches("Relu");
        modelopt_graph::infer::infer(&mut b.model);
        let plan = crate::plan(&b.model, &options(Scheme::INT8_WEIGHTS)).unwrap();
        let board = switchboard(&b.model, &plan).unwrap();
        let ops: Vec<String> = board
            .model
            .walk()
            .into_iter()
            .map(|node| board.model.node(node).op.name.clone())
            .collect();
        assert_eq!(ops, ["Gather", "If", "Mul", "Add", "MatMul", "Relu"]);
    }
}
