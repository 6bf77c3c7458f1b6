//! By what an answer is known.

use std::fmt;

use blake3::Hasher;
use modelopt_graph::{Payload, Tensor};

use crate::Inference;

/// Keys of another version of this file are others.
const CONTEXT: &str = "modelopt answer 1";

/// The digest of the inputs of a request: of names, types, shapes and elements, in whatever order they came.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InputDigest([u8; 32]);

impl InputDigest {
    /// That of the inputs of `inference`.
    pub fn of(inference: &Inference) -> Self {
        let mut inputs: Vec<_> = inference.inputs.iter().collect();
        inputs.sort_unstable_by_key(|(name, _)| *name);
        let mut hasher = Hasher::new();
        count(&mut hasher, inputs.len());
        for (name, tensor) in inputs {
            text(&mut hasher, name.as_bytes());
            hash_tensor(&mut hasher, tensor);
        }
        InputDigest(*hasher.finalize().as_bytes())
    }
}

/// What an answer is kept under: the BLAKE3 digest of the model's digest, the inputs and the wanted outputs
/// in their order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key of what the model with the digest `model` answers to `inputs` where `outputs` are wanted.
    pub fn of(model: &str, inputs: InputDigest, outputs: &[String]) -> Self {
        let mut hasher = Hasher::new_derive_key(CONTEXT);
        text(&mut hasher, model.as_bytes());
        hasher.update(&inputs.0);
        count(&mut hasher, outputs.len());
        for output in outputs {
            text(&mut hasher, output.as_bytes());
        }
        CacheKey(*hasher.finalize().as_bytes())
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn planted(seed: u64) -> Self {
        CacheKey(*blake3::hash(&seed.to_le_bytes()).as_bytes())
    }
}

/// Each part has its length before it, so that no two requests run into the same bytes.
fn text(hasher: &mut Hasher, bytes: &[u8]) {
    count(hasher, bytes.len());
    hasher.update(bytes);
}

fn count(hasher: &mut Hasher, number: usize) {
    hasher.update(&(number as u64).to_le_bytes());
}

fn hash_tensor(hasher: &mut Hasher, tensor: &Tensor) {
    hasher.update(&tensor.dtype().number().to_le_bytes());
    count(hasher, tensor.shape().len());
    for &dimension in tensor.shape() {
        count(hasher, dimension);
    }
    match tensor.payload() {
        Payload::Strings(strings) => {
            for string in strings {
                text(hasher, string);
            }
        }
        Payload::Dense(bytes) => text(hasher, bytes),
        Payload::Rounded(rounded) => text(hasher, rounded.bytes()),
    }
}

macro_rules! hexadecimal {
    ($digest:ident) => {
        impl fmt::Display for $digest {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $digest {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

hexadecimal!(InputDigest);
hexadecimal!(CacheKey);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::Bytes;
    use modelopt_graph::DataType;

    use super::*;

    fn floats(shape: &[usize], elements: &[f32]) -> Tensor {
        Tensor::of(shape.to_vec(), elements).unwrap()
    }

    fn strings(elements: &[&'static str]) -> Tensor {
        let elements: Vec<_> = elements.iter().map(|s| Bytes::from_static(s.as_bytes())).collect();
        let shape = vec![elements.len()];
        Tensor::new(DataType::STRING, shape, Payload::Strings(elements)).unwrap()
    }

    fn inference(inputs: &[(&str, Tensor)]) -> Inference {
        let inputs = inputs.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone()));
        Inference { inputs: inputs.collect(), ..Inference::default() }
    }

    fn of(model: &str, inputs: &[(&str, Tensor)], outputs: &[&str]) -> CacheKey {
        let outputs: Vec<_> = outputs.iter().map(|&output| output.to_owned()).collect();
        CacheKey::of(model, InputDigest::of(&inference(inputs)), &outputs)
    }

    #[test]
    fn the_order_of_inputs_and_what_is_not_asked_do_not_matter() {
        let (a, b) = (floats(&[2], &[1.0, 2.0]), floats(&[1], &[3.0]));
        let there = of("m", &[("a", a.clone()), ("b", b.clone())], &["y"]);
        assert_eq!(there, of("m", &[("b", b.clone()), ("a", a.clone())], &["y"]));
        let mut other = inference(&[("a", a), ("b", b)]);
        (other.id, other.priority) = (Some("7".to_owned()), 2);
        other.timeout = Some(std::time::Duration::from_secs(1));
        assert_eq!(there, CacheKey::of("m", InputDigest::of(&other), &["y".to_owned()]));
        assert_eq!(there.to_string().len(), 64);
    }

    #[test]
    fn whatever_could_change_the_answer_changes_the_key() {
        let (a, b) = (floats(&[2], &[1.0, 2.0]), floats(&[1], &[3.0]));
        let bits =
            Tensor::of(vec![2], &[1.0f32.to_bits() as i32, 2.0f32.to_bits() as i32]).unwrap();
        let mut keys = vec![
            of("m", &[("a", a.clone()), ("b", b.clone())], &["y"]),
            of("n", &[("a", a.clone()), ("b", b.clone())], &["y"]),
            of("m", &[("a", a.clone()), ("b", b.clone())], &[]),
            of("m", &[("a", a.clone()), ("b", b.clone())], &["y", "z"]),
            of("m", &[("a", a.clone()), ("b", b.clone())], &["z", "y"]),
            of("m", &[("a", a.clone()), ("b", b.clone())], &["yz"]),
            of("m", &[("a", b.clone()), ("b", a.clone())], &["y"]),
            of("m", &[("a", a.clone()), ("c", b)], &["y"]),
            of("m", &[("a", a.clone())], &["y"]),
            of("m", &[("a", floats(&[1, 2], &[1.0, 2.0]))], &["y"]),
            of("m", &[("a", floats(&[2, 1], &[1.0, 2.0]))], &["y"]),
            of("m", &[("a", floats(&[2], &[1.0, -2.0]))], &["y"]),
            of("m", &[("a", bits)], &["y"]),
            of("m", &[], &["y"]),
            of("my", &[], &[""]),
        ];
        let texts: [&[&str]; 6] =
            [&["ab", "c"], &["a", "bc"], &["abc", ""], &["", "abc"], &["abc"], &["a", "b", "c"]];
        keys.extend(texts.iter().map(|text| of("m", &[("a", strings(text))], &["y"])));
        let distinct: HashSet<_> = keys.iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
