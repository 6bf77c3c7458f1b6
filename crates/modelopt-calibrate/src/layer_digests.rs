//! What tells one model's weight layers from another's.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write;

use modelopt_graph::{AttributeValue, Model, Tensor};
use modelopt_rewrite::{Layer, weight_layers};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Weights smaller than this do not make a node a layer, in bytes.
const LEAST_BYTES: usize = 1;

/// How many layers are named where some differ.
const MOST_NAMED: usize = 3;

/// Bytes of a digest that are kept: enough to tell layers apart that nobody made alike on purpose.
const KEPT: usize = 8;

/// The weight layers of a model by their ids: for each its operator, and a digest of that, its attributes
/// and its weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerDigests(BTreeMap<String, String>);

/// How the model at hand differs from the one that was observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Mismatch {
    /// Layers that the model at hand does not have.
    pub missing: Vec<String>,
    /// Layers that have another operator, other attributes or other weights in it.
    pub other: Vec<String>,
    /// Layers that only the model at hand has.
    pub added: Vec<String>,
    /// How many layers both have, alike or not.
    pub common: usize,
}

impl LayerDigests {
    /// The layers of a model, which must be prepared the way it was, or will be, when it is planned.
    pub fn of(model: &Model) -> Self {
        let layers = weight_layers(model, LEAST_BYTES);
        let digested = layers.par_iter().map(|layer| (layer.id.clone(), digest(model, layer)));
        LayerDigests(digested.collect::<Vec<_>>().into_iter().collect())
    }

    /// How a model with other layers differs from one with these.
    pub fn differences(&self, other: &LayerDigests) -> Mismatch {
        let mut found = Mismatch::default();
        for (id, digest) in &self.0 {
            match other.0.get(id) {
                None => found.missing.push(id.clone()),
                Some(own) => {
                    found.common += 1;
                    if own != digest {
                        found.other.push(id.clone());
                    }
                }
            }
        }
        found.added.extend(other.0.keys().filter(|id| !self.0.contains_key(*id)).cloned());
        found
    }
}

fn digest(model: &Model, layer: &Layer) -> String {
    let node = model.node(layer.node);
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(node.op.domain.as_bytes());
    part(node.op.name.as_bytes());
    for attribute in &node.attributes {
        part(attribute.name.as_bytes());
        match &attribute.value {
            AttributeValue::Tensor(tensor) => take(tensor, &mut part),
            AttributeValue::Float(number) => part(&number.to_le_bytes()),
            AttributeValue::Int(number) => part(&number.to_le_bytes()),
            AttributeValue::String(text) => part(text),
            AttributeValue::Floats(numbers) => numbers.iter().for_each(|x| part(&x.to_le_bytes())),
            AttributeValue::Ints(numbers) => numbers.iter().for_each(|x| part(&x.to_le_bytes())),
            AttributeValue::Strings(texts) => texts.iter().for_each(|text| part(text)),
            // Layers of graphs inside are layers by themselves, and others are of no weight layer.
            _ => {}
        }
    }
    for weight in &layer.weights {
        part(&(weight.input as u64).to_le_bytes());
        take(&weight.tensor, &mut part);
    }
    let mut text = node.op.name.clone();
    text.push(' ');
    for byte in hasher.finalize().as_bytes().iter().take(KEPT) {
        // Writing to text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn take(tensor: &Tensor, part: &mut impl FnMut(&[u8])) {
    part(format!("{} {:?}", tensor.dtype(), tensor.shape()).as_bytes());
    part(tensor.bytes().map(AsRef::as_ref).unwrap_or_default());
}

impl Mismatch {
    /// Whether no layer differs.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.other.is_empty() && self.added.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { missing, other, added, common } = self;
        if self.is_empty() {
            return write!(
                f,
                "its {common} weight layers are the same, so something else in it is not"
            );
        }
        let mut parts = Vec::new();
        if !other.is_empty() {
            let share =
                format!("{} of {common} layers have other weights or attributes", other.len());
            parts.push(format!("{share}: {}", named(other)));
        }
        if !missing.is_empty() {
            parts.push(format!("{} not there: {}", layers(missing.len()), named(missing)));
        }
        if !added.is_empty() {
            parts.push(format!("{} new: {}", layers(added.len()), named(added)));
        }
        f.write_str(&parts.join("; "))
    }
}

fn layers(count: usize) -> String {
    if count == 1 { "1 layer".to_owned() } else { format!("{count} layers") }
}

fn named(ids: &[String]) -> String {
    let first: Vec<String> = ids.iter().take(MOST_NAMED).map(|id| format!("'{id}'")).collect();
    match ids.len().saturating_sub(MOST_NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use modelopt_graph::Constant;

    use super::*;
    use crate::testing::{self, tensor};

    fn with_weight(numbers: &[f32]) -> Model {
        let mut model = testing::model();
        let main = model.main();
        let w = model.values().find(|&value| model.value(value).name() == "w").unwrap();
        let weight = Constant::Dense(Arc::new(tensor(&[1, 2], numbers)));
        model.set_constant(main, w, weight);
        model
    }

    fn digests(pairs: &[(&str, &str)]) -> LayerDigests {
        LayerDigests(pairs.iter().map(|(id, of)| ((*id).to_owned(), (*of).to_owned())).collect())
    }

    #[test]
    fn other_weights_make_another_layer() {
        let one = LayerDigests::of(&with_weight(&[1.0, 2.0]));
        assert_eq!(one, LayerDigests::of(&with_weight(&[1.0, 2.0])));
        assert!(one.0["y"].starts_with("Mul "), "{one:?}");
        let found = one.differences(&LayerDigests::of(&with_weight(&[1.0, 2.5])));
        assert_eq!((found.other.as_slice(), found.common), (["y".to_owned()].as_slice(), 1));
        assert_eq!(found.to_string(), "1 of 1 layers have other weights or attributes: 'y'");
    }

    #[test]
    fn layers_that_differ_are_named_and_counted() {
        let own = digests(&[("a", "Conv 1"), ("b", "Conv 2"), ("c", "Conv 3"), ("d", "Conv 4")]);
        let other = digests(&[("c", "Conv 3"), ("d", "Gemm 4"), ("e", "Conv 5")]);
        let found = own.differences(&other);
        assert_eq!(
            found.to_string(),
            "1 of 2 layers have other weights or attributes: 'd'; 2 layers not there: 'a', 'b'; \
             1 layer new: 'e'"
        );
        let none = own.differences(&own);
        assert!(none.is_empty() && none.to_string().contains("its 4 weight layers are the same"));
        let all = own.differences(&digests(&[]));
        assert!(all.to_string().ends_with("4 layers not there: 'a', 'b', 'c' and 1 more"));
    }
}
