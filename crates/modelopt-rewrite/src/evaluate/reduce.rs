//! Reductions over axes.

use modelopt_graph::{DataType, Tensor};

use super::call::{Call, Folded, NotFolded};
use super::movement::permuted;
use super::number::{Number, Wide, computed, for_float, for_number, numbers};

/// The reductions. Floats are accumulated in float64; integers that overflow stay, and so does
/// the mean of integers where it is not one.
///
/// Axes are an attribute before version 13 (`ReduceSum`) or 18 (the others).
pub(super) fn reduce(call: &Call<'_>) -> Folded<Tensor> {
    let op = call.node.op.name.as_str();
    let data = call.input(0)?;
    let rank = data.shape().len();
    let since = if op == "ReduceSum" { 13 } else { 18 };
    let axes = call.list("axes", 1, since)?.unwrap_or_default();
    let keep = call.flag("keepdims", true, 1)?;
    let mut reduced = call.axes(&axes, rank)?;
    if axes.is_empty() {
        let none = call.flag("noop_with_empty_axes", false, since)?;
        // Implementations differ in whether they still take the square or the magnitude.
        if none && matches!(op, "ReduceL1" | "ReduceL2" | "ReduceSumSquare") {
            return Err(NotFolded::Unsupported);
        }
        reduced = vec![!none; rank];
    }
    let dims = || data.shape().iter().zip(&reduced);
    let shape: Vec<usize> = dims()
        .filter(|&(_, &gone)| keep || !gone)
        .map(|(&dim, &gone)| if gone { 1 } else { dim })
        .collect();
    let count = call.room(data.dtype(), &shape)?;
    let lane = dims()
        .filter(|&(_, &gone)| gone)
        .try_fold(1usize, |product, (&dim, _)| product.checked_mul(dim))
        .ok_or(NotFolded::TooLarge)?;

    // The axes that go become the last ones, so that each result has its elements in a row.
    let mut order: Vec<usize> = (0..rank).collect();
    order.sort_by_key(|&axis| reduced.get(axis).copied());
    let unlimited = Call { max_bytes: usize::MAX, ..*call };
    let rows = permuted(&unlimited, data, &order)?;
    for_number!(rows.dtype(), T => {
        let elements = numbers::<T>(&rows)?;
        let row = |index: usize| elements.get(index * lane..(index + 1) * lane);
        computed::<T>(&shape, (0..count).map(|index| fold::<T>(op, row(index).unwrap_or_default())))
    })
}

