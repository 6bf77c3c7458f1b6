//! Outputs of every type as named tensors.
//!
//! What is compared, measured and reported are tensors by name. Other values become several:
//!
//! | output | entries |
//! |---|---|
//! | tensor `y` | `y` |
//! | sequence `ys` | `ys.length` (int64 scalar), then `ys[0]`, `ys[1]` and so on |
//! | sequence `ys` of more than 16 tensors of one type and shape | `ys.length`, then `ys[..]`, in which they lie one behind the other |
//! | map `m` | `m.keys` (int64 or string, ascending) and `m.values` in their order |
//! | sequence of maps `p` that all have the same keys | `p.keys` `[k]` and `p.values` `[n, k]` |
//! | other sequence of maps `p` | `p.length`, then `p[0].keys`, `p[0].values` and so on |
//! | optional `o` | `o.present` (bool scalar), then the entries of the value, if there is one |
//!
//! So a sequence that becomes longer, an empty one, a key that is lost and a value that is missing are
//! seen as differences.

use indexmap::IndexMap;
use modelopt_graph::{DataType, Model, NodeId, Payload, Tensor, Type, ValueId};

use crate::{LeftOut, OutputSpec, RuntimeError};

/// Named outputs, in the order of the graph's outputs. Those that are no tensors are several
/// entries:
///
/// - a sequence `ys`: `ys.length` (int64 scalar), then `ys[0]`, `ys[1]` and so on, or, where there
///   are more than 16 of one type and shape, `ys[..]`, in which they lie one behind the other;
/// - a map `m`: `m.keys` (int64 or string, ascending) and `m.values`;
/// - a sequence `p` of maps that have the same keys: `p.keys` `[k]` and `p.values` `[n, k]`;
/// - an optional `o`: `o.present` (bool scalar), then its value under `o`, if there is one.
pub type Outputs = IndexMap<String, Tensor>;

/// Longer sequences are one entry, if their elements are of one type and shape.
const MOST_APART: usize = 16;

/// A value that a runtime returned.
#[cfg_attr(not(feature = "onnxruntime"), allow(dead_code))] // Others return no maps and optionals.
#[derive(Clone, Debug)]
pub(crate) enum Returned {
    Tensor(Tensor),
    Sequence(Vec<Returned>),
    /// As many values as keys, both of rank 1.
    Map {
        keys: Tensor,
        values: Tensor,
    },
    /// An optional.
    Optional(Option<Box<Returned>>),
}

impl Returned {
    /// Adds the entries of a value.
    pub(crate) fn flatten(self, name: &str, outputs: &mut Outputs) {
        match self {
            Returned::Tensor(tensor) => {
                outputs.insert(name.to_owned(), tensor);
            }
            Returned::Sequence(values) => {
                if let Some((keys, values)) = stacked(&values) {
                    outputs.insert(format!("{name}.keys"), keys);
                    outputs.insert(format!("{name}.values"), values);
                    return;
                }
                let length = Tensor::scalar(values.len() as i64);
                outputs.insert(format!("{name}.length"), length);
                if let (true, Some(all)) = (values.len() > MOST_APART, joined(&values)) {
                    outputs.insert(format!("{name}[..]"), all);
                    return;
                }
                for (at, value) in values.into_iter().enumerate() {
                    value.flatten(&format!("{name}[{at}]"), outputs);
                }
            }
            Returned::Map { keys, values } => {
                let (keys, values) = sorted(keys, values);
                outputs.insert(format!("{name}.keys"), keys);
                outputs.insert(format!("{name}.values"), values);
            }
            Returned::Optional(value) => {
                let present = Payload::Dense(vec![u8::from(value.is_some())].into());
                if let Ok(present) = Tensor::new(DataType::BOOL, Vec::new(), present) {
                    outputs.insert(format!("{name}.present"), present);
                }
                if let Some(value) = value {
                    value.flatten(name, outputs);
                }
            }
        }
    }
}

/// The keys and the values, one row each, of maps that all have the same keys.
fn stacked(values: &[Returned]) -> Option<(Tensor, Tensor)> {
    let mut common: Option<Tensor> = None;
    let mut rows = Vec::with_capacity(values.len());
    for value in values {
        let Returned::Map { keys, values } = value else { return None };
        let (keys, values) = sorted(keys.clone(), values.clone());
        if common.as_ref().is_some_and(|common| *common != keys) {
            return None;
        }
        common = Some(keys);
        rows.push(values);
    }
    let first = rows.first()?;
    let shape = vec![rows.len(), first.len()];
    let mut bytes = Vec::new();
    for row in &rows {
        if row.dtype() != first.dtype() || row.len() != first.len() {
            return None;
        }
        bytes.extend_from_slice(row.bytes()?);
    }
    let values = Tensor::dense(first.dtype(), shape, bytes).ok()?;
    Some((common?, values))
}

