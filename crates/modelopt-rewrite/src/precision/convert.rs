//! The rewrite: nodes of a region compute in 16 bits, and casts stand where it ends.
//!
//! ```text
//! x ─▶ Conv(W) ─▶ Relu ─▶ y
//!   =>
//! x ─▶ Cast ─▶ Conv(W, float16) ─▶ Relu ─▶ Cast ─▶ y
//! ```
//!
//! A value keeps its name where it can: inputs and outputs of the model always do. Constants are
//! rounded in place; one that is read in both types is stored twice if it is small, else cast. A
//! cast that would undo another one is not made: the value from before is read instead.

use std::collections::HashSet;
use std::sync::Arc;

use modelopt_graph::{
    Attribute, AttributeValue, Constant, DataType, DeclaredType, GraphId, Model, NewNode, NodeId,
    Operator, Origin, Place, Producer, Tensor, Type, Use, ValueId,
};

use super::form::{Slot, cast_target, is_float, narrowed};
use super::regions::Regions;
use crate::plan::Precision;

/// Constants below this size are stored twice rather than cast when they are read in both types.
const SMALL: usize = 4096;

/// In which type a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Wide,
    Narrow,
    Either,
}

/// A value that takes part, and how it is read.
struct Involved {
    value: ValueId,
    /// Whether what makes it makes 16 bits.
    native_narrow: bool,
    wide: Vec<Use>,
    narrow: Vec<Use>,
    /// The type that its name stands for, where that is not free.
    fixed: Option<Wants>,
}

/// Carries out a conversion. Returns the names of the constants that are stored in 16 bits now,
/// with the tensors they were.
pub(crate) fn convert(
    model: &mut Model,
    regions: &Regions,
    to: Precision,
    changes_io: bool,
) -> Vec<(String, Arc<Tensor>)> {
    let involved = involved(model, regions, changes_io);
    for (&id, form) in &regions.nodes {
        if let Some(name) = form.attribute {
            set_result_type(model, id, name, to);
        }
    }
    let mut editor = Editor { model, to, rounded: Vec::new() };
    for value in &involved {
        editor.settle(value);
    }
    let rounded = editor.rounded;
    drop_casts_to_the_same(model, to);
    redeclare(model, to);
    rounded
}

fn involved(model: &Model, regions: &Regions, changes_io: bool) -> Vec<Involved> {
    let mut narrow_inside: HashSet<ValueId> = HashSet::new();
    let mut entered: HashSet<Use> = HashSet::new();
    for (id, chain) in &regions.chains {
        narrow_inside.extend(chain.made());
        entered.extend(chain.enters.map(|input| Use::Node(*id, input as u32)));
        entered.extend(chain.leaves.iter().map(|&(g, at)| Use::Output(g, at as u32)));
    }
    let main = model.main();
    let wants = |at: Use| match at {
        _ if entered.contains(&at) => Wants::Narrow,
        Use::Output(graph, _) if graph == main && changes_io => Wants::Narrow,
        Use::Output(..) => Wants::Wide,
        Use::Node(id, index) => {
            let form = regions.nodes.get(&id).or_else(|| regions.followers.get(&id));
            match form.and_then(|form| form.inputs.get(index as usize)) {
                Some(Slot::Narrow) => Wants::Narrow,
                Some(Slot::Either) => Wants::Either,
                _ => Wants::Wide,
            }
        }
    };
    let mut all = Vec::new();
    for value in model.values() {
        let producer = model.value(value).producer();
        if !is_float(model, value) || producer == Producer::None {
            continue;
        }
        let native_narrow = narrow_inside.contains(&value)
            || match producer {
                Producer::Node(id, index) => regions
                    .nodes
                    .get(&id)
                    .is_some_and(|form| form.outputs.get(index as usize) == Some(&true)),
                Producer::Input(graph) => graph == main && changes_io,
                _ => false,
            };
        let uses = || model.value(value).uses().iter().copied();
        let narrow: Vec<Use> = uses().filter(|&at| wants(at) == Wants::Narrow).collect();
        let wide: Vec<Use> = uses().filter(|&at| wants(at) == Wants::Wide).collect();
        if !native_narrow && narrow.is_empty() {
            continue;
        }
        let returned = uses().any(|at| matches!(at, Use::Output(graph, _) if graph == main));
        let fixed = match producer {
            Producer::Input(_) => Some(if native_narrow { Wants::Narrow } else { Wants::Wide }),
            _ if returned => Some(if changes_io { Wants::Narrow } else { Wants::Wide }),
            _ => None,
        };
        all.push(Involved { value, native_narrow, wide, narrow, fixed });
    }
    all
}

