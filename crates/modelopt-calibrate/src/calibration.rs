//! Statistics of activations as a file.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::layer_digests::{LayerDigests, Mismatch};
use crate::observations::{Observations, Unlike};
use crate::registry::{Kind, OBSERVERS, Unreadable};

/// The version of the file that is written.
const VERSION: u32 = 2;

/// What was observed of a model on some samples: what can be saved, read back, and added to what was
/// observed on others, somewhere else.
#[derive(Clone, Debug)]
pub struct Calibration {
    model: String,
    layers: LayerDigests,
    runtime: Option<String>,
    list: Option<SampleList>,
    samples: BTreeSet<u64>,
    observations: Observations,
}

/// The list that samples are places in, so that shards of one list are told from those of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleList {
    /// How many samples it has.
    count: u64,
    /// Digest of their names and sizes, in order.
    digest: String,
}

impl SampleList {
    /// A list of names and sizes.
    pub fn of(samples: impl IntoIterator<Item = (String, u64)>) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut count = 0;
        for (name, size) in samples {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&size.to_le_bytes());
            count += 1;
        }
        SampleList { count, digest: hasher.finalize().to_hex().to_string() }
    }

    /// How many samples it has.
    pub fn count(&self) -> u64 {
        self.count
    }
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
    /// They are of the same file, but its weights, which lie elsewhere, or what was made of it are not.
    #[error("their models differ: {0}")]
    Layers(Mismatch),
    /// They ran in different runtimes, which round in different ways.
    #[error("one ran in {}, the other in {}", named(own.as_deref()), named(other.as_deref()))]
    Runtime {
        /// Runtime of the one.
        own: Option<String>,
        /// Runtime of the other.
        other: Option<String>,
    },
    /// Their samples are places in different lists.
    #[error(
        "their samples are not of the same list: {}, and {}", said(own.as_ref()), said(other.as_ref())
    )]
    List {
        /// List of the one.
        own: Option<SampleList>,
        /// List of the other.
        other: Option<SampleList>,
    },
    /// Only one of them observed a value, or observed it in a way.
    #[error("only one of them has what '{key}' saw of '{value}'")]
    Value {
        /// Name of the value.
        value: String,
        /// `kind:variant` of the observer.
        key: String,
    },
    /// Both saw a sample, which would count twice.
    #[error("both saw sample {0}")]
    Sample(u64),
    /// They observed a value in different ways.
    #[error(transparent)]
    Unlike(#[from] Unlike),
}

fn named(runtime: Option<&str>) -> &str {
    runtime.unwrap_or("one that is not known")
}

