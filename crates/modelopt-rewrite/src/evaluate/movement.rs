//! Operators that move elements without looking at them.

use modelopt_graph::{DataType, Tensor, element_count};
use ndarray::{ArrayViewD, ArrayViewMutD, Axis, IxDyn, Slice};

use super::call::{Call, Folded, NotFolded, broadcast, bytes, dense, dims_of, width};

/// Evaluates the body with `$n` as the constant size of an element in bytes.
macro_rules! by_width {
    ($width:expr, $n:ident => $body:expr) => {
        match $width {
            1 => by_width!(@ $n = 1, $body),
            2 => by_width!(@ $n = 2, $body),
            4 => by_width!(@ $n = 4, $body),
            8 => by_width!(@ $n = 8, $body),
            16 => by_width!(@ $n = 16, $body),
            _ => Err(NotFolded::Unsupported),
        }
    };
    (@ $n:ident = $value:literal, $body:expr) => {{
        const $n: usize = $value;
        $body
    }};
}

/// `Transpose`.
pub(super) fn transpose(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    let rank = data.shape().len();
    let order = match call.ints("perm")? {
        None => (0..rank).rev().collect(),
        Some(order) => dims_of(&order)?,
    };
    permuted(call, data, &order)
}

/// `data` with its axes in another order: axis `i` of the result is axis `order[i]`.
pub(super) fn permuted(call: &Call<'_>, data: &Tensor, order: &[usize]) -> Folded<Tensor> {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..data.shape().len()) {
        return Err(NotFolded::Invalid("the order of axes is not a permutation"));
    }
    arranged(call, data, &Arrange::Permute(order))
}

/// `Slice`: bounds are attributes before version 10.
pub(super) fn slice(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    let rank = data.shape().len();
    let required = NotFolded::Invalid("a required input is missing");
    let starts = call.list("starts", 1, 10)?.ok_or(required)?;
    let ends = call.list("ends", 2, 10)?.ok_or(required)?;
    let axes = match call.list("axes", 3, 10)? {
        Some(axes) => axes,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = if call.version < 10 { None } else { call.ints_input(4)? };
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(NotFolded::Invalid("the lists that say what to slice differ in length"));
    }
    call.axes(&axes, rank)?;
    let mut slices = vec![Slice::from(..); rank];
    for (((start, end), step), axis) in starts.into_iter().zip(ends).zip(steps).zip(axes) {
        let place = call.axis(axis, rank)?;
        if let (Some(slice), Some(&dim)) = (slices.get_mut(place), data.shape().get(place)) {
            *slice = bounds(dim, start, end, step)?;
        }
    }
    arranged(call, data, &Arrange::Slice(&slices))
}

/// What `start`, `end` and `step` leave of an axis of `dim` elements, clamped as ONNX says.
fn bounds(dim: usize, start: i64, end: i64, step: i64) -> Folded<Slice> {
    let dim = i64::try_from(dim).map_err(|_| NotFolded::TooLarge)?;
    let from_front = |index: i64| if index < 0 { index.saturating_add(dim) } else { index };
    let (start, end) = (from_front(start), from_front(end));
    let (low, high) = match step {
        0 => return Err(NotFolded::Invalid("a step of 0")),
        1.. => (start.clamp(0, dim), end.clamp(0, dim)),
        _ if dim == 0 => (0, 0),
        // ONNX's text clamps to the first element, its reference yields nothing.
        _ if start < 0 => return Err(NotFolded::Unsupported),
        _ => (end.clamp(-1, dim - 1) + 1, start.min(dim - 1) + 1),
    };
    let step = step.clamp(-dim.max(1), dim.max(1));
    Ok(Slice::new(low as isize, Some(high.max(low) as isize), step as isize))
}

/// `Expand`.
pub(super) fn expand(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    let wanted =
        dims_of(&call.ints_input(1)?.ok_or(NotFolded::Invalid("a required input is missing"))?)?;
    let shape = broadcast([data.shape(), &wanted])?;
    expanded(call, data, &shape)
}

