//! Operators of integers: what becomes one, what does not, and that the numbers are those of `Q` and `DQ`.

use super::*;
use crate::testing::integers::named;
use crate::testing::interpreter::numbers;
use crate::{Plan, PlanError, QuantFormat, Scheme, TensorRange};

/// What becomes of an image in both formats, the same but for rounding.
#[track_caller]
fn check(make: impl Fn(&mut Build, ValueId) -> ValueId, expected: &str) -> Pair {
    check_at(13, make, expected)
}

#[track_caller]
fn check_at(opset: i64, make: impl Fn(&mut Build, ValueId) -> ValueId, expected: &str) -> Pair {
    let build = |opset: i64| {
        let mut b = Build::new(opset);
        let x = image(&mut b);
        let y = make(&mut b, x);
        finished(b, y)
    };
    let pair = made_with(build(opset), |plan| plan.format = QuantFormat::Qoperator);
    assert_eq!(pair.drawn(), expected);
    // With scales by channel, `DequantizeLinear` is of version 13.
    let qdq = made(build(13));
    let (qdq, own) = (first_output(&qdq.after, &qdq.feeds), first_output(&pair.after, &pair.feeds));
    let step = pair.plan.tensors.last().map_or(0.0, |range| (range.max - range.min) / 255.0);
    assert!(distance(&qdq, &own) <= 1.01 * step, "{} of {step}", distance(&qdq, &own));
    let found = pair.sqnr();
    assert!(found > 22.0, "{found} dB");
    pair
}

fn imports(pair: &Pair) -> Vec<(&str, i64)> {
    let imports = pair.after.info.opsets.iter();
    imports.map(|import| (import.domain.as_str(), import.version)).collect()
}

#[test]
fn convolutions_are_of_onnx_itself() {
    let pair = check(
        |b, x| {
            let c = conv(b, x, 4, 1);
            let r = b.node("Relu", &[c], &[]);
            let weight = filters(b, &[4, 1, 3, 3], 2);
            b.node("Conv", &[r, weight], &[("group", 4.into()), ("strides", vec![2i64, 2].into())])
        },
        "DQ(QLinearConv(QLinearConv(Q(x))))",
    );
    assert_eq!(imports(&pair), [("", 13)]);
    let inner = pair.after.nodes_of(pair.after.main()).find(|&id| {
        let node = pair.after.node(id);
        node.op.is("QLinearConv") && node.attribute("group").is_some()
    });
    let node = pair.after.node(inner.unwrap());
    assert_eq!((node.int("group", 1), node.inputs().len()), (4, 8));
    assert_eq!(node.ints("strides"), Some(&[2i64, 2][..]));
    assert_eq!(count(&pair, "Conv") + count(&pair, "Relu"), 0);
}

#[test]
fn what_stands_between_layers_is_of_the_contributed_operators() {
    let pair = check(
        |b, x| {
            let h = conv(b, x, 4, 1);
            let s = b.node("Sigmoid", &[h], &[]);
            let m = b.node("Mul", &[h, s], &[]);
            let l = b.node("LeakyRelu", &[m], &[("alpha", 0.25f32.into())]);
            let shift = b.weight("shift", &[1, 4, 1, 1], &noise(4, 77));
            let a = b.node("Add", &[l, shift], &[]);
            let c = b.node("Concat", &[a, h], &[("axis", 1.into())]);
            let g = b.node("GlobalAveragePool", &[c], &[]);
            let weight = filters(b, &[4, 8, 1, 1], 3);
            b.node("Conv", &[g, weight], &[])
        },
        &[
            "DQ(QLinearConv(QLinearGlobalAveragePool(QLinearConcat(QLinearAdd(QLinearLeakyRelu(",
            "QLinearMul(QLinearConv(Q(x)),QLinearSigmoid(QLinearConv(Q(x)))))),QLinearConv(Q(x))))))",
        ]
        .concat(),
    );
    assert_eq!(imports(&pair), [("", 13), ("com.microsoft", 1)]);
    let of = |op: &str| {
        let mut all = pair.after.nodes_of(pair.after.main());
        pair.after.node(all.find(|&id| pair.after.node(id).op.name == op).unwrap()).clone()
    };
    assert!((of("QLinearLeakyRelu").float("alpha", 0.0) - 0.25).abs() < 1e-6);
    assert_eq!(of("QLinearConcat").int("axis", 0), 1);
    assert_eq!(of("QLinearGlobalAveragePool").int("channels_last", 7), 0);
    assert_eq!(of("QLinearAdd").op.domain, "com.microsoft");
}

