//! Comparisons and boolean operators.

use modelopt_graph::{DataType, Tensor};

use super::arithmetic::like_pair;
use super::call::{Call, Folded, NotFolded, bytes, dense};
use super::number::{Number, for_float, for_number, numbers};

/// `Equal`, `Greater`, `Less`, `GreaterOrEqual` and `LessOrEqual`, from version 7 on. Any
/// comparison with NaN is false.
pub(super) fn compare(call: &Call<'_>) -> Folded<Tensor> {
    let op = call.node.op.name.as_str();
    let [a, b] = like_pair(call)?;
    if a.dtype() == DataType::BOOL {
        let equal: fn(bool, bool) -> bool = |a, b| a == b;
        return if op == "Equal" { zipped(&a, &b, equal) } else { Err(NotFolded::Unsupported) };
    }
    for_number!(a.dtype(), T => {
        type W = <T as Number>::Wide;
        let apply: fn(&W, &W) -> bool = match op {
            "Equal" => W::eq,
            "Greater" => W::gt,
            "Less" => W::lt,
            "GreaterOrEqual" => W::ge,
            _ => W::le,
        };
        let (x, y) = (numbers::<T>(&a)?, numbers::<T>(&b)?);
        let pairs = x.iter().zip(y.iter());
        let bits = pairs.map(|(x, y)| u8::from(apply(&x.wide(), &y.wide()))).collect();
        dense(DataType::BOOL, a.shape().to_vec(), bits)
    })
}

/// `And`, `Or` and `Xor`, from version 7 on.
pub(super) fn binary(call: &Call<'_>) -> Folded<Tensor> {
    let [a, b] = like_pair(call)?;
    match call.node.op.name.as_str() {
        "And" => zipped(&a, &b, |a, b| a && b),
        "Or" => zipped(&a, &b, |a, b| a || b),
        _ => zipped(&a, &b, |a, b| a != b),
    }
}

/// `Not`.
pub(super) fn not(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    call.room(DataType::BOOL, data.shape())?;
    let bits = truth(data)?.map(|x| u8::from(!x)).collect();
    dense(DataType::BOOL, data.shape().to_vec(), bits)
}

fn zipped(a: &Tensor, b: &Tensor, apply: fn(bool, bool) -> bool) -> Folded<Tensor> {
    let bits = truth(a)?.zip(truth(b)?).map(|(a, b)| u8::from(apply(a, b))).collect();
    dense(DataType::BOOL, a.shape().to_vec(), bits)
}

fn truth(tensor: &Tensor) -> Folded<impl Iterator<Item = bool>> {
    if tensor.dtype() != DataType::BOOL {
        return Err(NotFolded::Invalid("an input is not boolean"));
    }
    Ok(bytes(tensor)?.iter().map(|&x| x != 0))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, bools, floats, ints};
    use super::*;

    fn of(op: &'static str, a: Tensor, b: Tensor) -> Folded<Tensor> {
        Case::new(op).input(a).input(b).one(13)
    }

    #[test]
    fn comparisons_broadcast_and_are_false_for_nan() {
        let x = || ints(&[1, 2, 3]);
        assert_eq!(of("Less", x(), ints(&[2])), Ok(bools(&[true, false, false])));
        assert_eq!(of("LessOrEqual", x(), ints(&[2])), Ok(bools(&[true, true, false])));
        assert_eq!(of("Greater", x(), ints(&[2])), Ok(bools(&[false, false, true])));
        assert_eq!(of("GreaterOrEqual", x(), ints(&[2])), Ok(bools(&[false, true, true])));
        assert_eq!(of("Equal", x(), ints(&[2])), Ok(bools(&[false, true, false])));
        let nan = || floats(&[1], &[f32::NAN]);
        assert_eq!(of("Equal", nan(), nan()), Ok(bools(&[false])));
        assert_eq!(of("GreaterOrEqual", nan(), nan()), Ok(bools(&[false])));
    }

    #[test]
    fn boolean_operators_take_any_nonzero_byte_as_true() {
        let a = || Tensor::dense(DataType::BOOL, vec![4], vec![0, 0, 7, 1]).unwrap();
        let b = || bools(&[false, true, false, true]);
        assert_eq!(of("And", a(), b()), Ok(bools(&[false, false, false, true])));
        assert_eq!(of("Or", a(), b()), Ok(bools(&[false, true, true, true])));
        assert_eq!(of("Xor", a(), b()), Ok(bools(&[false, true, true, false])));
        assert_eq!(of("Equal", a(), b()), Ok(bools(&[true, false, false, true])));
        assert_eq!(Case::new("Not").input(a()).one(1), Ok(bools(&[true, true, false, false])));
        assert!(of("And", a(), ints(&[1])).is_err());
        assert_eq!(of("Less", a(), b()), Err(NotFolded::Unsupported));
    }
}
