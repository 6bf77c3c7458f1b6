//! A model in which rounding to 16 bits can be switched on value by value: where a model of 16 bits
//! loses what it loses is then told by running one model, rather than by converting it part by part.
//!
//! ```text
//! h = Conv(x, W)
//!   =>
//! h' = Conv(x, Add(W, Mul(D, s_w)))                  D: rounded minus original weights
//! h  = Where(s_h, Cast<float>(Cast<float16>(h')), h')
//! ```
//!
//! A value is rounded where what makes it computes in 16 bits, or what reads it does. Operators that
//! move or choose numbers give what they were given, so that the values around them share a switch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::{
    AttributeValue, DataType, Model, NodeId, Operand, Patch, Place, Producer, Tensor, ValueId,
    verify,
};

use super::conversions;
use super::emulate::is_exact;
use super::form::{Form, Slot, is_float};
use crate::eligibility::{Look, candidates};
use crate::engine::BrokenRewrite;
use crate::error_injection::{Switch, Switchboard, disturb, switch, with_switches};
use crate::layers;
use crate::plan::{Plan, Precision};

/// `Where` is of this opset.
const OLDEST: i64 = 9;

/// Values that are rounded together.
struct Class {
    to: Precision,
    /// Where rounding changes anything: values that were not made of rounded ones.
    roots: Vec<ValueId>,
    /// Places in the plan of the layers that make or read them in 16 bits.
    layers: Vec<usize>,
}

/// A constant that is rounded.
struct Constant {
    value: ValueId,
    tensor: Arc<Tensor>,
    to: Precision,
    layers: Vec<usize>,
}

/// Puts everything that a plan rounds to 16 bits under switches; none where the model is of an opset
/// that has no operators for that.
pub fn rounding_switchboard(
    prepared: &Model,
    plan: &Plan,
) -> Result<Option<Switchboard>, BrokenRewrite> {
    let mut model = prepared.clone();
    if model.opset(model.main(), "").is_none_or(|version| version < OLDEST) {
        return Ok(None);
    }
    let mut found = Found::default();
    found.look(&model, plan);
    let (classes, constants) = found.settle(&model);
    let constants: Vec<(Constant, Vec<f32>)> = constants
        .into_iter()
        .filter_map(|constant| {
            let error = error(&constant)?;
            Some((constant, error))
        })
        .collect();
    let mut switches = Vec::new();
    let input = with_switches(&mut model, classes.len() + constants.len(), |model, settings| {
        for class in classes {
            round(model, &class.roots, class.to, (settings, switches.len()));
            switches.push(Switch::Rounding { layers: class.layers });
        }
        for (constant, error) in constants {
            let at = (settings, switches.len());
            let weight = model.value(constant.value).name().to_owned();
            if disturb(model, constant.value, &constant.tensor, &error, at).is_some() {
                switches.push(Switch::Weight { weight, layers: constant.layers });
            }
        }
        // Several nodes behind one stand in no order. What was acyclic still is.
        let _ = verify::sort(model);
    })?;
    Ok(Some(Switchboard { model, input, switches }))
}

/// The difference that rounding makes to a constant, if it makes one.
fn error(constant: &Constant) -> Option<Vec<f32>> {
    let numbers = constant.tensor.to_f32()?;
    let rounded = constant.tensor.rounded(constant.to.dtype())?;
    let rounded = rounded.to_f32()?;
    let error: Vec<f32> = rounded.iter().zip(numbers.iter()).map(|(r, x)| r - x).collect();
    let is_of_use = error.iter().any(|&x| x != 0.0) && error.iter().all(|x| x.is_finite());
    is_of_use.then_some(error)
}

/// What a plan rounds, while it is looked for.
#[derive(Default)]
struct Found {
    /// Values that take part, with one that stands for their class, or leads to it.
    home: IndexMap<ValueId, ValueId>,
    /// Who makes or reads each in 16 bits, and which.
    touched: HashMap<ValueId, (Precision, Vec<usize>)>,
    /// Values that are made of others of their class.
    follows: HashSet<ValueId>,
    constants: IndexMap<ValueId, Constant>,
}

