//! Operators that make a model random, and the same noise for two models.
//!
//! ```text
//! x ─▶ RandomNormalLike ─▶ n
//!   =>
//! x ─▶ Size ─▶ Range ─▶ … ─▶ Mul(scale) ─▶ Add(mean) ─▶ Reshape(Shape(x)) ─▶ n
//! ```
//!
//! A model that draws random numbers differs from itself, so it cannot be held against another.
//! [`Noise`] makes copies to be run instead, in which every such node computes numbers of the same
//! distribution from the places of its elements. The numbers are the same in every copy of the model
//! and of whatever was made of it, whatever runtime computes them; each node has a stream of its own.
//! The copies are for judging: what is emitted keeps its random operators.

mod nodes;
mod numbers;
mod stand_in;

use std::collections::HashMap;
use std::fmt;

use modelopt_graph::{AttributeValue, Model, Node, NodeId, Operator, ValueId, infer, schema};

use crate::prepare;

/// An operator that is random, or that behaves as in training.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RandomOperator {
    /// Operator and name, as people refer to the node.
    pub label: String,
    /// Operator.
    pub op: String,
    /// Name of its first output.
    pub output: String,
    /// What it does.
    pub kind: Randomness,
}

/// What makes an operator give other results than it was trained for, or than a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Randomness {
    /// It draws new random numbers in every run.
    Draws,
    /// It is a Dropout in training mode: it drops other elements in every run.
    Drops,
    /// It is a Dropout that is in training mode where this input says so.
    DropsWhen(String),
    /// It is a `BatchNormalization` in training mode: its results depend on what else is in the
    /// batch. They are the same in every run.
    ReadsBatch,
}

impl RandomOperator {
    /// Whether a second run gives other results.
    pub fn is_random(&self) -> bool {
        self.kind != Randomness::ReadsBatch
    }
}

impl fmt::Display for RandomOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)?;
        match &self.kind {
            Randomness::Draws => f.write_str(" draws random numbers"),
            Randomness::Drops => f.write_str(" is in training mode: it drops elements at random"),
            Randomness::DropsWhen(input) => {
                write!(
                    f,
                    " is in training mode where '{input}' is true: it drops elements at random"
                )
            }
            Randomness::ReadsBatch => f.write_str(
                " is in training mode: it normalizes by the batch at hand, not by what was learnt",
            ),
        }
    }
}

/// The operators of a model that are random or in training mode, in the main graph, nested graphs
/// and functions, in the order of the graphs.
pub fn random_operators(model: &Model) -> Vec<RandomOperator> {
    let found = nodes_of(model).into_iter().filter_map(|id| {
        let node = model.node(id);
        Some(RandomOperator {
            label: model.label(id),
            op: node.op.to_string(),
            output: output_name(model, id).to_owned(),
            kind: randomness(model, id)?,
        })
    });
    found.collect()
}

/// All nodes that may run, nested ones after those that hold them, those of functions last.
fn nodes_of(model: &Model) -> Vec<NodeId> {
    let mut nodes = model.walk();
    for function in &model.functions {
        nodes.extend(model.walk_graph(function.body));
    }
    nodes
}

fn output_name(model: &Model, id: NodeId) -> &str {
    model.node(id).outputs().iter().flatten().next().map_or("", |&v| model.value(v).name())
}

/// The operators of `com.microsoft` that drop elements, with the places of ratio and mode.
const DROPOUTS: &[(&str, usize)] =
    &[("BiasDropout", 3), ("BitmaskDropout", 1), ("BitmaskBiasDropout", 3)];

/// Where a Dropout's ratio stands; the mode comes next. None for other operators.
fn ratio_input(op: &Operator) -> Option<usize> {
    if op.is("Dropout") {
        return Some(1);
    }
    let known = DROPOUTS.iter().find(|(name, _)| op.domain == "com.microsoft" && op.name == *name);
    known.map(|&(_, at)| at)
}

