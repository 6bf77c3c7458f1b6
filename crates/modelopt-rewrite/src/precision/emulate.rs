//! A model that computes in 16 bits, computed in float32 between roundings: what it gives anywhere
//! where float32 is known, whether there are kernels for 16 bits or not.
//!
//! ```text
//! x (float16) ─▶ Conv(W, float16) ─▶ Relu ─▶ y (float16)
//!   =>
//! x ─▶ Cast ─▶ Conv(W, its rounded values) ─▶ rounding ─▶ Relu ─▶ Cast ─▶ y
//! ```
//!
//! Runtimes without kernels for 16 bits do the same at each node, so it is what the model gives
//! there. Operators that move or choose numbers give what they were given, and need no rounding.

mod rounding;

use std::collections::HashMap;
use std::sync::Arc;

use modelopt_graph::{
    Attribute, AttributeValue, Constant, DataType, DeclaredType, GraphId, Model, NewNode, NodeId,
    Place, Producer, Tensor, Type, Use, ValueId, infer, verify,
};
use rayon::prelude::*;

use super::regions;
use crate::engine::{self, BrokenRewrite};
use crate::plan::Precision;
use rounding::Rounder;

/// Operators besides those that move numbers whose results are among their operands, or are exact
/// for another reason.
const EXACT: &[&str] = &[
    "Abs",
    "Ceil",
    "Clip",
    "Constant",
    "Floor",
    "GlobalMaxPool",
    "If",
    "Loop",
    "Max",
    "MaxPool",
    "MaxRoiPool",
    "MaxUnpool",
    "Min",
    "Neg",
    "ReduceMax",
    "ReduceMin",
    "Relu",
    "Round",
    "Scan",
    "Sign",
    "SpaceToDepth",
];

/// Operators that are listed as moving numbers and round or add them up.
const ROUNDING: &[&str] = &["Cast", "CastLike", "Col2Im"];

/// Attributes that name the type of a result.
const TYPE_ATTRIBUTES: &[&str] =
    &["dtype", "output_datatype", "output_dtype", "softmax_precision", "to"];

/// A model that gives what another does, without 16-bit types inside.
#[derive(Clone, Debug)]
pub struct Emulated {
    /// The model. Its inputs and outputs are of the types they were.
    pub model: Model,
    /// Whether anything was computed in 16 bits, rather than only stored in them.
    pub computes: bool,
}

/// The 16-bit types that a runtime knows.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Those that it reads constants of.
    pub stored: &'a [Precision],
    /// Those that it rounds to when it casts; to others, numbers are rounded by float32 arithmetic.
    pub castable: &'a [Precision],
}

/// The model with its 16-bit operators computed in float32 between roundings; `None` where nothing
/// is computed in 16 bits, and what is stored in them can be read.
pub fn emulate(model: &Model, known: Known<'_>) -> Result<Option<Emulated>, BrokenRewrite> {
    let mut model = model.clone();
    // The loader refuses cycles, so sorting cannot fail on a loaded model.
    let _ = verify::sort(&mut model);
    infer::infer(&mut model);
    let narrow = narrow_values(&model);
    let computes = computes(&model, &narrow);
    let readable = narrow.values().all(|precision| known.stored.contains(precision));
    if (readable && !computes) || !is_within_reach(&model) {
        return Ok(None);
    }
    engine::checked_inside(&mut model, "emulate", |model| {
        let castable = known.castable;
        Emulation { model, narrow, castable, rounders: HashMap::new() }.run();
        1
    })?;
    Ok(Some(Emulated { model, computes }))
}

/// The 16-bit type of a data type.
fn precision_of(dtype: DataType) -> Option<Precision> {
    Precision::ALL.into_iter().find(|precision| precision.dtype() == dtype)
}