/// `data` broadcast to `shape`, shared where it has that shape already.
pub(super) fn expanded(call: &Call<'_>, data: &Tensor, shape: &[usize]) -> Folded<Tensor> {
    if data.shape() == shape {
        call.room(data.dtype(), shape)?;
        return data.reshaped(shape.to_vec()).map_err(|_| NotFolded::Unsupported);
    }
    arranged(call, data, &Arrange::Broadcast(shape))
}

/// `Tile`, from version 6 on.
pub(super) fn tile(call: &Call<'_>) -> Folded<Tensor> {
    if call.version < 6 {
        return Err(NotFolded::Unsupported);
    }
    let data = call.input(0)?;
    let repeats =
        dims_of(&call.ints_input(1)?.ok_or(NotFolded::Invalid("a required input is missing"))?)?;
    if repeats.len() != data.shape().len() {
        return Err(NotFolded::Invalid("as many repeats as dimensions are needed"));
    }
    let pairs = || repeats.iter().zip(data.shape());
    let shape = pairs().map(|(&n, &dim)| n.checked_mul(dim)).collect::<Option<Vec<_>>>();
    let shape = shape.ok_or(NotFolded::TooLarge)?;
    call.room(data.dtype(), &shape)?;
    // Each axis becomes a pair: how often, and the axis itself.
    let from = data.reshaped(pairs().flat_map(|(_, &dim)| [1, dim]).collect());
    let to: Vec<usize> = pairs().flat_map(|(&n, &dim)| [n, dim]).collect();
    let from = from.map_err(|_| NotFolded::Unsupported)?;
    let tiled = arranged_unlimited(&from, &Arrange::Broadcast(&to))?;
    dense(data.dtype(), shape, tiled)
}

/// `Pad` with a constant, from version 2 on; pads are an attribute before version 11.
pub(super) fn pad(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    let rank = data.shape().len();
    let constant =
        call.attribute("mode")?.is_none() || call.node.string("mode") == Some("constant");
    if call.version < 2 || !constant {
        return Err(NotFolded::Unsupported);
    }
    let pads =
        call.list("pads", 1, 11)?.ok_or(NotFolded::Invalid("a required input is missing"))?;
    let axes = if call.version < 18 { None } else { call.ints_input(3)? };
    let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
    call.axes(&axes, rank)?;
    if Some(pads.len()) != axes.len().checked_mul(2) {
        return Err(NotFolded::Invalid("two pads for each axis are needed"));
    }
    let (begins, ends) = pads.split_at(axes.len());
    let mut shape = data.shape().to_vec();
    let mut from = vec![Slice::from(..); rank];
    let mut into = from.clone();
    for ((&axis, &begin), &end) in axes.iter().zip(begins).zip(ends) {
        let place = call.axis(axis, rank)?;
        if let (Some(dim), Some(from), Some(into)) =
            (shape.get_mut(place), from.get_mut(place), into.get_mut(place))
        {
            (*dim, *from, *into) = padding(*dim, begin, end)?;
        }
    }
    let count = call.room(data.dtype(), &shape)?;
    let value = pad_value(call, data.dtype())?;
    let padded = by_width!(value.len(), N => {
        let value = value.as_chunks::<N>().0.first().copied().unwrap_or([0; N]);
        let mut out = vec![value; count];
        padded::<N>(bytes(data)?, data.shape(), &from, &mut out, &shape, &into)
            .ok_or(NotFolded::TooLarge)?;
        Ok(out.into_flattened())
    })?;
    dense(data.dtype(), shape, padded)
}

/// The padded size of an axis, the part of the axis that stays, and where it goes.
fn padding(dim: usize, begin: i64, end: i64) -> Folded<(usize, Slice, Slice)> {
    let size = i64::try_from(dim).map_err(|_| NotFolded::TooLarge)?;
    let (first, last) = (begin.min(0).saturating_neg(), size.saturating_add(end.min(0)));
    if first > last {
        return Err(NotFolded::Unsupported);
    }
    let kept = last - first;
    let place = begin.max(0);
    let stop = place.checked_add(kept).ok_or(NotFolded::TooLarge)?;
    let padded = stop.checked_add(end.max(0)).ok_or(NotFolded::TooLarge)?;
    let range = |from: i64, to: i64| Slice::new(from as isize, Some(to as isize), 1);
    Ok((padded as usize, range(first, last), range(place, stop)))
}

