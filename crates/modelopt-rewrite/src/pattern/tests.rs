//! What patterns find, and what they must not find.

use modelopt_graph::{Constant, ValueId};

use super::*;
use crate::engine::Declined;
use crate::testing::{Build, boolean, float};

/// A model of `x: float[2, 4]` whose last node makes `y`.
struct Planted {
    b: Build,
    x: ValueId,
}

impl Planted {
    fn new() -> Self {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 4]));
        Planted { b, x }
    }

    fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.b.node(op, inputs, &[])
    }

    fn number(&mut self, number: f32) -> ValueId {
        let name = self.b.model.fresh_name("c");
        self.b.weight(&name, &[], &[number])
    }

    /// Matches the node that makes `value`.
    fn find(&self, pattern: &Expr, value: ValueId) -> Result<Match, Declined> {
        pattern.find(&self.b.model, self.b.model.producer_node(value).unwrap())
    }

    fn output(&mut self, value: ValueId) {
        self.b.output(value, float(&[2, 4]));
    }
}

#[test]
fn operators_that_commute_match_in_either_order() {
    let mut p = Planted::new();
    let two = p.number(2.0);
    let [straight, swapped] = [[p.x, two], [two, p.x]].map(|inputs| p.op("Mul", &inputs));
    let [minus, reversed] = [[p.x, two], [two, p.x]].map(|inputs| p.op("Sub", &inputs));
    let product = any("x") * 2.0;
    for value in [straight, swapped] {
        assert_eq!(p.find(&product, value).unwrap().value("x"), Some(p.x));
    }
    let difference = any("x") - scalar("c");
    assert!(p.find(&difference, minus).is_ok());
    // `2 - x` has the constant where the pattern has any value.
    assert_eq!(p.find(&difference, reversed).unwrap_err(), Declined::NoMatch);
}

#[test]
fn a_wrong_first_choice_is_taken_back() {
    let mut p = Planted::new();
    let negative = p.op("Neg", &[p.x]);
    let positive = p.op("Abs", &[p.x]);
    // Only with the sum's operands swapped does the product find its Abs.
    let sum = p.op("Add", &[positive, negative]);
    let y = p.op("Mul", &[negative, sum]);
    let (a, b) = (any("a"), any("b"));
    let pattern = a.clone() * (a + op("Abs", [b]));
    let found = p.find(&pattern, y).unwrap();
    assert_eq!((found.value("a"), found.value("b")), (Some(negative), Some(p.x)));
    assert_eq!(found.nodes().len(), 3);
}

#[test]
fn one_name_is_one_value_or_equal_constants() {
    let mut p = Planted::new();
    let other = p.op("Neg", &[p.x]);
    let (same, different) = (p.op("Mul", &[p.x, p.x]), p.op("Mul", &[p.x, other]));
    let square = any("x") * any("x");
    assert!(p.find(&square, same).is_ok());
    assert_eq!(p.find(&square, different).unwrap_err(), Declined::NoMatch);
    let [half, half_again, third] = [0.5, 0.5, 0.3].map(|number| p.number(number));
    let twice = (any("x") * scalar("k")) * scalar("k");
    let inner = p.op("Mul", &[p.x, half]);
    let y = p.op("Mul", &[inner, half_again]);
    assert!(p.find(&twice, y).is_ok());
    let inner = p.op("Mul", &[p.x, half]);
    let y = p.op("Mul", &[inner, third]);
    assert_eq!(p.find(&twice, y).unwrap_err(), Declined::NoMatch);
}

#[test]
fn numbers_match_within_what_their_type_resolves() {
    let mut p = Planted::new();
    let root = std::f64::consts::SQRT_2;
    let scaled = any("x") / root;
    // One unit in the last place off, and written with five digits.
    let exact = std::f32::consts::SQRT_2;
    let five_digits = 1.0 + 4.142e-1;
    for (number, fits) in [(exact, true), (exact.next_up(), true), (five_digits, false)] {
        let c = p.number(number);
        let y = p.op("Div", &[p.x, c]);
        assert_eq!(p.find(&scaled, y).is_ok(), fits, "{number}");
        assert!(p.find(&(any("x") / number_near(root)), y).is_ok());
    }
    let half = half::f16::from_f64(root);
    let c = p.b.model.add_value("half");
    let tensor = modelopt_graph::Tensor::scalar(half);
    p.b.model.set_constant(p.b.model.main(), c, Constant::Dense(tensor.into()));
    let y = p.op("Div", &[p.x, c]);
    assert!(p.find(&scaled, y).is_ok());
}

fn number_near(value: f64) -> Expr {
    number(value, 1e-4)
}

