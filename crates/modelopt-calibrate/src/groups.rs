//! How many values fit into memory at once.

use std::collections::HashMap;

use modelopt_graph::{
    DataType, Dim, Model, NewNode, Operator, Origin, Place, Type, ValueId, ValueInfo, infer,
};
use modelopt_runtime::Sample;

use crate::samples::largest;
use crate::session::OpenSession;

/// The most that one group of values takes, in bytes.
pub(crate) const GROUP_BYTES: u64 = 256 << 20;

/// What a value is taken to have where its size is not known, in bytes.
const UNKNOWN_BYTES: u64 = 8 << 20;

/// Puts values together that take no more than `most` bytes at once, in their order.
pub(crate) fn groups(values: &[ValueId], sizes: &Sizes, most: u64) -> Vec<Vec<ValueId>> {
    let mut groups: Vec<Vec<ValueId>> = Vec::new();
    let mut left = 0;
    for &value in values {
        let size = sizes.of(value);
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

/// How large values are on a sample, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Sizes(HashMap<ValueId, u64>);

impl Sizes {
    /// As far as inference tells.
    pub(crate) fn inferred(model: &Model, values: &[ValueId], sample: Option<&Sample>) -> Self {
        if values.is_empty() {
            return Sizes::default();
        }
        let shaped = shaped_by(model, sample);
        let known = |value: &ValueId| Some((*value, size(&shaped, *value)?));
        Sizes(values.iter().filter_map(known).collect())
    }

    /// Asks the model itself for the shapes of values that inference does not know: their shapes are
    /// outputs of a copy of it, which take next to nothing. Where that does not run nothing is learnt.
    pub(crate) fn ask(
        &mut self,
        model: &Model,
        values: &[ValueId],
        sample: &Sample,
        sessions: &dyn OpenSession,
    ) {
        let unknown = values.iter().copied().filter(|value| !self.0.contains_key(value));
        let mut asking = model.clone();
        let asked: Vec<(ValueId, String)> =
            unknown.map(|value| (value, show_shape(&mut asking, value))).collect();
        if asked.is_empty() {
            return;
        }
        let Ok(mut session) = sessions.open(&asking) else { return };
        let Ok(outputs) = session.run(&sample.inputs) else { return };
        let told = asked.iter().filter_map(|(value, name)| {
            let shape = outputs.get(name)?.to_i64()?;
            let bytes = u64::from(model.value(*value).elem()?.bits()? / 8);
            let product = |bytes: u64, &dim: &i64| bytes.checked_mul(u64::try_from(dim).ok()?);
            Some((*value, shape.iter().try_fold(bytes, product)?))
        });
        self.0.extend(told);
    }

    fn of(&self, value: ValueId) -> u64 {
        self.0.get(&value).copied().unwrap_or(UNKNOWN_BYTES)
    }
}

/// Makes the shape of a value an output, and gives its name.
fn show_shape(model: &mut Model, value: ValueId) -> String {
    let name = model.fresh_name("shape");
    let shape = model.add_value(name.clone());
    let node = NewNode {
        name: String::new(),
        op: Operator::onnx("Shape"),
        inputs: vec![Some(value)],
        outputs: vec![Some(shape)],
        attributes: Vec::new(),
        origin: Origin::NONE,
    };
    let main = model.main();
    model.insert(node, Place::Back(main));
    let ty = Type::Tensor { elem: DataType::INT64, shape: None };
    model.add_output(main, ValueInfo { value: shape, ty: Some(ty.into()), origin: Origin::NONE });
    name
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

/// None where it is not known.
fn size(model: &Model, value: ValueId) -> Option<u64> {
    let Some(Type::Tensor { elem, shape: Some(shape) }) = model.value(value).ty() else {
        return None;
    };
    let bytes = u64::from(elem.bits().unwrap_or(32) / 8);
    shape.iter().try_fold(bytes, |product, dim| product.checked_mul(dim.fixed()? as u64))
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use modelopt_graph::Tensor;
    use modelopt_runtime::{Outputs, RuntimeError, SampleKind, Session};

    use super::*;
    use crate::testing;

    /// Says that all shapes it is asked for are the same.
    struct Shapes {
        asked: Vec<String>,
        shape: Vec<i64>,
    }

    impl Session for Shapes {
        fn run(&mut self, _: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
            let shape = Tensor::of(vec![self.shape.len()], &self.shape).unwrap();
            Ok(self.asked.iter().map(|name| (name.clone(), shape.clone())).collect())
        }
    }

    fn values(model: &Model, names: &[&str]) -> Vec<ValueId> {
        let of = |name: &&str| model.values().find(|&v| model.value(v).name() == *name).unwrap();
        names.iter().map(of).collect()
    }

    /// The sizes that a model tells whose shapes are said to be this.
    fn asked(shape: &[i64]) -> Vec<u64> {
        let mut model = testing::model();
        let values = values(&model, &["y", "z"]);
        let float = Type::Tensor { elem: DataType::FLOAT, shape: None };
        model.set_type(values[0], Some(float));
        let inputs = IndexMap::new();
        let sample = Sample { name: "s".to_owned(), inputs, kind: SampleKind::Real };
        let mut sizes = Sizes(HashMap::from([(values[1], 8)]));
        let open = |model: &Model| -> Result<Box<dyn Session>, RuntimeError> {
            let outputs = model.graph(model.main()).outputs.iter();
            let asked = outputs.map(|info| model.value(info.value).name().to_owned()).collect();
            Ok(Box::new(Shapes { asked, shape: shape.to_vec() }))
        };
        sizes.ask(&model, &values, &sample, &open);
        values.iter().map(|&value| sizes.of(value)).collect()
    }

    #[test]
    fn what_inference_does_not_know_the_model_is_asked_for() {
        // What is known stays.
        assert_eq!(asked(&[1, 3, 5]), [60, 8]);
        assert_eq!(asked(&[]), [4, 8]);
        // A size that cannot be is none.
        assert_eq!(asked(&[-1]), [UNKNOWN_BYTES, 8]);
        assert_eq!(asked(&[i64::MAX, i64::MAX]), [UNKNOWN_BYTES, 8]);
    }

    #[test]
    fn groups_are_filled_in_order() {
        let model = testing::model();
        let all = values(&model, &["x", "y", "z", "w"]);
        let sizes = Sizes(all.iter().copied().zip([60, 40, 30, 200]).collect());
        let filled: Vec<usize> = groups(&all, &sizes, 100).iter().map(Vec::len).collect();
        assert_eq!(filled, [2, 1, 1]);
    }
}