/// All values that are tensors of a 16-bit type.
fn narrow_values(model: &Model) -> HashMap<ValueId, Precision> {
    let elem = |value: ValueId| match (model.value(value).constant(), model.value(value).ty()) {
        (Some(Constant::Dense(tensor)), _) => Some(tensor.dtype()),
        (None, Some(Type::Tensor { elem, .. })) => Some(*elem),
        _ => model.constant(value).map(|tensor| tensor.dtype()),
    };
    let live = |value: &ValueId| model.value(*value).producer() != Producer::None;
    let values = model.values().filter(live);
    values.filter_map(|value| Some((value, precision_of(elem(value)?)?))).collect()
}

/// Whether anything is rounded while the model runs, rather than only stored in 16 bits.
fn computes(model: &Model, narrow: &HashMap<ValueId, Precision>) -> bool {
    model.walk().into_iter().any(|id| {
        let node = model.node(id);
        let made = node.outputs().iter().flatten().any(|value| narrow.contains_key(value));
        let from_constants =
            node.inputs().iter().flatten().all(|&value| model.constant(value).is_some());
        made && !from_constants && !is_exact(model, id)
    })
}

/// Whether everything of 16 bits is a plain tensor of the model's own graphs.
fn is_within_reach(model: &Model) -> bool {
    let sixteen = |ty: &Type| ty.elem().and_then(precision_of).is_some();
    let contained = |value: ValueId| {
        let ty = model.value(value).ty();
        ty.is_some_and(|ty| !matches!(ty, Type::Tensor { .. }) && sixteen(ty))
    };
    let called = |id: NodeId| {
        let node = model.node(id);
        let mut values = node.inputs().iter().chain(node.outputs()).flatten();
        model.called_function(id).is_some()
            && values.any(|&value| model.value(value).ty().is_some_and(sixteen))
    };
    !model.values().any(contained) && !model.walk().into_iter().any(called)
}

/// Whether a node gives numbers of the type that it was given.
pub(super) fn is_exact(model: &Model, id: NodeId) -> bool {
    let node = model.node(id);
    let op = node.op.name.as_str();
    let adds = op.starts_with("Scatter") && node.string("reduction").is_some_and(|r| r != "none");
    let moves = regions::moves(model, id) && !ROUNDING.contains(&op) && !adds;
    node.op.is_onnx() && (moves || EXACT.contains(&op))
}

struct Emulation<'a> {
    model: &'a mut Model,
    /// What was of 16 bits, and which.
    narrow: HashMap<ValueId, Precision>,
    castable: &'a [Precision],
    rounders: HashMap<Precision, Rounder>,
}

