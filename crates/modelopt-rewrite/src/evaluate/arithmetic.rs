//! Element-wise arithmetic.

use std::borrow::Cow;

use modelopt_graph::{DataType, Tensor, element_count};

use super::call::{Call, Folded, NotFolded, broadcast};
use super::movement::expanded;
use super::number::{Number, Wide, as_f64, computed, for_float, for_number, numbers};

/// The first two inputs broadcast to one shape, from version 7 on; before, operators said
/// themselves how to broadcast.
pub(super) fn pair(call: &Call<'_>) -> Folded<[Tensor; 2]> {
    if call.version < 7 {
        return Err(NotFolded::Unsupported);
    }
    let (a, b) = (call.input(0)?, call.input(1)?);
    let shape = broadcast([a.shape(), b.shape()])?;
    Ok([expanded(call, a, &shape)?, expanded(call, b, &shape)?])
}

/// A pair of one element type.
pub(super) fn like_pair(call: &Call<'_>) -> Folded<[Tensor; 2]> {
    let pair = pair(call)?;
    if pair[0].dtype() == pair[1].dtype() {
        Ok(pair)
    } else {
        Err(NotFolded::Invalid("the inputs differ in element type"))
    }
}

/// `Add`, `Sub`, `Mul`, `Div` and `Mod`. Integer quotients are truncated; integers that overflow
/// stay.
pub(super) fn binary(call: &Call<'_>) -> Folded<Tensor> {
    let [a, b] = like_pair(call)?;
    let op = call.node.op.name.as_str();
    let like_c = op == "Mod" && call.flag("fmod", false, 10)?;
    for_number!(a.dtype(), T => {
        type W = <T as Number>::Wide;
        let apply = match op {
            "Add" => W::plus,
            "Sub" => W::minus,
            "Mul" => W::times,
            "Div" => W::over,
            "Mod" if like_c => W::remainder,
            _ => W::modulo,
        };
        zipped::<T>(&a, &b, apply)
    })
}

fn zipped<T: Number>(
    a: &Tensor,
    b: &Tensor,
    apply: fn(T::Wide, T::Wide) -> Folded<T::Wide>,
) -> Folded<Tensor> {
    let (x, y) = (numbers::<T>(a)?, numbers::<T>(b)?);
    computed::<T>(a.shape(), x.iter().zip(y.iter()).map(|(x, y)| apply(x.wide(), y.wide())))
}

/// `Min` and `Max` of any number of inputs, broadcast from version 8 on. NaN has no place in an
/// order that implementations agree on, so such tensors stay.
pub(super) fn extreme(call: &Call<'_>) -> Folded<Tensor> {
    let first = call.input(0)?;
    let all = (0..call.inputs.len()).map(|i| call.input(i)).collect::<Folded<Vec<_>>>()?;
    if all.iter().any(|tensor| tensor.dtype() != first.dtype()) {
        return Err(NotFolded::Invalid("the inputs differ in element type"));
    }
    if call.version < 8 && all.iter().any(|tensor| tensor.shape() != first.shape()) {
        return Err(NotFolded::Unsupported);
    }
    let shape = broadcast(all.iter().map(|tensor| tensor.shape()))?;
    let max = call.node.op.name == "Max";
    for_number!(first.dtype(), T => {
        type W = <T as Number>::Wide;
        let mut result = expanded(call, first, &shape)?;
        for tensor in all.iter().skip(1) {
            let other = expanded(call, tensor, &shape)?;
            result = zipped::<T>(&result, &other, if max { W::larger } else { W::smaller })?;
        }
        Ok(result)
    })
}

