//! Operators that make tensors from scalars and shapes.

use modelopt_graph::{AttributeValue, DataType, Tensor, element_count};

use super::call::{Call, Folded, NotFolded, bytes, dense, dims_of};
use super::number::{Number, Wide, computed};

/// `ConstantOfShape`.
pub(super) fn constant_of_shape(call: &Call<'_>) -> Folded<Tensor> {
    let missing = NotFolded::Invalid("a required input is missing");
    let shape = dims_of(&call.ints_input(0)?.ok_or(missing)?)?;
    let zero = Tensor::scalar(0f32);
    let value = match call.attribute("value")? {
        None => &zero,
        Some(AttributeValue::Tensor(value)) if element_count(value.shape()) == Some(1) => value,
        Some(_) => return Err(NotFolded::Invalid("the value is not a tensor of one element")),
    };
    let count = call.room(value.dtype(), &shape)?;
    dense(value.dtype(), shape, bytes(value)?.repeat(count))
}

/// `Range` of integers and of floats whose values are all exact, since implementations differ in
/// how they round them.
pub(super) fn range(call: &Call<'_>) -> Folded<Tensor> {
    let dtype = call.input(0)?.dtype();
    match dtype {
        DataType::FLOAT => {
            let [start, limit, delta] = scalars::<f32>(call)?;
            let count = float_count(start.into(), limit.into(), delta.into())?;
            // Computed in float32 instead, the number of steps may be another.
            if float_count(0.0, ((limit - start) / delta).into(), 1.0)? != count {
                return Err(NotFolded::Unsupported);
            }
            values::<f32>(call, count, start.into(), delta.into())
        }
        DataType::DOUBLE => {
            let [start, limit, delta] = scalars::<f64>(call)?;
            if [start, limit, delta].iter().any(|x| x.fract() != 0.0 || x.abs() > 1e15) {
                return Err(NotFolded::Unsupported);
            }
            values::<f64>(call, float_count(start, limit, delta)?, start, delta)
        }
        DataType::INT16 => integer_range::<i16>(call),
        DataType::INT32 => integer_range::<i32>(call),
        DataType::INT64 => integer_range::<i64>(call),
        _ => Err(NotFolded::Unsupported),
    }
}

fn integer_range<T: Number<Wide = i128>>(call: &Call<'_>) -> Folded<Tensor> {
    let [start, limit, delta] = scalars::<T>(call)?.map(T::wide);
    // Rounded up: the distance is made longer by all but one unit of the step.
    let distance = limit - start + delta - delta.signum();
    let count = distance.checked_div(delta).ok_or(NotFolded::Invalid("a step of 0"))?;
    let count = usize::try_from(count.max(0)).map_err(|_| NotFolded::TooLarge)?;
    values::<T>(call, count, start, delta)
}

/// The number of values from `start` to `limit`.
fn float_count(start: f64, limit: f64, delta: f64) -> Folded<usize> {
    let count = ((limit - start) / delta).ceil();
    if delta == 0.0 {
        Err(NotFolded::Invalid("a step of 0"))
    } else if !count.is_finite() {
        Err(NotFolded::Unsupported)
    } else if count >= 1e15 {
        Err(NotFolded::TooLarge)
    } else {
        Ok(count.max(0.0) as usize)
    }
}

fn values<T: Number>(
    call: &Call<'_>,
    count: usize,
    start: T::Wide,
    delta: T::Wide,
) -> Folded<Tensor> {
    call.room(T::DTYPE, &[count])?;
    let exact = |index| {
        let value = start.plus(delta.times(T::Wide::from_count(index))?)?;
        let same = T::narrow(value).is_some_and(|rounded| rounded.wide() == value);
        if same { Ok(value) } else { Err(NotFolded::Unsupported) }
    };
    computed::<T>(&[count], (0..count).map(exact))
}

/// The three inputs, each of one element and of type `T`.
fn scalars<T: Number>(call: &Call<'_>) -> Folded<[T; 3]> {
    let scalar = |index| {
        let tensor = call.input(index)?;
        let one = element_count(tensor.shape()) == Some(1);
        let elements = tensor.elements::<T>().filter(|_| one);
        let first = elements.and_then(|elements| elements.first().copied());
        first.ok_or(NotFolded::Invalid("the bounds of a range are not scalars of one type"))
    };
    Ok([scalar(0)?, scalar(1)?, scalar(2)?])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, floats, ints};
    use super::*;

    #[test]
    fn constants_fill_a_shape() {
        let case = || Case::new("ConstantOfShape").input(ints(&[2, 1]));
        assert_eq!(case().one(9), Ok(floats(&[2, 1], &[0.0, 0.0])));
        let value = Tensor::of(vec![1], &[-3i16]).unwrap();
        let filled = case().attribute("value", value.clone()).one(9);
        assert_eq!(filled, Ok(Tensor::of(vec![2, 1], &[-3i16, -3]).unwrap()));
        assert_eq!(case().attribute("value", value).limit(3).one(9), Err(NotFolded::TooLarge));
        let of = |dims: &[i64]| Case::new("ConstantOfShape").input(ints(dims)).one(9);
        assert_eq!(of(&[]), Ok(Tensor::scalar(0f32)));
        assert_eq!(of(&[1 << 40, 1 << 40]), Err(NotFolded::TooLarge));
        assert_eq!(of(&[0, i64::MAX]).unwrap().len(), 0);
        assert!(of(&[-1]).is_err());
    }

    fn range_of<T: Number>(start: T, limit: T, delta: T) -> Folded<Vec<T>> {
        let case = [start, limit, delta]
            .into_iter()
            .fold(Case::new("Range").limit(1 << 20), |case, x| case.input(Tensor::scalar(x)));
        Ok(case.one(11)?.elements::<T>().unwrap().into_owned())
    }

    #[test]
    fn ranges_stop_before_the_limit() {
        assert_eq!(range_of(3i64, 9, 3), Ok(vec![3, 6]));
        assert_eq!(range_of(10i32, 4, -2), Ok(vec![10, 8, 6]));
        assert_eq!(range_of(0i64, 7, 2), Ok(vec![0, 2, 4, 6]));
        assert_eq!(range_of(0i64, -1, 1), Ok(vec![]));
        assert_eq!(range_of(1f32, 3.0, 0.5), Ok(vec![1.0, 1.5, 2.0, 2.5]));
        assert_eq!(range_of(2f64, -1.0, -1.0), Ok(vec![2.0, 1.0, 0.0]));
    }

    #[test]
    fn ranges_that_are_open_to_rounding_or_endless_stay() {
        assert_eq!(range_of(0f32, 1.0, 0.1), Err(NotFolded::Unsupported));
        assert_eq!(range_of(0f64, 1.0, 0.5), Err(NotFolded::Unsupported));
        assert!(matches!(range_of(0i64, 1, 0), Err(NotFolded::Invalid(_))));
        assert!(matches!(range_of(0f32, 1.0, 0.0), Err(NotFolded::Invalid(_))));
        assert_eq!(range_of(i64::MIN, i64::MAX, 1), Err(NotFolded::TooLarge));
        assert_eq!(range_of(0f32, f32::INFINITY, 1.0), Err(NotFolded::Unsupported));
        assert_eq!(range_of(0f32, 1e30, 1.0), Err(NotFolded::TooLarge));
    }
}
