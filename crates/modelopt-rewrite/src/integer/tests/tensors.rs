//! What stands between layers, and tensors of all kinds.

use super::*;
use crate::testing::integers::{FUSING, calibrated, feeds, named};
use crate::testing::interpreter::numbers;
use crate::{PlanOptions, TensorRange};

#[test]
fn a_residual_sum_is_made_of_integers() {
    let pair = made(of_image(|b, x| {
        let h = conv(b, x, 4, 1);
        let h = b.node("Relu", &[h], &[]);
        let c = conv(b, h, 4, 2);
        let s = b.node("Add", &[c, h], &[]);
        let r = b.node("Relu", &[s], &[]);
        conv(b, r, 4, 3)
    }));
    let h = "DQ(Q(Conv(DQ(Q(x)),i8,i32)))";
    let sum = format!("DQ(Q(Add(DQ(Q(Conv({h},i8,i32))),{h})))");
    assert_eq!(pair.drawn(), format!("DQ(Q(Conv({sum},i8,i32)))"));
    assert_eq!(count(&pair, "Relu"), 0);
    check_numbers(&pair, 25.0);
}

#[test]
fn what_is_joined_and_what_is_multiplied_by_its_sigmoid_is_made_of_integers() {
    let pair = made(of_image(|b, x| {
        let branches = [1, 2].map(|seed| conv(b, x, 4, seed));
        let joined = b.node("Concat", &branches, &[("axis", 1.into())]);
        let weight = filters(b, &[4, 8, 1, 1], 3);
        let c = b.node("Conv", &[joined, weight], &[]);
        let s = b.node("Sigmoid", &[c], &[]);
        let silu = b.node("Mul", &[c, s], &[]);
        conv(b, silu, 4, 4)
    }));
    let branch = "DQ(Q(Conv(DQ(Q(x)),i8,i32)))";
    let c = format!("DQ(Q(Conv(DQ(Q(Concat({branch},{branch}))),i8)))");
    let silu = format!("DQ(Q(Mul({c},DQ(Q(Sigmoid({c}))))))");
    assert_eq!(pair.drawn(), format!("DQ(Q(Conv({silu},i8,i32)))"));
    check_numbers(&pair, 22.0);
}

#[test]
fn what_only_moves_numbers_keeps_their_range() {
    let pair = made(of_image(|b, x| {
        let c = conv(b, x, 4, 1);
        let pooled = b.node("MaxPool", &[c], &[("kernel_shape", vec![2i64, 2].into())]);
        let shape = b.model.add_value("shape");
        let tensor = Tensor::of(vec![4], &[1i64, 5, 4, 5]).unwrap();
        let constant = modelopt_graph::Constant::Dense(std::sync::Arc::new(tensor));
        b.model.set_constant(b.model.main(), shape, constant);
        let reshaped = b.node("Reshape", &[pooled, shape], &[]);
        let turned = b.node("Transpose", &[reshaped], &[("perm", vec![0i64, 2, 1, 3].into())]);
        conv(b, turned, 4, 2)
    }));
    let c = "DQ(Q(Conv(DQ(Q(x)),i8,i32)))";
    let moved = format!("DQ(Q(Transpose(DQ(Q(Reshape(DQ(Q(MaxPool({c})))))))))");
    assert_eq!(pair.drawn(), format!("DQ(Q(Conv({moved},i8,i32)))"));
    let of = |name: &str| pair.affine(pair.value(name));
    let first = of("conv_out");
    for name in ["maxpool_out", "reshape_out", "transpose_out"] {
        assert_eq!(of(name), first, "{name}");
    }
    check_numbers(&pair, 25.0);
}

