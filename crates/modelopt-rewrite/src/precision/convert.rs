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

use std::collections::HashMap;
use std::sync::Arc;

use modelopt_graph::{
    Attribute, AttributeValue, Constant, DataType, DeclaredType, GraphId, Model, NewNode, NodeId,
    Operator, Origin, Place, Producer, Tensor, Type, Use, ValueId,
};

use super::form::{cast_target, is_float, narrowed};
use super::regions::{Regions, is_model_input};
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
    let mut narrow_inside: HashMap<ValueId, ()> = HashMap::new();
    let mut entered: HashMap<Use, ()> = HashMap::new();
    for (id, chain) in &regions.chains {
        narrow_inside.extend(chain.inside.into_iter().chain(chain.outside).map(|v| (v, ())));
        entered.extend(chain.enters.map(|input| (Use::Node(*id, input as u32), ())));
        entered.extend(chain.leaves.iter().map(|&(g, at)| (Use::Output(g, at as u32), ())));
    }
    let main = model.main();
    let wants = |at: Use| match at {
        _ if entered.contains_key(&at) => Wants::Narrow,
        Use::Output(graph, _) if graph == main && changes_io => Wants::Narrow,
        Use::Output(..) => Wants::Wide,
        Use::Node(id, index) => {
            use super::form::Slot;
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
        let native_narrow = narrow_inside.contains_key(&value)
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
        let returned =
            uses().any(|at| matches!(at, Use::Output(graph, _) if graph == main));
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
    main.outputs.iter().any(|info| is_float(model, info.value))
        || main.inputs.iter().any(|i| is_model_input(model, i.value) && is_float(model, i.value))
}