impl Emulation<'_> {
    fn run(mut self) {
        let nodes = self.model.walk();
        let returned = self.returned();
        self.widen_constants(&returned);
        for &value in self.narrow.keys() {
            self.model.set_type(value, widened(self.model.value(value).ty()));
        }
        for id in nodes {
            self.widen_node(id);
        }
        self.keep_inputs();
        self.keep_outputs(&returned);
        redeclare(self.model);
    }

    /// Outputs of the main graph that are of 16 bits: place and value.
    fn returned(&self) -> Vec<(usize, ValueId)> {
        let outputs = self.model.graph(self.model.main()).outputs.iter().enumerate();
        let values = outputs.map(|(index, info)| (index, info.value));
        values.filter(|(_, value)| self.narrow.contains_key(value)).collect()
    }

    /// Constants hold their rounded values in float32.
    fn widen_constants(&mut self, returned: &[(usize, ValueId)]) {
        let model = &*self.model;
        let mut constants: Vec<(ValueId, Arc<Tensor>)> = self
            .narrow
            .keys()
            .filter(|&&value| !matches!(model.value(value).producer(), Producer::Input(_)))
            .filter_map(|&value| Some((value, own_constant(model, value)?)))
            .collect();
        constants.sort_by_key(|(value, _)| *value);
        let wide: Vec<Option<Tensor>> =
            constants.par_iter().map(|(_, t)| widened_tensor(t)).collect();
        for ((value, _), wide) in constants.into_iter().zip(wide) {
            let Some(wide) = wide.map(Arc::new) else { continue };
            match self.model.value(value).producer() {
                Producer::Node(id, _) => {
                    let tensor = AttributeValue::Tensor(wide);
                    self.model.node_mut(id).attributes = vec![Attribute::new("value", tensor)];
                }
                // What is returned as it is stays as it is; who computes with it reads a copy.
                Producer::Initializer(graph) if returned.iter().any(|(_, v)| *v == value) => {
                    self.narrow.remove(&value);
                    let copy = self.fresh(value, "float");
                    self.model.set_constant(graph, copy, Constant::Dense(wide));
                    self.model.replace_reads(value, copy);
                }
                _ => self.model.replace_constant(value, wide),
            }
        }
    }

    /// Lets a node compute in float32 and rounds what it makes.
    fn widen_node(&mut self, id: NodeId) {
        let node = self.model.node(id);
        let made: Vec<(usize, ValueId, Precision)> = node
            .outputs()
            .iter()
            .enumerate()
            .filter_map(|(index, value)| {
                let value = (*value)?;
                Some((index, value, *self.narrow.get(&value)?))
            })
            .collect();
        let exact = is_exact(self.model, id) || self.casts_to_the_same(id);
        if !made.is_empty() {
            self.widen_attributes(id);
        }
        if exact {
            return;
        }
        let mut last = id;
        for (index, value, to) in made {
            let raw = self.fresh(value, "float");
            self.model.set_output(id, index, raw);
            last = self.round(raw, value, to, last);
        }
    }

    fn casts_to_the_same(&self, id: NodeId) -> bool {
        let node = self.model.node(id);
        let narrow = |value: Option<ValueId>| self.narrow.get(&value?).copied();
        node.op.is("Cast")
            && narrow(node.input(0)).is_some_and(|to| narrow(node.output(0)) == Some(to))
    }

    fn widen_attributes(&mut self, id: NodeId) {
        let float = i64::from(DataType::FLOAT.number());
        for attribute in &mut self.model.node_mut(id).attributes {
            let wide = match &attribute.value {
                AttributeValue::Int(number)
                    if TYPE_ATTRIBUTES.contains(&attribute.name.as_str())
                        && i32::try_from(*number)
                            .is_ok_and(|n| precision_of(DataType::from_number(n)).is_some()) =>
                {
                    AttributeValue::Int(float)
                }
                AttributeValue::Tensor(tensor) if precision_of(tensor.dtype()).is_some() => {
                    match widened_tensor(tensor) {
                        Some(wide) => wide.into(),
                        None => continue,
                    }
                }
                // `Cast` before version 6.
                AttributeValue::String(name) if attribute.name == "to" && **name == *b"FLOAT16" => {
                    "FLOAT".into()
                }
                _ => continue,
            };
            *attribute = Attribute::new(attribute.name.clone(), wide);
        }
    }

    /// Rounds `from` to `value` behind a node; returns the last node of it.
    fn round(&mut self, from: ValueId, value: ValueId, to: Precision, behind: NodeId) -> NodeId {
        if self.castable.contains(&to) {
            let narrow = self.fresh(value, to.name());
            self.set_elem(narrow, to.dtype());
            let first = self.cast(from, narrow, to.dtype(), Place::After(behind));
            return self.cast(narrow, value, DataType::FLOAT, Place::After(first));
        }
        // rten takes a factor before a product for one of the product's own.
        let shielded =
            self.model.consumers(value).any(|(id, _)| self.model.node(id).op.is("MatMul"));
        let model = &mut *self.model;
        let rounder = self.rounders.entry(to).or_insert_with(|| Rounder::new(model, to));
        rounder.insert(model, from, value, behind, shielded)
    }

    /// Inputs of 16 bits stay, with casts behind them.
    fn keep_inputs(&mut self) {
        let main = self.model.main();
        let inputs: Vec<ValueId> =
            self.model.graph(main).inputs.iter().map(|info| info.value).collect();
        for value in inputs {
            let Some(&to) = self.narrow.get(&value) else { continue };
            let wide = self.fresh(value, "float");
            self.model.replace_reads(value, wide);
            let inner: Vec<Use> = self.model.value(value).uses().iter().copied().collect();
            for at in inner {
                if let Use::Output(graph, index) = at
                    && graph != main
                {
                    self.model.set_graph_output(graph, index as usize, wide);
                }
            }
            self.cast(value, wide, DataType::FLOAT, Place::Front(main));
            self.set_elem(value, to.dtype());
        }
    }

    /// Outputs of 16 bits stay, with casts before them.
    fn keep_outputs(&mut self, returned: &[(usize, ValueId)]) {
        let main = self.model.main();
        for &(_, value) in returned {
            let (Some(&to), Producer::Node(id, index)) =
                (self.narrow.get(&value), self.model.value(value).producer())
            else {
                continue;
            };
            if self.model.value(value).elem() == Some(to.dtype()) {
                // Returned twice.
                continue;
            }
            let wide = self.fresh(value, "float");
            self.model.set_output(id, index as usize, wide);
            self.model.replace_reads(value, wide);
            self.cast(wide, value, to.dtype(), Place::Back(main));
            self.set_elem(value, to.dtype());
        }
    }

    /// A new float32 value of the same shape.
    fn fresh(&mut self, like: ValueId, suffix: &str) -> ValueId {
        let name = format!("{}_{suffix}", self.model.value(like).name());
        let name = self.model.fresh_name(&name);
        let value = self.model.add_value(name);
        let ty = self.model.value(like).ty().cloned();
        self.model.set_type(value, ty);
        self.set_elem(value, DataType::FLOAT);
        value
    }

    fn set_elem(&mut self, value: ValueId, elem: DataType) {
        let shape = match self.model.value(value).ty() {
            Some(Type::Tensor { shape, .. }) => shape.clone(),
            _ => None,
        };
        self.model.set_type(value, Some(Type::Tensor { elem, shape }));
    }

    fn cast(&mut self, from: ValueId, output: ValueId, to: DataType, place: Place) -> NodeId {
        let to = AttributeValue::Int(i64::from(to.number()));
        insert(self.model, "Cast", &[from], output, vec![Attribute::new("to", to)], place)
    }
}