/// `Pow`. Integer bases need integer exponents that are not negative; float bases take exponents
/// of any type.
pub(super) fn power(call: &Call<'_>) -> Folded<Tensor> {
    let [base, exponent] = pair(call)?;
    if matches!(base.dtype(), DataType::INT32 | DataType::INT64) && !exponent.dtype().is_float() {
        let exponents = exponent.to_i64().ok_or(NotFolded::Unsupported)?;
        let bases = base.to_i64().ok_or(NotFolded::Unsupported)?;
        let powers = bases.into_iter().zip(exponents).map(|(base, exponent)| {
            let exponent = u32::try_from(exponent).ok();
            let power = exponent.and_then(|exponent| base.checked_pow(exponent));
            power.map(i128::from).ok_or(NotFolded::Unsupported)
        });
        return match base.dtype() {
            DataType::INT32 => computed::<i32>(base.shape(), powers),
            _ => computed::<i64>(base.shape(), powers),
        };
    }
    let exponents = as_f64(&exponent)?;
    for_float!(base.dtype(), T => {
        let bases = numbers::<T>(&base)?;
        let powers = bases.iter().zip(&exponents).map(|(x, &y)| Ok(x.wide().powf(y)));
        computed::<T>(base.shape(), powers)
    })
}

/// `Neg`, `Abs`, `Sign` and `Relu`.
pub(super) fn unary(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    call.room(data.dtype(), data.shape())?;
    for_number!(data.dtype(), T => {
        type W = <T as Number>::Wide;
        let apply = match call.node.op.name.as_str() {
            "Neg" => W::negated,
            "Abs" => W::magnitude,
            "Sign" => W::sign,
            _ => W::rectified,
        };
        computed::<T>(data.shape(), numbers::<T>(data)?.iter().map(|x| apply(x.wide())))
    })
}

/// Functions of one float, computed in float64 and rounded once.
pub(super) fn function(call: &Call<'_>) -> Folded<Tensor> {
    let apply = match call.node.op.name.as_str() {
        "Sqrt" => f64::sqrt,
        "Reciprocal" => f64::recip,
        "Exp" => f64::exp,
        "Log" => f64::ln,
        "Sin" => f64::sin,
        "Cos" => f64::cos,
        "Tanh" => f64::tanh,
        "Sigmoid" => |x: f64| (1.0 + (-x).exp()).recip(),
        "Floor" => f64::floor,
        "Ceil" => f64::ceil,
        "Round" => f64::round_ties_even,
        _ => return Err(NotFolded::Unsupported),
    };
    let data = call.input(0)?;
    call.room(data.dtype(), data.shape())?;
    for_float!(data.dtype(), T => {
        let data_elements = numbers::<T>(data)?;
        computed::<T>(data.shape(), data_elements.iter().map(|x| Ok(apply(x.wide()))))
    })
}

/// `Clip`: the bounds are attributes before version 11. Elements that are not finite stay, since
/// a bound that is left out stands for the largest finite number in some implementations.
pub(super) fn clip(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    call.room(data.dtype(), data.shape())?;
    if call.version < 11 && data.dtype() != DataType::FLOAT {
        return Err(NotFolded::Unsupported);
    }
    let [low, high] = if call.version < 11 {
        [call.float("min")?, call.float("max")?]
            .map(|bound| bound.map(|x| Cow::Owned(Tensor::scalar(x))))
    } else {
        [call.optional(1), call.optional(2)].map(|bound| bound.map(Cow::Borrowed))
    };
    for_number!(data.dtype(), T => {
        let bound = |tensor: Option<&Tensor>| tensor.map(scalar::<T>).transpose();
        let (low, high) = (bound(low.as_deref())?, bound(high.as_deref())?);
        if call.version < 13 && low.zip(high).is_some_and(|(low, high)| low > high) {
            return Err(NotFolded::Unsupported);
        }
        let clipped = |x: &T| {
            let x = x.wide();
            let x = if x.is_finite() { x } else { return Err(NotFolded::Unsupported) };
            let x = low.map_or(Ok(x), |low| x.larger(low))?;
            high.map_or(Ok(x), |high| x.smaller(high))
        };
        computed::<T>(data.shape(), numbers::<T>(data)?.iter().map(clipped))
    })
}

