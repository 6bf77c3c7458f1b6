//! What is observed of which values.

use std::collections::{BTreeMap, HashSet};

use indexmap::IndexMap;
use modelopt_graph::{Model, NodeId, Producer, ValueId};
use modelopt_runtime::Outputs;
use rayon::prelude::*;

use crate::observer::{AnyObserver, Observer, View, key};

/// Observers by name of the value that they look at; any number for each.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    values: IndexMap<String, BTreeMap<String, Box<dyn AnyObserver>>>,
}

/// Why a value cannot be observed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unobservable {
    /// Values inside branches and loops cannot be made outputs without changing what the model does.
    #[error("'{0}' is inside a branch or a loop")]
    Nested(String),
    /// It is the same in all samples.
    #[error("'{0}' is a constant")]
    Constant(String),
    /// Nothing makes it.
    #[error("nothing makes '{0}'")]
    Unmade(String),
}

/// Observers of a value that differ in what they look for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{value}' is observed in two ways that are both called '{key}'")]
pub struct Unlike {
    /// Name of the value.
    pub value: String,
    /// `kind:variant` of the observers.
    pub key: String,
}

/// Whether a value changes from sample to sample and can be shown.
pub fn observable(model: &Model, value: ValueId) -> Result<(), Unobservable> {
    let name = || model.value(value).name().to_owned();
    let home = match model.value(value).producer() {
        Producer::Node(node, _) => model.node(node).graph(),
        Producer::Input(graph) => graph,
        _ if model.constant(value).is_some() => return Err(Unobservable::Constant(name())),
        _ => return Err(Unobservable::Unmade(name())),
    };
    if model.constant(value).is_some() {
        return Err(Unobservable::Constant(name()));
    }
    if home == model.main() { Ok(()) } else { Err(Unobservable::Nested(name())) }
}

/// The inputs and outputs of a node that can be observed, each once.
pub fn around(model: &Model, node: NodeId) -> Vec<ValueId> {
    let node = model.node(node);
    let mut found: Vec<ValueId> = Vec::new();
    for &value in node.inputs().iter().chain(node.outputs()).flatten() {
        if !found.contains(&value) && observable(model, value).is_ok() {
            found.push(value);
        }
    }
    found
}

impl Observations {
    /// Adds an observer of a value. One that looks for the same is there already stays as it is.
    pub fn watch(
        &mut self,
        model: &Model,
        value: ValueId,
        observer: impl Observer,
    ) -> Result<(), Unobservable> {
        observable(model, value)?;
        let own = self.values.entry(model.value(value).name().to_owned()).or_default();
        own.entry(key(&observer)).or_insert_with(|| Box::new(observer));
        Ok(())
    }

    /// What an observer saw of a value; `like` is one of the same variant.
    pub fn of<O: Observer>(&self, value: &str, like: &O) -> Option<&O> {
        self.values.get(value)?.get(&key(like))?.as_any().downcast_ref()
    }

    /// Names of all values that are observed, in the order in which they were added.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The observers of a value, by `kind:variant`.
    pub fn observers(&self, value: &str) -> impl Iterator<Item = (&str, &dyn AnyObserver)> {
        let own = self.values.get(value).into_iter().flatten();
        own.map(|(key, observer)| (key.as_str(), &**observer))
    }

    /// Whether nothing is observed.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Shows a value in one sample to those that observe it.
    pub(crate) fn see(&mut self, value: &str, view: &View<'_>) {
        let own = self.values.get_mut(value).into_iter().flatten();
        own.for_each(|(_, observer)| observer.see(view));
    }

    /// Shows some of a run's outputs to those that observe them, in parallel. The first that has elements
    /// that are NaN, in the order in which they were added, is named.
    pub(crate) fn see_outputs(
        &mut self,
        names: &[String],
        outputs: &Outputs,
        sample: u64,
    ) -> Option<String> {
        let shown: HashSet<&str> = names.iter().map(String::as_str).collect();
        let own = self.values.par_iter_mut().filter(|(name, _)| shown.contains(name.as_str()));
        let nan = own.map(|(name, observers)| {
            let view = View::new(outputs.get(name)?, sample);
            for observer in observers.values_mut() {
                observer.see(&view);
            }
            (view.extent().nans > 0).then_some(name)
        });
        nan.collect::<Vec<_>>().into_iter().flatten().next().cloned()
    }

