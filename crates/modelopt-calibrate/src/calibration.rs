//! Statistics of activations as a file.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::observations::{Observations, Unlike};
use crate::registry::{Kind, OBSERVERS, Unreadable};

/// The version of the file that is written.
const VERSION: u32 = 1;

/// What was observed of a model on some samples: what can be saved, read back, and added to what was
/// observed on others, somewhere else.
#[derive(Clone, Debug)]
pub struct Calibration {
    model: String,
    samples: BTreeSet<u64>,
    observations: Observations,
}

/// Why two calibrations cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// They are of different models.
    #[error("one is of the model with digest {own}, the other of {other}")]
    Model {
        /// Digest of the model of the one.
        own: String,
        /// Digest of the model of the other.
        other: String,
    },
    /// Both saw a sample, which would count twice.
    #[error("both saw sample {0}")]
    Sample(u64),
    /// They observed a value in different ways.
    #[error(transparent)]
    Unlike(#[from] Unlike),
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is no TOML, or not what a calibration has.
    #[error("it is no calibration: {0}")]
    Form(Box<toml::de::Error>),
    /// It is of another version.
    #[error("it has version {0}; this program reads version {VERSION}")]
    Version(u32),
    /// Nobody here knows an observer.
    #[error("'{value}' was observed by '{key}', which is not known here")]
    Kind {
        /// Name of the value.
        value: String,
        /// `kind:variant` of the observer.
        key: String,
    },
    /// An observer is damaged.
    #[error("what '{key}' saw of '{value}' cannot be read: {source}")]
    Observer {
        /// Name of the value.
        value: String,
        /// `kind:variant` of the observer.
        key: String,
        /// What is wrong.
        source: Box<Unreadable>,
    },
}

impl From<toml::de::Error> for ReadError {
    fn from(error: toml::de::Error) -> Self {
        ReadError::Form(Box::new(error))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    /// Digest of the model.
    model: String,
    /// Places of the samples.
    samples: BTreeSet<u64>,
    /// By name of the value, then by `kind:variant`.
    #[serde(default)]
    values: BTreeMap<String, BTreeMap<String, toml::Value>>,
}

/// What every version has.
#[derive(Deserialize)]
struct Header {
    version: u32,
}

impl Calibration {
    /// What was observed of the model with a digest, on samples at these places.
    pub fn new(
        model: impl Into<String>,
        samples: impl IntoIterator<Item = u64>,
        observations: Observations,
    ) -> Self {
        Calibration { model: model.into(), samples: samples.into_iter().collect(), observations }
    }

    /// Digest of the model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Places of the samples that were seen.
    pub fn samples(&self) -> &BTreeSet<u64> {
        &self.samples
    }

    /// What was seen of which value.
    pub fn observations(&self) -> &Observations {
        &self.observations
    }

    /// Adds what was observed on other samples. Nothing changes where that is refused.
    pub fn merge(&mut self, other: &Calibration) -> Result<(), MergeError> {
        if self.model != other.model {
            let (own, other) = (self.model.clone(), other.model.clone());
            return Err(MergeError::Model { own, other });
        }
        if let Some(&twice) = self.samples.intersection(&other.samples).next() {
            return Err(MergeError::Sample(twice));
        }
        self.observations.merge(&other.observations)?;
        self.samples.extend(&other.samples);
        Ok(())
    }