#[test]
fn what_moves_numbers_moves_integers() {
    check(
        |b, x| {
            let c = conv(b, x, 4, 1);
            let pooled = b.node("MaxPool", &[c], &[("kernel_shape", vec![2i64, 2].into())]);
            let turned = b.node("Transpose", &[pooled], &[("perm", vec![0i64, 1, 3, 2].into())]);
            let flat = b.node("Flatten", &[turned], &[]);
            let w = b.weight("W", &[100, 3], &noise(300, 9));
            let bias = b.weight("C", &[3], &noise(3, 10));
            b.node("Gemm", &[flat, w, bias], &[])
        },
        "QGemm(Flatten(Transpose(MaxPool(QLinearConv(Q(x))))))",
    );
    // Of version 10, maxima are of float alone.
    check_at(
        11,
        |b, x| {
            let c = conv(b, x, 4, 1);
            let pooled = b.node("MaxPool", &[c], &[("kernel_shape", vec![2i64, 2].into())]);
            conv(b, pooled, 4, 2)
        },
        "DQ(QLinearConv(Q(MaxPool(DQ(QLinearConv(Q(x)))))))",
    );
}

#[test]
fn what_moves_into_another_range_stays_float() {
    let make = |b: &mut Build, x| {
        let c = conv(b, x, 4, 1);
        let turned = b.node("Transpose", &[c], &[("perm", vec![0i64, 1, 3, 2].into())]);
        conv(b, turned, 4, 2)
    };
    let pair = made_with(of_image(make), |plan| {
        plan.format = QuantFormat::Qoperator;
        let range = plan.tensors.iter_mut().find(|range| range.name == "transpose_out").unwrap();
        *range = TensorRange { min: range.min * 2.0, ..range.clone() };
    });
    assert_eq!(pair.drawn(), "DQ(QLinearConv(Q(Transpose(DQ(QLinearConv(Q(x)))))))");
    assert!(pair.sqnr() > 22.0);
}

#[test]
fn products_of_matrices_make_integers_or_floats() {
    check(
        |b, x| {
            let [v, w] =
                [1, 2].map(|seed| b.weight(&format!("W{seed}"), &[6, 6], &noise(36, seed)));
            let h = b.node("MatMul", &[x, v], &[]);
            let r = b.node("Relu", &[h], &[]);
            b.node("MatMul", &[r, w], &[])
        },
        "MatMulIntegerToFloat(QLinearMatMul(Q(x)))",
    );
    let pair = check(
        |b, x| {
            let flat = b.node("Flatten", &[x], &[]);
            let v = b.weight("V", &[5, 144], &noise(720, 1));
            let w = b.weight("W", &[5, 3], &noise(15, 2));
            let c = b.weight("C", &[1, 5], &noise(5, 3));
            let h = b.node("Gemm", &[flat, v, c], &[("transB", 1.into()), ("beta", 1f32.into())]);
            b.node("Gemm", &[h, w], &[])
        },
        "QGemm(QGemm(Q(Flatten(x))))",
    );
    let first = pair.after.nodes_of(pair.after.main()).find(|&id| {
        let node = pair.after.node(id);
        node.op.name == "QGemm" && node.int("transB", 0) == 1
    });
    // What the operator does not have is left out.
    assert!(pair.after.node(first.unwrap()).attribute("beta").is_none());
}