/// Tensors of one type and shape behind each other, along a new first axis.
fn joined(values: &[Returned]) -> Option<Tensor> {
    let Some(Returned::Tensor(first)) = values.first() else { return None };
    let (mut dense, mut strings) = (Vec::new(), Vec::new());
    for value in values {
        let Returned::Tensor(tensor) = value else { return None };
        if (tensor.dtype(), tensor.shape()) != (first.dtype(), first.shape()) {
            return None;
        }
        match tensor.payload() {
            Payload::Strings(texts) => strings.extend_from_slice(texts),
            _ => dense.extend_from_slice(tensor.bytes()?),
        }
    }
    let shape = std::iter::once(values.len()).chain(first.shape().iter().copied()).collect();
    let payload = match first.payload() {
        Payload::Strings(_) => Payload::Strings(strings),
        _ => Payload::Dense(dense.into()),
    };
    // Elements of less than a byte do not lie behind each other in whole bytes.
    Tensor::new(first.dtype(), shape, payload).ok()
}

/// Keys in ascending order, and the values in theirs.
fn sorted(keys: Tensor, values: Tensor) -> (Tensor, Tensor) {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    if let Payload::Strings(strings) = keys.payload() {
        order.sort_by_key(|&at| strings.get(at));
    } else {
        let numbers = keys.to_i64().unwrap_or_default();
        order.sort_by_key(|&at| numbers.get(at).copied());
    }
    match (picked(&keys, &order), picked(&values, &order)) {
        (Some(keys), Some(values)) => (keys, values),
        _ => (keys, values),
    }
}

/// Elements of a list in another order.
fn picked(list: &Tensor, order: &[usize]) -> Option<Tensor> {
    let payload = if let Payload::Strings(strings) = list.payload() {
        Payload::Strings(order.iter().map(|&at| strings.get(at).cloned()).collect::<Option<_>>()?)
    } else {
        let bytes = list.bytes()?;
        let width = bytes.len() / list.len().max(1);
        let mut moved = Vec::with_capacity(bytes.len());
        for &at in order {
            moved.extend_from_slice(bytes.get(at * width..(at + 1) * width)?);
        }
        Payload::Dense(moved.into())
    };
    Tensor::new(list.dtype(), vec![order.len()], payload).ok()
}

/// The outputs that a runtime returns, by place, and those that it leaves out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) places: Vec<usize>,
    pub(crate) left_out: Vec<LeftOut>,
}

impl Kept {
    /// Parts the outputs of a model by their types.
    pub(crate) fn of(outputs: &[OutputSpec], returns: impl Fn(&Type) -> bool) -> Self {
        let mut kept = Kept::default();
        for (place, output) in outputs.iter().enumerate() {
            if returns(&output.ty) {
                kept.places.push(place);
            } else {
                let (output, ty) = (output.name.clone(), output.ty.to_string());
                kept.left_out.push(LeftOut { output, ty });
            }
        }
        kept
    }

    /// An error where a model has outputs and all are left out.
    pub(crate) fn check(&self, runtime: &'static str) -> Result<(), RuntimeError> {
        if !self.places.is_empty() || self.left_out.is_empty() {
            return Ok(());
        }
        Err(RuntimeError::NothingReturned { runtime, outputs: self.left_out.clone() })
    }

