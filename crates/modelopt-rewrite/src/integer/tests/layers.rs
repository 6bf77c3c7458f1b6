//! Layers: what they read and make, their weights and biases.

use super::*;
use crate::Scheme;
use crate::testing::integers::per_tensor;

#[test]
fn a_convolution_stands_between_what_quantizes_and_what_dequantizes() {
    let pair = made(of_image(|b, x| conv(b, x, 4, 1)));
    assert_eq!(pair.drawn(), "DQ(Q(Conv(DQ(Q(x)),i8,i32)))");
    assert_eq!(pair.tensors(), ["x", "conv_out"]);
    check_numbers(&pair, 30.0);
}

#[test]
fn what_cuts_off_is_done_by_the_end_of_the_range() {
    let relu = made(of_image(|b, x| {
        let c = conv(b, x, 4, 1);
        b.node("Relu", &[c], &[])
    }));
    let clip = made(of_image(|b, x| {
        let c = conv(b, x, 4, 1);
        let bounds = [("low", 0.0), ("high", 0.75)];
        let [low, high] = bounds.map(|(name, bound)| b.weight(name, &[], &[bound]));
        b.node("Clip", &[c, low, high], &[])
    }));
    for pair in [relu, clip] {
        assert_eq!(pair.drawn(), "DQ(Q(Conv(DQ(Q(x)),i8,i32)))");
        check_numbers(&pair, 30.0);
    }
}

#[test]
fn a_range_that_goes_on_where_numbers_are_cut_off_leaves_that_to_its_node() {
    let build = of_image(|b, x| {
        let c = conv(b, x, 4, 1);
        b.node("Relu", &[c], &[])
    });
    let pair = made_with(build, |plan| {
        plan.tensors[1].min = -1.0;
    });
    assert_eq!(pair.drawn(), "DQ(Q(Relu(Conv(DQ(Q(x)),i8,i32))))");
    check_numbers(&pair, 25.0);
}

#[test]
fn a_value_that_is_read_before_it_is_cut_off_is_quantized_as_it_is() {
    let pair = made(of_image(|b, x| {
        let c = conv(b, x, 4, 1);
        let r = b.node("Relu", &[c], &[]);
        let n = b.node("Neg", &[c], &[]);
        b.node("Sub", &[r, n], &[])
    }));
    assert_eq!(pair.tensors(), ["x", "conv_out"]);
    let made = "DQ(Q(Conv(DQ(Q(x)),i8,i32)))";
    assert_eq!(drawn(&pair.after, pair.value("relu_out")), format!("Relu({made})"));
    check_numbers(&pair, 30.0);
}

#[test]
fn depthwise_grouped_and_one_dimensional_convolutions_are_layers_too() {
    let grouped = |inputs: usize, groups: i64| {
        made(of_image(|b, x| {
            let weight = filters(b, &[8, inputs, 3, 3], 5);
            b.node(
                "Conv",
                &[x, weight],
                &[("group", groups.into()), ("strides", vec![2i64, 1].into())],
            )
        }))
    };
    let mut b = Build::new(13);
    let x = b.input("x", float(&[2, 3, 9]));
    let weight = filters(&mut b, &[5, 3, 4], 6);
    let dilated = [("dilations", vec![2i64].into()), ("pads", vec![1i64, 2].into())];
    let y = b.node("Conv", &[x, weight], &dilated);
    for pair in [grouped(1, 4), grouped(2, 2), made(finished(b, y))] {
        assert_eq!(pair.drawn(), "DQ(Q(Conv(DQ(Q(x)),i8)))");
        check_numbers(&pair, 30.0);
    }
}

