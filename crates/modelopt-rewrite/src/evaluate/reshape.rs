//! Operators that look at the shape only; results share the payload of their input.

use modelopt_graph::{DataType, Tensor, element_count};

use super::call::{Call, Folded, MAX_RANK, NotFolded, dims_of};

/// `Identity`.
pub(super) fn identity(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    shared(call, data, data.shape().to_vec())
}

/// `Reshape`: the shape is an attribute before version 5; `allowzero` came with 14.
pub(super) fn reshape(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    let wanted =
        call.list("shape", 1, 5)?.ok_or(NotFolded::Invalid("a required input is missing"))?;
    let allow_zero = call.flag("allowzero", false, 14)?;
    if allow_zero && wanted.contains(&0) && wanted.contains(&-1) {
        return Err(NotFolded::Invalid("the shape has both 0 and -1"));
    }
    let mut shape = Vec::with_capacity(wanted.len());
    let mut inferred = None;
    for (axis, &dim) in wanted.iter().enumerate() {
        match dim {
            0 if !allow_zero => {
                let copied = data.shape().get(axis);
                shape.push(*copied.ok_or(NotFolded::Invalid("a 0 has no dimension to copy"))?);
            }
            -1 if inferred.is_none() => inferred = Some(axis),
            _ => shape.extend(dims_of(&[dim])?),
        }
    }
    if let Some(axis) = inferred {
        let known = element_count(&shape).ok_or(NotFolded::TooLarge)?;
        let count = element_count(data.shape()).ok_or(NotFolded::TooLarge)?;
        if count.checked_rem(known) != Some(0) {
            return Err(NotFolded::Invalid("the -1 of the shape cannot be inferred"));
        }
        shape.insert(axis.min(shape.len()), count / known);
    }
    shared(call, data, shape)
}

/// `Flatten`.
pub(super) fn flatten(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    let rank = data.shape().len();
    let axis = call.int("axis")?.unwrap_or(1);
    let axis = if usize::try_from(axis) == Ok(rank) { rank } else { call.axis(axis, rank)? };
    let (outer, inner) = data
        .shape()
        .split_at_checked(axis)
        .ok_or(NotFolded::Invalid("an axis or index is out of range"))?;
    let count = |dims| element_count(dims).ok_or(NotFolded::TooLarge);
    shared(call, data, vec![count(outer)?, count(inner)?])
}

/// `Squeeze`: axes are an attribute before version 13.
pub(super) fn squeeze(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    let gone: Vec<bool> = match call.list("axes", 1, 13)? {
        None => data.shape().iter().map(|&dim| dim == 1).collect(),
        // The reference takes an empty list as no axes, runtimes take it as all.
        Some(axes) if axes.is_empty() => return Err(NotFolded::Unsupported),
        Some(axes) => call.axes(&axes, data.shape().len())?,
    };
    let mut shape = Vec::new();
    for (&dim, gone) in data.shape().iter().zip(gone) {
        match (gone, dim) {
            (false, dim) => shape.push(dim),
            (true, 1) => {}
            (true, _) => return Err(NotFolded::Invalid("a squeezed dimension is not 1")),
        }
    }
    shared(call, data, shape)
}

/// `Unsqueeze`: axes are an attribute before version 13.
pub(super) fn unsqueeze(call: &Call<'_>) -> Folded<Tensor> {
    let data = call.input(0)?;
    let axes =
        call.list("axes", 1, 13)?.ok_or(NotFolded::Invalid("a required input is missing"))?;
    let rank = data.shape().len().saturating_add(axes.len());
    if rank > MAX_RANK {
        return Err(NotFolded::Unsupported);
    }
    let mut dims = data.shape().iter();
    let shape = call
        .axes(&axes, rank)?
        .into_iter()
        .map(|new| if new { Some(1) } else { dims.next().copied() })
        .collect::<Option<Vec<usize>>>();
    shared(call, data, shape.ok_or(NotFolded::Invalid("an axis is given twice"))?)
}

/// `Shape`, with `start` and `end` from version 15 on.
pub(super) fn shape(call: &Call<'_>) -> Folded<Tensor> {
    let dims = call.input(0)?.shape();
    let rank = dims.len() as i64;
    let bound = |name, default| -> Folded<usize> {
        let value = if call.version < 15 { default } else { call.int(name)?.unwrap_or(default) };
        let value = if value < 0 { value.saturating_add(rank) } else { value };
        Ok(value.clamp(0, rank) as usize)
    };
    let range = bound("start", 0)?..bound("end", rank)?;
    let dims: Vec<i64> = dims.get(range).unwrap_or_default().iter().map(|&d| d as i64).collect();
    call.room(DataType::INT64, &[dims.len()])?;
    Tensor::of(vec![dims.len()], &dims).map_err(|_| NotFolded::Unsupported)
}

/// `Size`.
pub(super) fn size(call: &Call<'_>) -> Folded<Tensor> {
    call.room(DataType::INT64, &[])?;
    let count = element_count(call.input(0)?.shape()).ok_or(NotFolded::TooLarge)?;
    Ok(Tensor::scalar(i64::try_from(count).map_err(|_| NotFolded::TooLarge)?))
}

