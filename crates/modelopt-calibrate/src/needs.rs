//! What rewriting needs to know: which values to observe for it, and what was seen of them.

use std::collections::HashMap;

use modelopt_graph::{Model, ValueId};
use modelopt_rewrite::{self as rewrite, Plan, Precision, Seen, Statistics, Watched};

use crate::observations::Observations;
use crate::observer::Observer;
use crate::observers::{Moments, Ranges, SixteenBit};

/// What a plan's int8 layers read: for refinement and sensitivity.
#[derive(Clone, Debug)]
pub struct LayerInputs {
    watched: Vec<Watched>,
}

impl LayerInputs {
    /// The activations that the int8 layers of a plan read.
    pub fn of(model: &Model, plan: &Plan) -> Self {
        LayerInputs { watched: rewrite::watched(model, plan) }
    }

    /// Adds their observers.
    pub fn watch(&self, model: &Model, observations: &mut Observations) {
        for watched in &self.watched {
            // All of these are inputs or made by nodes, and in the main graph.
            let moments = Moments::new(watched.axis);
            let ranges = Ranges::new(watched.axis);
            let both = observations.watch(model, watched.value, moments);
            let both = both.and_then(|()| observations.watch(model, watched.value, ranges));
            debug_assert_eq!(both, Ok(()));
        }
    }

    /// What was seen of them.
    pub fn seen(self, model: &Model, observations: &Observations) -> Seen {
        let of = |watched: &Watched| {
            let name = model.value(watched.value).name();
            let moments = observations.of(name, &Moments::new(watched.axis));
            let ranges = observations.of(name, &Ranges::new(watched.axis));
            statistics(moments, ranges)
        };
        Seen::new(self.watched.into_iter().map(|watched| {
            let seen = of(&watched);
            (watched, seen)
        }))
    }
}

fn statistics(moments: Option<&Moments>, ranges: Option<&Ranges>) -> Statistics {
    let moments = moments.map(Observer::statistic).unwrap_or_default();
    let ranges = ranges.map(Observer::statistic).unwrap_or_default();
    Statistics {
        count: moments.count,
        means: moments.means,
        mean_squares: moments.mean_squares,
        ranges,
    }
}

/// What computing in 16 bits would round.
#[derive(Clone, Debug)]
pub struct Rounded {
    to: Precision,
    values: Vec<ValueId>,
}

impl Rounded {
    /// The values of a model's main graph that could be rounded.
    pub fn of(model: &Model, to: Precision) -> Self {
        Rounded { to, values: rewrite::measurable(model, to) }
    }

    /// Adds their observers, but for values that cannot be shown.
    pub fn watch(&self, model: &Model, observations: &mut Observations) {
        for &value in &self.values {
            let observer = SixteenBit::new(self.to);
            observations.watch(model, value, observer).unwrap_or_default();
        }
    }

    /// Those that rounding takes too much of, with the reason.
    pub fn unfit(
        &self,
        model: &Model,
        observations: &Observations,
        min_sqnr_db: f64,
    ) -> HashMap<ValueId, String> {
        let like = SixteenBit::new(self.to);
        let reason = |value: ValueId| {
            let name = model.value(value).name();
            let seen = observations.of(name, &like)?.statistic();
            Some((value, format!("'{name}' {}", seen.objection(self.to, min_sqnr_db)?)))
        };
        self.values.iter().copied().filter_map(reason).collect()
    }
}
