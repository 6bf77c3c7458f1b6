use modelopt_graph::{AttributeValue, infer};

use super::*;
use crate::refine::{Improvements, improve};
use crate::testing::integers::{calibrated, feeds, named, sqnr};
use crate::testing::interpreter::{first_output, numbers, run};
use crate::testing::{Build, boolean, float, noise, rows_seen};
use crate::{ExplainedPlan, Scheme, TensorRange};

const SMOOTHED: Improvements = Improvements { smoothing: true, bias_correction: false };
const CORRECTED: Improvements = Improvements { smoothing: true, bias_correction: true };

/// How large the channels of the tensors between are: as far apart as two to the power of six.
const LOUD: [f32; 4] = [64.0, 1.0, 4.0, 0.0];

/// Filters `[O, I, 3, 3]` with each output channel times one number and each input channel times another.
fn filters(b: &mut Build, name: &str, (rows, columns): (&[f32], &[f32]), seed: u32) -> ValueId {
    let mut numbers = noise(rows.len() * columns.len() * 9, seed);
    for (place, x) in numbers.iter_mut().enumerate() {
        *x *= rows[place / 9 / columns.len()] * columns[place / 9 % columns.len()];
    }
    b.weight(name, &[rows.len(), columns.len(), 3, 3], &numbers)
}

/// The input, as two convolutions see it that have `between` between them; the second makes up for the
/// large channels of the first.
fn planted(between: impl FnOnce(&mut Build, ValueId) -> ValueId) -> Build {
    let mut b = Build::new(13);
    let pads = || [("pads", vec![1i64, 1, 1, 1].into())];
    let x = b.input("x", float(&[1, 2, 8, 8]));
    // Of one sign, so that means are steady.
    let x = b.node("Sigmoid", &[x], &[]);
    let w = filters(&mut b, "W", (&LOUD, &[1.0; 2]), 1);
    let bias = b.weight("b", &[4], &LOUD);
    let made = b.node("Conv", &[x, w, bias], &pads());
    let read = between(&mut b, made);
    let v = filters(&mut b, "V", (&[1.0; 3], &LOUD.map(|x| 1.0 / x.max(1.0))), 2);
    let y = b.node("Conv", &[read, v], &pads());
    b.output(y, float(&[1, 3, 8, 8]));
    infer::infer(&mut b.model);
    b
}

fn relu(b: &mut Build, x: ValueId) -> ValueId {
    b.node("Relu", &[x], &[])
}

/// What is seen of all that layers read.
fn seen(model: &Model, plan: &Plan) -> Seen {
    let all = run(model, &feeds(model));
    let of = |watched: crate::Watched| {
        let tensor = &all[&watched.value];
        let (own, channels) = (numbers(tensor), tensor.shape()[1]);
        let area: usize = tensor.shape().iter().skip(2).product();
        let place = |at: usize| (0..channels).map(move |channel| channel * area + at);
        let rows: Vec<f32> = (0..area).flat_map(place).map(|place| own[place]).collect();
        (watched, rows_seen(&rows, channels))
    };
    Seen::new(crate::watched(model, plan).into_iter().map(of))
}

/// The plan by the default rules, and what becomes of it.
fn plans(model: &Model, wanted: Improvements) -> [ExplainedPlan; 2] {
    let plan = crate::plan(model, &calibrated(model)).unwrap();
    let mut better = plan.clone();
    improve(model, &mut better, &seen(model, &plan), wanted);
    [plan, better]
}

/// What a plan leaves of the output, in dB.
fn precision(model: &Model, plan: &Plan) -> f64 {
    let plan = crate::plan_from(model, plan).unwrap();
    let mut quantized = model.clone();
    crate::apply(&mut quantized, &plan).unwrap();
    sqnr(&first_output(model, &feeds(model)), &first_output(&quantized, &feeds(model)))
}

fn divided(plan: &Plan) -> Vec<&TensorRange> {
    plan.tensors.iter().filter(|range| !range.divided_by.is_empty()).collect()
}

/// The link around the first tensor that a layer makes.
fn link(model: &Model) -> Option<Link> {
    let makes = |&id: &NodeId| link::Layout::of(model, id).is_some();
    let maker = model.nodes_of(model.main()).find(makes)?;
    Link::around(model, model.node(maker).output(0)?)
}

