//! What all observers are held to.

use std::sync::Arc;

use modelopt_graph::{
    Attribute, AttributeValue, Constant, DataType, Dim, GraphId, Model, ModelInfo, NewNode,
    Operator, OpsetImport, Origin, Owner, Place, Tensor, Type, ValueId, ValueInfo,
};

use crate::observer::{AnyObserver, Observer, View};
use crate::registry::OBSERVERS;

pub(crate) fn tensor(shape: &[usize], numbers: &[f32]) -> Tensor {
    Tensor::of(shape.to_vec(), numbers).unwrap()
}

/// Numbers of many sizes, among them zeros and some that are not finite: a fixed sequence.
pub(crate) fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let one = |bits: u32| match bits % 61 {
        0 => 0.0,
        1 => -0.0,
        2 => f32::INFINITY,
        3 => f32::from_bits(bits & 0xff),
        _ => (f64::from(bits as i32) * 2f64.powi((bits % 97) as i32 - 70)) as f32,
    };
    (0..count).map(|_| one(next())).collect()
}

/// What is saved as a file and read back by the registry is the same.
pub(crate) fn is_lossless<O: Observer>(observer: &O) {
    assert!(observer.is_sound(), "{observer:?}");
    let text = toml::to_string(&AnyObserver::save(observer).unwrap()).unwrap();
    let kind = OBSERVERS.iter().find(|kind| kind.name() == O::KIND).unwrap();
    let read = kind.read(toml::from_str(&text).unwrap()).unwrap();
    assert_eq!(read.as_any().downcast_ref::<O>(), Some(observer), "{text}");
    assert_eq!(read.key(), observer.key());
}

/// Merging is associative and commutative, and equals the single pass; `shape` is that of samples.
pub(crate) fn is_order_independent<O: Observer>(empty: &O, shape: &[usize]) {
    let samples: Vec<Tensor> =
        (1..=12).map(|seed| tensor(shape, &numbers(shape.iter().product(), seed))).collect();
    let pass = |places: &mut dyn Iterator<Item = usize>| {
        let mut observer = empty.clone();
        places.for_each(|at| Observer::see(&mut observer, &View::new(&samples[at], at as u64)));
        observer
    };
    let merged = |parts: &[&O]| {
        let mut sum = empty.clone();
        for part in parts {
            Observer::merge(&mut sum, part);
        }
        sum
    };
    let whole = pass(&mut (0..12));
    assert_eq!(whole, pass(&mut (0..12).rev()), "backwards");
    let [a, b, c] = [0, 1, 2].map(|first| pass(&mut (first..12).step_by(3)));
    let orders =
        [[&a, &b, &c], [&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]];
    for order in orders {
        assert_eq!(merged(&order), whole, "one by one");
        let [x, y, z] = order;
        assert_eq!(merged(&[x, &merged(&[y, z])]), whole, "in pairs");
    }
    is_lossless(empty);
    is_lossless(&whole);
    is_lossless(&a);
}

/// `x [1, 2] -> y = x * w -> z = Relu(y)`, a branch that makes `inner`, and `nowhere`, which nothing
/// makes.
pub(crate) fn model() -> Model {
    let import = OpsetImport { domain: String::new(), version: 17, origin: Origin::NONE };
    let info = ModelInfo { ir_version: 8, opsets: vec![import], ..ModelInfo::default() };
    let mut model = Model::new(info);
    let main = model.main();
    let [x, w, y, z] = ["x", "w", "y", "z"].map(|name| model.add_value(name));
    let ty = || {
        let shape = Some(vec![Dim::Fixed(1), Dim::Fixed(2)]);
        Type::Tensor { elem: DataType::FLOAT, shape }
    };
    let declared = |value| ValueInfo { value, ty: Some(ty().into()), origin: Origin::NONE };
    model.add_input(main, declared(x));
    let weight = Constant::Dense(Arc::new(tensor(&[1, 2], &[1.0, 2.0])));
    model.set_constant(main, w, weight);
    let place = Place::Back(main);
    insert(&mut model, "Mul", &[x, w], y, Vec::new(), place);
    insert(&mut model, "Relu", &[y], z, Vec::new(), place);
    model.add_output(main, declared(z));
    let branch = branch(&mut model, y);
    let [condition, chosen] = ["condition", "chosen"].map(|name| model.add_value(name));
    model.add_input(main, ValueInfo { value: condition, ty: None, origin: Origin::NONE });
    let branches = ["then_branch", "else_branch"]
        .map(|name| Attribute::new(name, AttributeValue::from(branch)))
        .to_vec();
    insert(&mut model, "If", &[condition], chosen, branches, place);
    model.add_value("nowhere");
    model
}

fn branch(model: &mut Model, y: ValueId) -> GraphId {
    let branch = model.add_graph(Owner::Model);
    let inner = model.add_value("inner");
    insert(model, "Relu", &[y], inner, Vec::new(), Place::Back(branch));
    model.add_output(branch, ValueInfo { value: inner, ty: None, origin: Origin::NONE });
    branch
}

fn insert(
    model: &mut Model,
    op: &str,
    inputs: &[ValueId],
    output: ValueId,
    attributes: Vec<Attribute>,
    place: Place,
) {
    let node = NewNode {
        name: String::new(),
        op: Operator::onnx(op),
        inputs: inputs.iter().copied().map(Some).collect(),
        outputs: vec![Some(output)],
        attributes,
        origin: Origin::NONE,
    };
    model.insert(node, place);
}