#[test]
fn a_number_is_a_constant_of_one_element_of_any_type() {
    let mut p = Planted::new();
    let pattern = op("Pow", [any("x"), 2.0.into()]);
    let two = p.b.model.add_value("two");
    let tensor = modelopt_graph::Tensor::of(vec![1], &[2i64]).unwrap();
    p.b.model.set_constant(p.b.model.main(), two, Constant::Dense(tensor.into()));
    let y = p.op("Pow", &[p.x, two]);
    assert!(p.find(&pattern, y).is_ok());
    let twos = p.b.weight("twos", &[2], &[2.0, 2.0]);
    let computed = p.op("Neg", &[p.x]);
    for exponent in [twos, computed] {
        let y = p.op("Pow", &[p.x, exponent]);
        assert_eq!(p.find(&pattern, y).unwrap_err(), Declined::NoMatch);
    }
}

#[test]
fn numbers_that_add_dimensions_are_told() {
    let mut p = Planted::new();
    modelopt_graph::infer::infer(&mut p.b.model);
    for (shape, keeps) in [(&[][..], true), (&[1, 1], true), (&[1, 1, 1], false)] {
        let name = p.b.model.fresh_name("wide");
        let c = p.b.weight(&name, shape, &[3.0]);
        let y = p.op("Add", &[p.x, c]);
        let found = p.find(&(any("x") + 3.0), y).unwrap();
        assert_eq!(found.keeps_rank_of(&p.b.model, "x").is_ok(), keeps, "{shape:?}");
    }
}

#[test]
fn inputs_may_be_left_out_only_where_the_pattern_says_so() {
    let mut p = Planted::new();
    let w = p.b.weight("W", &[4, 4], &[1.0; 16]);
    let bias = p.b.weight("b", &[4], &[1.0; 4]);
    let (without, with) = (p.op("Gemm", &[p.x, w]), p.op("Gemm", &[p.x, w, bias]));
    let either_way = op("Gemm", [any("x"), constant("W"), optional(constant("b"))]);
    assert_eq!(p.find(&either_way, with).unwrap().value("b"), Some(bias));
    assert_eq!(p.find(&either_way, without).unwrap().value("b"), None);
    let bare = op("Gemm", [any("x"), constant("W")]);
    assert!(p.find(&bare, without).is_ok());
    assert_eq!(p.find(&bare, with).unwrap_err(), Declined::NoMatch);
    let full = op("Gemm", [any("x"), constant("W"), constant("b")]);
    assert_eq!(p.find(&full, without).unwrap_err(), Declined::NoMatch);
}

#[test]
fn attributes_and_operators_are_looked_at() {
    let mut p = Planted::new();
    let attributes = [("alpha", (1f32 / 6.0).into())];
    let sixth = p.b.node("HardSigmoid", &[p.x], &attributes);
    let default = p.op("HardSigmoid", &[p.x]);
    let pattern = op("HardSigmoid", [any("x")]).float("alpha", 0.2, 1.0 / 6.0).named("gate");
    let gate = p.find(&pattern, sixth).unwrap().node("gate");
    assert_eq!(gate, p.b.model.producer_node(sixth));
    assert_eq!(p.find(&pattern, default).unwrap_err(), Declined::NoMatch);
    let axis = op("Softmax", [any("x")]).int("axis", -1, -1);
    let [last, first] = [-1i64, 0].map(|a| p.b.node("Softmax", &[p.x], &[("axis", a.into())]));
    assert!(p.find(&axis, last).is_ok() && p.find(&axis, first).is_err());
    let inputs = op("Softmax", [any("x")]).when(|node| node.attributes.is_empty());
    assert!(p.find(&inputs, last).is_err());
    // The same name in another domain is another operator.
    let foreign = p.op("Softmax", &[p.x]);
    let id = p.b.model.producer_node(foreign).unwrap();
    p.b.model.node_mut(id).op.domain = "local".into();
    assert_eq!(p.find(&axis, foreign).unwrap_err(), Declined::NoMatch);
}

#[test]
fn spellings_and_products_match_in_every_order() {
    let pattern = product(any("x"), 0.5, op("Tanh", [any("x")]));
    for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
        let mut p = Planted::new();
        let factors = [p.x, p.number(0.5), p.op("Tanh", &[p.x])];
        let inner = p.op("Mul", &[factors[order[0]], factors[order[1]]]);
        let y = p.op("Mul", &[factors[order[2]], inner]);
        assert!(p.find(&pattern, y).is_ok(), "{order:?}");
    }
    let mut p = Planted::new();
    let [half, two] = [0.5, 2.0].map(|number| p.number(number));
    let (times, over) = (p.op("Mul", &[half, p.x]), p.op("Div", &[p.x, two]));
    let halved = scaled(&any("x"), 0.5);
    assert!(p.find(&halved, times).is_ok() && p.find(&halved, over).is_ok());
    let under = p.op("Div", &[two, p.x]);
    assert_eq!(p.find(&halved, under).unwrap_err(), Declined::NoMatch);
}