/// Lets a node make 16 bits by the attribute that says what it makes.
fn set_result_type(model: &mut Model, id: NodeId, name: &str, to: Precision) {
    let version = model.opset(model.node(id).graph(), "").unwrap_or(1);
    let value: AttributeValue = match (name, model.node(id).attribute(name)) {
        ("value", Some(AttributeValue::Tensor(tensor))) => match tensor.rounded(to.dtype()) {
            Some(rounded) => rounded.into(),
            None => return,
        },
        ("value", _) => match Tensor::of(vec![1], &[0f32]).ok().and_then(|z| z.rounded(to.dtype()))
        {
            Some(zero) => zero.into(),
            None => return,
        },
        _ if version < 6 && name == "to" => "FLOAT16".into(),
        _ => i64::from(to.dtype().number()).into(),
    };
    let attributes = &mut model.node_mut(id).attributes;
    match attributes.iter_mut().find(|attribute| attribute.name == name) {
        Some(attribute) => *attribute = Attribute::new(name, value),
        None => attributes.push(Attribute::new(name, value)),
    }
}

struct Editor<'a> {
    model: &'a mut Model,
    to: Precision,
    rounded: Vec<(String, Arc<Tensor>)>,
}

impl Editor<'_> {
    /// Gives everything that reads a value the type it wants.
    fn settle(&mut self, involved: &Involved) {
        let &Involved { value, native_narrow, ref wide, ref narrow, fixed } = involved;
        if let Some(tensor) = self.own_constant(value) {
            self.settle_constant(involved, &tensor);
            return;
        }
        let name_is_narrow = match fixed {
            Some(wants) => wants == Wants::Narrow,
            None => native_narrow,
        };
        let others = if name_is_narrow { wide } else { narrow };
        if name_is_narrow == native_narrow {
            self.set_type(value, native_narrow);
            self.set_default(value, native_narrow);
            if !others.is_empty() {
                let other = self.other_form(value, native_narrow);
                self.redirect(others, other);
            }
            return;
        }
        // The name stands for the other type: what is made gets a name of its own.
        let Producer::Node(id, index) = self.model.value(value).producer() else { return };
        let made = self.new_value(value, native_narrow);
        self.set_type(made, native_narrow);
        self.model.set_output(id, index as usize, made);
        let natives = if native_narrow { narrow } else { wide };
        self.redirect(natives, made);
        self.set_type(value, name_is_narrow);
        self.cast(made, value, Place::After(id), name_is_narrow);
    }

    /// The constant that a value holds itself: of an initializer or a `Constant` node.
    fn own_constant(&self, value: ValueId) -> Option<Arc<Tensor>> {
        match self.model.value(value).producer() {
            Producer::Input(_) => None,
            _ => self.model.constant(value),
        }
    }

    fn settle_constant(&mut self, involved: &Involved, tensor: &Arc<Tensor>) {
        let &Involved { value, ref wide, ref narrow, fixed, .. } = involved;
        let Some(rounded) = tensor.rounded(self.to.dtype()).map(Arc::new) else { return };
        let Some(home) = self.model.home(value) else { return };
        if narrow.is_empty() {
            return;
        }
        let stays_wide = fixed == Some(Wants::Wide) || (fixed.is_none() && !wide.is_empty());
        let name = self.model.value(value).name().to_owned();
        if !stays_wide {
            self.rounded.push((name, tensor.clone()));
            self.put(value, rounded);
            self.set_type(value, true);
            if !wide.is_empty() {
                let copy = self.new_value(value, false);
                self.model.set_constant(home, copy, Constant::Dense(tensor.clone()));
                self.redirect(wide, copy);
            }
        } else if tensor.byte_len() < SMALL {
            let copy = self.new_value(value, true);
            self.model.set_constant(home, copy, Constant::Dense(rounded));
            self.set_type(copy, true);
            self.redirect(narrow, copy);
        } else {
            let other = self.other_form(value, false);
            self.redirect(narrow, other);
        }
    }

    /// Gives an initializer or a `Constant` node another tensor.
    fn put(&mut self, value: ValueId, tensor: Arc<Tensor>) {
        match self.model.value(value).producer() {
            Producer::Node(id, _) => {
                let value = AttributeValue::Tensor(tensor);
                self.model.node_mut(id).attributes = vec![Attribute::new("value", value)];
            }
            _ => self.model.replace_constant(value, tensor),
        }
    }

    /// Rounds the default of an input that is of 16 bits now.
    fn set_default(&mut self, value: ValueId, narrow: bool) {
        let Some(Constant::Dense(tensor)) = self.model.value(value).constant() else { return };
        if let (true, Some(rounded)) = (narrow, tensor.rounded(self.to.dtype())) {
            let name = self.model.value(value).name().to_owned();
            self.rounded.push((name, tensor.clone()));
            self.model.replace_constant(value, Arc::new(rounded));
        }
    }

    /// The value in the other type: the one it was cast from, or a new cast.
    fn other_form(&mut self, value: ValueId, is_narrow: bool) -> ValueId {
        let producer = self.model.value(value).producer();
        let mut source = value;
        if let (false, Producer::Node(id, 0)) = (is_narrow, producer)
            && self.model.node(id).op.is("Cast")
            && let Some(before) = self.model.node(id).input(0)
            && let Some(elem) = self.model.value(before).elem()
            && elem != DataType::STRING
        {
            if elem == self.to.dtype() {
                return before;
            }
            // One rounding, not two.
            source = before;
        }
        let place = match producer {
            Producer::Node(id, _) => Place::After(id),
            _ => Place::Front(self.model.home(value).unwrap_or(self.model.main())),
        };
        let other = self.new_value(value, !is_narrow);
        self.set_type(other, !is_narrow);
        self.cast(source, other, place, !is_narrow);
        other
    }

    fn cast(&mut self, from: ValueId, output: ValueId, place: Place, narrow: bool) {
        let graph = match place {
            Place::Front(graph) | Place::Back(graph) => graph,
            Place::Before(node) | Place::After(node) => self.model.node(node).graph(),
        };
        let version = self.model.opset(graph, "").unwrap_or(1);
        let dtype = if narrow { self.to.dtype() } else { DataType::FLOAT };
        let target: AttributeValue = if version < 6 {
            dtype.name().unwrap_or_default().to_uppercase().as_str().into()
        } else {
            i64::from(dtype.number()).into()
        };
        let name = self.model.value(output).name().to_owned();
        let name = self.model.fresh_name(&format!("{name}_cast"));
        self.model.insert(
            NewNode {
                name,
                op: Operator::onnx("Cast"),
                inputs: vec![Some(from)],
                outputs: vec![Some(output)],
                attributes: vec![Attribute::new("to", target)],
                origin: Origin::NONE,
            },
            place,
        );
    }

    fn new_value(&mut self, like: ValueId, narrow: bool) -> ValueId {
        let suffix = if narrow { self.to.name() } else { "fp32" };
        let name = format!("{}_{suffix}", self.model.value(like).name());
        let name = self.model.fresh_name(&name);
        let value = self.model.add_value(name);
        let ty = self.model.value(like).ty().cloned();
        self.model.set_type(value, ty);
        value
    }

    fn set_type(&mut self, value: ValueId, narrow: bool) {
        let Type::Tensor { shape, .. } = narrowed(self.model, value, self.to) else { return };
        let elem = if narrow { self.to.dtype() } else { DataType::FLOAT };
        self.model.set_type(value, Some(Type::Tensor { elem, shape }));
    }

    fn redirect(&mut self, uses: &[Use], to: ValueId) {
        for &at in uses {
            match at {
                Use::Node(node, index) => self.model.set_input(node, index as usize, Some(to)),
                Use::Output(graph, index) => self.model.set_graph_output(graph, index as usize, to),
            }
        }
    }
}