/// Whether a model keeps each bit of its output where a tensor is divided.
fn is_kept(model: &Model, factors: &[f32]) {
    let link = link(model).unwrap();
    assert_eq!(link.channels, factors.len());
    let mut divided = model.clone();
    put(&mut divided, link.scaled(model, factors).unwrap());
    let bits = |model: &Model| {
        let made = numbers(&first_output(model, &feeds(model)));
        assert!(made.iter().any(|&x| x != 0.0));
        made.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(bits(model), bits(&divided));
    let read = |model: &Model| numbers(&run(model, &feeds(model))[&link.readers[0].1]);
    assert_ne!(read(model), read(&divided));
}

#[test]
fn channels_come_out_alike_and_the_model_stays_what_it_is() {
    let b = planted(relu);
    let [plan, better] = plans(&b.model, SMOOTHED);
    let [range] = divided(&better)[..] else { panic!("{:?}", better.tensors) };
    assert_eq!(range.name, "relu_out");
    let [loud, quiet, middle, none] = range.divided_by[..] else { panic!() };
    assert!(loud >= 32.0 * quiet && middle >= 2.0 * quiet, "{:?}", range.divided_by);
    assert!(none.is_normal(), "there is nothing in it");
    is_kept(&b.model, &range.divided_by);
    let mut divided = b.model.clone();
    apply(&mut divided, &better).unwrap();
    let all = run(&divided, &feeds(&b.model));
    let tensor = numbers(&all[&named(&divided, "relu_out")]);
    let peaks: Vec<f32> =
        tensor.chunks(64).map(|own| own.iter().copied().fold(0.0, f32::max)).collect();
    assert!(peaks[0] < 4.0 * peaks[1] && peaks[1] < 4.0 * peaks[0], "{peaks:?}");
    let highest = peaks.iter().copied().fold(0.0, f32::max);
    assert!((range.max - highest).abs() < 1e-6 * highest, "{} {highest}", range.max);
    let (before, after) = (precision(&b.model, &plan), precision(&b.model, &better));
    assert!(after > before + 6.0, "{before} {after} dB");
    // As a file and back, and once more.
    assert_eq!(Plan::from_toml(&better.to_toml()).unwrap(), *better);
    let mut again = better.clone();
    improve(&b.model, &mut again, &seen(&b.model, &better), SMOOTHED);
    assert_eq!(again, better);
}

#[test]
fn alike_channels_are_left_alone() {
    let mut b = planted(relu);
    for (name, seed) in [("W", 1), ("V", 2)] {
        let value = named(&b.model, name);
        let shape = b.model.constant(value).unwrap().shape().to_vec();
        let plain = Tensor::of(shape.clone(), &noise(shape.iter().product(), seed)).unwrap();
        b.model.replace_constant(value, Arc::new(plain));
    }
    let zero = Tensor::of(vec![4], &[0f32; 4]).unwrap();
    b.model.replace_constant(named(&b.model, "b"), Arc::new(zero));
    let [plan, better] = plans(&b.model, SMOOTHED);
    assert_eq!(plan, better);
}

#[test]
fn channels_of_few_numbers_are_left_alone() {
    let b = planted(relu);
    let [plan, _] = plans(&b.model, SMOOTHED);
    let with = |count: usize| {
        let rows: Vec<f32> = (0..count).flat_map(|_| LOUD).collect();
        let watched = crate::watched(&b.model, &plan).into_iter();
        let known = watched.map(|watched| (watched, rows_seen(&rows, LOUD.len())));
        let mut better = plan.clone();
        improve(&b.model, &mut better, &Seen::new(known), SMOOTHED);
        divided(&better).len()
    };
    assert_eq!([63, 64].map(with), [0, 1]);
}

#[test]
fn layers_that_leave_integers_do_not_matter() {
    let b = planted(relu);
    let [_, better] = plans(&b.model, SMOOTHED);
    let all = precision(&b.model, &better);
    for place in 0..2 {
        let mut less = better.clone();
        less.layers[place].scheme = Scheme::KEEP;
        crate::settle(&b.model, &mut less);
        assert_eq!(divided(&less).len(), 1);
        assert!(precision(&b.model, &less) >= all);
        less.layers[1 - place].scheme = Scheme::KEEP;
        crate::settle(&b.model, &mut less);
        assert!(less.tensors.is_empty());
    }
    // Nor do other ranges that somebody gives.
    let mut other = better.clone();
    crate::set_ranges(&b.model, &mut other, &|_| Some((-9.0, 9.0)));
    assert_eq!(divided(&other), divided(&better));
    assert_ne!(other, better);
}

#[test]
fn corrections_are_of_the_layers_as_they_are_then() {
    let b = planted(relu);
    let [plan, _] = plans(&b.model, SMOOTHED);
    let known = seen(&b.model, &plan);
    let of = |wanted: Improvements| {
        let mut plan = plan.clone();
        improve(&b.model, &mut plan, &known, wanted);
        plan
    };
    let plain = of(Improvements { smoothing: false, bias_correction: true });
    let both = of(CORRECTED);
    let factors = &divided(&both)[0].divided_by;
    let [plain_of, both_of] = [&plain, &both].map(|plan| &plan.layers[0].bias_correction);
    assert_eq!((plain_of.len(), both_of.len()), (4, 4));
    for ((plain, both), factor) in plain_of.iter().zip(both_of).zip(factors) {
        assert!((plain - both * factor).abs() <= 1e-3 * plain.abs(), "{plain} {both} {factor}");
    }
    let (without, with) = (of(SMOOTHED), both);
    let (without, with) = (precision(&b.model, &without), precision(&b.model, &with));
    assert!(with > without - 1.0, "{without} {with} dB");
}

#[test]
fn what_commutes_with_factors_may_stand_between() {
    let factors = [0.25, 8.0, 1.0, 2.0];
    let pool = |b: &mut Build, x: ValueId| {
        let size = [("kernel_shape", vec![3i64, 3].into()), ("pads", vec![1i64; 4].into())];
        b.node("MaxPool", &[x], &size)
    };
    is_kept(&planted(|_, x| x).model, &factors);
    is_kept(&planted(pool).model, &factors);
    is_kept(
        &planted(|b, x| b.node("LeakyRelu", &[x], &[("alpha", 0.5f32.into())])).model,
        &factors,
    );
    is_kept(&planted(|b, x| b.node("GlobalAveragePool", &[x], &[])).model, &factors);
    let slope = |b: &mut Build, x: ValueId| {
        let slope = b.weight("slope", &[4, 1, 1], &[0.1, 0.2, 0.3, 0.4]);
        let y = b.node("PRelu", &[x, slope], &[]);
        let y = b.node("AveragePool", &[y], &[("kernel_shape", vec![1i64, 1].into())]);
        b.node("Dropout", &[y], &[])
    };
    assert_eq!(link(&planted(slope).model).unwrap().steps.len(), 3);
}

#[test]
fn ranges_go_back_through_what_stands_between() {
    let between = |b: &mut Build, x: ValueId| {
        let x = b.node("LeakyRelu", &[x], &[("alpha", 0.5f32.into())]);
        let size = [("kernel_shape", vec![1i64, 1].into())];
        b.node("MaxPool", &[x], &size)
    };
    let b = planted(between);
    let [_, better] = plans(&b.model, SMOOTHED);
    let [made, leaky, pooled] = divided(&better)[..] else { panic!("{:?}", better.tensors) };
    assert_eq!((leaky.min, leaky.max), (pooled.min, pooled.max));
    assert_eq!((made.min, made.max), (leaky.min * 2.0, leaky.max));
    let mut divided = b.model.clone();
    apply(&mut divided, &better).unwrap();
    let numbers = numbers(&run(&divided, &feeds(&b.model))[&named(&divided, &made.name)]);
    let low = numbers.iter().copied().fold(0.0, f32::min);
    assert!(low < 0.0 && (low - made.min).abs() < 1e-5 * -low, "{low} {}", made.min);
}

#[test]
fn groups_have_their_own_channels() {
    let mut b = Build::new(13);
    let x = b.input("x", float(&[1, 4, 5, 5]));
    let group = |groups: i64| [("group", AttributeValue::from(groups))];
    let w = b.weight("W", &[6, 2, 3, 3], &noise(108, 1));
    let t = b.node("Conv", &[x, w], &group(2));
    let v = b.weight("V", &[6, 1, 2, 2], &noise(24, 2));
    let u = b.node("Conv", &[t, v], &group(6));
    let r = b.node("Relu", &[u], &[]);
    let z = b.weight("Z", &[4, 3, 1, 1], &noise(12, 3));
    let y = b.node("Conv", &[r, z], &group(2));
    b.output(y, float(&[1, 4, 2, 2]));
    infer::infer(&mut b.model);
    let factors = [0.5, 2.0, 4.0, 8.0, 16.0, 0.25];
    is_kept(&b.model, &factors);
    // The depthwise one reads in one pair, and makes in the next.
    let link = Link::around(&b.model, r).unwrap();
    let mut divided = b.model.clone();
    put(&mut divided, link.scaled(&b.model, &factors).unwrap());
    assert_eq!(first_output(&b.model, &feeds(&b.model)), first_output(&divided, &feeds(&b.model)));
    assert_eq!(link.steps.len(), 1);
}

#[test]
fn transposed_convolutions_have_inputs_in_rows() {
    let mut b = Build::new(13);
    let x = b.input("x", float(&[1, 4, 5, 5]));
    let w = b.weight("W", &[4, 3, 2, 2], &noise(48, 1));
    let y = b.node("ConvTranspose", &[x, w], &[("group", 2.into())]);
    b.output(y, float(&[1, 6, 6, 6]));
    let (layout, _) = link::Layout::of(&b.model, b.model.producer_node(y).unwrap()).unwrap();
    assert_eq!((layout.inputs(), layout.outputs(), layout.taps), (4, 6, 4));
    assert_eq!([0, 5, 7, 11].map(|block| layout.channels(block)), [(0, 0), (1, 2), (2, 4), (3, 5)]);
}

/// An operator with its attributes.
type Product<'a> = (&'a str, &'a [(&'a str, AttributeValue)]);