#[test]
fn products_of_matrices_need_no_range_of_what_they_make() {
    let product = |bias: &[usize], transposed: i64, seed: u32| {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[3, 8]));
        let shape = if transposed == 1 { [5, 8] } else { [8, 5] };
        let w = b.weight("W", &shape, &noise(40, seed));
        let c = b.weight("C", bias, &noise(bias.iter().product(), seed + 1));
        let y = b.node("Gemm", &[x, w, c], &[("transB", transposed.into())]);
        made(finished(b, y))
    };
    for (bias, transposed) in [(&[5][..], 1), (&[1, 5], 1), (&[5], 0), (&[], 1), (&[1], 0)] {
        let pair = product(bias, transposed, 3);
        assert_eq!(pair.drawn(), "Gemm(DQ(Q(x)),i8,i32)", "{bias:?}");
        assert_eq!(pair.tensors(), ["x"]);
        check_numbers(&pair, 35.0);
    }
    // One number for each row, or for each element, is nothing that integer kernels add.
    for bias in [&[3, 1][..], &[3, 5]] {
        let pair = product(bias, 0, 3);
        assert_eq!(pair.drawn().matches("DQ").count(), 0, "{bias:?}: {}", pair.drawn());
    }
    let mut b = Build::new(13);
    let x = b.input("x", float(&[2, 3, 8]));
    let w = b.weight("W", &[8, 5], &noise(40, 7));
    let y = b.node("MatMul", &[x, w], &[]);
    let pair = made(finished(b, y));
    assert_eq!(pair.drawn(), "MatMul(DQ(Q(x)),i8)");
    check_numbers(&pair, 35.0);
}

#[test]
fn what_products_make_is_quantized_where_somebody_goes_on_with_it() {
    let mut b = Build::new(13);
    let x = b.input("x", float(&[3, 8]));
    let [v, w] = [1, 2].map(|seed| b.weight(&format!("W{seed}"), &[8, 8], &noise(64, seed)));
    let h = b.node("MatMul", &[x, v], &[]);
    let r = b.node("Relu", &[h], &[]);
    let y = b.node("MatMul", &[r, w], &[]);
    let pair = made(finished(b, y));
    assert_eq!(pair.drawn(), "MatMul(DQ(Q(MatMul(DQ(Q(x)),i8))),i8)");
    check_numbers(&pair, 30.0);
}

#[test]
fn a_weight_that_layers_share_is_stored_once() {
    let pair = made(of_image(|b, x| {
        let weight = filters(b, &[4, 4, 1, 1], 1);
        let bias = b.weight("bias", &[4], &noise(4, 2));
        let c = b.node("Conv", &[x, weight, bias], &[]);
        b.node("Conv", &[c, weight], &[])
    }));
    assert_eq!(pair.drawn(), "DQ(Q(Conv(DQ(Q(Conv(DQ(Q(x)),i8,i32))),i8)))");
    let main = pair.after.graph(pair.after.main());
    let integers = pair.after.initializers_of(pair.after.main()).iter().filter(|&&value| {
        let tensor = pair.after.constant(value).unwrap();
        tensor.dtype() == modelopt_graph::DataType::INT8 && tensor.shape() == [4, 4, 1, 1]
    });
    assert_eq!(integers.count(), 1);
    assert_eq!(main.outputs.len(), 1);
    check_numbers(&pair, 30.0);
}

#[test]
fn a_weight_that_is_shared_with_another_form_serves_both() {
    let shared = |scheme: Scheme| {
        let build = of_image(|b, x| {
            let weight = filters(b, &[4, 4, 3, 3], 1);
            let c = b.node("Conv", &[x, weight], &[]);
            b.node("Conv", &[c, weight], &[])
        });
        made_with(build, |plan| plan.layers[1].scheme = scheme)
    };
    // The same integers, dequantized for who computes in float.
    let stored = shared(Scheme::INT8_WEIGHTS);
    assert_eq!(stored.tensors(), ["x", "conv_out"]);
    let drawn = stored.drawn();
    assert!(drawn.starts_with("Conv(DQchannels(Q(Conv(DQ(Q(x)),i8))),Mul(Cast("), "{drawn}");
    assert!(stored.sqnr() > 30.0);
    // What one needs in float is float for both, and nothing is quantized.
    let kept = shared(Scheme::KEEP);
    assert_eq!(kept.drawn(), "Conv(Conv(x,c),c)");
    assert!(kept.tensors().is_empty());
}