/// Adds a node with one output.
fn insert(
    model: &mut Model,
    op: &str,
    inputs: &[ValueId],
    output: ValueId,
    attributes: Vec<Attribute>,
    place: Place,
) -> NodeId {
    let name = format!("{}_{}", model.value(output).name(), op.to_lowercase());
    let name = model.fresh_name(&name);
    model.insert(NewNode::onnx(name, op, inputs, output, attributes), place)
}

/// The constant that a value holds itself.
fn own_constant(model: &Model, value: ValueId) -> Option<Arc<Tensor>> {
    match model.value(value).producer() {
        Producer::Initializer(_) => model.constant(value),
        Producer::Node(id, _) if model.node(id).op.is("Constant") => model.constant(value),
        _ => None,
    }
}

fn widened(ty: Option<&Type>) -> Option<Type> {
    match ty? {
        Type::Tensor { shape, .. } => {
            Some(Type::Tensor { elem: DataType::FLOAT, shape: shape.clone() })
        }
        other => Some(other.clone()),
    }
}

fn widened_tensor(tensor: &Tensor) -> Option<Tensor> {
    Tensor::of(tensor.shape().to_vec(), &tensor.to_f32()?).ok()
}

/// Brings what the graphs declare in line with what became of their values.
fn redeclare(model: &mut Model) {
    for graph in model.live_graphs() {
        let changed = stale(model, graph);
        let graph = model.graph_mut(graph);
        for (side, index, ty) in changed {
            let lists = [&mut graph.inputs, &mut graph.outputs, &mut graph.declared];
            if let Some(info) = lists.into_iter().nth(side).and_then(|list| list.get_mut(index)) {
                info.ty = Some(ty);
            }
        }
    }
}