fn scalar<T: Number>(tensor: &Tensor) -> Folded<T::Wide> {
    let one = element_count(tensor.shape()) == Some(1);
    let elements = tensor.elements::<T>().filter(|_| one);
    let first = elements.and_then(|elements| elements.first().copied());
    first.map(T::wide).ok_or(NotFolded::Invalid("a bound is not a scalar of the element type"))
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::testing::{Case, floats, ints};
    use super::*;

    fn of(op: &'static str, inputs: &[Tensor], version: i64) -> Folded<Tensor> {
        inputs.iter().cloned().fold(Case::new(op), Case::input).one(version)
    }

    #[test]
    fn operands_broadcast_from_version_7_on() {
        let (a, b) = (floats(&[2, 1], &[1.0, 2.0]), floats(&[3], &[10.0, 20.0, 30.0]));
        let sum = floats(&[2, 3], &[11.0, 21.0, 31.0, 12.0, 22.0, 32.0]);
        assert_eq!(of("Add", &[a.clone(), b.clone()], 7), Ok(sum));
        assert_eq!(of("Add", &[a.clone(), b.clone()], 6), Err(NotFolded::Unsupported));
        let limited = Case::new("Add").input(a.clone()).input(b).limit(23);
        assert_eq!(limited.one(13), Err(NotFolded::TooLarge));
        assert!(of("Add", &[a, ints(&[1])], 13).is_err());
    }

    #[test]
    fn integers_divide_toward_zero_and_do_not_overflow() {
        let divided = |a: &[i64], b: &[i64]| of("Div", &[ints(a), ints(b)], 13);
        assert_eq!(divided(&[7, -7, 7], &[2, 2, -2]), Ok(ints(&[3, -3, -3])));
        assert!(matches!(divided(&[1], &[0]), Err(NotFolded::Invalid(_))));
        assert_eq!(divided(&[i64::MIN], &[-1]), Err(NotFolded::Unsupported));
        assert_eq!(of("Mul", &[ints(&[i64::MAX]), ints(&[2])], 13), Err(NotFolded::Unsupported));
        assert_eq!(of("Abs", &[ints(&[i64::MIN])], 13), Err(NotFolded::Unsupported));
        assert_eq!(of("Neg", &[Tensor::scalar(-5i8)], 13), Ok(Tensor::scalar(5i8)));
        let bytes = [Tensor::scalar(3u8), Tensor::scalar(4u8)];
        assert_eq!(of("Sub", &bytes, 14), Err(NotFolded::Unsupported));
    }

    #[test]
    fn the_sign_of_a_remainder_depends_on_fmod() {
        let case = || Case::new("Mod").input(ints(&[-7, 7, -6])).input(ints(&[3, -3, 3]));
        assert_eq!(case().one(10), Ok(ints(&[2, -2, 0])));
        assert_eq!(case().attribute("fmod", 1).one(10), Ok(ints(&[-1, 1, 0])));
        let floating = || Case::new("Mod").input(floats(&[1], &[-7.5])).input(floats(&[1], &[2.0]));
        assert_eq!(floating().one(10), Err(NotFolded::Unsupported));
        assert_eq!(floating().attribute("fmod", 1).one(10), Ok(floats(&[1], &[-1.5])));
    }

    #[test]
    fn halves_are_rounded_after_each_operation() {
        let a = Tensor::scalar(f16::from_f32(2049.0));
        let sum = of("Add", &[a.clone(), Tensor::scalar(f16::ONE)], 7);
        assert_eq!(sum, Ok(Tensor::scalar(f16::from_f32(2048.0) + f16::ONE)));
        assert_eq!(
            of("Sqrt", &[Tensor::scalar(f16::from_f32(4.0))], 6),
            Ok(Tensor::scalar(f16::from_f32(2.0)))
        );
    }

    #[test]
    fn extremes_take_any_number_of_inputs_but_no_nan() {
        let inputs = [floats(&[2], &[1.0, 5.0]), floats(&[1], &[3.0]), floats(&[], &[2.0])];
        assert_eq!(of("Max", &inputs, 8), Ok(floats(&[2], &[3.0, 5.0])));
        assert_eq!(of("Min", &inputs, 8), Ok(floats(&[2], &[1.0, 2.0])));
        assert_eq!(of("Max", &inputs, 6), Err(NotFolded::Unsupported));
        assert_eq!(of("Max", &inputs[..1], 6), Ok(inputs[0].clone()));
        let nan = floats(&[1], &[f32::NAN]);
        assert_eq!(of("Max", &[nan.clone(), inputs[1].clone()], 8), Err(NotFolded::Unsupported));
        assert_eq!(of("Relu", &[nan], 8), Err(NotFolded::Unsupported));
    }

    #[test]
    fn powers_of_floats_and_integers() {
        let x = floats(&[3], &[2.0, 9.0, -3.0]);
        let squares = of("Pow", &[x.clone(), ints(&[2])], 13);
        assert_eq!(squares, Ok(floats(&[3], &[4.0, 81.0, 9.0])));
        assert_eq!(of("Pow", &[x, floats(&[], &[2.0])], 7), squares);
        assert_eq!(of("Pow", &[ints(&[-2]), ints(&[3])], 12), Ok(ints(&[-8])));
        assert_eq!(of("Pow", &[ints(&[2]), ints(&[-1])], 12), Err(NotFolded::Unsupported));
        assert_eq!(of("Pow", &[ints(&[2]), ints(&[64])], 12), Err(NotFolded::Unsupported));
        assert_eq!(of("Pow", &[ints(&[2]), floats(&[], &[0.5])], 12), Err(NotFolded::Unsupported));
    }

    #[test]
    fn functions_of_one_float() {
        let check = |op, x: f32, y: f32| {
            assert_eq!(of(op, &[Tensor::scalar(x)], 13), Ok(Tensor::scalar(y)), "{op}");
        };
        check("Sqrt", 2.0, 2f32.sqrt());
        check("Reciprocal", 3.0, 1.0 / 3.0);
        check("Exp", 1.0, std::f32::consts::E);
        check("Log", 0.0, f32::NEG_INFINITY);
        check("Cos", std::f32::consts::PI, -1.0);
        check("Sin", 0.0, 0.0);
        check("Sigmoid", 0.0, 0.5);
        check("Sigmoid", -1000.0, 0.0);
        check("Tanh", 40.0, 1.0);
        check("Floor", -1.5, -2.0);
        check("Ceil", -1.5, -1.0);
        check("Round", 2.5, 2.0);
        check("Round", -3.5, -4.0);
        check("Sign", -0.5, -1.0);
        check("Abs", -0.5, 0.5);
        check("Relu", -0.5, 0.0);
        assert_eq!(of("Sqrt", &[ints(&[4])], 13), Err(NotFolded::Unsupported));
    }

    #[test]
    fn clip_takes_attributes_before_11_and_inputs_after() {
        let data = || Case::new("Clip").input(floats(&[3], &[-2.0, 0.5, 2.0]));
        let old = data().attribute("min", -1.0f32).attribute("max", 1.0f32);
        assert_eq!(old.one(6), Ok(floats(&[3], &[-1.0, 0.5, 1.0])));
        assert_eq!(old.one(11), Ok(floats(&[3], &[-2.0, 0.5, 2.0])));
        let high = data().skip().input(Tensor::scalar(1f32));
        assert_eq!(high.one(11), Ok(floats(&[3], &[-2.0, 0.5, 1.0])));
        let crossed = data().input(Tensor::scalar(1f32)).input(Tensor::scalar(0f32));
        assert_eq!(crossed.one(12), Err(NotFolded::Unsupported));
        assert_eq!(crossed.one(13), Ok(floats(&[3], &[0.0, 0.0, 0.0])));
        let infinite = Case::new("Clip").input(floats(&[1], &[f32::INFINITY]));
        assert_eq!(infinite.one(13), Err(NotFolded::Unsupported));
    }
}