fn randomness(model: &Model, id: NodeId) -> Option<Randomness> {
    let node = model.node(id);
    let version = model.opset(node.graph(), "").unwrap_or(1);
    if let Some(at) = ratio_input(&node.op) {
        return dropping(model, node, at, version);
    }
    if node.op.is("BatchNormalization") {
        let training = match version {
            ..7 => node.int("is_test", 0) == 0,
            7..14 => false,
            _ => node.int("training_mode", 0) != 0,
        };
        return training.then_some(Randomness::ReadsBatch);
    }
    if node.op.domain == "com.microsoft" {
        return (node.op.name == "Sampling").then_some(Randomness::Draws);
    }
    let schema = schema::lookup("", &node.op.name, version).filter(|_| node.op.is_onnx())?;
    schema.random.then_some(Randomness::Draws)
}

fn dropping(model: &Model, node: &Node, ratio: usize, version: i64) -> Option<Randomness> {
    if node.op.is("Dropout") && version < 12 {
        // Between opset 7 and 11 there is no training mode.
        let training = version < 7 && node.int("is_test", 0) == 0;
        return (training && node.float("ratio", 0.5) > 0.0).then_some(Randomness::Drops);
    }
    if node.input(ratio).and_then(|value| number(model, value)) == Some(0.0) {
        return None;
    }
    let mode = node.input(ratio + 1)?;
    match truth(model, mode) {
        Some(true) => Some(Randomness::Drops),
        Some(false) => None,
        None => Some(Randomness::DropsWhen(model.value(mode).name().to_owned())),
    }
}

/// The one number that a value always is. Of an input with a default, the default counts.
fn number(model: &Model, value: ValueId) -> Option<f32> {
    tensor(model, value)?.to_f32()?.first().copied()
}

fn truth(model: &Model, value: ValueId) -> Option<bool> {
    tensor(model, value)?.to_i64()?.first().map(|&x| x != 0)
}

fn tensor(model: &Model, value: ValueId) -> Option<std::sync::Arc<modelopt_graph::Tensor>> {
    let value = model.resolve(value);
    match model.value(value).constant() {
        Some(modelopt_graph::Constant::Dense(tensor)) => Some(tensor.clone()),
        _ => model.constant(value),
    }
}

/// The noise of a model: which of its nodes are random, and what each draws.
#[derive(Clone, Debug, Default)]
pub struct Noise {
    streams: Vec<Stream>,
}

/// The numbers of one node.
#[derive(Clone, Debug)]
struct Stream {
    /// Name of the node's first output.
    output: String,
    /// How many random nodes before it have that name, in other graphs.
    occurrence: usize,
    op: Operator,
}

impl Stream {
    /// Where the numbers start: the same for a name on every machine (FNV-1a, then a finalizer).
    fn seed(&self) -> u64 {
        let occurrence = self.occurrence.to_le_bytes();
        let bytes = self.output.bytes().chain(occurrence);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        numbers::mixed(hash)
    }
}

/// A copy of a model to be run.
#[derive(Clone, Debug)]
pub struct SameNoise {
    /// The copy.
    pub model: Model,
    /// How many of its nodes compute what they drew before.
    pub replaced: usize,
    /// The nodes that still are random, each with the reason.
    pub left: Vec<(String, String)>,
}

impl Noise {
    /// The noise of a model. Empty where nothing in it is random.
    pub fn of(model: &Model) -> Self {
        let model = inlined(model);
        let streams = random_nodes(&model).into_iter().map(|(_, stream)| stream);
        Noise { streams: streams.collect() }
    }

