//! What an observer is.

use std::any::Any;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt::Debug;

use modelopt_graph::Tensor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::extent::Extent;

/// What a value was in one sample.
#[derive(Debug)]
pub struct View<'a> {
    tensor: &'a Tensor,
    numbers: Cow<'a, [f32]>,
    extent: OnceCell<Extent>,
    sample: u64,
}

impl<'a> View<'a> {
    /// A tensor in a sample, by the sample's place among all samples of all shards.
    pub fn new(tensor: &'a Tensor, sample: u64) -> Self {
        let numbers = tensor.to_f32().unwrap_or_default();
        View { tensor, numbers, extent: OnceCell::new(), sample }
    }

    /// The tensor as it is.
    pub fn tensor(&self) -> &Tensor {
        self.tensor
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    /// Its numbers as float32; none for types that are no floats.
    pub fn numbers(&self) -> &[f32] {
        &self.numbers
    }

    /// What its numbers reach: looked at once, whoever asks.
    pub fn extent(&self) -> Extent {
        *self.extent.get_or_init(|| Extent::of(&self.numbers))
    }

    /// The place of the sample among all samples of all shards.
    pub fn sample(&self) -> u64 {
        self.sample
    }
}

/// Something that looks at the values of one tensor while the original runs, sample by sample, and
/// ends in a statistic.
///
/// It must not matter in which order samples are seen, nor how they are divided among observers that
/// are merged: what is equal must be equal to the last bit. Sums of floats are kept as
/// [`ExactSum`](crate::ExactSum) for that. What is saved is what `Serialize` gives; reading it back
/// must lose nothing.
pub trait Observer:
    Clone + Debug + PartialEq + Send + Sync + Serialize + DeserializeOwned + 'static
{
    /// Its name in files and in the [registry](crate::OBSERVERS).
    const KIND: &'static str;

    /// What it ends in.
    type Statistic;

    /// What tells it from others of its kind: its parameters. Only what has the same is merged.
    fn variant(&self) -> String;

    /// Looks at a tensor of one sample.
    fn see(&mut self, view: &View<'_>);

    /// Takes in what another one of the same variant saw of other samples.
    fn merge(&mut self, other: &Self);

    /// What it saw, in short.
    fn statistic(&self) -> Self::Statistic;

    /// Whether it is one that looking at tensors can lead to. Files are not trusted.
    fn is_sound(&self) -> bool;
}

/// An observer whose kind is not known at compile time. Every [`Observer`] is one.
pub trait AnyObserver: Debug + Send + Sync {
    /// `kind:variant`.
    fn key(&self) -> String;

    /// See [`Observer::see`].
    fn see(&mut self, view: &View<'_>);

    /// See [`Observer::merge`]; false, and nothing done, for one of another kind or variant.
    fn merge(&mut self, other: &dyn AnyObserver) -> bool;

    /// What is written to a file.
    fn save(&self) -> Result<toml::Value, toml::ser::Error>;

    /// The observer itself.
    fn as_any(&self) -> &dyn Any;

    /// A copy.
    fn boxed(&self) -> Box<dyn AnyObserver>;
}

/// `kind:variant` of an observer.
pub(crate) fn key<O: Observer>(observer: &O) -> String {
    format!("{}:{}", O::KIND, observer.variant())
}

impl<O: Observer> AnyObserver for O {
    fn key(&self) -> String {
        key(self)
    }

    fn see(&mut self, view: &View<'_>) {
        Observer::see(self, view);
    }

    fn merge(&mut self, other: &dyn AnyObserver) -> bool {
        let other = other.as_any().downcast_ref::<O>();
        let other = other.filter(|other| other.variant() == self.variant());
        other.inspect(|other| Observer::merge(self, other)).is_some()
    }

    fn save(&self) -> Result<toml::Value, toml::ser::Error> {
        toml::Value::try_from(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn boxed(&self) -> Box<dyn AnyObserver> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn AnyObserver> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}
