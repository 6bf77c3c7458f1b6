//! Looks at what flows through the original: its activations become outputs, a group at a time so
//! that memory stays bounded, and are measured sample by sample.

use std::collections::HashMap;

use modelopt_graph::{Dim, Model, Tensor, Type, ValueId, infer};
use modelopt_rewrite::{self as rewrite, Precision, Rounding};
use modelopt_runtime::Sample;

use crate::Progress;
use crate::scratch::Scratch;
use crate::target::{self, Place};
use crate::witness;

/// The most that one group of activations takes, in bytes.
const GROUP_BYTES: u64 = 256 << 20;

/// What an activation is taken to have where its size is not known, in bytes.
const UNKNOWN_BYTES: u64 = 8 << 20;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// Activations that rounding to 16 bits takes too much of, with the reason.
    pub(crate) unfit: HashMap<ValueId, String>,
    /// What could not be looked at, in words.
    pub(crate) warning: Option<String>,
}

/// Measures what rounding to `to` would take from each activation of a prepared model.
pub(crate) fn activations(
    prepared: &Model,
    to: Precision,
    min_sqnr_db: f64,
    samples: &[Sample],
    place: &Place<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Observed {
    progress(Progress::Step("measuring activations"));
    let mut found: HashMap<ValueId, Rounding> = HashMap::new();
    let mut add = |value: ValueId, tensor: &Tensor| {
        if let Some(numbers) = tensor.to_f32() {
            let rounding = rewrite::rounding(&numbers, to);
            let sum = found.get(&value).map_or(rounding, |&known| known.and(rounding));
            found.insert(value, sum);
        }
    };
    let inner = rewrite::measurable(prepared, to);
    let seen = values(prepared, &inner, samples, place, progress, &mut add);
    let warning = seen.err().map(|why| {
        format!("activations could not be measured, so that their range is not known: {why}")
    });
    let unfit = found.into_iter().filter_map(|(value, rounding)| {
        let name = prepared.value(value).name();
        Some((value, format!("'{name}' {}", rounding.objection(to, min_sqnr_db)?)))
    });
    Observed { unfit: unfit.collect(), warning }
}

/// Shows values of the main graph on all samples, a group at a time. The model runs once for each
/// group and sample. Where one group cannot be shown the others are, and the reason is told.
pub(crate) fn values(
    prepared: &Model,
    wanted: &[ValueId],
    samples: &[Sample],
    place: &Place<'_>,
    progress: &mut dyn FnMut(Progress),
    see: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<(), String> {
    let (inputs, inner): (Vec<ValueId>, Vec<ValueId>) =
        wanted.iter().partition(|&&value| prepared.producer_node(value).is_none());
    for value in inputs {
        let name = prepared.value(value).name();
        samples.iter().filter_map(|s| s.inputs.get(name)).for_each(|tensor| see(value, tensor));
    }
    let groups = groups(prepared, &inner, samples);
    let total = groups.len() * samples.len();
    let mut failed = None;
    for (index, group) in groups.iter().enumerate() {
        let seen = look(prepared, group, samples, place, &mut |sample, value, tensor| {
            see(value, tensor);
            progress(Progress::Part { done: index * samples.len() + sample + 1, total });
        });
        failed = seen.err().or(failed);
    }
    failed.map_or(Ok(()), Err)
}

/// Puts values together that fit into memory at once.
fn groups(prepared: &Model, values: &[ValueId], samples: &[Sample]) -> Vec<Vec<ValueId>> {
    let shaped = shaped(prepared, samples);
    let mut groups: Vec<Vec<ValueId>> = Vec::new();
    let mut left = 0;
    for &value in values {
        let size = size(&shaped, value);
        match groups.last_mut() {
            Some(group) if size <= left => group.push(value),
            _ => {
                groups.push(vec![value]);
                left = GROUP_BYTES;
            }
        }
        left = left.saturating_sub(size);
    }
    groups
}

/// The model with the sizes that the largest sample has.
pub(crate) fn shaped(prepared: &Model, samples: &[Sample]) -> Model {
    let mut shaped = prepared.clone();
    let size = |sample: &&Sample| -> usize { sample.inputs.values().map(Tensor::byte_len).sum() };
    let Some(largest) = samples.iter().max_by_key(size) else { return shaped };
    for info in prepared.graph(prepared.main()).inputs.clone() {
        let name = prepared.value(info.value).name();
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

/// Runs the model on all samples with some values of its main graph as outputs.
fn look(
    prepared: &Model,
    values: &[ValueId],
    samples: &[Sample],
    place: &Place<'_>,
    see: &mut dyn FnMut(usize, ValueId, &Tensor),
) -> Result<(), String> {
    let mut model = prepared.clone();
    witness::show(&mut model, values);
    let scratch = Scratch::new()?;
    let staged = scratch.write(&place.copies.of(&model), "activations.onnx")?;
    let session = place.prepare(staged.path());
    let mut session = session.map_err(|error| target::without_path(&error))?;
    for (index, sample) in samples.iter().enumerate() {
        let outputs = session.run(&sample.inputs).map_err(|error| target::without_path(&error))?;
        for &value in values {
            if let Some(tensor) = outputs.get(model.value(value).name()) {
                see(index, value, tensor);
            }
        }
    }
    Ok(())
}
