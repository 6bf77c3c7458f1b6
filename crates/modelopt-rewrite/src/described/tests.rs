//! Planted models whose regions end for one reason each.

use modelopt_graph::{Model, ValueId, infer};

use super::*;
use crate::integer::IntegerCosts;
use crate::policy::{ObservedTensor, PlanOptions};
use crate::select::Pattern;
use crate::testing::{Build, boolean, float, noise, options};
use crate::{Scheme, plan, plan_from};

/// A target with a few integer kernels of which the costs are known.
const TARGET: Capabilities = Capabilities {
    runtime: Some("planted"),
    static_operators: &["Conv", "MatMul", "Add", "Concat", "Sigmoid", "MaxPool", "Relu", "Mul"],
    static_costs: Some(&COSTS),
    ..Capabilities::ANYWHERE
};

const COSTS: IntegerCosts = IntegerCosts {
    multiply: [4.0, 1.0],
    narrow: 1.0,
    tap: 0.0,
    thin_tap: 0.0,
    made: 0.0,
    depthwise: [(1.0, 1.0), (1.0, 1.0)],
    border: [1.0, 1.0],
    reorder: 0.0,
    node: 0.0,
    operators: &[("Sigmoid", 1.0, 2.0)],
};

const SHAPE: [usize; 4] = [1, 8, 4, 4];

fn conv(b: &mut Build, x: ValueId, seed: u32) -> ValueId {
    let filters = b.weight(&format!("F{seed}"), &[8, 8, 3, 3], &noise(576, seed));
    b.node("Conv", &[x, filters], &[("pads", vec![1i64, 1, 1, 1].into())])
}

/// A model of one input; what is done with it makes one output.
fn model(fill: impl FnOnce(&mut Build, ValueId) -> ValueId) -> Model {
    let mut b = Build::new(13);
    let x = b.input("x", float(&SHAPE));
    let y = fill(&mut b, x);
    b.output(y, float(&SHAPE));
    infer::infer(&mut b.model);
    b.model
}

fn named(model: &Model) -> impl Iterator<Item = &str> {
    model.values().map(|value| model.value(value).name())
}

fn planned(model: &Model, unknown: &[&str], excluded: &[&str]) -> ExplainedPlan {
    let seen = ObservedTensor { min: -1.0, max: 1.0, elements: 128 };
    let known = named(model).filter(|name| !unknown.contains(name));
    let observed = known.map(|name| (name.to_owned(), seen)).collect();
    let exclude = excluded.iter().map(|name| Pattern::new(name).unwrap()).collect();
    let wanted = options(Scheme::INT8_STATIC);
    plan(model, &PlanOptions { target: TARGET, observed, exclude, ..wanted }).unwrap()
}

fn regions(model: &Model, unknown: &[&str], excluded: &[&str]) -> Vec<Region> {
    described_regions(model, &planned(model, unknown, excluded), &TARGET)
}

/// Why regions begin, or end, as sentences with the tensors before them.
fn said(regions: &[Region], edge: Edge) -> Vec<String> {
    let ends = regions.iter().flat_map(|region| &region.ends);
    let said = |end: &RegionEnd| format!("{}: {}", end.tensor, end.why);
    ends.filter(|end| end.edge == edge).map(said).collect()
}