/// `data` in another shape, without a copy; of any element type.
fn shared(call: &Call<'_>, data: &Tensor, shape: Vec<usize>) -> Folded<Tensor> {
    if shape.len() > MAX_RANK {
        return Err(NotFolded::Unsupported);
    }
    if data.byte_len() > call.max_bytes {
        return Err(NotFolded::TooLarge);
    }
    // The length of unknown element types is not checked by the tensor.
    if element_count(&shape) != element_count(data.shape()) {
        return Err(NotFolded::Invalid("the shapes have different numbers of elements"));
    }
    data.reshaped(shape).map_err(|_| NotFolded::Invalid("the shapes differ in size"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, counting, ints};
    use super::*;

    fn shape_of(case: &Case, version: i64) -> Folded<Vec<usize>> {
        case.one(version).map(|tensor| tensor.shape().to_vec())
    }

    fn reshaped(from: &[usize], to: &[i64]) -> Case {
        Case::new("Reshape").input(counting(from)).input(ints(to))
    }

    #[test]
    fn reshape_copies_infers_and_takes_zeros() {
        assert_eq!(shape_of(&reshaped(&[2, 3, 4], &[0, -1]), 13), Ok(vec![2, 12]));
        assert_eq!(shape_of(&reshaped(&[2, 3], &[-1, 3, 1]), 5), Ok(vec![2, 3, 1]));
        assert_eq!(shape_of(&reshaped(&[1], &[]), 13), Ok(vec![]));
        let attribute = Case::new("Reshape").input(counting(&[4])).attribute("shape", vec![2, -1]);
        assert_eq!(shape_of(&attribute, 1), Ok(vec![2, 2]));
        let zero = |to| reshaped(&[0, 3], to).attribute("allowzero", 1);
        assert_eq!(shape_of(&zero(&[5, 0]), 14), Ok(vec![5, 0]));
        assert!(shape_of(&zero(&[-1, 0]), 14).is_err());
        assert!(shape_of(&zero(&[5, 0]), 13).is_err());
        assert!(shape_of(&reshaped(&[0, 3], &[0, -1]), 14).is_err());
        assert!(shape_of(&reshaped(&[6], &[-1, -1]), 14).is_err());
        assert!(shape_of(&reshaped(&[6], &[-1, 4]), 14).is_err());
        assert!(shape_of(&reshaped(&[6], &[6, 0]), 14).is_err());
        assert!(shape_of(&reshaped(&[6], &[1 << 62, 1 << 62, -1]), 14).is_err());
    }

    #[test]
    fn the_payload_is_shared() {
        let data = counting(&[2, 3]);
        let place = data.bytes().map(|bytes| bytes.as_ptr());
        let case = Case::new("Reshape").input(data).input(ints(&[6]));
        assert_eq!(case.one(13).unwrap().bytes().map(|bytes| bytes.as_ptr()), place);
        assert_eq!(case.limit(23).one(13), Err(NotFolded::TooLarge));
    }

    #[test]
    fn flatten_splits_the_shape() {
        let at =
            |axis: i64| Case::new("Flatten").input(counting(&[2, 3, 4])).attribute("axis", axis);
        assert_eq!(shape_of(&at(0), 9), Ok(vec![1, 24]));
        assert_eq!(shape_of(&at(3), 9), Ok(vec![24, 1]));
        assert_eq!(shape_of(&at(-1), 11), Ok(vec![6, 4]));
        assert!(shape_of(&at(-1), 9).is_err());
        assert!(shape_of(&at(4), 13).is_err());
        let default = Case::new("Flatten").input(counting(&[2, 3, 4]));
        assert_eq!(shape_of(&default, 13), Ok(vec![2, 12]));
    }

    #[test]
    fn axes_are_attributes_before_13_and_inputs_after() {
        let old = |op| Case::new(op).input(counting(&[1, 3, 1])).attribute("axes", vec![0]);
        let new = |op, axes| Case::new(op).input(counting(&[1, 3, 1])).input(ints(axes));
        assert_eq!(shape_of(&old("Squeeze"), 11), Ok(vec![3, 1]));
        assert_eq!(shape_of(&old("Squeeze"), 13), Ok(vec![3]));
        assert_eq!(shape_of(&new("Squeeze", &[-1]), 13), Ok(vec![1, 3]));
        assert!(shape_of(&new("Squeeze", &[1]), 13).is_err());
        assert!(shape_of(&new("Squeeze", &[0, -3]), 13).is_err());
        assert_eq!(shape_of(&new("Squeeze", &[]), 13), Err(NotFolded::Unsupported));
        assert_eq!(shape_of(&old("Unsqueeze"), 11), Ok(vec![1, 1, 3, 1]));
        assert!(shape_of(&old("Unsqueeze"), 13).is_err());
        assert_eq!(shape_of(&new("Unsqueeze", &[-1, 1]), 13), Ok(vec![1, 1, 3, 1, 1]));
        assert!(shape_of(&new("Unsqueeze", &[0, 0]), 13).is_err());
        assert!(shape_of(&new("Unsqueeze", &[4]), 13).is_err());
    }

    #[test]
    fn shape_and_size_of_any_type() {
        let int4 = || Tensor::dense(DataType::INT4, vec![3, 1], vec![0, 0]).unwrap();
        let case = Case::new("Shape").input(int4()).attribute("start", -1);
        assert_eq!(case.one(15), Ok(ints(&[1])));
        assert_eq!(case.one(13), Ok(ints(&[3, 1])));
        assert_eq!(case.attribute("end", 0).one(15), Ok(ints(&[])));
        assert_eq!(Case::new("Size").input(int4()).one(13), Ok(Tensor::scalar(3i64)));
    }
}