impl Found {
    fn look(&mut self, model: &Model, plan: &Plan) {
        let places = plan.places();
        let named = layers::all(model);
        let place_of: HashMap<NodeId, usize> = named
            .iter()
            .filter_map(|layer| Some((layer.node, *places.get(layer.id.as_str())?)))
            .collect();
        for conversion in conversions(model, plan) {
            for layer in &named {
                let form = conversion.regions.nodes.get(&layer.node);
                let place = place_of.get(&layer.node);
                if let (Some(form), Some(&place)) = (form, place) {
                    self.look_at(model, layer.node, form, place, conversion.to);
                }
            }
        }
        let stored = plan.layers.iter().filter(|line| line.scheme.stores_in().is_some());
        if stored.count() > 0 {
            self.look_at_stored(model, plan);
        }
    }

    fn look_at(&mut self, model: &Model, id: NodeId, form: &Form, place: usize, to: Precision) {
        let node = model.node(id);
        let read = node.inputs().iter().zip(&form.inputs);
        let mut values = Vec::new();
        for value in read.filter(|(_, slot)| **slot == Slot::Narrow).filter_map(|(v, _)| *v) {
            let resolved = model.resolve(value);
            match constant(model, resolved) {
                Some(tensor) => self.add_constant(resolved, tensor, place, to),
                None => values.push(value),
            }
        }
        let made = node.outputs().iter().zip(&form.outputs);
        let made: Vec<ValueId> =
            made.filter(|(_, narrow)| **narrow).filter_map(|(v, _)| *v).collect();
        if is_exact(model, id) {
            self.follows.extend(&made);
            let all: Vec<ValueId> = values.iter().chain(&made).copied().collect();
            all.windows(2).for_each(|pair| self.join(pair[0], pair[1]));
        }
        for value in values.into_iter().chain(made) {
            self.home_of(value);
            self.touched.entry(value).or_insert((to, Vec::new())).1.push(place);
        }
    }

    fn look_at_stored(&mut self, model: &Model, plan: &Plan) {
        let places = plan.places();
        for candidate in candidates(model, &Look::at(plan)) {
            let Some(&place) = places.get(candidate.layer.id.as_str()) else { continue };
            let scheme = plan.layers[place].scheme;
            let Some(to) = scheme.stores_in() else { continue };
            for weight in candidate.weights(scheme) {
                self.add_constant(weight.value, weight.tensor.clone(), place, to);
            }
        }
    }

    fn add_constant(&mut self, value: ValueId, tensor: Arc<Tensor>, place: usize, to: Precision) {
        let fresh = || Constant { value, tensor, to, layers: Vec::new() };
        self.constants.entry(value).or_insert_with(fresh).layers.push(place);
    }

    /// The value that stands for the class of another.
    fn home_of(&mut self, value: ValueId) -> ValueId {
        let mut home = value;
        while let Some(&next) = self.home.get(&home)
            && next != home
        {
            home = next;
        }
        self.home.insert(value, home);
        home
    }

    fn join(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.home_of(a), self.home_of(b));
        self.home.insert(b, a);
    }

    /// The classes in the order in which they were found, and the constants.
    fn settle(mut self, model: &Model) -> (Vec<Class>, Vec<Constant>) {
        let mut classes: IndexMap<ValueId, Class> = IndexMap::new();
        let values: Vec<ValueId> = self.home.keys().copied().collect();
        for value in values {
            let home = self.home_of(value);
            let Some((to, layers)) = self.touched.remove(&value) else { continue };
            let fresh = || Class { to, roots: Vec::new(), layers: Vec::new() };
            let class = classes.entry(home).or_insert_with(fresh);
            class.layers.extend(layers);
            if !self.follows.contains(&value) && is_float(model, value) {
                class.roots.push(value);
            }
        }
        let mut classes: Vec<Class> = classes.into_values().collect();
        classes.retain(|class| !class.roots.is_empty());
        for class in &mut classes {
            class.layers.sort_unstable();
            class.layers.dedup();
        }
        let mut constants: Vec<Constant> = self.constants.into_values().collect();
        for constant in &mut constants {
            constant.layers.dedup();
        }
        (classes, constants)
    }
}

/// The constant that an initializer or a `Constant` node holds.
fn constant(model: &Model, value: ValueId) -> Option<Arc<Tensor>> {
    match model.value(value).producer() {
        Producer::Input(_) => None,
        _ => model.constant(value).filter(|tensor| tensor.dtype() == DataType::FLOAT),
    }
}