fn stale(model: &Model, graph: GraphId) -> Vec<(usize, usize, DeclaredType)> {
    let graph = model.graph(graph);
    let mut found = Vec::new();
    for (side, list) in [&graph.inputs, &graph.outputs, &graph.declared].into_iter().enumerate() {
        for (index, info) in list.iter().enumerate() {
            let Some(DeclaredType { ty: Type::Tensor { elem, shape }, .. }) = &info.ty else {
                continue;
            };
            let now = model.value(info.value).elem();
            if precision_of(*elem).is_some() && now == Some(DataType::FLOAT) {
                let ty = Type::Tensor { elem: DataType::FLOAT, shape: shape.clone() };
                found.push((side, index, ty.into()));
            }
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // Rounding is exact.
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::testing::{Build, float, noise, options};
    use crate::{PrecisionOptions, Scheme};

    /// Numbers that are hard to round: all of a 16-bit type, what lies next to them, and half way
    /// between them.
    fn hard(all: impl Fn(u16) -> f32) -> Vec<f32> {
        let mut numbers =
            vec![f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 65519.9, 65520.0];
        for bits in 0..=u16::MAX {
            let (one, next) = (all(bits), all(bits.wrapping_add(1)));
            if !one.is_finite() {
                continue;
            }
            let half_way = if next.is_finite() { one / 2.0 + next / 2.0 } else { one };
            for number in [one, half_way] {
                let bits = number.to_bits();
                numbers
                    .extend([bits, bits.wrapping_add(1), bits.wrapping_sub(1)].map(f32::from_bits));
            }
        }
        numbers.extend(noise(100_000, 3).into_iter().map(|x| x * 300.0));
        numbers.retain(|x| !x.is_nan());
        numbers
    }

    /// What the model makes of its constant: each node computed in float32, with scalars beside it.
    fn computed(model: &Model) -> Vec<f32> {
        let mut known: HashMap<ValueId, Vec<f32>> = HashMap::new();
        let mut last = Vec::new();
        for id in model.walk() {
            let node = model.node(id);
            let operand = |index: usize| {
                let value = node.input(index).unwrap();
                let constant = || model.constant(value).unwrap().to_f32().unwrap().into_owned();
                known.get(&value).cloned().unwrap_or_else(constant)
            };
            let with = |apply: fn(f32, f32) -> f32| -> Vec<f32> {
                let (a, b) = (operand(0), operand(1));
                a.iter().zip(b.iter().cycle()).map(|(&a, &b)| apply(a, b)).collect()
            };
            last = match node.op.name.as_str() {
                "Cast" => operand(0),
                "Abs" => operand(0).into_iter().map(f32::abs).collect(),
                "Clip" => {
                    let (least, most) = (operand(1)[0], operand(2)[0]);
                    operand(0).into_iter().map(|x| x.clamp(least, most)).collect()
                }
                "Mul" => with(|a, b| a * b),
                "Add" => with(|a, b| a + b),
                "Sub" => with(|a, b| a - b),
                other => panic!("{other}"),
            };
            known.insert(node.output(0).unwrap(), last.clone());
        }
        last
    }

    fn rounded(numbers: &[f32], to: Precision) -> Vec<f32> {
        let mut b = Build::new(17);
        let c = b.weight("c", &[numbers.len()], numbers);
        b.node("Cast", &[c], &[("to", i64::from(to.dtype().number()).into())]);
        infer::infer(&mut b.model);
        let mut emulated = b.model.clone();
        let (narrow, rounders) = (narrow_values(&emulated), HashMap::new());
        Emulation { model: &mut emulated, narrow, castable: &[], rounders }.run();
        computed(&emulated)
    }

    #[test]
    fn arithmetic_rounds_as_float16_does() {
        let numbers = hard(|bits| f16::from_bits(bits).to_f32());
        for (number, rounded) in numbers.iter().zip(rounded(&numbers, Precision::Fp16)) {
            let expected = f16::from_f32(*number).to_f32();
            assert!(rounded == expected, "{number:e}: {rounded:e}, not {expected:e}");
        }
    }

    #[test]
    fn arithmetic_rounds_as_bfloat16_does_but_for_the_smallest_numbers() {
        let numbers = hard(|bits| bf16::from_bits(bits).to_f32());
        for (number, rounded) in numbers.iter().zip(rounded(&numbers, Precision::Bf16)) {
            let expected = bf16::from_f32(*number).to_f32();
            let close = number.abs() < 2e-29 && (rounded - expected).abs() < 1e-31;
            assert!(rounded == expected || close, "{number:e}: {rounded:e}, not {expected:e}");
        }
    }

    /// What a runtime runs that reads float16 and casts to these types.
    fn run(model: &Model, castable: &[Precision]) -> Option<Model> {
        let known = Known { stored: &[Precision::Fp16], castable };
        emulate(model, known).unwrap().map(|emulated| emulated.model)
    }

    fn half(b: &mut Build) -> Model {
        b.quantized(&options(Scheme::FP16));
        b.model.clone()
    }

    fn ops(model: &Model) -> Vec<String> {
        model.walk().into_iter().map(|id| model.node(id).op.name.clone()).collect()
    }

    #[test]
    fn what_computes_is_rounded_and_what_moves_is_not() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let w = b.weight("W", &[32, 32], &noise(1024, 1));
        let product = b.node("MatMul", &[x, w], &[]);
        let rest = b.node("Relu", &[product], &[]);
        let y = b.node("Transpose", &[rest], &[]);
        b.output(y, float(&[32, 4]));
        let model = half(&mut b);
        let emulated = run(&model, &[Precision::Fp16]).unwrap();
        let expected =
            ["Cast", "Cast", "Cast", "MatMul", "Cast", "Cast", "Relu", "Transpose", "Cast"];
        assert_eq!(ops(&emulated), expected);
        assert_eq!(verify::interface(&model), verify::interface(&emulated));
        let stored = model.constant(w).unwrap().to_f32().unwrap().into_owned();
        let run = emulated.constant(w).unwrap();
        assert_eq!((run.dtype(), run.to_f32().unwrap().into_owned()), (DataType::FLOAT, stored));
    }

    #[test]
    fn what_only_stores_16_bits_is_run_as_it_is() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let w = b.weight("W", &[32, 32], &noise(1024, 1));
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, float(&[4, 32]));
        assert!(run(&b.model, &[]).is_none());
        let mut other = Build { model: b.model.clone() };
        b.quantized(&options(Scheme::FP16_WEIGHTS));
        assert!(run(&b.model, &[]).is_none());
        // Where the type is not known at all, the weights are given as float32.
        other.quantized(&options(Scheme::BF16_WEIGHTS));
        let emulated = run(&other.model, &[]).unwrap();
        assert_eq!(ops(&emulated), ["Cast", "MatMul"]);
        let types = emulated.values().filter_map(|value| emulated.constant(value));
        assert!(types.into_iter().all(|tensor| tensor.dtype() == DataType::FLOAT));
    }

    #[test]
    fn an_interface_of_16_bits_stays() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let w = b.weight("W", &[32, 32], &noise(1024, 1));
        let product = b.node("MatMul", &[x, w], &[]);
        let y = b.node("Relu", &[product], &[]);
        for value in [product, y] {
            b.output(value, float(&[4, 32]));
        }
        let io = crate::Interface::Fp16;
        let precision = PrecisionOptions { io, ..PrecisionOptions::default() };
        b.quantized(&crate::PlanOptions { precision, ..options(Scheme::FP16) });
        let emulated = run(&b.model, &[]).unwrap();
        assert_eq!(verify::interface(&b.model), verify::interface(&emulated));
        let last = ops(&emulated).into_iter().rev().take(2).collect::<Vec<_>>();
        assert_eq!(last, ["Cast", "Cast"]);
    }

    #[test]
    fn branches_are_computed_in_float32_too() {
        let mut b = Build::new(17);
        b.branches("Sigmoid");
        let model = half(&mut b);
        let emulated = run(&model, &[]).unwrap();
        let narrow = |ty: Option<DataType>| ty.is_some_and(|ty| precision_of(ty).is_some());
        for id in emulated.walk() {
            for &value in emulated.node(id).outputs().iter().flatten() {
                assert!(!narrow(emulated.value(value).elem()), "{}", emulated.label(id));
            }
        }
        // Both branches round.
        assert!(ops(&emulated).iter().filter(|op| *op == "Abs").count() >= 2);
    }
}
