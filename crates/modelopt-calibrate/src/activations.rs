//! What ranges of tensors are chosen from: which values to observe for it, and what was seen of them.

use modelopt_graph::{DataType, Model, ValueId};

use crate::observations::{Observations, observable};
use crate::observer::Observer;
use crate::observers::{Histogram, Moving};
use crate::range::{Method, Spread};

/// Values whose ranges are to be known.
#[derive(Clone, Debug)]
pub struct Activations {
    values: Vec<ValueId>,
}

impl Activations {
    /// All float32 values of a model's main graph: its inputs, then what nodes make, in their order.
    /// Types must be inferred.
    pub fn of(model: &Model) -> Self {
        let main = model.graph(model.main());
        let inputs = main.inputs.iter().map(|info| info.value);
        let made = model.nodes_of(model.main());
        let made = made.flat_map(|node| model.node(node).outputs().iter().copied().flatten());
        Activations::among(model, inputs.chain(made))
    }

    /// Those of some values that are float32, and change from sample to sample where they can be seen.
    pub fn among(model: &Model, values: impl IntoIterator<Item = ValueId>) -> Self {
        let float = |value: &ValueId| model.value(*value).elem() == Some(DataType::FLOAT);
        let seen = |value: &ValueId| float(value) && observable(model, *value).is_ok();
        Activations { values: values.into_iter().filter(seen).collect() }
    }

    /// The values.
    pub fn values(&self) -> &[ValueId] {
        &self.values
    }

    /// Adds their observers.
    pub fn watch(&self, model: &Model, observations: &mut Observations) {
        for &value in &self.values {
            // All of these can be observed.
            let both = observations.watch(model, value, Histogram::new());
            let both = both.and_then(|()| observations.watch(model, value, Moving::new()));
            debug_assert_eq!(both, Ok(()));
        }
    }

    /// What was seen of a value; none of one that was not observed for its range.
    pub fn spread(observations: &Observations, name: &str) -> Option<Spread> {
        let distribution = observations.of(name, &Histogram::new())?.statistic();
        let mean_range = observations.of(name, &Moving::new()).and_then(Observer::statistic);
        Some(Spread { distribution, mean_range })
    }

    /// The range of a value on so many levels: see [`Method::range`].
    pub fn range(
        observations: &Observations,
        name: &str,
        method: Method,
        levels: u32,
    ) -> Option<(f32, f32)> {
        method.range(&Activations::spread(observations, name)?, levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::View;
    use crate::range::EIGHT_BITS;
    use crate::testing::{self, tensor};

    fn names<'a>(model: &'a Model, activations: &Activations) -> Vec<&'a str> {
        activations.values().iter().map(|&value| model.value(value).name()).collect()
    }

    /// The planted model with the types of what its nodes make.
    fn typed() -> Model {
        let mut model = testing::model();
        modelopt_graph::infer::infer(&mut model);
        model
    }

    #[test]
    fn float_values_of_the_main_graph_are_watched_in_order() {
        let model = typed();
        let all = Activations::of(&model);
        // Neither the weight nor what a branch makes, nor the condition, which has no type.
        assert_eq!(names(&model, &all)[..3], ["x", "y", "z"]);
        assert!(!names(&model, &all).iter().any(|name| ["w", "inner", "condition"].contains(name)));
        let some = Activations::among(
            &model,
            model
                .values()
                .filter(|&value| ["w", "z", "nowhere"].contains(&model.value(value).name())),
        );
        assert_eq!(names(&model, &some), ["z"]);
    }

    #[test]
    fn ranges_come_from_what_was_seen() {
        let model = typed();
        let mut observations = Observations::default();
        Activations::of(&model).watch(&model, &mut observations);
        for (place, numbers) in [[-1.0, 2.0], [-3.0, 4.0]].iter().enumerate() {
            observations.see("y", &View::new(&tensor(&[1, 2], numbers), place as u64));
        }
        let range = |name, method| Activations::range(&observations, name, method, EIGHT_BITS);
        assert_eq!(range("y", Method::MinMax), Some((-3.0, 4.0)));
        assert_eq!(range("y", Method::Moving), Some((-2.0, 3.0)));
        assert_eq!(range("z", Method::MinMax), None);
        assert_eq!(range("w", Method::MinMax), None);
    }
}