    /// The model with no other outputs, and without the nodes that only the others needed.
    pub(crate) fn only(&self, model: &Model) -> Model {
        let mut model = model.clone();
        let main = model.main();
        model.retain_outputs(main, |place| self.places.contains(&place));
        let nodes: Vec<NodeId> = model.nodes_of(main).collect();
        for id in nodes.into_iter().rev() {
            let used = |value: &ValueId| !model.value(*value).uses().is_empty();
            if !model.node(id).outputs().iter().flatten().any(used) {
                model.remove(id);
            }
        }
        model.prune_declarations();
        model
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use modelopt_graph::verify;
    use xtask::testdata::fixture;

    use super::*;

    fn strings(texts: &[&'static str]) -> Tensor {
        let texts = texts.iter().map(|text| Bytes::from(*text)).collect();
        let shape = vec![<Vec<Bytes> as AsRef<[Bytes]>>::as_ref(&texts).len()];
        Tensor::new(DataType::STRING, shape, Payload::Strings(texts)).unwrap()
    }

    fn list(numbers: &[f32]) -> Tensor {
        Tensor::of(vec![numbers.len()], numbers).unwrap()
    }

    fn map(keys: &[&'static str], values: &[f32]) -> Returned {
        Returned::Map { keys: strings(keys), values: list(values) }
    }

    fn flat(value: Returned) -> Outputs {
        let mut outputs = Outputs::new();
        value.flatten("o", &mut outputs);
        outputs
    }

    fn names(outputs: &Outputs) -> Vec<&str> {
        outputs.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_sequence_tells_its_length() {
        let tensors = [1.0, 2.0].map(|x| Returned::Tensor(list(&[x])));
        let outputs = flat(Returned::Sequence(tensors.to_vec()));
        assert_eq!(names(&outputs), ["o.length", "o[0]", "o[1]"]);
        assert_eq!(outputs["o.length"], Tensor::scalar(2i64));
        let outputs = flat(Returned::Sequence(Vec::new()));
        assert_eq!(
            (names(&outputs), &outputs["o.length"]),
            (vec!["o.length"], &Tensor::scalar(0i64))
        );
    }

    #[test]
    fn a_long_sequence_is_one_entry_where_its_elements_are_alike() {
        let long = |last: &[f32]| {
            let mut values = vec![Returned::Tensor(list(&[1.0, 2.0])); MOST_APART];
            values.push(Returned::Tensor(list(last)));
            flat(Returned::Sequence(values))
        };
        let alike = long(&[3.0, 4.0]);
        assert_eq!(names(&alike), ["o.length", "o[..]"]);
        assert_eq!(alike["o[..]"].shape(), [17, 2]);
        assert_eq!(alike["o[..]"].to_f32().unwrap()[32..], [3.0, 4.0]);
        assert_eq!(names(&long(&[3.0])).len(), 18);
    }

    #[test]
    fn maps_are_sorted_by_key() {
        let outputs = flat(map(&["b", "a"], &[1.0, 2.0]));
        assert_eq!(names(&outputs), ["o.keys", "o.values"]);
        assert_eq!(
            (&outputs["o.keys"], &outputs["o.values"]),
            (&strings(&["a", "b"]), &list(&[2.0, 1.0]))
        );
        let keys = Tensor::of(vec![3], &[7i64, -1, 3]).unwrap();
        let outputs = flat(Returned::Map { keys, values: list(&[1.0, 2.0, 3.0]) });
        assert_eq!(outputs["o.keys"].to_i64().unwrap(), [-1, 3, 7]);
        assert_eq!(outputs["o.values"], list(&[2.0, 3.0, 1.0]));
    }

    #[test]
    fn maps_of_the_same_keys_are_one_table() {
        let rows = vec![map(&["b", "a"], &[1.0, 2.0]), map(&["a", "b"], &[3.0, 4.0])];
        let outputs = flat(Returned::Sequence(rows));
        assert_eq!(names(&outputs), ["o.keys", "o.values"]);
        assert_eq!(outputs["o.values"], Tensor::of(vec![2, 2], &[2f32, 1.0, 3.0, 4.0]).unwrap());
        let rows = vec![map(&["a"], &[1.0]), map(&["c"], &[3.0])];
        let outputs = flat(Returned::Sequence(rows));
        let all = ["o.length", "o[0].keys", "o[0].values", "o[1].keys", "o[1].values"];
        assert_eq!(names(&outputs), all);
    }

    #[test]
    fn outputs_that_are_left_out_leave_nothing_behind() {
        let model = modelopt_onnx::load(&fixture("outputs/sequence.onnx")).unwrap();
        let kept = Kept::of(&crate::graph_outputs(&model), |ty| matches!(ty, Type::Tensor { .. }));
        assert_eq!(kept.left_out[0].to_string(), "'ys' (seq(float[..]))");
        kept.check("tract").unwrap();
        let only = kept.only(&model);
        verify::check(&only).unwrap();
        assert_eq!(verify::interface(&only).len(), 2);
        assert_eq!((model.walk().len(), only.walk().len()), (4, 3));
        let none = Kept { places: Vec::new(), ..kept };
        let error = none.check("tract").unwrap_err().to_string();
        assert!(error.contains("none of the outputs: 'ys' (seq(float[..]))"), "{error}");
    }

    #[test]
    fn an_optional_tells_whether_it_is_there() {
        let there = flat(Returned::Optional(Some(Box::new(Returned::Tensor(list(&[1.0]))))));
        assert_eq!(names(&there), ["o.present", "o"]);
        let missing = flat(Returned::Optional(None));
        assert_eq!(names(&missing), ["o.present"]);
        assert_ne!(there["o.present"], missing["o.present"]);
    }
}