/// Rounds values to 16 bits and back where a switch is on.
fn round(model: &mut Model, values: &[ValueId], to: Precision, at: (ValueId, usize)) {
    let main = model.main();
    let mut patch = Patch::new();
    let on = switch(model, &mut patch, at);
    let on = patch.node(Place::Front(main), "Cast", "on", &[on], &target(DataType::BOOL));
    // Inputs keep their names: what reads them reads something else.
    let mut redirected: Vec<(Operand, Vec<(NodeId, usize)>)> = Vec::new();
    for &value in values {
        let name = model.value(value).name().to_owned();
        let producer = model.value(value).producer();
        let (exact, place) = match producer {
            Producer::Node(id, index) => {
                (exact(model, value, id, index as usize), Place::After(id))
            }
            _ => (value, Place::Front(model.home(value).unwrap_or(main))),
        };
        let exact: Operand = exact.into();
        let narrow = patch.node(place, "Cast", name.as_str(), &[exact], &target(to.dtype()));
        let back = patch.node(place, "Cast", name.as_str(), &[narrow], &target(DataType::FLOAT));
        let inputs = [on, back, exact];
        if matches!(producer, Producer::Node(..)) {
            patch.node_into(place, "Where", name, &inputs, &[], value);
        } else {
            let rounded = patch.node(place, "Where", name, &inputs, &[]);
            redirected.push((rounded, model.consumers(value).collect()));
        }
    }
    let made = model.apply(patch);
    for (rounded, readers) in redirected {
        let Operand::New(place) = rounded else { continue };
        for (node, input) in readers {
            model.set_input(node, input, made.get(place).copied());
        }
    }
}

fn target(dtype: DataType) -> [(&'static str, AttributeValue); 1] {
    [("to", i64::from(dtype.number()).into())]
}

/// Lets a node make another value than the one that is to be rounded.
fn exact(model: &mut Model, value: ValueId, maker: NodeId, output: usize) -> ValueId {
    let name = format!("{}_exact", model.value(value).name());
    let name = model.fresh_name(&name);
    let exact = model.add_value(name);
    let ty = model.value(value).ty().cloned();
    model.set_type(exact, ty);
    model.set_output(maker, output, exact);
    exact
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scheme;
    use crate::testing::{Build, float, noise, options};

    fn board(b: &mut Build, scheme: Scheme) -> Switchboard {
        modelopt_graph::infer::infer(&mut b.model);
        let plan = crate::plan(&b.model, &options(scheme)).unwrap();
        rounding_switchboard(&b.model, &plan).unwrap().unwrap()
    }

    fn product() -> Build {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 64]));
        let w = b.weight("W", &[64, 64], &noise(4096, 1));
        let h = b.node("MatMul", &[x, w], &[]);
        let r = b.node("Relu", &[h], &[]);
        let y = b.node("Sigmoid", &[r], &[]);
        b.output(y, float(&[2, 64]));
        b
    }

    #[test]
    fn values_share_a_switch_where_nothing_is_computed_between_them() {
        let mut b = product();
        let board = board(&mut b, Scheme::FP16);
        let rounding = |layers: &[usize]| Switch::Rounding { layers: layers.to_vec() };
        assert_eq!(board.switches[0], rounding(&[0]), "the input");
        assert_eq!(
            board.switches[1],
            rounding(&[0, 1, 2]),
            "the product and what Relu makes of it"
        );
        assert_eq!(board.switches[2], rounding(&[2]), "the output");
        assert_eq!(board.switches[3], Switch::Weight { weight: "W".into(), layers: vec![0] });
        let ops = |name: &str| {
            let nodes = board.model.walk();
            nodes.iter().filter(|node| board.model.node(**node).op.is(name)).count()
        };
        // Not behind Relu.
        assert_eq!((ops("Where"), ops("Gather")), (3, 4));
    }

    #[test]
    fn what_only_stores_rounds_its_weights() {
        let mut b = product();
        let board = board(&mut b, Scheme::FP16_WEIGHTS);
        assert_eq!(board.switches, [Switch::Weight { weight: "W".into(), layers: vec![0] }]);
    }

    #[test]
    fn a_constant_that_rounding_leaves_as_it_is_has_no_switch() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 64]));
        let w = b.weight("W", &[64, 64], &vec![0.5; 4096]);
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, float(&[2, 64]));
        let board = board(&mut b, Scheme::FP16);
        assert!(board.switches.iter().all(|switch| matches!(switch, Switch::Rounding { .. })));
    }

    #[test]
    fn an_old_opset_has_no_switches() {
        let mut b = Build::new(8);
        let x = b.input("x", float(&[2, 64]));
        let y = b.node("Exp", &[x], &[]);
        b.output(y, float(&[2, 64]));
        let plan = Plan::new(crate::Numerics::default());
        assert!(rounding_switchboard(&b.model, &plan).unwrap().is_none());
    }
}