/// Two products of matrices, the first with a bias of a shape.
fn products(first: Product<'_>, bias: Option<&[usize]>, second: Product<'_>) -> Build {
    let mut b = Build::new(13);
    let x = b.input("x", float(&[4, 4]));
    let w = b.weight("W", &[4, 4], &noise(16, 1));
    let bias = bias.map(|shape| b.weight("b", shape, &noise(shape.iter().product(), 3)));
    let inputs: Vec<ValueId> = [x, w].into_iter().chain(bias).collect();
    let made = b.node(first.0, &inputs, first.1);
    let read = b.node("Relu", &[made], &[]);
    let v = b.weight("V", &[4, 4], &noise(16, 2));
    let y = b.node(second.0, &[read, v], second.1);
    b.output(y, float(&[4, 4]));
    infer::infer(&mut b.model);
    b
}

#[test]
fn matrices_are_divided_along_the_right_dimension() {
    let factors = [0.25, 8.0, 1.0, 2.0];
    let transposed = [("transB", 1.into()), ("alpha", 0.5f32.into()), ("beta", 3f32.into())];
    is_kept(&products(("MatMul", &[]), None, ("MatMul", &[])).model, &factors);
    is_kept(&products(("Gemm", &transposed), Some(&[4]), ("Gemm", &[])).model, &factors);
    is_kept(&products(("Gemm", &[]), Some(&[1, 4]), ("Gemm", &transposed)).model, &factors);
    let turned = [("transA", 1.into())];
    assert!(link(&products(("Gemm", &[]), None, ("Gemm", &turned)).model).is_none());
    // Another row, or one number for all channels.
    for bias in [&[4, 4][..], &[4, 1], &[1]] {
        let b = products(("Gemm", &[]), Some(bias), ("MatMul", &[]));
        assert!(link(&b.model).is_none(), "{bias:?}");
    }
}