fn said(list: Option<&SampleList>) -> String {
    list.map_or_else(
        || "one has no list".to_owned(),
        |list| {
            let short = list.digest.get(..8).unwrap_or(&list.digest);
            format!("one has {} samples, {short}", list.count)
        },
    )
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
    /// Weight layers of the model.
    #[serde(default)]
    layers: LayerDigests,
    /// Name and version of the runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runtime: Option<String>,
    /// Places of the samples.
    samples: BTreeSet<u64>,
    /// The list that these are places in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    list: Option<SampleList>,
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
        Calibration {
            model: model.into(),
            layers: LayerDigests::default(),
            runtime: None,
            list: None,
            samples: samples.into_iter().collect(),
            observations,
        }
    }

    /// The model has these weight layers, so that another one can be told by what differs.
    #[must_use]
    pub fn of_layers(self, layers: LayerDigests) -> Self {
        Calibration { layers, ..self }
    }

    /// The model ran in this runtime: name and version.
    #[must_use]
    pub fn in_runtime(self, runtime: impl Into<String>) -> Self {
        Calibration { runtime: Some(runtime.into()), ..self }
    }

    /// The samples are places in this list.
    #[must_use]
    pub fn of_list(self, list: SampleList) -> Self {
        Calibration { list: Some(list), ..self }
    }

    /// Whether this is of a model with that digest and those weight layers, which must be found in the
    /// model as it was prepared for observing.
    ///
    /// # Errors
    ///
    /// If it is of another one: which layers differ.
    pub fn check(&self, model: &str, layers: &LayerDigests) -> Result<(), Mismatch> {
        let found = self.layers.differences(layers);
        // What lies in external data is in no digest of the file. Layers that preparation makes or does
        // away with may come and go.
        if self.model == model && found.other.is_empty() { Ok(()) } else { Err(found) }
    }

    /// How the layers of the model of another calibration differ from those of this one.
    pub fn differences(&self, other: &Calibration) -> Mismatch {
        self.layers.differences(&other.layers)
    }

    /// Name and version of the runtime that the model ran in, where that is known.
    pub fn runtime(&self) -> Option<&str> {
        self.runtime.as_deref()
    }

    /// The list that the samples are places in, where that is known.
    pub fn list(&self) -> Option<&SampleList> {
        self.list.as_ref()
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

    /// The same of model and samples, with other observations.
    #[must_use]
    pub fn having(&self, observations: Observations) -> Self {
        Calibration {
            model: self.model.clone(),
            layers: self.layers.clone(),
            runtime: self.runtime.clone(),
            list: self.list.clone(),
            samples: self.samples.clone(),
            observations,
        }
    }

    /// Adds what was observed on other samples. Nothing changes where that is refused.
    pub fn merge(&mut self, other: &Calibration) -> Result<(), MergeError> {
        if self.model != other.model {
            let (own, other) = (self.model.clone(), other.model.clone());
            return Err(MergeError::Model { own, other });
        }
        let differences = self.layers.differences(&other.layers);
        if !differences.is_empty() {
            return Err(MergeError::Layers(differences));
        }
        if self.runtime != other.runtime {
            let (own, other) = (self.runtime.clone(), other.runtime.clone());
            return Err(MergeError::Runtime { own, other });
        }
        if self.list != other.list {
            let (own, other) = (self.list.clone(), other.list.clone());
            return Err(MergeError::List { own, other });
        }
        if let Some((value, key)) = self.observations.unpaired(&other.observations) {
            return Err(MergeError::Value { value, key });
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
            layers: self.layers.clone(),
            runtime: self.runtime.clone(),
            samples: self.samples.clone(),
            list: self.list.clone(),
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
        let mut document: Document = toml::from_str(text)?;
        let mut observations = Observations::default();
        for (value, observers) in std::mem::take(&mut document.values) {
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
        let Document { model, layers, runtime, samples, list, .. } = document;
        Ok(Calibration { model, layers, runtime, list, samples, observations })
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
        let second = || calibrated(&[(1, vec![1.0, 2.0])]);
        let list = |names: &[&str]| SampleList::of(names.iter().map(|&name| (name.to_owned(), 4)));
        let error = sum.merge(&second().of_list(list(&["a", "b"]))).unwrap_err().to_string();
        assert!(error.contains("one has no list, and one has 2 samples"), "{error}");
        let mut listed = sum.clone().of_list(list(&["a", "b"]));
        assert!(listed.merge(&second().of_list(list(&["a", "c"]))).is_err());
        assert!(listed.merge(&second().of_list(list(&["a", "b"]))).is_ok());
        let error = sum.merge(&second().in_runtime("some 1.2")).unwrap_err().to_string();
        assert_eq!(error, "one ran in one that is not known, the other in some 1.2");
        let layers = LayerDigests::of(&testing::model());
        let error = sum.merge(&second().of_layers(layers)).unwrap_err();
        assert!(matches!(error, MergeError::Layers(_)), "{error}");
        let mut less = Observations::default();
        let y =
            testing::model().values().find(|&v| testing::model().value(v).name() == "y").unwrap();
        less.watch(&testing::model(), y, MinMax::new()).unwrap();
        let error = sum.merge(&Calibration::new("abc", [1], less)).unwrap_err().to_string();
        assert_eq!(error, "only one of them has what 'histogram:all' saw of 'y'");
        assert_eq!(text(&sum), text(&one));
    }

    #[test]
    fn another_model_is_told_by_its_layers() {
        let layers = LayerDigests::of(&testing::model());
        let own = calibrated(&[(0, vec![1.0, 2.0])]).of_layers(layers.clone());
        assert_eq!(own.check("abc", &layers), Ok(()));
        let read = Calibration::from_toml(&text(&own)).unwrap();
        assert_eq!(read.check("abc", &layers), Ok(()));
        let same = read.check("def", &layers).unwrap_err();
        assert!(same.is_empty(), "{same}");
        let other = read.check("def", &LayerDigests::default()).unwrap_err();
        assert_eq!(other.missing, ["y"]);
        // Preparation may do away with a layer of the same file.
        assert_eq!(read.check("abc", &LayerDigests::default()), Ok(()));
    }

    #[test]
    fn damaged_files_are_refused_with_the_reason() {
        let good = text(&calibrated(&[(0, vec![1.0, 2.0])]));
        let damaged = |from: &str, to: &str| {
            assert!(good.contains(from), "{from} in {good}");
            Calibration::from_toml(&good.replace(from, to)).unwrap_err()
        };
        assert!(matches!(damaged("version = 2", "version = 1"), ReadError::Version(1)));
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