#[test]
fn what_has_no_operator_of_integers_stays_where_it_is() {
    let pair = check(
        |b, x| {
            let c = conv(b, x, 4, 1);
            let mean = b.node("ReduceMean", &[c], &[("axes", vec![2i64, 3].into())]);
            conv(b, mean, 4, 2)
        },
        "DQ(QLinearConv(Q(ReduceMean(DQ(QLinearConv(Q(x)))))))",
    );
    assert_eq!(imports(&pair), [("", 13)]);
    // A node that goes on cutting off.
    let build = of_image(|b, x| {
        let c = conv(b, x, 4, 1);
        b.node("Relu", &[c], &[])
    });
    let pair = made_with(build, |plan| {
        plan.format = QuantFormat::Qoperator;
        plan.tensors[1].min = -1.0;
    });
    assert_eq!(pair.drawn(), "DQ(Q(Relu(Conv(DQ(Q(x)),i8,i32))))");
}

#[test]
fn a_value_that_others_read_too_is_left_to_them() {
    let mut b = Build::new(13);
    let x = image(&mut b);
    let h = conv(&mut b, x, 4, 1);
    let n = b.node("Neg", &[h], &[]);
    let c = conv(&mut b, h, 4, 2);
    let y = b.node("Sub", &[c, n], &[]);
    b.output(h, float(&[1, 4, 6, 6]));
    let pair = made_with(finished(b, y), |plan| plan.format = QuantFormat::Qoperator);
    let inner = "QLinearConv(Q(x))";
    assert_eq!(drawn(&pair.after, named(&pair.after, "conv_out")), format!("DQ({inner})"));
    let y = pair.after.graph(pair.after.main()).outputs[1].value;
    let expected = format!("Sub(DQ(QLinearConv({inner})))");
    assert!(drawn(&pair.after, y).starts_with(&expected[..expected.len() - 1]));
}

#[test]
fn old_opsets_have_no_scales_by_channel() {
    let make = |b: &mut Build, x| {
        let c = conv(b, x, 4, 1);
        let hole = conv(b, c, 4, 2);
        let m = conv(b, hole, 4, 3);
        b.node("Relu", &[m], &[])
    };
    for opset in [10, 12] {
        let mut b = Build::new(opset);
        let x = image(&mut b);
        let y = make(&mut b, x);
        let pair = made_with(finished(b, y), |plan| {
            plan.format = QuantFormat::Qoperator;
            plan.layers[1].scheme = Scheme::KEEP;
            // The last layer cannot be one operator.
            plan.tensors.last_mut().unwrap().min = -0.5;
        });
        let hole = "Conv(Mul(Sub(Cast(QLinearConv(Q(x)))),c),c,c)";
        let drawn = pair.drawn();
        assert!(drawn.contains("DQ(Q(Conv("), "{drawn}");
        assert!(drawn.contains("Mul(Cast(i8),c),Mul(Cast(i32),c)"), "{drawn}");
        assert!(drawn.starts_with("DQ(Q(Relu(Conv(DQ(Q("), "{hole}: {drawn}");
        let by_channel = |id| {
            let node = pair.after.node(id);
            node.op.is("DequantizeLinear") && node.attribute("axis").is_some()
        };
        assert!(!pair.after.walk().into_iter().any(by_channel));
        assert!(pair.sqnr() > 22.0, "{}", pair.sqnr());
    }
}