    /// Whether nothing is random.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// A copy of the model, or of one that was made from it, in which random nodes compute this
    /// noise. Nodes are known by the names of what they make, and, where rewriting changed those,
    /// by their order among nodes of the same operator.
    pub fn given_to(&self, model: &Model) -> SameNoise {
        let mut model = inlined(model);
        infer::infer(&mut model);
        let mut made = SameNoise { model, replaced: 0, left: Vec::new() };
        let random = random_nodes(&made.model);
        let own: Vec<&Stream> = random.iter().map(|(_, stream)| stream).collect();
        let matched = self.matched(&own);
        for ((id, _), stream) in random.iter().zip(matched) {
            let label = made.model.label(*id);
            match stand_in::replace(&mut made.model, *id, stream.seed()) {
                Ok(()) => made.replaced += 1,
                Err(why) => made.left.push((label, why.to_owned())),
            }
        }
        made
    }

    /// The stream for each node of another model; its own where there is nothing like it here.
    fn matched<'a>(&'a self, others: &[&'a Stream]) -> Vec<&'a Stream> {
        let mut free: Vec<Option<&Stream>> = self.streams.iter().map(Some).collect();
        let mut take = |fits: &dyn Fn(&Stream) -> bool| {
            free.iter_mut().find(|slot| slot.is_some_and(fits)).and_then(Option::take)
        };
        let by_name = |other: &Stream| {
            let other = other.clone();
            move |own: &Stream| own.output == other.output && own.occurrence == other.occurrence
        };
        let named: Vec<Option<&Stream>> =
            others.iter().map(|other| take(&by_name(other))).collect();
        named
            .into_iter()
            .zip(others)
            .map(|(found, other)| {
                found.or_else(|| take(&|own| own.op == other.op)).unwrap_or(other)
            })
            .collect()
    }
}

/// The model with its functions put in place of their calls where one of them is random: calls are
/// told apart then, and functions are what preparation makes of them.
fn inlined(model: &Model) -> Model {
    let mut model = model.clone();
    let in_function = |model: &Model| {
        let mut bodies = model.functions.iter().map(|function| function.body);
        bodies.any(|body| model.walk_graph(body).iter().any(|&id| is_random(model, id)))
    };
    if in_function(&model) {
        // The engine's checks can fail only by a defect; the calls stay then.
        let before = model.clone();
        if let Err(broken) = prepare::inline_functions(&mut model) {
            tracing::warn!(%broken);
            model = before;
        }
    }
    model
}

fn is_random(model: &Model, id: NodeId) -> bool {
    randomness(model, id).is_some_and(|kind| kind != Randomness::ReadsBatch)
}

fn random_nodes(model: &Model) -> Vec<(NodeId, Stream)> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let random = nodes_of(model).into_iter().filter(|&id| is_random(model, id));
    random
        .map(|id| {
            let output = output_name(model, id).to_owned();
            let count = seen.entry(output.clone()).or_default();
            let occurrence = *count;
            *count += 1;
            (id, Stream { output, occurrence, op: model.node(id).op.clone() })
        })
        .collect()
}