fn pad_value(call: &Call<'_>, dtype: DataType) -> Folded<Vec<u8>> {
    if call.version < 11 {
        let value = call.float("value")?.unwrap_or(0.0);
        return match dtype {
            DataType::FLOAT => Ok(value.to_le_bytes().to_vec()),
            DataType::DOUBLE => Ok(f64::from(value).to_le_bytes().to_vec()),
            _ if value.to_bits() == 0 => Ok(vec![0; width(dtype)?]),
            _ => Err(NotFolded::Unsupported),
        };
    }
    match call.optional(2) {
        None => Ok(vec![0; width(dtype)?]),
        Some(value) if value.dtype() == dtype && element_count(value.shape()) == Some(1) => {
            Ok(bytes(value)?.to_vec())
        }
        Some(_) => Err(NotFolded::Invalid("the constant to pad with is not a scalar of the type")),
    }
}

fn padded<const N: usize>(
    data: &[u8],
    data_shape: &[usize],
    from: &[Slice],
    out: &mut [[u8; N]],
    out_shape: &[usize],
    into: &[Slice],
) -> Option<()> {
    if data.is_empty() || out.is_empty() {
        return Some(());
    }
    let mut source = ArrayViewD::from_shape(IxDyn(data_shape), data.as_chunks().0).ok()?;
    let mut target = ArrayViewMutD::from_shape(IxDyn(out_shape), out).ok()?;
    for (axis, (from, into)) in from.iter().zip(into).enumerate() {
        source.slice_axis_inplace(Axis(axis), *from);
        target.slice_axis_inplace(Axis(axis), *into);
    }
    copy_blocks(target, source);
    Some(())
}

/// `Concat`: the axis defaults to 1 before version 4.
pub(super) fn concat(call: &Call<'_>) -> Folded<Tensor> {
    let first = call.input(0)?;
    let default = if call.version < 4 { Some(1) } else { None };
    let axis = call.int("axis")?.or(default).ok_or(NotFolded::Invalid("the axis is missing"))?;
    let axis = call.axis(axis, first.shape().len())?;
    let parts = (0..call.inputs.len()).map(|i| call.input(i)).collect::<Folded<Vec<_>>>()?;
    let mut total = 0usize;
    for part in &parts {
        let same = part.shape().len() == first.shape().len()
            && part
                .shape()
                .iter()
                .zip(first.shape())
                .enumerate()
                .all(|(i, (a, b))| i == axis || a == b);
        if part.dtype() != first.dtype() || !same {
            return Err(NotFolded::Invalid("tensors to concatenate differ in type or shape"));
        }
        let dim = part.shape().get(axis).copied().unwrap_or(0);
        total = total.checked_add(dim).ok_or(NotFolded::TooLarge)?;
    }
    let shape = with_dim(first.shape(), axis, total);
    let count = call.room(first.dtype(), &shape)?;
    let size = count.saturating_mul(width(first.dtype())?);
    let mut out = Vec::with_capacity(size);
    let outer = shape.iter().take(axis).fold(1usize, |product, &dim| product.saturating_mul(dim));
    if count > 0 {
        let mut rows = Vec::with_capacity(parts.len());
        for part in parts {
            let part = bytes(part)?;
            if !part.is_empty() {
                rows.push(part.chunks_exact((part.len() / outer).max(1)));
            }
        }
        while out.len() < size {
            let before = out.len();
            rows.iter_mut().filter_map(Iterator::next).for_each(|row| out.extend_from_slice(row));
            if out.len() == before {
                return Err(NotFolded::Unsupported);
            }
        }
    }
    dense(first.dtype(), shape, out)
}