#[test]
fn the_format_stands_in_plans_where_it_decides_something() {
    let mut b = of_image(|b, x| conv(b, x, 4, 1));
    modelopt_graph::infer::infer(&mut b.model);
    let mut options = crate::testing::integers::calibrated(&b.model);
    options.format = QuantFormat::Qoperator;
    let plan = crate::plan(&b.model, &options).unwrap();
    assert_eq!(plan.format, QuantFormat::Qoperator);
    let text = plan.to_toml();
    assert!(text.contains("format = \"qoperator\"\n"), "{text}");
    assert_eq!(Plan::from_toml(&text).unwrap(), plan.clone().into_plan());
    assert_eq!(crate::plan_from(&b.model, &plan).unwrap().format, QuantFormat::Qoperator);
    // The default is not written.
    let mut plain = plan.clone().into_plan();
    plain.format = QuantFormat::Qdq;
    assert!(!plain.to_toml().contains("format"));
    // No layer takes ranges: by the rules, after a change, and in a plan that somebody gave.
    options.observed.clear();
    assert_eq!(crate::plan(&b.model, &options).unwrap().format, QuantFormat::Qdq);
    let mut changed = plan.into_plan();
    changed.layers[0].scheme = Scheme::KEEP;
    let mut settled = changed.clone();
    crate::settle(&b.model, &mut settled);
    assert_eq!((settled.format, settled.tensors.len()), (QuantFormat::Qdq, 0));
    changed.tensors.clear();
    assert!(matches!(crate::plan_from(&b.model, &changed), Err(PlanError::Format)));
}

#[test]
fn constants_are_operands_like_others() {
    let pair = check(
        |b, x| {
            let h = conv(b, x, 4, 1);
            let extra = b.weight("extra", &[1, 2, 6, 6], &noise(72, 8));
            let c = b.node("Concat", &[extra, h], &[("axis", 1.into())]);
            let weight = filters(b, &[4, 6, 1, 1], 3);
            b.node("Conv", &[c, weight], &[])
        },
        "DQ(QLinearConv(QLinearConcat(QLinearConv(Q(x)))))",
    );
    let concat = pair.after.nodes_of(pair.after.main());
    let concat = concat.map(|id| pair.after.node(id)).find(|node| node.op.name == "QLinearConcat");
    let first = pair.after.constant(concat.unwrap().input(2).unwrap()).unwrap();
    assert_eq!(numbers(&first).len(), 72);
}

#[test]
fn factors_of_channels_divide_before_numbers_are_quantized() {
    let of = |opset, format| {
        let mut b = Build::new(opset);
        let x = image(&mut b);
        let y = conv(&mut b, x, 4, 1);
        made_with(finished(b, y), |plan| {
            plan.format = format;
            plan.layers[0].smoothing = vec![1.0, 2.0, 0.5, 1.5];
            // Of what is left of `x`.
            plan.tensors[0] = TensorRange::new("x", -2.0, 2.0);
        })
    };
    for (opset, format, expected) in [
        (13, QuantFormat::Qdq, "DQ(Q(Conv(DQ(Q(Mul(x,c))),i8,i32)))"),
        (13, QuantFormat::Qoperator, "DQ(QLinearConv(Q(Mul(x,c))))"),
        (12, QuantFormat::Qoperator, "DQ(QLinearConv(Q(Mul(x,c))))"),
    ] {
        let pair = of(opset, format);
        assert_eq!(pair.drawn(), expected);
        assert!(pair.sqnr() > 30.0, "{}", pair.sqnr());
    }
}

#[test]
fn models_are_raised_for_what_needs_scales_by_channel() {
    let opset = |format| {
        let mut b = Build::new(11);
        let x = image(&mut b);
        let y = conv(&mut b, x, 4, 1);
        let pair = made_with(finished(b, y), |plan| plan.format = format);
        assert!(pair.sqnr() > 30.0);
        pair.after.opset(pair.after.main(), "").unwrap()
    };
    assert_eq!([QuantFormat::Qdq, QuantFormat::Qoperator].map(opset), [13, 11]);
}

#[test]
fn a_version_that_is_to_be_kept_leaves_operators_of_integers() {
    let mut b = Build::new(11);
    let x = image(&mut b);
    let y = conv(&mut b, x, 4, 1);
    let b = finished(b, y);
    let mut options = crate::testing::integers::calibrated(&b.model);
    options.keep_opset = true;
    let scheme =
        |options: &crate::PlanOptions| crate::plan(&b.model, options).unwrap().layers[0].scheme;
    assert_ne!(scheme(&options), Scheme::INT8_STATIC);
    options.format = QuantFormat::Qoperator;
    assert_eq!(scheme(&options), Scheme::INT8_STATIC);
}