/// Whether what an attribute says is known: inside a function it may be up to the caller.
fn refers_to_caller(node: &Node) -> bool {
    node.attributes.iter().any(|a| matches!(a.value, AttributeValue::Reference(_)))
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{DataType, Dim, Type, verify};

    use super::*;
    use crate::testing::{Build, boolean, float};

    fn open() -> Type {
        let shape = Some(vec![Dim::Symbol("n".into()), Dim::Fixed(4)]);
        Type::Tensor { elem: DataType::FLOAT, shape }
    }

    /// `y = x + RandomNormalLike(x)`, twice.
    fn noisy(opset: i64) -> Build {
        let mut b = Build::new(opset);
        let x = b.input("x", open());
        let first = b.node("RandomNormalLike", &[x], &[]);
        let y = b.node("Add", &[x, first], &[]);
        let second = b.node("RandomNormalLike", &[y], &[]);
        let z = b.node("Add", &[y, second], &[]);
        b.output(z, open());
        b
    }

    fn ops(model: &Model) -> Vec<&str> {
        model.walk().into_iter().map(|id| model.node(id).op.name.as_str()).collect()
    }

    #[test]
    fn only_random_nodes_are_replaced_and_their_values_keep_their_names() {
        let b = noisy(17);
        let same = Noise::of(&b.model).given_to(&b.model);
        assert_eq!((same.replaced, same.left.len()), (2, 0));
        verify::check(&same.model).unwrap();
        assert_eq!(verify::interface(&same.model), verify::interface(&b.model));
        assert!(random_operators(&same.model).is_empty());
        let adds = same.model.walk().into_iter().filter(|&id| {
            let node = same.model.node(id);
            node.op.is("Add") && node.name.starts_with("add_out")
        });
        let read: Vec<&str> =
            adds.map(|id| same.model.value(same.model.node(id).input(1).unwrap()).name()).collect();
        assert_eq!(read, ["randomnormallike_out", "randomnormallike_out_1"]);
        assert_eq!(ops(&b.model).len(), 4, "the model itself is left alone");
    }

    #[test]
    fn streams_differ_and_stay_with_their_nodes() {
        let b = noisy(17);
        let noise = Noise::of(&b.model);
        let seeds: Vec<u64> = noise.streams.iter().map(Stream::seed).collect();
        assert_ne!(seeds[0], seeds[1]);
        // What was renamed is known by its place among nodes of its operator.
        let renamed = |output: &str| Stream {
            output: output.into(),
            occurrence: 0,
            op: Operator::onnx("RandomNormalLike"),
        };
        let others = [renamed("other"), renamed("randomnormallike_out_1")];
        let matched = noise.matched(&others.iter().collect::<Vec<_>>());
        assert_eq!(matched.iter().map(|stream| stream.seed()).collect::<Vec<_>>(), seeds);
        let unknown = Stream { op: Operator::onnx("Bernoulli"), ..renamed("other") };
        assert_eq!(noise.matched(&[&unknown])[0].output, "other");
    }

    #[test]
    fn one_name_in_two_branches_is_two_streams() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 4]));
        let condition = b.input("c", boolean());
        let branch = |b: &mut Build| {
            b.body(|b, graph| (b.named_node_in(graph, "RandomNormalLike", &[x], "drawn"), ())).0
        };
        let (then, other) = (branch(&mut b), branch(&mut b));
        let y = b.if_node(condition, then, other);
        b.output(y, float(&[2, 4]));
        let noise = Noise::of(&b.model);
        assert_eq!(noise.streams.len(), 2);
        assert_ne!(noise.streams[0].seed(), noise.streams[1].seed());
        let same = noise.given_to(&b.model);
        assert_eq!(same.replaced, 2);
        verify::check(&same.model).unwrap();
    }

    #[test]
    fn what_cannot_be_replaced_stays_with_the_reason() {
        let old = noisy(6);
        let same = Noise::of(&old.model).given_to(&old.model);
        assert_eq!((same.replaced, same.left.len()), (0, 2));
        assert!(same.left[0].1.contains("opset 7"), "{:?}", same.left);
        let open = noisy(8);
        let same = Noise::of(&open.model).given_to(&open.model);
        assert!(same.left[0].1.contains("shape is fixed"), "{:?}", same.left);
        let mut fixed = Build::new(8);
        let x = fixed.input("x", float(&[2, 4]));
        let y = fixed.node("RandomUniformLike", &[x], &[]);
        fixed.output(y, float(&[2, 4]));
        assert_eq!(Noise::of(&fixed.model).given_to(&fixed.model).replaced, 1);
    }

    #[test]
    fn old_dropouts_train_unless_they_are_told_not_to() {
        let found = |opset: i64, test: i64| {
            let mut b = Build::new(opset);
            let x = b.input("x", float(&[2, 4]));
            let y = b.node("Dropout", &[x], &[("is_test", test.into())]);
            b.output(y, float(&[2, 4]));
            random_operators(&b.model).len()
        };
        assert_eq!([found(6, 0), found(6, 1), found(7, 0)], [1, 0, 0]);
    }
}