/// `Split`, from version 2 on: sizes are an attribute before version 13.
pub(super) fn split(call: &Call<'_>) -> Folded<Vec<Tensor>> {
    if call.version < 2 {
        return Err(NotFolded::Unsupported);
    }
    let data = call.input(0)?;
    let axis = call.axis(call.int("axis")?.unwrap_or(0), data.shape().len())?;
    let dim = data.shape().get(axis).copied().unwrap_or(0);
    let sizes = match call.list("split", 1, 13)? {
        Some(sizes) => dims_of(&sizes)?,
        None => even_split(call, dim)?,
    };
    let total = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
    if sizes.len() != call.node.outputs().len() || total != Some(dim) {
        return Err(NotFolded::Invalid("the sizes of a split do not add up"));
    }
    let count = call.room(data.dtype(), data.shape())?;
    let source = bytes(data)?;
    let row = if count == 0 { 0 } else { inner_bytes(data, axis)? };
    let mut offset = 0;
    let mut outputs = Vec::with_capacity(sizes.len());
    for size in sizes {
        let part = offset * row..(offset + size) * row;
        let mut out = Vec::new();
        if !part.is_empty() {
            out.reserve_exact(source.len() / dim * size);
            for outer in source.chunks_exact(dim * row) {
                out.extend_from_slice(outer.get(part.clone()).unwrap_or_default());
            }
        }
        offset += size;
        outputs.push(dense(data.dtype(), with_dim(data.shape(), axis, size), out)?);
    }
    Ok(outputs)
}

/// Sizes of a split that gives none: equal parts, the last one smaller from version 18 on.
fn even_split(call: &Call<'_>, dim: usize) -> Folded<Vec<usize>> {
    let parts = call.node.outputs().len();
    if call.version >= 18 {
        let declared = call.int("num_outputs")?.ok_or(NotFolded::Unsupported)?;
        if usize::try_from(declared) != Ok(parts) {
            return Err(NotFolded::Invalid("num_outputs is not the number of outputs"));
        }
    }
    if parts == 0 || (call.version < 18 && !dim.is_multiple_of(parts)) {
        return Err(NotFolded::Invalid("the axis does not split evenly"));
    }
    let size = dim.div_ceil(parts);
    let last = size.checked_mul(parts - 1).and_then(|others| dim.checked_sub(others));
    let mut sizes = vec![size; parts];
    if let Some(place) = sizes.last_mut() {
        *place = last.ok_or(NotFolded::Invalid("the axis does not split evenly"))?;
    }
    Ok(sizes)
}