#[test]
fn what_does_not_commute_or_is_read_elsewhere_is_left_alone() {
    let none = |what: &str, between: &dyn Fn(&mut Build, ValueId) -> ValueId| {
        let b = planted(between);
        assert!(link(&b.model).is_none(), "{what}");
        // Nor is there one from the other end.
        let last = b.model.graph(b.model.main()).outputs[0].value;
        let read = b.maker(last).input(0).unwrap();
        assert!(Link::around(&b.model, read).is_none(), "{what}");
    };
    none("Clip", &|b, x| {
        let [low, high] = [("low", 0.0), ("high", 6.0)].map(|(name, x)| b.weight(name, &[], &[x]));
        b.node("Clip", &[x, low, high], &[])
    });
    for op in ["HardSwish", "Sigmoid", "Softmax"] {
        none(op, &|b, x| b.node(op, &[x], &[]));
    }
    none("a sum with itself", &|b, x| b.node("Add", &[x, x], &[]));
    none("an output", &|b, x| {
        b.output(x, float(&[1, 4, 8, 8]));
        relu(b, x)
    });
    none("another reader", &|b, x| {
        let other = b.node("Sigmoid", &[x], &[]);
        b.output(other, float(&[1, 4, 8, 8]));
        relu(b, x)
    });
    none("a branch reads it", &|b, x| {
        let condition = b.input("c", boolean());
        let mut branch = || b.body(|b, graph| (b.named_node_in(graph, "Neg", &[x], "n"), ())).0;
        let (then, other) = (branch(), branch());
        let chosen = b.if_node(condition, then, other);
        b.output(chosen, float(&[1, 4, 8, 8]));
        relu(b, x)
    });
    none("Dropout in training", &|b, x| {
        let ratio = b.weight("ratio", &[], &[0.5]);
        let training = b.input("training", boolean());
        b.node("Dropout", &[x, ratio, training], &[])
    });
}