#[test]
fn what_is_split_has_one_range() {
    let mut b = Build::new(13);
    let x = image(&mut b);
    let c = conv(&mut b, x, 4, 1);
    let [left, right] = ["left", "right"].map(|name| b.model.add_value(name));
    let split = modelopt_graph::NewNode {
        name: "split".into(),
        op: modelopt_graph::Operator::onnx("Split"),
        inputs: vec![Some(c)],
        outputs: vec![Some(left), Some(right)],
        attributes: vec![modelopt_graph::Attribute::new("axis", 1)],
        origin: modelopt_graph::Origin::NONE,
    };
    b.model.insert(split, modelopt_graph::Place::Back(b.model.main()));
    let [v, w] = [2, 3].map(|seed| filters(&mut b, &[4, 2, 1, 1], seed));
    let (l, r) = (b.node("Conv", &[left, v], &[]), b.node("Conv", &[right, w], &[]));
    let y = b.node("Add", &[l, r], &[]);
    let pair = made(finished(b, y));
    // The sum goes on to nobody, and stays float.
    assert!(pair.drawn().starts_with("Add(DQ(Q(Conv(DQ(Q(Split("), "{}", pair.drawn());
    let of = |name: &str| pair.affine(pair.value(name));
    assert_eq!((of("left"), of("right")), (of("conv_out"), of("conv_out")));
    check_numbers(&pair, 25.0);
}

#[test]
fn constants_are_integers_where_their_node_is() {
    let pair = made(of_image(|b, x| {
        let c = conv(b, x, 4, 1);
        let factor = b.weight("factor", &[1, 4, 1, 1], &[0.5, -2.0, 1.0, 0.25]);
        let shift = b.weight("shift", &[], &[0.75]);
        let m = b.node("Mul", &[c, factor], &[]);
        let a = b.node("Add", &[shift, m], &[]);
        conv(b, a, 4, 2)
    }));
    let product = "DQ(Q(Mul(DQ(Q(Conv(DQ(Q(x)),i8,i32))),u8)))";
    assert_eq!(pair.drawn(), format!("DQ(Q(Conv(DQ(Q(Add(u8,{product}))),i8,i32)))"));
    check_numbers(&pair, 25.0);
}

#[test]
fn a_node_with_a_constant_that_is_not_finite_ends_a_region() {
    let pair = made(of_image(|b, x| {
        let c = conv(b, x, 4, 1);
        let bound = b.weight("bound", &[], &[f32::INFINITY]);
        let m = b.node("Mul", &[c, bound], &[]);
        let m = b.node("Sigmoid", &[m], &[]);
        conv(b, m, 4, 2)
    }));
    let mul = "Mul(DQ(Q(Conv(DQ(Q(x)),i8,i32))),c)";
    let drawn = pair.drawn();
    assert!(drawn.contains(mul), "{drawn}");
}

#[test]
fn who_reads_a_tensor_in_a_branch_reads_what_is_left_of_it() {
    let mut b = Build::new(13);
    let x = image(&mut b);
    let condition = b.input("c", crate::testing::boolean());
    let h = conv(&mut b, x, 4, 1);
    let (then_body, ()) = b.body(|b, graph| (b.named_node_in(graph, "Neg", &[h], "t"), ()));
    let (else_body, ()) = b.body(|b, graph| (b.named_node_in(graph, "Abs", &[h], "e"), ()));
    let branched = b.if_node(condition, then_body, else_body);
    let c = conv(&mut b, h, 4, 2);
    b.model.set_type(branched, Some(float(&[1, 4, 6, 6])));
    let y = b.node("Sub", &[c, branched], &[]);
    let pair = made(finished(b, y));
    let inner = "DQ(Q(Conv(DQ(Q(x)),i8,i32)))";
    assert_eq!(drawn(&pair.after, named(&pair.after, "t")), format!("Neg({inner})"));
    assert!(pair.sqnr() > 30.0);
}

#[test]
fn outputs_in_the_middle_keep_their_names_and_are_what_is_left() {
    let mut b = Build::new(13);
    let x = image(&mut b);
    let h = conv(&mut b, x, 4, 1);
    let r = b.node("Relu", &[h], &[]);
    let y = conv(&mut b, r, 4, 2);
    b.output(r, float(&[1, 4, 6, 6]));
    b.output(x, float(&[1, 4, 6, 6]));
    let pair = made(finished(b, y));
    let (values, exact) = (pair.values(), run(&pair.before, &pair.feeds));
    assert!(crate::testing::integers::sqnr(&exact[&r], &values[&r]) > 30.0);
    // An input that is an output as well is what it was.
    assert_eq!(values[&x], exact[&x]);
    assert_eq!(drawn(&pair.after, r), "DQ(Q(Conv(DQ(Q(x)),i8,i32)))");
}

