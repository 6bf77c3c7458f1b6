//! Texts for models that read them.

use std::collections::HashSet;

use bytes::Bytes;
use modelopt_graph::{AttributeValue, DataType, Model, Payload, Tensor, element_count};

use super::input::InputPlan;
use super::random::Random;
use crate::{SampleError, Uninvented};

/// Attributes in which operators keep the words that they know.
const VOCABULARIES: [&str; 3] = ["pool_strings", "keys_strings", "cats_strings"];

/// Operators that part texts into words.
const TOKENIZERS: [&str; 3] = ["Tokenizer", "StringSplit", "RegexSplitWithOffsets"];

/// Most words of a vocabulary that are looked at.
const MOST: usize = 1000;

/// How many words make a text, where the model parts it.
const LENGTH: usize = 6;

/// Where the model has no vocabulary.
const OTHERS: [&str; 8] = ["a", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs"];

/// The words that invented texts consist of.
pub(super) struct Words {
    words: Vec<Bytes>,
    /// How many make a text.
    length: usize,
}

impl Words {
    /// The words that a model knows.
    pub(super) fn of(model: &Model) -> Self {
        let mut words: Vec<Bytes> = Vec::new();
        let mut seen = HashSet::new();
        let mut length = 1;
        for id in model.walk() {
            let node = model.node(id);
            if TOKENIZERS.contains(&node.op.name.as_str()) {
                length = LENGTH;
            }
            let known = node.attributes.iter().filter_map(|attribute| match &attribute.value {
                AttributeValue::Strings(words) => {
                    VOCABULARIES.contains(&attribute.name.as_str()).then_some(words)
                }
                _ => None,
            });
            let own = known.flatten().filter(|word| !word.is_empty());
            let fresh = own.filter(|word| seen.insert((*word).clone())).cloned();
            words.extend(fresh.take(MOST.saturating_sub(words.len())).collect::<Vec<_>>());
        }
        if words.is_empty() {
            words = OTHERS.into_iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
        }
        Words { words, length }
    }

    /// Invents the texts of an input.
    pub(super) fn fill(
        &self,
        plan: &InputPlan<'_>,
        random: &mut Random,
    ) -> Result<Tensor, SampleError> {
        let count = element_count(&plan.shape).unwrap_or(0);
        let mut text = || {
            let words = (0..self.length).filter_map(|_| {
                let at = random.below(self.words.len() as u64);
                self.words.get(usize::try_from(at).ok()?).map(|word| &word[..])
            });
            Bytes::from(words.collect::<Vec<_>>().join(&b' '))
        };
        let texts = Payload::Strings((0..count).map(|_| text()).collect());
        Tensor::new(DataType::STRING, plan.shape.clone(), texts).map_err(|_| {
            SampleError::needs_sample(plan.name, Uninvented::TooLarge(plan.shape.clone()))
        })
    }
}

#[cfg(test)]
mod tests {
    use xtask::testdata::fixture;

    use super::*;

    #[test]
    fn texts_are_words_that_the_model_knows() {
        let model = modelopt_onnx::load(&fixture("outputs/text.onnx")).unwrap();
        let shape = vec![8, 1];
        let dtype = DataType::STRING;
        let plan = InputPlan { name: "text", dtype, shape, bound: None, control: None };
        let words = Words::of(&model);
        let texts = words.fill(&plan, &mut Random::new(0, "text", 0)).unwrap();
        let again = words.fill(&plan, &mut Random::new(0, "text", 0)).unwrap();
        assert_eq!(texts, again);
        let Payload::Strings(texts) = texts.payload() else { panic!() };
        assert!(texts.iter().all(|text| words.words.contains(text)));
        assert!(texts.iter().any(|text| text != &texts[0]));
    }
}