#[test]
fn integers_of_biases_fit_into_32_bits() {
    let pair = made(of_image(|b, x| {
        // One channel has tiny weights and a bias that would be 5e10 of their steps.
        let mut weights = noise(4 * 4 * 9, 1);
        weights[..36].iter_mut().for_each(|w| *w *= 1e-10);
        let weight = b.weight("F", &[4, 4, 3, 3], &weights);
        let bias = b.weight("bias", &[4], &[0.5, -0.25, 0.125, 1.0]);
        b.node("Conv", &[x, weight, bias], &[])
    }));
    assert_eq!(pair.drawn(), "DQ(Q(Conv(DQ(Q(x)),i8,i32)))");
    let conv = pair.after.producer_node(pair.value("conv_out_float")).unwrap();
    let bias = pair.after.producer_node(pair.after.node(conv).input(2).unwrap()).unwrap();
    let bias = pair.after.node(bias);
    let integers = pair.after.constant(bias.input(0).unwrap()).unwrap().to_i64().unwrap();
    let scales = pair.after.constant(bias.input(1).unwrap()).unwrap();
    assert!((0.99 * f64::from(1 << 30)..1.01 * f64::from(1 << 30)).contains(&(integers[0] as f64)));
    assert!((integers[0] as f32 * scales.to_f32().unwrap()[0] - 0.5).abs() < 1e-6);
    check_numbers(&pair, 30.0);
}

#[test]
fn one_scale_for_each_weight_has_no_axis() {
    let build = of_image(|b, x| {
        let c = conv(b, x, 4, 1);
        let flat = b.node("Flatten", &[c], &[]);
        let w = b.weight("W", &[3, 144], &noise(432, 9));
        let bias = b.weight("C", &[3], &noise(3, 10));
        b.node("Gemm", &[flat, w, bias], &[("transB", 1.into())])
    });
    let pair = made_with(build, |plan| plan.numerics = per_tensor());
    assert_eq!(pair.drawn(), "Gemm(DQ(Q(Flatten(DQ(Q(Conv(DQ(Q(x)),i8,i32)))))),i8,i32)");
    for node in pair.after.walk() {
        let node = pair.after.node(node);
        assert!(node.attribute("axis").is_none() || !node.op.is("DequantizeLinear"));
        if node.op.is("DequantizeLinear") {
            assert_eq!(pair.after.constant(node.input(1).unwrap()).unwrap().shape(), [0; 0]);
        }
    }
    check_numbers(&pair, 25.0);
}

#[test]
fn a_float_layer_in_a_hole_reads_channel_by_channel() {
    let build = of_image(|b, x| {
        let first = conv(b, x, 4, 1);
        let hole = conv(b, first, 4, 2);
        conv(b, hole, 4, 3)
    });
    let pair = made_with(build, |plan| plan.layers[1].scheme = Scheme::KEEP);
    let first = "Conv(DQ(Q(x)),i8,i32)";
    let hole = format!("Conv(DQchannels(Q({first})),c,c)");
    assert_eq!(pair.drawn(), format!("DQ(Q(Conv(DQ(Q({hole})),i8,i32)))"));
    check_numbers(&pair, 25.0);
}

#[test]
fn layers_in_branches_stay_as_they_are() {
    let mut b = Build::new(13);
    b.branches("MatMul");
    modelopt_graph::infer::infer(&mut b.model);
    let plan = crate::plan(&b.model, &crate::testing::integers::calibrated(&b.model)).unwrap();
    assert_eq!(plan.layers.len(), 2);
    assert!(plan.layers.iter().all(|layer| layer.scheme != Scheme::INT8_STATIC));
    assert!(plan.tensors.is_empty());
}