fn fold<T: Number>(op: &str, row: &[T]) -> Folded<T::Wide> {
    type W<T> = <T as Number>::Wide;
    let sum = |of: fn(W<T>) -> Folded<W<T>>| {
        row.iter().try_fold(W::<T>::ZERO, |sum, x| sum.plus(of(x.wide())?))
    };
    let square: fn(W<T>) -> Folded<W<T>> = |x| x.times(x);
    let extreme = |pick: fn(W<T>, W<T>) -> Folded<W<T>>| {
        let (first, rest) = row.split_first().ok_or(NotFolded::Unsupported)?;
        // The first is compared with itself to find a NaN.
        rest.iter().try_fold(pick(first.wide(), first.wide())?, |best, x| pick(best, x.wide()))
    };
    match op {
        "ReduceSum" => sum(Ok),
        "ReduceMean" if row.is_empty() => Err(NotFolded::Unsupported),
        "ReduceMean" => sum(Ok)?.exactly_over(W::<T>::from_count(row.len())),
        "ReduceProd" => {
            row.iter().try_fold(W::<T>::from_count(1), |product, x| product.times(x.wide()))
        }
        "ReduceMax" => extreme(W::<T>::larger),
        "ReduceMin" => extreme(W::<T>::smaller),
        "ReduceL1" => sum(W::<T>::magnitude),
        "ReduceL2" => sum(square)?.root(),
        "ReduceSumSquare" => sum(square),
        _ => Err(NotFolded::Unsupported),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, counting, floats, ints};
    use super::*;

    #[test]
    fn axes_are_attributes_before_13_or_18_and_inputs_after() {
        let attribute = |op| Case::new(op).input(counting(&[2, 3])).attribute("axes", vec![1]);
        let input = |op| Case::new(op).input(counting(&[2, 3])).input(ints(&[-1]));
        let sums = floats(&[2, 1], &[3.0, 12.0]);
        let maxima = floats(&[2, 1], &[2.0, 5.0]);
        assert_eq!(attribute("ReduceSum").one(11), Ok(sums.clone()));
        assert_eq!(input("ReduceSum").one(13), Ok(sums));
        assert_eq!(attribute("ReduceMax").one(13), Ok(maxima.clone()));
        assert_eq!(input("ReduceMax").one(18), Ok(maxima));
        let all = attribute("ReduceMax").attribute("keepdims", 0);
        assert_eq!(all.one(18), Ok(Tensor::scalar(5f32)));
    }

    #[test]
    fn any_axes_reduce_in_place_or_away() {
        let case = Case::new("ReduceSum")
            .input(counting(&[2, 3, 2]))
            .input(ints(&[0, 2]))
            .attribute("keepdims", 0);
        assert_eq!(case.one(13), Ok(floats(&[3], &[14.0, 22.0, 30.0])));
        let case = Case::new("ReduceMean").input(counting(&[2, 3, 2])).attribute("axes", vec![0]);
        assert_eq!(case.one(13), Ok(floats(&[1, 3, 2], &[3.0, 4.0, 5.0, 6.0, 7.0, 8.0])));
    }

    #[test]
    fn empty_axes_mean_all_or_none() {
        let case = |op| Case::new(op).input(counting(&[2, 2])).input(ints(&[]));
        assert_eq!(case("ReduceProd").one(18), Ok(floats(&[1, 1], &[0.0])));
        let none = |op| case(op).attribute("noop_with_empty_axes", 1).one(18);
        assert_eq!(none("ReduceMin"), Ok(counting(&[2, 2])));
        assert_eq!(none("ReduceL2"), Err(NotFolded::Unsupported));
    }

    #[test]
    fn norms() {
        let case = |op| Case::new(op).input(floats(&[2, 2], &[3.0, -4.0, 0.0, -2.0]));
        let rows = |op| case(op).attribute("axes", vec![1]).attribute("keepdims", 0).one(13);
        assert_eq!(rows("ReduceL2"), Ok(floats(&[2], &[5.0, 2.0])));
        assert_eq!(rows("ReduceL1"), Ok(floats(&[2], &[7.0, 2.0])));
        assert_eq!(rows("ReduceSumSquare"), Ok(floats(&[2], &[25.0, 4.0])));
    }

    #[test]
    fn nothing_has_a_sum_but_no_maximum() {
        let case = |op| Case::new(op).input(floats(&[2, 0], &[])).attribute("axes", vec![1]);
        assert_eq!(case("ReduceSum").one(11), Ok(floats(&[2, 1], &[0.0, 0.0])));
        assert_eq!(case("ReduceProd").one(11), Ok(floats(&[2, 1], &[1.0, 1.0])));
        for op in ["ReduceMax", "ReduceMean"] {
            assert_eq!(case(op).one(11), Err(NotFolded::Unsupported));
        }
    }

    #[test]
    fn integers_are_exact_or_stay() {
        let case = |op, values: &[i64]| Case::new(op).input(ints(values)).one(11);
        assert_eq!(case("ReduceMean", &[1, 2, 6]), Ok(ints(&[3])));
        assert_eq!(case("ReduceMean", &[1, 2]), Err(NotFolded::Unsupported));
        assert_eq!(case("ReduceSum", &[i64::MAX, 1]), Err(NotFolded::Unsupported));
        assert_eq!(case("ReduceL2", &[3, 4]), Err(NotFolded::Unsupported));
        let nan = Case::new("ReduceMax").input(floats(&[1], &[f32::NAN]));
        assert_eq!(nan.one(11), Err(NotFolded::Unsupported));
    }
}