/// `Tanh(x) + 1`, and the Tanh's result.
fn inner_value(p: &mut Planted) -> (Expr, ValueId, ValueId) {
    let tanh = p.op("Tanh", &[p.x]);
    let one = p.number(1.0);
    let y = p.op("Add", &[tanh, one]);
    (1.0 + op("Tanh", [any("x")]), tanh, y)
}

#[test]
fn inner_values_have_no_other_readers_and_are_no_outputs() {
    let mut p = Planted::new();
    let (pattern, tanh, y) = inner_value(&mut p);
    p.output(y);
    assert_eq!(p.find(&pattern, y).unwrap().nodes().len(), 2);
    let reader = p.op("Neg", &[tanh]);
    let declined = Declined::Unsafe("something else reads a value in between");
    assert_eq!(p.find(&pattern, y).unwrap_err(), declined);
    p.b.model.remove(p.b.model.producer_node(reader).unwrap());
    assert!(p.find(&pattern, y).is_ok());
    p.output(tanh);
    let declined = Declined::Unsafe("a value in between is a graph output");
    assert_eq!(p.find(&pattern, y).unwrap_err(), declined);
}

#[test]
fn a_reader_in_a_branch_is_a_reader() {
    let mut p = Planted::new();
    let (pattern, tanh, y) = inner_value(&mut p);
    p.output(y);
    let condition = p.b.input("condition", boolean());
    let branches =
        ["a", "b"].map(|name| p.b.body(|b, g| (b.named_node_in(g, "Neg", &[tanh], name), ())).0);
    let z = p.b.if_node(condition, branches[0], branches[1]);
    p.output(z);
    assert!(matches!(p.find(&pattern, y), Err(Declined::Unsafe(_))));
}

#[test]
fn branches_may_capture_outer_values_but_not_outer_nodes() {
    let mut p = Planted::new();
    let (x, one) = (p.x, p.number(1.0));
    let outer = p.op("Tanh", &[x]);
    let condition = p.b.input("condition", boolean());
    let (then, whole) = p.b.body(|b, graph| {
        let tanh = b.named_node_in(graph, "Tanh", &[x], "inner_tanh");
        let y = b.named_node_in(graph, "Add", &[tanh, one], "whole");
        (y, y)
    });
    let (other, torn) = p.b.body(|b, graph| {
        let y = b.named_node_in(graph, "Add", &[outer, one], "torn");
        (y, y)
    });
    let z = p.b.if_node(condition, then, other);
    p.output(z);
    let pattern = 1.0 + op("Tanh", [any("x")]);
    let found = p.find(&pattern, whole).unwrap();
    assert_eq!((found.value("x"), found.nodes().len()), (Some(x), 2));
    let declined = Declined::Unsafe("a part of it stands in another graph");
    assert_eq!(p.find(&pattern, torn).unwrap_err(), declined);
}

#[test]
fn what_is_captured_is_never_made_inside() {
    let mut p = Planted::new();
    let tanh = p.op("Tanh", &[p.x]);
    let y = p.op("Mul", &[tanh, tanh]);
    let pattern = op("Tanh", [any("x")]) * any("other");
    let declined = Declined::Unsafe("what it reads is a value in between");
    assert_eq!(p.find(&pattern, y).unwrap_err(), declined);
}

#[test]
fn only_the_first_output_counts_and_others_must_be_unread() {
    let mut p = Planted::new();
    let [norm, mean] = ["norm", "mean"].map(|name| p.b.model.add_value(name));
    let node = modelopt_graph::NewNode {
        name: String::new(),
        op: modelopt_graph::Operator::onnx("LayerNormalization"),
        inputs: vec![Some(p.x), Some(p.x)],
        outputs: vec![Some(norm), Some(mean)],
        attributes: Vec::new(),
        origin: modelopt_graph::Origin::NONE,
    };
    let main = p.b.model.main();
    p.b.model.insert(node, modelopt_graph::Place::Back(main));
    let pattern = op("Neg", [op("LayerNormalization", [any("x"), any("scale")])]);
    let (of_norm, of_mean) = (p.op("Neg", &[norm]), p.op("Neg", &[mean]));
    assert_eq!(p.find(&pattern, of_mean).unwrap_err(), Declined::NoMatch);
    assert!(matches!(p.find(&pattern, of_norm), Err(Declined::Unsafe(_))));
}

#[test]
fn a_pattern_that_explodes_gives_up() {
    let mut p = Planted::new();
    let mut value = p.x;
    let mut pattern = any("deep");
    for _ in 0..40 {
        value = p.op("Mul", &[value, value]);
        pattern = pattern.clone() * pattern;
    }
    let other = p.op("Neg", &[p.x]);
    let y = p.op("Mul", &[value, other]);
    let begun = std::time::Instant::now();
    assert_eq!(p.find(&(pattern * op("Abs", [any("z")])), y).unwrap_err(), Declined::NoMatch);
    assert!(begun.elapsed().as_secs() < 5);
}