#[test]
fn a_tensor_that_is_always_zero_stays_zero() {
    let build = of_image(|b, x| {
        let zero = b.weight("zero", &[1], &[-2.0]);
        let s = b.node("Add", &[x, zero], &[]);
        let dead = b.node("Relu", &[s], &[]);
        conv(b, dead, 4, 1)
    });
    let pair = made(build);
    let range = pair.plan.tensors.iter().find(|range| range.name == "relu_out").unwrap();
    assert_eq!((range.min, range.max), (0.0, 0.0));
    let values = pair.values();
    let conv = pair.after.node(pair.after.producer_node(pair.value("conv_out_float")).unwrap());
    assert!(numbers(&values[&conv.input(0).unwrap()]).iter().all(|&x| x == 0.0));
    assert!(numbers(&values[&pair.value("conv_out")]).iter().all(|x| x.is_finite()));
    assert!(pair.sqnr() > 30.0);
}

#[test]
fn what_the_target_does_not_fuse_ends_a_region() {
    let mut b = of_image(|b, x| {
        let c = conv(b, x, 4, 1);
        let s = b.node("Sigmoid", &[c], &[]);
        conv(b, s, 4, 2)
    });
    modelopt_graph::infer::infer(&mut b.model);
    let target = crate::Capabilities { static_operators: &["Conv"], ..FUSING };
    let options = PlanOptions { target, ..calibrated(&b.model) };
    let plan = crate::plan(&b.model, &options).unwrap();
    let mut after = b.model.clone();
    crate::apply(&mut after, &plan).unwrap();
    // The tensors around it are those of the layers anyway.
    let names: Vec<&str> = plan.tensors.iter().map(|range| range.name.as_str()).collect();
    assert_eq!(names, ["x", "conv_out", "sigmoid_out", "conv_out_1"]);
    let y = after.graph(after.main()).outputs[0].value;
    assert_eq!(first_output(&after, &feeds(&b.model)).shape(), [1, 4, 6, 6]);
    assert!(drawn(&after, y).contains("Sigmoid(DQ(Q(Conv"));
}

#[test]
fn errors_beyond_the_range_of_a_tensor_saturate() {
    let build = of_image(|b, x| conv(b, x, 4, 1));
    let pair = made_with(build, |plan| {
        plan.tensors[1] = TensorRange::new("conv_out", -0.25, 0.25);
    });
    let made = numbers(&pair.values()[&pair.value("conv_out")]);
    assert!(made.iter().all(|x| x.abs() < 0.26));
    assert!(made.iter().any(|&x| x > 0.24) && made.iter().any(|&x| x < -0.24));
}

#[test]
fn parts_have_the_range_of_what_they_are_put_together_to() {
    let mut b = of_image(|b, x| {
        let parts = [1, 2, 3].map(|seed| conv(b, x, 4, seed));
        let whole = b.node("Concat", &parts, &[("axis", 1.into())]);
        conv(b, whole, 4, 5)
    });
    modelopt_graph::infer::infer(&mut b.model);
    let mut options = crate::testing::integers::calibrated(&b.model);
    let seen = [
        ("conv_out", -1.0, 7.9),
        ("conv_out_1", -0.5, 8.0),
        ("conv_out_2", 0.0, 2.0),
        ("concat_out", -1.0, 8.0),
    ];
    for (name, min, max) in seen {
        let known = options.observed.get_mut(name).unwrap();
        (known.min, known.max) = (min, max);
    }
    let plan = crate::plan(&b.model, &options).unwrap();
    let range = |name: &str| {
        let found = plan.tensors.iter().find(|range| range.name == name).unwrap();
        (found.min, found.max)
    };
    assert_eq!(range("concat_out"), (-1.0, 8.0));
    // Those that have nearly all of it are copied; the third keeps its finer step.
    assert_eq!([range("conv_out"), range("conv_out_1")], [(-1.0, 8.0); 2]);
    assert_eq!(range("conv_out_2"), (0.0, 2.0));
}