/// `Gather`; negative indices from version 11 on.
pub(super) fn gather(call: &Call<'_>) -> Folded<Tensor> {
    let (data, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.axis(call.int("axis")?.unwrap_or(0), data.shape().len())?;
    let dim = data.shape().get(axis).copied().unwrap_or(0);
    if !matches!(indices.dtype(), DataType::INT32 | DataType::INT64) {
        return Err(NotFolded::Invalid("indices are neither int32 nor int64"));
    }
    let (outer, inner) = data.shape().split_at_checked(axis).unwrap_or_default();
    let shape = [outer, indices.shape(), inner.get(1..).unwrap_or_default()].concat();
    let count = call.room(data.dtype(), &shape)?;
    let places = indices
        .to_i64()
        .ok_or(NotFolded::Unsupported)?
        .into_iter()
        // Indices follow the rule of axes: negative ones from version 11 on.
        .map(|index| call.axis(index, dim))
        .collect::<Folded<Vec<usize>>>()?;
    let source = bytes(data)?;
    let mut out = Vec::new();
    if count > 0 {
        let row = inner_bytes(data, axis)?;
        out.reserve_exact(count.saturating_mul(width(data.dtype())?));
        for outer in source.chunks_exact(row.saturating_mul(dim).max(1)) {
            for &place in &places {
                out.extend_from_slice(
                    outer.get(place * row..(place + 1) * row).unwrap_or_default(),
                );
            }
        }
    }
    dense(data.dtype(), shape, out)
}

/// `Where`.
pub(super) fn choose(call: &Call<'_>) -> Folded<Tensor> {
    let (condition, yes, no) = (call.input(0)?, call.input(1)?, call.input(2)?);
    if condition.dtype() != DataType::BOOL || yes.dtype() != no.dtype() {
        return Err(NotFolded::Invalid("the types of Where do not fit"));
    }
    let shape = broadcast([condition.shape(), yes.shape(), no.shape()])?;
    call.room(yes.dtype(), &shape)?;
    let [condition, yes, no] = [
        expanded(call, condition, &shape)?,
        expanded(call, yes, &shape)?,
        expanded(call, no, &shape)?,
    ];
    let (condition, a, b) = (bytes(&condition)?, bytes(&yes)?, bytes(&no)?);
    let chosen = by_width!(width(yes.dtype())?, N => {
        let branches = a.as_chunks::<N>().0.iter().zip(b.as_chunks::<N>().0);
        let chosen = condition.iter().zip(branches).map(|(&c, (a, b))| if c == 0 { *b } else { *a });
        Ok(chosen.collect::<Vec<_>>().into_flattened())
    })?;
    dense(yes.dtype(), shape, chosen)
}

/// Bytes of what one index of an axis covers, for tensors that are not empty.
fn inner_bytes(data: &Tensor, axis: usize) -> Folded<usize> {
    let inner = data.shape().get(axis..).and_then(|dims| dims.get(1..)).unwrap_or_default();
    let count = element_count(inner).ok_or(NotFolded::TooLarge)?;
    count.checked_mul(width(data.dtype())?).ok_or(NotFolded::TooLarge)
}

fn with_dim(shape: &[usize], axis: usize, dim: usize) -> Vec<usize> {
    shape.iter().enumerate().map(|(i, &have)| if i == axis { dim } else { have }).collect()
}

/// How elements are rearranged.
enum Arrange<'a> {
    /// Axis `i` of the result is this axis of the input; a permutation of the axes.
    Permute(&'a [usize]),
    /// A slice of each axis, within its bounds.
    Slice(&'a [Slice]),
    /// Broadcast to this shape.
    Broadcast(&'a [usize]),
}

/// `data` rearranged, if the result is within the limit.
fn arranged(call: &Call<'_>, data: &Tensor, how: &Arrange<'_>) -> Folded<Tensor> {
    let shape: Vec<usize> = match how {
        Arrange::Permute(order) => {
            order.iter().filter_map(|&axis| data.shape().get(axis).copied()).collect()
        }
        Arrange::Slice(slices) => slices.iter().zip(data.shape()).map(sliced_len).collect(),
        Arrange::Broadcast(shape) => shape.to_vec(),
    };
    call.room(data.dtype(), &shape)?;
    dense(data.dtype(), shape, arranged_unlimited(data, how)?)
}

/// Length of a slice that lies within an axis.
fn sliced_len((slice, &dim): (&Slice, &usize)) -> usize {
    let end = slice.end.map_or(dim, isize::unsigned_abs);
    end.saturating_sub(slice.start.unsigned_abs()).div_ceil(slice.step.unsigned_abs().max(1))
}

fn arranged_unlimited(data: &Tensor, how: &Arrange<'_>) -> Folded<Vec<u8>> {
    let source = bytes(data)?;
    if source.is_empty() {
        return Ok(Vec::new());
    }
    by_width!(width(data.dtype())?, N => {
        let elements = source.as_chunks::<N>().0;
        let mut view = ArrayViewD::from_shape(IxDyn(data.shape()), elements)
            .map_err(|_| NotFolded::TooLarge)?;
        let copied = match how {
            Arrange::Permute(order) => copied(view.permuted_axes(IxDyn(order))),
            Arrange::Slice(slices) => {
                for (axis, slice) in slices.iter().enumerate() {
                    view.slice_axis_inplace(Axis(axis), *slice);
                }
                copied(view)
            }
            Arrange::Broadcast(shape) => view.broadcast(IxDyn(shape)).and_then(copied),
        };
        copied.map(Vec::into_flattened).ok_or(NotFolded::TooLarge)
    })
}

/// The elements of a view in row-major order.
fn copied<const N: usize>(mut from: ArrayViewD<'_, [u8; N]>) -> Option<Vec<[u8; N]>> {
    let mut out = vec![[0; N]; from.len()];
    if out.is_empty() {
        return Some(out);
    }
    // Fewer, longer axes make the loops below cheap.
    let mut into = from.ndim().saturating_sub(1);
    for take in (0..into).rev() {
        if !from.merge_axes(Axis(take), Axis(into)) {
            into = take;
        }
    }
    for axis in (0..from.ndim()).rev() {
        if from.len_of(Axis(axis)) == 1 {
            from = from.index_axis_move(Axis(axis), 0);
        }
    }
    let to = ArrayViewMutD::from_shape(from.raw_dim(), &mut out).ok()?;
    copy_blocks(to, from);
    Some(out)
}

/// Copies between views of one shape, in blocks that stay in the cache when rows of one are
/// columns of the other.
fn copy_blocks<T: Copy>(mut to: ArrayViewMutD<'_, T>, from: ArrayViewD<'_, T>) {
    const BLOCK: usize = 1 << 12;
    let rows = from.ndim().checked_sub(1).map(Axis);
    let long_rows =
        rows.is_none_or(|axis| from.len_of(axis) >= 64 && from.stride_of(axis).abs() <= 1);
    let longest = (0..from.ndim()).map(Axis).max_by_key(|&axis| from.len_of(axis));
    match longest {
        Some(axis) if from.len() > BLOCK && !long_rows => {
            let half = from.len_of(axis) / 2;
            let (from_low, from_high) = from.split_at(axis, half);
            let (to_low, to_high) = to.split_at(axis, half);
            copy_blocks(to_low, from_low);
            copy_blocks(to_high, from_high);
        }
        _ => to.assign(&from),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, bools, counting, floats, ints};
    use super::*;

    #[test]
    fn transpose_reverses_or_permutes() {
        let case = || Case::new("Transpose").input(counting(&[2, 3]));
        let turned = floats(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(case().one(13), Ok(turned.clone()));
        assert_eq!(case().attribute("perm", vec![1, 0]).one(1), Ok(turned));
        for bad in [vec![0, 0], vec![0], vec![0, 2], vec![-1, 0]] {
            assert!(matches!(case().attribute("perm", bad).one(13), Err(NotFolded::Invalid(_))));
        }
    }

    /// Against the definition, in sizes beyond one block and with axes that merge.
    #[test]
    fn large_transposes_of_every_width() {
        let shape = [3, 70, 5, 40];
        let count: usize = shape.iter().product();
        for order in [[0, 1, 3, 2], [3, 2, 1, 0], [1, 0, 2, 3], [2, 3, 0, 1], [0, 3, 1, 2]] {
            let to = order.map(|axis| shape[axis]);
            let strides: [usize; 4] =
                std::array::from_fn(|axis| shape[axis + 1..].iter().product());
            let source = |place: usize| {
                let mut rest = place;
                (0..4).rev().fold(0, |sum, axis| {
                    let index = rest % to[axis];
                    rest /= to[axis];
                    sum + index * strides[order[axis]]
                })
            };
            for dtype in [DataType::INT8, DataType::FLOAT16, DataType::FLOAT, DataType::COMPLEX128]
            {
                let width = width(dtype).unwrap();
                let bytes: Vec<u8> = (0..count * width).map(|i| (i * 7 % 251) as u8).collect();
                let expected: Vec<u8> = (0..count)
                    .flat_map(|place| bytes[source(place) * width..][..width].to_vec())
                    .collect();
                let data = dense(dtype, shape.to_vec(), bytes).unwrap();
                let perm = order.map(|axis| axis as i64).to_vec();
                let turned = Case::new("Transpose").input(data).attribute("perm", perm).one(13);
                assert_eq!(turned.unwrap(), dense(dtype, to.to_vec(), expected).unwrap());
            }
        }
    }

    fn sliced(starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]) -> Folded<Vec<f32>> {
        let lists = [starts, ends, axes, steps];
        let case = Case::new("Slice").input(counting(&[3, 4]));
        let slice = lists.iter().fold(case, |case, list| case.input(ints(list))).one(13)?;
        Ok(slice.to_f32().unwrap().into_owned())
    }

    #[test]
    fn slices_clamp_and_run_backward() {
        assert_eq!(sliced(&[1], &[100], &[0], &[2]), Ok(vec![4.0, 5.0, 6.0, 7.0]));
        assert_eq!(sliced(&[0, -1], &[1, i64::MIN], &[0, 1], &[1, -2]), Ok(vec![3.0, 1.0]));
        assert_eq!(sliced(&[0, 100], &[1, 0], &[0, -1], &[1, -1]), Ok(vec![3.0, 2.0, 1.0]));
        assert_eq!(sliced(&[2], &[1], &[0], &[1]), Ok(vec![]));
        assert_eq!(sliced(&[-100, 1], &[1, 2], &[0, 1], &[1, i64::MAX]), Ok(vec![1.0]));
        assert_eq!(sliced(&[-100], &[-200], &[0], &[-1]), Err(NotFolded::Unsupported));
        assert!(matches!(sliced(&[0], &[1], &[0], &[0]), Err(NotFolded::Invalid(_))));
        assert!(matches!(sliced(&[0, 0], &[1, 1], &[0, 0], &[1, 1]), Err(NotFolded::Invalid(_))));
        assert!(matches!(sliced(&[0], &[1], &[2], &[1]), Err(NotFolded::Invalid(_))));
        assert!(matches!(sliced(&[0], &[1, 2], &[0], &[1]), Err(NotFolded::Invalid(_))));
    }

    #[test]
    fn slice_bounds_are_attributes_before_10() {
        let case = Case::new("Slice")
            .input(counting(&[3, 2]))
            .attribute("starts", vec![-2])
            .attribute("ends", vec![-1]);
        assert_eq!(case.one(9), Ok(floats(&[1, 2], &[2.0, 3.0])));
        assert!(case.one(10).is_err());
    }

    #[test]
    fn concat_and_split_undo_each_other() {
        let parts = [counting(&[2, 1, 2]), counting(&[2, 0, 2]), counting(&[2, 3, 2])];
        let all = parts
            .iter()
            .cloned()
            .fold(Case::new("Concat").attribute("axis", -2), Case::input)
            .one(13)
            .unwrap();
        assert_eq!(all.shape(), [2, 4, 2]);
        let split = |case: Case| case.attribute("axis", 1).outputs(3);
        let input = Case::new("Split").input(all.clone()).input(ints(&[1, 0, 3]));
        assert_eq!(split(input).run(13), Ok(parts.to_vec()));
        let attribute = Case::new("Split").input(all.clone()).attribute("split", vec![1, 0, 3]);
        assert_eq!(split(attribute).run(11), Ok(parts.to_vec()));
        let wrong = Case::new("Split").input(all).input(ints(&[1, 1, 1]));
        assert!(matches!(split(wrong).run(13), Err(NotFolded::Invalid(_))));
        let unlike =
            Case::new("Concat").attribute("axis", 0).input(counting(&[1])).input(ints(&[1]));
        assert!(matches!(unlike.one(13), Err(NotFolded::Invalid(_))));
    }

    #[test]
    fn the_last_part_of_an_even_split_may_be_smaller_from_18_on() {
        let split = |outputs: usize, version| {
            let case = Case::new("Split").input(counting(&[7])).outputs(outputs);
            let parts = case.attribute("num_outputs", outputs as i64).run(version)?;
            Ok(parts.iter().map(Tensor::len).collect::<Vec<_>>())
        };
        assert_eq!(split(3, 18), Ok(vec![3, 3, 1]));
        assert_eq!(split(7, 13), Ok(vec![1; 7]));
        assert!(matches!(split(3, 13), Err(NotFolded::Invalid(_))));
        assert!(matches!(split(5, 18), Err(NotFolded::Invalid(_))));
    }

    #[test]
    fn gather_along_any_axis() {
        let gathered = |axis: i64, indices: &[i64], version| {
            let case = Case::new("Gather").input(counting(&[2, 3])).input(ints(indices));
            case.attribute("axis", axis).one(version)
        };
        assert_eq!(gathered(0, &[1], 1), Ok(floats(&[1, 3], &[3.0, 4.0, 5.0])));
        assert_eq!(gathered(-1, &[-1, 0], 11), Ok(floats(&[2, 2], &[2.0, 0.0, 5.0, 3.0])));
        assert_eq!(gathered(1, &[-1], 10), Err(NotFolded::Unsupported));
        assert_eq!(gathered(1, &[], 13), Ok(floats(&[2, 0], &[])));
        assert!(matches!(gathered(0, &[2], 13), Err(NotFolded::Invalid(_))));
        let scalar = Case::new("Gather").input(ints(&[7, 8])).input(Tensor::scalar(1i32)).one(13);
        assert_eq!(scalar, Ok(Tensor::scalar(8i64)));
    }

    #[test]
    fn expand_and_tile_repeat() {
        let of = |op, shape: &[usize], list: &[i64]| {
            Case::new(op).input(counting(shape)).input(ints(list)).limit(1 << 10).one(13)
        };
        assert_eq!(of("Expand", &[2, 1], &[2]), Ok(floats(&[2, 2], &[0.0, 0.0, 1.0, 1.0])));
        assert_eq!(of("Expand", &[2], &[1, 1]), Ok(floats(&[1, 2], &[0.0, 1.0])));
        assert_eq!(of("Expand", &[1], &[0]).unwrap().shape(), [0]);
        assert_eq!(of("Expand", &[1], &[1 << 50]), Err(NotFolded::TooLarge));
        assert!(matches!(of("Expand", &[2], &[3]), Err(NotFolded::Invalid(_))));
        let tiled = floats(&[2, 4], &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
        assert_eq!(of("Tile", &[1, 2], &[2, 2]), Ok(tiled));
        assert_eq!(of("Tile", &[2], &[0]).unwrap().shape(), [0]);
        assert_eq!(of("Tile", &[2], &[i64::MAX]), Err(NotFolded::TooLarge));
        assert!(matches!(of("Tile", &[2], &[-1]), Err(NotFolded::Invalid(_))));
    }

    #[test]
    fn pad_adds_and_removes() {
        let data = || Case::new("Pad").input(counting(&[2, 2]));
        let padded = floats(&[1, 4], &[9.0, 2.0, 3.0, 9.0]);
        let input = data().input(ints(&[-1, 1, 0, 1])).input(Tensor::scalar(9f32));
        assert_eq!(input.one(11), Ok(padded.clone()));
        let attribute = data().attribute("pads", vec![-1, 1, 0, 1]).attribute("value", 9f32);
        assert_eq!(attribute.one(2), Ok(padded));
        let axes = data().input(ints(&[0, 1])).skip().input(ints(&[-1]));
        assert_eq!(axes.one(18), Ok(floats(&[2, 3], &[0.0, 1.0, 0.0, 2.0, 3.0, 0.0])));
        assert!(matches!(axes.one(17), Err(NotFolded::Invalid(_))));
        assert_eq!(data().input(ints(&[-3, 0, 9, 0])).one(13), Err(NotFolded::Unsupported));
        assert_eq!(data().input(ints(&[0, 0, i64::MAX, 0])).one(13), Err(NotFolded::TooLarge));
        let reflect = data().input(ints(&[0; 4])).attribute("mode", "reflect");
        assert_eq!(reflect.one(13), Err(NotFolded::Unsupported));
    }

    #[test]
    fn where_broadcasts_all_three() {
        let case = Case::new("Where")
            .input(bools(&[true, false]))
            .input(floats(&[2, 1], &[1.0, 2.0]))
            .input(floats(&[], &[0.0]));
        assert_eq!(case.one(9), Ok(floats(&[2, 2], &[1.0, 0.0, 2.0, 0.0])));
        let wrong = Case::new("Where").input(ints(&[1])).input(ints(&[1])).input(ints(&[1]));
        assert!(matches!(wrong.one(9), Err(NotFolded::Invalid(_))));
    }

    #[test]
    fn elements_below_a_byte_do_not_move() {
        let int4 = || Tensor::dense(DataType::INT4, vec![2, 2], vec![0x21, 0x43]).unwrap();
        assert_eq!(Case::new("Transpose").input(int4()).one(21), Err(NotFolded::Unsupported));
        let strings = modelopt_graph::Payload::Strings(vec!["a".into(), "b".into()]);
        let strings = Tensor::new(DataType::STRING, vec![2], strings).unwrap();
        assert_eq!(Case::new("Transpose").input(strings).one(13), Err(NotFolded::Unsupported));
    }
}