    /// Adds an observer that was read from a file.
    pub(crate) fn insert(&mut self, value: &str, observer: Box<dyn AnyObserver>) {
        self.values.entry(value.to_owned()).or_default().insert(observer.key(), observer);
    }

    /// An observer of a value that only one of both has: name and `kind:variant`.
    pub(crate) fn unpaired(&self, other: &Observations) -> Option<(String, String)> {
        let only = |one: &Observations, two: &Observations| {
            let all =
                one.values.iter().flat_map(|(value, own)| own.keys().map(move |key| (value, key)));
            let known = |value: &String, key: &String| two.values.get(value)?.get(key);
            let mut alone = all.filter(|(value, key)| known(value, key).is_none());
            alone.next().map(|(value, key)| (value.clone(), key.clone()))
        };
        only(self, other).or_else(|| only(other, self))
    }

    /// Whether exactly these values are observed.
    pub(crate) fn are_of<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> bool {
        let names: HashSet<&str> = names.into_iter().map(String::as_str).collect();
        names.len() == self.values.len() && self.values().all(|name| names.contains(name))
    }

    /// Takes in what others saw of other samples. What only one of them observed stays as it is.
    pub fn merge(&mut self, other: &Observations) -> Result<(), Unlike> {
        let mut sum = self.clone();
        for (value, observers) in &other.values {
            let own = sum.values.entry(value.clone()).or_default();
            for (key, observer) in observers {
                if let Some(known) = own.get_mut(key) {
                    if !known.merge(&**observer) {
                        return Err(Unlike { value: value.clone(), key: key.clone() });
                    }
                } else {
                    own.insert(key.clone(), observer.clone());
                }
            }
        }
        *self = sum;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use modelopt_rewrite::ChannelAxis;

    use super::*;
    use crate::observers::{MinMax, Moments};
    use crate::testing::{self, tensor};

    fn value(model: &Model, name: &str) -> ValueId {
        model.values().find(|&value| model.value(value).name() == name).unwrap()
    }

    #[test]
    fn inputs_and_outputs_of_any_node_can_be_observed() {
        let model = testing::model();
        let node = model.producer_node(value(&model, "y")).unwrap();
        let names: Vec<&str> =
            around(&model, node).into_iter().map(|value| model.value(value).name()).collect();
        // Not the constant.
        assert_eq!(names, ["x", "y"]);
    }

    #[test]
    fn what_cannot_be_shown_is_said() {
        let model = testing::model();
        let mut all = Observations::default();
        let mut watch = |name| all.watch(&model, value(&model, name), MinMax::new());
        assert_eq!(watch("w"), Err(Unobservable::Constant("w".to_owned())));
        assert_eq!(watch("inner"), Err(Unobservable::Nested("inner".to_owned())));
        assert_eq!(watch("nowhere"), Err(Unobservable::Unmade("nowhere".to_owned())));
        assert_eq!(watch("y"), Ok(()));
        assert_eq!(all.values().collect::<Vec<_>>(), ["y"]);
    }

    #[test]
    fn an_observer_that_is_there_already_keeps_what_it_saw() {
        let model = testing::model();
        let mut all = Observations::default();
        let y = value(&model, "y");
        all.watch(&model, y, MinMax::new()).unwrap();
        all.see("y", &View::new(&tensor(&[1], &[2.0]), 0));
        all.watch(&model, y, MinMax::new()).unwrap();
        all.watch(&model, y, Moments::new(ChannelAxis::Last)).unwrap();
        assert_eq!(all.of("y", &MinMax::new()).unwrap().statistic().range, Some((2.0, 2.0)));
        assert_eq!(
            all.observers("y").map(|(key, _)| key).collect::<Vec<_>>(),
            ["min-max:all", "moments:last"]
        );
        // Another axis was not looked at.
        assert_eq!(all.of("y", &Moments::new(ChannelAxis::Second)), None);
    }
}
