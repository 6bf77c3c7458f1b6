//! Tables of tensors: which layers hold them, and tables that are wrong.

use std::collections::HashSet;

use super::*;
use crate::integer::Regions;
use crate::testing::integers::{calibrated, named};
use crate::{Plan, PlanError, Scheme, TensorRange, quantized_tensors, settle, to_observe};

/// Two convolutions with a sum between them, of which the second layer's path is moved only.
fn residual() -> Build {
    of_image(|b, x| {
        let h = conv(b, x, 4, 1);
        let s = b.node("Sigmoid", &[h], &[]);
        let sum = b.node("Add", &[h, s], &[]);
        conv(b, sum, 4, 2)
    })
}

fn planned(b: &mut Build) -> Plan {
    modelopt_graph::infer::infer(&mut b.model);
    crate::plan(&b.model, &calibrated(&b.model)).unwrap().into_plan()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.tensors.iter().map(|range| range.name.as_str()).collect()
}

#[test]
fn tensors_are_held_by_the_layers_that_go_on_with_them() {
    let mut b = residual();
    let plan = planned(&mut b);
    assert_eq!(names(&plan), ["x", "conv_out", "sigmoid_out", "add_out", "conv_out_1"]);
    let held = quantized_tensors(&b.model, &plan);
    let of = |name: &str| held.iter().find(|(tensor, _)| tensor == name).unwrap().1.clone();
    assert_eq!(of("x"), [0]);
    assert_eq!(of("conv_out"), [0, 1]);
    // Only the second layer reads what comes of them.
    assert_eq!(of("sigmoid_out"), [1]);
    assert_eq!(of("add_out"), [1]);
    assert_eq!(of("conv_out_1"), [1]);
}

#[test]
fn a_layer_holds_what_it_makes_once_it_is_cut_off() {
    let mut b = of_image(|b, x| {
        let c = conv(b, x, 4, 1);
        b.node("Relu", &[c], &[])
    });
    modelopt_graph::infer::infer(&mut b.model);
    let value = |name: &str| named(&b.model, name);
    let layer = b.model.producer_node(value("conv_out")).unwrap();
    let layers: HashSet<_> = [layer].into();
    let regions = Regions::of(&b.model, &layers, |_| true);
    let holders = regions.holders(&b.model, &layers, value("relu_out"));
    assert_eq!(holders.into_iter().collect::<Vec<_>>(), [layer]);
}

#[test]
fn what_layers_do_not_take_any_more_is_dropped() {
    let mut b = residual();
    let mut plan = planned(&mut b);
    plan.layers[1].scheme = Scheme::INT8_WEIGHTS;
    settle(&b.model, &mut plan);
    assert_eq!(names(&plan), ["x", "conv_out"]);
    plan.layers[0].scheme = Scheme::KEEP;
    settle(&b.model, &mut plan);
    assert!(plan.tensors.is_empty());
}

/// What somebody did to a plan.
type Change<'a> = dyn Fn(&mut Plan) + 'a;

#[test]
fn ranges_that_are_wrong_are_refused() {
    let mut b = residual();
    let plan = planned(&mut b);
    let refused = |change: &Change<'_>| {
        let mut plan = plan.clone();
        change(&mut plan);
        crate::plan_from(&b.model, &plan).unwrap_err().to_string()
    };
    let range = |name: &str, min, max| TensorRange::new(name, min, max);
    let changes: [(&str, &Change<'_>); 9] = [
        ("no range for 'x'", &|plan| drop(plan.tensors.remove(0))),
        ("no range for 'conv_out_1'", &|plan| plan.tensors.truncate(4)),
        ("'conv_out', which is empty or not finite", &|plan| plan.tensors[1].min = 1e9),
        ("'conv_out', which is empty or not finite", &|plan| plan.tensors[1].max = f32::NAN),
        ("'x', which is empty or not finite", &|plan| plan.tensors[0].max = f32::INFINITY),
        ("'x', which has one already", &|plan| plan.tensors.push(range("x", 0.0, 1.0))),
        ("'nobody', which the model does not have", &|plan| {
            plan.tensors.push(range("nobody", 0.0, 1.0));
        }),
        ("'F1', which the model does not have", &|plan| plan.tensors.push(range("F1", 0.0, 1.0))),
        ("which no form of its layers takes", &|plan| {
            plan.layers.iter_mut().for_each(|layer| layer.scheme = Scheme::INT8_WEIGHTS);
        }),
    ];
    for (expected, change) in changes {
        let message = refused(change);
        assert!(message.contains(expected), "{expected}: {message}");
    }
    let mut without = plan.clone();
    without.tensors.clear();
    let missing = crate::plan_from(&b.model, &without).unwrap_err();
    assert!(matches!(missing, PlanError::Impossible { scheme: Scheme::INT8_STATIC, .. }));
}

#[test]
fn plans_with_ranges_survive_a_file() {
    let mut b = residual();
    modelopt_graph::infer::infer(&mut b.model);
    let plan = crate::plan(&b.model, &calibrated(&b.model)).unwrap();
    let read = Plan::from_toml(&plan.to_toml()).unwrap();
    assert_eq!(read, plan.clone().into_plan());
    let again = crate::plan_from(&b.model, &read).unwrap();
    assert_eq!(again.tensors, plan.tensors);
    let of = |plan: &Plan| {
        let mut model = b.model.clone();
        crate::apply(&mut model, plan).unwrap();
        let y = model.graph(model.main()).outputs[0].value;
        (drawn(&model, y), first_output(&model, &crate::testing::integers::feeds(&b.model)))
    };
    assert_eq!(of(&again), of(&plan));
}

#[test]
fn what_was_not_seen_keeps_layers_from_being_integer() {
    let mut b = residual();
    modelopt_graph::infer::infer(&mut b.model);
    let mut options = calibrated(&b.model);
    options.observed.remove("conv_out_1");
    let plan = crate::plan(&b.model, &options).unwrap();
    assert_eq!(plan.layers[0].scheme, Scheme::INT8_STATIC);
    assert_ne!(plan.layers[1].scheme, Scheme::INT8_STATIC);
    let reasons: Vec<&str> = plan.lines().map(|(_, why)| why.reason.as_str()).collect();
    assert!(reasons[1].contains("no range of 'conv_out_1' is known"), "{reasons:?}");
    // What stands between them is needed by nobody.
    assert_eq!(names(&plan), ["x", "conv_out"]);
    options.observed.clear();
    let plan = crate::plan(&b.model, &options).unwrap();
    assert!(plan.tensors.is_empty());
    assert!(plan.layers.iter().all(|layer| !layer.scheme.needs_ranges()));
}

#[test]
fn what_is_to_be_observed_is_what_plans_take() {
    let mut b = residual();
    let plan = planned(&mut b);
    let observed = to_observe(&b.model, &calibrated(&b.model));
    let observed: Vec<&str> = observed.iter().map(|&value| b.model.value(value).name()).collect();
    assert_eq!(observed, names(&plan));
    let options = crate::testing::options(Scheme::INT8_WEIGHTS);
    assert!(to_observe(&b.model, &options).is_empty());
}
