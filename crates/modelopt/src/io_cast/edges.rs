//! Casts around models: what is of another type, of another name, or fails.

use super::*;
use crate::config::Config;
use crate::target::planted::{self, Planted};
use crate::testing::{Layer, network};

fn casting(to: Precision) -> IoCast {
    IoCast::of(&network(&[Layer::Even]), to)
}

fn floats(numbers: &[f32]) -> Tensor {
    Tensor::of(vec![numbers.len()], numbers).unwrap()
}

#[test]
fn only_what_the_model_has_in_float32_is_cast() {
    let casting = casting(Precision::Fp16);
    let inputs =
        IndexMap::from([("x".to_owned(), floats(&[0.1])), ("label".to_owned(), floats(&[0.1]))]);
    let cast = casting.inputs(&inputs);
    assert_eq!(cast["x"].dtype(), DataType::FLOAT16);
    assert_eq!(cast["label"].dtype(), DataType::FLOAT);
    assert_eq!(cast.keys().collect::<Vec<_>>(), ["x", "label"], "the order is what it was");
    let ids = IndexMap::from([("x".to_owned(), Tensor::of(vec![1], &[7i64]).unwrap())]);
    assert_eq!(casting.inputs(&ids)["x"].dtype(), DataType::INT64);
}

#[test]
fn only_outputs_that_came_out_narrow_are_widened() {
    let casting = casting(Precision::Fp16);
    let narrow = |to| floats(&[0.1, f32::INFINITY]).rounded(to).unwrap();
    let output = |tensor| casting.outputs([("product0_out".to_owned(), tensor)].into());
    let wide = output(narrow(DataType::FLOAT16));
    assert_eq!(wide[0].dtype(), DataType::FLOAT);
    assert!((wide[0].to_f32().unwrap()[0] - 0.1).abs() < 1e-4);
    assert!(wide[0].to_f32().unwrap()[1].is_infinite());
    assert_eq!(output(narrow(DataType::BFLOAT16))[0].dtype(), DataType::BFLOAT16);
    assert_eq!(output(floats(&[0.1]))[0].dtype(), DataType::FLOAT);
    let other = casting.outputs([("other".to_owned(), narrow(DataType::FLOAT16))].into());
    assert_eq!(other[0].dtype(), DataType::FLOAT16);
}

#[test]
fn samples_keep_their_names_and_where_they_come_from() {
    let given = planted::samples(2);
    let cast = casting(Precision::Bf16).samples(&given);
    for (cast, given) in cast.iter().zip(&given) {
        assert_eq!((&cast.name, cast.kind), (&given.name, given.kind));
        assert_eq!(cast.inputs["x"].dtype(), DataType::BFLOAT16);
        assert_eq!(given.inputs["x"].dtype(), DataType::FLOAT);
    }
    assert!(casting(Precision::Bf16).samples(&[]).is_empty());
}

#[test]
fn what_fails_inside_fails_outside_and_what_is_left_out_is_told() {
    let config = Config::default();
    let failing = Planted::new(|_| Err(planted::crash())).leaving_out("boxes");
    let mut session = failing.host(&config).prepare("trial.onnx".as_ref());
    let inputs = planted::samples(1).remove(0).inputs;
    let session = session.as_mut().unwrap();
    let called = casting(Precision::Fp16).called(session.as_mut(), &inputs).run(&IndexMap::new());
    assert!(matches!(called, Err(RuntimeError::Died { .. })));
    let mut cast = casting(Precision::Fp16).around(session);
    assert_eq!(cast.left_out()[0].output, "boxes");
    assert!(matches!(cast.run(&inputs), Err(RuntimeError::Died { .. })));
}