#[test]
fn weights_and_biases_of_others_are_left_alone() {
    for shared in ["W", "b", "V"] {
        let mut b = planted(relu);
        let value = named(&b.model, shared);
        let other = b.node("Neg", &[value], &[]);
        let shape = b.model.constant(value).unwrap().shape().to_vec();
        b.output(other, float(&shape));
        assert!(link(&b.model).is_none(), "{shared}");
    }
}

#[test]
fn factors_that_cannot_be_carried_out_are_refused() {
    let b = planted(relu);
    let [_, better] = plans(&b.model, SMOOTHED);
    let error = |change: &dyn Fn(&mut Plan, usize)| {
        let mut plan = better.clone().into_plan();
        let place = plan.tensors.iter().position(|range| range.name == "relu_out").unwrap();
        change(&mut plan, place);
        crate::plan_from(&b.model, &plan).unwrap_err().to_string()
    };
    let factors = |new: &'static [f32]| {
        error(&move |plan: &mut Plan, place| plan.tensors[place].divided_by = new.to_vec())
    };
    assert!(factors(&[2.0; 3]).contains("do not fit its channels"));
    for wrong in [&[3.0f32, 1.0, 1.0, 1.0], &[0.0; 4], &[-2.0; 4], &[f32::NAN; 4]] {
        assert!(factors(wrong).contains("not powers of two"));
    }
    // Weights that would be infinite.
    assert!(factors(&[f32::MIN_POSITIVE, 1.0, 1.0, 1.0]).contains("cannot make up for exactly"));
    let other = error(&|plan, _| {
        let x = plan.tensors.iter_mut().find(|range| range.name == "sigmoid_out");
        x.unwrap().divided_by = vec![2.0; 2];
    });
    assert!(other.contains("no layers can make up for"), "{other}");
}

#[test]
fn numbers_that_would_lose_digits_are_not_divided() {
    let mut b = planted(relu);
    let value = named(&b.model, "W");
    let mut small = numbers(&b.model.constant(value).unwrap());
    small[0] = f32::MIN_POSITIVE;
    let small = Tensor::of(vec![4, 2, 3, 3], &small).unwrap();
    b.model.replace_constant(value, Arc::new(small));
    let link = link(&b.model).unwrap();
    assert!(link.scaled(&b.model, &[2.0, 1.0, 1.0, 1.0]).is_none());
    assert!(link.scaled(&b.model, &[0.5, 1.0, 1.0, 1.0]).is_some());
    let [plan, better] = plans(&b.model, SMOOTHED);
    assert_eq!(plan, better);
}