    /// The file. An error comes only from an observer that TOML has no form for.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let of = |value: &str| -> Result<BTreeMap<String, toml::Value>, toml::ser::Error> {
            let observers = self.observations.observers(value);
            observers.map(|(key, observer)| Ok((key.to_owned(), observer.save()?))).collect()
        };
        let values = self.observations.values().map(|value| Ok((value.to_owned(), of(value)?)));
        toml::to_string(&Document {
            version: VERSION,
            model: self.model.clone(),
            samples: self.samples.clone(),
            values: values.collect::<Result<_, toml::ser::Error>>()?,
        })
    }

    /// Reads a file with the observers of this crate.
    pub fn from_toml(text: &str) -> Result<Self, ReadError> {
        Calibration::with_kinds(text, OBSERVERS)
    }

    /// Reads a file with observers of these kinds.
    pub fn with_kinds(text: &str, kinds: &[Kind]) -> Result<Self, ReadError> {
        let Header { version } = toml::from_str(text)?;
        if version != VERSION {
            return Err(ReadError::Version(version));
        }
        let document: Document = toml::from_str(text)?;
        let mut observations = Observations::default();
        for (value, observers) in document.values {
            for (key, saved) in observers {
                let name = key.split(':').next().unwrap_or_default();
                let Some(kind) = kinds.iter().find(|kind| kind.name() == name) else {
                    return Err(ReadError::Kind { value, key });
                };
                let read = kind.read(saved).and_then(|observer| {
                    if observer.key() == key { Ok(observer) } else { Err(Unreadable::Unsound) }
                });
                match read {
                    Ok(observer) => observations.insert(&value, observer),
                    Err(source) => {
                        let source = Box::new(source);
                        return Err(ReadError::Observer { value, key, source });
                    }
                }
            }
        }
        Ok(Calibration { model: document.model, samples: document.samples, observations })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observer::View;
    use crate::observers::{Histogram, MinMax, Moments, Ranges, SixteenBit};
    use crate::testing::{self, tensor};
    use modelopt_rewrite::{ChannelAxis, Precision};

    /// What all observers see of one value on samples at some places.
    fn calibrated(samples: &[(u64, Vec<f32>)]) -> Calibration {
        let model = testing::model();
        let y = model.values().find(|&value| model.value(value).name() == "y").unwrap();
        let mut all = Observations::default();
        all.watch(&model, y, Histogram::new()).unwrap();
        all.watch(&model, y, MinMax::new()).unwrap();
        all.watch(&model, y, Moments::new(ChannelAxis::Last)).unwrap();
        all.watch(&model, y, Ranges::new(ChannelAxis::Last)).unwrap();
        all.watch(&model, y, SixteenBit::new(Precision::Fp16)).unwrap();
        for (place, numbers) in samples {
            let tensor = tensor(&[numbers.len() / 2, 2], numbers);
            all.see("y", &View::new(&tensor, *place));
        }
        Calibration::new("abc", samples.iter().map(|(place, _)| *place), all)
    }

    fn text(calibration: &Calibration) -> String {
        calibration.to_toml().unwrap()
    }

    #[test]
    fn a_file_comes_back_as_it_was() {
        let known = calibrated(&[(0, testing::numbers(40, 3)), (7, vec![f32::NAN, 1.0])]);
        let read = Calibration::from_toml(&text(&known)).unwrap();
        assert_eq!(text(&read), text(&known));
        assert_eq!((read.model(), read.samples().len()), ("abc", 2));
        let moments = Moments::new(ChannelAxis::Last);
        assert_eq!(read.observations().of("y", &moments), known.observations().of("y", &moments));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let one = calibrated(&[(0, vec![1.0, 2.0])]);
        let mut sum = one.clone();
        assert_eq!(sum.merge(&one), Err(MergeError::Sample(0)));
        let other = Calibration { model: "def".to_owned(), ..calibrated(&[(1, vec![1.0, 2.0])]) };
        let refused = sum.merge(&other).unwrap_err();
        assert_eq!(refused, MergeError::Model { own: "abc".to_owned(), other: "def".to_owned() });
        assert_eq!(text(&sum), text(&one));
    }

    #[test]
    fn damaged_files_are_refused_with_the_reason() {
        let good = text(&calibrated(&[(0, vec![1.0, 2.0])]));
        let damaged = |from: &str, to: &str| {
            assert!(good.contains(from), "{from} in {good}");
            Calibration::from_toml(&good.replace(from, to)).unwrap_err()
        };
        assert!(matches!(damaged("version = 1", "version = 2"), ReadError::Version(2)));
        assert!(matches!(damaged("model = ", "modle = "), ReadError::Form(_)));
        assert!(matches!(damaged("moments:last", "momenta:last"), ReadError::Kind { .. }));
        let told = damaged("finite = 2", "finite = 3").to_string();
        assert!(told.contains("'y'") && told.contains("contradicts itself"), "{told}");
        // What a key says must be what is inside.
        let told = damaged("moments:last", "moments:second").to_string();
        assert!(told.contains("contradicts itself"), "{told}");
        assert!(matches!(Calibration::from_toml("\u{0}"), Err(ReadError::Form(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn shards_merged_in_any_order_give_the_same(
            seeds in prop::collection::vec((0u32..1000, 1usize..6), 1..40),
            shards in 1usize..6,
            order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let samples: Vec<(u64, Vec<f32>)> = seeds
                .iter()
                .zip(0..)
                .map(|(&(seed, rows), place)| (place, testing::numbers(rows * 2, seed)))
                .collect();
            let shard = |index: usize| -> Vec<(u64, Vec<f32>)> {
                samples.iter().skip(index).step_by(shards).cloned().collect()
            };
            let mut merged = calibrated(&[]);
            for index in order.into_iter().filter(|&index| index < shards) {
                // As it would come from another machine.
                let read = Calibration::from_toml(&text(&calibrated(&shard(index)))).unwrap();
                merged.merge(&read).unwrap();
            }
            prop_assert_eq!(text(&merged), text(&calibrated(&samples)));
        }
    }
}
