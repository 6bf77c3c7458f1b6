//! How many values fit into memory at once.

use modelopt_graph::{Dim, Model, Type, ValueId, infer};
use modelopt_runtime::Sample;

use crate::samples::largest;

/// The most that one group of values takes, in bytes.
pub(crate) const GROUP_BYTES: u64 = 256 << 20;

/// What a value is taken to have where its size is not known, in bytes.
const UNKNOWN_BYTES: u64 = 8 << 20;

/// Puts values together that take no more than `most` bytes at once.
pub(crate) fn groups(
    model: &Model,
    values: &[ValueId],
    largest: Option<&Sample>,
    most: u64,
) -> Vec<Vec<ValueId>> {
    if values.is_empty() {
        return Vec::new();
    }
    let shaped = shaped_by(model, largest);
    let mut groups: Vec<Vec<ValueId>> = Vec::new();
    let mut left = 0;
    for &value in values {
        let size = size(&shaped, value);
        match groups.last_mut() {
            Some(group) if size <= left => group.push(value),
            _ => {
                groups.push(vec![value]);
                left = most;
            }
        }
        left = left.saturating_sub(size);
    }
    groups
}

/// The model with the sizes that the largest sample has.
pub fn shaped(model: &Model, samples: &[Sample]) -> Model {
    shaped_by(model, largest(samples))
}

fn shaped_by(model: &Model, largest: Option<&Sample>) -> Model {
    let mut shaped = model.clone();
    let Some(largest) = largest else { return shaped };
    for info in model.graph(model.main()).inputs.clone() {
        let name = model.value(info.value).name();
        if let Some(tensor) = largest.inputs.get(name) {
            let dims = tensor.shape().iter().map(|&size| Dim::Fixed(size)).collect();
            let ty = Type::Tensor { elem: tensor.dtype(), shape: Some(dims) };
            shaped.set_type(info.value, Some(ty));
        }
    }
    infer::infer(&mut shaped);
    shaped
}

fn size(model: &Model, value: ValueId) -> u64 {
    let Some(Type::Tensor { elem, shape: Some(shape) }) = model.value(value).ty() else {
        return UNKNOWN_BYTES;
    };
    let bytes = u64::from(elem.bits().unwrap_or(32) / 8);
    shape
        .iter()
        .try_fold(bytes, |product, dim| product.checked_mul(dim.fixed()? as u64))
        .unwrap_or(UNKNOWN_BYTES)
}