/// Casts that were in the model and do nothing any more.
fn drop_casts_to_the_same(model: &mut Model, to: Precision) {
    for id in model.walk() {
        let node = model.node(id);
        let version = model.opset(node.graph(), "").unwrap_or(1);
        if !node.op.is("Cast") || cast_target(node, version) != Some(to.dtype()) {
            continue;
        }
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { continue };
        if model.value(input).elem() == Some(to.dtype()) && !model.value(output).is_output() {
            model.replace_reads(output, input);
            model.remove(id);
        }
    }
}

/// Brings what the graphs declare in line with what became of their values.
fn redeclare(model: &mut Model, to: Precision) {
    for graph in model.live_graphs() {
        let changed: Vec<(Side, usize, DeclaredType)> = stale(model, graph, to);
        let graph = model.graph_mut(graph);
        for (side, index, ty) in changed {
            let list = match side {
                Side::Inputs => &mut graph.inputs,
                Side::Outputs => &mut graph.outputs,
                Side::Declared => &mut graph.declared,
            };
            list[index].ty = Some(ty);
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Inputs,
    Outputs,
    Declared,
}

fn stale(model: &Model, graph: GraphId, to: Precision) -> Vec<(Side, usize, DeclaredType)> {
    let graph = model.graph(graph);
    let lists = [
        (Side::Inputs, &graph.inputs),
        (Side::Outputs, &graph.outputs),
        (Side::Declared, &graph.declared),
    ];
    let mut found = Vec::new();
    for (side, list) in lists {
        for (index, info) in list.iter().enumerate() {
            let Some(DeclaredType { ty: Type::Tensor { elem, shape }, .. }) = &info.ty else {
                continue;
            };
            let now = model.value(info.value).elem();
            if *elem == DataType::FLOAT && now == Some(to.dtype()) {
                let ty = Type::Tensor { elem: to.dtype(), shape: shape.clone() };
                found.push((side, index, ty.into()));
            }
        }
    }
    found
}

/// Whether the model's float32 inputs and outputs could be converted.
pub(crate) fn has_float_interface(model: &Model) -> bool {
    let main = model.graph(model.main());
    main.inputs.iter().chain(&main.outputs).any(|info| is_float(model, info.value))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use modelopt_graph::{AttributeValue, Dim};

    use super::*;
    use crate::ExplainedPlan;
    use crate::testing::{Build, boolean, float, noise, options};
    use crate::{Plan, PlanOptions, PrecisionOptions, Scheme};

    fn half(b: &mut Build) -> ExplainedPlan {
        b.quantized(&options(Scheme::FP16))
    }

    /// Larger than any weight here: what stays float32 keeps its weights.
    const LARGE: usize = 1 << 20;

    fn half_but_large(b: &mut Build) -> ExplainedPlan {
        b.quantized(&PlanOptions { min_weight_bytes: LARGE, ..options(Scheme::FP16) })
    }

    fn with(precision: PrecisionOptions) -> PlanOptions {
        PlanOptions { precision, ..options(Scheme::FP16) }
    }

    fn elem(b: &Build, value: ValueId) -> DataType {
        b.model.value(value).elem().unwrap()
    }

    fn to(dtype: DataType) -> [(&'static str, AttributeValue); 1] {
        [("to", i64::from(dtype.number()).into())]
    }

    /// What each layer of the plan became.
    fn schemes(plan: &ExplainedPlan) -> Vec<(&str, Scheme)> {
        plan.lines().map(|(layer, why)| (why.op.as_str(), layer.scheme)).collect()
    }

    #[test]
    fn casts_stand_at_the_border_alone() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let w = b.weight("W", &[32, 32], &noise(1024, 1));
        let bias = b.weight("b", &[32], &noise(32, 2));
        let product = b.node("MatMul", &[x, w], &[]);
        let sum = b.node("Add", &[product, bias], &[]);
        let y = b.node("Relu", &[sum], &[]);
        b.output(y, float(&[4, 32]));
        half(&mut b);
        assert_eq!(b.ops(), ["Cast", "MatMul", "Add", "Relu", "Cast"]);
        assert_eq!([elem(&b, w), elem(&b, bias), elem(&b, product)], [DataType::FLOAT16; 3]);
        assert_eq!([elem(&b, x), elem(&b, y)], [DataType::FLOAT; 2]);
        assert_eq!(b.model.value(y).name(), "relu_out");
        let names = ["W", "b"].map(str::to_owned);
        let kept: Vec<String> = b
            .model
            .initializers_of(b.model.main())
            .iter()
            .map(|&value| b.model.value(value).name().to_owned())
            .collect();
        assert_eq!(kept, names);
    }

    #[test]
    fn converting_again_changes_nothing() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let w = b.weight("W", &[32, 32], &noise(1024, 1));
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, float(&[4, 32]));
        half(&mut b);
        let ops = b.ops();
        assert_eq!(half(&mut b).changed(), 0);
        assert_eq!(b.ops(), ops);
    }

    /// `x -> Relu -> Cast(fp16) -> Relu(fp16) -> Cast(float) -> MatMul`: the casts in between go.
    #[test]
    fn a_mixed_model_loses_the_casts_that_do_nothing_any_more() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let w = b.weight("W", &[32, 32], &noise(1024, 1));
        let wide = b.node("Relu", &[x], &[]);
        let down = b.node("Cast", &[wide], &to(DataType::FLOAT16));
        let narrow = b.node("Tanh", &[down], &[]);
        let up = b.node("Cast", &[narrow], &to(DataType::FLOAT));
        let y = b.node("MatMul", &[up, w], &[]);
        b.output(y, float(&[4, 32]));
        half(&mut b);
        assert_eq!(b.ops(), ["Cast", "Relu", "Tanh", "MatMul", "Cast"]);
    }

    #[test]
    fn inputs_and_outputs_are_converted_only_where_asked() {
        let build = || {
            let mut b = Build::new(17);
            let x = b.input("x", float(&[4, 32]));
            let y = b.node("Relu", &[x], &[]);
            let same = b.node("Transpose", &[x], &[]);
            b.output(y, float(&[4, 32]));
            b.output(same, float(&[32, 4]));
            (b, x, y, same)
        };
        let (mut b, x, _, same) = build();
        half(&mut b);
        assert_eq!(b.ops(), ["Cast", "Relu", "Cast", "Transpose"]);
        assert_eq!([elem(&b, x), elem(&b, same)], [DataType::FLOAT; 2]);
        let (mut b, x, y, same) = build();
        let io = crate::Interface::Fp16;
        b.quantized(&with(PrecisionOptions { io, ..Default::default() }));
        assert_eq!(b.ops(), ["Relu", "Transpose"]);
        assert_eq!([x, y, same].map(|value| elem(&b, value)), [DataType::FLOAT16; 3]);
        let declared = &b.model.graph(b.model.main()).inputs[0].ty.as_ref().unwrap().ty;
        assert_eq!(declared.elem(), Some(DataType::FLOAT16));
    }

    #[test]
    fn what_must_stay_float32_at_a_converted_interface_gets_casts() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let axis = b.model.add_value("axis");
        let zero = Tensor::scalar(0i64);
        b.model.set_constant(b.model.main(), axis, Constant::Dense(zero.into()));
        let y = b.node("CumSum", &[x, axis], &[]);
        b.output(y, float(&[4, 32]));
        let io = crate::Interface::Fp16;
        b.quantized(&with(PrecisionOptions { io, ..Default::default() }));
        assert_eq!(b.ops(), ["Cast", "CumSum", "Cast"]);
        assert_eq!([elem(&b, x), elem(&b, y)], [DataType::FLOAT16; 2]);
        assert_eq!(b.model.value(y).name(), "cumsum_out");
    }

    #[test]
    fn a_constant_in_both_types_is_stored_twice_or_cast() {
        for (size, casts) in [(8, 0), (2048, 1)] {
            let mut b = Build::new(17);
            let x = b.input("x", float(&[size]));
            let w = b.weight("W", &[size], &noise(size, 1));
            let y = b.node("Add", &[x, w], &[]);
            let z = b.node("Pow", &[x, w], &[]);
            b.output(y, float(&[size]));
            b.output(z, float(&[size]));
            half_but_large(&mut b);
            let wide = b.maker(z).input(1).unwrap();
            assert_eq!((wide, elem(&b, wide)), (w, DataType::FLOAT));
            let sum = b.ops().iter().position(|op| op == "Add").unwrap();
            let narrow = b.model.node(b.model.walk()[sum]).input(1).unwrap();
            assert_eq!(elem(&b, narrow), DataType::FLOAT16);
            assert_eq!(b.model.producer_node(narrow).is_some(), casts == 1);
        }
    }

    #[test]
    fn attributes_that_name_the_type_change_with_it() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 4]));
        let flags = b.input("flags", Type::tensor(DataType::BOOL));
        let size = b.model.add_value("size");
        let two = Tensor::of(vec![2], &[4i64, 4]).unwrap();
        b.model.set_constant(b.model.main(), size, Constant::Dense(two.into()));
        let fill = Tensor::of(vec![1], &[0.5f32]).unwrap();
        let filled = b.node("ConstantOfShape", &[size], &[("value", fill.into())]);
        let eye = b.node("EyeLike", &[x], &[]);
        let mask = b.node("Cast", &[flags], &to(DataType::FLOAT));
        let like = b.node("CastLike", &[flags, x], &[]);
        let mut y = x;
        for value in [filled, eye, mask, like] {
            y = b.node("Add", &[y, value], &[]);
        }
        b.output(y, float(&[4, 4]));
        half(&mut b);
        assert_eq!([filled, eye, mask, like].map(|v| elem(&b, v)), [DataType::FLOAT16; 4]);
        let number = i64::from(DataType::FLOAT16.number());
        assert_eq!([b.maker(eye).int("dtype", 0), b.maker(mask).int("to", 0)], [number; 2]);
        let Some(AttributeValue::Tensor(value)) = b.maker(filled).attribute("value") else {
            panic!("no value");
        };
        assert_eq!(value.to_f32().unwrap().as_ref(), [0.5]);
    }

    #[test]
    fn branches_return_what_they_compute() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let condition = b.input("c", boolean());
        let w = b.weight("W", &[32, 32], &noise(1024, 2));
        let (then_body, t) = b.body(|b, graph| {
            let t = b.named_node_in(graph, "MatMul", &[x, w], "t");
            (t, t)
        });
        // One branch returns what lies outside, as it is.
        let (else_body, ()) =
            b.body(|b, graph| (b.named_node_in(graph, "Identity", &[x], "e"), ()));
        let result = b.if_node(condition, then_body, else_body);
        let y = b.node("Relu", &[result], &[]);
        b.output(y, float(&[4, 32]));
        half(&mut b);
        assert_eq!([t, result].map(|value| elem(&b, value)), [DataType::FLOAT16; 2]);
        let returned = b.model.graph(else_body).outputs[0].value;
        assert_eq!(elem(&b, returned), DataType::FLOAT16);
        // x is cast once, outside, for both branches.
        assert_eq!(b.ops(), ["Cast", "If", "MatMul", "Identity", "Relu", "Cast"]);
    }

    /// A body that multiplies its state with a captured weight, `turns` times.
    fn looped(inside: &str) -> (Build, ValueId, GraphId) {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[32, 32]));
        let turns = b.input("turns", Type::Tensor { elem: DataType::INT64, shape: Some(vec![]) });
        let condition = b.input("c", boolean());
        let w = b.weight("W", &[32, 32], &noise(1024, 2));
        let body = b.model.add_graph(modelopt_graph::Owner::Model);
        let mut input = |name: &str, ty: Type| {
            let value = b.model.add_value(name);
            let ty = Some(ty.into());
            b.model.add_input(body, modelopt_graph::ValueInfo { value, ty, origin: Origin::NONE });
            value
        };
        input("turn", Type::Tensor { elem: DataType::INT64, shape: Some(vec![]) });
        let go_on = input("go_on", boolean());
        let state = input("state", float(&[32, 32]));
        let next = b.named_node_in(body, inside, &[state, w], "next");
        for (value, ty) in [(go_on, boolean()), (next, float(&[32, 32])), (next, float(&[32, 32]))]
        {
            let ty = Some(ty.into());
            b.model.add_output(body, modelopt_graph::ValueInfo { value, ty, origin: Origin::NONE });
        }
        let [last, all] = ["last", "all"].map(|name| b.model.add_value(name));
        b.model.insert(
            NewNode {
                name: "loop".into(),
                op: Operator::onnx("Loop"),
                inputs: vec![Some(turns), Some(condition), Some(x)],
                outputs: vec![Some(last), Some(all)],
                attributes: vec![Attribute::new("body", body)],
                origin: Origin::NONE,
            },
            Place::Back(b.model.main()),
        );
        b.output(last, float(&[32, 32]));
        let shape = Some(vec![Dim::Unknown, Dim::Fixed(32), Dim::Fixed(32)]);
        b.output(all, Type::Tensor { elem: DataType::FLOAT, shape });
        (b, state, body)
    }

    #[test]
    fn state_of_a_loop_is_cast_outside_of_it() {
        let (mut b, state, body) = looped("MatMul");
        let plan = half(&mut b);
        assert_eq!(schemes(&plan), [("Loop", Scheme::FP16), ("MatMul", Scheme::FP16)]);
        assert_eq!(b.ops(), ["Cast", "Loop", "MatMul", "Cast", "Cast"]);
        assert_eq!(elem(&b, state), DataType::FLOAT16);
        let graph = b.model.graph(body);
        let declared = |info: &modelopt_graph::ValueInfo| info.ty.as_ref().unwrap().ty.elem();
        assert_eq!(declared(&graph.inputs[2]), Some(DataType::FLOAT16));
        assert_eq!(declared(&graph.outputs[1]), Some(DataType::FLOAT16));
    }

    #[test]
    fn a_loop_that_computes_in_float32_keeps_its_state() {
        let (mut b, state, _) = looped("Pow");
        let plan = half_but_large(&mut b);
        assert_eq!(plan.changed(), 0, "{plan:?}");
        assert_eq!(elem(&b, state), DataType::FLOAT);
    }

    #[test]
    fn layers_that_lose_too_much_stay_and_say_why() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let mut huge = noise(1024, 1);
        huge[5] = 70_000.0;
        let w = b.weight("W", &[32, 32], &huge);
        let v = b.weight("V", &[32, 32], &noise(1024, 2));
        let first = b.node("MatMul", &[x, w], &[]);
        let second = b.node("MatMul", &[first, v], &[]);
        let third = b.node("MatMul", &[second, v], &[]);
        b.output(third, float(&[4, 32]));
        let unfit = HashMap::from([(second, "'second' reaches 1e5".to_owned())]);
        let options = with(PrecisionOptions { unfit, ..Default::default() });
        let plan = b.quantized(&PlanOptions { min_weight_bytes: LARGE, ..options });
        let reasons: Vec<&str> = plan.lines().map(|(_, why)| why.reason.as_str()).collect();
        assert_eq!(reasons[0], "'W' reaches 7.000e4, beyond the 6.550e4 of float16");
        assert_eq!(reasons[1..], ["'second' reaches 1e5"; 2]);
        assert_eq!(plan.changed(), 0);
        assert_eq!(b.ops(), ["MatMul", "MatMul", "MatMul"]);
    }

    /// Two layers read one weight: one computes in float16, one only stores it so.
    #[test]
    fn a_weight_that_is_computed_with_in_both_types_is_stored_once() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 64]));
        let w = b.weight("W", &[64, 64], &noise(4096, 1));
        let first = b.node("MatMul", &[x, w], &[]);
        let second = b.node("MatMul", &[first, w], &[]);
        b.output(second, float(&[4, 64]));
        modelopt_graph::infer::infer(&mut b.model);
        let mut plan = crate::plan(&b.model, &options(Scheme::FP16)).unwrap();
        plan.layers[1].scheme = Scheme::FP16_WEIGHTS;
        let plan = crate::plan_from(&b.model, &plan).unwrap();
        assert_eq!(plan.layers[1].scheme, Scheme::FP16_WEIGHTS);
        crate::apply(&mut b.model, &plan).unwrap();
        let [stored] = *b.model.initializers_of(b.model.main()) else { panic!("one initializer") };
        assert_eq!(elem(&b, stored), DataType::FLOAT16);
        let product = b.model.consumers(stored).find(|(id, _)| b.model.node(*id).op.is("MatMul"));
        assert!(product.is_some());
        assert_eq!(elem(&b, w), DataType::FLOAT);
    }

    #[test]
    fn a_plan_given_back_is_carried_out() {
        let (mut b, ..) = looped("MatMul");
        modelopt_graph::infer::infer(&mut b.model);
        let io = crate::Interface::Fp16;
        let first =
            crate::plan(&b.model, &with(PrecisionOptions { io, ..Default::default() })).unwrap();
        let again = crate::plan_from(&b.model, &Plan::from_toml(&first.to_toml()).unwrap());
        assert_eq!(*again.unwrap(), *first);
    }

    #[test]
    fn a_plan_that_asks_for_the_impossible_is_an_error() {
        let mut b = Build::new(12);
        let x = b.input("x", float(&[4, 32]));
        let y = b.node("Relu", &[x], &[]);
        b.output(y, float(&[4, 32]));
        modelopt_graph::infer::infer(&mut b.model);
        let mut plan = crate::plan(&b.model, &options(Scheme::FP16)).unwrap();
        plan.layers[0].scheme = Scheme::BF16;
        let error = crate::plan_from(&b.model, &plan).unwrap_err().to_string();
        assert!(error.contains("opset 12 has no bfloat16"), "{error}");
        plan.layers[0].scheme = Scheme::FP16_WEIGHTS;
        let error = crate::plan_from(&b.model, &plan).unwrap_err().to_string();
        assert!(error.contains("reads no weight"), "{error}");
    }

    /// One layer stores its weight as int8, one computes in float16.
    #[test]
    fn schemes_can_be_mixed() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[4, 32]));
        let [v, w] = [1, 2].map(|n| b.weight(&format!("W{n}"), &[32, 32], &noise(1024, n)));
        let first = b.node("MatMul", &[x, v], &[]);
        let second = b.node("MatMul", &[first, w], &[]);
        b.output(second, float(&[4, 32]));
        modelopt_graph::infer::infer(&mut b.model);
        let mut plan = crate::plan(&b.model, &options(Scheme::FP16)).unwrap();
        plan.layers[0].scheme = Scheme::INT8_WEIGHTS;
        let plan = crate::plan_from(&b.model, &plan).unwrap();
        crate::apply(&mut b.model, &plan).unwrap();
        assert_eq!(b.ops(), ["Cast", "Mul", "MatMul", "Cast", "MatMul", "Cast"]);
        assert_eq!(elem(&b, w), DataType::FLOAT16);
    }
}