/// Where the only region of a model goes on as float behind a convolution and some nodes.
fn end_of(fill: impl FnOnce(&mut Build, ValueId) -> ValueId) -> Vec<String> {
    let model = model(|b, x| {
        let c = conv(b, x, 1);
        fill(b, c)
    });
    let found = regions(&model, &[], &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    said(&found, Edge::End)
}

#[test]
fn a_region_has_its_layers_and_what_stands_between_them() {
    let model = model(|b, x| {
        let c = conv(b, x, 1);
        let r = b.node("Relu", &[c], &[]);
        let s = b.node("Sigmoid", &[r], &[]);
        let m = b.node("Add", &[r, s], &[]);
        conv(b, m, 2)
    });
    let found = regions(&model, &[], &[]);
    let [region] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(region.layers, ["conv_out_node", "conv_out_1_node"]);
    let operators: Vec<(&str, usize)> =
        region.operators.iter().map(|(op, count)| (op.as_str(), *count)).collect();
    // What cuts off belongs to its convolution.
    assert_eq!(operators, [("Add", 1), ("Sigmoid", 1)]);
    let tensors: Vec<&str> = region.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(tensors, ["x", "relu_out", "sigmoid_out", "add_out", "conv_out_1"]);
    assert!(region.tensors.iter().all(|tensor| !tensor.is_divided));
    assert_eq!(said(&found, Edge::Begin), ["x: it is an input of the model"]);
    assert_eq!(said(&found, Edge::End), ["conv_out_1: it is an output of the model"]);
}

#[test]
fn regions_that_do_not_touch_are_several() {
    let model = model(|b, x| {
        let c = conv(b, x, 1);
        let e = b.node("Elu", &[c], &[]);
        conv(b, e, 2)
    });
    let found = regions(&model, &[], &[]);
    let layers: Vec<&[String]> = found.iter().map(|region| region.layers.as_slice()).collect();
    assert_eq!(layers, [["conv_out_node"], ["conv_out_1_node"]]);
    let no_kernel = "Elu has no integer kernel on planted that is worth its time";
    assert_eq!(said(&found[..1], Edge::End), [format!("conv_out: {no_kernel}")]);
    assert_eq!(said(&found[1..], Edge::Begin), [format!("elu_out: {no_kernel}")]);
}

#[test]
fn kernels_that_other_runtimes_have_do_not_count() {
    let pooled = end_of(|b, c| b.node("Softmax", &[c], &[]));
    assert_eq!(
        pooled,
        ["conv_out: Softmax has no integer kernel on planted that is worth its time"]
    );
    let product = end_of(|b, c| b.node("MatMul", &[c, c], &[]));
    assert_eq!(product, ["conv_out: MatMul multiplies without a weight"]);
}

#[test]
fn a_layer_that_has_another_form_says_its_own_reason() {
    let model = model(|b, x| {
        let first = conv(b, x, 1);
        let cut = b.node("Relu", &[first], &[]);
        let second = conv(b, cut, 2);
        conv(b, second, 3)
    });
    let found = regions(&model, &[], &["conv_out_node", "conv_out_2_node"]);
    let is_kept = |layer: &str| format!("layer '{layer}' is keep: excluded by '{layer}'");
    // Through what cuts off its numbers.
    let begins = format!("relu_out: {}", is_kept("conv_out_node"));
    assert_eq!(said(&found, Edge::Begin), [begins]);
    let ends = format!("conv_out_1: {}", is_kept("conv_out_2_node"));
    assert_eq!(said(&found, Edge::End), [ends]);
}

#[test]
fn what_has_a_kernel_does_not_end_a_region_by_its_constant() {
    let end = end_of(|b, c| {
        let three = b.weight("three", &[], &[3.0]);
        b.node("Add", &[c, three], &[])
    });
    assert_eq!(end, ["conv_out: nothing behind Add computes on integers"]);
}

#[test]
fn what_nobody_goes_on_with_stays_float() {
    let end = end_of(|b, c| b.node("Sigmoid", &[c], &[]));
    assert_eq!(end, ["conv_out: nothing behind Sigmoid computes on integers"]);
    let model = model(|b, x| {
        let s = b.node("Sigmoid", &[x], &[]);
        conv(b, s, 1)
    });
    let begin = said(&regions(&model, &[], &[]), Edge::Begin);
    assert_eq!(begin, ["sigmoid_out: nothing before Sigmoid computes on integers"]);
}

#[test]
fn a_range_that_is_not_known_is_named() {
    let model = model(|b, x| {
        let c = conv(b, x, 1);
        let s = b.node("Sigmoid", &[c], &[]);
        let e = b.node("MaxPool", &[s], &[("kernel_shape", vec![1i64, 1].into())]);
        conv(b, e, 2)
    });
    assert_eq!(regions(&model, &[], &[]).len(), 1);
    let found = regions(&model, &["sigmoid_out"], &[]);
    let why = |op: &str| format!("{op} needs the range of 'sigmoid_out', which is not known");
    assert_eq!(said(&found[..1], Edge::End), [format!("conv_out: {}", why("Sigmoid"))]);
    assert_eq!(said(&found[1..], Edge::Begin), [format!("maxpool_out: {}", why("MaxPool"))]);
}

#[test]
fn what_is_added_as_float_is_named() {
    let model = model(|b, x| {
        let c = conv(b, x, 1);
        let e = b.node("Elu", &[x], &[]);
        let a = b.node("Add", &[c, e], &[]);
        let n = b.node("Neg", &[a], &[]);
        let m = b.node("Add", &[c, n], &[]);
        let s = b.node("Sigmoid", &[m], &[]);
        let t = b.node("Mul", &[s, s], &[]);
        conv(b, t, 2)
    });
    let found = regions(&model, &[], &[]);
    let ends = said(&found[..1], Edge::End);
    assert_eq!(
        ends,
        [
            "conv_out: nothing behind Add computes on integers",
            "conv_out: Add reads 'neg_out' as well, which is float",
        ],
        "{found:?}"
    );
}

#[test]
fn readers_in_branches_are_told() {
    let end = end_of(|b, c| {
        let condition = b.input("c", boolean());
        let (then, ()) = b.body(|b, graph| (b.named_node_in(graph, "Sigmoid", &[c], "t"), ()));
        let (other, ()) = b.body(|b, graph| (b.named_node_in(graph, "Neg", &[c], "e"), ()));
        b.if_node(condition, then, other)
    });
    let nested = |op: &str| format!("conv_out: {op} is in a branch or a loop");
    assert_eq!(end, [nested("Sigmoid"), nested("Neg")]);
}

#[test]
fn a_product_that_ends_as_float_ends_its_region() {
    let mut b = Build::new(13);
    let x = b.input("x", float(&[4, 16]));
    let w = b.weight("W", &[16, 16], &noise(256, 1));
    let p = b.node("MatMul", &[x, w], &[]);
    let y = b.node("Neg", &[p], &[]);
    b.output(y, float(&[4, 16]));
    infer::infer(&mut b.model);
    let found = regions(&b.model, &[], &[]);
    let why = "Neg has no integer kernel on planted that is worth its time";
    assert_eq!(said(&found, Edge::End), [format!("matmul_out: {why}")]);
}

#[test]
fn without_a_target_kernels_are_not_known() {
    let model = model(|b, x| {
        let c = conv(b, x, 1);
        let s = b.node("Sigmoid", &[c], &[]);
        b.node("Elu", &[s], &[])
    });
    let plan = planned(&model, &[], &[]);
    let found = described_regions(&model, &plan, &Capabilities::ANYWHERE);
    assert_eq!(
        said(&found, Edge::End),
        ["conv_out: not every runtime has an integer kernel for Sigmoid, and none was named"]
    );
    assert_eq!(found[0].predicted, None);
}

#[test]
fn times_are_predicted_from_sizes() {
    let model = model(|b, x| {
        let c = conv(b, x, 1);
        let s = b.node("Sigmoid", &[c], &[]);
        conv(b, s, 2)
    });
    let found = regions(&model, &[], &[]);
    let told = found[0].predicted.unwrap();
    // 128 numbers of 72 products each, twice, and 128 of the sigmoid.
    let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
    assert!(close(told.float_ms * 1e6, 2.0 * 128.0 * 72.0 * 4.0 + 128.0), "{told:?}");
    assert!(close(told.integer_ms * 1e6, 2.0 * 128.0 * 72.0 + 256.0), "{told:?}");
    // In at the input, out at the output.
    assert!(close(told.border_ms * 1e6, 256.0), "{told:?}");
    assert!(close(told.share, 1.0), "{told:?}");
    // Half of the model is left out.
    let half = regions(&model, &[], &["conv_out_1_node"]);
    let told = half[0].predicted.unwrap();
    assert!((told.share - 0.499).abs() < 1e-3, "{told:?}");
}

#[test]
fn sizes_that_are_not_known_predict_nothing() {
    let mut b = Build::new(13);
    let x = b.input(
        "x",
        modelopt_graph::Type::Tensor { elem: modelopt_graph::DataType::FLOAT, shape: None },
    );
    let y = conv(&mut b, x, 1);
    b.output(y, float(&SHAPE));
    let plan = planned(&b.model, &[], &[]);
    let found = described_regions(&b.model, &plan, &TARGET);
    assert_eq!((found.len(), found[0].predicted), (1, None));
}

#[test]
fn what_smoothing_divides_is_marked() {
    let model = model(|b, x| conv(b, x, 1));
    let mut wanted = planned(&model, &[], &[]);
    wanted.layers[0].smoothing = vec![2.0; 8];
    let plan = plan_from(&model, &wanted).unwrap();
    let found = described_regions(&model, &plan, &TARGET);
    assert!(found[0].tensors[0].is_divided, "{found:?}");
}

#[test]
fn a_plan_without_ranges_has_no_regions() {
    let model = model(|b, x| conv(b, x, 1));
    let plan = plan(&model, &options(Scheme::INT8_WEIGHTS)).unwrap();
    assert_eq!(described_regions(&model, &plan, &TARGET), []);
}
